"""The linear-Gaussian model: closed forms against brute force, against scikit-learn, and as what training reaches."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA, FactorAnalysis

import scratchvae as sv
from scratchvae.evidence.exact import (
    LinearGaussian,
    active_units_at,
    covariance_eigenvalues,
    maximum_log_evidence,
    principal_components,
)
from scratchvae.vae import Gaussian
from tests.cases import build, linear_gaussian

LINEAR = ("gaussian", "gaussian-learned", "gaussian-learned-diagonal")


def random_model(per_dimension: bool = True, data_dim: int = 7, latent_dim: int = 3, seed: int = 0) -> LinearGaussian:
    """Random weights and bias; variances spread over two orders of magnitude."""
    rng = np.random.default_rng(seed)
    variance = np.exp(rng.normal(size=data_dim if per_dimension else 1))
    return LinearGaussian(rng.normal(size=(latent_dim, data_dim)), rng.normal(size=data_dim), variance)


def random_q(rows: int, latent_dim: int, seed: int = 1) -> Gaussian:
    return Gaussian(*np.random.default_rng(seed).normal(size=(2, rows, latent_dim)))


def draws(model: LinearGaussian, rows: int = 9, seed: int = 2) -> NDArray:
    """x ~ p(x)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, len(model.weight)))
    return z @ model.weight + model.bias + np.sqrt(model.variance) * rng.normal(size=(rows, model.bias.size))


def normal_log_density(x: NDArray, mean: NDArray, covariance: NDArray) -> NDArray:
    """log N(x; mean, covariance), written as the definition says."""
    distance = ((x - mean) * np.linalg.solve(covariance, (x - mean).T).T).sum(axis=1)
    return -0.5 * (x.shape[1] * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + distance)


@pytest.mark.parametrize("per_dimension", [False, True])
def test_log_evidence_is_the_log_density_of_the_marginal_gaussian(per_dimension):
    model = random_model(per_dimension)
    x = draws(model)
    covariance = model.weight.T @ model.weight + np.diag(model.variance)
    np.testing.assert_allclose(model.log_evidence(x), normal_log_density(x, model.bias, covariance), rtol=1e-12)


def test_bayes_rule_holds_at_every_z():
    model = random_model()
    x, z = draws(model, 5), np.random.default_rng(3).normal(size=(5, 3))
    log_prior = normal_log_density(z, np.zeros(3), np.eye(3))
    log_likelihood = normal_log_density(x - z @ model.weight, model.bias, np.diag(model.variance))
    mean, covariance = model.posterior(x)
    log_posterior = normal_log_density(z - mean, np.zeros(3), covariance)
    np.testing.assert_allclose(log_prior + log_likelihood - log_posterior, model.log_evidence(x), rtol=1e-12)


@pytest.mark.parametrize("per_dimension", [False, True])
def test_log_evidence_is_elbo_plus_kl_to_the_posterior_for_any_q(per_dimension):
    model = random_model(per_dimension)
    x, q = draws(model), random_q(9, 3)
    residual = model.log_evidence(x) - model.elbo(x, q) - model.kl_to_posterior(x, q)
    assert np.abs(residual).max() < 1e-12 * max(1, np.abs(model.elbo(x, q)).max())


def test_the_identity_holds_to_twelve_digits_for_every_example():
    vae, x, _ = linear_gaussian(orthogonal=False, rows=200)
    model, q = LinearGaussian.from_vae(vae), vae.encode(x)
    assert np.abs(model.log_evidence(x) - model.elbo(x, q) - model.kl_to_posterior(x, q)).max() < 1e-12


def test_the_exact_elbo_is_the_mean_of_the_sampled_one():
    vae, x, _ = linear_gaussian(orthogonal=False, rows=4)
    eps = np.random.default_rng(0).normal(size=(4, 50_000, 3))
    sampled = np.array([vae.elbo(x, eps[:, k : k + 500]).elbo for k in range(0, 50_000, 500)])
    error = sampled.std(axis=0) / np.sqrt(len(sampled))
    exact = LinearGaussian.from_vae(vae).elbo(x, vae.encode(x))
    assert (np.abs(sampled.mean(axis=0) - exact) < 5 * error).all()
    assert (error < 0.02).all()


