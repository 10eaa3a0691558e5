"""The log-weights of a model's samples, log w = log p(x|z) + log p(z) - log q(z|x), and the way back from them."""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.objectives.sampled import Sampled, Upstream


class LogWeightsCache(NamedTuple):
    prior: Any
    posterior: Any


def log_weights_forward(ops: ModuleType, sampled: Sampled) -> tuple[NDArray, LogWeightsCache]:
    """log p(x, z_k) - log q(z_k|x) of every sample.

    Takes     the terms of a forward pass
    Returns   log w (B, K), in nats; cache
    Source    Burda, Grosse, Salakhutdinov 2015, equation 8
    """
    log_prior, prior = ops.standard_normal_log_density_forward(sampled.z)
    log_posterior, posterior = ops.gaussian_log_density_forward(sampled.z, sampled.mu, sampled.logvar)
    return sampled.log_likelihood + log_prior - log_posterior, LogWeightsCache(prior, posterior)


def log_weights_backward(ops: ModuleType, dlog_weights: NDArray, cache: LogWeightsCache) -> Upstream:
    """Gradient of `log_weights_forward`: through z, which both densities use, and directly through mu and logvar.

    Takes     dlog_weights (B, K); cache
    Returns   Upstream: all that is nonzero, but for z's part in log p(x|z), which is the model's
    """
    dz_posterior, dmu, dlogvar = ops.gaussian_log_density_backward(-dlog_weights, cache.posterior)
    dz_prior = ops.standard_normal_log_density_backward(dlog_weights, cache.prior)
    dz = dz_prior + dz_posterior  # z is used by both densities
    return Upstream(dlog_weights, np.zeros(len(dlog_weights), dlog_weights.dtype), dz, dmu, dlogvar)
