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
    """Samples of q(z|x) and KL(q(z|x) || p(z)).

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