def test_the_kl_to_the_posterior_is_the_textbook_kl_of_two_gaussians():
    model = random_model()
    x, q = draws(model), random_q(9, 3)
    mean, covariance = model.posterior(x)
    precision = np.linalg.inv(covariance)
    miss = mean - q.mu
    for row, variances in enumerate(np.exp(q.logvar)):
        log_ratio = np.linalg.slogdet(covariance)[1] - q.logvar[row].sum()
        kl = 0.5 * (np.trace(precision @ np.diag(variances)) + miss[row] @ precision @ miss[row] - 3 + log_ratio)
        np.testing.assert_allclose(model.kl_to_posterior(x, q)[row], kl, rtol=1e-11)


@pytest.mark.parametrize("per_dimension", [False, True])
def test_the_best_diagonal_q_has_the_gap_of_the_formula_and_no_other_q_has_less(per_dimension):
    model = random_model(per_dimension)
    x = draws(model)
    best = model.best_diagonal(x)
    gap = model.log_evidence(x) - model.elbo(x, best)
    np.testing.assert_allclose(gap, model.gap, atol=1e-10)
    assert model.gap > 0.1
    for size in (1e-4, 1e-2, 1.0):
        moves = random_q(9, 3)
        other = Gaussian(best.mu + size * moves.mu, best.logvar + size * moves.logvar)
        assert (model.elbo(x, other) < model.elbo(x, best)).all()


def test_with_one_variance_the_gap_is_that_of_lucas_and_others():
    model = random_model(per_dimension=False)
    m = model.weight @ model.weight.T + model.variance[0] * np.eye(3)
    gap = 0.5 * (np.log(np.diag(m)).sum() - np.linalg.slogdet(m)[1])
    np.testing.assert_allclose(model.gap, gap, rtol=1e-12)


def test_the_gap_is_zero_where_columns_are_orthogonal_and_importance_weights_are_equal_there():
    vae, x, log_evidence = linear_gaussian(orthogonal=True)
    model = LinearGaussian.from_vae(vae)
    assert model.gap < 1e-12
    np.testing.assert_allclose(model.log_evidence(x), log_evidence, rtol=1e-12)
    np.testing.assert_allclose(model.elbo(x, vae.encode(x)), log_evidence, rtol=1e-12)
    for num_samples in (1, 5, 50):
        np.testing.assert_allclose(
            sv.log_evidence(vae, x, num_samples=num_samples).log_evidence, log_evidence, rtol=1e-12
        )


def test_moving_the_encoder_leaves_log_p_x_the_same_bits():
    vae, x, _ = build(likelihood="gaussian-learned", hidden=())
    before = sv.log_evidence(vae, x, method="exact").log_evidence
    vae.parameters["encoder.head.weight"][...] += 1
    np.testing.assert_array_equal(sv.log_evidence(vae, x, method="exact").log_evidence, before)


def test_a_gap_that_rounding_would_make_negative_is_zero():
    rng, gaps = np.random.default_rng(0), []
    for _ in range(40):
        rows = 3 * np.linalg.qr(rng.normal(size=(6, 3)))[0].T  # orthogonal
        gaps.append(LinearGaussian(rows, np.zeros(6), np.array(0.7)).gap)
    assert min(gaps) == 0
    assert max(gaps) < 1e-14


def test_pixels_of_whole_bytes_are_the_numbers_they_mean():
    vae, _, _ = build(likelihood="gaussian", hidden=())
    pixels = np.array([[0, 51, 102, 153, 255]], np.uint8)
    got, want = (sv.log_evidence(vae, x, "exact").log_evidence for x in (pixels, pixels / 255))
    np.testing.assert_allclose(got, want, rtol=1e-14)


