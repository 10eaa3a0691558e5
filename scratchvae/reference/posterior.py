"""From the encoder's head to samples and their price: the draw from q(z|x) and its KL to the prior, side by side.

The head's 2 Z columns are mu and logvar. Both are used twice, once by the draw and once by the KL, so their gradients
are sums of two.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.gaussian import (
    KLCache,
    ReparameterizeCache,
    kl_to_prior_backward,
    kl_to_prior_forward,
    reparameterize_backward,
    reparameterize_forward,
)


class PosteriorCache(NamedTuple):
    draw: ReparameterizeCache
    kl: KLCache


def posterior_forward(head: NDArray, eps: NDArray) -> tuple[NDArray, NDArray, PosteriorCache]:
    """Samples of q(z|x) and KL(q(z|x) || p(z)), the latter in nats.

    Forward   mu, logvar = head        z_bk = mu_b + exp(logvar_b / 2) eps_bk
              kl_b = KL(N(mu_b, exp(logvar_b)) || N(0, I))
    Takes     head (B, 2 Z); eps (B, K, Z)
    Returns   z (B, K, Z), kl (B,), cache
    Source    Kingma, Welling 2013, section 2.4 and appendix B
    """
    mu, logvar = np.split(head, 2, axis=1)
    z, draw = reparameterize_forward(mu, logvar, eps)
    kl, kl_cache = kl_to_prior_forward(mu, logvar)
    return z, kl, PosteriorCache(draw, kl_cache)


def posterior_backward(dz: NDArray, dkl: NDArray, cache: PosteriorCache) -> NDArray:
    """Gradient of `posterior_forward`.

    Gives     dmu = dmu of the draw + dmu of the KL, and the same for logvar
    Takes     dz (B, K, Z); dkl (B,); cache
    Returns   dhead (B, 2 Z)
    """
    dmu_kl, dlogvar_kl = kl_to_prior_backward(dkl, cache.kl)
    dmu_draw, dlogvar_draw = reparameterize_backward(dz, cache.draw)
    return np.concatenate([dmu_draw + dmu_kl, dlogvar_draw + dlogvar_kl], axis=1)  # mu and logvar are used twice


def log_ratio_forward(logvar: NDArray, eps: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
    """log p(z) - log q(z|x) of q's own samples, in nats: what a sample pays in the place of the KL.

    Forward   ratio_bk = 1/2 sum_j (logvar_bj + eps_bkj^2 - z_bkj^2)
              Both densities have the term log 2 pi, and what q's exponent asks for, L^-1 (z - mu), is eps. Solved for
              it would be mostly rounding where q is narrow
    Takes     logvar (B, Z): of a diagonal q, or of a full one, log|L L^T| = sum_j logvar_j; eps, z = mu + L eps
              (B, K, Z)
    Returns   ratio (B, K), cache: z
    Source    Kingma, Welling 2013, equation 6
    """
    return 0.5 * (logvar[:, None, :] + eps * eps - z * z).sum(axis=2), z


def log_ratio_backward(dlog_ratio: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
    """Gradient of `log_ratio_forward`, eps held. log q moves with the sample it is of: all that is left is logvar.

    Gives     d ratio/d logvar_j = 1/2        d ratio/d z_j = -z_j
    Takes     dlog_ratio (B, K); cache: z
    Returns   dlogvar (B, Z), dz (B, K, Z)
    """
    dlogvar = np.repeat(0.5 * dlog_ratio.sum(axis=1)[:, None], z.shape[2], axis=1)  # each sample uses logvar
    return dlogvar, -dlog_ratio[:, :, None] * z
