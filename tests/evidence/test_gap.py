"""The gap and its two parts: against closed forms, and the order of all bounds on a trained model."""

import inspect

import numpy as np
import pytest
from numpy.typing import NDArray

import scratchvae as sv
from scratchvae.evidence import gap as gap_module
from scratchvae.evidence.exact import LinearGaussian
from scratchvae.evidence.gap import Gap, best_posterior, elbo_and_gradient, inference_gap, opposite_normals
from scratchvae.evidence.quadrature import integrate
from tests.cases import ACTIVATION_NAMES, LIKELIHOOD_NAMES, build, linear_gaussian


def spoiled_linear_gaussian(rows: int = 12) -> tuple[sv.VAE, NDArray, LinearGaussian]:
    """A linear-Gaussian model whose encoder is off in every mean and variance, and columns that are not orthogonal."""
    vae, x, _ = linear_gaussian(orthogonal=False, rows=rows)
    rng = np.random.default_rng(1)
    for name in ("encoder.head.weight", "encoder.head.bias"):
        vae.parameters[name][...] += 0.1 * rng.normal(size=vae.parameters[name].shape)
    return vae, x, LinearGaussian.from_vae(vae)


# --- the gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_the_gradient_of_the_elbo_for_mu_and_logvar_is_its_complex_step(likelihood, activation):
    vae, x, eps = build(likelihood=likelihood, activation=activation, samples=3)
    head = np.random.default_rng(1).normal(size=(3, 4))
    complex_vae = vae.with_parameters(vae.parameters.astype(np.complex128))
    _, gradient = elbo_and_gradient(vae, x, head, eps)
    numeric = np.empty_like(head)
    for j in range(4):
        moved = head.astype(np.complex128)
        moved[:, j] += 1e-30j
        numeric[:, j] = elbo_and_gradient(complex_vae, x, moved, eps)[0].imag / 1e-30
    assert np.linalg.norm(gradient - numeric) <= 1e-13 * np.linalg.norm(numeric)


def test_the_elbo_of_the_encoders_own_head_is_the_models():
    vae, x, eps = build(samples=3)
    got, _ = elbo_and_gradient(vae, x, np.concatenate(vae.encode(x), axis=1), eps)
    np.testing.assert_allclose(got, vae.elbo(x, eps).elbo, rtol=1e-14)


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_the_best_q_that_is_found_is_the_best_there_is():
    vae, x, model = spoiled_linear_gaussian()
    found, best = best_posterior(vae, x), model.best_diagonal(x)
    lost = model.elbo(x, best) - model.elbo(x, found)
    assert lost.min() > -1e-12
    assert lost.max() < 2e-3
    assert (model.elbo(x, best) - model.elbo(x, vae.encode(x))).min() > 0.01, "the encoder was worse"
    np.testing.assert_allclose(found.mu, best.mu, atol=0.02)
    np.testing.assert_allclose(found.logvar, best.logvar, atol=0.05)


def test_the_gaps_are_those_of_the_closed_form():
    vae, x, model = spoiled_linear_gaussian()
    got = inference_gap(vae, x, "exact")
    q, best = model.elbo(x, vae.encode(x)), model.elbo(x, model.best_diagonal(x))
    exact = {
        "elbo": q,
        "best_elbo": best,
        "inference_gap": model.log_evidence(x) - q,
        "approximation_gap": np.full(len(x), model.gap),
        "amortization_gap": best - q,
    }
    for name, value in exact.items():
        distance = np.abs(getattr(got, name) - value)
        assert (distance < 4 * getattr(got.standard_error, name) + 2e-3).all(), name
        assert getattr(got.standard_error, name).max() < 0.1, name


