"""Point 4: the true posterior p(z|x) beside q(z|x), where the gap is small and where it is large."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchvae.evidence.gap import best_posterior
from scratchvae.evidence.quadrature import posterior_on_grid
from scratchvae.progress import Advance
from scratchvae.reference.gaussian import LOG_2_PI
from scratchvae.vae import VAE, Gaussian

from .identity import Identity, expectation_of_log_joint
from .subject import Settings, Subject

GRID = 121  # points along each axis of a picture
MARGIN = 4.0  # standard deviations around both


@dataclass(frozen=True)
class Shape:
    """Both densities of one example on the same grid over the first two latent dimensions (or the only one)."""

    row: int
    image: NDArray  # (D,)
    label: str | float | None
    gap: float  # nats
    axes: tuple[NDArray, ...]
    posterior: NDArray  # p(z|x) on the grid
    approximation: NDArray  # q(z|x) on the grid
    posterior_mean: NDArray  # (Z,)
    posterior_covariance: NDArray  # (Z, Z)
    mu: NDArray  # (Z,)
    variance: NDArray  # (Z,)
    best_elbo: float  # of the best diagonal Gaussian found for this image, at least that of q
    approximation_gap: float  # log p(x) - best ELBO: the price of the family, or more where the search fell short
    amortization_gap: float  # best ELBO - ELBO: the price of one encoder for all, or less

    @property
    def posterior_correlation(self) -> float:
        """Between the first two latent dimensions: what a diagonal q cannot have."""
        covariance = self.posterior_covariance
        if len(covariance) < 2:
            return 0.0
        return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


@dataclass(frozen=True)
class Shapes:
    """Examples in order of their gap: the smallest, and the largest."""

    shapes: tuple[Shape, ...]

    @property
    def smallest(self) -> Shape:
        return self.shapes[0]

    @property
    def largest(self) -> Shape:
        return self.shapes[-1]


def shapes(subject: Subject, settings: Settings, found: Identity, watch: Advance = lambda: None) -> Shapes:
    """The examples of `found` with the smallest and the largest gaps, half of each."""
    order = np.argsort(found.kl_to_posterior)
    half = max(1, settings.shown // 2)
    chosen = np.concatenate([order[:half], order[half:][-half:]])  # each once, where there are few
    best = best_posterior(subject.vae, subject.held_out[found.rows[chosen]])
    drawn = []
    for number, index in enumerate(chosen):
        drawn.append(shape(subject, found, int(index), Gaussian(best.mu[number], best.logvar[number])))
        watch()
    return Shapes(tuple(drawn))


def shape(subject: Subject, found: Identity, index: int, best: Gaussian) -> Shape:
    """One example of `found` on a grid around both densities. Takes best: the best q for it, mu and logvar (Z,)."""
    row = int(found.rows[index])
    vae, x = subject.vae, subject.held_out[row : row + 1]
    mean, covariance = found.posterior_mean[index], found.posterior_covariance[index]
    (mu,), (logvar,) = vae.encode(x)
    widths = np.sqrt(np.diag(covariance)), np.exp(0.5 * logvar)
    low = np.minimum(mean - MARGIN * widths[0], mu - MARGIN * widths[1])
    high = np.maximum(mean + MARGIN * widths[0], mu + MARGIN * widths[1])
    centre, half = (low + high) / 2, (high - low).max() / 2  # square: a circle is drawn as a circle
    axes = tuple(np.linspace(c - half, c + half, GRID) for c in centre)
    density = np.exp(posterior_on_grid(vae, x, axes).log_density[0])
    q = np.exp(_log_normal(axes, mu, logvar))
    for axis in reversed(range(2, vae.latent_dim)):  # a picture has two dimensions: the others are summed out
        density, q = (np.trapezoid(values, axes[axis], axis=axis) for values in (density, q))
    label = None if subject.labels is None else subject.labels[row].item()
    log_evidence, elbo = float(found.log_evidence[index]), float(found.elbo[index])
    best_elbo = max(elbo, elbo_of(vae, x[0], best))
    return Shape(
        row,
        x[0],
        label,
        float(found.kl_to_posterior[index]),
        axes[:2],
        density,
        q,
        mean,
        covariance,
        mu,
        np.exp(logvar),
        best_elbo,
        log_evidence - best_elbo,
        best_elbo - elbo,
    )


def elbo_of(vae: VAE, x: NDArray, q: Gaussian) -> float:
    """The ELBO of any diagonal Gaussian for one example (D,): E_q log p(x, z) by integration, plus q's entropy."""
    return expectation_of_log_joint(vae, x, q) + 0.5 * float((q.logvar + LOG_2_PI + 1).sum())


def _log_normal(axes: tuple[NDArray, ...], mu: NDArray, logvar: NDArray) -> NDArray:
    """log of a diagonal Gaussian on a tensor grid."""
    terms = [-0.5 * ((axis - m) ** 2 / np.exp(v) + v + LOG_2_PI) for axis, m, v in zip(axes, mu, logvar, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total[..., None] + term
    return total
