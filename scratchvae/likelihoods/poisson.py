"""Counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import check_counts
from scratchvae.data.mapped import Data
from scratchvae.likelihoods.likelihood import Draws, Likelihood, open_uniforms

LARGE_RATE = 1e8  # from here on the guess of `_quantile` is right to all bits of u
LARGEST_LOG_RATE = 700.0  # of a draw: exp of more is no number


@dataclass(frozen=True)
class Poisson(Likelihood):
    """p(x|z) = prod_d Poisson(x_d; exp(out_d)): the decoder gives the logarithm of the rate.

    Source    McCullagh, Nelder 1989, "Generalized linear models", chapter 6: the logarithm as its canonical link
    """

    name: str = "poisson"
    data: str = "counts 0, 1, 2, ... as int or float"
    binary: bool = False
    unit_interval: bool = False

    def check(self, x: Data, name: str = "x") -> None:
        check_counts(x, name)

    def encoder_input(self, x: NDArray) -> NDArray:
        """log(1 + x): counts as they are would put the first draws of z, and with them the first rates, anywhere."""
        return np.log1p(x)

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]:
        return ops.poisson_log_likelihood_forward(x, out)

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]:
        return ops.poisson_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray]) -> NDArray:
        return np.exp(out)

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray:
        """By the inverse distribution function: the smallest count at which it reaches a uniform number."""
        rate = np.exp(np.minimum(out, LARGEST_LOG_RATE, dtype=np.float64))
        return _quantile(open_uniforms(ops, draws, out.shape[-1]), rate).astype(out.dtype)

    def output_bias(self, mean: NDArray) -> NDArray:
        """log of the training mean, at least 0.001: a column that is always 0 keeps a rate."""
        return np.log(np.maximum(mean, 0.001))


def _quantile(u: NDArray[np.float64], rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest whole k with P(x <= k) >= u: a good guess, and steps of one from there.

    Guess     mean + deviation z + skewness deviation (z^2 - 1) / 6, z the normal's quantile (Cornish, Fisher 1938)
    """
    from scipy.special import ndtri, pdtr

    z = ndtri(u)
    count = np.maximum(np.rint(rate + np.sqrt(rate) * z + (z**2 - 1) / 6), 0)
    unsure = rate < LARGE_RATE
    while (too_high := unsure & (count > 0) & (pdtr(np.maximum(count - 1, 0), rate) >= u)).any():
        count -= too_high
    while (too_low := unsure & (pdtr(count, rate) < u)).any():
        count += too_low
    return count
