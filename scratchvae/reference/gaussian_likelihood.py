"""Gaussian log-likelihoods log N(x; D(z), variance): unit variance, one learned variance, one per dimension."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.gaussian import LOG_2_PI


class GaussianLikelihoodCache(NamedTuple):
    deviation: NDArray  # (B, K, D)
    precision: NDArray  # (1,) or (D,)


def gaussian_log_likelihood_forward(
    x: NDArray, mean: NDArray, logvar: NDArray
) -> tuple[NDArray, GaussianLikelihoodCache]:
    """log p(x|z) of each sample under N(mean, exp(logvar)), in nats.

    Forward   log p_bk = -1/2 sum_d (log 2 pi + logvar_d + (x_bd - mean_bkd)^2 exp(-logvar_d))
    Takes     x (B, D); mean (B, K, D); logvar (1,): one variance shared by all dimensions, or (D,): one for each
    Returns   log p (B, K), cache
    Source    Kingma, Welling 2013, appendix C.2
    """
    deviation = x[:, None, :] - mean
    precision = np.exp(-logvar)
    log_likelihood = -0.5 * (LOG_2_PI + logvar + deviation * deviation * precision).sum(axis=2)
    return log_likelihood, GaussianLikelihoodCache(deviation, precision)


def gaussian_log_likelihood_backward(
    dlog_likelihood: NDArray, cache: GaussianLikelihoodCache
) -> tuple[NDArray, NDArray]:
    """Gradient of `gaussian_log_likelihood_forward`.

    Gives     d/d mean = (x - mean) exp(-logvar)    d/d logvar_d = ((x - mean)^2 exp(-logvar) - 1) / 2, summed over what
              shares the variance
    Takes     dlog_likelihood (B, K); cache
    Returns   dmean (B, K, D), dlogvar of logvar's shape
    """
    scaled = cache.deviation * cache.precision
    dmean = dlog_likelihood[:, :, None] * scaled  # reverse of: deviation = x - mean
    dterm = (
        0.5 * dlog_likelihood[:, :, None] * (cache.deviation * scaled - 1.0)
    )  # reverse of: logvar + ... exp(-logvar)
    dlogvar = dterm.sum(axis=(0, 1))
    return dmean, dlogvar if cache.precision.size == dlogvar.size else dlogvar.sum(keepdims=True)


class UnitGaussianCache(NamedTuple):
    deviation: NDArray  # (B, K, D)


def unit_gaussian_log_likelihood_forward(x: NDArray, mean: NDArray) -> tuple[NDArray, UnitGaussianCache]:
    """log p(x|z) of each sample under N(mean, I): the textbook squared error, constant included, in nats.

    Forward   log p_bk = -1/2 ||x_b - mean_bk||^2 - D/2 log 2 pi
    Takes     x (B, D); mean (B, K, D)
    Returns   log p (B, K), cache
    """
    deviation = x[:, None, :] - mean
    log_likelihood = -0.5 * (deviation * deviation).sum(axis=2) - 0.5 * LOG_2_PI * x.shape[1]
    return log_likelihood, UnitGaussianCache(deviation)


def unit_gaussian_log_likelihood_backward(dlog_likelihood: NDArray, cache: UnitGaussianCache) -> NDArray:
    """Gradient of `unit_gaussian_log_likelihood_forward`.

    Gives     d log p/d mean = x - mean
    Takes     dlog_likelihood (B, K); cache
    Returns   dmean (B, K, D)
    """
    return dlog_likelihood[:, :, None] * cache.deviation
