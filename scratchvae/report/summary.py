"""What a model is worth on some data: the terms of the ELBO, log p(x) with its errors, the gap, active units."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.binarize import binarize as draw_batch
from scratchvae.data.mapped import Data
from scratchvae.engine import one_order_of_sums
from scratchvae.evidence import active_units, log_evidence
from scratchvae.progress import Watch
from scratchvae.reference.random import Stream
from scratchvae.vae import VAE

ELBO_SAMPLES = 100  # samples of z per example behind E_q log p(x|z)
BLOCK = 1 << 24  # values of decoded samples held together; the result does not depend on it
INTEGRALS = ("quadrature", "exact")  # methods that sample nothing


@dataclass(frozen=True)
class Summary:
    """Means over examples, in nats per example unless the name says otherwise. elbo = reconstruction - kl."""

    part: str  # what the examples are: "training", "held out", ...
    examples: int
    examples_in_all: int
    num_samples: int  # K of the importance-weighted bound
    method: str
    reconstruction: float
    kl: float
    elbo: float
    log_evidence: float
    standard_error: float  # of log_evidence as a mean over the distribution the examples are drawn from
    sampling_error: float  # of log_evidence for these examples: what more samples would reduce
    sampling_bias: float  # of log_evidence, to first order: a log of a mean is low on average
    gap: float  # log_evidence - elbo
    bits_per_dimension: float  # -log_evidence / (D log 2)
    elbo_bits_per_dimension: float
    effective_sample_size: float  # median over examples, of num_samples
    smallest_effective_sample_size: float  # where few samples count, error and bias are larger than they are said to be
    active_units: int
    latent_dim: int

    @property
    def described(self) -> str:
        """How many examples of how many, in words."""
        return described(self.examples, self.examples_in_all, self.part)

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)


def kept_epoch(history: Sequence[Mapping[str, Any]], patience: int | None) -> int:
    """The epoch whose weights a run keeps: its last, or with early stopping the first of those that are best on the
    data held out."""
    if patience is None or not history:
        return len(history)
    return 1 + int(np.argmax([_held_out_elbo(epoch) for epoch in history]))


def _held_out_elbo(epoch: Mapping[str, Any]) -> float:
    """Of a line of history.jsonl, which may hold anything."""
    averages = epoch.get("validation")
    found = averages.get("elbo") if isinstance(averages, dict) else None
    return found if isinstance(found, float) else -np.inf


def how_many(count: int, thing: str) -> str:
    """A number of things in words: 1 epoch, 1,000 epochs."""
    return f"{count} {thing}" if count == 1 else f"{count:,} {thing}s"


def described(count: int, total: int, part: str) -> str:
    """How many examples of how many of a part of the data: all 360 held-out examples, the one held-out example."""
    return f"the one {part} example" if total == 1 else f"{share(count, total)} {part} examples"


def share(count: int, total: int) -> str:
    """How many of how many in words: all 360, 1,000 of 10,000."""
    return f"all {count:,}" if count == total else f"{count:,} of {total:,}"


def spread_rows(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` row numbers of `count`, evenly spread, so that sorted data are represented; 0 means all."""
    wanted = count if limit == 0 else min(limit, count)
    return np.arange(wanted, dtype=np.int64) * count // wanted


def as_seen(vae: VAE, data: Data, rows: NDArray, binarize: str, seed: int) -> NDArray:
    """Rows of the data as the model is evaluated on them: binarized as in training, by draws of their own."""
    return draw_batch(vae.ops, data, rows, binarize, seed, Stream.EVIDENCE_BINARIZE, 0, vae.dtype)


def elbo_terms(vae: VAE, x: NDArray, seed: int, num_samples: int = ELBO_SAMPLES) -> tuple[NDArray, NDArray]:
    """E_q log p(x|z) by `num_samples` draws, and the KL to the prior, exact but of two stochastic layers: each (B,), in
    nats."""
    terms = []
    step = max(1, BLOCK // (num_samples * vae.data_dim))
    for start in range(0, len(x), step):
        rows = np.arange(start, min(start + step, len(x)))
        terms.append(vae.elbo(x[rows], vae.noise(seed, Stream.VALIDATION, 0, rows, num_samples)))
    reconstruction, kl = (np.concatenate([getattr(t, name) for t in terms]) for name in ("reconstruction", "kl"))
    return reconstruction.astype(np.float64), kl.astype(np.float64)


def summarise(
    vae: VAE,
    data: Data,
    part: str,
    binarize: str = "none",
    num_samples: int = 5000,
    limit: int = 0,
    method: str = "importance",
    seed: int = 0,
    watch: Watch | None = None,
    pixel_seed: int | None = None,
) -> Summary:
    """Measure a model on at most `limit` rows of the data (N, D), evenly spread (0: on all).

    Formula   gap = log p(x) - elbo, of estimates;  bits per dimension = -log p(x) / (D log 2)
              sampling bias = -mean(s^2) / 2, s the standard error of one example's estimate: E[log w] - log E[w] is
              -var(w) / (2 E[w]^2) to first order, w the mean of the weights, and more where a few of them have most of
              the weight; 0 where nothing is sampled
    Takes     binarize, pixel_seed (None: seed): how grey data are drawn; num_samples, method, seed, watch: of the
              estimate of log p(x), as `log_evidence`
    Returns   Summary
    Raises    ValueError for data that do not fit the model
    Source    Nowozin 2018, "Debiasing evidence approximations", corollary 1 (the bias)
    """
    rows = spread_rows(len(data), limit)
    x = as_seen(vae, data, rows, binarize, seed if pixel_seed is None else pixel_seed)
    drawn = ELBO_SAMPLES if method in INTEGRALS else min(num_samples, ELBO_SAMPLES)
    with one_order_of_sums(vae.engine):
        reconstruction, kl = (float(term.mean()) for term in elbo_terms(vae, x, seed, drawn))
        evidence = log_evidence(vae, x, method=method, num_samples=num_samples, seed=seed, watch=watch)
        units = active_units(vae, x)
    values, errors = evidence.log_evidence, evidence.standard_error
    mean, elbo = float(values.mean()), reconstruction - kl
    nats_per_bit = vae.data_dim * log(2.0)
    return Summary(
        part=part,
        examples=len(x),
        examples_in_all=len(data),
        num_samples=num_samples,
        method=method,
        reconstruction=reconstruction,
        kl=kl,
        elbo=elbo,
        log_evidence=mean,
        standard_error=float(values.std(ddof=1) / sqrt(len(x))) if len(x) > 1 else float("nan"),
        sampling_error=float(np.sqrt(np.square(errors).sum()) / len(x)),
        sampling_bias=0.0 if method in INTEGRALS else -0.5 * float(np.square(errors).mean()),
        gap=mean - elbo,
        bits_per_dimension=-mean / nats_per_bit,
        elbo_bits_per_dimension=-elbo / nats_per_bit,
        effective_sample_size=float(np.median(evidence.effective_sample_size)),
        smallest_effective_sample_size=float(evidence.effective_sample_size.min()),
        active_units=units,
        latent_dim=vae.latent_dim,
    )
