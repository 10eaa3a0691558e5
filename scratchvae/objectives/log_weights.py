"""The log-weights of a model's samples, log w = log p(x|z) + log p(z) - log q(z|x), and the two ways back from them.

q enters twice: it draws z, and it says how likely z was. `log_weights_backward` follows both, as a gradient of the
value must. `pathwise_backward` follows z alone and holds log q's own parameters: what STL and DReG are made of.
"""

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scratchvae.objectives.sampled import Sampled, Upstream


def log_weights_forward(ops: ModuleType, sampled: Sampled) -> NDArray:
    """log p(x, z_k) - log q(z_k|x) of every sample.

    Forward   log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x)
    Takes     the terms of a forward pass
    Returns   log w (B, K), in nats
    Source    Burda, Grosse, Salakhutdinov 2015, equation 8
    """
    log_ratio, _ = ops.log_ratio_forward(sampled.head[:, _logvar(sampled)], sampled.eps, sampled.z)
    return sampled.log_likelihood + log_ratio


def log_weights_backward(ops: ModuleType, dlog_weights: NDArray, sampled: Sampled) -> Upstream:
    """Gradient of `log_weights_forward`, the noise held: by z, and by what of q's parameters does not go through z.

    Takes     dlog_weights (B, K); the terms of the forward pass
    Returns   Upstream: dz without what log p(x|z) adds to it, which is the model's affair
    """
    dlogvar, dz = ops.log_ratio_backward(dlog_weights, sampled.z)
    dhead = np.zeros_like(sampled.head)
    dhead[:, _logvar(sampled)] = dlogvar
    return _upstream(dlog_weights, dz, dhead)


def pathwise_backward(ops: ModuleType, dlog_weights: NDArray, sampled: Sampled) -> Upstream:
    """The part of the gradient of `log_weights_forward` that moves z while log q's own parameters are held.

    Takes     dlog_weights (B, K); the terms of the forward pass
    Returns   Upstream: dz of log p(z) - log q(z|x)
    """
    dz_posterior, _ = sampled.posterior.draw_scores(-dlog_weights, sampled.eps, sampled.head)
    dz_prior = ops.standard_normal_log_density_backward(dlog_weights, sampled.z)
    return _upstream(dlog_weights, dz_prior + dz_posterior, None)  # z is used by both densities


def frozen_log_weights(ops: ModuleType, sampled: Sampled, fixed: Sampled) -> NDArray:
    """log w (B, K) with log q's own parameters held at `fixed`: as a function of the encoder, what moves is z alone.

    Not a bound and never reported. It is what a derivative along the path z is held against: see `gradcheck`.

    Takes     the terms of two forward passes with the same noise
    Returns   (B, K), in nats
    """
    log_prior, _ = ops.standard_normal_log_density_forward(sampled.z)
    log_posterior, _ = sampled.posterior.log_density_forward(sampled.z, fixed.head)
    return sampled.log_likelihood + log_prior - log_posterior


def _logvar(sampled: Sampled) -> slice:
    """Its columns of the head: those behind mu, in every family of q."""
    latent = sampled.z.shape[2]
    return slice(latent, 2 * latent)


def _upstream(dlog_weights: NDArray, dz: NDArray, dhead: NDArray | None) -> Upstream:
    return Upstream(dlog_weights, np.zeros(len(dlog_weights), dlog_weights.dtype), dz, dhead)
