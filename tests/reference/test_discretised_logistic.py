"""The discretised logistic: a probability for each level, alive where the sigmoids' difference is rounded away."""

import numpy as np
import pytest
from scipy import stats

from scratchvae import reference
from tests.proofs.checks import relative_error


def masses(ops, location, scale, levels=256, dtype=np.float64):
    """log p of every level at one location and scale."""
    x = (np.arange(levels) / (levels - 1)).astype(dtype)[:, None]
    out = np.full((levels, 1, 1), location, dtype)
    value, _ = ops.discretised_logistic_log_likelihood_forward(x, out, np.log(np.full(1, scale)).astype(dtype), levels)
    assert value.dtype == dtype
    return value[:, 0].astype(float)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(
    ("dtype", "gate", "scale"),
    [
        *((np.float64, 1e-10, scale) for scale in (1e-3, 0.02, 0.1, 1.0, 50.0)),
        *((np.float32, 1e-6, scale) for scale in (0.02, 0.1, 1.0, 50.0)),  # below, float32 resolves 1/255 too coarsely
    ],
)
def test_the_masses_of_all_levels_sum_to_one(ops, levels, scale, dtype, gate):
    for location in (-3.0, 0.0, 0.2, 0.5, 1.0, 1.3):
        assert abs(np.exp(masses(ops, location, scale, levels, dtype)).sum() - 1) < gate


def test_the_masses_are_scipys_where_it_can_tell_them(ops):
    for location, scale in ((0.3, 0.05), (0.9, 0.2), (-0.1, 1.0)):
        edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
        want = np.diff(stats.logistic.cdf(edges, location, scale))
        np.testing.assert_allclose(np.exp(masses(ops, location, scale)), want, rtol=1e-11, atol=1e-15)


def test_two_levels_are_a_bernoulli(ops):
    rng = np.random.default_rng(0)
    x, out, log_scale = np.round(rng.random((4, 3))), rng.normal(size=(4, 2, 3)), rng.normal(size=3)
    want, _ = ops.bernoulli_log_likelihood_forward(x, (out - 0.5) / np.exp(log_scale))
    np.testing.assert_allclose(
        ops.discretised_logistic_log_likelihood_forward(x, out, log_scale, 2)[0], want, rtol=1e-13
    )


def test_with_many_levels_it_is_the_density_times_the_width_of_a_bin(ops):
    location, scale, levels = 0.45, 0.07, 2**16
    x = np.array([[20000], [30000]]) / (levels - 1)
    got, _ = ops.discretised_logistic_log_likelihood_forward(
        x, np.full((2, 1, 1), location), np.log(np.full(1, scale)), levels
    )
    want = stats.logistic.logpdf(x, location, scale) - np.log(levels - 1)
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distance", [1e3, 1e4])
def test_in_the_tails_value_and_gradient_are_the_densitys(ops, dtype, distance):
    """At so many scales from a bin, log p is linear in the distance; both outer bins cost nothing from their side."""
    scale = dtype(0.1)
    x = np.array([[51, 51, 0, 255, 255, 0]], dtype) / dtype(255)
    location = np.array([-distance, distance, -distance, distance, -distance, distance], dtype)[None, None] * scale
    log_scale = np.log(np.full(1, scale))
    value, cache = ops.discretised_logistic_log_likelihood_forward(x, location, log_scale)
    assert np.isfinite(value).all()
    half, width = 0.5 / 255, 1 / 255 / 0.1
    linear = [-2.0 + half / 0.1, 2.0 + half / 0.1, -10 + half / 0.1, half / 0.1]  # what x adds to -distance
    want = sum(linear) + 2 * np.log(-np.expm1(-width)) - 4 * distance
    np.testing.assert_allclose(value, [[want]], rtol=1e-5)
    dlocation, _ = ops.discretised_logistic_log_likelihood_backward(np.ones((1, 1), dtype), cache)
    np.testing.assert_allclose(dlocation, [[[10, -10, 0, 0, 10, -10]]], rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("log_scale", [-12.0, 9.0])
def test_scales_far_below_a_bin_and_far_above_the_range_are_finite(ops, log_scale):
    x, out = np.array([[0.2, 1.0, 0.0]]), np.array([[[0.2, 0.9, 0.1]]])
    value, cache = ops.discretised_logistic_log_likelihood_forward(x, out, np.full(1, log_scale))
    assert np.isfinite(value).all()
    assert all(np.isfinite(d).all() for d in ops.discretised_logistic_log_likelihood_backward(np.ones((1, 1)), cache))


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize("log_scale", [-60.0, -90.0, -103.0])
def test_scales_whose_inverse_is_no_float32_have_the_value_and_gradient_of_double_precision(ops, log_scale, size):
    """Five locations, one of them in the middle of a bin, four levels: exp(90) times a distance is finite, or 0, or
    beyond all numbers; and never 0 times infinity."""
    locations, levels = np.array([-3.0, 0.0, 51 / 255, 0.4, 1e4], np.float32), np.array([0, 51, 128, 255])
    x = np.tile((levels / 255).astype(np.float32), 5)[None]
    values = x, np.repeat(locations, 4)[None, None], np.full(size, log_scale, np.float32)
    results = []
    for engine, dtype in ((reference, np.float64), (ops, np.float32)):
        arguments = [value.astype(dtype) for value in values]
        with np.errstate(over="ignore"):
            each = [
                engine.discretised_logistic_log_likelihood_forward(arguments[0][:, [d]], arguments[1][..., [d]], scale)
                for d, scale in enumerate(np.broadcast_to(arguments[2], 20)[:, None])
            ]
            value, cache = engine.discretised_logistic_log_likelihood_forward(*arguments)
            gradients = engine.discretised_logistic_log_likelihood_backward(np.ones((1, 1), dtype), cache)
            alone = np.array([value[0, 0] for value, _ in each])
            results.append([array.astype(np.float32) for array in (alone, value, *gradients)])
    for got, want in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_scale_whose_inverse_is_no_number_costs_nothing_in_the_middle_of_a_bin(ops):
    x = np.array([[0.2]])
    with np.errstate(over="ignore"):
        value, cache = ops.discretised_logistic_log_likelihood_forward(x, x[None], np.full(1, -720.0))
        dlocation, dlog_scale = ops.discretised_logistic_log_likelihood_backward(np.ones((1, 1)), cache)
    np.testing.assert_array_equal([value[0, 0], dlocation[0, 0, 0], dlog_scale[0]], 0)


def test_one_scale_for_all_has_the_sum_of_the_gradients_of_one_each(ops):
    rng = np.random.default_rng(0)
    x, out, upstream = rng.integers(0, 256, (4, 3)) / 255, rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 2))
    gradients = []
    for log_scale in (np.full(1, -1.3), np.full(3, -1.3)):
        value, cache = ops.discretised_logistic_log_likelihood_forward(x, out, log_scale)
        gradients.append((value, *ops.discretised_logistic_log_likelihood_backward(upstream, cache)))
    for shared, own in zip(*gradients, strict=True):
        own = own.sum(keepdims=True) if own.ndim == 1 else own
        assert relative_error(shared, own) < 1e-13


def test_there_are_256_levels_unless_others_are_asked_for(ops):
    rng = np.random.default_rng(0)
    arguments = rng.integers(0, 256, (2, 3)) / 255.0, rng.normal(size=(2, 1, 3)), np.zeros(1)
    got, _ = ops.discretised_logistic_log_likelihood_forward(*arguments)
    want, _ = ops.discretised_logistic_log_likelihood_forward(*arguments, 256)
    np.testing.assert_array_equal(got, want)