def test_error_bars_of_both_bounds_have_the_right_size():
    vae, x, model = spoiled_linear_gaussian(rows=60)
    got = inference_gap(vae, x, "exact", num_samples=640, num_steps=100)
    exact = {"elbo": model.elbo(x, vae.encode(x)), "best_elbo": model.elbo(x, got.best)}
    exact["amortization_gap"] = exact["best_elbo"] - exact["elbo"]
    for name, value in exact.items():
        error = (getattr(got, name) - value) / getattr(got.standard_error, name)
        assert 0.7 < np.sqrt(np.mean(error**2)) < 1.3, name


def test_where_q_is_the_posterior_there_is_no_gap():
    vae, x, log_evidence = linear_gaussian()
    got = inference_gap(vae, x, "exact", num_steps=400)
    np.testing.assert_allclose(got.elbo, log_evidence, rtol=1e-12)
    for name in ("amortization_gap", "approximation_gap"):
        assert np.abs(getattr(got, name)).max() < 2e-3, name
    np.testing.assert_allclose(got.inference_gap, 0, atol=1e-11)


@pytest.mark.parametrize("method", ["importance", "exact", "prior"])
def test_the_parts_add_up_whatever_log_evidence_comes_from(method):
    vae, x, _ = spoiled_linear_gaussian(rows=5)
    got = inference_gap(vae, x, method, num_samples=500, num_steps=50)
    options = {"head": np.concatenate(got.best, axis=1)} if method == "importance" else {}
    np.testing.assert_array_equal(got.log_evidence, sv.log_evidence(vae, x, method, 500, **options).log_evidence)
    np.testing.assert_allclose(got.inference_gap, got.approximation_gap + got.amortization_gap, atol=1e-12)
    np.testing.assert_allclose(got.inference_gap, got.log_evidence - got.elbo, atol=1e-12)


def test_an_encoder_that_is_far_off_does_not_make_the_gap_of_the_family_negative():
    vae, x, model = spoiled_linear_gaussian(rows=20)
    vae.parameters["encoder.head.bias"][...] += 3.0  # means, and log-variances
    got = inference_gap(vae, x, "importance", num_samples=1000)
    distance = got.approximation_gap - (model.log_evidence(x) - model.elbo(x, got.best))
    error = got.standard_error.approximation_gap
    assert (np.abs(distance) < 5 * error).all()
    assert np.median(error) < 0.1
    assert (got.approximation_gap > -4 * error).all()
    of_q = sv.log_evidence(vae, x, "importance", 1000)  # the control: the same samples, from the encoder's q
    assert (of_q.log_evidence - model.log_evidence(x)).min() < -5 < -5 * error.max()


