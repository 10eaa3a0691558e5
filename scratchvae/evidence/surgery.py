"""ELBO surgery: what the average KL to the prior is made of, and which latent units carry anything.

    1/N sum_n KL(q(z|x_n) || p(z)) = I(n; z) + KL(q(z) || p(z)),        q(z) = 1/N sum_n q(z|x_n)

The first part is what z tells about which example it came from, at most log N; the second how far the encoder's
codes, all examples together, are from the prior that samples are drawn from. q(z) is the exact mixture of the N given
Gaussians: nothing is estimated by minibatches.

N examples, K samples of each, Z latent dimensions, G grid points. Everything is in float64 and in nats.

Source: Hoffman, Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence lower bound"
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchvae.arguments import checked_seed, whole_positive
from scratchvae.evidence.door import door, refuse_nan
from scratchvae.posteriors import check_diagonal
from scratchvae.reference.gaussian import LOG_2_PI, kl_per_dimension_forward
from scratchvae.reference.log_sum_exp import log_sum_exp_forward
from scratchvae.reference.random import Stream, normals
from scratchvae.vae import VAE, Gaussian

ACTIVE_VARIANCE = 0.01  # Burda, Grosse, Salakhutdinov 2015, section 5.2
BLOCK = 1 << 22  # densities held together
GRID_DIMS = 2  # the most latent dimensions for integration on a grid
SPACINGS = 0.75, 0.6, 0.5  # of grids, in standard deviations of the narrowest Gaussian
TAILS = 9.0  # standard deviations that the grid reaches beyond every mean: 1e-19 of the mass lies outside
MAX_AXIS, MAX_GRID = 20_000, 1 << 24  # grid points along an axis, and in all


class Surgery(NamedTuple):
    """average_kl = mutual_information + aggregate_kl, in nats: numbers, but for kl_per_dimension (Z,), whose sum is the
    first. `error` is that of the other two, which move against each other."""

    average_kl: float  # 1/N sum_n KL(q(z|x_n) || p(z)), exact
    mutual_information: float  # I(n; z), 0 to log N
    aggregate_kl: float  # KL(q(z) || p(z)), >= 0
    error: float  # of the last two, which move against each other: a standard error, or that of integration
    kl_per_dimension: NDArray  # (Z,): the average KL of each latent dimension, exact


@door
def elbo_surgery(vae: VAE, x: ArrayLike, num_samples: int = 10, seed: int = 0) -> Surgery:
    """Carve up the average KL to the prior, by samples of every q(z|x_n).

    Formula   I(n; z) = 1/N sum_n E_{q(z|x_n)} [log q(z|x_n) - log q(z)], and the aggregate KL is what is left
              standard error sqrt(sum_n var_n / K) / N: the examples are given, only the samples vary
    Takes     x (N, D); num_samples K >= 2 of each example; seed. Time grows as N^2 K
    Raises    ValueError for bad input
    Source    Hoffman, Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence lower bound"
    """
    _check(vae)
    if whole_positive("num_samples", num_samples) < 2:
        raise ValueError("num_samples is 1; expected at least 2, for an error bar")
    q = _encode(vae, x)
    eps = normals(checked_seed(seed), Stream.AGGREGATE, 0, np.arange(len(q.mu)), num_samples * vae.latent_dim)
    z = q.mu[:, None] + np.exp(q.logvar / 2)[:, None] * eps.reshape(len(eps), num_samples, -1)
    information = _pointwise_information(q, z)
    refuse_nan(information=information)
    variance = information.var(axis=1, ddof=1) / num_samples
    return _carve(q, float(information.mean()), math.sqrt(float(variance.sum())) / len(eps))


@door
def elbo_surgery_by_quadrature(vae: VAE, x: ArrayLike) -> Surgery:
    """Carve up the average KL to the prior by integration over z, for one or two latent dimensions.

    Formula   KL(q(z) || p(z)) = integral of q(z) (log q(z) - log p(z)), by the trapezoidal rule on three grids, whose
              spread is the error: two may agree by chance. The spacing follows the narrowest Gaussian, the value is
              of the finest. The information is what is left
    Takes     x (N, D)
    Raises    ValueError for more latent dimensions, or Gaussians too narrow for a grid
    Source    Hoffman, Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence lower bound"
    """
    _check(vae)
    if vae.latent_dim > GRID_DIMS:
        raise ValueError(f"latent_dim is {vae.latent_dim}; a grid is for at most {GRID_DIMS}, elbo_surgery for any")
    q = _encode(vae, x)
    found = [_aggregate_kl(q, _grid_axes(q, spacing)) for spacing in SPACINGS]
    average = float(kl_per_dimension_forward(*q)[0].sum(axis=1).mean())
    return _carve(q, average - found[-1], max(found) - min(found))


def active_units(vae: VAE, x: ArrayLike) -> int:
    """How many latent units carry anything about x: the variance of the posterior's mean is above 0.01.

    Takes     x (N, D)
    Raises    ValueError for data that do not fit the model
    Source    Burda, Grosse, Salakhutdinov 2015, section 5.2
    """
    return sum(active_units_by_layer(vae, x))


@door
def active_units_by_layer(vae: VAE, x: ArrayLike) -> tuple[int, ...]:
    """`active_units` of each stochastic layer, the one next to the data first: one number for a `VAE`, two for a
    `HierarchicalVAE`, whose E[z2|x] is a mean over samples of z1.

    Takes     x (N, D)
    Raises    ValueError for data that do not fit the model
    Source    Burda, Grosse, Salakhutdinov 2015, section 5.2
    """
    variances = vae.mean_variances(x)
    return tuple(int((layer > ACTIVE_VARIANCE).sum()) for layer in variances)


def aggregate_log_density(q: Gaussian, z: NDArray) -> NDArray:
    """log q(z) = log 1/N sum_n N(z; mu_n, exp(logvar_n)). Takes q: (N, Z); z (G, Z); returns (G,)."""
    step = max(1, BLOCK // len(q.mu))
    parts = [log_sum_exp_forward(_log_densities(q, z[i : i + step]))[0] for i in range(0, len(z), step)]
    return np.concatenate(parts) - math.log(len(q.mu))


def _check(vae: VAE) -> None:
    vae.check_one_layer()
    check_diagonal(vae.posterior, "ELBO surgery")


def _encode(vae: VAE, x: ArrayLike) -> Gaussian:
    q = vae.encode(x)
    return Gaussian(q.mu.astype(np.float64), q.logvar.astype(np.float64))


def _carve(q: Gaussian, mutual_information: float, error: float) -> Surgery:
    per_dimension = kl_per_dimension_forward(*q)[0].mean(axis=0)
    average = float(per_dimension.sum())
    return Surgery(average, mutual_information, average - mutual_information, error, per_dimension)


def _log_densities(q: Gaussian, z: NDArray) -> NDArray:
    """log N(z_g; mu_n, exp(logvar_n)) of every point under every Gaussian, a dimension at a time: (G, N)."""
    log_density = np.full((len(z), len(q.mu)), -0.5 * q.mu.shape[1] * LOG_2_PI)
    for mu, logvar, coordinate in zip(q.mu.T, q.logvar.T, z.T, strict=True):
        log_density -= 0.5 * (logvar + np.square((coordinate[:, None] - mu) * np.exp(-0.5 * logvar)))
    return log_density


def _pointwise_information(q: Gaussian, z: NDArray) -> NDArray:
    """log q(z_nk|x_n) - log q(z_nk), at most log N. Takes z (N, K, Z); returns (N, K)."""
    examples, samples, _ = z.shape
    information = np.empty((examples, samples))
    step = max(1, BLOCK // (examples * samples))
    for start in range(0, examples, step):
        own = np.arange(start, min(start + step, examples))
        log_density = _log_densities(q, z[own].reshape(-1, z.shape[2])).reshape(len(own), samples, examples)
        # log_density (own, draws, all): log q(z|x_m) of each draw z, under all q
        of_its_own = log_density[np.arange(len(own)), :, own]
        information[own] = of_its_own - log_sum_exp_forward(log_density)[0] + math.log(examples)
    return information


def _grid_axes(q: Gaussian, spacing: float) -> list[NDArray]:
    std = np.exp(q.logvar / 2)
    low, high = (q.mu - TAILS * std).min(axis=0), (q.mu + TAILS * std).max(axis=0)
    counts = np.ceil((high - low) / (spacing * std.min(axis=0))) + 1
    if not (counts.max() <= MAX_AXIS and counts.prod() <= MAX_GRID):
        size = " x ".join(f"{count:,.0f}" for count in counts)
        raise ValueError(
            f"the narrowest standard deviation of q is {std.min():.3g}: a grid would need {size} points; expected at "
            f"most {MAX_AXIS:,} along an axis and {MAX_GRID:,} in all"
        )
    return [np.linspace(a, b, int(count)) for a, b, count in zip(low, high, counts, strict=True)]


def _aggregate_kl(q: Gaussian, axes: list[NDArray]) -> float:
    """KL(q(z) || p(z)) on a tensor grid; there the mixture's density is one matrix product of one-dimensional ones."""
    factors = []
    for axis, mu, logvar in zip(axes, q.mu.T, q.logvar.T, strict=True):
        log_density = _log_densities(Gaussian(mu[:, None], logvar[:, None]), axis[:, None])
        factors.append(np.exp(log_density) * (axis[1] - axis[0]))
    # the mass of q(z) in each cell of the grid
    mass = factors[0].mean(axis=1) if len(axes) == 1 else factors[0] @ factors[1].T / len(q.mu)
    log_cell = sum(math.log(axis[1] - axis[0]) for axis in axes)
    squares = np.square(axes[0]) if len(axes) == 1 else np.add.outer(np.square(axes[0]), np.square(axes[1]))
    log_prior = -0.5 * (squares + len(axes) * LOG_2_PI)
    seen = mass > 0  # q log q is 0 where q is
    return float((mass[seen] * (np.log(mass[seen]) - log_cell - log_prior[seen])).sum())
