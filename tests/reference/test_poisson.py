"""The Poisson log-likelihood: normalised, constant included, and honest where a rate leaves the numbers."""

import math

import numpy as np
import pytest
from scipy import special, stats

from scratchvae.reference.poisson import log_factorial


@pytest.mark.parametrize(("dtype", "gate"), [(np.float64, 1e-10), (np.float32, 1e-6)])
@pytest.mark.parametrize("rate", [1e-3, 0.5, 4.0, 60.0, 900.0])
def test_probabilities_of_all_counts_sum_to_one(ops, dtype, gate, rate):
    counts = np.arange(rate + 12 * np.sqrt(rate) + 20).astype(dtype)[:, None]
    value, _ = ops.poisson_log_likelihood_forward(counts, np.full((len(counts), 1, 1), np.log(rate), dtype))
    assert value.dtype == dtype
    assert abs(np.exp(value.astype(float)).sum() - 1) < gate


def test_the_log_likelihood_is_scipys(ops):
    rng = np.random.default_rng(0)
    log_rate = 3 * rng.normal(size=(4, 3, 7))
    x = rng.poisson(np.exp(log_rate[:, 0])).astype(float)
    want = stats.poisson.logpmf(x[:, None], np.exp(log_rate)).sum(axis=2)
    np.testing.assert_allclose(ops.poisson_log_likelihood_forward(x, log_rate)[0], want, rtol=1e-11)


@pytest.mark.parametrize(("dtype", "gate"), [(np.float64, 1e-13), (np.float32, 1e-7)])
@pytest.mark.parametrize("count", [0, 1, 254, 255, 256, 257, 10**6, 2**24, 2**40])
def test_the_constant_is_the_factorials(ops, dtype, gate, count):
    """Across the end of the compiled engine's table of them, and of the counts whose successor is a float32."""
    value, _ = ops.poisson_log_likelihood_forward(np.full((1, 1), count, dtype), np.zeros((1, 1, 1), dtype))
    want = -1 - special.gammaln(count + 1)
    assert value[0, 0] == pytest.approx(want, rel=gate)
    assert log_factorial(np.array([count], dtype))[0] == math.lgamma(count + 1)


def test_the_gradient_is_zero_where_the_rate_is_the_count(ops):
    x = np.arange(1.0, 5.0)[None]
    _, cache = ops.poisson_log_likelihood_forward(x, np.log(x)[None])
    assert np.abs(ops.poisson_log_likelihood_backward(np.ones((1, 1)), cache)).max() < 1e-14


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e3, 1e4])
def test_saturated_log_rates_give_no_nan(ops, dtype, size):
    """A rate of exp(-1000) leaves x l, exactly; one of exp(1000) is beyond all numbers, and so is log p: -inf."""
    x = np.array([[3, 0]], dtype)
    value, cache = ops.poisson_log_likelihood_forward(x, np.full((1, 1, 2), -size, dtype))
    np.testing.assert_allclose(value, [[-3 * size - np.log(6)]], rtol=1e-6)
    np.testing.assert_array_equal(cache.derivative, [[[3, 0]]])
    value, cache = ops.poisson_log_likelihood_forward(x, np.full((1, 1, 2), size, dtype))
    np.testing.assert_array_equal(value, [[-np.inf]])
    np.testing.assert_array_equal(cache.derivative, [[[-np.inf, -np.inf]]])
