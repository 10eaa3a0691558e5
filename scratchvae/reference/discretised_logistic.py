"""The discretised logistic log-likelihood: pixels of L levels, each with the mass of a logistic density in its bin.

The value x = k / (L - 1) owns the bin x - h .. x + h, h = 1/2 / (L - 1); the bins of 0 and of 1 reach to infinity, so
that the masses sum to 1 whatever the density. With the bin's edges in units of the scale s around the location m,

    a = (x - h - m) / s        b = (x + h - m) / s        p(x) = sigmoid(b) - sigmoid(a)

In a tail both sigmoids round to the same number. But

    sigmoid(b) - sigmoid(a) = (1 - exp(-(b - a))) sigmoid(b) sigmoid(-a)
    log p = log(1 - exp(-2 h / s)) - softplus(-b) - softplus(a)

and nothing cancels. The first bin has no lower edge: sigmoid(a) = 0, and what is left is -softplus(-b); the last one
has no upper edge: -softplus(a).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.activations import sigmoid_forward, softplus_forward


class DiscretisedLogisticCache(NamedTuple):
    dlocation: NDArray  # (B, K, D): d log p / d location
    dlog_scale: NDArray  # (B, K, D): d log p_d / d log s_d
    shared: bool  # whether all dimensions have one scale


def discretised_logistic_log_likelihood_forward(
    x: NDArray, location: NDArray, log_scale: NDArray, levels: int = 256
) -> tuple[NDArray, DiscretisedLogisticCache]:
    """log p(x|z) of each sample under independent discretised logistics, in nats.

    Forward   log p_bk = sum_d log(sigmoid(b) - sigmoid(a)), as above
    Takes     x (B, D), multiples of 1/(levels - 1) in [0, 1]; location (B, K, D); log_scale (1,): one scale shared by
              all dimensions, or (D,): one for each; levels, at least 2
    Returns   log p (B, K), cache
    Source    Salimans et al. 2017, equation 2; after Kingma et al. 2016, appendix C.5, whose bins begin at x
    """
    x, half = x[:, None, :], 0.5 / (levels - 1)
    has_lower, has_upper = x > half, x < 1 - half
    interior = has_lower & has_upper
    inverse_root = np.exp(-0.5 * log_scale)  # not its square: 1 / s overflows float32 from log s = -88 on
    width = _below_infinity(2 * half * inverse_root * inverse_root)  # b - a
    distance = x - location
    upper = np.where(has_upper, _below_infinity((distance + half) * inverse_root * inverse_root), 0)
    lower = np.where(has_lower, -_below_infinity((half - distance) * inverse_root * inverse_root), 0)

    terms = (
        np.where(interior, np.log(-np.expm1(-width)), 0)
        - np.where(has_upper, softplus_forward(-upper)[0], 0)
        - np.where(has_lower, softplus_forward(lower)[0], 0)
    )
    dupper = np.where(has_upper, sigmoid_forward(-upper)[0], 0)  # d log p / d b
    dlower = np.where(has_lower, -sigmoid_forward(lower)[0], 0)  # d log p / d a
    dwidth = np.where(interior, np.exp(-width) / -np.expm1(-width), 0)  # d log p / d width, beyond b and a themselves
    dlocation = -(dupper + dlower) * inverse_root * inverse_root  # a and b both fall by 1 / s
    dlog_scale = -(
        upper * dupper + lower * dlower + width * dwidth
    )  # a, b and the width are all 1 / s times a constant
    return terms.sum(axis=2), DiscretisedLogisticCache(dlocation, dlog_scale, log_scale.size < x.shape[2])


def discretised_logistic_log_likelihood_backward(
    dlog_likelihood: NDArray, cache: DiscretisedLogisticCache
) -> tuple[NDArray, NDArray]:
    """Gradient of `discretised_logistic_log_likelihood_forward`.

    Gives     with u = sigmoid(-b) (0 in the last bin), v = sigmoid(a) (0 in the first), w = 2 h / s
              d log p/d m = (v - u) / s        d log p/d log s = a v - b u - w / (exp(w) - 1) [only between the two],
              summed over what shares the scale
    Takes     dlog_likelihood (B, K); cache
    Returns   dlocation (B, K, D), dlog_scale of log_scale's shape
    """
    dlog_likelihood = dlog_likelihood[:, :, None]
    dlog_scale = (dlog_likelihood * cache.dlog_scale).sum(axis=(0, 1))
    return dlog_likelihood * cache.dlocation, dlog_scale.sum(keepdims=True) if cache.shared else dlog_scale


def _below_infinity(a: NDArray) -> NDArray:
    """a, and in the place of infinity the largest number, which times a derivative of 0 is 0."""
    largest = np.finfo(a.dtype).max
    return np.where(a.real > largest, largest, a)
