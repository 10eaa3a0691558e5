"""What the model asks of p(x|z), whatever it is."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.binarize import check_method
from scratchvae.data.checks import DataError, as_data, as_data_set
from scratchvae.data.mapped import Data
from scratchvae.reference.random import Stream


class Draws(NamedTuple):
    """Where random numbers for drawing x come from: every draw is keyed by seed and example."""

    seed: int
    examples: NDArray


class Likelihood(Protocol):
    """p(x|z) for every example. `out` (..., D) is the decoder's output, and what it means is the likelihood's business.

    What is written out here is what most likelihoods do; the rest each says for itself.
    Operations (`ops`) are an engine's; `parameters` are the model's, of which a likelihood reads those it named itself.
    """

    @property
    def name(self) -> str:
        """What `likelihood_named` makes it from again."""
        ...

    @property
    def data(self) -> str:
        """Which data it is for, in a few words."""
        ...

    @property
    def binary(self) -> bool:
        """Whether x is 0 and 1, so that grey pixels are to be binarized."""
        ...

    @property
    def unit_interval(self) -> bool:
        """Whether x must lie in [0, 1]."""
        ...

    def check(self, x: Data, name: str = "x") -> None:
        """Refuse, by a DataError of one line, x (N, D) that `as_data` has passed but that has probability zero."""
        return

    def parameter_shapes(self, data_dim: int) -> dict[str, tuple[int, ...]]:
        """Shapes of what it learns itself, by name. Raises ValueError where it cannot have `data_dim` columns."""
        return {}

    def parameter_start(self) -> dict[str, float]:
        """Values, by name, from which what it learns itself starts."""
        return {}

    def encoder_input(self, x: NDArray) -> NDArray:
        """What the encoder is shown of x (..., D): x itself, or what of it is of the order of 1."""
        return x

    def forward(
        self, ops: ModuleType, x: NDArray, out: NDArray, parameters: Mapping[str, NDArray]
    ) -> tuple[NDArray, Any]:
        """log p(x|z) (B, K), in nats, from x (B, D) and out (B, K, D); and the cache."""
        ...

    def backward(self, ops: ModuleType, dlog_likelihood: NDArray, cache: Any) -> tuple[NDArray, dict[str, NDArray]]:
        """d loss / d out (B, K, D), and d loss / d what it learns itself."""
        ...

    def mean(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray]) -> NDArray:
        """E[x|z], of out's shape (..., D)."""
        ...

    def draw(self, ops: ModuleType, out: NDArray, parameters: Mapping[str, NDArray], draws: Draws) -> NDArray:
        """x ~ p(x|z) for out (N, D), one row an example."""
        ...

    def output_bias(self, mean: NDArray) -> NDArray:
        """The output (D,) at which a constant decoder predicts the training mean (D,)."""
        ...


def data_for(likelihood: Likelihood, x: Any, data_dim: int, name: str = "x") -> NDArray:
    """x as data (N, D) that the likelihood can explain. Raises DataError (a ValueError), one line, for any other."""
    x = as_data(x, data_dim, likelihood.unit_interval, name)
    likelihood.check(x, name)
    return x


def data_set_for(
    likelihood: Likelihood, x: Any, data_dim: int | None, binarize: str, allow_grey: bool = False, name: str = "x"
) -> Data:
    """As `data_for`, for a whole data set, which may stay on the disk, and how it is binarized.

    Raises    DataError, one line: also to binarize for a likelihood of other data, and, under a Bernoulli, grey values
              left as they are
    """
    x = as_data_set(x, data_dim, likelihood.unit_interval, name)
    likelihood.check(x, name)
    check_method(binarize, x if likelihood.binary else None, allow_grey, name)
    if binarize != "none" and not likelihood.binary:
        raise DataError(f"binarize is {binarize!r} under likelihood {likelihood.name!r}; expected 'none'")
    return x


def normals(ops: ModuleType, out: NDArray, draws: Draws) -> NDArray:
    """Standard normal numbers of out's shape (N, D) and dtype."""
    return ops.normals(draws.seed, Stream.PIXELS, 0, draws.examples, out.shape[-1]).astype(out.dtype)


def open_uniforms(ops: ModuleType, draws: Draws, count: int) -> NDArray[np.float64]:
    """Uniform numbers (N, count), odd multiples of 2^-25: in (0, 1) and symmetric, so that no quantile is infinite."""
    return ops.uniforms(draws.seed, Stream.PIXELS, 0, draws.examples, count).astype(np.float64) + 2.0**-25
