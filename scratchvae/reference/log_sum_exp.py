"""log sum exp over the last axis, and its gradient, the softmax."""

import numpy as np
from numpy.typing import NDArray


def log_sum_exp_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """log sum_k exp(a_k), with the largest term taken out so that nothing overflows.

    Forward   m = max_k a_k        out = m + log sum_k exp(a_k - m)
    Takes     a (..., K)
    Returns   out (...), cache: softmax(a) (..., K). Where every a_k is -inf, out is -inf and the weights are 1/K.
    Source    Blanchard, Higham, Higham 2021, "Accurately computing the log-sum-exp and softmax functions"
    """
    largest = a.real.max(axis=-1, keepdims=True)  # a constant shift: its gradient cancels
    shift = np.where(np.isneginf(largest), np.zeros_like(largest), largest)
    powers = np.exp(a - shift)
    total = powers.sum(axis=-1, keepdims=True)
    empty = total == 0
    out = np.where(empty, -np.inf, shift + np.log(np.where(empty, 1, total)))
    weights = np.where(empty, 1 / a.shape[-1], powers / np.where(empty, 1, total))
    return out[..., 0].astype(a.dtype), weights.astype(a.dtype)


def log_sum_exp_backward(dout: NDArray, weights: NDArray) -> NDArray:
    """Gradient of `log_sum_exp_forward`.

    Gives     d out/d a_k = softmax(a)_k
    Takes     dout (...); cache: weights (..., K)
    Returns   da (..., K)
    """
    return dout[..., None] * weights
