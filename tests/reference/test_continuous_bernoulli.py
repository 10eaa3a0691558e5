"""The continuous Bernoulli: normalised, and exact where its formulas are 0 / 0 or where one end has all the mass."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from scipy import stats

from scratchvae import reference
from scratchvae.reference.continuous_bernoulli import (
    NEAR,
    VALUE_SERIES,
    continuous_bernoulli_logits,
    continuous_bernoulli_normaliser,
)
from tests.proofs.checks import complex_derivative

LOGITS = (0.0, 1e-12, 1e-8, 1e-4, 0.01, 0.3, NEAR, np.nextafter(NEAR, 0), np.nextafter(NEAR, 1), 0.9, 3.0, 20.0, 80.0)
EVERY = np.array([*LOGITS, *(-logit for logit in LOGITS)])


def exactly(logit):
    """A, A', A'' in fifty digits."""
    with localcontext() as context:
        context.prec = 80
        logit = Decimal(float(logit))
        if not logit:
            return 0.0, 0.5, 1 / 12
        power = logit.exp()
        value = ((power - 1) / logit).ln()
        mean = power / (power - 1) - 1 / logit
        return float(value), float(mean), float(1 / logit**2 - power / (power - 1) ** 2)


def test_the_normaliser_and_both_derivatives_are_exact_at_every_logit():
    got = np.array(continuous_bernoulli_normaliser(EVERY))
    want = np.array([exactly(logit) for logit in EVERY]).T
    np.testing.assert_allclose(got[0], want[0], rtol=1e-15, atol=1e-28)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-15)
    np.testing.assert_allclose(got[2], want[2], rtol=1e-14)


def test_the_variance_loses_at_most_two_digits_where_the_series_ends():
    logits = np.linspace(0.4, 3, 300)
    logits = np.concatenate([logits, -logits])
    want = np.array([exactly(logit)[2] for logit in logits])
    error = np.abs(continuous_bernoulli_normaliser(logits).variance / want - 1) / np.finfo(float).eps
    assert error.max() < 70
    assert error[np.abs(logits) > 2.9].max() < 5


def test_each_derivative_is_the_complex_step_of_the_one_before():
    for order in (0, 1):
        got = complex_derivative(
            lambda logits, order=order: continuous_bernoulli_normaliser(logits)[order].sum(), EVERY
        )
        want = continuous_bernoulli_normaliser(EVERY)[order + 1]
        np.testing.assert_allclose(got, want, rtol=(1e-14, 2e-13)[order])


def test_the_series_is_that_of_the_uniform_distributions_cumulants():
    """kappa_2n / (2n)!: 1/12, -1/120, 1/252, -1/240, 1/132 over 2!, 4!, ..."""
    want = [1 / 12 / 2, -1 / 120 / 24, 1 / 252 / 720, -1 / 240 / 40320, 1 / 132 / 3628800]
    np.testing.assert_allclose(VALUE_SERIES[:5], want, rtol=1e-15)


def test_the_mean_has_an_inverse_over_the_whole_interval():
    means = np.array([1e-17, 1e-6, 0.01, 0.3, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 0.77, 0.99, 1 - 1e-6])
    logits = continuous_bernoulli_logits(means)
    np.testing.assert_allclose(continuous_bernoulli_normaliser(logits).mean, means, rtol=1e-14)
    assert continuous_bernoulli_logits(np.array([0.5])) == 0


@pytest.mark.parametrize(("dtype", "gate"), [(np.float64, 1e-10), (np.float32, 1e-6)])
def test_the_density_integrates_to_one_and_its_mean_is_the_derivative(ops, dtype, gate):
    """By Gauss-Legendre quadrature. Nodes are rounded to the dtype; the density is moved back to the exact ones."""
    nodes, weights = leggauss(60)
    logits = np.array([*(-30, -5, -0.7, -0.5, -1e-3, 0, 1e-7, 0.2, 0.501, 1, 8, 30)], dtype)
    x = ((nodes + 1) / 2).astype(dtype)
    log_density, cache = ops.continuous_bernoulli_log_likelihood_forward(
        x[:, None], np.broadcast_to(logits[None, :, None], (60, 12, 1)).copy()
    )
    assert log_density.dtype == dtype
    moved = logits.astype(float) * (((nodes + 1) / 2)[:, None] - x[:, None].astype(float))
    density = np.exp(log_density.astype(float) + moved)
    np.testing.assert_allclose(weights / 2 @ density, 1, rtol=gate)
    mean = x[0] - cache.derivative[0, :, 0]
    np.testing.assert_allclose((weights * (nodes + 1) / 4) @ density, mean, rtol=0, atol=gate)


def test_the_density_is_a_truncated_exponentials(ops):
    """On [0, 1] exp(x l) is the exponential distribution cut off at 1, turned round for l > 0."""
    x, rate = np.linspace(0, 1, 7)[:, None], 2.5
    want = stats.truncexpon.logpdf(x, rate, scale=1 / rate)
    for values, logit in ((x, -rate), (1 - x, rate)):
        got, _ = ops.continuous_bernoulli_log_likelihood_forward(values, np.full((7, 1, 1), logit))
        np.testing.assert_allclose(got, want, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e3, 1e4])
def test_saturated_logits_keep_value_and_gradient(ops, dtype, size):
    """At the wrong end x costs a - log a, at the right one it gains log a: mass 1 on a width of 1 / a."""
    logits = np.array([-size, size, -size, size], dtype)[None, None]
    x = np.array([[0, 1, 1, 0]], dtype)
    value, cache = ops.continuous_bernoulli_log_likelihood_forward(x, logits)
    np.testing.assert_allclose(value, [[4 * np.log(size) - 2 * size]], rtol=1e-6)
    gradient = ops.continuous_bernoulli_log_likelihood_backward(np.ones((1, 1), dtype), cache)
    np.testing.assert_allclose(gradient, [[[-1 / size, 1 / size, 1 - 1 / size, 1 / size - 1]]], rtol=1e-5)


def test_the_two_formulas_meet_where_one_hands_over_to_the_other():
    x, logits = np.full((3, 1), 0.3), np.array([np.nextafter(NEAR, 0), NEAR, np.nextafter(NEAR, 1)])[:, None, None]
    value, cache = reference.continuous_bernoulli_log_likelihood_forward(x, logits)
    assert np.ptp(value) < 1e-15
    assert np.ptp(cache.derivative) < 1e-15
