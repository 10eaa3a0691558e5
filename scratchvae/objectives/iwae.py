"""The importance-weighted bound."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scratchvae.objectives.log_weights import log_weights_backward, log_weights_forward
from scratchvae.objectives.sampled import Sampled, Settings, Upstream


@dataclass(frozen=True)
class IWAE(Settings):
    """The importance-weighted bound of K samples, L_K = log 1/K sum_k w_k, w_k = p(x, z_k) / q(z_k|x).

    Gradient  sum_k w~_k d log w_k with self-normalised weights w~ = w / sum w, through z as well as directly
    Raises    ValueError for num_samples < 1
    Source    Burda, Grosse, Salakhutdinov 2015, equations 8 and 14
    """

    num_samples: int = 50
    name: str = "iwae"

    def evaluate(self, ops: ModuleType, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """Value (B,) and the gradient through log w = log p(x|z) + log p(z) - log q(z|x)."""
        value, dlog_weights = self.of_log_weights(ops, log_weights_forward(ops, sampled))
        return value, log_weights_backward(ops, dlog_weights, sampled)

    def of_log_weights(self, ops: ModuleType, log_weights: NDArray) -> tuple[NDArray, NDArray]:
        """L_K (B,) of log w (B, K), and d loss / d log w_k = -w~_k / B (B, K)."""
        return importance_weighted_bound(ops, log_weights)


def importance_weighted_bound(ops: ModuleType, log_weights: NDArray) -> tuple[NDArray, NDArray]:
    """L_K (B,) of log w (B, K), and the gradient of loss = -mean(L_K), -w~_k / B (B, K), where negligible w~_k
    are zero."""
    value, weights = ops.importance_bound_forward(log_weights)
    dvalue = np.full(len(value), -1.0 / len(value), log_weights.dtype)
    return value, ops.importance_bound_backward(dvalue, weights)
