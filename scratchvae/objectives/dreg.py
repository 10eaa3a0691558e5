"""The doubly reparameterized gradient of the importance-weighted bound."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scratchvae.objectives.estimator import Estimator
from scratchvae.objectives.iwae import importance_weighted_bound
from scratchvae.objectives.log_weights import frozen_log_weights, log_weights_forward, pathwise_backward
from scratchvae.objectives.sampled import Sampled, Upstream


@dataclass(frozen=True)
class DReG(Estimator):
    """The bound L_K of `IWAE`, the encoder's gradient reparameterized twice; the decoder's is IWAE's.

    Derived   The encoder phi moves L_K through z and directly:
              g_path = sum_k w~_k (d log w_k / d z_k) (d z_k / d phi)        g_score = -sum_k w~_k d log q(z_k) / d phi
              For any f held, d/dphi E_q [f] is E_q [f d log q / d phi] and also E_q [(d f / d z) (d z / d phi)]. With
              f = w~_k, whose derivative is d w~_k / d z_k = w~_k (1 - w~_k) d log w_k / d z_k,
              E g_score = -E sum_k w~_k (1 - w~_k) (d log w_k / d z_k) (d z_k / d phi), and in all
              g = sum_k w~_k^2 (d log w_k / d z_k) (d z_k / d phi)
    Unbiased  for any K; its signal-to-noise ratio grows as sqrt(K), where that of IWAE's gradient falls as 1/sqrt(K)
    Raises    ValueError for num_samples < 1
    Source    Tucker, Lawson, Gu, Maddison 2018; the ratio of IWAE's gradient: Rainforth et al. 2018, theorem 1
    """

    num_samples: int = 50
    name: str = "dreg"

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """The value L_K (B,); its gradient along the path, with another factor w~_k on the way to the encoder."""
        value, dlog_weights = importance_weighted_bound(ops, log_weights_forward(ops, sampled))
        weights = -len(value) * dlog_weights  # w~: dlog_weights is -w~ / B
        return value, pathwise_backward(ops, dlog_weights, sampled)._replace(path=weights)

    def encoder_surrogate(self, ops: ModuleType, sampled: Sampled, fixed: Sampled) -> NDArray:
        """sum_k w~_k^2 log w_k (B,), where only the path to z is free: w~ and log q's parameters are held fixed."""
        _, weights = ops.importance_bound_forward(log_weights_forward(ops, fixed))
        return (np.square(weights) * frozen_log_weights(ops, sampled, fixed)).sum(axis=1)
