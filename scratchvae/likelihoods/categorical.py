"""One-hot columns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import check_one_hot
from scratchvae.data.mapped import Data
from scratchvae.finite import is_whole_number
from scratchvae.likelihoods.likelihood import Draws, Likelihood
from scratchvae.reference.random import Stream

STEM = "categorical"


@dataclass(frozen=True)
class Categorical(Likelihood):
    """p(x|z) = prod over groups of columns of the softmax of out in the group, at the column that is 1.

    Takes     sizes: how many columns each group has, from left to right, all columns together; () for a single group
    Raises    ValueError for a size below 1, or sizes that are no sequence
    Source    Bishop 2006, "Pattern recognition and machine learning", equation 2.26
    """

    sizes: tuple[int, ...] = ()
    data: str = "one-hot columns; categorical:3,4,5 for groups of 3, 4 and 5 columns, one group without"
    binary: bool = False
    unit_interval: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.sizes, Iterable):
            raise ValueError(f"{STEM} has sizes {self.sizes!r}; expected one for each group, such as ({self.sizes!r},)")
        sizes = tuple(self.sizes)
        if not all(is_whole_number(size) and size >= 1 for size in sizes):
            raise ValueError(f"{STEM} has groups of {sizes!r} columns; expected whole numbers of at least 1")
        object.__setattr__(self, "sizes", tuple(int(size) for size in sizes))

    @property
    def name(self) -> str:
        return f"{STEM}:{','.join(map(str, self.sizes))}" if self.sizes else STEM

    @property
    def starts(self) -> NDArray[np.int_]:
        """The first column of each group."""
        return np.cumsum((0, *self.sizes[:-1]))

    def check(self, x: Data, name: str = "x") -> None:
        check_one_hot(x, self.starts, name)

    def parameter_shapes(self, data_dim: int) -> dict[str, tuple[int, ...]]:
        if self.sizes and sum(self.sizes) != data_dim:
            raise ValueError(
                f"likelihood is {self.name!r}, {sum(self.sizes)} columns in all; expected data_dim = {data_dim}"
            )
        return {}

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]:
        return ops.categorical_log_likelihood_forward(x, out, self.starts)

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]:
        return ops.categorical_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray]) -> NDArray:
        """The probability of each column: the derivative of log p, x - softmax(out), at x = 0, turned round."""
        rows = out.reshape(-1, 1, out.shape[-1])
        _, cache = ops.categorical_log_likelihood_forward(np.zeros_like(rows[:, 0]), rows, self.starts)
        return -cache.derivative.reshape(out.shape)

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray:
        """In each group the first column at which the sum of probabilities exceeds a uniform number."""
        mean, starts = self.mean(ops, out, parameters), self.starts
        uniforms = ops.uniforms(draws.seed, Stream.PIXELS, 0, draws.examples, starts.size)
        x = np.zeros_like(out)
        for group, probabilities in enumerate(np.split(mean, starts[1:], axis=1)):
            reached = np.cumsum(probabilities, axis=1, dtype=np.float64)
            reached /= reached[:, -1:]  # 1 to the last bit, so that no column of probability 0 is drawn
            column = starts[group] + (uniforms[:, group, None] >= reached).sum(axis=1)
            x[np.arange(len(x)), column] = 1
        return x

    def output_bias(self, mean: NDArray) -> NDArray:
        """log of the training mean, at least 0.001: a column never seen stays possible."""
        return np.log(np.maximum(mean, 0.001))
