"""The score-function gradient of the ELBO, for comparison."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scratchvae.objectives.estimator import Estimator
from scratchvae.objectives.log_weights import log_weights_forward
from scratchvae.objectives.sampled import Sampled, Upstream


@dataclass(frozen=True)
class ScoreFunction(Estimator):
    """The ELBO as the mean of K log-weights, its encoder gradient without a derivative of log p or of the draw.

    Derived   d/dphi E_q [log w] = E_q [log w d log q / d phi] + E_q [d log w / d phi at fixed z]. The second term is
              -E_q [d log q / d phi] = 0, so
              g = 1/K sum_k log w_k d log q(z_k) / d phi
    Unbiased  for any K. Where q is the posterior it is log p(x) times a noise of mean 0: it is known for its variance
    Raises    ValueError for num_samples < 1
    Source    Williams 1992; Paisley, Blei, Jordan 2012; Ranganath, Gerrish, Blei 2014, equation 3, without their
              control variates
    """

    name: str = "score-function"

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """The value, the mean of log w (B,), and g through log q's parameters alone: z is a number here."""
        rows, samples = sampled.log_likelihood.shape
        log_weights = log_weights_forward(ops, sampled)
        _, dhead = sampled.posterior.draw_scores(-log_weights / (rows * samples), sampled.eps, sampled.head)
        dlog_likelihood = np.full((rows, samples), -1.0 / (rows * samples), log_weights.dtype)
        value = log_weights.sum(axis=1) / samples
        return value, Upstream(
            dlog_likelihood,
            np.zeros(rows, log_weights.dtype),
            dhead=dhead,
            path=np.zeros_like(dlog_likelihood),  # nothing reaches the encoder through z
        )

    def encoder_surrogate(self, ops: ModuleType, sampled: Sampled, fixed: Sampled) -> NDArray:
        """1/K sum_k log w_k log q(z_k) (B,), with the samples and their weights held fixed."""
        log_weights = log_weights_forward(ops, fixed)
        log_posterior, _ = sampled.posterior.log_density_forward(fixed.z, sampled.head)
        return (log_weights * log_posterior).mean(axis=1)
