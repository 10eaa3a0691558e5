"""Annealing: the gradient it follows, the dynamics it trusts, and both bounds against exact answers."""

import inspect

import numpy as np
import pytest
from numpy.typing import NDArray

import scratchvae as sv
from scratchvae.engine import processors, set_threads
from scratchvae.evidence import annealed
from scratchvae.evidence.annealed import (
    Annealing,
    Noise,
    Path,
    Run,
    Settings,
    annealed_importance,
    bidirectional,
    draw_joint,
    leapfrog,
    log_joint_and_gradient,
    sigmoid_schedule,
    transition,
)
from scratchvae.evidence.exact import LinearGaussian
from scratchvae.reference.random import Stream
from tests.cases import ACTIVATION_NAMES, LIKELIHOOD_NAMES, build, linear_gaussian, random_weights


def ten_latents(engine: str = "compiled", dtype: str = "float64", scale: float = 1.0) -> sv.VAE:
    """A linear-Gaussian model with ten latent dimensions and, as its encoder, the best diagonal q."""
    vae = random_weights(sv.VAE(20, 10, (), "gaussian", "identity", dtype, engine), np.random.default_rng(0), scale)
    model = LinearGaussian.from_vae(vae)
    to_mean = model.weight.T @ np.linalg.inv(model.precision)
    vae.parameters["encoder.head.weight"][...] = np.concatenate([to_mean, np.zeros_like(to_mean)], axis=1)
    bias = [-model.bias @ to_mean, -np.log(np.diag(model.precision))]
    vae.parameters["encoder.head.bias"][...] = np.concatenate(bias)
    return vae


def annealing(
    vae: sv.VAE, x: NDArray, num_chains: int = 8, num_temperatures: int = 50, start: str = "prior"
) -> Annealing:
    settings = Settings(num_chains, num_temperatures, 5, start)
    noise = Noise(vae, 0, np.arange(len(x)), num_chains)
    return Annealing(Path.of(vae, x, start), noise, settings, lambda: None)


def mean_and_error(values: NDArray) -> tuple[float, float]:
    return values.mean(), values.std(ddof=1) / np.sqrt(values.size)


# --- the gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("hidden", [(), (4, 3)])
def test_the_gradient_of_the_joint_for_z_is_its_complex_step(likelihood, activation, hidden):
    vae, x, z = build(hidden=hidden, likelihood=likelihood, activation=activation, samples=3)
    complex_vae = vae.with_parameters(vae.parameters.astype(np.complex128))
    log_joint, gradient = log_joint_and_gradient(vae, x, z)
    np.testing.assert_allclose(log_joint, vae.log_joint(x, z), rtol=1e-14)
    numeric = np.empty_like(z)
    for j in range(vae.latent_dim):
        moved = z.astype(np.complex128)
        moved[:, :, j] += 1e-30j
        numeric[:, :, j] = log_joint_and_gradient(complex_vae, x, moved)[0].imag / 1e-30
    assert np.linalg.norm(gradient - numeric) <= 1e-13 * np.linalg.norm(numeric)


def test_both_engines_give_the_same_joint_and_gradient():
    answers = []
    for engine in ("reference", "compiled"):
        vae, x, z = build(data_dim=9, latent_dim=3, hidden=(7, 5), engine=engine, rows=4, samples=5)
        answers.append(log_joint_and_gradient(vae, x, z))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11)


# --- the path and the dynamics ----------------------------------------------------------------------------------------


def test_the_schedule_rises_from_0_to_1_and_is_its_own_mirror_image():
    betas = sigmoid_schedule(101)
    assert betas[0] == 0
    assert betas[-1] == 1
    assert (np.diff(betas) > 0).all()
    np.testing.assert_allclose(betas + betas[::-1], 1, atol=1e-15)
    assert np.diff(betas)[50] > 10 * np.diff(betas)[0]
    np.testing.assert_array_equal(sigmoid_schedule(2), [0, 1])


@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_the_path_leads_from_the_start_to_the_joint(start):
    vae, x, z = build(samples=3)
    point = Path.of(vae, x, start).at(z)
    mu, logvar = vae.encode(x) if start == "encoder" else np.zeros((2, *x.shape[:1], 2))
    log_start, _ = vae.ops.gaussian_log_density_forward(z, mu, logvar)
    np.testing.assert_allclose(point.log_density(0.0), log_start, rtol=1e-13)
    np.testing.assert_allclose(point.log_density(1.0), vae.log_joint(x, z), rtol=1e-13)
    np.testing.assert_allclose(point.gradient(1.0), log_joint_and_gradient(vae, x, z)[1], rtol=1e-12)


