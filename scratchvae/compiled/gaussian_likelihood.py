"""Twins of `reference.gaussian_likelihood`: value and deviation in one read of the means."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from scratchvae.compiled.bernoulli import scale_rows
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import sum_row
from scratchvae.reference.gaussian import LOG_2_PI
from scratchvae.reference.gaussian_likelihood import GaussianLikelihoodCache, UnitGaussianCache


@njit(cache=True, error_model="numpy")
def _rows(x, mean, precision, constant, deviation, log_likelihood, first, last):
    samples, half, terms = mean.shape[1], mean.dtype.type(0.5), np.empty(mean.shape[2], mean.dtype)
    for row in range(first, last):
        b, k = row // samples, row % samples
        for d in range(mean.shape[2]):
            difference = mean.dtype.type(x[b, d]) - mean[b, k, d]
            deviation[b, k, d] = difference
            terms[d] = difference * difference * precision[d]
        log_likelihood[b, k] = -half * (constant + sum_row(terms))


@njit(cache=True, parallel=True)
def _rows_parallel(x, mean, precision, constant, deviation, log_likelihood, slices):
    rows = mean.shape[0] * mean.shape[1]
    for t in prange(slices):
        first, last = rows * t // slices, rows * (t + 1) // slices
        _rows(x, mean, precision, constant, deviation, log_likelihood, first, last)


def _forward(x: NDArray, mean: NDArray, precision: NDArray, constant: float) -> tuple[NDArray, NDArray]:
    """-1/2 (sum_d deviation^2 precision + constant), and the deviation."""
    x, mean = np.ascontiguousarray(x), np.ascontiguousarray(mean)
    deviation, log_likelihood = np.empty_like(mean), np.empty(mean.shape[:2], mean.dtype)
    constant = mean.dtype.type(constant)
    slices = slices_for(mean.size, 0.2)
    if slices > 1:
        _rows_parallel(x, mean, precision, constant, deviation, log_likelihood, slices)
    else:
        _rows(x, mean, precision, constant, deviation, log_likelihood, 0, log_likelihood.size)
    return log_likelihood, deviation


def gaussian_log_likelihood_forward(
    x: NDArray, mean: NDArray, logvar: NDArray
) -> tuple[NDArray, GaussianLikelihoodCache]:
    """See `reference.gaussian_likelihood.gaussian_log_likelihood_forward`."""
    size = mean.shape[2]
    precision = np.exp(-logvar).astype(mean.dtype)
    constant = LOG_2_PI * size + float(np.broadcast_to(logvar, size).sum(dtype=np.float64))
    log_likelihood, deviation = _forward(x, mean, np.ascontiguousarray(np.broadcast_to(precision, size)), constant)
    return log_likelihood, GaussianLikelihoodCache(deviation, precision)


@njit(cache=True, error_model="numpy")
def _gradient(dlog_likelihood, deviation, precision, dmean, dlogvar):
    """One thread: dlogvar is summed over the rows in their order."""
    half, one = dmean.dtype.type(0.5), dmean.dtype.type(1)
    for b in range(dmean.shape[0]):
        for k in range(dmean.shape[1]):
            upstream = dlog_likelihood[b, k]
            for d in range(dmean.shape[2]):
                scaled = deviation[b, k, d] * precision[d]
                dmean[b, k, d] = upstream * scaled
                dlogvar[d] += half * upstream * (deviation[b, k, d] * scaled - one)


def gaussian_log_likelihood_backward(
    dlog_likelihood: NDArray, cache: GaussianLikelihoodCache
) -> tuple[NDArray, NDArray]:
    """See `reference.gaussian_likelihood.gaussian_log_likelihood_backward`."""
    deviation, precision = cache
    size = deviation.shape[2]
    dmean, dlogvar = np.empty_like(deviation), np.zeros(size, deviation.dtype)
    dlog_likelihood = np.ascontiguousarray(dlog_likelihood, deviation.dtype)
    _gradient(dlog_likelihood, deviation, np.ascontiguousarray(np.broadcast_to(precision, size)), dmean, dlogvar)
    return dmean, dlogvar if precision.size == size else dlogvar.sum(keepdims=True)


def unit_gaussian_log_likelihood_forward(x: NDArray, mean: NDArray) -> tuple[NDArray, UnitGaussianCache]:
    """See `reference.gaussian_likelihood.unit_gaussian_log_likelihood_forward`."""
    size = mean.shape[2]
    log_likelihood, deviation = _forward(x, mean, np.ones(size, mean.dtype), LOG_2_PI * size)
    return log_likelihood, UnitGaussianCache(deviation)


def unit_gaussian_log_likelihood_backward(dlog_likelihood: NDArray, cache: UnitGaussianCache) -> NDArray:
    """See `reference.gaussian_likelihood.unit_gaussian_log_likelihood_backward`."""
    return scale_rows(dlog_likelihood, cache.deviation)
