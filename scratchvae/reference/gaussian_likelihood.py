"""Gaussian log-likelihoods log N(x; D(z), variance): unit variance, one learned variance, one per dimension.

B examples, K samples per example, D data dimensions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.gaussian import LOG_2_PI


class GaussianLikelihoodCache(NamedTuple):
    scaled: NDArray  # (B, K, D): (x - mean) / sigma
    inverse_std: NDArray  # (1,) or (D,): 1 / sigma


def gaussian_log_likelihood_forward(
    x: NDArray, mean: NDArray, logvar: NDArray
) -> tuple[NDArray, GaussianLikelihoodCache]:
    """log p(x|z) of each sample under N(mean, exp(logvar)), in nats.

    Forward   log p_bk = -1/2 sum_d (log 2 pi + logvar_d + (x_bd - mean_bkd)^2 exp(-logvar_d))
    Takes     x (B, D); mean (B, K, D); logvar (1,): one variance shared by all dimensions, or (D,): one for each
    Returns   log p (B, K), cache
    Source    Kingma, Welling 2013, appendix C.2, equation 12, with a variance that does not depend on z
    """
    inverse_std = np.exp(-0.5 * logvar)  # not its square: that overflows float32 from logvar = -88 on
    scaled = (x[:, None, :] - mean) * inverse_std
    log_likelihood = -0.5 * (LOG_2_PI + logvar + scaled * scaled).sum(axis=2)
    return log_likelihood, GaussianLikelihoodCache(scaled, inverse_std)


def gaussian_log_likelihood_backward(
    dlog_likelihood: NDArray, cache: GaussianLikelihoodCache
) -> tuple[NDArray, NDArray]:
    """Gradient of `gaussian_log_likelihood_forward`.

    Gives     d/d mean = (x - mean) exp(-logvar)    d/d logvar_d = ((x - mean)^2 exp(-logvar) - 1) / 2, summed over what
              shares the variance
    Takes     dlog_likelihood (B, K); cache
    Returns   dmean (B, K, D), dlogvar of logvar's shape
    """
    scaled, inverse_std = cache
    dmean = dlog_likelihood[:, :, None] * scaled * inverse_std  # reverse of: scaled^2, x - mean
    dterm = 0.5 * dlog_likelihood[:, :, None] * (scaled * scaled - 1.0)  # reverse of: logvar + scaled^2
    dlogvar = dterm.sum(axis=(0, 1))
    return dmean, dlogvar if inverse_std.size == dlogvar.size else dlogvar.sum(keepdims=True)


class UnitGaussianCache(NamedTuple):
    deviation: NDArray  # (B, K, D)


def unit_gaussian_log_likelihood_forward(x: NDArray, mean: NDArray) -> tuple[NDArray, UnitGaussianCache]:
    """log p(x|z) of each sample under N(mean, I): the textbook squared error, constant included, in nats.

    Forward   log p_bk = -1/2 ||x_b - mean_bk||^2 - D/2 log 2 pi
    Takes     x (B, D); mean (B, K, D)
    Returns   log p (B, K), cache
    Source    Kingma, Welling 2013, appendix C.2, equation 12, with a variance of 1
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
