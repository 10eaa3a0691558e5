"""Twin of `reference.continuous_bernoulli`: value and derivative in one read of the logits, by selections alone."""

import numpy as np
from numba import njit, prange
from numba.np.unsafe.ndarray import to_fixed_tuple
from numpy.typing import NDArray

from scratchvae.compiled.bernoulli import scale_rows
from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import exp, log, sum_row
from scratchvae.reference.continuous_bernoulli import MEAN_SERIES, NEAR, TERMS, VALUE_SERIES, ContinuousBernoulliCache

SERIES = {np.dtype(name): np.array([VALUE_SERIES, MEAN_SERIES], name) for name in ("float32", "float64")}


@njit(forceinline=True, **INNER)
def _polynomial(c, x):
    return c[0] + x * (c[1] + x * (c[2] + x * (c[3] + x * (c[4] + x * (c[5] + x * c[6])))))


@njit(**KERNEL)
def _rows(x, logits, series, log_likelihood, derivative, first, last):
    value_series, mean_series = to_fixed_tuple(series[0], TERMS), to_fixed_tuple(series[1], TERMS)
    real, samples, terms = logits.dtype.type, logits.shape[1], np.empty(logits.shape[2], logits.dtype)
    zero, half, one, threshold = real(0), real(0.5), real(1), real(NEAR)
    for row in range(first, last):
        b, k = row // samples, row % samples
        for d in range(logits.shape[2]):
            logit, value = logits[b, k, d], real(x[b, d])
            negative = logit < zero
            a = -logit if negative else logit
            near = a < threshold
            square = logit * logit if near else zero
            a = threshold if near else a
            decay = exp(-a)
            rise = one - decay
            mean_below = one / a - decay / rise
            distance = value if negative else one - value
            close = (value - half) * logit - square * _polynomial(value_series, square)
            far = -a * distance - log(rise / a)
            terms[d] = close if near else far
            close = value - half - logit * _polynomial(mean_series, square)
            far = value - mean_below if negative else mean_below - distance
            derivative[b, k, d] = close if near else far
        log_likelihood[b, k] = sum_row(terms)


@njit(parallel=True, **KERNEL)
def _rows_parallel(x, logits, series, log_likelihood, derivative, slices):
    rows = logits.shape[0] * logits.shape[1]
    for t in prange(slices):
        _rows(x, logits, series, log_likelihood, derivative, rows * t // slices, rows * (t + 1) // slices)


def continuous_bernoulli_log_likelihood_forward(
    x: NDArray, logits: NDArray
) -> tuple[NDArray, ContinuousBernoulliCache]:
    """See `reference.continuous_bernoulli.continuous_bernoulli_log_likelihood_forward`."""
    x, logits = np.ascontiguousarray(x), np.ascontiguousarray(logits)
    log_likelihood, derivative = np.empty(logits.shape[:2], logits.dtype), np.empty(logits.shape, logits.dtype)
    slices, series = slices_for(logits.size, 2.0), SERIES[logits.dtype]
    if slices > 1:
        _rows_parallel(x, logits, series, log_likelihood, derivative, slices)
    else:
        _rows(x, logits, series, log_likelihood, derivative, 0, log_likelihood.size)
    return log_likelihood, ContinuousBernoulliCache(derivative)


def continuous_bernoulli_log_likelihood_backward(dlog_likelihood: NDArray, cache: ContinuousBernoulliCache) -> NDArray:
    """See `reference.continuous_bernoulli.continuous_bernoulli_log_likelihood_backward`."""
    return scale_rows(dlog_likelihood, cache.derivative)
