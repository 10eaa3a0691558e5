"""What training maximises, and its gradient with respect to the terms the model hands over.

An objective sees one record, `Sampled`: what a forward pass has computed. It answers with its value for every example
and with `Upstream`, the gradient of loss = -mean(objective) with respect to each entry it used; the model carries
these on to the parameters. The minus sign and the 1/B enter here and nowhere else.
"""

from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType, ModuleType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Sampled(NamedTuple):
    """What one forward pass computed."""

    mu: NDArray  # (B, Z)
    logvar: NDArray  # (B, Z)
    z: NDArray  # (B, K, Z)
    kl: NDArray  # (B,)
    log_likelihood: NDArray  # (B, K)
    reconstruction: NDArray  # (B,): its mean over the K samples


class Upstream(NamedTuple):
    """d loss / d each entry of `Sampled`; None where the objective does not use it directly."""

    dlog_likelihood: NDArray  # (B, K)
    dkl: NDArray  # (B,)
    dz: NDArray | None = None  # (B, K, Z)
    dmu: NDArray | None = None  # (B, Z)
    dlogvar: NDArray | None = None  # (B, Z)


class Objective(Protocol):
    """An objective's name, how many samples per example it wants, its value and the gradient of its loss."""

    @property
    def name(self) -> str: ...

    @property
    def num_samples(self) -> int: ...

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]: ...


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
        _check_samples(self.num_samples)
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


@dataclass(frozen=True)
class IWAE:
    """The importance-weighted bound of K samples, L_K = log 1/K sum_k w_k, w_k = p(x, z_k) / q(z_k|x).

    Gradient  sum_k w~_k d log w_k with self-normalised weights w~ = w / sum w, through z as well as directly
    Raises    ValueError for num_samples < 1
    Source    Burda, Grosse, Salakhutdinov 2015, equations 8 and 14
    """

    num_samples: int = 50
    name: str = "iwae"

    def __post_init__(self) -> None:
        _check_samples(self.num_samples)

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """Value (B,) and the gradient through log w = log p(x|z) + log p(z) - log q(z|x)."""
        rows = sampled.kl.size
        log_prior, prior_cache = ops.standard_normal_log_density_forward(sampled.z)
        log_posterior, posterior_cache = ops.gaussian_log_density_forward(sampled.z, sampled.mu, sampled.logvar)
        value, weights = ops.importance_bound_forward(sampled.log_likelihood + log_prior - log_posterior)

        dvalue = np.full(rows, -1.0 / rows, sampled.kl.dtype)  # loss = -mean(value)
        dlog_weights = ops.importance_bound_backward(dvalue, weights)
        dz_posterior, dmu, dlogvar = ops.gaussian_log_density_backward(-dlog_weights, posterior_cache)
        dz_prior = ops.standard_normal_log_density_backward(dlog_weights, prior_cache)
        dz = dz_prior + dz_posterior  # z is used by both densities
        return value, Upstream(dlog_weights, np.zeros_like(sampled.kl), dz, dmu, dlogvar)


OBJECTIVES = MappingProxyType({"elbo": ELBO, "iwae": IWAE})


def check_objective(objective: object) -> None:
    """Raises ValueError for what is not an objective: a name, or a class without its brackets."""
    if isinstance(objective, type) or not hasattr(objective, "evaluate"):
        raise ValueError(f"objective is {objective!r}; expected ELBO(...) or IWAE(...)")


def _check_samples(num_samples: int) -> None:
    if not isinstance(num_samples, (int, np.integer)) or isinstance(num_samples, bool) or num_samples < 1:
        raise ValueError(f"num_samples is {num_samples!r}; expected a whole number of at least 1")
