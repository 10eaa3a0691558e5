"""Point 10: squared error is a Gaussian decoder, its weight is a variance, and so is the KL's.

On the linear-Gaussian model everything is exact: for a decoder variance s2 that is held fixed, the best W keeps the
directions whose variance is above s2 and gives up the others. So the variance that a loss implies decides how many
latent units survive.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scratchvae.audit import PRESETS, audit
from scratchvae.data import load
from scratchvae.evidence.exact import (
    active_units_at,
    covariance_eigenvalues,
    left_out_variance,
    principal_components,
)
from scratchvae.objectives import ELBO
from scratchvae.reference.random import Stream, normals
from scratchvae.vae import VAE

from .subject import Settings

LATENT_DIM = 16
SWEEP = 81
BETA = 0.3  # of the check: any weight would do


@dataclass(frozen=True)
class Implied:
    """What one loss, written for these data, does to the linear model."""

    name: str
    code: str
    beta: float
    variance: float
    active: int
    log_evidence: float  # mean log p(x) of the best W with this variance, nats


@dataclass(frozen=True)
class SquaredError:
    """The digits' spectrum, log p(x) for every decoder variance, and what losses imply."""

    eigenvalues: NDArray  # (D,): variances of the data along their principal directions
    variances: NDArray  # (S,)
    log_evidence: NDArray  # (S,): mean log p(x) of the best W with each variance
    active: NDArray  # (S,)
    best_variance: float  # the maximum of the likelihood: the mean of the left-out eigenvalues
    best_log_evidence: float
    implied: tuple[Implied, ...]
    latent_dim: int
    data_dim: int
    beta: float
    gradient_difference: float  # between beta on the KL and beta as variance, norm-relative

    @property
    def best_deviation(self) -> float:
        return float(np.sqrt(self.best_variance))

    @property
    def pixel_deviation(self) -> float:
        """Root mean square deviation of a pixel from its mean."""
        return float(np.sqrt(self.eigenvalues.mean()))


def squared_error(settings: Settings, seed: int) -> SquaredError:
    """On the digits as grey values, without binarization."""
    x = load("digits").train.astype(np.float64)
    best = left_out_variance(x, LATENT_DIM)
    variances = np.geomspace(best / 20, 3 * x.shape[1] / 2, SWEEP)
    curve = [best_with_variance(x, s2) for s2 in variances]
    return SquaredError(
        eigenvalues=covariance_eigenvalues(x),
        variances=variances,
        log_evidence=np.array(curve),
        active=np.array([active_units_at(x, s2, LATENT_DIM) for s2 in variances]),
        best_variance=best,
        best_log_evidence=best_with_variance(x, best),
        implied=tuple(implied_by(name, x) for name in ("textbook-gaussian", "mse-sum", "mse-mean", "mse-mean-kl-mean")),
        latent_dim=LATENT_DIM,
        data_dim=x.shape[1],
        beta=BETA,
        gradient_difference=gradient_difference(x, seed),
    )


def best_with_variance(x: NDArray, variance: float) -> float:
    """Mean log p(x) of the best linear-Gaussian model whose decoder variance is held at s2."""
    return float(principal_components(x, LATENT_DIM, variance).log_evidence(x).mean())


def implied_by(name: str, x: NDArray) -> Implied:
    """A recipe people copy, on these data."""
    recipe = replace(PRESETS[name], data_dim=x.shape[1], latent_dim=LATENT_DIM)
    found = audit(recipe)
    variance = found.variance or float("nan")
    active = active_units_at(x, variance, LATENT_DIM)
    return Implied(name, recipe.code, found.beta, variance, active, best_with_variance(x, variance))


def gradient_difference(x: NDArray, seed: int) -> float:
    """Whether 1/2 |x - xhat|^2 + beta KL is the ELBO with s2 = beta: ||s2 g(variance) - g(beta)|| / ||g(beta)||.

    g(beta) is the gradient of a unit Gaussian's loss with weight beta on the KL; g(variance) that of the true ELBO of a
    decoder with variance s2 = beta. Encoder and decoder only: the variance itself is held.
    """
    unit = VAE(x.shape[1], LATENT_DIM, (8,), "gaussian", "tanh", "float64", "reference", seed)
    varied = VAE(x.shape[1], LATENT_DIM, (8,), "gaussian-learned", "tanh", "float64", "reference", seed)
    varied.parameters["likelihood.logvar"][...] = np.log(BETA)
    rows = np.arange(32)
    eps = normals(seed, Stream.POSTERIOR, 2, rows, LATENT_DIM).astype(np.float64)
    _, by_beta = unit.value_and_grad(x[rows], eps, ELBO(beta=BETA))
    _, by_variance = varied.value_and_grad(x[rows], eps, ELBO())
    difference = sum(np.square(BETA * by_variance[name] - by_beta[name]).sum() for name in by_beta)
    return float(np.sqrt(difference / sum(np.square(array).sum() for array in by_beta.values())))
