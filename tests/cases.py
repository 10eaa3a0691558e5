"""Models, data and noise for tests: small, random in every tensor, and drawn by hypothesis where a test wants many."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import scratchvae as sv
from scratchvae.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Poisson,
)
from scratchvae.objectives import Objective
from scratchvae.parameters import ACTIVATION_CODES

LIKELIHOOD_NAMES = tuple(LIKELIHOODS)
ACTIVATION_NAMES = tuple(ACTIVATION_CODES)


class Case(NamedTuple):
    """A model and what it is called with."""

    vae: sv.VAE
    x: NDArray  # (B, D)
    eps: NDArray  # (B, K, Z)


def random_weights(vae: sv.VAE, rng: np.random.Generator, scale: float = 0.6) -> sv.VAE:
    """The model with every tensor random, biases too: an all-zero tensor would hide mistakes. Scales, around theirs."""
    for name, array in vae.parameters.items():
        start = vae.likelihood.parameter_start().get(name, 0.0)
        array[...] = start + scale * rng.normal(size=array.shape)
    return vae


def random_data(vae: sv.VAE, rng: np.random.Generator, rows: int) -> NDArray:
    """Data that the likelihood can explain, whatever the model says of them."""
    shape, likelihood = (rows, vae.data_dim), vae.likelihood
    match likelihood:
        case Bernoulli():
            return (rng.random(shape) < 0.5).astype(float)
        case ContinuousBernoulli():
            return rng.random(shape)
        case DiscretisedLogistic():
            return rng.integers(0, likelihood.levels, shape) / (likelihood.levels - 1)
        case Categorical():
            return one_hot(rng, rows, likelihood.sizes or (vae.data_dim,))
        case Poisson():
            return rng.poisson(1.5, shape).astype(float)
    return rng.normal(size=shape)


def one_hot(rng: np.random.Generator, rows: int, sizes: tuple[int, ...]) -> NDArray:
    """Groups of columns, one of which is 1 in every row and group."""
    return np.concatenate([np.eye(size)[rng.integers(0, size, rows)] for size in sizes], axis=1)


def build(
    data_dim: int = 5,
    latent_dim: int = 2,
    hidden: tuple[int, ...] = (4,),
    likelihood: str = "bernoulli",
    activation: str = "tanh",
    dtype: str = "float64",
    engine: str = "reference",
    rows: int = 3,
    samples: int = 2,
    seed: int = 0,
    posterior: str = "diagonal",
) -> Case:
    """A model with random weights, data it may be given and noise."""
    rng = np.random.default_rng(seed)
    vae = sv.VAE(data_dim, latent_dim, hidden, likelihood, activation, dtype, engine, posterior=posterior)
    vae = random_weights(vae, rng, 0.2 if likelihood == "poisson" else 0.6)  # rates are exponentials of the decoder's
    return Case(vae, random_data(vae, rng, rows), rng.normal(size=(rows, samples, latent_dim)))


@st.composite
def architectures(draw: st.DrawFn) -> dict:
    """Arguments of `build`, but for the engine: depth 0 to 3, any likelihood and activation, odd sizes."""
    size, likelihood = st.integers(1, 9), draw(st.sampled_from(LIKELIHOOD_NAMES))
    return {
        "data_dim": draw(st.integers(2, 9) if likelihood == "categorical" else size),  # a column alone is always 1
        "latent_dim": draw(st.integers(1, 5)),
        "hidden": tuple(draw(st.lists(size, max_size=3))),
        "likelihood": likelihood,
        "activation": draw(st.sampled_from(ACTIVATION_NAMES)),
        "rows": draw(st.integers(1, 6)),
        "samples": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def objectives(samples: int) -> st.SearchStrategy[Objective]:
    """The bound, a weighted KL, and the importance-weighted bound."""
    return st.sampled_from([sv.ELBO(samples), sv.ELBO(samples, beta=0.3), sv.IWAE(samples)])


def with_posterior(posterior: str, engine: str) -> Case:
    """An untrained small model and 40 binary examples that have something to learn."""
    rng = np.random.default_rng(0)
    x = (rng.random((40, 1)) < rng.choice([0.1, 0.9], size=(40, 6))).astype(float)
    vae = sv.VAE(6, 2, (8,), "bernoulli", "tanh", "float64", engine, posterior=posterior)
    return Case(vae, x, rng.normal(size=(40, 1, 2)))


class LinearGaussian(NamedTuple):
    """A model whose log p(x) is known: z ~ N(0, I), x|z ~ N(W z + b, I), so x ~ N(b, W W^T + I)."""

    vae: sv.VAE
    x: NDArray  # (B, D)
    log_evidence: NDArray  # (B,)


def linear_gaussian(
    engine: str = "reference",
    orthogonal: bool = True,
    rows: int = 6,
    seed: int = 0,
    scale: float = 1.0,
    posterior: str = "diagonal",
) -> LinearGaussian:
    """A linear model with the best encoder of its family for its decoder: the posterior itself where that is full.

    W (D, Z) as in the source, the decoder's weight (Z, D) transposed; the best diagonal encoder is exact where the
    columns of W are orthogonal.

    Posterior   N(M^-1 W^T (x - b), M^-1), M = W^T W + I; best diagonal: that mean, variances 1 / diag(M)
    Source      Tipping, Bishop 1999; Lucas, Tucker, Grosse, Norouzi 2019
    """
    rng = np.random.default_rng(seed)
    data_dim, latent_dim = 6, 3
    w = scale * rng.normal(size=(data_dim, latent_dim))
    if orthogonal:
        w = np.linalg.qr(w)[0] * np.array([0.5, 1.0, 2.0])
    b = rng.normal(size=data_dim)
    m = w.T @ w + np.eye(latent_dim)
    vae = sv.VAE(data_dim, latent_dim, (), "gaussian", "identity", "float64", engine, posterior=posterior)
    to_mean = w @ np.linalg.inv(m)
    vae.parameters["encoder.head.weight"][:, :latent_dim] = to_mean
    vae.parameters["encoder.head.weight"][:, latent_dim:] = 0
    if posterior == "full":
        cholesky = np.linalg.cholesky(np.linalg.inv(m))
        spread = np.concatenate([2 * np.log(np.diag(cholesky)), cholesky[np.tril_indices(latent_dim, -1)]])
    else:
        spread = -np.log(np.diag(m))
    vae.parameters["encoder.head.bias"][:] = np.concatenate([-b @ to_mean, spread])
    vae.parameters["decoder.head.weight"][...] = w.T
    vae.parameters["decoder.head.bias"][:] = b

    covariance = w @ w.T + np.eye(data_dim)
    x = rng.multivariate_normal(b, covariance, size=rows)
    distance = ((x - b) * np.linalg.solve(covariance, (x - b).T).T).sum(axis=1)
    log_determinant = np.linalg.slogdet(covariance)[1]
    return LinearGaussian(vae, x, -0.5 * (data_dim * np.log(2 * np.pi) + log_determinant + distance))
