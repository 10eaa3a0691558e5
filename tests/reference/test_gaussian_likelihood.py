"""Gaussian log-likelihoods integrate to 1, and unit variance is the textbook squared error with its constant."""

import numpy as np
import pytest
from scipy import integrate, stats


@pytest.mark.parametrize(("mean", "logvar"), [(0.0, 0.0), (1.5, -2.0), (-3.0, 1.2)])
def test_densities_integrate_to_one(ops, mean, logvar):
    def density(value):
        x, at, variance = np.array([[value]]), np.array([[[mean]]]), np.array([logvar])
        return float(np.exp(ops.gaussian_log_likelihood_forward(x, at, variance)[0][0, 0]))

    assert integrate.quad(density, mean - 20, mean + 20, points=[mean])[0] == pytest.approx(1, rel=1e-9)


def test_the_unit_variance_density_integrates_to_one(ops):
    def density(value):
        return float(
            np.exp(ops.unit_gaussian_log_likelihood_forward(np.array([[value]]), np.array([[[0.7]]]))[0][0, 0])
        )

    assert integrate.quad(density, -20, 20, points=[0.7])[0] == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("size", [1, 5])
def test_the_log_likelihood_is_scipys_for_shared_and_separate_variances(ops, size):
    rng = np.random.default_rng(0)
    x, mean, logvar = rng.normal(size=(3, 5)), rng.normal(size=(3, 4, 5)), rng.normal(size=size)
    want = stats.norm.logpdf(x[:, None], mean, np.exp(logvar / 2)).sum(axis=2)
    np.testing.assert_allclose(ops.gaussian_log_likelihood_forward(x, mean, logvar)[0], want, rtol=1e-12)


def test_unit_variance_is_the_squared_error_and_its_constant(ops):
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(3, 5)), rng.normal(size=(3, 4, 5))
    want = -0.5 * np.square(x[:, None] - mean).sum(axis=2) - 5 / 2 * np.log(2 * np.pi)
    got, _ = ops.unit_gaussian_log_likelihood_forward(x, mean)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(got, ops.gaussian_log_likelihood_forward(x, mean, np.zeros(1))[0], rtol=1e-12)


def test_the_best_variance_is_the_mean_squared_deviation(ops):
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(200, 3)), np.zeros((200, 1, 3))
    for best in (np.log(np.square(x).mean(axis=0)), np.log([np.square(x).mean()])):
        _, cache = ops.gaussian_log_likelihood_forward(x, mean, best)
        _, dlogvar = ops.gaussian_log_likelihood_backward(np.ones((200, 1)), cache)
        assert dlogvar.shape == best.shape
        assert np.abs(dlogvar).max() < 1e-10


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(("deviation", "logvar"), [(0.0, -89.0), (1e20, 90.0)])
def test_single_precision_holds_where_one_factor_of_the_square_overflows(ops, deviation, logvar, size):
    """exp(89) and the square of 1e20 are no float32, but (x - mean) exp(-logvar / 2) is, and so is its square."""
    x, mean = np.full((1, 2), deviation, np.float32), np.zeros((1, 1, 2), np.float32)
    value, cache = ops.gaussian_log_likelihood_forward(x, mean, np.full(size, logvar, np.float32))
    dmean, dlogvar = ops.gaussian_log_likelihood_backward(np.ones((1, 1), np.float32), cache)
    deviation, std = float(x[0, 0]), np.exp(logvar / 2)
    np.testing.assert_allclose(value, [[2 * stats.norm.logpdf(deviation, scale=std)]], rtol=1e-5)
    np.testing.assert_allclose(dmean, np.full((1, 1, 2), deviation / std**2), rtol=1e-5)
    np.testing.assert_allclose(dlogvar, np.full(size, (2 / size) * ((deviation / std) ** 2 - 1) / 2), rtol=1e-5)
