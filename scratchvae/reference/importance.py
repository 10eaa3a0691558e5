"""The importance-weighted bound on log p(x) from K log-weights log w_k = log p(x, z_k) - log q(z_k|x)."""

import math

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.log_sum_exp import log_sum_exp_backward, log_sum_exp_forward


def importance_bound_forward(log_weights: NDArray) -> tuple[NDArray, NDArray]:
    """L_K, a lower bound of log p(x) in expectation that rises with K, in nats.

    Forward   L_K = log 1/K sum_k w_k
    Takes     log_weights (B, K)
    Returns   L_K (B,), cache: self-normalised weights w_k / sum w (B, K): the best sample has the largest; those that
              are `negligible` are zero
    Source    Burda, Grosse, Salakhutdinov 2015, equations 8 and 14
    """
    total, weights = log_sum_exp_forward(log_weights)
    weights[negligible(weights)] = 0
    return total - math.log(log_weights.shape[1]), weights


def negligible(weights: NDArray) -> NDArray:
    """Which self-normalised weights are so small that their sum, 1, would be rounded to the same number without them.

    Gives     the smallest of an example whose sum is still below eps / 4: half of eps / 2, the distance from 1 to the
              number below. Of equal ones either all are, or none
    Takes     weights (B, K)
    Returns   (B, K), boolean. Without these samples a gradient lacks less than eps / 4 times the largest of their
              d log w: rounding, beside what the others give. An entry to which none of the others gives anything, as of
              a relu unit that is off in all of them, is zero instead of that little
    """
    ascending = np.sort(weights.real, axis=1)
    number = (np.cumsum(ascending, axis=1) < np.finfo(weights.dtype).eps / 4).sum(axis=1, keepdims=True)
    return weights.real < np.take_along_axis(ascending, number, axis=1)


def importance_bound_backward(dbound: NDArray, weights: NDArray) -> NDArray:
    """Gradient of `importance_bound_forward`.

    Gives     d L_K/d log w_k = w_k / sum w
    Takes     dbound (B,); cache: weights (B, K)
    Returns   dlog_weights (B, K)
    """
    return log_sum_exp_backward(dbound, weights)


def effective_sample_size(log_weights: NDArray) -> NDArray:
    """How many equally weighted samples the K weights are worth: 1 if one has all the weight, K if all are equal.

    0 where every weight is zero.

    Gives     ESS = (sum_k w_k)^2 / sum_k w_k^2
    Takes     log_weights (B, K)
    Returns   (B,)
    Source    Kong 1992, "A note on importance sampling using standardized weights"
    """
    _, weights = log_sum_exp_forward(log_weights)
    seen = ~np.isneginf(log_weights).all(axis=1)
    return seen / np.square(weights).sum(axis=1)
