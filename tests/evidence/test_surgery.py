"""The average KL to the prior, carved into information and the aggregate posterior's KL; active units."""

import numpy as np
import pytest
from numpy.typing import NDArray

import scratchvae as sv
from scratchvae.evidence.surgery import (
    active_units,
    aggregate_log_density,
    elbo_surgery,
    elbo_surgery_by_quadrature,
)
from scratchvae.reference.gaussian import kl_to_prior_forward
from scratchvae.reference.random import Stream, normals
from tests.cases import build


def encoder_of(mu: NDArray, logvar: NDArray) -> tuple[sv.VAE, NDArray]:
    """A model and data x (N, N), one unit vector an example, whose q(z|x_n) are the Gaussians given (N, Z)."""
    vae = sv.VAE(len(mu), mu.shape[1], (), "gaussian", "identity", "float64", "reference")
    vae.parameters["encoder.head.weight"][...] = np.concatenate([mu, logvar], axis=1)
    return vae, np.eye(len(mu))


def test_the_error_of_integration_covers_it_where_two_grids_agree_by_chance(monkeypatch):
    rng = np.random.default_rng(4)
    given = [encoder_of(3 * rng.normal(size=(4, 1)), 0.3 * rng.normal(size=(4, 1)) - 1) for _ in range(100)]
    found = [elbo_surgery_by_quadrature(*each) for each in given]
    monkeypatch.setattr("scratchvae.evidence.surgery.SPACINGS", (0.1,))
    finer = [elbo_surgery_by_quadrature(*each) for each in given]
    for one, truth in zip(found, finer, strict=True):
        assert abs(one.aggregate_kl - truth.aggregate_kl) <= one.error + 1e-12


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_samples_and_integration_agree_within_the_error_bars(latent_dim):
    vae, x, _ = build(latent_dim=latent_dim, rows=60)
    sampled, exact = elbo_surgery(vae, x, num_samples=400), elbo_surgery_by_quadrature(vae, x)
    assert abs(sampled.mutual_information - exact.mutual_information) < 4 * sampled.error
    assert sampled.error < 0.01
    assert exact.error < 1e-10
    assert exact.mutual_information > 0.05
    assert exact.aggregate_kl > 0.05


def test_error_bars_are_of_the_right_size():
    vae, x, _ = build(latent_dim=1, rows=20)
    exact = elbo_surgery_by_quadrature(vae, x).mutual_information
    runs = [elbo_surgery(vae, x, num_samples=20, seed=seed) for seed in range(100)]
    scores = np.array([(run.mutual_information - exact) / run.error for run in runs])
    assert 0.8 < np.sqrt(np.mean(scores**2)) < 1.25


@pytest.mark.parametrize("surgery", [elbo_surgery, elbo_surgery_by_quadrature])
def test_the_parts_add_up_to_the_average_kl(surgery):
    vae, x, _ = build(latent_dim=2, rows=30)
    found = surgery(vae, x)
    np.testing.assert_allclose(found.average_kl, kl_to_prior_forward(*vae.encode(x))[0].mean(), rtol=1e-12)
    np.testing.assert_allclose(found.mutual_information + found.aggregate_kl, found.average_kl, rtol=1e-12)
    np.testing.assert_allclose(found.kl_per_dimension.sum(), found.average_kl, rtol=1e-12)
    assert (found.kl_per_dimension > 0).all()


@pytest.mark.parametrize("surgery", [elbo_surgery, elbo_surgery_by_quadrature])
def test_every_latent_dimension_has_the_kl_of_its_own(surgery):
    mu, logvar = np.array([[1.0, 0.0], [-2.0, 0.0]]), np.array([[0.0, -1.0], [0.0, -1.0]])
    want = [(1 + 4) / 2 / 2, 0.5 * (np.exp(-1) - 1 + 1)]  # 1/2 (mu^2 + exp(logvar) - 1 - logvar)
    np.testing.assert_allclose(surgery(*encoder_of(mu, logvar)).kl_per_dimension, want, rtol=1e-12)


