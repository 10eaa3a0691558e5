"""Twin of `reference.decoded`: a thread decodes a few samples at a time, and logits never leave its cache.

Without a gradient a logit costs one exponential: the sum of log(1 + t) over several logits, t = exp(-|l|) <= 1, is one
logarithm, of the product of their 1 + t.
"""

import numpy as np
from numba import njit, prange, types
from numpy.typing import NDArray

from scratchvae.compiled.gemm import kernel
from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.network import (
    PARALLEL,
    _forward,
    _plain,
    address,
    call,
    hidden_units,
    multiply_adds,
    network_signature,
    slice_of,
    threads,
)
from scratchvae.compiled.vector_math import decay, log, sum_row
from scratchvae.parameters import Network

ROWS = 96  # samples decoded together
WIDTH = 128  # logits that share a place in the products with those 128 before and behind them
FACTORS = 64  # of a product, each at most 2: far from the largest float32


@njit(cache=True, error_model="numpy", **INNER)
def _multiply(pixels, logits, products, sums):
    """products *= 1 + exp(-|l|), sums += x l - max(l, 0)."""
    zero, one = products.dtype.type(0), products.dtype.type(1)
    for j in range(pixels.size):
        logit = logits[j]
        products[j] *= one + decay(-abs(logit))
        sums[j] += pixels[j] * logit - (zero if logit < zero else logit)


@njit(cache=True, error_model="numpy", **INNER)
def _take_logarithms(products, sums):
    for j in range(products.size):
        sums[j] -= log(products[j])
        products[j] = 1


@njit(cache=True, error_model="numpy", **INNER)
def _log_likelihood(pixels, logits, products, sums):
    """sum_d (x_d l_d - max(l_d, 0) - log(1 + exp(-|l_d|)))."""
    for j in range(sums.size):
        products[j], sums[j] = 1, 0
    for start in range(0, pixels.size, WIDTH):
        stop = min(start + WIDTH, pixels.size)
        own = slice(0, stop - start)
        _multiply(pixels[start:stop], logits[start:stop], products[own], sums[own])
        if start // WIDTH % FACTORS == FACTORS - 1:
            _take_logarithms(products, sums)
    _take_logarithms(products, sums)
    return sum_row(sums)


@njit(cache=True, error_model="numpy", **INNER)
def _decode(kernel, forward, flat, table, x, z, log_likelihood, low, high):
    """Samples low .. high - 1 of all (B K,)."""
    samples, pixels, none = log_likelihood.shape[1], x.shape[1], flat[:0]
    hidden, out = np.empty(ROWS * hidden_units(table), flat.dtype), np.empty((ROWS, pixels), flat.dtype)
    products, sums = np.empty(WIDTH, flat.dtype), np.empty(WIDTH, flat.dtype)
    for start in range(low, high, ROWS):
        rows = min(ROWS, high - start)
        part = z[start : start + rows]
        call(forward, (kernel, flat, table, part, hidden, none, out, out[:0], none, none, none, 0, rows, 1))
        for i in range(rows):
            b, k = (start + i) // samples, (start + i) % samples
            log_likelihood[b, k] = _log_likelihood(x[b], out[i], products, sums)


@njit(cache=True, parallel=True)
def _decode_in_parallel(decode, kernel, forward, flat, table, x, z, log_likelihood):
    rows = log_likelihood.size
    if rows * multiply_adds(table) < PARALLEL:
        call(decode, (kernel, forward, flat, table, x, z, log_likelihood, 0, rows))
        return
    parts = threads()
    for part in prange(parts):
        low, high = slice_of(rows, part, parts)
        call(decode, (kernel, forward, flat, table, x, z, log_likelihood, low, high))


def decoded_bernoulli_log_likelihood(x: NDArray, z: NDArray, network: Network) -> NDArray:
    """See `reference.decoded.decoded_bernoulli_log_likelihood`."""
    flat, dtype = network.flat, network.flat.dtype
    x, z = _plain(x, dtype), _plain(z, dtype)
    log_likelihood = np.empty(z.shape[:2], dtype)
    _decode_in_parallel(
        address(_decode, _signature(dtype)), kernel(dtype), address(_forward, network_signature(dtype)), flat,
        network.table, x, z.reshape(-1, z.shape[2]), log_likelihood,
    )  # fmt: skip
    return log_likelihood


def _signature(dtype: np.dtype) -> tuple[types.Type, ...]:
    size, flat, table, rows = (network_signature(dtype)[n] for n in (0, 1, 2, 3))
    return size, size, flat, table, rows, rows, rows, size, size
