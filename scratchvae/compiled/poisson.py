"""Twin of `reference.poisson`: value and derivative in one read of the log rates, in float64 inside."""

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from scratchvae.compiled.bernoulli import scale_rows
from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import sum_row
from scratchvae.reference.poisson import PoissonCache

LOG_FACTORIALS = np.array([math.lgamma(count + 1.0) for count in range(256)])  # most counts are small


@njit(forceinline=True, **INNER)
def _log_factorial(x):
    if x >= 0 and x < LOG_FACTORIALS.size and x == math.floor(x):
        return LOG_FACTORIALS[int(x)]
    return math.lgamma(x + 1.0)


@njit(**KERNEL)
def _rows(x, log_rate, log_likelihood, derivative, first, last):
    samples, terms = log_rate.shape[1], np.empty(log_rate.shape[2], np.float64)
    constant, of_example = 0.0, -1
    for row in range(first, last):
        b, k = row // samples, row % samples
        if b != of_example:  # the constant is the same for all samples of an example
            of_example = b
            for d in range(terms.size):
                terms[d] = _log_factorial(np.float64(x[b, d]))
            constant = sum_row(terms)
        for d in range(terms.size):
            count, logarithm = np.float64(x[b, d]), np.float64(log_rate[b, k, d])
            rate = math.exp(logarithm)
            terms[d] = count * logarithm - rate
            derivative[b, k, d] = count - rate
        log_likelihood[b, k] = sum_row(terms) - constant


@njit(parallel=True, **KERNEL)
def _rows_parallel(x, log_rate, log_likelihood, derivative, slices):
    rows = log_rate.shape[0] * log_rate.shape[1]
    for t in prange(slices):
        _rows(x, log_rate, log_likelihood, derivative, rows * t // slices, rows * (t + 1) // slices)


def poisson_log_likelihood_forward(x: NDArray, log_rate: NDArray) -> tuple[NDArray, PoissonCache]:
    """See `reference.poisson.poisson_log_likelihood_forward`."""
    x, log_rate = np.ascontiguousarray(x), np.ascontiguousarray(log_rate)
    log_likelihood = np.empty(log_rate.shape[:2], log_rate.dtype)
    derivative = np.empty(log_rate.shape, log_rate.dtype)
    slices = slices_for(log_rate.size, 6.0)
    if slices > 1:
        _rows_parallel(x, log_rate, log_likelihood, derivative, slices)
    else:
        _rows(x, log_rate, log_likelihood, derivative, 0, log_likelihood.size)
    return log_likelihood, PoissonCache(derivative)


def poisson_log_likelihood_backward(dlog_likelihood: NDArray, cache: PoissonCache) -> NDArray:
    """See `reference.poisson.poisson_log_likelihood_backward`."""
    return scale_rows(dlog_likelihood, cache.derivative)
