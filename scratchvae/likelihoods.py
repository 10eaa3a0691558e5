"""What the decoder's output means: p(x|z) as a Bernoulli or a Gaussian, over one record for each.

A likelihood says which parameters of its own it learns ("likelihood.<name>"), gives log p(x|z) and its gradient by
the engine's operations, turns the decoder's output into the mean of p(x|z) and into draws from it, and names the
output bias that fits the training mean before the first step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.random import Stream


class Draws(NamedTuple):
    """Where random numbers for drawing x come from: every draw is keyed by seed and example."""

    seed: int
    examples: NDArray


class Likelihood(Protocol):
    """What the model asks of p(x|z). `out` (B, K, D) is the decoder's output."""

    @property
    def name(self) -> str: ...

    @property
    def unit_interval(self) -> bool: ...  # whether x must lie in [0, 1]

    def parameter_shapes(self, data_dim: int) -> dict[str, tuple[int, ...]]: ...

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]: ...

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]: ...

    def mean(self, ops: ModuleType, out: NDArray) -> NDArray: ...

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray: ...

    def output_bias(self, mean: NDArray) -> NDArray: ...


@dataclass(frozen=True)
class Bernoulli:
    """p(x|z) = prod_d Bernoulli(x_d; sigmoid(out_d)): the decoder gives logits."""

    name: str = "bernoulli"
    unit_interval: bool = True

    def parameter_shapes(self, data_dim):
        return {}

    def forward(self, ops, x, out, parameters):
        return ops.bernoulli_log_likelihood_forward(x, out)

    def backward(self, ops, dlog_likelihood, cache):
        return ops.bernoulli_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops, out):
        return ops.sigmoid_forward(out)[0]

    def draw(self, ops, out, parameters, draws):
        mean = self.mean(ops, out)
        uniforms = ops.uniforms(draws.seed, Stream.PIXELS, 0, draws.examples, out.shape[-1])
        return (uniforms < mean).astype(out.dtype)

    def output_bias(self, mean):
        """logit of the training mean clipped to [0.001, 0.999] (Burda, Grosse, Salakhutdinov 2015, their code)."""
        clipped = np.clip(mean, 0.001, 0.999)
        return np.log(clipped) - np.log1p(-clipped)


@dataclass(frozen=True)
class UnitGaussian:
    """p(x|z) = N(x; out, I): the textbook -1/2 ||x - D(z)||^2, constant included."""

    name: str = "gaussian"
    unit_interval: bool = False

    def parameter_shapes(self, data_dim):
        return {}

    def forward(self, ops, x, out, parameters):
        return ops.unit_gaussian_log_likelihood_forward(x, out)

    def backward(self, ops, dlog_likelihood, cache):
        return ops.unit_gaussian_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops, out):
        return out

    def draw(self, ops, out, parameters, draws):
        return out + _normals(ops, out, draws)

    def output_bias(self, mean):
        return mean


@dataclass(frozen=True)
class LearnedGaussian:
    """p(x|z) = N(x; out, exp(likelihood.logvar)): one learned variance, or one per dimension."""

    name: str
    per_dimension: bool
    unit_interval: bool = False

    def parameter_shapes(self, data_dim):
        return {"likelihood.logvar": (data_dim,) if self.per_dimension else (1,)}

    def forward(self, ops, x, out, parameters):
        return ops.gaussian_log_likelihood_forward(x, out, parameters["likelihood.logvar"])

    def backward(self, ops, dlog_likelihood, cache):
        dout, dlogvar = ops.gaussian_log_likelihood_backward(dlog_likelihood, cache)
        return dout, {"likelihood.logvar": dlogvar}

    def mean(self, ops, out):
        return out

    def draw(self, ops, out, parameters, draws):
        std = np.exp(0.5 * parameters["likelihood.logvar"])
        return out + std * _normals(ops, out, draws)

    def output_bias(self, mean):
        return mean


def _normals(ops: ModuleType, out: NDArray, draws: Draws) -> NDArray:
    return ops.normals(draws.seed, Stream.PIXELS, 0, draws.examples, out.shape[-1]).astype(out.dtype)


LIKELIHOODS: Mapping[str, Likelihood] = MappingProxyType(
    {
        likelihood.name: likelihood
        for likelihood in (
            Bernoulli(),
            UnitGaussian(),
            LearnedGaussian("gaussian-learned", per_dimension=False),
            LearnedGaussian("gaussian-learned-diagonal", per_dimension=True),
        )
    }
)
