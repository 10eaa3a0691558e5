"""Point 9: two unbiased gradients of the same ELBO, and how much they scatter."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchvae.evidence.gap import elbo_and_gradient
from scratchvae.reference.gaussian import kl_to_prior_backward, kl_to_prior_forward
from scratchvae.reference.random import Stream, normals
from scratchvae.vae import VAE

from .identity import Identity
from .subject import Settings, Subject

NAMES = ("score function", "score function with baseline", "reparameterized")


@dataclass(frozen=True)
class GradientNoise:
    """Single-draw estimates of d ELBO / d (mu, logvar) for n examples. M methods, S draws."""

    names: tuple[str, ...]
    mean: NDArray  # (M, n, 2 Z): means over draws
    error: NDArray  # (M, n, 2 Z): standard errors of these means
    difference_error: NDArray  # (M - 1, n, 2 Z): standard errors of their differences from the last, draw by draw
    variance: NDArray  # (M, n): of a single draw, summed over the 2 Z components
    histogram: NDArray  # (M, S): d ELBO / d mu_1 of one example, draw by draw
    samples: int
    examples: int

    @property
    def mean_variance(self) -> list[float]:
        return [float(row.mean()) for row in self.variance]

    @property
    def ratios(self) -> list[float]:
        """How many draws each method needs for the noise of one reparameterized draw: ratio of mean variances."""
        return [float(row.mean() / self.variance[-1].mean()) for row in self.variance]

    @property
    def disagreement(self) -> float:
        """The largest difference between the means of two methods, in standard errors: no more than a few."""
        difference = self.mean[:-1] - self.mean[-1]
        return float(np.abs(difference / self.difference_error).max())


def gradient_noise(subject: Subject, settings: Settings, found: Identity, seed: int) -> GradientNoise:
    """Both estimators, with the same noise, on the same model and examples.

    So the means of two methods are not independent: the error of their difference is that of paired differences.
    """
    x = subject.held_out[found.rows[: settings.gradient_examples]]
    draws = []
    for row, x_row in enumerate(x):
        eps = normals(seed, Stream.POSTERIOR, 1, np.array([row]), settings.gradient_samples * subject.vae.latent_dim)
        eps = eps.reshape(settings.gradient_samples, subject.vae.latent_dim).astype(np.float64)
        score = score_function_draws(subject.vae, x_row, eps)
        centred = score_function_draws(subject.vae, x_row, eps, baseline=True)
        draws.append((score, centred, reparameterized_draws(subject.vae, x_row, eps)))
    stacked = np.moveaxis(np.array(draws), 1, 0)  # (M, n, S, 2 Z)
    deviation = stacked.std(axis=2, ddof=1)
    of_difference = (stacked[:-1] - stacked[-1]).std(axis=2, ddof=1)
    return GradientNoise(
        NAMES,
        stacked.mean(axis=2),
        deviation / np.sqrt(settings.gradient_samples),
        of_difference / np.sqrt(settings.gradient_samples),
        np.square(deviation).sum(axis=2),
        stacked[:, 0, :, 0],
        settings.gradient_samples,
        len(x),
    )


def score_function_draws(vae: VAE, x: NDArray, eps: NDArray, baseline: bool = False) -> NDArray:
    """d ELBO / d (mu, logvar) from each draw, without a gradient of the decoder.

    Formula   log p(x|z) d log q(z)/d(mu, logvar) - d KL/d(mu, logvar)
              d log q/d mu = (z - mu) / sigma^2 = eps / sigma        d log q/d logvar = (eps^2 - 1) / 2
              baseline: log p(x|z) less its mean over the other draws, which changes no expectation
    Takes     x (D,), eps (S, Z)
    Returns   (S, 2 Z)
    Source    Williams 1992; Mnih, Gregor 2014
    """
    mu, logvar = vae.encode(x[None])
    z = mu + np.exp(0.5 * logvar) * eps
    reward = vae.log_likelihood(x[None], z[None])[0]  # log p(x|z) of each draw
    if baseline:
        reward = (reward - reward.mean()) * len(reward) / (len(reward) - 1)  # less the mean of the others
    score = np.concatenate([eps / np.exp(0.5 * logvar), 0.5 * (eps**2 - 1)], axis=1)
    _, cache = kl_to_prior_forward(mu, logvar)
    dkl = np.concatenate(kl_to_prior_backward(np.ones(1), cache), axis=1)
    return reward[:, None] * score - dkl


def reparameterized_draws(vae: VAE, x: NDArray, eps: NDArray) -> NDArray:
    """d ELBO / d (mu, logvar) from each draw, through z = mu + sigma eps and the decoder. Returns (S, 2 Z)."""
    head = np.concatenate(vae.encode(x[None]), axis=1)
    rows = len(eps)
    _, dhead = elbo_and_gradient(vae, np.repeat(x[None], rows, 0), np.repeat(head, rows, 0), eps[:, None])
    return dhead
