# ruff: noqa: RUF001
"""Points 1, 2 and 5: log p(x) = ELBO + KL(q || p(z|x)), the ELBO in four forms, and the KL that is a term of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchvae.data import load
from scratchvae.evidence.exact import principal_components
from scratchvae.evidence.importance import importance_log_weights, prior_log_weights
from scratchvae.evidence.quadrature import Frame, expectation, integrate
from scratchvae.progress import Advance
from scratchvae.reference.gaussian import LOG_2_PI, kl_to_prior_forward
from scratchvae.reference.random import Stream, normals
from scratchvae.vae import VAE, Gaussian

from .subject import Settings, Subject

TOLERANCE = 1e-10  # nats
MAX_POINTS = 1 << 19


@dataclass(frozen=True)
class Identity:
    """The three terms of the identity, each by an integral of its own, for each example, in nats."""

    rows: NDArray  # (n,): numbers of the held-out examples
    log_evidence: NDArray  # (n,)
    elbo: NDArray  # (n,)
    kl_to_posterior: NDArray  # (n,)
    kl_to_prior: NDArray  # (n,): in closed form
    residual: NDArray  # (n,): log p(x) - ELBO - KL(q || p(z|x))
    error: NDArray  # (n,): what the quadrature says of itself
    converged: NDArray  # (n,)
    points: NDArray  # (n,)
    posterior_mean: NDArray  # (n, Z): of the true posterior
    posterior_covariance: NDArray  # (n, Z, Z)
    linear_residual: float  # the largest |residual| in the linear-Gaussian model, where all three have closed forms
    linear_examples: int

    @property
    def examples(self) -> int:
        return len(self.rows)

    @property
    def worst_residual(self) -> float:
        """The largest |residual|."""
        return float(np.abs(self.residual).max())

    @property
    def mean_log_evidence(self) -> float:
        return float(self.log_evidence.mean())

    @property
    def mean_elbo(self) -> float:
        return float(self.elbo.mean())

    @property
    def mean_gap(self) -> float:
        return float(self.kl_to_posterior.mean())

    @property
    def mean_kl_to_prior(self) -> float:
        return float(self.kl_to_prior.mean())

    @property
    def correlation(self) -> float:
        """Between the two KLs, over examples; NaN where one of the two does not vary, as over a single example."""
        both = np.stack([self.kl_to_prior, self.kl_to_posterior])
        return float(np.corrcoef(both)[0, 1]) if np.ptp(both, axis=1).all() else float("nan")

    @property
    def smallest_gap(self) -> float:
        return float(self.kl_to_posterior.min())

    @property
    def largest_gap(self) -> float:
        return float(self.kl_to_posterior.max())


def identity(subject: Subject, settings: Settings, watch: Advance = lambda: None) -> Identity:
    """log p(x), ELBO and KL(q || p(z|x)) of some held-out examples, by quadrature that shares no node between them.

    Raises    ValueError for an example of which MAX_POINTS give no integral: nothing could be said of it
    """
    rows = subject.rows(settings.examples)
    parts = []
    for row in rows:
        part = integrate(subject.vae, subject.held_out[row : row + 1], TOLERANCE, MAX_POINTS)
        if np.isnan(part.log_evidence).any():
            raise ValueError(
                f"{subject.origin}: {MAX_POINTS:,} points do not integrate p(x, z) of held-out example {row}; expected "
                "a posterior less sharp, or a decoder with fewer kinks: tanh has none"
            )
        parts.append(part)
        watch()
    terms = [np.concatenate(column) for column in zip(*parts, strict=True)]
    found = type(parts[0])(*terms)
    kl_to_prior, _ = kl_to_prior_forward(*subject.vae.encode(subject.held_out[rows]))
    residual, examples = linear_residual(subject.vae.latent_dim, settings.examples)
    return Identity(
        rows,
        found.log_evidence,
        found.elbo,
        found.kl_to_posterior,
        kl_to_prior,
        found.residual,
        found.error,
        found.converged,
        found.points,
        found.posterior_mean,
        found.posterior_covariance,
        residual,
        examples,
    )


def linear_residual(latent_dim: int, examples: int) -> tuple[float, int]:
    """The identity where every term has a closed form: probabilistic PCA of the digits and a q that is off.

    Of the digits, whatever the run's data: these may vary in no more directions than there are latent dimensions,
    and leave no variance to the decoder.
    Returns   the largest |log p(x) - ELBO - KL(q || p(z|x))|, and over how many examples
    """
    data = load("digits")
    model, x = principal_components(data.train, latent_dim), data.held_out[:examples]
    mean, _ = model.posterior(x)
    off = normals(0, Stream.LATENT, 1, np.arange(len(x)), 2 * mean.shape[1]).astype(np.float64)
    q = Gaussian(mean + 0.5 * off[:, : mean.shape[1]], -1.0 + 0.5 * off[:, mean.shape[1] :])
    residual = model.log_evidence(x) - model.elbo(x, q) - model.kl_to_posterior(x, q)
    return float(np.abs(residual).max()), len(x)


# --- the ELBO in its forms --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forms:
    """One ELBO in four forms: by integration, and estimated from draws of z, whose noise differs from form to form."""

    names: tuple[str, ...]
    exact: NDArray  # (4, n)
    sampled: NDArray  # (3, n): means over draws; the fourth form has no estimate
    deviation: NDArray  # (3, n): standard deviation of a single draw
    samples: int
    trace: NDArray  # (3, samples): the draws of the first example

    @property
    def means(self) -> list[float]:
        return [float(row.mean()) for row in self.exact]

    @property
    def mean_deviations(self) -> list[float]:
        return [float(row.mean()) for row in self.deviation]

    @property
    def sampled_means(self) -> list[float]:
        return [float(row.mean()) for row in self.sampled]

    @property
    def sampled_errors(self) -> list[float]:
        """Standard errors of `sampled_means`."""
        return [float(np.sqrt(np.square(row).sum() / self.samples) / row.size) for row in self.deviation]

    @property
    def spread(self) -> float:
        """The largest difference between two forms, over all examples."""
        return float(np.ptp(self.exact, axis=0).max())


FORMS = (
    "E[log p(x, z) − log q(z|x)]",
    "E[log p(x|z)] − KL(q ‖ prior)",
    "E[log p(x, z)] + entropy of q",
    "log p(x) − gap",
)


def forms(subject: Subject, settings: Settings, found: Identity, seed: int, watch: Advance = lambda: None) -> Forms:
    """The four forms of the ELBO on the examples of `found`."""
    vae, x = subject.vae, subject.held_out[found.rows]
    q = vae.encode(x)
    entropy = 0.5 * (q.logvar + LOG_2_PI + 1).sum(axis=1)
    integrals = []
    for row, mu, logvar in zip(x, *q, strict=True):
        of_row = vae, row, Gaussian(mu, logvar)
        integrals.append((expectation_of_log_likelihood(*of_row), expectation_of_log_joint(*of_row)))
        watch()
    log_likelihood, log_joint = np.array(integrals).T
    exact = (
        found.elbo,
        log_likelihood - found.kl_to_prior,
        log_joint + entropy,
        found.log_evidence - found.kl_to_posterior,
    )
    draws = sampled_forms(vae, x, found.kl_to_prior, entropy, settings.form_samples, seed)
    return Forms(
        FORMS, np.array(exact), draws.mean(axis=2), draws.std(axis=2, ddof=1), settings.form_samples, draws[:, 0]
    )


def expectation_of_log_likelihood(vae: VAE, x: NDArray, q: Gaussian) -> float:
    """E_q log p(x|z) of one example (D,), as `_expectation`."""
    return _expectation(vae, q, lambda z: vae.log_likelihood(x[None], z)[0])


def expectation_of_log_joint(vae: VAE, x: NDArray, q: Gaussian) -> float:
    """E_q log p(x, z) of one example (D,), as `_expectation`."""
    return _expectation(vae, q, lambda z: vae._log_joint(x[None], z)[0])


def _expectation(vae: VAE, q: Gaussian, integrand: Callable[[NDArray], NDArray]) -> float:
    """By integration, in nats, of a function of z (1, G, Z): where no two rules of at most MAX_POINTS agree that of the
    finest, which is then off by more than TOLERANCE; `Forms.spread` shows it. NaN where even the first has more."""
    frame = Frame.of(q.mu, np.diag(np.exp(q.logvar)))
    return expectation(vae, frame, lambda u: integrand(frame.points(u)[None]), TOLERANCE, MAX_POINTS).last


def sampled_forms(vae: VAE, x: NDArray, kl: NDArray, entropy: NDArray, samples: int, seed: int) -> NDArray:
    """The integrand of each of the first three forms at draws of z from q: (3, n, samples)."""
    head = np.concatenate(vae.encode(x), axis=1)
    eps = normals(seed, Stream.POSTERIOR, 0, np.arange(len(x)), samples * vae.latent_dim).astype(np.float64)
    eps = eps.reshape(len(x), samples, vae.latent_dim)
    z, _, _ = vae.ops.posterior_forward(head, eps)
    first = importance_log_weights(vae, x, head, eps)
    second = prior_log_weights(vae, x, head, z) - kl[:, None]
    third = vae.log_joint(x, z) + entropy[:, None]
    return np.array([first, second, third])
