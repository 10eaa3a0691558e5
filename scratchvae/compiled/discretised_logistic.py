"""Twin of `reference.discretised_logistic`: value and both derivatives in one read of the locations.

What depends on the scale alone is computed once for each dimension, in float64.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from scratchvae.compiled.bernoulli import scale_rows
from scratchvae.compiled.kernel_cache import KERNEL
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import softplus_sigmoid, sum_row
from scratchvae.reference.discretised_logistic import DiscretisedLogisticCache


@njit(**KERNEL)
def _rows(x, location, half, of_scale, log_likelihood, dlocation, dlog_scale, first, last):
    real, samples, terms = location.dtype.type, location.shape[1], np.empty(location.shape[2], location.dtype)
    zero, bottom, top, largest = real(0), real(half), real(1.0 - half), real(np.finfo(location.dtype).max)
    inverse_root, log_mass, dwidth = of_scale[0], of_scale[1], of_scale[2]
    for row in range(first, last):
        b, k = row // samples, row % samples
        for d in range(location.shape[2]):
            value = real(x[b, d])
            distance, factor = value - location[b, k, d], inverse_root[d]
            has_lower, has_upper = value > bottom, value < top
            interior = has_lower & has_upper
            lower, upper = (distance - bottom) * factor * factor, (distance + bottom) * factor * factor
            lower = -largest if lower < -largest else lower  # where its derivative is 0, and so is their product
            upper = largest if upper > largest else upper
            lower, upper = lower if has_lower else zero, upper if has_upper else zero
            above, dupper = softplus_sigmoid(-upper)
            below, dlower = softplus_sigmoid(lower)
            above, dupper = above if has_upper else zero, dupper if has_upper else zero
            below, dlower = below if has_lower else zero, dlower if has_lower else zero
            terms[d] = (log_mass[d] if interior else zero) - above - below
            dlocation[b, k, d] = (dlower - dupper) * factor * factor
            dlog_scale[b, k, d] = lower * dlower - upper * dupper - (dwidth[d] if interior else zero)
        log_likelihood[b, k] = sum_row(terms)


@njit(parallel=True, **KERNEL)
def _rows_parallel(x, location, half, of_scale, log_likelihood, dlocation, dlog_scale, slices):
    rows = location.shape[0] * location.shape[1]
    for t in prange(slices):
        first, last = rows * t // slices, rows * (t + 1) // slices
        _rows(x, location, half, of_scale, log_likelihood, dlocation, dlog_scale, first, last)


def _of_scale(log_scale: NDArray, half: float, size: int, dtype: np.dtype) -> NDArray:
    """1 / sqrt(s), log(1 - exp(-w)) and w / (exp(w) - 1) with w = 2 h / s, for each of `size` dimensions (3, D)."""
    inverse_root = np.exp(-0.5 * log_scale.astype(np.float64))
    width = np.minimum(2 * half * inverse_root * inverse_root, np.finfo(np.float64).max)
    mass = -np.expm1(-width)
    values = inverse_root, np.log(mass), width * np.exp(-width) / mass
    return np.array([np.broadcast_to(value, size) for value in values], dtype)


def discretised_logistic_log_likelihood_forward(
    x: NDArray, location: NDArray, log_scale: NDArray, levels: int = 256
) -> tuple[NDArray, DiscretisedLogisticCache]:
    """See `reference.discretised_logistic.discretised_logistic_log_likelihood_forward`."""
    x, location = np.ascontiguousarray(x), np.ascontiguousarray(location)
    size, half = location.shape[2], 0.5 / (levels - 1)
    of_scale = _of_scale(log_scale, half, size, location.dtype)
    log_likelihood = np.empty(location.shape[:2], location.dtype)
    dlocation, dlog_scale = np.empty_like(location), np.empty_like(location)
    slices = slices_for(location.size, 1.5)
    if slices > 1:
        _rows_parallel(x, location, half, of_scale, log_likelihood, dlocation, dlog_scale, slices)
    else:
        _rows(x, location, half, of_scale, log_likelihood, dlocation, dlog_scale, 0, log_likelihood.size)
    return log_likelihood, DiscretisedLogisticCache(dlocation, dlog_scale, log_scale.size < size)


@njit(**KERNEL)
def _add_rows(factors, source, total):
    """One thread: summed over the rows in their order."""
    for b in range(source.shape[0]):
        for k in range(source.shape[1]):
            for d in range(source.shape[2]):
                total[d] += factors[b, k] * source[b, k, d]


def discretised_logistic_log_likelihood_backward(
    dlog_likelihood: NDArray, cache: DiscretisedLogisticCache
) -> tuple[NDArray, NDArray]:
    """See `reference.discretised_logistic.discretised_logistic_log_likelihood_backward`."""
    dlog_likelihood = np.ascontiguousarray(dlog_likelihood, cache.dlocation.dtype)
    dlog_scale = np.zeros(cache.dlog_scale.shape[2], cache.dlog_scale.dtype)
    _add_rows(dlog_likelihood, cache.dlog_scale, dlog_scale)
    dlocation = scale_rows(dlog_likelihood, cache.dlocation)
    return dlocation, dlog_scale.sum(keepdims=True) if cache.shared else dlog_scale
