"""log sum exp: exact at any size of its arguments."""

import numpy as np
import pytest
from scipy.special import logsumexp, softmax


def test_it_is_the_log_of_the_sum_of_exponentials(ops):
    a = 5 * np.random.default_rng(0).normal(size=(4, 7))
    out, weights = ops.log_sum_exp_forward(a)
    np.testing.assert_allclose(out, logsumexp(a, axis=1), rtol=1e-13)
    np.testing.assert_allclose(weights, softmax(a, axis=1), rtol=1e-12)


@pytest.mark.parametrize("shift", [-1e5, 1e5])
def test_a_shift_goes_through_where_exponentials_would_overflow(ops, shift):
    a = np.random.default_rng(0).normal(size=(3, 5))
    out, weights = ops.log_sum_exp_forward(a + shift)
    np.testing.assert_allclose(out, ops.log_sum_exp_forward(a)[0] + shift, rtol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-13)


def test_an_impossible_term_changes_nothing_and_only_impossible_terms_give_minus_infinity(ops):
    out, weights = ops.log_sum_exp_forward(np.array([[1.0, -np.inf], [-np.inf, -np.inf]]))
    np.testing.assert_array_equal(out, [1.0, -np.inf])
    np.testing.assert_array_equal(weights, [[1, 0], [0.5, 0.5]])


def test_the_last_axis_is_summed_over_whatever_stands_before_it(ops):
    a = np.random.default_rng(0).normal(size=(2, 3, 4))
    out, weights = ops.log_sum_exp_forward(a)
    np.testing.assert_allclose(out, logsumexp(a, axis=2), rtol=1e-13)
    np.testing.assert_allclose(weights, softmax(a, axis=2), rtol=1e-12)
