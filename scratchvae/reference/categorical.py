"""The categorical log-likelihood of one-hot columns, from logits: a softmax over every group of columns."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class CategoricalCache(NamedTuple):
    derivative: NDArray  # (B, K, D): d log p / d logits


def categorical_log_likelihood_forward(
    x: NDArray, logits: NDArray, starts: NDArray
) -> tuple[NDArray, CategoricalCache]:
    """log p(x|z) of each sample: one categorical variable for each group of columns, in nats.

    Forward   log p_bk = sum_g (sum_{d in g} x_bd l_bkd - log sum_{d in g} exp(l_bkd)), a group's largest logit taken
              out of its exponentials so that none overflows
    Takes     x (B, D), one-hot in each group; logits (B, K, D); starts (G,): the first column of each group, 0 first
    Returns   log p (B, K), cache
    Source    Bishop 2006, "Pattern recognition and machine learning", equations 2.26 and 4.62
    """
    x = x[:, None, :]
    group = np.repeat(np.arange(starts.size), np.diff(starts, append=x.shape[2]))  # of every column
    largest = np.maximum.reduceat(logits.real, starts, axis=2)[..., group]  # a constant shift: its gradient cancels
    shifted = logits - largest
    powers = np.exp(shifted)
    total = np.add.reduceat(powers, starts, axis=2)
    log_likelihood = (x * shifted).sum(axis=2) - np.log(total).sum(axis=2)  # x sums to 1 in a group: the shifts cancel
    return log_likelihood, CategoricalCache(x - powers / total[..., group])


def categorical_log_likelihood_backward(dlog_likelihood: NDArray, cache: CategoricalCache) -> NDArray:
    """Gradient of `categorical_log_likelihood_forward`.

    Gives     d log p/d l = x - softmax(l) within each group
    Takes     dlog_likelihood (B, K): d loss / d log p; cache
    Returns   dlogits (B, K, D)
    """
    return dlog_likelihood[:, :, None] * cache.derivative
