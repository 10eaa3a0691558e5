"""Twin of `reference.importance`, on the compiled log-sum-exp."""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scratchvae.compiled.kernel_cache import KERNEL
from scratchvae.compiled.log_sum_exp import log_sum_exp_backward, log_sum_exp_forward


def importance_bound_forward(log_weights: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.importance.importance_bound_forward`."""
    total, weights = log_sum_exp_forward(log_weights)
    drop_negligible(weights)
    return total - math.log(log_weights.shape[1]), weights


@njit(**KERNEL)
def drop_negligible(weights):
    """Weights (B, K) that are `negligible` become zero: see `reference.importance.negligible`."""
    limit = np.finfo(weights.dtype).eps / 4
    for b in range(weights.shape[0]):
        ascending, total = np.sort(weights[b]), 0.0
        for least in ascending:
            total += least
            if not total < limit:
                break
        for k in range(weights.shape[1]):
            weights[b, k] = 0 if weights[b, k] < least else weights[b, k]


def importance_bound_backward(dbound: NDArray, weights: NDArray) -> NDArray:
    """See `reference.importance.importance_bound_backward`."""
    return log_sum_exp_backward(dbound, weights)


def effective_sample_size(log_weights: NDArray) -> NDArray:
    """See `reference.importance.effective_sample_size`."""
    _, weights = log_sum_exp_forward(log_weights)
    seen = ~np.isneginf(log_weights).all(axis=1)
    return seen / np.square(weights).sum(axis=1)
