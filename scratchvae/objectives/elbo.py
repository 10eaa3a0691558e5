"""The evidence lower bound, and the ways in which its KL is weighed, floored, phased in or estimated."""

import reprlib
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import in_short, one_of
from scratchvae.finite import is_finite_number, is_whole_number
from scratchvae.objectives.log_weights import log_weights_backward, log_weights_forward
from scratchvae.objectives.sampled import Sampled, Settings, Upstream

KLS = ("exact", "monte-carlo")


@dataclass(frozen=True, repr=False)
class ELBO(Settings):
    """The evidence lower bound, its expectation estimated by the mean over K samples.

    Gives     elbo_b = 1/K sum_k log p(x_b|z_bk) - beta KL_b
              kl="exact"         KL_b = KL(q(z|x_b) || p(z)) in closed form
              kl="monte-carlo"   KL_b = 1/K sum_k [log q(z_bk|x_b) - log p(z_bk)]: unbiased; with beta = 1 the elbo is
                                 then the mean of the log-weights
              free_bits > 0      KL_b = sum_j max(free_bits, KL_bj) [nats]: a latent dimension that costs less than
                                 this is not pushed further down. The KL of dimension j, given those before it in a full
                                 posterior, is exact
              warm_up > 0        beta is multiplied by min(1, update / warm_up), update = 1, 2, ... told by the trainer
    Bound     beta = 1 is the bound itself; beta > 1 and free bits lie below it; beta < 1, as warm-up makes it, above
              it; with a sampled KL in expectation
    Choice    The paper floors the mean of KL_bj over the batch. Here each example has its own floor, so that an
              example's value does not depend on its neighbours, nor a run on how a batch is split. As max is convex,
              mean_b max(l, KL_bj) >= max(l, mean_b KL_bj): this objective is the lower one
    Raises    ValueError for num_samples < 1; a beta or free_bits that is negative or not finite; a warm_up that is not
              a number of updates; an unknown kl, or free_bits with a KL that is not exact
    Source    Kingma, Welling 2013, equations 10 (exact) and 6 (monte-carlo); beta: Higgins et al. 2017, equation 4;
              free bits: Kingma et al. 2016, equation 15; warm-up: Sonderby et al. 2016
    """

    beta: float = 1.0
    name: str = "elbo"
    free_bits: float = 0.0
    warm_up: int = 0
    kl: str = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "free_bits"):
            value = getattr(self, name)
            if not (is_finite_number(value) and value >= 0):
                raise ValueError(f"{name} is {reprlib.repr(value)}; expected a finite number that is not negative")
            object.__setattr__(self, name, float(value))  # equal settings are written equally
        if not is_whole_number(self.warm_up) or self.warm_up < 0:
            raise ValueError(f"warm_up is {in_short(self.warm_up)}; expected a number of updates, 0 for none")
        one_of("kl", self.kl, KLS)
        if self.free_bits and self.kl != "exact":
            raise ValueError(f"free_bits is {self.free_bits} with kl {self.kl!r}; expected kl 'exact'")

    def __repr__(self) -> str:
        settings: dict[str, object] = {"num_samples": self.num_samples, "beta": self.beta}
        settings |= {name: getattr(self, name) for name in ("free_bits", "warm_up") if getattr(self, name)}
        settings |= {"kl": self.kl} if self.kl != "exact" else {}
        return f"ELBO({', '.join(f'{name}={value!r}' for name, value in (settings | {'name': self.name}).items())})"

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """Value (B,) and d loss / d log_likelihood = -1/(B K), d loss / d kl = beta / B."""
        if self.free_bits or self.kl != "exact":
            return self._with_free_bits(sampled) if self.free_bits else self._monte_carlo(ops, sampled)
        rows, samples = sampled.log_likelihood.shape
        value = sampled.reconstruction - self.beta * sampled.kl
        dtype = sampled.kl.dtype
        return value, Upstream(
            dlog_likelihood=np.full((rows, samples), -1.0 / (rows * samples), dtype),
            dkl=np.full(rows, self.beta, dtype) / rows,  # as a step in one call rounds it
        )

    def of_log_weights(self, ops: ModuleType, log_weights: NDArray) -> tuple[NDArray, NDArray]:
        """The bound with its KL estimated from the samples: (B,), the mean of log w (B, K); and d loss / d log w.

        Gives     elbo_b = 1/K sum_k log w_bk        d loss / d log w_bk = -1/(B K)
        Raises    ValueError for anything done to the KL: log-weights do not tell it from the rest
        """
        if self.beta != 1 or self.free_bits or self.warm_up:
            raise ValueError(
                f"{self!r} treats the KL by itself; expected beta 1, no free_bits and no warm_up where only "
                "log-weights are known"
            )
        return _mean_of_log_weights(log_weights)

    def at(self, update: int) -> "ELBO":
        """The objective of one update, counted from 1: the same once the warm-up is over."""
        if update >= self.warm_up:
            return self
        return replace(self, beta=self.beta * (update / self.warm_up), warm_up=0)

    def _with_free_bits(self, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """Value (B,) with KL_b = sum_j max(free_bits, KL_bj), and its gradient: 0 for a dimension at its floor."""
        rows, samples = sampled.log_likelihood.shape
        kl, cache = sampled.posterior.kl_per_dimension_forward(sampled.head)
        above = ~(kl.real <= self.free_bits)  # what is not a number is not at its floor: NaN in, NaN out
        value = sampled.reconstruction - self.beta * np.where(above, kl, self.free_bits).sum(axis=1)
        dkl = (above * (self.beta / rows)).astype(kl.dtype)
        return value, Upstream(
            dlog_likelihood=np.full((rows, samples), -1.0 / (rows * samples), kl.dtype),
            dkl=np.zeros(rows, kl.dtype),
            dhead=sampled.posterior.kl_per_dimension_backward(dkl, cache),
        )

    def _monte_carlo(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """Value (B,): the mean of log p(x|z) + beta (log p(z) - log q(z|x)); its gradient, through z and directly."""
        log_weights = log_weights_forward(ops, sampled)
        weighed = sampled.log_likelihood + self.beta * (log_weights - sampled.log_likelihood)
        value, dweighed = _mean_of_log_weights(weighed)
        upstream = log_weights_backward(ops, self.beta * dweighed, sampled)
        return value, upstream._replace(dlog_likelihood=dweighed)  # beta does not weigh log p(x|z)


def _mean_of_log_weights(log_weights: NDArray) -> tuple[NDArray, NDArray]:
    rows, samples = log_weights.shape
    value = np.add.reduce(log_weights, axis=1) / samples
    return value, np.full((rows, samples), -1.0 / (rows * samples), log_weights.dtype)
