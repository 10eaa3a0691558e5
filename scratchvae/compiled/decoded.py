"""Twin of `reference.decoded`: a thread decodes a few samples at a time, and logits never leave its cache.

Without a gradient a logit costs one exponential: the sum of log(1 + t) over several logits, t = exp(-|l|) <= 1, is one
logarithm, of the product of their 1 + t.
"""

import numpy as np
from numba import njit, prange, types
from numpy.typing import NDArray

from scratchvae.compiled.gaussian import _exp
from scratchvae.compiled.gemm import kernel, matrix
from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.network import (
    PARALLEL,
    _forward,
    _plain,
    address,
    call,
    check_width,
    finite_layers,
    hidden_units,
    multiply_adds,
    network_address,
    network_signature,
    slice_of,
)
from scratchvae.compiled.posterior import log_ratio
from scratchvae.compiled.slices import threads
from scratchvae.compiled.vector_math import decay, log, sum_row
from scratchvae.parameters import Network

ROWS = 96  # samples decoded together
WIDTH = 128  # at most so many logits stand side by side; they share their products with those before and behind them
LANES = 16  # of the widest vector: pieces of a row are multiples of it, on any processor
FACTORS = 64  # of a product, each at most 2: far from the largest float32


@njit(forceinline=True, **INNER)
def _multiply(pixels, logits, products, sums):
    """products *= 1 + exp(-|l|), sums += x l - max(l, 0)."""
    zero, one = products.dtype.type(0), products.dtype.type(1)
    for j in range(pixels.size):
        logit = logits[j]
        products[j] *= one + decay(-abs(logit))
        sums[j] += pixels[j] * logit - (zero if logit < zero else logit)


@njit(forceinline=True, **INNER)
def _take_logarithms(products, sums):
    for j in range(products.size):
        sums[j] -= log(products[j])
        products[j] = 1


@njit(**INNER)
def _log_likelihood(pixels, logits, products, sums):
    """sum_d (x_d l_d - max(l_d, 0) - log(1 + exp(-|l_d|)))."""
    width = sums.size
    for j in range(width):
        products[j], sums[j] = 1, 0
    for start in range(0, pixels.size, width):
        stop = min(start + width, pixels.size)
        own = slice(0, stop - start)
        _multiply(pixels[start:stop], logits[start:stop], products[own], sums[own])
        if start // width % FACTORS == FACTORS - 1:
            _take_logarithms(products, sums)
    _take_logarithms(products, sums)
    return sum_row(sums)


@njit(**INNER)
def _width(pixels):
    """Of equal pieces of a row, as few as may be: a short last one would cost nearly as much as a whole one."""
    pieces = -(-pixels // WIDTH)
    return -(-pixels // (pieces * LANES)) * LANES


@njit(**INNER)
def _draw(head, std, eps, z, terms):
    """z = mu + sigma eps. Returns log p(z) - log q(z|x)."""
    for j in range(z.size):
        z[j] = head[j] + std[j] * eps[j]
    return log_ratio(head[z.size :], eps, z, terms)


@njit(**INNER)
def _decode(kernel, forward, flat, table, x, z, head, std, log_weights, low, high):
    """Samples low .. high - 1 of all (B K,): log p(x|z). With a head, z is the noise of draws from q(z|x), and
    log p(z) - log q(z|x) is added."""
    samples, pixels, latent, none = log_weights.shape[1], x.shape[1], z.shape[1], flat[:0]
    hidden, space = np.empty(ROWS * hidden_units(table), flat.dtype), np.empty(ROWS * (pixels + latent), flat.dtype)
    width = _width(pixels)
    sums = np.empty(2 * width + latent, flat.dtype)
    finite = finite_layers(flat, table)
    for start in range(low, high, ROWS):
        rows = min(ROWS, high - start)
        # views that count no references: the loops below take a slice of them at every few logits
        out, drawn = matrix(space, 0, ROWS, pixels), matrix(space, ROWS * pixels, ROWS, latent)
        lanes, terms = matrix(sums, 0, 2, width), matrix(sums, 2 * width, 1, latent)[0]
        for i in range(rows):
            b, k = (start + i) // samples, (start + i) % samples
            log_weights[b, k] = 0
            if head.size:
                log_weights[b, k] = _draw(head[b], std[b], z[start + i], drawn[i], terms)
        part = drawn if head.size else z[start : start + rows]
        call(forward, kernel, flat, table, part, hidden, none, out, finite, none, none, none, table[:0], 0, rows, 1)
        for i in range(rows):
            b, k = (start + i) // samples, (start + i) % samples
            log_weights[b, k] += _log_likelihood(x[b], out[i], lanes[0], lanes[1])


@njit(parallel=True, **KERNEL)
def _decode_in_parallel(decode, kernel, forward, flat, table, x, z, head, std, log_weights):
    rows = log_weights.size
    if rows * multiply_adds(table) < PARALLEL:
        call(decode, kernel, forward, flat, table, x, z, head, std, log_weights, 0, rows)
        return
    parts = threads()
    for part in prange(parts):
        low, high = slice_of(rows, part, parts)
        call(decode, kernel, forward, flat, table, x, z, head, std, log_weights, low, high)


def _run(x: NDArray, z: NDArray, head: NDArray, std: NDArray, network: Network) -> NDArray:
    flat, dtype, layers = network.flat, network.flat.dtype, network.layers
    check_width("x", x, len(layers[-1].bias))
    check_width("z", z, len(layers[0].weight))
    if len(x) != len(z):
        raise ValueError(f"there are {len(x)} rows of x and {len(z)} of z; expected as many")
    log_weights = np.empty(z.shape[:2], dtype)
    _decode_in_parallel(
        address(_decode, _signature(dtype)), kernel(dtype), network_address(_forward, dtype), flat,
        network.table, _plain(x, dtype), _plain(z, dtype).reshape(-1, z.shape[2]), head, std, log_weights,
    )  # fmt: skip
    return log_weights


def decoded_bernoulli_log_likelihood(x: NDArray, z: NDArray, network: Network) -> NDArray:
    """See `reference.decoded.decoded_bernoulli_log_likelihood`."""
    none = np.empty((0, 0), network.flat.dtype)
    return _run(x, z, none, none, network)


def decoded_bernoulli_log_weights(x: NDArray, head: NDArray, eps: NDArray, network: Network) -> NDArray:
    """See `reference.decoded.decoded_bernoulli_log_weights`."""
    head = _plain(head, network.flat.dtype)
    return _run(x, eps, head, _exp(0.5, head[:, eps.shape[2] :]), network)


def _signature(dtype: np.dtype) -> tuple[types.Type, ...]:
    size, flat, table, rows = (network_signature(dtype)[n] for n in (0, 1, 2, 3))
    return size, size, flat, table, rows, rows, rows, rows, rows, size, size
