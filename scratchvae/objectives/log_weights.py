"""The log-weights of a model's samples, log w = log p(x|z) + log p(z) - log q(z|x), and the way back from them."""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.objectives.sampled import Sampled, Upstream
from scratchvae.posteriors import Posterior


class LogWeightsCache(NamedTuple):
    prior: Any
    density: Any  # of q
    posterior: Posterior


def log_weights_forward(ops: ModuleType, sampled: Sampled) -> tuple[NDArray, LogWeightsCache]:
    """log p(x, z_k) - log q(z_k|x) of every sample.

    Takes     the terms of a forward pass
    Returns   log w (B, K), in nats; cache
    Source    Burda, Grosse, Salakhutdinov 2015, equation 8
    """
    log_prior, prior = ops.standard_normal_log_density_forward(sampled.z)
    log_posterior, density = sampled.posterior.log_density_forward(sampled.z, sampled.head)
    return sampled.log_likelihood + log_prior - log_posterior, LogWeightsCache(prior, density, sampled.posterior)


def log_weights_backward(ops: ModuleType, dlog_weights: NDArray, cache: LogWeightsCache) -> Upstream:
    """Gradient of `log_weights_forward`: through z, which both densities use, and directly through q's parameters.

    Takes     dlog_weights (B, K); cache
    Returns   Upstream: dz is that of the two densities; what log p(x|z) adds to it is the model's affair
    """
    dz_posterior, dhead = cache.posterior.log_density_backward(-dlog_weights, cache.density)
    dz_prior = ops.standard_normal_log_density_backward(dlog_weights, cache.prior)
    dz = dz_prior + dz_posterior  # z is used by both densities
    return Upstream(dlog_weights, np.zeros(len(dlog_weights), dlog_weights.dtype), dz, dhead)


def frozen_log_weights(ops: ModuleType, sampled: Sampled, fixed: Sampled) -> NDArray:
    """log w (B, K) with log q's own parameters held at `fixed`: as a function of the encoder, what moves is z alone.

    Not a bound and never reported. It is what a derivative along the path z is held against: see `gradcheck`.
    """
    log_prior, _ = ops.standard_normal_log_density_forward(sampled.z)
    log_posterior, _ = sampled.posterior.log_density_forward(sampled.z, fixed.head)
    return sampled.log_likelihood + log_prior - log_posterior
