"""The continuous Bernoulli on [0, 1], from logits: the density exp(x l - A(l)) that grey values have and ours binarize.

    A(l)   = log of the integral of exp(x l) over [0, 1] = log((exp(l) - 1) / l)       the log-normaliser
    A'(l)  = 1 / (1 - exp(-l)) - 1 / l                                                 the mean
    A''(l) = 1 / l^2 - exp(-|l|) / (1 - exp(-|l|))^2                                   the variance

With p = sigmoid(l), exp(A) (1 - p) is 1 / C(p), the constant that the Bernoulli's formula lacks on [0, 1]. At l = 0
(p = 1/2) all three are 0 / 0 or a difference of poles. A is the cumulant generating function of the uniform
distribution, whose cumulants are B_n / n with the Bernoulli numbers B_n, so near 0 its Taylor series is known:

    A(l) = l / 2 + sum_n a_n l^(2n)        a_n = B_2n / (2n (2n)!) = (-1)^(n-1) T_n / (4^n (4^n - 1) (2n)!)

with the tangent numbers T_n, which are whole. It converges for |l| < 2 pi; at |l| <= 1/2 seven terms reach 1e-17.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.activations import absolute

NEAR = 0.5  # below this |l| the series, from it on the closed forms
TERMS = 7
NEWTON_STEPS = 60  # from 0 to |l| = 1e6 takes 25


def _tangent_numbers(count: int) -> list[int]:
    """1, 2, 16, 272, ...: tan(t) = sum_n T_n t^(2n-1) / (2n-1)! (Brent, Harvey 2011, figure 2)."""
    numbers = [math.factorial(n) for n in range(count)]
    for k in range(1, count):
        for j in range(k, count):
            numbers[j] = (j - k) * numbers[j - 1] + (j - k + 2) * numbers[j]
    return numbers


# a_n of A, 2n a_n of A' and 2n (2n - 1) a_n of A'', n = 1, 2, ...
VALUE_SERIES = tuple(
    (-1) ** (n - 1) * tangent / (4**n * (4**n - 1) * math.factorial(2 * n))
    for n, tangent in enumerate(_tangent_numbers(TERMS), 1)
)
MEAN_SERIES = tuple(2 * n * a for n, a in enumerate(VALUE_SERIES, 1))
VARIANCE_SERIES = tuple((2 * n - 1) * a for n, a in enumerate(MEAN_SERIES, 1))


class Normaliser(NamedTuple):
    """The log-normaliser A(l) and its first two derivatives, each of the logits' shape."""

    value: NDArray
    mean: NDArray
    variance: NDArray


class ContinuousBernoulliCache(NamedTuple):
    derivative: NDArray  # (B, K, D): d log p / d logits


def continuous_bernoulli_normaliser(logits: NDArray) -> Normaliser:
    """A(l), A'(l), A''(l), through 0 and in both tails.

    Errors of A and A' are a few units of rounding at every l. A'' is the difference of two poles, which at |l| = 1/2,
    where the series ends, are 50 times as large as it: there it is right to 70 units, from |l| = 3 on to a few.

    Away from 0, by the symmetry A(l) = l + A(-l), everything is a function of a = |l|, with exp(-a) <= 1:
        A(l) = max(l, 0) + log((1 - exp(-a)) / a)        A'(-a) = 1 / a - exp(-a) / (1 - exp(-a)) = 1 - A'(a)

    Takes     logits l of any shape
    Returns   Normaliser: A, A', A'', each of that shape
    """
    near, a, decay, rise = _parts(logits)
    square = np.where(near, logits * logits, 0)
    mean_below = 1 / a - decay / rise  # at -a
    positive = logits.real >= 0
    return Normaliser(
        np.where(near, logits / 2 + square * _polynomial(VALUE_SERIES, square), positive * logits + np.log(rise / a)),
        np.where(
            near,
            0.5 + logits * _polynomial(MEAN_SERIES, square),
            np.where(positive, 1 - mean_below, mean_below),
        ),
        np.where(near, _polynomial(VARIANCE_SERIES, square), 1 / (a * a) - decay / (rise * rise)),
    )


def continuous_bernoulli_logits(mean: NDArray) -> NDArray:
    """The logits whose continuous Bernoulli has these means, at least 1e-17 and below 1: A'(l) = mean, by Newton.

    By symmetry it is enough to look below 1/2, where l <= 0. A' rises and is convex there, so that from l = 0 every
    step falls short of the root and none leaves the half-line. Far out |l| = 1 / mean, and a step doubles |l|: the
    steps that are made do not reach means below 1e-17.

    Takes     mean, of any shape
    Returns   logits l of that shape
    """
    mean = np.asarray(mean, np.float64)
    below = np.minimum(mean, 1 - mean)
    logits = np.zeros_like(below)
    for _ in range(NEWTON_STEPS):
        _, at, slope = continuous_bernoulli_normaliser(logits)
        logits = logits + (below - at) / slope
    return np.where(mean < 0.5, logits, -logits)


def continuous_bernoulli_log_likelihood_forward(
    x: NDArray, logits: NDArray
) -> tuple[NDArray, ContinuousBernoulliCache]:
    """log p(x|z) of each sample under independent continuous Bernoullis, in nats.

    Forward   log p_bk = sum_d (x_bd l_bkd - A(l_bkd))
              with a = |l| and y the distance of x from the end that l prefers (0 or 1), x l - A = -a y - log((1 -
              exp(-a)) / a): no large numbers cancel
    Takes     x (B, D) in [0, 1]; logits (B, K, D)
    Returns   log p (B, K), cache
    Source    Loaiza-Ganem, Cunningham 2019
    """
    x = x[:, None, :]
    near, a, decay, rise = _parts(logits)
    square = np.where(near, logits * logits, 0)
    mean_below = 1 / a - decay / rise
    negative = logits.real < 0
    distance = np.where(negative, x, 1 - x)
    terms = np.where(
        near, (x - 0.5) * logits - square * _polynomial(VALUE_SERIES, square), -a * distance - np.log(rise / a)
    )
    derivative = np.where(
        near,
        x - 0.5 - logits * _polynomial(MEAN_SERIES, square),
        np.where(negative, x - mean_below, mean_below - distance),
    )
    return terms.sum(axis=2).astype(logits.dtype), ContinuousBernoulliCache(derivative.astype(logits.dtype))


def continuous_bernoulli_log_likelihood_backward(dlog_likelihood: NDArray, cache: ContinuousBernoulliCache) -> NDArray:
    """Gradient of `continuous_bernoulli_log_likelihood_forward`.

    Gives     d log p/d l = x - A'(l), the value minus the mean
    Takes     dlog_likelihood (B, K): d loss / d log p; cache
    Returns   dlogits (B, K, D)
    """
    return dlog_likelihood[:, :, None] * cache.derivative


def _parts(logits: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Whether |l| is near 0; a = |l|, but 1/2 where it is; exp(-a); 1 - exp(-a)."""
    a = absolute(logits)
    near = a.real < NEAR
    a = np.where(near, np.asarray(NEAR, a.dtype), a)
    return near, a, np.exp(-a), -np.expm1(-a)


def _polynomial(coefficients: tuple[float, ...], x: NDArray) -> NDArray:
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
