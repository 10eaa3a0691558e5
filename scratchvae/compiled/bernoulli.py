"""Twin of `reference.bernoulli`: value and derivative in one read of the logits."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import sum_row, tails
from scratchvae.reference.bernoulli import BernoulliCache


@njit(**INNER)
def bernoulli_row(pixels, logits, factor, terms):
    """log p of each pixel of a row into `terms`; factor d log p / d logits takes the place of the logits."""
    real = logits.dtype.type
    zero, one = real(0), real(1)
    for d in range(logits.size):
        pixel, logit = real(pixels[d]), logits[d]
        on = logit > zero
        softplus, doubt = tails(logit)
        terms[d] = pixel * logit - (logit if on else zero) - softplus
        logits[d] = factor * (pixel - (one if on else zero) + (doubt if on else -doubt))


@njit(**KERNEL)
def _rows(x, logits, log_likelihood, derivative, first, last):
    samples, terms = logits.shape[1], np.empty(logits.shape[2], logits.dtype)
    for row in range(first, last):
        b, k = row // samples, row % samples
        derivative[b, k] = logits[b, k]
        bernoulli_row(x[b], derivative[b, k], logits.dtype.type(1), terms)
        log_likelihood[b, k] = sum_row(terms)


@njit(parallel=True, **KERNEL)
def _rows_parallel(x, logits, log_likelihood, derivative, slices):
    rows = logits.shape[0] * logits.shape[1]
    for t in prange(slices):
        _rows(x, logits, log_likelihood, derivative, rows * t // slices, rows * (t + 1) // slices)


def bernoulli_log_likelihood_forward(x: NDArray, logits: NDArray) -> tuple[NDArray, BernoulliCache]:
    """See `reference.bernoulli.bernoulli_log_likelihood_forward`."""
    x, logits = np.ascontiguousarray(x), np.ascontiguousarray(logits)
    log_likelihood, derivative = np.empty(logits.shape[:2], logits.dtype), np.empty(logits.shape, logits.dtype)
    slices = slices_for(logits.size, 0.6)
    if slices > 1:
        _rows_parallel(x, logits, log_likelihood, derivative, slices)
    else:
        _rows(x, logits, log_likelihood, derivative, 0, log_likelihood.size)
    return log_likelihood, BernoulliCache(derivative)


def bernoulli_log_likelihood_backward(dlog_likelihood: NDArray, cache: BernoulliCache) -> NDArray:
    """See `reference.bernoulli.bernoulli_log_likelihood_backward`."""
    return scale_rows(dlog_likelihood, cache.derivative)


@njit(**KERNEL)
def _scale_rows(factors, source, target, first, last):
    samples = source.shape[1]
    for row in range(first, last):
        b, k = row // samples, row % samples
        factor = factors[b, k]
        for d in range(source.shape[2]):
            target[b, k, d] = factor * source[b, k, d]


@njit(parallel=True, **KERNEL)
def _scale_rows_parallel(factors, source, target, slices):
    rows = source.shape[0] * source.shape[1]
    for t in prange(slices):
        _scale_rows(factors, source, target, rows * t // slices, rows * (t + 1) // slices)


def scale_rows(factors: NDArray, source: NDArray) -> NDArray:
    """factors (B, K) times source (B, K, D), row by row."""
    factors = np.ascontiguousarray(factors, source.dtype)
    target = np.empty(source.shape, source.dtype)
    slices = slices_for(source.size, 0.12)
    if slices > 1:
        _scale_rows_parallel(factors, source, target, slices)
    else:
        _scale_rows(factors, source, target, 0, factors.size)
    return target
