"""Sticking the landing: the pathwise gradient alone."""

from dataclasses import dataclass
from types import ModuleType

from numpy.typing import NDArray

from scratchvae.objectives.estimator import Estimator
from scratchvae.objectives.iwae import importance_weighted_bound
from scratchvae.objectives.log_weights import frozen_log_weights, log_weights_forward, pathwise_backward
from scratchvae.objectives.sampled import Sampled, Upstream


@dataclass(frozen=True)
class STL(Estimator):
    """The bound L_K of `IWAE` (for K = 1 the ELBO), with the score term left out of the encoder's gradient.

    Derived   d log w = (d log w / d z) dz - (d log q / d phi) dphi: the encoder phi moves w through z and directly. The
              second term, the score, has mean 0 under q. Without it
              g = sum_k w~_k (d log w_k / d z_k) (d z_k / d phi)
              so that where q is the posterior, log w = log p(x) for every z, and every single sample gives g = 0
    Biased    unless K = 1: weighted by w~_k the score no longer has mean 0. `DReG` is unbiased for any K
    Raises    ValueError for num_samples < 1
    Source    Roeder, Wu, Duvenaud 2017; the bias: Tucker, Lawson, Gu, Maddison 2018
    """

    name: str = "stl"

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """The value L_K (B,), and its gradient without what reaches q's parameters directly."""
        value, dlog_weights = importance_weighted_bound(ops, log_weights_forward(ops, sampled))
        return value, pathwise_backward(ops, dlog_weights, sampled)

    def encoder_surrogate(self, ops: ModuleType, sampled: Sampled, fixed: Sampled) -> NDArray:
        """L_K with the parameters of log q held fixed, (B,)."""
        return importance_weighted_bound(ops, frozen_log_weights(ops, sampled, fixed))[0]