@pytest.mark.parametrize("surgery", [elbo_surgery, elbo_surgery_by_quadrature])
def test_a_float32_model_is_carved_in_float64(surgery):
    vae, x, _ = build(rows=20, dtype="float32")
    q = (part.astype(np.float64) for part in vae.encode(x))
    found = surgery(vae, x)
    assert found.kl_per_dimension.dtype == np.float64
    np.testing.assert_allclose(found.average_kl, kl_to_prior_forward(*q)[0].mean(), rtol=1e-14)


def test_the_grid_reaches_as_far_as_the_widest_gaussian():
    vae, x = encoder_of(np.zeros((2, 1)), np.array([[0.0], [4.0]]))
    z = np.linspace(-80, 80, 16001)[:, None]
    log_q = aggregate_log_density(vae.encode(x), z)
    want = (np.exp(log_q) * (log_q + 0.5 * (z[:, 0] ** 2 + np.log(2 * np.pi)))).sum() * 0.01
    np.testing.assert_allclose(elbo_surgery_by_quadrature(vae, x).aggregate_kl, want, rtol=1e-9)


def test_the_grid_is_as_fine_along_an_axis_as_the_narrowest_gaussian_there():
    mu, logvar = np.zeros((2, 2)), np.tile([2 * np.log(5e-4), 0.0], (2, 1))  # so fine along both it would be too large
    found = elbo_surgery_by_quadrature(*encoder_of(mu, logvar))
    np.testing.assert_allclose(found.aggregate_kl, found.average_kl, rtol=1e-10)


def test_codes_that_never_overlap_tell_everything():
    mu = np.array([[-30.0], [-10.0], [10.0], [30.0]])
    for found in (surgery(*encoder_of(mu, np.zeros((4, 1)))) for surgery in (elbo_surgery, elbo_surgery_by_quadrature)):
        np.testing.assert_allclose(found.mutual_information, np.log(4), rtol=1e-10)


@pytest.mark.parametrize("surgery", [elbo_surgery, elbo_surgery_by_quadrature])
def test_codes_that_are_all_the_same_tell_nothing(surgery):
    found = surgery(*encoder_of(np.full((5, 2), 0.7), np.full((5, 2), -0.4)))
    np.testing.assert_allclose(found.mutual_information, 0, atol=1e-10)
    np.testing.assert_allclose(found.aggregate_kl, found.average_kl, rtol=1e-9)


def test_gaussian_codes_of_gaussian_data_have_the_channel_capacity_of_shannon():
    """mu ~ N(0, 1 - v), variance v: q(z) is the prior, and the information is 1/2 log(1/v)."""
    variance, quantiles = 0.2, (np.arange(2000) + 0.5) / 2000
    grid = np.linspace(-6, 6, 100_001)
    cumulative = np.cumsum(np.exp(-0.5 * grid**2))
    mu = np.sqrt(1 - variance) * np.interp(quantiles, cumulative / cumulative[-1], grid)
    vae = sv.VAE(1, 1, (), "gaussian", "identity", "float64", "reference")
    vae.parameters["encoder.head.weight"][...] = [[1.0, 0.0]]
    vae.parameters["encoder.head.bias"][...] = [0.0, np.log(variance)]
    found = elbo_surgery_by_quadrature(vae, mu[:, None])
    np.testing.assert_allclose(found.mutual_information, 0.5 * np.log(1 / variance), atol=2e-3)
    np.testing.assert_allclose(found.aggregate_kl, 0, atol=1e-4)


def test_the_aggregate_density_integrates_to_one():
    vae, x, _ = build(latent_dim=1, rows=25)
    z = np.linspace(-40, 40, 8001)
    density = np.exp(aggregate_log_density(vae.encode(x), z[:, None]))
    np.testing.assert_allclose(density.sum() * (z[1] - z[0]), 1, rtol=1e-10)


def test_the_aggregate_density_does_not_depend_on_blocks(monkeypatch):
    vae, x, _ = build(rows=25)
    q, z = vae.encode(x), np.random.default_rng(1).normal(size=(10, 2))
    whole = aggregate_log_density(q, z)
    monkeypatch.setattr("scratchvae.evidence.surgery.BLOCK", 75)  # three points at a time, and one left
    np.testing.assert_allclose(aggregate_log_density(q, z), whole, rtol=1e-14)


