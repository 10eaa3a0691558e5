"""log p(x) by sampling: from the encoder's posterior (the importance-weighted bound), or from the prior.

Samples come in blocks, and only three running sums per example are kept, so K is bounded by time and not by memory.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.progress import Advance, Watch, counted
from scratchvae.reference.random import Stream
from scratchvae.vae import VAE

LogWeights = Callable[[VAE, NDArray, NDArray, NDArray], NDArray]  # vae, x, encoder head, eps -> log w (B, K)
BLOCK_SAMPLES = 50  # samples of an example drawn under one address; part of what a result is a function of
BLOCK_ROWS = 100  # examples worked on together; results do not depend on it


class Evidence(NamedTuple):
    """An estimate of log p(x) for every example, in nats, and how far to trust it: all (B,), float64.

    `standard_error` is that of log_evidence, by the delta method; `effective_sample_size` is (sum w)^2 / sum w^2 of the
    K weights: 1 means that one sample has all the weight.
    """

    log_evidence: NDArray  # (B,), float64
    standard_error: NDArray  # (B,): of log_evidence, by the delta method
    effective_sample_size: NDArray  # (B,): of the K weights; 1 means that one sample has all the weight


def importance_evidence(
    vae: VAE,
    x: NDArray,
    num_samples: int,
    seed: int,
    watch: Watch | None = None,
    examples: NDArray | None = None,
    head: NDArray | None = None,
) -> Evidence:
    """log p(x) from samples of the encoder's posterior, or of another q: the importance-weighted bound.

    Formula   log p(x) ~ log 1/K sum_k w_k, w = p(x|z) p(z) / q(z|x), z ~ q(z|x): in expectation a lower bound that
              rises with K; standard error sqrt((K / ESS - 1) / (K - 1)), ESS = (sum w)^2 / sum w^2
    Takes     x (B, D); num_samples K; seed; watch: told how many blocks are done; examples (B,): the addresses of the
              rows' noise, by default their numbers; head (B, H): the parameters of q for each row, taken in the
              model's precision, by default the encoder's. The estimate of a row depends on these, not on its neighbours
    Returns   Evidence, each (B,), in nats
    Raises    ValueError for data that do not fit the model, examples and head that do not fit the data, or a head for a
              model of two stochastic layers
    Source    Burda, Grosse, Salakhutdinov 2015, equation 8
    """
    return _in_blocks(vae, x, importance_log_weights, num_samples, seed, watch, examples, head)


def prior_evidence(vae: VAE, x: NDArray, num_samples: int, seed: int, watch: Watch | None = None) -> Evidence:
    """log p(x) from samples of the prior: simple Monte Carlo.

    Formula   log p(x) ~ log 1/K sum_k p(x|z_k), z_k ~ p(z); the rest as `importance_evidence`
    """
    return _in_blocks(vae, x, prior_log_weights, num_samples, seed, watch)


METHODS = MappingProxyType({"importance": importance_evidence, "prior": prior_evidence})


def importance_log_weights(vae: VAE, x: NDArray, head: NDArray, eps: NDArray) -> NDArray:
    """log p(x, z) - log q(z|x) of each sample (B, K), z ~ q(z|x)."""
    return vae.log_weights(x, head, eps)


def prior_log_weights(vae: VAE, x: NDArray, head: NDArray, eps: NDArray) -> NDArray:
    """log p(x|z) of each sample (B, K), z ~ p(z): the encoder is not used."""
    return vae.log_likelihood(x, vae.prior_draws(eps))


@dataclass
class RunningWeights:
    """sum w and sum w^2 of each example, both relative to exp(largest log-weight so far), so that neither overflows."""

    largest: NDArray  # (B,)
    total: NDArray  # (B,)
    square: NDArray  # (B,)

    @classmethod
    def empty(cls, rows: int) -> "RunningWeights":
        return cls(np.full(rows, -np.inf), np.zeros(rows), np.zeros(rows))

    def add(self, log_weights: NDArray) -> None:
        """Take in another block (B, K) of log-weights."""
        log_weights = log_weights.astype(np.float64)
        largest = np.maximum(self.largest, log_weights.max(axis=1))
        shift = np.where(np.isneginf(largest), 0.0, largest)  # all weights zero so far: nothing to rescale
        weights = np.exp(log_weights - shift[:, None])
        rescale = np.exp(self.largest - shift)
        self.total = self.total * rescale + weights.sum(axis=1)
        self.square = self.square * rescale**2 + np.square(weights).sum(axis=1)
        self.largest = largest

    def evidence(self, num_samples: int) -> Evidence:
        """The estimate from all blocks; where every weight was zero, log p(x) is -inf with an infinite error."""
        seen = ~(self.total <= 0)  # NaN is passed on
        total = np.where(seen, self.total, 1.0)
        log_evidence = np.where(seen, self.largest + np.log(total), -np.inf) - math.log(num_samples)
        size = np.where(seen, total**2 / np.where(seen, self.square, 1.0), 0.0)
        spread = np.maximum(num_samples / np.where(seen, size, 1.0) - 1.0, 0.0)
        error = np.sqrt(spread / (num_samples - 1)) if num_samples > 1 else np.full(len(total), np.inf)
        return Evidence(log_evidence, np.where(seen, error, np.inf), size)


def _in_blocks(
    vae: VAE,
    x: NDArray,
    log_weights: LogWeights,
    num_samples: int,
    seed: int,
    watch: Watch | None,
    examples: NDArray | None = None,
    head: NDArray | None = None,
) -> Evidence:
    x = vae._batch(x)
    examples, head = checked_rows(vae, x, examples, head)
    parts = []
    advance = counted(watch, math.ceil(len(x) / BLOCK_ROWS) * math.ceil(num_samples / BLOCK_SAMPLES))
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        own = vae.encoder_head(x[rows]) if head is None else head[rows]
        parts.append(_estimate(vae, x[rows], own, examples[rows], log_weights, num_samples, seed, advance))
    return Evidence(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def checked_rows(
    vae: VAE, x: NDArray, examples: NDArray | None, head: NDArray | None
) -> tuple[NDArray, NDArray | None]:
    """The addresses of the rows' noise, and q's parameters in the model's precision where they are given. Raises
    ValueError for such as do not fit."""
    examples = np.arange(len(x)) if examples is None else _of_shape("examples", examples, (len(x),))
    if examples.dtype.kind not in "iu":
        raise ValueError(f"examples has type {examples.dtype}; expected whole numbers")
    if head is None:
        return examples, None
    vae.check_one_layer()
    head = _of_shape("head", head, (len(x), vae.encoder_head(x[:1]).shape[1]))
    if head.dtype.kind not in "fiu":
        raise ValueError(f"head has type {head.dtype}; expected real numbers")
    return examples, head.astype(x.dtype)


def _of_shape(name: str, array: NDArray, shape: tuple[int, ...]) -> NDArray:
    array = np.asarray(array)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    return array


def _estimate(
    vae: VAE,
    x: NDArray,
    head: NDArray,
    rows: NDArray,
    log_weights: LogWeights,
    num_samples: int,
    seed: int,
    advance: Advance,
) -> Evidence:
    running = RunningWeights.empty(len(rows))
    for block, start in enumerate(range(0, num_samples, BLOCK_SAMPLES)):
        samples = min(BLOCK_SAMPLES, num_samples - start)
        eps = vae.noise(seed, Stream.EVIDENCE, block, rows, samples)
        running.add(log_weights(vae, x, head, eps))
        advance()
    return running.evidence(num_samples)
