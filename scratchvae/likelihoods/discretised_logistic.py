"""Pixels of a known number of levels, as the bins of a density: log p(x) is a probability and compares in bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import check_levels
from scratchvae.data.mapped import Data
from scratchvae.finite import is_whole_number
from scratchvae.likelihoods.likelihood import Draws, Likelihood, open_uniforms

STEM, DIAGONAL = "discretised-logistic", "discretised-logistic-diagonal"
BITS_8 = 256
MOST_LEVELS = 2**16
FIRST_SCALE = 0.1  # a standard deviation of 0.1 pi / sqrt(3) = 0.18: about that of pixels around their mean


@dataclass(frozen=True)
class DiscretisedLogistic(Likelihood):
    """p(x|z) = prod_d of the mass that a logistic density with location out_d and learned scale has in x_d's bin.

    Takes     per_dimension: a scale for each column; levels L: values are k / (L - 1), k = 0 .. L - 1
    Learns    likelihood.log_scale, the log of the scale in units of the range 0 .. 1
    Raises    ValueError for levels that are not from 2 to 65536
    Source    Salimans et al. 2017, section 2.1; after Kingma et al. 2016, appendix C.5
    """

    per_dimension: bool = False
    levels: int = BITS_8
    binary: bool = False
    unit_interval: bool = True

    def __post_init__(self) -> None:
        if not is_whole_number(self.levels) or not 2 <= self.levels <= MOST_LEVELS:
            raise ValueError(f"{STEM} has {self.levels!r} levels; expected a whole number from 2 to {MOST_LEVELS}")
        object.__setattr__(self, "levels", int(self.levels))

    @property
    def name(self) -> str:
        stem = DIAGONAL if self.per_dimension else STEM
        return stem if self.levels == BITS_8 else f"{stem}:{self.levels}"

    @property
    def data(self) -> str:
        return "8-bit pixels, one learned scale; -diagonal for one a column, :17 for 17 levels, as the digits have"

    def check(self, x: Data, name: str = "x") -> None:
        check_levels(x, self.levels, name)

    def parameter_shapes(self, data_dim: int) -> dict[str, tuple[int, ...]]:
        return {"likelihood.log_scale": (data_dim,) if self.per_dimension else (1,)}

    def parameter_start(self) -> dict[str, float]:
        return {"likelihood.log_scale": float(np.log(FIRST_SCALE))}

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]:
        return ops.discretised_logistic_log_likelihood_forward(x, out, parameters["likelihood.log_scale"], self.levels)

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]:
        dout, dlog_scale = ops.discretised_logistic_log_likelihood_backward(dlog_likelihood, cache)
        return dout, {"likelihood.log_scale": dlog_scale}

    def mean(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray]) -> NDArray:
        """sum_k P(x > k / (L - 1)) / (L - 1), k = 0 .. L - 2: a level below x adds one step. P is a sigmoid.

        Summed in float64: of 65535 terms a float32 total would be levels off.
        """
        steps, largest = self.levels - 1, np.finfo(out.dtype).max
        inverse = np.minimum(np.exp(-parameters["likelihood.log_scale"]), largest)  # infinity times 0 would be NaN
        total = np.zeros(out.shape, np.float64)
        for edge in (np.arange(steps) + 0.5) / steps:
            total += ops.sigmoid_forward((out - out.dtype.type(edge)) * inverse)[0]
        return (total / steps).astype(out.dtype)

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray:
        """The bin of a draw from the density, which is out + scale logit(u)."""
        uniforms, steps = open_uniforms(ops, draws, out.shape[-1]), self.levels - 1
        logistic = np.log(uniforms) - np.log1p(-uniforms)
        continuous = out + np.exp(parameters["likelihood.log_scale"], dtype=np.float64) * logistic
        level = np.clip(np.floor(continuous * steps + 0.5), 0, steps)
        return (level / steps).astype(out.dtype)

    def output_bias(self, mean: NDArray) -> NDArray:
        """The training mean as the density's location; the outer bins' infinite tails leave it a little off."""
        return mean
