"""The evidence lower bound."""

from dataclasses import dataclass
from numbers import Real
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scratchvae.objectives.sampled import Sampled, Upstream, check_samples


@dataclass(frozen=True)
class ELBO:
    """The evidence lower bound, its expectation estimated by the mean over K samples, its KL exact.

    Gives     elbo_b = 1/K sum_k log p(x_b|z_bk) - beta KL(q(z|x_b) || p(z))     beta = 1 is the bound itself
    Raises    ValueError for num_samples < 1 or a beta that is negative or not finite
    Source    Kingma, Welling 2013, equation 10; beta: Higgins et al. 2017, equation 4
    """

    num_samples: int = 1
    beta: float = 1.0
    name: str = "elbo"

    def __post_init__(self) -> None:
        check_samples(self.num_samples)
        if not (isinstance(self.beta, Real) and np.isfinite(self.beta) and self.beta >= 0):
            raise ValueError(f"beta is {self.beta!r}; expected a finite number that is not negative")

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """Value (B,) and d loss / d log_likelihood = -1/(B K), d loss / d kl = beta / B."""
        rows, samples = sampled.log_likelihood.shape
        value = sampled.reconstruction - self.beta * sampled.kl
        dtype = sampled.kl.dtype
        return value, Upstream(
            dlog_likelihood=np.full((rows, samples), -1.0 / (rows * samples), dtype),
            dkl=np.full(rows, self.beta / rows, dtype),
        )

    def of_log_weights(self, ops: ModuleType, log_weights: NDArray) -> tuple[NDArray, NDArray]:
        """The bound with its KL estimated from the samples: (B,), the mean of log w (B, K); and d loss / d log w.

        Gives     elbo_b = 1/K sum_k log w_bk        d loss / d log w_bk = -1/(B K)
        Raises    ValueError for a beta other than 1: the log-weights do not tell the KL from the rest
        """
        if self.beta != 1:
            raise ValueError(f"beta is {self.beta!r}; expected 1 where an objective sees nothing but log-weights")
        rows, samples = log_weights.shape
        value = np.add.reduce(log_weights, axis=1) / samples
        return value, np.full((rows, samples), -1.0 / (rows * samples), log_weights.dtype)
