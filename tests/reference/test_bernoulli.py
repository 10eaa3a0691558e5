"""The Bernoulli log-likelihood: normalised, from logits, and alive where a sigmoid has saturated."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from scipy import stats
from scipy.special import expit

from scratchvae import reference
from tests.proofs.checks import saturated_logits_keep_value_and_gradient
from tests.proofs.pairs import Sizes, generators


@given(rng=generators)
def test_probabilities_of_all_binary_vectors_sum_to_one(rng):
    d = int(rng.integers(1, 9))
    x = np.array(list(itertools.product((0.0, 1.0), repeat=d)))
    logits = 3 * rng.normal(size=(1, 2, d))
    log_likelihood, _ = reference.bernoulli_log_likelihood_forward(x, np.repeat(logits, len(x), axis=0))
    np.testing.assert_allclose(np.exp(log_likelihood).sum(axis=0), 1, rtol=1e-12)


def test_the_log_likelihood_is_scipys(ops):
    rng = np.random.default_rng(0)
    x, logits = (rng.random((4, 7)) < 0.5).astype(float), rng.normal(size=(4, 3, 7))
    want = stats.bernoulli.logpmf(x[:, None], expit(logits)).sum(axis=2)
    np.testing.assert_allclose(ops.bernoulli_log_likelihood_forward(x, logits)[0], want, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_logits_keep_value_and_gradient_on_both_engines(ops, dtype):
    saturated_logits_keep_value_and_gradient(
        ops.bernoulli_log_likelihood_forward, ops.bernoulli_log_likelihood_backward, dtype
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pixel", [0, 1])
def test_a_pixel_that_is_all_but_certain_keeps_what_is_left_of_its_value_and_gradient(ops, dtype, pixel):
    logits, sign = np.linspace(0, 80, 401).astype(dtype), 2 * pixel - 1
    log_likelihood, cache = ops.bernoulli_log_likelihood_forward(
        np.full((401, 1), pixel, dtype), (sign * logits).reshape(401, 1, 1)
    )
    gradient = ops.bernoulli_log_likelihood_backward(np.ones((401, 1), dtype), cache)
    exact, rtol = logits.astype(np.float64), 4e-7 if dtype == np.float32 else 4e-15
    np.testing.assert_allclose(log_likelihood[:, 0], -np.log1p(np.exp(-exact)), rtol=rtol)
    np.testing.assert_allclose(gradient[:, 0, 0], sign * expit(-exact), rtol=rtol)


def test_the_gradient_is_zero_exactly_where_the_probability_is_the_value(ops):
    _, cache = ops.bernoulli_log_likelihood_forward(np.array([[0.5]]), np.zeros((1, 1, 1)))
    assert ops.bernoulli_log_likelihood_backward(np.ones((1, 1)), cache) == 0


@given(rng=generators)
def test_no_logit_explains_a_pixel_better_than_its_own(rng):
    n = Sizes(2, 1, 5)
    x = rng.uniform(0.1, 0.9, size=(n.b, n.d))
    best = np.log(x / (1 - x))[:, None]
    other = best + rng.normal(size=best.shape)
    forward = reference.bernoulli_log_likelihood_forward
    assert (forward(x, best)[0] > forward(x, other)[0]).all()