def test_samples_are_those_of_their_addresses():
    vae, x, _ = build(rows=30)
    q = vae.encode(x)
    eps = normals(7, Stream.AGGREGATE, 0, np.arange(30), 3 * 2).reshape(30, 3, 2).astype(float)
    z = q.mu[:, None] + np.exp(q.logvar / 2)[:, None] * eps
    of_its_own = -0.5 * (np.square(eps) + q.logvar[:, None] + np.log(2 * np.pi)).sum(axis=2)
    want = (of_its_own.ravel() - aggregate_log_density(q, z.reshape(90, 2))).mean()
    np.testing.assert_allclose(elbo_surgery(vae, x, num_samples=3, seed=7).mutual_information, want, rtol=1e-12)


def test_samples_do_not_depend_on_blocks_and_are_a_function_of_the_seed(monkeypatch):
    vae, x, _ = build(rows=30)
    whole, other = elbo_surgery(vae, x), elbo_surgery(vae, x, seed=1)
    assert whole.mutual_information == elbo_surgery(vae, x, num_samples=10, seed=0).mutual_information
    monkeypatch.setattr("scratchvae.evidence.surgery.BLOCK", 700)
    again = elbo_surgery(vae, x)
    np.testing.assert_allclose(again.mutual_information, whole.mutual_information, rtol=1e-12)
    assert other.mutual_information != whole.mutual_information


def test_a_unit_is_active_where_its_mean_varies_by_more_than_a_hundredth():
    spread = np.array([-1.0, 1.0, -1.0, 1.0])[:, None]
    vae, x = encoder_of(spread * np.array([1.0, 0.11, 0.09, 0.0]), np.zeros((4, 4)))
    np.testing.assert_allclose(vae.mean_variances(x)[0], [1.0, 0.0121, 0.0081, 0.0], atol=1e-12)
    assert active_units(vae, x) == 2


@pytest.mark.parametrize("measure", [elbo_surgery, elbo_surgery_by_quadrature, sv.VAE.mean_variances, active_units])
def test_data_with_masked_values_are_refused_and_lists_are_data(measure):
    vae, x, _ = build()
    np.testing.assert_equal(measure(vae, x.tolist()), measure(vae, x))
    with pytest.raises(ValueError, match="masked values"):
        measure(vae, np.ma.masked_equal(x, x[0, 0]))


def test_what_cannot_be_carved_is_refused():
    vae, x, _ = build(latent_dim=3)
    with pytest.raises(ValueError, match="num_samples is 1; expected at least 2"):
        elbo_surgery(vae, x, num_samples=1)
    assert np.isfinite(elbo_surgery(vae, x, num_samples=2).mutual_information)
    with pytest.raises(ValueError, match="latent_dim is 3; a grid is for at most 2"):
        elbo_surgery_by_quadrature(vae, x)
    full = sv.VAE(vae.data_dim, 3, posterior="full")
    with pytest.raises(ValueError, match="ELBO surgery"):
        elbo_surgery_by_quadrature(full, x)
    with pytest.raises(ValueError, match="ELBO surgery"):
        elbo_surgery(full, x, num_samples=1)
    narrow = encoder_of(np.array([[-1.0], [1.0]]), np.full((2, 1), -30.0))
    with pytest.raises(ValueError, match="would need 8,717,405 points; expected at most 20,000 along an axis"):
        elbo_surgery_by_quadrature(*narrow)
    narrow = encoder_of(np.array([[-1.0, -1.0], [1.0, 1.0]]), np.full((2, 2), -15.0))
    with pytest.raises(ValueError, match=r"[\d,]+ x [\d,]+ points; expected .* and 16,777,216 in all"):
        elbo_surgery_by_quadrature(*narrow)


@pytest.mark.parametrize("logvar", [-1500.0, 1500.0])
def test_densities_beyond_all_numbers_are_refused_by_the_row(logvar):
    vae = sv.VAE(3, 1, (), "gaussian", "identity", "float64", engine="reference")
    vae.parameters["encoder.head.bias"][1] = logvar
    with pytest.raises(sv.NotFiniteError, match="information of row 0"):
        elbo_surgery(vae, np.eye(3))
