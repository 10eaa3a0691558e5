"""The record that an objective sees, `Sampled`, the one it answers with, `Upstream`, and what it is told, `Settings`.

An objective sees what a forward pass has computed. It answers with its value for every example and with `Upstream`, the
gradient of loss = -mean(objective) with respect to each entry it used; the model carries these on to the parameters.
The minus sign and the 1/B enter here and nowhere else.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import in_short
from scratchvae.finite import is_whole_number
from scratchvae.posteriors import Posterior


class Sampled(NamedTuple):
    """What one forward pass computed: B examples, K samples of each, Z latent dimensions, H numbers a posterior has.

    head (B, H) are the parameters of q(z|x), eps (B, K, Z) the noise that became z (B, K, Z); kl (B,), log_likelihood
    (B, K) and its mean over samples, reconstruction (B,), are in nats.
    """

    head: NDArray  # (B, H): the parameters of q(z|x), as `posterior` reads them; logvar in columns Z to 2 Z
    eps: NDArray  # (B, K, Z): the noise that became z
    z: NDArray  # (B, K, Z)
    kl: NDArray  # (B,): KL(q(z|x) || p(z)), exact
    log_likelihood: NDArray  # (B, K)
    reconstruction: NDArray  # (B,): its mean over the K samples
    posterior: Posterior  # the family of q, for its density and its KL


class Upstream(NamedTuple):
    """d loss / d each entry of `Sampled`; None where the objective does not use it directly.

    `path` is not a derivative. Estimators that treat the encoder in their own way multiply by it all that reaches the
    encoder through z, from the decoder and from dz alike; None stands for 1.
    """

    dlog_likelihood: NDArray  # (B, K)
    dkl: NDArray  # (B,)
    dz: NDArray | None = None  # (B, K, Z)
    dhead: NDArray | None = None  # (B, H)
    path: NDArray | None = None  # (B, K)


class Objective(Protocol):
    """An objective's name, how many samples per example it wants, its value and the gradient of its loss.

    `of_log_weights` serves models that have their own densities: it sees nothing but the log-weights
    log w = log p(x, z) - log q(z|x), (B, K), and answers with the value (B,) and d loss / d log w (B, K).
    """

    @property
    def name(self) -> str: ...

    @property
    def num_samples(self) -> int: ...

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """The value of each example (B,), in nats, and the gradient of loss = -mean(value)."""
        ...

    def of_log_weights(self, ops: ModuleType, log_weights: NDArray) -> tuple[NDArray, NDArray]:
        """The value (B,) of log w (B, K), and d loss / d log w (B, K). ValueError where that needs more than log w."""
        ...


@dataclass(frozen=True)
class Settings:
    """What every objective is told. A number of NumPy's is kept as Python's: a float64 would widen terms in float32,
    and be written as another objective in a checkpoint.

    Raises    ValueError for a number of samples that is not a whole number of at least 1
    """

    num_samples: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())
        if not is_whole_number(self.num_samples) or self.num_samples < 1:
            raise ValueError(f"num_samples is {in_short(self.num_samples)}; expected a whole number of at least 1")
