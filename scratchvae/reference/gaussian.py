"""The Gaussian posterior q(z|x) = N(mu, exp(logvar)): drawing from it, its KL divergence to the prior N(0, I), and
log-densities.

Shapes: B examples, K samples per example, Z latent dimensions. `logvar` is log sigma^2, never log sigma.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOG_2_PI = math.log(2 * math.pi)


class ReparameterizeCache(NamedTuple):
    std: NDArray  # (B, Z)
    eps: NDArray  # (B, K, Z)


def reparameterize_forward(mu: NDArray, logvar: NDArray, eps: NDArray) -> tuple[NDArray, ReparameterizeCache]:
    """Draw z from N(mu, exp(logvar)) as a differentiable function of mu and logvar.

    Forward   z_bk = mu_b + exp(logvar_b / 2) eps_bk
    Takes     mu, logvar (B, Z); eps (B, K, Z): standard normal noise, drawn by the caller
    Returns   z (B, K, Z), cache
    Source    Kingma, Welling 2013, section 2.4
    """
    std = np.exp(0.5 * logvar)
    z = mu[:, None, :] + std[:, None, :] * eps
    return z, ReparameterizeCache(std, eps)


def reparameterize_backward(dz: NDArray, cache: ReparameterizeCache) -> tuple[NDArray, NDArray]:
    """Gradient of `reparameterize_forward`.

    Gives     d z/d mu = 1        d z/d logvar = exp(logvar / 2) eps / 2
    Takes     dz (B, K, Z): d loss / d z; cache
    Returns   dmu, dlogvar (B, Z); the noise is data and gets no gradient
    """
    dmu = dz.sum(axis=1)  # reverse of: z = mu + ...
    dstd = (dz * cache.eps).sum(axis=1)  # reverse of: z = ... + std * eps
    dlogvar = 0.5 * cache.std * dstd  # reverse of: std = exp(logvar / 2)
    return dmu, dlogvar


class KLCache(NamedTuple):
    mu: NDArray  # (B, Z)
    growth: NDArray  # (B, Z): exp(logvar) - 1


def kl_to_prior_forward(mu: NDArray, logvar: NDArray) -> tuple[NDArray, KLCache]:
    """KL(N(mu, exp(logvar)) || N(0, I)) of each example, in nats.

    Forward   kl_b = 1/2 sum_j (mu_bj^2 + exp(logvar_bj) - 1 - logvar_bj)  >= 0, and 0 only at mu = 0, logvar = 0
    Takes     mu, logvar (B, Z)
    Returns   kl (B,), cache
    Source    Kingma, Welling 2013, appendix B
    """
    growth = np.expm1(logvar)  # near logvar = 0, exp(logvar) - 1 would be mostly rounding, and kl of either sign
    kl = 0.5 * (mu * mu + (growth - logvar)).sum(axis=1)
    return kl, KLCache(mu, growth)


def kl_to_prior_backward(dkl: NDArray, cache: KLCache) -> tuple[NDArray, NDArray]:
    """Gradient of `kl_to_prior_forward`.

    Gives     d kl/d mu = mu        d kl/d logvar = (exp(logvar) - 1) / 2
    Takes     dkl (B,): d loss / d kl; cache
    Returns   dmu, dlogvar (B, Z)
    """
    dmu = dkl[:, None] * cache.mu
    dlogvar = dkl[:, None] * (0.5 * cache.growth)
    return dmu, dlogvar


def kl_per_dimension_forward(mu: NDArray, logvar: NDArray) -> tuple[NDArray, KLCache]:
    """The terms of `kl_to_prior_forward` before they are summed over j.

    Forward   kl_bj = 1/2 (mu_bj^2 + exp(logvar_bj) - 1 - logvar_bj)  >= 0                                       [nats]
    Takes     mu, logvar (B, Z)
    Returns   kl (B, Z), cache
    Source    Kingma, Welling 2013, appendix B
    """
    growth = np.expm1(logvar)
    return 0.5 * (mu * mu + (growth - logvar)), KLCache(mu, growth)


def kl_per_dimension_backward(dkl: NDArray, cache: KLCache) -> tuple[NDArray, NDArray]:
    """Gradient of `kl_per_dimension_forward`.

    Gives     d kl_j/d mu_j = mu_j        d kl_j/d logvar_j = (exp(logvar_j) - 1) / 2
    Takes     dkl (B, Z): d loss / d kl; cache
    Returns   dmu, dlogvar (B, Z)
    """
    return dkl * cache.mu, dkl * (0.5 * cache.growth)


class GaussianLogDensityCache(NamedTuple):
    scaled: NDArray  # (B, K, Z): (z - mu) / sigma
    inverse_std: NDArray  # (B, Z): 1 / sigma


def gaussian_log_density_forward(z: NDArray, mu: NDArray, logvar: NDArray) -> tuple[NDArray, GaussianLogDensityCache]:
    """log N(z; mu, exp(logvar)) of each sample, in nats: log q(z|x) where mu and logvar come from the encoder.

    Forward   log q_bk = -1/2 sum_j (log 2 pi + logvar_bj + (z_bkj - mu_bj)^2 exp(-logvar_bj))
    Takes     z (B, K, Z); mu, logvar (B, Z)
    Returns   log q (B, K), cache
    Source    Kingma, Welling 2013, equation 9
    """
    inverse_std = np.exp(-0.5 * logvar)  # not its square: that overflows float32 from logvar = -88 on
    scaled = (z - mu[:, None, :]) * inverse_std[:, None, :]
    log_density = -0.5 * (LOG_2_PI + logvar[:, None, :] + scaled * scaled).sum(axis=2)
    return log_density, GaussianLogDensityCache(scaled, inverse_std)


def gaussian_log_density_backward(
    dlog_density: NDArray, cache: GaussianLogDensityCache
) -> tuple[NDArray, NDArray, NDArray]:
    """Gradient of `gaussian_log_density_forward`.

    Gives     d/dz = -(z - mu) exp(-logvar)    d/d mu = -d/dz    d/d logvar = ((z - mu)^2 exp(-logvar) - 1) / 2
    Takes     dlog_density (B, K); cache
    Returns   dz (B, K, Z), dmu, dlogvar (B, Z)
    """
    dz = -dlog_density[:, :, None] * cache.scaled * cache.inverse_std[:, None, :]  # reverse of: scaled^2, z - mu
    dmu = -dz.sum(axis=1)  # the same deviation, for mu
    dlogvar = (0.5 * dlog_density[:, :, None] * (cache.scaled * cache.scaled - 1.0)).sum(axis=1)  # logvar + scaled^2
    return dz, dmu, dlogvar


def gaussian_draw_scores(dlog_density: NDArray, eps: NDArray, logvar: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Gradient of log q of q's own samples z = mu + sigma eps: by z with q held, and by mu and logvar with z held.

    Gives     that of `gaussian_log_density_backward`, with eps for (z - mu) / sigma, which rounding spoils
    Takes     dlog_density (B, K); eps (B, K, Z); logvar (B, Z)
    Returns   dz (B, K, Z), dmu, dlogvar (B, Z)
    """
    return gaussian_log_density_backward(dlog_density, GaussianLogDensityCache(eps, np.exp(-0.5 * logvar)))


def standard_normal_log_density_forward(z: NDArray) -> tuple[NDArray, NDArray]:
    """log N(z; 0, I) of each sample, in nats: the prior log p(z).

    Forward   log p_bk = -1/2 sum_j (log 2 pi + z_bkj^2)
    Takes     z (B, K, Z)
    Returns   log p (B, K), cache: z
    Source    Kingma, Welling 2013, section 3: the prior
    """
    return -0.5 * (LOG_2_PI + z * z).sum(axis=2), z


def standard_normal_log_density_backward(dlog_density: NDArray, z: NDArray) -> NDArray:
    """Gradient of `standard_normal_log_density_forward`.

    Gives     d log p/d z = -z
    Takes     dlog_density (B, K); cache: z
    Returns   dz (B, K, Z)
    """
    return -dlog_density[:, :, None] * z
