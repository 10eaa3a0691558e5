"""The Poisson log-likelihood of counts, from the logarithm of the rate."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PoissonCache(NamedTuple):
    derivative: NDArray  # (B, K, D): d log p / d log_rate


def poisson_log_likelihood_forward(x: NDArray, log_rate: NDArray) -> tuple[NDArray, PoissonCache]:
    """log p(x|z) of each sample under independent Poisson distributions, constant included, in nats.

    Forward   log p_bk = sum_d (x_bd l_bkd - exp(l_bkd) - log x_bd!)
              in float64 whatever the arguments are: three large numbers cancel. A rate beyond the largest number gives
              -inf, which is log p rounded; the rate 0 of a very negative l gives x l - log x!
    Takes     x (B, D), whole numbers that are not negative; log_rate (B, K, D)
    Returns   log p (B, K), cache
    Source    McCullagh, Nelder 1989, "Generalized linear models", chapter 6
    """
    x, wide = x[:, None, :], np.result_type(log_rate, np.float64)
    with np.errstate(over="ignore"):
        rate = np.exp(log_rate.astype(wide))
        log_likelihood = (x * log_rate.astype(wide) - rate - log_factorial(x)).sum(axis=2)
        derivative = (x - rate).astype(log_rate.dtype)
        return log_likelihood.astype(log_rate.dtype), PoissonCache(derivative)


def poisson_log_likelihood_backward(dlog_likelihood: NDArray, cache: PoissonCache) -> NDArray:
    """Gradient of `poisson_log_likelihood_forward`.

    Gives     d log p/d l = x - exp(l), the count minus the rate
    Takes     dlog_likelihood (B, K): d loss / d log p; cache
    Returns   dlog_rate (B, K, D)
    """
    return dlog_likelihood[:, :, None] * cache.derivative


def log_factorial(x: NDArray) -> NDArray[np.float64]:
    """log x! = log Gamma(x + 1), computed once for each count that occurs."""
    counts, places = np.unique(x, return_inverse=True)
    return np.array([math.lgamma(float(count) + 1.0) for count in counts])[places].reshape(x.shape)
