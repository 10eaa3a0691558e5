"""Twins of `reference.gaussian_likelihood`: value and scaled deviation in one read of the means."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from scratchvae.compiled.bernoulli import scale_rows
from scratchvae.compiled.kernel_cache import KERNEL
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import sum_row
from scratchvae.reference.gaussian import LOG_2_PI
from scratchvae.reference.gaussian_likelihood import GaussianLikelihoodCache, UnitGaussianCache


@njit(**KERNEL)
def _rows(x, mean, inverse_std, constant, scaled, log_likelihood, first, last):
    samples, half, terms = mean.shape[1], mean.dtype.type(0.5), np.empty(mean.shape[2], mean.dtype)
    for row in range(first, last):
        b, k = row // samples, row % samples
        for d in range(mean.shape[2]):
            ratio = (mean.dtype.type(x[b, d]) - mean[b, k, d]) * inverse_std[d]
            scaled[b, k, d] = ratio
            terms[d] = ratio * ratio
        log_likelihood[b, k] = -half * (constant + sum_row(terms))


@njit(parallel=True, **KERNEL)
def _rows_parallel(x, mean, inverse_std, constant, scaled, log_likelihood, slices):
    rows = mean.shape[0] * mean.shape[1]
    for t in prange(slices):
        first, last = rows * t // slices, rows * (t + 1) // slices
        _rows(x, mean, inverse_std, constant, scaled, log_likelihood, first, last)


def _forward(x: NDArray, mean: NDArray, inverse_std: NDArray, constant: float) -> tuple[NDArray, NDArray]:
    """-1/2 (sum_d scaled^2 + constant), and scaled = (x - mean) / sigma."""
    x, mean = np.ascontiguousarray(x), np.ascontiguousarray(mean)
    scaled, log_likelihood = np.empty_like(mean), np.empty(mean.shape[:2], mean.dtype)
    constant = mean.dtype.type(constant)
    slices = slices_for(mean.size, 0.2)
    if slices > 1:
        _rows_parallel(x, mean, inverse_std, constant, scaled, log_likelihood, slices)
    else:
        _rows(x, mean, inverse_std, constant, scaled, log_likelihood, 0, log_likelihood.size)
    return log_likelihood, scaled


def gaussian_log_likelihood_forward(
    x: NDArray, mean: NDArray, logvar: NDArray
) -> tuple[NDArray, GaussianLikelihoodCache]:
    """See `reference.gaussian_likelihood.gaussian_log_likelihood_forward`."""
    size = mean.shape[2]
    inverse_std = np.exp(-0.5 * logvar).astype(mean.dtype)
    constant = LOG_2_PI * size + float(np.broadcast_to(logvar, size).sum(dtype=np.float64))
    log_likelihood, scaled = _forward(x, mean, np.ascontiguousarray(np.broadcast_to(inverse_std, size)), constant)
    return log_likelihood, GaussianLikelihoodCache(scaled, inverse_std)


@njit(**KERNEL)
def _gradient(dlog_likelihood, scaled, inverse_std, dmean, dlogvar):
    """One thread: dlogvar is summed over the rows in their order."""
    half, one = dmean.dtype.type(0.5), dmean.dtype.type(1)
    for b in range(dmean.shape[0]):
        for k in range(dmean.shape[1]):
            upstream = dlog_likelihood[b, k]
            for d in range(dmean.shape[2]):
                ratio = scaled[b, k, d]
                dmean[b, k, d] = upstream * ratio * inverse_std[d]
                dlogvar[d] += half * upstream * (ratio * ratio - one)


def gaussian_log_likelihood_backward(
    dlog_likelihood: NDArray, cache: GaussianLikelihoodCache
) -> tuple[NDArray, NDArray]:
    """See `reference.gaussian_likelihood.gaussian_log_likelihood_backward`."""
    scaled, inverse_std = cache
    size = scaled.shape[2]
    dmean, dlogvar = np.empty_like(scaled), np.zeros(size, scaled.dtype)
    dlog_likelihood = np.ascontiguousarray(dlog_likelihood, scaled.dtype)
    _gradient(dlog_likelihood, scaled, np.ascontiguousarray(np.broadcast_to(inverse_std, size)), dmean, dlogvar)
    return dmean, dlogvar if inverse_std.size == size else dlogvar.sum(keepdims=True)


def unit_gaussian_log_likelihood_forward(x: NDArray, mean: NDArray) -> tuple[NDArray, UnitGaussianCache]:
    """See `reference.gaussian_likelihood.unit_gaussian_log_likelihood_forward`."""
    size = mean.shape[2]
    log_likelihood, deviation = _forward(x, mean, np.ones(size, mean.dtype), LOG_2_PI * size)
    return log_likelihood, UnitGaussianCache(deviation)


def unit_gaussian_log_likelihood_backward(dlog_likelihood: NDArray, cache: UnitGaussianCache) -> NDArray:
    """See `reference.gaussian_likelihood.unit_gaussian_log_likelihood_backward`."""
    return scale_rows(dlog_likelihood, cache.deviation)
