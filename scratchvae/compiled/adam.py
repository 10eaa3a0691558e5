"""Twin of `reference.adam`: one pass over the four arrays."""

import math

import numpy as np
from numba import njit, prange, types
from numba.extending import overload
from numpy.typing import NDArray

from scratchvae.compiled.adam_by_estimates import update as update_by_estimates
from scratchvae.compiled.denormals import FLUSH, mode, set_mode
from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import join_bits, multiply_add, root


@njit(forceinline=True, **INNER)
def update_by_arithmetic(p, g, m, v, constants, reach):
    """One step in place on slices. Returns whether all of p is finite now: a number less itself is zero, without a bit,
    but NaN where it is not finite.

    Takes     constants as `adam_constants` gives them; reach: elements from the slices' start on that the caller alone
              writes, and may ask for

    What has been stored is not read again: where a vector lies across two cache lines, or two arrays at the same place
    of their pages, a load behind a store waits for it.
    """
    one_minus_beta1, beta2, one_minus_beta2 = constants[0], constants[1], constants[2]
    size, epsilon = constants[3], constants[4]
    seen = join_bits(0, p.dtype.type(0))
    for i in range(p.size):
        slope = g[i]
        first = multiply_add(one_minus_beta1, slope - m[i], m[i])
        second = multiply_add(one_minus_beta2 * slope, slope, beta2 * v[i])
        m[i], v[i] = first, second
        new = multiply_add(-size, first / (root(second) + epsilon), p[i])
        p[i] = new
        seen = join_bits(seen, new - new)
    return seen == 0


def update(p, g, m, v, constants, reach):
    """The same, in the way that suits the processor."""
    raise NotImplementedError


@overload(update)
def _update(p, g, m, v, constants, reach):
    way = update_by_estimates if SIMD.estimates and p.dtype == types.float32 else update_by_arithmetic
    return lambda p, g, m, v, constants, reach: way(p, g, m, v, constants, reach)


@njit(parallel=True, **KERNEL)
def _update_parallel(p, g, m, v, constants, slices):
    for t in prange(slices):
        first, last = p.size * t // slices, p.size * (t + 1) // slices
        _update_flushed(p[first:last], g[first:last], m[first:last], v[first:last], constants)


@njit(**KERNEL)
def _update_flushed(p, g, m, v, constants):
    """Denormal moments become zero, as in a step that is one call."""
    before = mode()
    set_mode(before | FLUSH)
    update(p, g, m, v, constants, p.size)
    set_mode(before)


def adam_constants(
    step: int, learning_rate: float, beta1: float, beta2: float, epsilon: float
) -> tuple[float, float, float, float, float]:
    """1 - b1, b2, 1 - b2, and the step size and epsilon with the corrections for the update's number."""
    correction = math.sqrt(1 - beta2**step)
    size = learning_rate * correction / (1 - beta1**step)
    return 1 - beta1, beta2, 1 - beta2, size, epsilon * correction


def adam_update(
    parameters: NDArray,
    gradient: NDArray,
    first: NDArray,
    second: NDArray,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """See `reference.adam.adam_update`."""
    constants = np.array(adam_constants(step, learning_rate, beta1, beta2, epsilon), parameters.dtype)
    g = np.ascontiguousarray(gradient, parameters.dtype).reshape(-1)
    arrays = parameters, first, second
    p, m, v = (np.ascontiguousarray(array).reshape(-1) for array in arrays)
    slices = slices_for(p.size, 0.2)
    if slices > 1:
        _update_parallel(p, g, m, v, constants, slices)
    else:
        _update_flushed(p, g, m, v, constants)
    for array, updated in zip(arrays, (p, m, v), strict=True):
        if not array.flags.c_contiguous:  # else it is what was updated
            array[...] = updated.reshape(array.shape)