def test_the_start_of_the_path_is_the_start_where_the_joint_is_zero():
    vae, x, z = build(likelihood="poisson", data_dim=2)
    vae.parameters["decoder.head.bias"][...] = 1000  # a rate beyond all numbers
    with np.errstate(over="ignore", invalid="ignore"):
        point = Path.of(vae, x, "prior").at(z)
    assert np.isneginf(point.log_ratio).all()
    np.testing.assert_array_equal(point.log_density(0.0), point.log_start)
    np.testing.assert_array_equal(point.gradient(0.0), -z)


def test_the_encoder_reads_what_the_likelihood_lets_it_read():
    vae, x, z = build(likelihood="poisson", samples=3)
    log_start, _ = vae.ops.gaussian_log_density_forward(z, *vae.encode(x))
    np.testing.assert_allclose(Path.of(vae, vae._batch(x), "encoder").at(z).log_start, log_start, rtol=1e-13)


def test_a_trajectory_run_backwards_returns_to_where_it_began():
    vae, x, z = build(samples=4)
    path, momentum = Path.of(vae, x, "prior"), np.random.default_rng(1).normal(size=z.shape)
    step = np.full((3, 4, 1), 0.3)
    there, end = leapfrog(path, path.at(z), momentum, 0.7, step, 10)
    back, start = leapfrog(path, there, -end, 0.7, step, 10)
    np.testing.assert_allclose(back.z, z, atol=1e-12)
    np.testing.assert_allclose(-start, momentum, atol=1e-12)
    assert np.abs(there.z - z).max() > 0.5


def test_a_trajectory_keeps_volume():
    vae, x, _ = build(rows=1)
    path, here = Path.of(vae, x, "prior"), np.array([0.3, -0.8, 0.5, 1.1])  # z and momentum
    jacobian = np.empty((4, 4))
    for column in range(4):
        ends = []
        for sign in (1, -1):
            state = here + sign * 1e-5 * np.eye(4)[column]
            point, momentum = leapfrog(
                path, path.at(state[None, None, :2]), state[None, None, 2:], 0.7, np.full((1, 1, 1), 0.4), 5
            )
            ends.append(np.concatenate([point.z.ravel(), momentum.ravel()]))
        jacobian[:, column] = (ends[0] - ends[1]) / 2e-5
    assert abs(np.linalg.det(jacobian) - 1) < 1e-8
    assert np.abs(jacobian - np.eye(4)).max() > 0.5


def test_the_energy_error_of_a_trajectory_falls_with_the_square_of_the_step():
    vae, x, z = build(samples=50)
    path, momentum = Path.of(vae, x, "prior"), np.random.default_rng(1).normal(size=z.shape)

    def error(step: float, count: int) -> float:
        point, end = leapfrog(path, path.at(z), momentum, 1.0, np.full((3, 50, 1), step), count)
        kinetic = 0.5 * (np.square(end).sum(axis=2) - np.square(momentum).sum(axis=2))
        return np.abs(path.at(z).log_density(1.0) - point.log_density(1.0) + kinetic).mean()

    assert 3.5 < error(0.2, 5) / error(0.1, 10) < 4.5


def posterior_after_transitions(chains: int = 4000) -> tuple[NDArray, NDArray]:
    """Whitened posterior samples of a linear-Gaussian model after 5 long-stepped transitions from exact samples."""
    vae, x, _ = linear_gaussian(orthogonal=False, rows=1)
    mean, covariance = LinearGaussian.from_vae(vae).posterior(x)
    root = np.linalg.cholesky(covariance)
    rng = np.random.default_rng(0)
    path = Path.of(vae, x, "prior")
    point = path.at(mean[:, None, :] + rng.normal(size=(1, chains, 3)) @ root.T)
    probabilities = []
    for _ in range(5):
        draws = rng.normal(size=point.z.shape), (rng.random((1, chains)), rng.random((1, chains)))
        point, probability = transition(path, point, 1.0, np.array([0.45]), 3, *draws)
        probabilities.append(probability)
    return np.linalg.solve(root, (point.z[0] - mean).T).T, np.array(probabilities)


