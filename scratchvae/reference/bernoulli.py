"""The Bernoulli log-likelihood, from logits. Probabilities never appear: saturated, they lose the gradient."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.activations import absolute, relu_forward, sigmoid_forward, softplus_forward


class BernoulliCache(NamedTuple):
    derivative: NDArray  # (B, K, D): d log p / d logits


def bernoulli_log_likelihood_forward(x: NDArray, logits: NDArray) -> tuple[NDArray, BernoulliCache]:
    """log p(x|z) of each sample under independent Bernoullis with p = sigmoid(logits), in nats.

    Forward   log p_bk = sum_d (x_bd l_bkd - max(l_bkd, 0) - log(1 + exp(-|l_bkd|)))
              because x log s(l) + (1 - x) log(1 - s(l)) = x l - log(1 + exp(l)). So written, and the derivative
              x - s(l) as x - [l > 0] +- s(-|l|), nothing cancels where a pixel is all but certain
    Takes     x (B, D) in [0, 1]; logits (B, K, D)
    Returns   log p (B, K), cache
    Source    Kingma, Welling 2013, appendix C.1, equation 11
    """
    x, certain = x[:, None, :], -absolute(logits)
    on, doubt = logits.real > 0, sigmoid_forward(certain)[0]
    log_likelihood = (x * logits - relu_forward(logits)[0] - softplus_forward(certain)[0]).sum(axis=2)
    return log_likelihood, BernoulliCache(x - on + np.where(on, doubt, -doubt))


def bernoulli_log_likelihood_backward(dlog_likelihood: NDArray, cache: BernoulliCache) -> NDArray:
    """Gradient of `bernoulli_log_likelihood_forward`.

    Gives     d log p/d l = x - sigmoid(l)
    Takes     dlog_likelihood (B, K): d loss / d log p; cache
    Returns   dlogits (B, K, D)
    """
    return dlog_likelihood[:, :, None] * cache.derivative
