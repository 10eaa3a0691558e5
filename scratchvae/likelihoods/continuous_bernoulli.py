"""Grey values in [0, 1] as they are: what a Bernoulli's formula is for binary ones, but normalised."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.likelihoods.likelihood import Draws, Likelihood, open_uniforms
from scratchvae.reference.continuous_bernoulli import continuous_bernoulli_logits


@dataclass(frozen=True)
class ContinuousBernoulli(Likelihood):
    """p(x|z) = prod_d exp(x_d out_d - A(out_d)) on [0, 1]: a density, so that log p(x) may be positive.

    Source    Loaiza-Ganem, Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in variational
              autoencoders"
    """

    name: str = "continuous-bernoulli"
    data: str = "grey values in [0, 1], not binarized"
    binary: bool = False
    unit_interval: bool = True

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]:
        return ops.continuous_bernoulli_log_likelihood_forward(x, out)

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]:
        return ops.continuous_bernoulli_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray]) -> NDArray:
        """A'(out), not sigmoid(out): the derivative of log p at x = 0 is 0 - A'(out)."""
        rows = out.reshape(-1, 1, out.shape[-1])
        _, cache = ops.continuous_bernoulli_log_likelihood_forward(np.zeros_like(rows[:, 0]), rows)
        return -cache.derivative.reshape(out.shape)

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray:
        """By the inverse distribution function: -log(1 - u (1 - exp(-a))) / a from the end that out prefers, a = |out|.

        Where a is 0 the number is u itself, and so it is, to rounding, at the smallest a that is used.
        """
        uniforms = open_uniforms(ops, draws, out.shape[-1])
        a = np.maximum(np.abs(out, dtype=np.float64), 1e-9)
        positive = out > 0
        uniforms = np.where(positive, 1 - uniforms, uniforms)  # so that x rises with u on both sides
        distance = -np.log1p(uniforms * np.expm1(-a)) / a
        return np.where(positive, 1 - distance, distance).astype(out.dtype)

    def output_bias(self, mean: NDArray) -> NDArray:
        """The logits, at most 100 either way, of the training mean clipped to [0.01, 0.99]: density has no end."""
        return continuous_bernoulli_logits(np.clip(mean, 0.01, 0.99))