def test_a_float32_model_has_the_answer_of_its_parameters_in_float64():
    vae, x, _ = build(likelihood="gaussian-learned", hidden=(4,), activation="identity", dtype="float32")
    twin = vae.with_parameters(vae.parameters.astype(np.float64))
    got, want = (sv.log_evidence(one, x, "exact").log_evidence for one in (vae, twin))
    np.testing.assert_array_equal(got, want)


def test_the_best_diagonal_q_is_the_callers_to_change():
    model = random_model()
    for part in model.best_diagonal(draws(model)):
        part += 1.0


def test_nearly_noiseless_models_keep_their_digits():
    model = LinearGaussian(np.eye(2, 4), np.zeros(4), np.array(1e-12))
    x = np.array([[0.3, -0.2, 1e-6, 0.0]])
    distance = (0.3**2 + 0.2**2) / (1 + 1e-12) + 1.0
    want = -0.5 * (4 * np.log(2 * np.pi) + 2 * np.log1p(1e-12) + 2 * np.log(1e-12) + distance)
    np.testing.assert_allclose(model.log_evidence(x), want, rtol=1e-11)


@pytest.mark.parametrize("s2", [1e-2, 1e-8, 1e-12, 1e-20])
def test_a_collapsed_direction_that_lies_across_the_axes_keeps_its_digits(s2):
    """Turned, it is a model of one latent unit: the same density, and a gap whose formula has no determinant."""
    w, turn, b = np.array([[0.5, -1.0, 2.0]]), np.array([0.6, 0.8]), np.array([0.1, 0.2, 0.3])
    one, two = LinearGaussian(w, b, np.array(s2)), LinearGaussian(np.outer(turn, w), b, np.array(s2))
    gain = (w @ w.T).item() / s2
    want = 0.5 * (np.log1p(np.square(turn) * gain).sum() - np.log1p(gain))
    np.testing.assert_allclose(two.gap, want, rtol=1e-12)
    x = 0.7 * w + b
    np.testing.assert_allclose(two.log_evidence(x), one.log_evidence(x), rtol=0, atol=max(1e-12, 1e-26 / s2))
    covariance = np.eye(2) - np.outer(turn, turn) * (gain / (1 + gain))
    np.testing.assert_allclose(two.posterior(x).covariance, covariance, atol=1e-15)
    np.testing.assert_allclose(two.posterior(x).mean, one.posterior(x).mean * turn, rtol=1e-11)


def test_more_latent_units_than_data_have_a_posterior_as_wide_as_the_prior_where_nothing_is_seen():
    rng = np.random.default_rng(3)
    model = LinearGaussian(rng.standard_normal((5, 3)), np.zeros(3), np.array(0.5))
    found, x = model.posterior(np.ones((1, 3))), np.ones(3)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(model.precision), atol=1e-14)
    np.testing.assert_allclose(found.mean[0], found.covariance @ model.weight @ x / 0.5, atol=1e-14)


# --- scikit-learn -----------------------------------------------------------------------------------------------------


def test_scikit_learns_pca_gives_the_same_log_evidence(digits):
    train, held_out = (part.astype(float) for part in digits)
    pca = PCA(5, svd_solver="full").fit(train)
    weight = np.sqrt(pca.explained_variance_ - pca.noise_variance_)[:, None] * pca.components_
    model = LinearGaussian(weight, pca.mean_, np.array(pca.noise_variance_))
    np.testing.assert_allclose(model.log_evidence(held_out), pca.score_samples(held_out), atol=1e-8)


def test_scikit_learns_factor_analysis_gives_the_same_log_evidence(digits):
    train, held_out = (part.astype(float) for part in digits)
    busy = np.argsort(train.std(axis=0))[-12:]
    analysis = FactorAnalysis(3, tol=0.1, svd_method="lapack").fit(train[:300, busy])
    model = LinearGaussian(analysis.components_, analysis.mean_, analysis.noise_variance_)
    scores = analysis.score_samples(held_out[:, busy])
    np.testing.assert_allclose(model.log_evidence(held_out[:, busy]), scores, atol=1e-8)


