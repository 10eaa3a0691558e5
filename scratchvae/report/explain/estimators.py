"""Point 8: why p(x|z) is not averaged over the prior. Estimates of log p(x) against the exact value, as Z grows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchvae.data import load
from scratchvae.evidence.annealed import PILOT_TEMPERATURES, PILOT_WARM_UP, annealed_importance
from scratchvae.evidence.exact import LinearGaussian, principal_components
from scratchvae.evidence.importance import Evidence, importance_evidence, importance_log_weights, prior_evidence
from scratchvae.progress import Advance
from scratchvae.reference.importance import importance_bound_forward
from scratchvae.reference.random import Stream, normals
from scratchvae.vae import VAE

from .identity import Identity
from .subject import Settings, Subject

CHAINS, LEAPFROG = 8, 5
NAMES = ("prior", "importance", "annealed")


@dataclass(frozen=True)
class Estimators:
    """Error of each estimator of log p(x) over some examples, against the exact value. M methods, S dimensions Z."""

    names: tuple[str, ...]
    latent_dims: NDArray  # (S,)
    bias: NDArray  # (M, S): mean over examples of estimate - exact, nats
    error: NDArray  # (M, S): its standard error over examples
    claimed: NDArray  # (M, S): the standard error that the estimator itself reports, root mean square
    effective: NDArray  # (M, S): median effective sample size
    gap: NDArray  # (S,): log p(x) - ELBO of the encoder, exact
    exact: NDArray  # (S,): mean log p(x)
    points: int  # decoder evaluations an example
    examples: int
    bounds: "Bounds"

    def row(self, name: str) -> dict[str, NDArray]:
        """One method's columns."""
        index = self.names.index(name)
        return {key: getattr(self, key)[index] for key in ("bias", "error", "claimed", "effective")}


@dataclass(frozen=True)
class Bounds:
    """ELBO = L_1 <= L_5 <= ... <= log p(x): importance-weighted bounds on the subject's images, means over examples."""

    samples: NDArray  # (S,): K
    values: NDArray  # (S,)
    errors: NDArray  # (S,): standard errors of the sampling
    elbo: float  # exact
    log_evidence: float  # exact
    draws: int  # of z for each example

    @property
    def in_order(self) -> bool:
        """Whether each is at most the next and the last at most log p(x), within three of their standard errors."""
        values, errors = [*self.values, self.log_evidence], [*self.errors, 0.0]
        pairs = zip(values[:-1], values[1:], errors[:-1], errors[1:], strict=True)
        return all(low <= high + 3 * np.hypot(a, b) for low, high, a, b in pairs)


def estimators(
    subject: Subject, settings: Settings, found: Identity, seed: int, watch: Advance = lambda: None
) -> Estimators:
    """Three estimators on linear-Gaussian models of the digits with more and more latent dimensions."""
    data = load("digits")
    train, x = data.train.astype(np.float64), data.held_out[: settings.evidence_examples].astype(np.float64)
    columns = []
    for latent_dim in settings.latent_dims:
        vae = turned_components(train, latent_dim, seed)
        model = LinearGaussian.from_vae(vae)
        exact = model.log_evidence(x)
        estimates = []
        for name in NAMES:
            estimates.append(estimate(name, vae, x, settings.evidence_points, seed))
            watch()
        columns.append((estimates, exact, model.gap))
    table = [[_summary(estimates[method], exact) for estimates, exact, _ in columns] for method in range(len(NAMES))]
    bias, error, claimed, effective = np.moveaxis(np.array(table), 2, 0)
    return Estimators(
        NAMES,
        np.array(settings.latent_dims),
        bias,
        error,
        claimed,
        effective,
        np.array([gap for *_, gap in columns]),
        np.array([exact.mean() for _, exact, _ in columns]),
        settings.evidence_points,
        len(x),
        bounds(subject, settings, found, seed, watch),
    )


