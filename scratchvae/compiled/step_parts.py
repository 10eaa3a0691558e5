"""What a training step in one call is made of, however its work is shared out: an example's pixels and noise, its
likelihood, and the bound of its log-weights.

Kernels that one of several stands for are called by their addresses, so that what is not asked for is not compiled. The
data comes to them as its bytes (N, D times the bytes of a pixel): a step is compiled once for pixels of all types.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.bernoulli import bernoulli_row
from scratchvae.compiled.gather import _gather
from scratchvae.compiled.gemm import matrix_view
from scratchvae.compiled.importance import drop_negligible
from scratchvae.compiled.kernel_cache import INLINED, INNER, kernel_cache
from scratchvae.compiled.log_sum_exp import _rows as log_sum_exp_rows
from scratchvae.compiled.network import call
from scratchvae.compiled.posterior import _backward as posterior_backward_rows
from scratchvae.compiled.posterior import log_ratio
from scratchvae.compiled.random import NORMALS, _binarize_span, _copy
from scratchvae.compiled.tile import INDEX, element
from scratchvae.compiled.vector_math import float32_from_bits, sum_row

ELBO, RECONSTRUCTION, KL, OBJECTIVE = range(4)  # rows of `terms`
LINE_FLOATS = 16  # elements of a cache line, of float32
APART = 65_536  # elements between arrays: 80 rows of MNIST's images. Only where pages are huge do they take memory


class Settings(NamedTuple):
    """All whole numbers of a step: addresses of kernels, sizes, and where pixels and noise come from."""

    kernel: int
    forward: int  # of a network; where weights are shared out, all of the step until d loss / d logits
    backward: int  # of a network; where weights are shared out, the rest of the step
    gradient: int  # of a network; 0 where weights are shared out
    pixels: int
    noise: int  # 0 where it is given
    bound: int  # of the log-weights; 0 for the ELBO with its KL in closed form
    keep: int  # 0 where all samples go back
    spread: int
    weighted: int  # whether the bound gives every sample its own weight
    batch: int  # examples that the loss is a mean over: those of this call, or more that others work on
    samples: int
    latent: int
    pixel_stream: int
    noise_stream: int
    key0: int
    key1: int
    pixel_step: int  # this and the last change from step to step
    noise_step: int


# --- what stands where: arrays in one work space ----------------------------------------------------------------------


def laid_out(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Offset, rows and columns of arrays one after the other, each from a cache line on; the last row is the end.

    They stand APART. A product walks down its second factor in long strides, and the processor fetches some fifty rows
    beyond the end. Another thread that writes what stands there would have to take every line back first."""
    sizes = [-(-rows * columns // LINE_FLOATS) * LINE_FLOATS + APART for rows, columns in shapes]
    return [(offset, *shape) for offset, shape in zip(accumulate(sizes, initial=0), [*shapes, (0, 0)], strict=True)]


@intrinsic
def at(context, space, number):
    """The array of that number in space = (memory, places), whose rows begin with offset, rows and columns. The memory
    must outlive it.

    A tuple of all arrays would read better. But for every array that is handed on Numba writes some twenty instructions
    that count its references, and all of them take the compiler's time.
    """
    memory = space.types[0]

    def emit(context, builder, signature, arguments):
        flat, places = cgutils.unpack_tuple(builder, arguments[0])
        table = context.make_array(space.types[1])(context, builder, places)
        place = element(builder, table, arguments[1], INDEX(0))
        offset, rows, columns = (builder.load(builder.gep(place, [INDEX(n)])) for n in range(3))
        return matrix_view(context, builder, memory, flat, offset, rows, columns)

    return types.Array(memory.dtype, 2, "C")(space, types.intp), emit


# --- pixels and noise -------------------------------------------------------------------------------------------------


@cache
def converted_from(dtype: np.dtype) -> Any:
    """The kernel for pixels as they are, of data of that type, uint8 scaled."""

    with kernel_cache():

        @njit(**INNER)
        def scaled(settings, data, left, rows, x):
            """Of the columns from `left` as many as x has."""
            _gather(data, left, rows, x.dtype.type(255), x, 0, rows.size)

        @njit(**INNER)
        def converted(settings, data, left, rows, x):
            """The same of data of another type, which comes as its bytes."""
            _gather(data.view(dtype), left, rows, x.dtype.type(1), x, 0, rows.size)

    return scaled if dtype == np.uint8 else converted


@njit(**INNER)
def binarized(settings, data, left, rows, x):
    """Pixels drawn from uint8; `left` is a multiple of sixteen."""
    settings = Settings(*settings)
    blocks, address = rows.size * ((x.shape[1] + 15) // 16), (settings.pixel_step, settings.pixel_stream)
    _binarize_span(0, blocks, data, left, rows, rows, *address, settings.key0, settings.key1, x)


@njit(**INLINED)
def noise(settings, rows, given, eps):
    """Normal noise, drawn or as it is given."""
    count, bits, flat = settings.samples * settings.latent, np.empty(eps.size, np.uint32), eps.reshape(eps.size)
    if settings.noise:
        call(
            settings.noise, NORMALS, 0, rows.size * ((count + 3) // 4), rows, count,
            settings.noise_step, settings.noise_stream, settings.key0, settings.key1, bits,
        )  # fmt: skip
        for i in range(flat.size):
            flat[i] = float32_from_bits(np.int32(bits[i]))
    else:
        for i in range(len(eps)):
            _copy(given[rows[i // settings.samples], i % settings.samples], eps[i])


# --- terms of an example, and their gradients -------------------------------------------------------------------------


@njit(**INNER)
def likelihoods(settings, x, out, low, high, log_likelihood):
    """log p(x|z) of pixels low .. high - 1, which are all of x, of every sample. Their logits become d loss / d logits,
    or, where every sample has a weight (`scale`), d log p / d logits."""
    number = out.dtype.type
    factor = number(1) if settings.weighted else number(-1.0 / (settings.batch * settings.samples))
    values = np.empty(high - low, out.dtype)
    for n in range(len(out)):
        logits = out[n, low:high]
        bernoulli_row(x[n // settings.samples], logits, factor, values)
        log_likelihood[n] = sum_row(values)


@njit(**INNER)
def scale(out, low, high, factors):
    """Columns low .. high - 1 of every row, by its factor."""
    for n in range(len(out)):
        scale_row(out[n, low:high], factors[n], out[n, low:high])


@njit(**INNER)
def scale_row(source, factor, target):
    for d in range(source.size):
        target[d] = factor * source[d]


@njit(**INNER)
def log_ratios(head, eps, z, ratios):
    """log p(z) - log q(z|x) of all samples (B, K)."""
    (examples, samples), latent = ratios.shape, z.shape[1]
    values = np.empty(latent, z.dtype)
    for b in range(examples):
        for k in range(samples):
            n = b * samples + k
            ratios[b, k] = log_ratio(head[b, latent:], eps[n], z[n], values)


@njit(**INNER)
def example_terms(settings, beta, log_likelihood, ratios, terms, low, high):
    """Terms of examples low .. high - 1 from the log-likelihoods (B, K) of their samples and their KL. With a bound of
    log-weights, which takes the ratios log p(z) - log q(z|x) (B, K) too, these become d loss / d log-weights."""
    for b in range(low, high):
        reconstruction = sum_row(log_likelihood[b]) / log_likelihood.dtype.type(settings.samples)
        terms[RECONSTRUCTION, b] = reconstruction
        terms[ELBO, b] = reconstruction - terms[KL, b]
        terms[OBJECTIVE, b] = reconstruction - beta * terms[KL, b]
    if settings.bound:
        call(settings.bound, settings.batch, beta, log_likelihood, ratios, terms, low, high)


@njit(**INNER)
def importance_bound(batch, beta, log_likelihood, ratios, terms, low, high):
    """L_K of the examples; the log-likelihoods become log-weights, the ratios d loss / d log w_k = -w~_k / batch."""
    samples, number = log_likelihood.shape[1], log_likelihood.dtype.type
    bounds, weights = np.empty(high - low, number), ratios[low:high]
    for b in range(low, high):
        for k in range(samples):
            log_likelihood[b, k] += ratios[b, k]
    log_sum_exp_rows(log_likelihood[low:high], bounds, weights)
    drop_negligible(weights)
    for b in range(low, high):
        for k in range(samples):
            ratios[b, k] = -ratios[b, k] / number(batch)
        terms[OBJECTIVE, b] = bounds[b - low] - number(math.log(samples))


@njit(**INNER)
def monte_carlo_bound(batch, beta, log_likelihood, ratios, terms, low, high):
    """The mean over samples of log p(x|z) + beta (log p(z) - log q(z|x)) of the examples, and its gradient by the
    ratios: all samples weigh the same."""
    samples, number = log_likelihood.shape[1], log_likelihood.dtype.type
    for b in range(low, high):
        terms[OBJECTIVE, b] = terms[RECONSTRUCTION, b] + beta * sum_row(ratios[b]) / number(samples)
        ratios[b] = beta * number(-1.0 / (batch * samples))


@njit(**INLINED)
def head_gradient(settings, beta, head, std, eps, z, dz, dratio, dhead):
    """dhead (B, 2 Z) from dz (B, K, Z), which is overwritten. The KL is in closed form, or, with a bound of
    log-weights, in the ratio log p(z) - log q(z|x), whose gradient is -z by z and 1/2 by logvar."""
    number, latent = head.dtype.type, std.shape[1]
    dkl = np.empty(len(head), head.dtype)
    dkl[:] = (number(0) if settings.bound else beta) / number(settings.batch)
    if settings.bound:
        for b in range(len(head)):
            for k in range(dz.shape[1]):
                for j in range(latent):
                    dz[b, k, j] -= dratio[b, k] * z[b, k, j]
    posterior_backward_rows(dz, dkl, head, std, eps, dhead)
    if settings.bound:
        for b in range(len(head)):
            half_of_sum = number(0.5) * sum_row(dratio[b])
            for j in range(latent):
                dhead[b, latent + j] += half_of_sum