def test_the_encoders_q_is_kept_where_the_search_finds_nothing_better():
    vae, x, _ = spoiled_linear_gaussian()
    model = LinearGaussian.from_vae(vae)
    kept = gap_module._compare(vae, x, np.full((len(x), 6), 3.0), np.arange(len(x)), 640, 0)  # a q far from all
    np.testing.assert_array_equal(kept.best_elbo, kept.elbo)
    np.testing.assert_array_equal(kept.difference_error, 0)
    np.testing.assert_array_equal(kept.best_head, np.concatenate(vae.encode(x), axis=1))
    assert (model.elbo(x, vae.encode(x)) > model.elbo(x, sv.Gaussian(*np.full((2, len(x), 3), 3.0)))).all()


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson"])  # whose encoder reads logarithms
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_the_answer_is_a_mean_over_the_path(num_steps, likelihood):
    """Of a path that stays where it begins."""
    vae, x, _ = build(likelihood=likelihood)
    found = best_posterior(vae, x, num_steps=num_steps, learning_rate=1e-100)
    for got, want in zip(found, vae.encode(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-14)


def test_steps_are_counted_from_one_and_their_rate_falls_in_even_steps_to_nothing(plant):
    vae, x, _ = build()
    true, seen = vae.ops.adam_update, []

    def adam_update(parameters, gradient, first, second, step, learning_rate):
        seen.append((step, learning_rate))
        true(parameters, gradient, first, second, step, learning_rate)

    plant("adam_update", adam_update)
    best_posterior(vae, x, num_steps=4, learning_rate=0.4)
    np.testing.assert_allclose(seen, [(1, 0.4), (2, 0.3), (3, 0.2), (4, 0.1)], rtol=1e-14)


def test_one_noise_for_all_steps_would_lose_more(monkeypatch):
    vae, x, model = spoiled_linear_gaussian()
    best = model.elbo(x, model.best_diagonal(x))
    lost = (best - model.elbo(x, best_posterior(vae, x))).mean()
    monkeypatch.setattr(
        gap_module, "opposite_normals", lambda vae, seed, step, *rest: opposite_normals(vae, 0, 1, *rest)
    )
    assert (best - model.elbo(x, best_posterior(vae, x))).mean() > 5 * lost


# --- a trained model, and the order of all bounds ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(digits: tuple[NDArray, NDArray]) -> tuple[sv.VAE, NDArray]:
    """A model with two latent dimensions after some epochs of the 8x8 digits, and held-out digits, all binary."""
    train, held_out = ((images > 0.5).astype(np.float64) for images in digits)
    vae = sv.VAE(64, 2, (32,), activation="tanh", dtype="float64", engine="reference")
    sv.fit(vae, train, epochs=15, learning_rate=3e-3, progress=False)
    return vae, held_out


def mean_bound(vae: sv.VAE, x: NDArray, num_samples: int, repeats: int = 1) -> NDArray:
    """L_K of every example, its mean over so many independent draws."""
    seeds = range(100 * num_samples, 100 * num_samples + repeats)
    return np.mean([sv.log_evidence(vae, x, num_samples=num_samples, seed=seed).log_evidence for seed in seeds], axis=0)


def is_not_above(lower: NDArray, higher: NDArray) -> bool:
    """Whether the mean of `lower` is at most that of `higher`, give or take two standard errors of the difference."""
    difference = higher - lower
    return difference.mean() > -2 * difference.std(ddof=1) / np.sqrt(difference.size)


@pytest.mark.slow
def test_bounds_are_in_order_within_their_standard_errors(trained):
    vae, x = trained
    x = x[:60]
    bounds = [mean_bound(vae, x, k, repeats) for k, repeats in ((1, 20), (5, 20), (50, 5), (5000, 1))]
    bounds.append(sv.log_evidence(vae, x, "quadrature").log_evidence)
    assert all(is_not_above(lower, higher) for lower, higher in zip(bounds, bounds[1:], strict=False))
    assert not is_not_above(bounds[1], bounds[0]), "there is a gap to see, and the test can fail"


@pytest.mark.slow
def test_the_trained_models_gap_has_two_parts_that_are_not_negative(trained):
    vae, x = trained
    x = x[:30]
    got = inference_gap(vae, x, "quadrature", num_samples=2000, num_steps=200)
    for name in ("amortization_gap", "approximation_gap"):
        gap, error = getattr(got, name), getattr(got.standard_error, name)
        assert (gap >= -4 * error).all(), name
        assert gap.mean() > 5 * np.sqrt(np.square(error).mean() / len(x)), name
    exact = integrate(vae, x)
    error = (got.inference_gap - exact.kl_to_posterior) / got.standard_error.inference_gap
    assert np.abs(error).max() < 5
    assert 0.5 < np.sqrt(np.mean(error**2)) < 1.5


def test_integration_agrees_with_annealing_on_the_trained_model(trained):
    vae, x = trained
    exact = sv.log_evidence(vae, x[:10], "quadrature").log_evidence
    got = sv.log_evidence(vae, x[:10], "ais", num_temperatures=100, num_leapfrog=5)
    assert (np.abs(got.log_evidence - exact) < 5 * got.standard_error).all()


# --- what results are a function of -----------------------------------------------------------------------------------


def test_a_row_is_split_alike_in_any_number_of_rows():
    vae, x, _ = build(rows=9, engine="compiled", dtype="float32")
    whole, part = (inference_gap(vae, rows, num_samples=64, num_steps=20) for rows in (x, x[:4]))
    for name in ("elbo", "best_elbo", "log_evidence"):
        np.testing.assert_array_equal(getattr(whole, name)[:4], getattr(part, name))
        assert getattr(whole, name).dtype == np.float64
    np.testing.assert_array_equal(whole.best.mu[:4], part.best.mu)


def test_a_row_is_split_alike_in_any_number_of_blocks(monkeypatch):
    vae, x, _ = build(rows=5)
    whole = inference_gap(vae, x, num_samples=64, num_steps=20)
    monkeypatch.setattr("scratchvae.evidence.annealed.BLOCK_NUMBERS", 2 * 5 * 64)  # two rows of 64 samples
    blocks = inference_gap(vae, x, num_samples=64, num_steps=20)
    for name in ("elbo", "best_elbo", "log_evidence"):
        np.testing.assert_allclose(getattr(whole, name), getattr(blocks, name), rtol=1e-12)
    np.testing.assert_allclose(whole.best.mu, blocks.best.mu, rtol=1e-9)


@pytest.mark.parametrize("method", ["importance", "prior"])
def test_the_seed_is_that_of_the_search_of_both_bounds_and_of_log_evidence(method):
    vae, x, _ = spoiled_linear_gaussian(rows=4)
    first, again, other = (inference_gap(vae, x, method, 128, seed, num_steps=20) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.best_elbo, again.best_elbo)
    np.testing.assert_array_equal(first.best.logvar, best_posterior(vae, x, num_steps=20, seed=1).logvar)
    assert (first.best.logvar != other.best.logvar).all()
    assert (first.elbo != other.elbo).all(), "of one q, on other noise"
    options = {"head": np.concatenate(first.best, axis=1)} if method == "importance" else {}
    want = sv.log_evidence(vae, x, method, 128, seed=1, **options)
    np.testing.assert_array_equal(first.log_evidence, want.log_evidence)


def test_both_bounds_are_evaluated_on_noise_that_chose_nothing():
    vae, x, _ = build()
    got, rows = inference_gap(vae, x, num_samples=64, num_steps=5), np.arange(3)
    eps = opposite_normals(vae, 0, gap_module.EVALUATION_STEP, rows, 32)
    for elbo, q in ((got.elbo, vae.encode(x)), (got.best_elbo, got.best)):
        log_weights = vae.log_weights(x, np.concatenate(q, axis=1), eps)
        np.testing.assert_allclose(elbo, log_weights.mean(axis=1), rtol=1e-13)


def test_log_evidence_may_come_from_a_q_of_the_callers():
    vae, x, _ = build()
    head = vae.encoder_head(x) + 0.1
    got = inference_gap(vae, x, num_samples=64, num_steps=5, head=head)
    np.testing.assert_array_equal(got.log_evidence, sv.log_evidence(vae, x, num_samples=64, head=head).log_evidence)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "guess"}, "method is 'guess'"),
        ({"num_chains": 3}, "'num_chains' is no option of method 'importance'"),
        ({"head": np.ones((2, 4))}, r"head has shape \(2, 4\)"),
        ({"examples": [0.5, 1, 2]}, "examples has type float64"),
        ({"method": "ais", "head": np.ones((3, 4))}, "'head' is no option of method 'ais'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_search(monkeypatch, asked, message):
    vae, x, _ = build()
    monkeypatch.setattr(gap_module, "best_heads", lambda *_, **__: pytest.fail("the search has begun"))
    with pytest.raises(ValueError, match=message):
        inference_gap(vae, x, **asked)


def test_numbers_of_samples_are_rounded_up_to_whole_pairs_and_blocks():
    vae, x, _ = build()
    for asked, drawn in ((1, 2), (3, 4)):
        one, other = (best_posterior(vae, x, number, num_steps=5) for number in (asked, drawn))
        np.testing.assert_array_equal(one.mu, other.mu)
    one, other = (inference_gap(vae, x, num_samples=number, num_steps=5) for number in (65, 128))
    np.testing.assert_array_equal(one.elbo, other.elbo)


def test_noise_comes_in_opposite_pairs():
    eps = opposite_normals(build().vae, 0, 1, np.arange(3), 5)
    assert eps.shape == (3, 10, 2)
    np.testing.assert_array_equal(eps[:, :5], -eps[:, 5:])


def test_the_gap_prints_the_means_of_all_parts():
    vae, x, _ = build()
    text = str(inference_gap(vae, x, num_samples=64, num_steps=5))
    for name in ("log evidence", "elbo", "best elbo", "inference gap", "approximation gap", "amortization gap"):
        assert f"\n{name}" in text
    assert isinstance(inference_gap(vae, x, num_samples=64, num_steps=5), Gap)


def test_the_error_of_a_printed_mean_is_that_of_a_mean_of_independent_errors():
    errors = gap_module.GapErrors(*(number * np.array([3.0, 4.0]) for number in range(1, 7)))
    text = str(Gap(np.array([-1.0, -2.0]), np.array([-4.0, -4.0]), np.array([-3.0, -2.0]), errors, None))
    assert text.split("\n") == [
        "means over 2 examples, with the error of the estimates",
        "log evidence            -1.5000 ± 2.5000 nats",
        "elbo                    -4.0000 ± 5.0000 nats",
        "best elbo               -2.5000 ± 7.5000 nats",
        "inference gap            2.5000 ± 10.0000 nats",
        "approximation gap        1.0000 ± 12.5000 nats",
        "amortization gap         1.5000 ± 15.0000 nats",
    ]


def test_errors_of_log_evidence_and_of_a_bound_are_those_of_independent_numbers():
    vae, x, _ = build()
    errors = inference_gap(vae, x, num_samples=64, num_steps=5).standard_error
    assert (np.minimum(errors.log_evidence, errors.elbo) > 0).all()
    assert (errors.elbo != errors.best_elbo).all()
    np.testing.assert_allclose(errors.inference_gap**2, errors.log_evidence**2 + errors.elbo**2, rtol=1e-12)
    np.testing.assert_allclose(errors.approximation_gap**2, errors.log_evidence**2 + errors.best_elbo**2, rtol=1e-12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_gap_that_cannot_be_split_is_refused(asked, message):
    vae, x, _ = build()
    with pytest.raises(ValueError, match=message):
        inference_gap(vae, x, **asked)


@pytest.mark.parametrize("learning_rate", [-1, 0, np.nan, np.inf, "0.1"])
def test_a_learning_rate_that_is_not_positive_and_finite_is_refused(learning_rate):
    vae, x, _ = build()
    with pytest.raises(ValueError, match=f"learning_rate is {learning_rate!r}; expected"):
        best_posterior(vae, x, learning_rate=learning_rate)


def test_the_settings_that_hold_unless_others_are_asked_for():
    for function, settings in (
        (inference_gap, {"method": "importance", "num_samples": 5000, "seed": 0, "num_steps": 800}),
        (best_posterior, {"num_samples": 32, "num_steps": 800, "learning_rate": 0.1, "seed": 0}),
    ):
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in settings} == settings


def test_optimising_choosing_and_evaluating_never_share_noise():
    steps = sorted(value for name, value in vars(gap_module).items() if name.endswith("_STEP"))
    assert len(steps) == 3
    assert all(later - earlier >= 1 << 30 for earlier, later in zip(steps, steps[1:], strict=False))
    assert steps[0] >= 1 << 30, "what is below belongs to the estimators of log p(x)"
    assert steps[-1] + (1 << 30) <= 1 << 32, "an address has 32 bits for its step"