def test_a_transition_leaves_the_posterior_as_it_is():
    white, probabilities = posterior_after_transitions()
    assert 0.3 < probabilities.mean() < 0.9, "steps long enough that rejection matters"
    assert np.abs(white.mean(axis=0)).max() < 4 / np.sqrt(4000)
    assert np.abs(np.cov(white.T) - np.eye(3)).max() < 5 * np.sqrt(2 / 4000)


def test_a_transition_that_accepts_everything_is_caught(monkeypatch):
    monkeypatch.setattr(annealed, "_choose", lambda accepted, proposed, point: proposed)
    white, _ = posterior_after_transitions()
    assert np.abs(np.cov(white.T) - np.eye(3)).max() > 10 * np.sqrt(2 / 4000)


def one_transition(uniform: float, jitter: float) -> tuple[NDArray, NDArray]:
    """Where three examples with four chains each go from z, and z; steps so long that some are rejected."""
    vae, x, z = build(samples=4)
    path, momentum = Path.of(vae, x, "prior"), np.random.default_rng(1).normal(size=z.shape)
    uniforms = np.full((3, 4), uniform), np.full((3, 4), jitter)
    point, probability = transition(path, path.at(z), 1.0, np.full(3, 0.8), 3, momentum, uniforms)
    assert 0 < probability.min() < 1
    return point.z, z


def test_the_first_uniform_number_accepts():
    for jitter in (0.3, 0.6):
        moved, z = one_transition(0.0, jitter)
        assert (moved != z).all()
        stayed, z = one_transition(1.0, jitter)
        np.testing.assert_array_equal(stayed, z)


def test_the_second_uniform_number_makes_a_step_up_to_half_shorter_or_longer():
    vae, x, z = build(samples=3)
    path, momentum = Path.of(vae, x, "prior"), np.ones_like(z)
    jitter = np.tile([0.0, 0.5, 1.0], (3, 1))
    moved, _ = transition(path, path.at(z), 1.0, np.full(3, 1e-3), 1, momentum, (np.zeros((3, 3)), jitter))
    want, _ = leapfrog(path, path.at(z), momentum, 1.0, np.array([0.5e-3, 1e-3, 1.5e-3])[None, :, None], 1)
    np.testing.assert_allclose(moved.z, want.z, rtol=1e-14)


def test_a_trajectory_that_overflows_is_rejected():
    vae, x, z = build(likelihood="gaussian", samples=4, hidden=())
    walks = annealing(vae, x, num_chains=4)
    point, probability = walks._move(walks.path.at(z), 1.0, np.full(3, 1e200), Run.UPWARDS, 1)
    np.testing.assert_array_equal(point.z, z)
    np.testing.assert_array_equal(probability, 0)


# --- the lower bound --------------------------------------------------------------------------------------------------


def test_two_temperatures_are_importance_sampling_from_the_start():
    vae, x, _ = build(rows=4)
    z = Noise(vae, 0, np.arange(4), 50).start(Run.UPWARDS)
    log_prior = -0.5 * (np.log(2 * np.pi) + z**2).sum(axis=2)
    weights = np.exp(vae.log_joint(x, z) - log_prior)
    got = annealed_importance(vae, x, num_chains=50, num_temperatures=2)
    np.testing.assert_allclose(got.log_evidence, np.log(weights.mean(axis=1)), rtol=1e-12)


@pytest.mark.parametrize("num_temperatures", [2, 3, 40])
def test_every_weight_is_the_evidence_where_the_start_is_the_posterior(engine, num_temperatures):
    vae, x, log_evidence = linear_gaussian(engine)
    got = annealed_importance(vae, x, 5, num_temperatures, 3, "encoder")
    np.testing.assert_allclose(got.log_evidence, log_evidence, rtol=1e-12)
    np.testing.assert_allclose(got.effective_sample_size, 5, rtol=1e-12)
    both = bidirectional(vae, 3, 5, num_temperatures, 3, "encoder")
    np.testing.assert_allclose(both.lower, both.upper, rtol=1e-12)


@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_the_estimate_is_within_its_error_bars_of_the_exact_answer(start):
    vae, x, log_evidence = linear_gaussian(orthogonal=False, rows=40)
    got = annealed_importance(vae, x, 64, 60, 5, start)
    error = (got.log_evidence - log_evidence) / got.standard_error
    assert np.abs(error).max() < 5
    assert 0.6 < np.sqrt(np.mean(error**2)) < 1.6, "error bars of the right size"
    assert got.standard_error.max() < 0.2