# --- the maximum of the likelihood ------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent_dim", [1, 3, 5])
def test_probabilistic_pca_reaches_the_maximum_and_nothing_near_it_is_higher(latent_dim):
    x = draws(random_model(data_dim=6), rows=500)
    best = principal_components(x, latent_dim)
    highest = best.log_evidence(x).mean()
    np.testing.assert_allclose(highest, maximum_log_evidence(x, latent_dim), rtol=1e-12)
    assert best.gap < 1e-12
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1):
        for _ in range(20):
            weight = best.weight + size * rng.normal(size=best.weight.shape)
            bias = best.bias + size * rng.normal(size=6)
            moved = LinearGaussian(weight, bias, best.variance[0] * np.exp(size * rng.normal()))
            assert moved.log_evidence(x).mean() < highest


@pytest.mark.parametrize("number", [1, 4])
def test_with_a_variance_that_is_held_nothing_near_the_best_weights_is_higher(number):
    x = draws(random_model(data_dim=6), rows=500)
    variance = covariance_eigenvalues(x)[number - 1 : number + 1].mean()
    best, rng = principal_components(x, 3, variance), np.random.default_rng(0)
    np.testing.assert_array_equal(best.variance, variance)
    assert (np.linalg.norm(best.weight, axis=1) > 0).sum() == min(number, 3) == active_units_at(x, variance, 3)
    for size in (1e-3, 1e-1):
        for _ in range(20):
            moved = LinearGaussian(best.weight + size * rng.normal(size=best.weight.shape), best.bias, variance)
            assert moved.log_evidence(x).mean() < best.log_evidence(x).mean()


def test_units_are_active_where_the_eigenvalue_is_above_the_variance():
    x = draws(random_model(data_dim=6), rows=500)
    values = covariance_eigenvalues(x)
    assert (np.diff(values) <= 0).all()
    assert active_units_at(x, (values[1] + values[2]) / 2, latent_dim=5) == 2
    assert active_units_at(x, values[-1] / 2, latent_dim=5) == 5
    assert active_units_at(x, 2 * values[0], latent_dim=5) == 0
    with pytest.raises(ValueError, match=r"^latent_dim is 2.5; expected a whole number of at least 1$"):
        active_units_at(x, values[0], latent_dim=2.5)
    for variance in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=f"^variance is {variance}; expected a positive number$"):
            active_units_at(x, variance, latent_dim=2)


@pytest.mark.parametrize("variance", [None, 0.5])
@pytest.mark.parametrize("latent_dim", [0, 6, 1.5, True])
def test_a_number_of_components_that_leaves_nothing_out_is_refused(latent_dim, variance):
    with pytest.raises(ValueError, match=f"latent_dim is {latent_dim}; expected 1 to 5"):
        principal_components(np.random.default_rng(0).normal(size=(9, 6)), latent_dim, variance)


@pytest.mark.parametrize("seed", range(8))  # rounding leaves a variance a little above 0, or below
def test_data_without_left_out_variance_have_no_maximum(seed):
    with pytest.raises(ValueError, match="no more than 2 directions"):
        maximum_log_evidence(np.random.default_rng(seed).normal(size=(3, 6)), 2)


