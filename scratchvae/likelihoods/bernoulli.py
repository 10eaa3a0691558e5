"""Binary pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.mapped import Data
from scratchvae.likelihoods.likelihood import Draws, Likelihood
from scratchvae.reference.random import Stream


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """p(x|z) = prod_d Bernoulli(x_d; sigmoid(out_d)): the decoder gives logits.

    Source    Kingma, Welling 2013, appendix C.1, equation 11
    """

    name: str = "bernoulli"
    data: str = "0 and 1; grey pixels are binarized"
    binary: bool = True
    unit_interval: bool = True

    def check(self, x: Data, name: str = "x") -> None:
        """Grey values pass: whether they may stay grey is for training to say (`data.check_method`)."""

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]:
        return ops.bernoulli_log_likelihood_forward(x, out)

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]:
        return ops.bernoulli_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray]) -> NDArray:
        return ops.sigmoid_forward(out)[0]

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray:
        uniforms = ops.uniforms(draws.seed, Stream.PIXELS, 0, draws.examples, out.shape[-1])
        return (uniforms < self.mean(ops, out, parameters)).astype(out.dtype)

    def output_bias(self, mean: NDArray) -> NDArray:
        """logit of the training mean clipped to [0.001, 0.999] (Burda, Grosse, Salakhutdinov 2015, their code)."""
        clipped = np.clip(mean, 0.001, 0.999)
        return np.log(clipped) - np.log1p(-clipped)