def test_annealing_and_importance_sampling_agree_for_a_bernoulli():
    vae, x, _ = build(data_dim=8, rows=6, hidden=(5,))
    first = annealed_importance(vae, x, 64, 60, 5)
    second = sv.log_evidence(vae, x, num_samples=20_000)
    distance = np.abs(first.log_evidence - second.log_evidence)
    assert (distance < 5 * np.hypot(first.standard_error, second.standard_error)).all()


def test_slower_annealing_is_a_tighter_bound_from_either_side():
    vae = ten_latents()
    fast, slow = (bidirectional(vae, 40, 4, temperatures, 5) for temperatures in (5, 200))
    for bounds in (fast, slow):
        mean, error = bounds.gap
        assert mean > 3 * error
    assert slow.lower.mean() > fast.lower.mean() + 5
    assert slow.upper.mean() < fast.upper.mean() - 1
    assert slow.gap[0] < 0.2 * fast.gap[0]


@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_frozen_step_sizes_are_accepted_as_often_as_the_pilot_was_tuned_to(start):
    bounds = bidirectional(ten_latents(scale=0.6), 8, 16, 250, 10, start)
    assert np.abs(bounds.acceptance - 0.65).max() < 0.06


def test_step_sizes_are_frozen_before_the_run_that_counts():
    vae, x, _ = build(rows=3)
    walks = annealing(vae, vae._batch(x))
    step_sizes = walks.tune()
    assert step_sizes.shape == (50, 3)
    kept = step_sizes.copy()
    walks.upwards(step_sizes)
    np.testing.assert_array_equal(step_sizes, kept)


@pytest.mark.parametrize("count", [3, 4, 9, 250])
def test_step_sizes_between_those_of_the_pilot_lie_between_them(count):
    columns = np.random.default_rng(0).normal(size=(4, 2))
    got = annealed._interpolate(columns, count)
    for column, known in zip(got.T, columns.T, strict=True):
        np.testing.assert_allclose(column, np.interp(np.linspace(0, 3, count), np.arange(4), known), rtol=1e-12)


# --- both bounds ------------------------------------------------------------------------------------------------------


def check_bounds(bounds: annealed.Bounds, log_evidence: NDArray, tolerance: float) -> None:
    """lower <= exact <= upper in the mean, both within the tolerance, give or take two standard errors."""
    below, below_error = mean_and_error(log_evidence - bounds.lower)
    above, above_error = mean_and_error(bounds.upper - log_evidence)
    assert max(below_error, above_error) < tolerance / 2, "errors small enough to decide"
    assert -2 * below_error < below < tolerance
    assert -2 * above_error < above < tolerance


