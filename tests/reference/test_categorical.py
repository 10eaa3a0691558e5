"""The categorical log-likelihood: every group normalised on its own, at any logits."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from scratchvae import reference
from tests.cases import one_hot
from tests.proofs.pairs import generators

SIZES, STARTS = (3, 1, 2), np.array([0, 3, 4])


def every_row():
    """All rows that are one-hot in groups of 3, 1 and 2 columns."""
    return np.array([np.concatenate(parts) for parts in itertools.product(*(np.eye(size) for size in SIZES))])


@pytest.mark.parametrize(("dtype", "gate"), [(np.float64, 1e-10), (np.float32, 1e-6)])
@pytest.mark.parametrize("size", [0.1, 3.0, 30.0])
def test_probabilities_of_all_one_hot_rows_sum_to_one(ops, dtype, gate, size):
    x = every_row().astype(dtype)
    logits = (size * np.random.default_rng(0).normal(size=(1, 5, 6))).astype(dtype)
    value, _ = ops.categorical_log_likelihood_forward(x, np.repeat(logits, len(x), axis=0), STARTS)
    assert value.dtype == dtype
    np.testing.assert_allclose(np.exp(value.astype(float)).sum(axis=0), 1, rtol=gate)


def test_the_log_likelihood_is_scipys_multinomial_of_one_draw(ops):
    rng = np.random.default_rng(0)
    x, logits = one_hot(rng, 4, (5,)), rng.normal(size=(4, 3, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    want = stats.multinomial.logpmf(np.repeat(x[:, None], 3, axis=1), 1, p)
    got, _ = ops.categorical_log_likelihood_forward(x, logits, np.array([0]))
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_two_columns_are_a_bernoulli_of_their_difference(ops):
    rng = np.random.default_rng(0)
    bits, logits = np.round(rng.random((4, 3))), rng.normal(size=(4, 2, 3, 2))
    x = np.stack([bits, 1 - bits], axis=-1).reshape(4, 6)
    want, _ = ops.bernoulli_log_likelihood_forward(bits, logits[..., 0] - logits[..., 1])
    got, _ = ops.categorical_log_likelihood_forward(x, logits.reshape(4, 2, 6), np.array([0, 2, 4]))
    np.testing.assert_allclose(got, want, rtol=1e-12)


@given(rng=generators)
def test_a_constant_added_to_a_group_changes_nothing(rng):
    x, logits = every_row()[:3], rng.normal(size=(3, 2, 6))
    moved = logits + np.repeat(rng.normal(size=3), SIZES)
    one, two = (reference.categorical_log_likelihood_forward(x, out, STARTS) for out in (logits, moved))
    np.testing.assert_allclose(one[0], two[0], rtol=1e-12)
    np.testing.assert_allclose(one[1].derivative, two[1].derivative, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e3, 1e4])
def test_saturated_logits_keep_value_and_gradient(ops, dtype, size):
    logits = np.array([[[size, 0, -size, size, 0, size]]], dtype)
    wrong, right = np.array([[0, 0, 1, 1, 1, 0]], dtype), np.array([[1, 0, 0, 1, 0, 1]], dtype)
    value, cache = ops.categorical_log_likelihood_forward(wrong, logits, STARTS)
    np.testing.assert_allclose(value, [[-3 * size]], rtol=1e-6)
    gradient = ops.categorical_log_likelihood_backward(np.ones((1, 1), dtype), cache)
    np.testing.assert_array_equal(gradient, [[[-1, 0, 1, 0, 1, -1]]])
    value, cache = ops.categorical_log_likelihood_forward(right, logits, STARTS)
    assert value == 0
    assert not ops.categorical_log_likelihood_backward(np.ones((1, 1), dtype), cache).any()
