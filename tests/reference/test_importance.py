"""The importance-weighted bound and the effective sample size, at their extremes."""

import numpy as np
import pytest
from hypothesis import given

from scratchvae import compiled, reference
from scratchvae.evidence.importance import RunningWeights
from tests.proofs.checks import the_best_sample_has_the_largest_weight
from tests.proofs.pairs import generators, sizes


def test_the_best_sample_has_the_largest_weight_on_both_engines(ops):
    the_best_sample_has_the_largest_weight(ops.importance_bound_forward)


def test_one_sample_gives_its_own_log_weight(ops):
    bound, weights = ops.importance_bound_forward(np.array([[-3.5], [2.0]]))
    np.testing.assert_allclose(bound, [-3.5, 2.0], rtol=1e-15)
    np.testing.assert_array_equal(weights, [[1.0], [1.0]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_that_rounding_would_lose_are_zero(ops, dtype):
    """In units of eps / 4, below which their sum must stay. Equal ones go together."""
    rest = np.array([[0.6, 0.05, 0.3], [0.3, 0.7, 0.1], [0.6, 0.1, 0.6], [0.4, 0.4, 0.1]]) * np.finfo(dtype).eps / 4
    log_weights = np.log(np.hstack([rest, np.ones((4, 1))])).astype(dtype)
    bound, weights = ops.importance_bound_forward(log_weights)
    of_the_rest = [[False, False, False], [False, True, False], [True, False, True], [False, False, False]]
    np.testing.assert_array_equal(weights[:, :3] > 0, of_the_rest)
    assert (weights[:, 3] == 1).all()
    np.testing.assert_allclose(bound, np.log(np.exp(log_weights).mean(axis=1)), rtol=1e-6, err_msg="of all samples")


@given(rng=generators, n=sizes)
def test_both_engines_find_the_same_weights_negligible(rng, n):
    log_weights = 40 * rng.normal(size=(n.b, n.k))
    zero = [engine.importance_bound_forward(log_weights)[1] == 0 for engine in (reference, compiled)]
    np.testing.assert_array_equal(*zero)


@given(rng=generators, n=sizes)
def test_without_the_weights_that_are_zero_the_others_have_the_same_sum(rng, n):
    log_weights = 40 * rng.normal(size=(n.b, n.k))
    _, weights = reference.importance_bound_forward(log_weights)
    _, every_one = reference.log_sum_exp_forward(log_weights)
    assert (1 + np.where(weights == 0, every_one, 0).sum(axis=1) == 1).all()
    assert (1 - np.where(weights == 0, every_one, 0).sum(axis=1) == 1).all()


@given(rng=generators, n=sizes)
def test_the_bound_lies_between_the_mean_and_the_largest_log_weight(rng, n):
    log_weights = 4 * rng.normal(size=(n.b, n.k))
    bound, _ = reference.importance_bound_forward(log_weights)
    assert (bound >= log_weights.mean(axis=1) - 1e-12).all(), "Jensen"
    assert (bound <= log_weights.max(axis=1) + 1e-12).all()


def test_equal_weights_are_worth_all_samples_and_one_large_weight_is_worth_one(ops):
    size = ops.effective_sample_size(np.array([[-700.0] * 8, [0.0] + [-800.0] * 7]))
    np.testing.assert_allclose(size, [8, 1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_that_are_all_zero_are_worth_no_sample_as_in_an_estimate_of_log_p_x(ops, dtype):
    log_weights = np.array([[-np.inf] * 4, [-np.inf] * 3 + [0.0], [np.nan] * 4], dtype)
    size = ops.effective_sample_size(log_weights)
    assert size.dtype == dtype
    np.testing.assert_array_equal(size, [0, 1, np.nan])
    running = RunningWeights.empty(3)
    running.add(log_weights)
    np.testing.assert_array_equal(running.evidence(4).effective_sample_size, size)


@given(rng=generators, n=sizes)
def test_the_effective_sample_size_lies_between_one_and_the_number_of_samples(rng, n):
    size = reference.effective_sample_size(5 * rng.normal(size=(n.b, n.k)))
    assert (size >= 1 - 1e-12).all()
    assert (size <= n.k + 1e-12).all()