@pytest.mark.slow
def test_the_exact_answer_lies_between_bounds_within_a_twentieth_of_a_nat():
    vae = ten_latents()
    bounds = bidirectional(vae, 16, 16, 1000, 5, "encoder")
    x, _ = draw_joint(vae, 16, 0)
    check_bounds(bounds, LinearGaussian.from_vae(vae).log_evidence(x), 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_exact_answer_lies_between_bounds_that_start_at_the_prior(dtype):
    vae = ten_latents(dtype=dtype)
    bounds = bidirectional(vae, 128, 16, 1000, 10)
    x, _ = draw_joint(vae, 128, 0)
    check_bounds(bounds, LinearGaussian.from_vae(vae).log_evidence(x), 0.05)


@pytest.mark.slow
def test_bounds_of_a_bernoulli_enclose_its_importance_estimate():
    vae, _, _ = build(data_dim=8, hidden=(5,))
    bounds = bidirectional(vae, 30, 32, 60, 5)
    x, _ = draw_joint(vae, 30, 0)
    log_evidence = sv.log_evidence(vae, x, num_samples=20_000).log_evidence
    check_bounds(bounds, log_evidence, 0.05)


def test_simulated_data_are_the_models_samples_and_their_z_made_them():
    vae, _, _ = build(likelihood="gaussian", data_dim=30)
    x, z = draw_joint(vae, 500, 3)
    np.testing.assert_array_equal(x, vae.sample(500, seed=3))
    noise = x - vae.decode(z)
    assert abs(noise.std() - 1) < 0.03
    assert abs(noise.mean()) < 0.03


def test_the_lower_bound_and_its_error_are_those_of_annealing_from_below():
    vae, _, _ = build()
    bounds, (x, _) = bidirectional(vae, 4, 3, 8, 2, seed=5), draw_joint(vae, 4, 5)
    lower = annealed_importance(vae, x, 3, 8, 2, seed=5)
    np.testing.assert_array_equal(bounds.lower, lower.log_evidence)
    np.testing.assert_array_equal(bounds.lower_error, lower.standard_error)
    assert (bounds.upper_error != bounds.lower_error).all()
    walks = annealed._annealing(vae, x, np.arange(4), Settings(3, 8, 2, "prior"), 5, lambda: None)
    np.testing.assert_array_equal(bounds.acceptance[:, 0], walks.upwards(walks.tune()).acceptance)
    assert (bounds.acceptance[:, 0] != bounds.acceptance[:, 1]).any()


def test_without_a_transition_there_is_no_acceptance():
    assert np.isnan(bidirectional(build().vae, 3, 2, num_temperatures=2).acceptance).all()


def test_bounds_print_both_means_with_their_errors():
    lower, upper = np.array([-3.0, -1.0, -2.0, -2.0]), np.array([-1.0, 0.0, -1.0, 0.0])
    error, gaps = np.ones(4), (upper - lower).std(ddof=1) / 2
    text = str(annealed.Bounds(lower, upper, error, error, np.ones((4, 2))))
    assert text.split("\n") == [
        "mean log p(x) of 4 simulated examples",
        f"lower bound         -2.0000 ± {np.sqrt(2 / 3) / 2:.4f} nats",
        f"upper bound         -0.5000 ± {np.sqrt(1 / 3) / 2:.4f} nats",
        f"upper - lower        1.5000 ± {gaps:.4f} nats",
    ]


def test_the_error_of_a_mean_of_one_is_not_known():
    assert bidirectional(build().vae, 1, 2, 5, 2).gap[1] == np.inf


# --- what results are a function of -----------------------------------------------------------------------------------


def test_a_row_is_estimated_alike_in_any_number_of_rows_and_blocks(monkeypatch):
    vae, x, _ = build(rows=9, engine="compiled", dtype="float32", data_dim=11, latent_dim=3)
    whole = annealed_importance(vae, x, 6, 30, 4)
    part = annealed_importance(vae, x[:4], 6, 30, 4)
    monkeypatch.setattr(annealed, "BLOCK_NUMBERS", 2 * 6 * 11)
    blocks = annealed_importance(vae, x, 6, 30, 4)
    for name, value in whole._asdict().items():
        np.testing.assert_array_equal(value[:4], getattr(part, name))
        np.testing.assert_array_equal(value, getattr(blocks, name))


def test_both_bounds_of_a_row_are_the_same_in_any_number_of_blocks(monkeypatch):
    vae, _, _ = build(data_dim=5)
    whole = bidirectional(vae, 5, 3, 8, 2)
    monkeypatch.setattr(annealed, "BLOCK_NUMBERS", 2 * 3 * 5)
    blocks = bidirectional(vae, 5, 3, 8, 2)
    for one, other in zip(vars(whole).values(), vars(blocks).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)


@pytest.mark.skipif(processors() < 2, reason="one processor")
def test_the_number_of_threads_changes_no_bit():
    vae, x, _ = build(rows=20, engine="compiled", dtype="float32", data_dim=100, hidden=(64,), latent_dim=3)
    answers = []
    for threads in (1, 2):
        set_threads(threads)
        answers.append(annealed_importance(vae, x, 16, 20, 3))
    np.testing.assert_array_equal(answers[0].log_evidence, answers[1].log_evidence)


def test_the_estimate_is_a_function_of_the_seed():
    vae, x, _ = build()
    first, same, other = (annealed_importance(vae, x, 4, 10, 2, seed=seed).log_evidence for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()


def test_pilot_and_both_walks_draw_different_numbers():
    vae, _, _ = build()
    noise = Noise(vae, 0, np.arange(3), 4)
    for draw in (noise.start, lambda run: noise.momentum(run, 1), lambda run: noise.uniforms(run, 1)[0]):
        pilot, up, down = (draw(run) for run in Run)
        assert (pilot != up).all()
        assert (up != down).all()


def test_the_numbers_of_a_transition_are_those_of_its_address():
    """Results of other machines and of earlier versions can be had again as long as no address moves."""
    vae, _, _ = build()
    rows, step = np.array([5, 2]), 2 * 2**24 + 7
    noise = Noise(vae, 9, rows, 4)
    want = vae.ops.normals(9, Stream.MOMENTUM, step, rows, 8).reshape(2, 4, 2)
    np.testing.assert_array_equal(noise.momentum(Run.UPWARDS, 7), want)
    pairs = vae.ops.uniforms(9, Stream.ACCEPTANCE, step, rows, 8).reshape(2, 4, 2)
    for got, number in zip(noise.uniforms(Run.UPWARDS, 7), (0, 1), strict=True):
        np.testing.assert_array_equal(got, pairs[:, :, number])


def test_so_many_temperatures_that_two_runs_would_share_addresses_are_refused():
    with pytest.raises(ValueError, match=r"fewer than 2\^24"):
        sigmoid_schedule(2**24)
    vae, x, _ = build()
    done: list[int] = []
    with pytest.raises(ValueError, match=r"fewer than 2\^24"):
        annealed_importance(vae, x, num_temperatures=2**24, watch=lambda *counts: done.extend(counts))
    assert not done, "before anything is computed"


@pytest.mark.parametrize(("walks", "temperatures"), [(1, 8), (2, 8), (1, 300), (2, 300)])
def test_progress_counts_every_transition(walks, temperatures):
    vae, x, _ = build(rows=3)
    seen: list[tuple[int, int]] = []
    estimate = bidirectional if walks == 2 else annealed_importance
    estimate(vae, 3 if walks == 2 else x, 2, temperatures, 1, watch=lambda done, total: seen.append((done, total)))
    total = 30 + min(temperatures, 200) + walks * (temperatures - 2)  # the pilot's, and those of each walk
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_num_samples_are_chains_times_temperatures():
    vae, x, _ = build()
    got = annealed.ais_evidence(vae, x, 160, 0, num_leapfrog=2)
    np.testing.assert_array_equal(got.log_evidence, annealed_importance(vae, x, 16, 10, 2).log_evidence)
    same = sv.log_evidence(vae, x, "ais", num_samples=160, num_leapfrog=2)
    np.testing.assert_array_equal(got.log_evidence, same.log_evidence)
    options = {"num_chains": 3, "num_temperatures": 7, "num_leapfrog": 2, "start": "encoder"}
    same = sv.log_evidence(vae, x, "ais", **options)
    np.testing.assert_array_equal(annealed_importance(vae, x, **options).log_evidence, same.log_evidence)
    fewest = annealed.ais_evidence(vae, x, 5, 0)
    np.testing.assert_array_equal(fewest.log_evidence, annealed_importance(vae, x, 16, 2).log_evidence)
    given = annealed.ais_evidence(vae, x, 160, 0, num_chains=3, num_temperatures=7, num_leapfrog=2)
    np.testing.assert_array_equal(given.log_evidence, annealed_importance(vae, x, 3, 7, 2).log_evidence)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_chains": 0}, "num_chains is 0"),
        ({"num_temperatures": 1}, "num_temperatures is 1; expected at least 2"),
        ({"num_leapfrog": 0}, "num_leapfrog is 0"),
        ({"start": "nowhere"}, "start is 'nowhere'; expected one of prior, encoder"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_annealing_that_cannot_be_done_is_refused(asked, message):
    vae, x, _ = build()
    with pytest.raises(ValueError, match=message):
        annealed_importance(vae, x, **asked)
    with pytest.raises(ValueError, match=message):
        bidirectional(vae, 2, **asked)


def test_bounds_of_no_example_are_refused():
    with pytest.raises(ValueError, match="n is 0; expected a whole number of at least 1"):
        bidirectional(build().vae, 0)


@pytest.mark.parametrize("num_chains", [0, -1, 2.5, "4"])
def test_a_number_of_chains_that_cannot_be_is_named_before_it_divides(num_chains):
    vae, x, _ = build()
    with pytest.raises(ValueError, match=f"num_chains is {num_chains!r}; expected a whole number of at least 1"):
        sv.log_evidence(vae, x, "ais", num_chains=num_chains)


def test_the_settings_that_hold_unless_others_are_asked_for():
    for estimator in (annealed_importance, bidirectional):
        settings = inspect.signature(estimator).parameters
        names = "num_chains", "num_temperatures", "num_leapfrog", "start", "seed"
        assert [settings[name].default for name in names] == [16, 1000, 10, "prior", 0]
