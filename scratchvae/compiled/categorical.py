"""Twin of `reference.categorical`: value and derivative in one read of the logits."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from scratchvae.compiled.bernoulli import scale_rows
from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import exp, log, sum_row
from scratchvae.reference.categorical import CategoricalCache


@njit(**INNER)
def _group(x, logits, derivative):
    """log p of one group, and its derivative."""
    real, largest = logits.dtype.type, logits[0]
    for d in range(logits.size):
        largest = logits[d] if logits[d] > largest else largest
    total, chosen = real(0), real(0)
    for d in range(logits.size):
        derivative[d] = exp(logits[d] - largest)
        total += derivative[d]
        chosen += real(x[d]) * (logits[d] - largest)
    inverse = real(1) / total
    for d in range(logits.size):
        derivative[d] = real(x[d]) - derivative[d] * inverse
    return chosen - log(total)


@njit(**KERNEL)
def _rows(x, logits, bounds, log_likelihood, derivative, first, last):
    samples, terms = logits.shape[1], np.empty(bounds.size - 1, logits.dtype)
    for row in range(first, last):
        b, k = row // samples, row % samples
        for g in range(terms.size):
            start, end = bounds[g], bounds[g + 1]
            terms[g] = _group(x[b, start:end], logits[b, k, start:end], derivative[b, k, start:end])
        log_likelihood[b, k] = sum_row(terms)


@njit(parallel=True, **KERNEL)
def _rows_parallel(x, logits, bounds, log_likelihood, derivative, slices):
    rows = logits.shape[0] * logits.shape[1]
    for t in prange(slices):
        _rows(x, logits, bounds, log_likelihood, derivative, rows * t // slices, rows * (t + 1) // slices)


def categorical_log_likelihood_forward(
    x: NDArray, logits: NDArray, starts: NDArray
) -> tuple[NDArray, CategoricalCache]:
    """See `reference.categorical.categorical_log_likelihood_forward`."""
    x, logits = np.ascontiguousarray(x), np.ascontiguousarray(logits)
    bounds = np.append(starts, logits.shape[2])
    log_likelihood, derivative = np.empty(logits.shape[:2], logits.dtype), np.empty(logits.shape, logits.dtype)
    slices = slices_for(logits.size, 3.0)
    if slices > 1:
        _rows_parallel(x, logits, bounds, log_likelihood, derivative, slices)
    else:
        _rows(x, logits, bounds, log_likelihood, derivative, 0, log_likelihood.size)
    return log_likelihood, CategoricalCache(derivative)


def categorical_log_likelihood_backward(dlog_likelihood: NDArray, cache: CategoricalCache) -> NDArray:
    """See `reference.categorical.categorical_log_likelihood_backward`."""
    return scale_rows(dlog_likelihood, cache.derivative)
