"""Twin of `reference.log_sum_exp`."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.vector_math import exp, log, sum_row


@njit(**INNER)
def _largest(a):
    """The maximum, or NaN where there is one."""
    largest = a[0]
    for k in range(1, a.size):
        largest = a[k] if a[k] > largest or a[k] != a[k] else largest
    return largest


@njit(**KERNEL)
def _rows(a, out, weights):
    for row in range(a.shape[0]):
        largest = _largest(a[row])
        empty = largest == -np.inf
        shift = a.dtype.type(0) if empty else largest
        for k in range(a.shape[1]):
            weights[row, k] = exp(a[row, k] - shift)
        total = sum_row(weights[row])
        out[row] = largest if empty else largest + log(total)
        for k in range(a.shape[1]):
            weights[row, k] = 1 / a.dtype.type(a.shape[1]) if empty else weights[row, k] / total


def log_sum_exp_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.log_sum_exp.log_sum_exp_forward`."""
    a = np.ascontiguousarray(a)
    out, weights = np.empty(a.shape[:-1], a.dtype), np.empty_like(a)
    _rows(a.reshape(-1, a.shape[-1]), out.reshape(-1), weights.reshape(-1, a.shape[-1]))
    return out, weights


def log_sum_exp_backward(dout: NDArray, weights: NDArray) -> NDArray:
    """See `reference.log_sum_exp.log_sum_exp_backward`."""
    return dout[..., None] * weights
