"""The Gaussian posterior: draws, KL and log-densities mean what they say."""

import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from scratchvae import reference
from tests.proofs.checks import kl_equals_monte_carlo
from tests.proofs.pairs import generators, sizes


def test_kl_equals_the_monte_carlo_mean_of_the_log_ratio(ops):
    kl_equals_monte_carlo(ops.kl_to_prior_forward)


def test_kl_is_zero_for_the_prior_itself_and_nowhere_else(ops):
    zero = np.zeros((1, 3))
    assert ops.kl_to_prior_forward(zero, zero)[0] == 0
    for mu, logvar in [(0.1, 0.0), (0.0, 0.1), (0.0, -0.1), (-2.0, 3.0)]:
        assert ops.kl_to_prior_forward(zero + mu, zero + logvar)[0] > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kl_next_to_the_prior_is_half_the_squares_and_not_rounding(ops, dtype):
    """In single precision exp(-1e-4) - 1 + 1e-4 as it stands is -1.7e-8; it is 5e-9."""
    logvar = np.geomspace(1e-12, 1e-3, 200).astype(dtype)
    logvar = np.concatenate([logvar, -logvar])[:, None]
    mu, none = np.zeros_like(logvar), np.zeros((400, 1, 1), dtype)
    exact = logvar.astype(float)
    exact = exact**2 / 4 + exact**3 / 12 + exact**4 / 48
    head = np.concatenate([mu, logvar], axis=1)
    for kl in (
        ops.kl_to_prior_forward(mu, logvar)[0],
        ops.kl_per_dimension_forward(mu, logvar)[0][:, 0],
        ops.full_kl_per_dimension_forward(head)[0][:, 0],
        ops.posterior_forward(head, none)[1],
        ops.full_posterior_forward(head, none)[1],
    ):
        assert (kl >= 0).all()
        np.testing.assert_allclose(kl, exact[:, 0], rtol=1e-5, atol=np.finfo(dtype).eps * np.abs(logvar).max() / 2)
    _, cache = ops.kl_to_prior_forward(mu, logvar)
    _, dlogvar = ops.kl_to_prior_backward(np.ones(400, dtype), cache)
    np.testing.assert_allclose(dlogvar, np.expm1(logvar.astype(float)) / 2, rtol=4 * np.finfo(dtype).eps)


@given(rng=generators, n=sizes)
def test_kl_is_the_sum_of_its_dimensions_none_of_them_negative(rng, n):
    mu, logvar = rng.normal(size=(2, n.b, n.d))
    per_dimension, _ = reference.kl_per_dimension_forward(mu, logvar)
    assert (per_dimension >= 0).all()
    np.testing.assert_allclose(per_dimension.sum(axis=1), reference.kl_to_prior_forward(mu, logvar)[0], rtol=1e-12)


def test_draws_are_gaussian_with_the_mean_and_variance_asked_for(ops):
    eps = np.random.default_rng(0).normal(size=(2, 100_000, 2))
    mu, logvar = np.array([[1.0, -2.0], [0.0, 5.0]]), np.array([[0.0, -3.0], [1.0, 2.0]])
    z, _ = ops.reparameterize_forward(mu, logvar, eps)
    np.testing.assert_allclose(z.mean(axis=1), mu, atol=0.03)
    np.testing.assert_allclose(z.var(axis=1), np.exp(logvar), rtol=0.03)


def test_zero_noise_gives_the_mean(ops):
    mu = np.array([[1.0, -2.0]])
    z, _ = ops.reparameterize_forward(mu, np.ones((1, 2)), np.zeros((1, 3, 2)))
    np.testing.assert_array_equal(z, np.repeat(mu[:, None], 3, axis=1))


def test_log_densities_are_scipys(ops):
    rng = np.random.default_rng(0)
    z, (mu, logvar) = rng.normal(size=(3, 4, 2)), rng.normal(size=(2, 3, 2))
    want = stats.norm.logpdf(z, mu[:, None], np.exp(logvar / 2)[:, None]).sum(axis=2)
    np.testing.assert_allclose(ops.gaussian_log_density_forward(z, mu, logvar)[0], want, rtol=1e-12)
    want = stats.norm.logpdf(z).sum(axis=2)
    np.testing.assert_allclose(ops.standard_normal_log_density_forward(z)[0], want, rtol=1e-12)


def test_the_score_has_mean_zero_under_its_own_density(ops):
    rng = np.random.default_rng(0)
    (mu, logvar), eps = rng.normal(size=(2, 1, 3)), rng.normal(size=(1, 200_000, 3))
    z, _ = ops.reparameterize_forward(mu, logvar, eps)
    _, cache = ops.gaussian_log_density_forward(z, mu, logvar)
    _, dmu, dlogvar = ops.gaussian_log_density_backward(np.full((1, 200_000), 1 / 200_000), cache)
    assert np.abs(dmu * np.exp(logvar / 2)).max() < 5 / np.sqrt(200_000)
    assert np.abs(dlogvar).max() < 5 / np.sqrt(2 * 200_000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_are_kept(ops, dtype):
    rng = np.random.default_rng(0)
    (mu, logvar), eps = rng.normal(size=(2, 3, 2)).astype(dtype), rng.normal(size=(3, 4, 2)).astype(dtype)
    z, cache = ops.reparameterize_forward(mu, logvar, eps)
    arrays = [z, *ops.reparameterize_backward(z, cache), ops.kl_to_prior_forward(mu, logvar)[0]]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}
