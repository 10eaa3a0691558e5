"""Real numbers, with unit variance or a learned one."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.likelihoods.likelihood import Draws, Likelihood, normals


@dataclass(frozen=True)
class UnitGaussian(Likelihood):
    """p(x|z) = N(x; out, I): the textbook -1/2 ||x - D(z)||^2, constant included.

    Source    Kingma, Welling 2013, appendix C.2, equation 12, with a variance of 1
    """

    name: str = "gaussian"
    data: str = "real numbers, unit variance: the squared error"
    binary: bool = False
    unit_interval: bool = False

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]:
        return ops.unit_gaussian_log_likelihood_forward(x, out)

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]:
        return ops.unit_gaussian_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray]) -> NDArray:
        return out

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray:
        return out + normals(ops, out, draws)

    def output_bias(self, mean: NDArray) -> NDArray:
        return mean


@dataclass(frozen=True)
class LearnedGaussian(Likelihood):
    """p(x|z) = N(x; out, exp(likelihood.logvar)): one learned variance, or one per dimension.

    A constant column with a variance of its own has no maximum: the decoder learns the constant, and the smaller the
    variance, the higher the density there, so logvar falls for as long as training goes on. The same holds of one
    variance for data that the decoder can reproduce exactly.

    Source    Kingma, Welling 2013, appendix C.2, equation 12, with a variance that does not depend on z
    """

    per_dimension: bool = False
    binary: bool = False
    unit_interval: bool = False

    @property
    def name(self) -> str:
        return "gaussian-learned-diagonal" if self.per_dimension else "gaussian-learned"

    @property
    def data(self) -> str:
        return "real numbers, one learned variance; -diagonal after the name for one a column"

    def parameter_shapes(self, data_dim: int) -> dict[str, tuple[int, ...]]:
        return {"likelihood.logvar": (data_dim,) if self.per_dimension else (1,)}

    def parameter_start(self) -> dict[str, float]:
        return {"likelihood.logvar": 0.0}

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]:
        return ops.gaussian_log_likelihood_forward(x, out, parameters["likelihood.logvar"])

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]:
        dout, dlogvar = ops.gaussian_log_likelihood_backward(dlog_likelihood, cache)
        return dout, {"likelihood.logvar": dlogvar}

    def mean(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray]) -> NDArray:
        return out

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray:
        std = np.exp(0.5 * parameters["likelihood.logvar"])
        return out + std * normals(ops, out, draws)

    def output_bias(self, mean: NDArray) -> NDArray:
        return mean