@pytest.mark.slow
def test_training_reaches_the_maximum_with_orthogonal_columns():
    """Full batches, four samples of z, and Adam at 1e-2, 3e-3, 1e-3, 3e-4: a fixed rate would stay in its own noise."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    x = (rng.normal(size=(500, 8)) * [3.0, 2.2, 1.5, 0.5, 0.5, 0.5, 0.5, 0.5]) @ directions + rng.normal(size=8)
    vae = sv.VAE(8, 3, (), "gaussian-learned", "identity", "float64", "reference")
    for learning_rate, epochs in ((1e-2, 1000), (3e-3, 2000), (1e-3, 600), (3e-4, 300)):
        sv.fit(vae, x, epochs, len(x), learning_rate, sv.ELBO(num_samples=4), progress=False)
    trained, highest = LinearGaussian.from_vae(vae), maximum_log_evidence(x, 3)
    assert 0 <= highest - trained.log_evidence(x).mean() < 1e-3
    assert 0 <= highest - trained.elbo(x, vae.encode(x)).mean() < 1e-3
    assert trained.gap < 1e-3
    lengths = np.linalg.norm(trained.weight, axis=1)
    cosines = (trained.weight @ trained.weight.T) / np.outer(lengths, lengths)
    assert np.abs(cosines - np.eye(3)).max() < 0.03
    want = np.sqrt(covariance_eigenvalues(x)[:3] - trained.variance[0])
    np.testing.assert_allclose(np.sort(lengths)[::-1], want, rtol=0.01)


# --- models that are linear, and models that are not ------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LINEAR)
@pytest.mark.parametrize("hidden", [(), (4,), (3, 5)])
def test_any_linear_decoder_with_gaussian_noise_has_an_exact_answer(likelihood, hidden):
    vae, x, _ = build(likelihood=likelihood, hidden=hidden, activation="identity")
    got = sv.log_evidence(vae, x, method="exact")
    assert (got.standard_error == 0).all()
    assert np.isinf(got.effective_sample_size).all()
    estimate = sv.log_evidence(vae, x, method="prior", num_samples=20_000)
    assert (np.abs(got.log_evidence - estimate.log_evidence) < 5 * estimate.standard_error).all()


def test_hidden_layers_that_are_absent_need_no_activation():
    vae, x, _ = build(likelihood="gaussian", hidden=(), activation="tanh")
    assert np.isfinite(sv.log_evidence(vae, x, method="exact").log_evidence).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"likelihood": "gaussian", "activation": "tanh"}, "linear decoder"),
        ({"likelihood": "bernoulli", "hidden": ()}, "one of the likelihoods gaussian, "),
    ],
)
def test_a_model_without_a_closed_form_is_refused_in_one_line(arguments, message):
    vae, x, _ = build(**arguments)
    with pytest.raises(ValueError, match=message) as refusal:
        sv.log_evidence(vae, x, method="exact")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("shape", "variance", "message"),
    [
        ((3,), 1.0, r"\(3,\)"),
        ((4, 3), [1.0, 2.0], r"variance \(2,\); expected \(Z, D\), \(D,\), and one variance"),
        ((4, 3), 0.0, "smallest variance is 0.0"),
        ((4, 3), np.nan, "NaN"),
    ],
)
def test_parameters_that_are_no_model_are_refused(shape, variance, message):
    with pytest.raises(ValueError, match=message):
        LinearGaussian(np.ones(shape), np.zeros(3), np.array(variance))


@pytest.mark.parametrize("part", ["weight", "bias", "variance"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_part_that_is_not_finite_is_refused(part, value):
    parts = {"weight": np.ones((2, 3)), "bias": np.ones(3), "variance": np.ones(3)}
    parts[part].flat[-1] = value
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        LinearGaussian(**parts)


def test_data_and_q_that_do_not_fit_the_model_are_refused_in_one_line():
    model = random_model()
    x, full = draws(model), sv.FullGaussian(np.zeros((9, 3)), np.tile(np.eye(3), (9, 1, 1)))
    for asked in (model.log_evidence, model.posterior, model.best_diagonal):
        with pytest.raises(ValueError, match="expected"):
            asked(x[:, :1])  # which would be broadcast
    for asked in (model.elbo, model.kl_to_posterior):
        with pytest.raises(ValueError, match="q is a FullGaussian; expected a diagonal Gaussian"):
            asked(x, full)
        for shape in ((9, 1), (1, 3), (9, 4)):
            with pytest.raises(ValueError, match=r"q has mu \(.*expected \(9, 3\) for both"):
                asked(x, sv.Gaussian(np.zeros(shape), np.zeros(shape)))


def test_the_parts_of_a_linear_model_may_be_lists():
    model = LinearGaussian([[1.0, 2.0]], [0.0, 1.0], [0.5])
    assert [part.dtype for part in (model.weight, model.bias, model.variance)] == [np.float64] * 3
    assert model.variance.tolist() == [0.5, 0.5]