def turned_components(x: NDArray, latent_dim: int, seed: int) -> VAE:
    """Probabilistic PCA of x as a VAE whose latent axes have been turned, with the best diagonal q as its encoder.

    Turning W leaves p(x) as it is, but the posterior is no longer diagonal: q has a gap, as in any real model.
    """
    model = principal_components(x, latent_dim)
    square = normals(seed, Stream.WEIGHTS, 1000, np.arange(latent_dim), latent_dim).astype(np.float64)
    turned = LinearGaussian(np.linalg.qr(square)[0] @ model.weight, model.bias, model.variance[:1])
    vae = VAE(x.shape[1], latent_dim, (), "gaussian-learned", dtype="float64", engine="reference")
    vae.parameters["likelihood.logvar"][...] = np.log(turned.variance[0])
    vae.parameters["decoder.head.weight"][...] = turned.weight
    vae.parameters["decoder.head.bias"][...] = turned.bias
    to_mean = np.linalg.solve(turned.precision, turned.weight / turned.variance).T
    vae.parameters["encoder.head.weight"][:, :latent_dim] = to_mean
    vae.parameters["encoder.head.weight"][:, latent_dim:] = 0.0
    vae.parameters["encoder.head.bias"][:latent_dim] = -turned.bias @ to_mean
    vae.parameters["encoder.head.bias"][latent_dim:] = -np.log(np.diag(turned.precision))
    return vae


def estimate(name: str, vae: VAE, x: NDArray, points: int, seed: int) -> Evidence:
    """One estimator with about `points` decoder evaluations an example, so that the comparison is fair."""
    if name == "prior":
        return prior_evidence(vae, x, points, seed)
    if name == "importance":
        return importance_evidence(vae, x, points, seed)
    return annealed_importance(vae, x, CHAINS, affordable_temperatures(points), LEAPFROG, seed=seed)


def affordable_temperatures(points: int) -> int:
    """The most temperatures T whose T - 2 transitions and pilot run need at most `points` decoder evaluations, the two
    starts included."""
    transitions = (points - 2 * CHAINS) // (CHAINS * LEAPFROG) + 2 - PILOT_WARM_UP
    return max(2, transitions // 2, transitions - PILOT_TEMPERATURES)


def _summary(found: Evidence, exact: NDArray) -> tuple[float, ...]:
    """bias, its standard error, the error claimed, and the effective sample size."""
    miss = found.log_evidence - exact
    error = float(miss.std(ddof=1) / np.sqrt(len(miss))) if len(miss) > 1 else float("nan")
    claimed = float(np.sqrt(np.square(found.standard_error).mean()))
    return float(miss.mean()), error, claimed, float(np.median(found.effective_sample_size))


def bounds(subject: Subject, settings: Settings, found: Identity, seed: int, watch: Advance = lambda: None) -> Bounds:
    """L_K on the examples of `found`, from the same draws cut into more or fewer groups of K."""
    vae, draws = subject.vae, max(2 * max(settings.bound_samples), settings.bound_draws)
    rows = []
    for row in found.rows:
        x = subject.held_out[row : row + 1]
        eps = normals(seed, Stream.POSTERIOR, 3, np.array([row]), draws * vae.latent_dim).astype(np.float64)
        head = np.concatenate(vae.encode(x), axis=1)
        log_weights = importance_log_weights(vae, x, head, eps.reshape(1, draws, vae.latent_dim))[0]
        rows.append([_bound(log_weights, samples) for samples in settings.bound_samples])
    watch()
    values, errors = np.moveaxis(np.array(rows), 2, 0)  # (n, S) each
    return Bounds(
        np.array(settings.bound_samples),
        values.mean(axis=0),
        np.sqrt(np.square(errors).sum(axis=0)) / len(rows),
        found.mean_elbo,
        found.mean_log_evidence,
        draws,
    )


def _bound(log_weights: NDArray, samples: int) -> tuple[float, float]:
    """L_K from draws (S,) in groups of K: mean over groups and its standard error."""
    groups = log_weights[: len(log_weights) // samples * samples].reshape(-1, samples)
    values, _ = importance_bound_forward(groups)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
