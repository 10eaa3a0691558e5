"""Integration over z: exact where the answer is known, consistent where it is not, and honest where it is hard."""

import inspect
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

import scratchvae as sv
from scratchvae.evidence import quadrature
from scratchvae.evidence.exact import LinearGaussian
from scratchvae.evidence.quadrature import (
    Frame,
    Quadrature,
    Region,
    gauss_between,
    integrate,
    integrate_evidence,
    line_kinks,
    posterior_on_grid,
)
from scratchvae.reference.gaussian import kl_to_prior_forward
from tests.cases import build, linear_gaussian

BAR = 1e-10  # nats
KINKED = {"activation": "relu", "hidden": (3,)}


def with_variance(vae: sv.VAE, variance: float) -> sv.VAE:
    vae.parameters["likelihood.logvar"][...] = np.log(variance)
    return vae


def log_evidence_by_brute_force(vae: sv.VAE, x: NDArray, half: float, count: int = 400_001) -> NDArray:
    """log p(x) for Z = 1, by the trapezoidal rule on a very fine grid."""
    z, spacing = np.linspace(-half, half, count, retstep=True)
    log_joint = vae.log_joint(x, np.broadcast_to(z[:, None], (len(x), count, 1)))
    return np.logaddexp.reduce(log_joint, axis=1) + np.log(spacing)


# --- against closed forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orthogonal", [True, False])
def test_on_the_linear_gaussian_model_every_number_is_exact(orthogonal):
    vae, x, log_evidence = linear_gaussian(orthogonal=orthogonal)
    vae.parameters["encoder.head.weight"][...] *= 0.9  # so that q is not the posterior
    got, exact, q = integrate(vae, x), LinearGaussian.from_vae(vae), vae.encode(x)
    assert got.converged.all()
    np.testing.assert_allclose(got.log_evidence, log_evidence, rtol=0, atol=BAR)
    np.testing.assert_allclose(got.elbo, exact.elbo(x, q), rtol=0, atol=BAR)
    np.testing.assert_allclose(got.kl_to_posterior, exact.kl_to_posterior(x, q), rtol=0, atol=BAR)
    np.testing.assert_allclose(got.posterior_mean, exact.posterior(x).mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(got.posterior_covariance - exact.posterior(x).covariance, 0, atol=1e-8)


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.parametrize("variance", [1e-2, 1e-7])
def test_a_posterior_much_sharper_than_the_first_lattice_is_found(latent_dim, variance):
    vae, _, _ = build(latent_dim=latent_dim, hidden=(), likelihood="gaussian-learned")
    vae = with_variance(vae, variance)
    x = vae.decode(np.random.default_rng(0).normal(size=(3, latent_dim))) + np.sqrt(variance)
    got = integrate(vae, x, tolerance=1e-9)  # a thousand standard deviations of q away, the ELBO itself is -1e7
    np.testing.assert_allclose(got.log_evidence, LinearGaussian.from_vae(vae).log_evidence(x), rtol=0, atol=1e-9)


def test_a_posterior_outside_the_first_lattice_is_found():
    vae, _, _ = build(latent_dim=2, hidden=(), likelihood="gaussian-learned")
    vae = with_variance(vae, 1e-3)
    x = vae.decode(np.array([[25.0, -14.0], [3.0, 31.0]]))
    got = integrate(vae, x)
    np.testing.assert_allclose(got.log_evidence, LinearGaussian.from_vae(vae).log_evidence(x), rtol=1e-12, atol=BAR)


def test_a_posterior_that_is_the_prior_gives_its_moments_and_no_kl():
    vae, x, _ = build(latent_dim=2, rows=2)
    vae.parameters["decoder.0.weight"][...] = 0
    vae.parameters["encoder.head.weight"][...] = 0
    vae.parameters["encoder.head.bias"][...] = 0
    got = integrate(vae, x)
    np.testing.assert_allclose(got.posterior_mean, 0, atol=1e-10)
    np.testing.assert_allclose(got.posterior_covariance, np.tile(np.eye(2), (2, 1, 1)), atol=1e-10)
    np.testing.assert_allclose(got.kl_to_posterior, 0, atol=BAR)
    np.testing.assert_allclose(got.elbo, got.log_evidence, rtol=0, atol=BAR)


# --- the identity, for any decoder ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"latent_dim": 1},
        {"latent_dim": 1, "likelihood": "gaussian-learned-diagonal", "activation": "sigmoid"},
        {"latent_dim": 1, "activation": "relu", "hidden": (8,)},
        {"latent_dim": 1, "activation": "relu", "hidden": (6, 5)},
        {"latent_dim": 2},
        {"latent_dim": 2, "likelihood": "gaussian", "activation": "softplus"},
        {"latent_dim": 2, "hidden": (4, 3)},
        {"latent_dim": 2, **KINKED},
        {"latent_dim": 3, "activation": "sigmoid", "rows": 1},
    ],
    ids=str,
)
def test_log_evidence_is_elbo_plus_kl_to_the_posterior(arguments):
    vae, x, _ = build(**arguments)
    got = integrate(vae, x)
    assert got.converged.all()
    assert np.abs(got.residual).max() <= BAR
    assert (got.error <= BAR).all()
    assert (got.error >= np.abs(got.residual)).all()
    assert (got.kl_to_posterior > 0).all()


def test_the_elbo_agrees_with_the_closed_form_of_its_kl_and_with_sampling():
    vae, x, _ = build(latent_dim=2)
    q, got = vae.encode(x), integrate(vae, x)
    eps = np.random.default_rng(0).normal(size=(len(x), 100_000, 2))
    z = q.mu[:, None] + np.exp(q.logvar / 2)[:, None] * eps
    log_likelihood = vae.log_joint(x, z) + 0.5 * np.square(z).sum(axis=2) + np.log(2 * np.pi)
    error = log_likelihood.std(axis=1) / np.sqrt(eps.shape[1])
    want = log_likelihood.mean(axis=1) - kl_to_prior_forward(*q)[0]
    assert (np.abs(got.elbo - want) < 5 * error).all()


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_moving_the_encoder_leaves_log_p_x_where_it_is(latent_dim):
    vae, x, _ = build(latent_dim=latent_dim)
    before = integrate(vae, x)
    for name in ("encoder.0.weight", "encoder.head.weight", "encoder.head.bias"):
        vae.parameters[name][...] *= 0.7
    after = integrate(vae, x)
    assert np.abs(after.log_evidence - before.log_evidence).max() <= BAR
    assert (np.abs(after.elbo - before.elbo) > 1e-3).all(), "the ELBO does move"
    vae.parameters["decoder.head.bias"][...] += 0.1
    assert (np.abs(integrate(vae, x).log_evidence - before.log_evidence) > 1e-3).all(), "and theta moves log p(x)"


def test_probabilities_of_all_binary_vectors_sum_to_one():
    vae, _, _ = build(data_dim=4, latent_dim=1)
    x = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T
    np.testing.assert_allclose(np.exp(integrate(vae, x).log_evidence).sum(), 1, rtol=1e-10)


def test_sampling_agrees():
    vae, x, _ = build(latent_dim=2)
    estimate = sv.log_evidence(vae, x, num_samples=20_000)
    assert (np.abs(estimate.log_evidence - integrate(vae, x).log_evidence) < 5 * estimate.standard_error).all()


def test_examples_are_integrated_alike_in_any_number_of_rows():
    vae, x, _ = build(latent_dim=1, rows=40)
    whole, part = integrate(vae, x), integrate(vae, x[35:])
    np.testing.assert_allclose(whole.log_evidence[35:], part.log_evidence, rtol=0, atol=BAR)


def test_an_example_without_an_answer_leaves_its_neighbours_theirs():
    vae, x, _ = build(latent_dim=1, hidden=(), likelihood="gaussian")
    alone = integrate(vae, x)
    with np.errstate(over="ignore", invalid="ignore"):
        got = integrate(vae, np.insert(x, 1, 1e200, axis=0))  # whose square is no number
    assert np.isnan(got.log_evidence[1])
    for with_it, without in zip(got, alone, strict=True):
        np.testing.assert_array_equal(np.delete(with_it, 1, axis=0), without)


@pytest.mark.parametrize("integral", [integrate, integrate_evidence])
def test_whoever_watches_is_told_of_every_example(integral):
    vae, x, _ = build(latent_dim=1)
    seen: list[tuple[int, int]] = []
    integral(vae, x, watch=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# --- shapes that are hard ---------------------------------------------------------------------------------------------


def two_sided(variance: float) -> tuple[sv.VAE, NDArray]:
    """x = |z|, nearly, seen with little noise: p(z|x) has two narrow modes."""
    vae = sv.VAE(1, 1, (2,), "gaussian-learned", "softplus", "float64", "reference")
    vae.parameters["decoder.0.weight"][...] = [[4.0, -4.0]]
    vae.parameters["decoder.head.weight"][...] = 0.25
    return with_variance(vae, variance), np.array([[1.3], [0.9]])


@pytest.mark.parametrize("variance", [1e-2, 1e-4, 1e-6])
def test_both_of_two_narrow_modes_are_counted(variance):
    vae, x = two_sided(variance)
    got = integrate(vae, x)
    want = log_evidence_by_brute_force(vae, x, half=4)
    np.testing.assert_allclose(got.log_evidence, want, rtol=0, atol=1e-9)
    np.testing.assert_allclose(got.posterior_mean, 0, atol=1e-6)
    assert (got.posterior_covariance[:, 0, 0] > 0.5).all(), "the spread is between the modes"


def valley(slope: float, deviation: float) -> sv.VAE:
    """x = z to the right of 0 and -slope z to the left, seen with this noise: p(z|x) has a mode on either side."""
    vae = sv.VAE(1, 1, (2,), "gaussian-learned", "relu", "float64", "reference")
    vae.parameters["decoder.0.weight"][...] = [[1.0, -1.0]]
    vae.parameters["decoder.0.bias"][...] = 0
    vae.parameters["decoder.head.weight"][...] = [[1.0], [slope]]
    return with_variance(vae, deviation**2)


@pytest.mark.parametrize(
    ("slope", "deviation", "want"),
    [(0.24, 0.3, -1.2880816941439923), (0.25, 0.1, -1.4127899601706677), (0.28, 0.05, -1.4070156549219903)],
)
def test_a_small_mode_far_from_the_large_one_is_counted(slope, deviation, want):
    """Its mass, 1 % and less, at up to 90 standard deviations; `want` is from scipy's adaptive quadrature."""
    got = integrate(valley(slope, deviation), np.array([[1.0]]))
    assert got.converged.all()
    np.testing.assert_allclose(got.log_evidence, want, rtol=0, atol=BAR)


def test_a_mode_ten_times_as_narrow_as_the_others_is_counted_where_the_lattice_sees_it():
    vae = sv.VAE(1, 1, (2,), "gaussian-learned", "tanh", "float64", "reference")
    vae.parameters["decoder.0.weight"][...] = [[0.5, -10.0]]
    vae.parameters["decoder.0.bias"][...] = [0.0, -7.0]
    vae.parameters["decoder.head.weight"][...] = 1
    vae.parameters["decoder.head.bias"][...] = 1
    vae, x = with_variance(vae, 0.03**2), np.array([[0.3]])
    got, want = integrate(vae, x), log_evidence_by_brute_force(vae, x, half=8)
    assert got.converged.all()
    np.testing.assert_allclose(got.log_evidence, want, rtol=0, atol=BAR)


def test_a_peak_too_far_to_widen_the_box_to_has_no_answer_and_it_says_so(monkeypatch):
    monkeypatch.setattr(quadrature, "LARGEST_BOX", 50.0)
    nodes, boxes = quadrature.BetweenKinks.nodes, []

    def seen(self, level, frame, region, limit):
        boxes.append(region.half)
        return nodes(self, level, frame, region, limit)

    monkeypatch.setattr(quadrature.BetweenKinks, "nodes", seen)
    got = integrate(valley(0.28, 0.05), np.array([[1.0]]))
    assert max(boxes) <= 50.0, "nodes of a larger box are not made: they may be more than memory holds"
    assert np.isnan(got.log_evidence).all()
    assert np.isinf(got.error).all()
    assert not got.converged.any()


@pytest.mark.parametrize(("vae", "x"), [(two_sided(1e-6)[0], 1.3), (valley(1.0, 1e-3), 1.3)], ids=["smooth", "kinked"])
def test_two_modes_too_narrow_for_the_longest_axis_have_no_error_bar_and_no_axis_is_longer(monkeypatch, vae, x):
    axis, lengths = quadrature._axis, []

    def seen(half, spacing, *place):
        lengths.append(2 * half / spacing)
        return axis(half, spacing, *place)

    monkeypatch.setattr(quadrature, "_axis", seen)
    monkeypatch.setattr(quadrature, "LONGEST_AXIS", 5000)
    log_evidence, error = integrate_evidence(vae, np.array([[x]]))
    assert np.isfinite(log_evidence).all()
    assert np.isinf(error).all()
    assert max(lengths) <= 5000


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_no_mode_of_a_random_decoder_is_lost_unsaid(activation):
    rng, differences = np.random.default_rng(1), []
    for seed in range(20):
        vae = sv.VAE(2, 1, (8,), "gaussian-learned", activation, "float64", "reference", seed=seed)
        for name in ("decoder.0.weight", "decoder.0.bias", "decoder.head.weight"):
            scale = 1 if name == "decoder.head.weight" else 2
            vae.parameters[name][...] = scale * rng.standard_normal(vae.parameters[name].shape)
        vae = with_variance(vae, np.exp(rng.uniform(-6, -1)))
        x = vae.sample(6, seed=seed)
        got, want = integrate(vae, x), log_evidence_by_brute_force(vae, x, half=12, count=40_001)
        differences.extend(np.abs(got.log_evidence - want)[got.converged])
    assert len(differences) >= 100, "of 120"
    assert max(differences) < 3e-5, "which is the grid's, at kinks"


def bump(steepness: float, variance: float) -> sv.VAE:
    """A bump at z = 0, flat elsewhere: where x is on top of it, a sharp core and the prior as its tail."""
    vae = sv.VAE(1, 1, (2,), "gaussian-learned", "tanh", "float64", "reference")
    vae.parameters["decoder.0.weight"][...] = steepness
    vae.parameters["decoder.0.bias"][...] = [1.0, -1.0]
    vae.parameters["decoder.head.weight"][...] = [[1.0], [-1.0]]
    return with_variance(vae, variance)


@pytest.mark.parametrize(("steepness", "variance"), [(30.0, 0.2), (5.0, 0.15), (110.0, 0.1), (10.0, 0.08)])
def test_a_sharp_core_with_a_wide_tail_is_covered(steepness, variance):
    vae, x = bump(steepness, variance), np.array([[1.5], [1.0]])
    np.testing.assert_allclose(
        integrate(vae, x).log_evidence, log_evidence_by_brute_force(vae, x, 9, 100_001), rtol=0, atol=1e-9
    )


def test_a_tail_too_wide_for_the_points_allowed_has_no_answer_and_it_says_so():
    vae, x = bump(10.0, 0.08), np.array([[1.5]])
    got = integrate(vae, x, max_points=500)
    assert not got.converged.any()
    for log_evidence, error in ((got.log_evidence, got.error), integrate_evidence(vae, x, max_points=500)):
        assert np.isnan(log_evidence).all()
        assert np.isinf(error).all()


def counts(rate: float, logvar: float) -> sv.VAE:
    """A count whose rate is exp(rate z), and q = N(0, exp(logvar))."""
    vae = sv.VAE(1, 1, (), "poisson", dtype="float64", engine="reference")
    for name, values in (("encoder.head.weight", 0), ("encoder.head.bias", [0, logvar]), ("decoder.head.weight", rate)):
        vae.parameters[name][...] = values
    return vae


@pytest.mark.parametrize(
    ("rate", "logvar"), [(2.0, 0.0), (3.0, 0.0), (4.0, 0.0), (1.0, np.log(4.0)), (1.0, np.log(9.0))]
)
def test_an_elbo_whose_mass_is_out_in_the_tails_of_q_is_whole(rate, logvar):
    """A Poisson's E_q exp(w z) = exp(w^2 sigma^2 / 2) comes from w standard deviations of q out."""
    got = integrate(counts(rate, logvar), np.array([[3.0]]))
    want = -np.exp(rate**2 * np.exp(logvar) / 2) - np.log(6) - 0.5 * (np.exp(logvar) - 1 - logvar)
    assert got.converged.all()
    np.testing.assert_allclose(got.elbo, want, rtol=0, atol=BAR)
    np.testing.assert_allclose(got.residual, 0, rtol=0, atol=BAR)


def test_the_error_of_log_evidence_owes_nothing_to_the_encoder():
    x, errors = np.array([[3.0]]), []
    for bias in (0.0, 4.0):
        vae = counts(2.0, bias)
        found = sv.log_evidence(vae, x, method="quadrature")
        errors.append(found.standard_error)
        np.testing.assert_allclose(found.log_evidence, integrate(vae, x).log_evidence, rtol=0, atol=BAR)
    np.testing.assert_array_equal(*errors)
    assert errors[0] < BAR


@pytest.mark.parametrize("hidden", [(5,), (4, 3)])
def test_the_kinks_on_a_line_are_where_the_slope_changes(hidden):
    vae, _, _ = build(latent_dim=2, hidden=hidden, activation="relu")
    origin, direction = np.array([[0.3, -0.2]]), np.array([0.8, 0.6])
    t = line_kinks(vae, origin, direction, half=6.0)
    assert (np.diff(t) >= 0).all()
    assert t[0, 0] == -6
    assert t[0, -1] == 6
    assert (np.abs(t) < 6).sum() >= 2
    inside = np.linspace(t[0, :-1], t[0, 1:], 7)  # (7, pieces)
    out, _ = vae.ops.network_forward((origin + inside.T.reshape(-1, 1) * direction), vae._decoder)
    bend = np.diff(out.reshape(-1, 7, vae.data_dim), n=2, axis=1)
    assert np.abs(bend).max() < 1e-12, "straight between kinks"


@pytest.mark.parametrize("hidden", [(5,), (4, 3), (3, 4, 2)])
def test_at_a_kink_the_input_of_a_unit_is_zero(hidden):
    vae, _, _ = build(latent_dim=2, hidden=hidden, activation="relu")
    origins, direction = np.random.default_rng(2).normal(size=(6, 2)), np.array([0.8, 0.6])
    t = line_kinks(vae, origins, direction, half=4.0)
    kinks = np.abs(t) < 4.0
    assert len({int(number) for number in kinks.sum(axis=1)}) > 1, "some lines are filled up"
    h, inputs = origins[:, None, :] + t[:, :, None] * direction, []
    for layer in vae._decoder.layers[:-1]:
        inputs.append(h @ layer.weight + layer.bias)
        h = np.maximum(inputs[-1], 0.0)
    np.testing.assert_allclose(np.abs(np.concatenate(inputs, axis=2)).min(axis=2)[kinks], 0, atol=1e-12)


def test_a_kinked_integrand_in_two_dimensions_agrees_with_a_lattice_to_the_lattices_precision():
    vae, x, _ = build(latent_dim=2, rows=1, **KINKED)
    axis, spacing = np.linspace(-8, 8, 601, retstep=True)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    log_joint = np.concatenate([vae.log_joint(row[None], z[None]) for row in x])
    lattice = np.logaddexp.reduce(log_joint, axis=1) + 2 * np.log(spacing)
    np.testing.assert_allclose(integrate(vae, x).log_evidence, lattice, rtol=0, atol=1e-6)


def test_a_unit_that_the_decoder_ignores_does_not_matter():
    vae, x, _ = build(latent_dim=2, rows=2, **KINKED)
    vae.parameters["decoder.0.weight"][1] = 0
    alone = sv.VAE(5, 1, (3,), "bernoulli", "relu", "float64", "reference")
    for name in ("decoder.0.bias", "decoder.head.weight", "decoder.head.bias"):
        alone.parameters[name][...] = vae.parameters[name]
    alone.parameters["decoder.0.weight"][0] = vae.parameters["decoder.0.weight"][0]
    got = integrate(vae, x)
    assert got.converged.all()
    np.testing.assert_allclose(got.log_evidence, integrate(alone, x).log_evidence, rtol=0, atol=BAR)


# --- honesty ----------------------------------------------------------------------------------------------------------


def test_with_too_few_points_it_says_so_and_its_error_estimate_holds():
    vae, x, _ = build(latent_dim=2)
    exact = integrate(vae, x)
    for max_points in (1500, 3000, 6000, 12_000):
        got = integrate(vae, x, max_points=max_points)
        wrong = np.abs(np.stack([a - b for a, b in zip(got[:3], exact[:3], strict=True)]))
        assert (wrong <= got.error + BAR).all()
        assert (got.converged == (got.error <= BAR)).all()
    assert not integrate(vae, x, max_points=1500).converged.any()
    assert np.isinf(integrate(vae, x, max_points=10).error).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"latent_dim": 1},
        {"latent_dim": 2},
        {"latent_dim": 1, "activation": "relu", "hidden": (6, 5)},
        {"latent_dim": 2, **KINKED},
    ],
    ids=str,
)
@pytest.mark.parametrize("max_points", [1 << 21, 8000, 1000])
def test_points_are_the_evaluations_of_the_decoder_and_never_more_than_allowed(monkeypatch, arguments, max_points):
    vae, x, _ = build(rows=1, **arguments)
    true, counted = quadrature._log_joint, []

    def log_joint(vae, x, z):
        counted.append(len(z))
        return true(vae, x, z)

    monkeypatch.setattr(quadrature, "_log_joint", log_joint)
    got = integrate(vae, x, 1e-6, max_points)
    lattice, *others = counted
    assert lattice == {1: 513, 2: 129**2}[vae.latent_dim]
    if np.isfinite(got.error).all():
        assert got.points == sum(others)
    assert got.points <= 2 * max_points


@pytest.mark.parametrize(("vae", "x"), [(counts(4.0, 0.0), 3.0), (valley(0.25, 0.1), 1.0)], ids=["ball", "box"])
def test_points_of_what_is_enlarged_are_counted_and_never_more_than_allowed(monkeypatch, vae, x):
    """The ball of q for the count, the box of the posterior for the valley."""
    true, counted = quadrature._log_joint, []

    def log_joint(vae, x, z):
        counted.append(len(z))
        return true(vae, x, z)

    monkeypatch.setattr(quadrature, "_log_joint", log_joint)
    x = np.array([[x]])
    got = integrate(vae, x)
    _, *calls = counted
    assert got.points == sum(calls)
    for allowed in np.cumsum(calls) - 1:
        counted.clear()
        got = integrate(vae, x, max_points=allowed)
        assert sum(counted[1:]) <= got.points <= 2 * allowed
        counted.clear()
        integrate_evidence(vae, x, max_points=allowed)
        assert sum(counted[1:]) <= allowed
        counted.clear()
        found = quadrature._elbo_integral(vae, x[0], Frame(np.zeros(1), np.eye(1)), 1e-10, allowed)
        assert sum(counted) == found.points <= allowed


def test_the_settings_that_hold_unless_others_are_asked_for():
    settings = inspect.signature(integrate).parameters
    assert [settings[name].default for name in ("tolerance", "max_points", "watch")] == [1e-10, 2**21, None]


def test_the_error_allows_for_the_rounding_of_large_numbers():
    vae, _, _ = build(latent_dim=1, hidden=(), likelihood="gaussian")
    vae.parameters["encoder.head.weight"][...] = 0
    across = np.linalg.svd(vae.parameters["decoder.head.weight"])[2][1]  # no z goes there
    x = vae.decode(np.array([[0.3]])) + 1e5 * across
    got = integrate(vae, x)
    assert (got.log_evidence < -1e9).all()
    assert (got.error >= quadrature.ROUNDING * np.abs(got.log_evidence)).all()
    assert (got.error < 1e-3).all()
    np.testing.assert_allclose(got.log_evidence, LinearGaussian.from_vae(vae).log_evidence(x), rtol=1e-14)
    log_evidence, error = integrate_evidence(vae, x)
    assert (quadrature.ROUNDING * np.abs(log_evidence) <= error).all()
    assert (error < got.error).all(), "the ELBO has rounding of its own"


def test_with_too_many_kinks_to_follow_it_says_so_and_its_error_estimate_holds():
    vae, x, _ = build(latent_dim=2, activation="relu", hidden=(20,), rows=1)
    vae.parameters["decoder.head.weight"][...] /= 6
    rough, exact = integrate(vae, x, max_points=30_000), integrate(vae, x)
    assert not rough.converged.any()
    assert (rough.error < 0.1).all()
    assert exact.converged.all()
    assert np.abs(exact.residual).max() <= BAR
    for a, b in zip(rough[:3], exact[:3], strict=True):
        assert (np.abs(a - b) <= rough.error).all()


def test_a_model_that_is_not_a_number_has_no_answer_and_says_so():
    vae, x, _ = build(latent_dim=1)
    vae.parameters["decoder.head.bias"][0] = np.nan
    got = integrate(vae, x)
    assert np.isnan(got.log_evidence).all()
    assert np.isinf(got.error).all()
    assert not got.converged.any()


@pytest.mark.parametrize("logit", [50.0, 1e5, 1e7])
def test_pixels_that_are_certain_take_no_accuracy_away(logit):
    """Three depend on z; the others are what the decoder says, at logits up to twice as large."""
    rng = np.random.default_rng(0)
    x = (rng.random((1, 100)) < 0.5).astype(float)
    whole, three = (sv.VAE(size, 1, (), dtype="float64", engine="reference") for size in (100, 3))
    for vae in (whole, three):
        vae.parameters["decoder.head.weight"][...] = 0
        vae.parameters["decoder.head.weight"][0, :3] = 0.7
    whole.parameters["decoder.head.bias"][...] = np.where(x[0] > 0, 1, -1) * logit * (1 + rng.random(100))
    for vae in (whole, three):
        vae.parameters["decoder.head.bias"][:3] = 0.1
    got, want = integrate(whole, x), integrate(three, x[:, :3])
    assert got.converged.all()
    assert (np.abs(got.log_evidence - want.log_evidence) <= got.error + want.error).all()


def test_a_wrong_rule_is_noticed(monkeypatch):
    """A control that must fail: the second rule's weights are 1 part in a million off."""
    vae, x, _ = build(latent_dim=1)
    right = quadrature.Trapezoid.nodes

    def wrong(self, level, frame, region, limit):
        nodes = right(self, level, frame, region, limit)
        return nodes and nodes._replace(log_weight=nodes.log_weight + 1e-6 * level)

    monkeypatch.setattr(quadrature.Trapezoid, "nodes", wrong)
    got = integrate(vae, x, max_points=20_000)
    assert not got.converged.any()
    assert (got.error > 1e-7).all()


def test_float32_models_on_either_engine_are_integrated_in_float64(engine):
    vae, x, _ = build(latent_dim=2, dtype="float32", engine=engine, rows=2)
    got = sv.log_evidence(vae, x, method="quadrature")
    assert got.log_evidence.dtype == np.float64
    assert (got.standard_error <= BAR).all()
    assert np.isinf(got.effective_sample_size).all()


def test_neither_parameters_nor_data_are_rounded_to_the_precision_of_the_model():
    vae, x, _ = build(latent_dim=1, dtype="float32", likelihood="gaussian")
    twin = vae.with_parameters(vae.parameters.astype(np.float64))
    for got, want in zip(integrate(vae, x), integrate(twin, x), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("latent_dim", "asked", "message"),
    [
        (4, {}, "latent_dim is 4; quadrature is for at most 3"),
        (2, {"tolerance": 0.0}, "tolerance is 0.0"),
        (2, {"tolerance": float("nan")}, "tolerance is nan"),
        (2, {"tolerance": float("inf")}, "tolerance is inf"),
        (2, {"tolerance": "1e-8"}, "tolerance is '1e-8'"),
        (2, {"max_points": 0}, "max_points is 0"),
    ],
)
def test_what_cannot_be_integrated_is_refused(latent_dim, asked, message):
    vae, x, _ = build(latent_dim=latent_dim)
    with pytest.raises(ValueError, match=message):
        integrate(vae, x, **asked)


@pytest.mark.parametrize("axes", [5, (np.zeros(3),), (np.zeros(3), np.zeros((3, 1)))])
def test_a_grid_has_an_axis_for_each_latent_dimension(axes):
    vae, x, _ = build(latent_dim=2)
    with pytest.raises(ValueError, match=r"axes .*; expected 2 1-D arrays"):
        posterior_on_grid(vae, x, axes)


@pytest.mark.parametrize("integral", [integrate, integrate_evidence, posterior_on_grid])
def test_data_with_masked_values_are_refused_and_lists_are_data(integral):
    vae, x, _ = build(latent_dim=1)
    np.testing.assert_array_equal(integral(vae, x.tolist())[0], integral(vae, x)[0])
    with pytest.raises(ValueError, match="masked values"):
        integral(vae, np.ma.masked_equal(x, x[0, 0]))
    with pytest.raises(ValueError, match="x: not an array"):
        integral(vae, [[0, 1], [1]])


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_a_frame_gives_the_posterior_mean_zero_and_covariance_one():
    covariance = np.array([[2.0, 0.9], [0.9, 0.5]])
    frame = Frame.of(np.array([1.0, -3.0]), covariance)
    np.testing.assert_allclose(frame.axes @ frame.axes.T, covariance, rtol=1e-13)
    np.testing.assert_allclose(np.exp(2 * frame.log_volume), np.linalg.det(covariance), rtol=1e-12)
    same = frame.moved(np.zeros(2), np.eye(2))
    np.testing.assert_allclose(same.axes @ same.axes.T, covariance, rtol=1e-12)


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("which", range(3))
def test_the_points_of_an_axis_fill_the_box_at_even_distances_and_none_lies_outside(level, which):
    half, spacing = 8.25, 0.75 * 0.6**level
    axis = quadrature._axis(half, spacing, level, which)
    np.testing.assert_allclose(np.diff(axis), spacing, rtol=1e-12)
    assert -half <= axis[0] < -half + spacing
    assert half - spacing < axis[-1] <= half


def test_no_rule_shares_a_point_with_the_one_before_or_an_axis_with_its_neighbour():
    offsets = np.array(
        [[quadrature._axis(1.0, 0.1, level, which)[0] + 1.0 for which in range(3)] for level in range(6)]
    )
    for axis in (0, 1):
        apart = np.abs(np.diff(offsets, axis=axis))
        assert np.minimum(apart, 0.1 - apart).min() > 0.01
    golden = (np.sqrt(5) - 1) / 2  # whose multiples are the furthest from each other, from the first on
    np.testing.assert_allclose(offsets[:, 0] / 0.1, np.arange(1, 7) * golden % 1, rtol=1e-9)


@pytest.mark.parametrize(
    ("width", "degree"),
    [(0.009, 3), (0.011, 5), (0.029, 5), (0.031, 7), (0.09, 7), (0.11, 11), (0.29, 11), (0.31, 15), (1.0, 15)],
)
def test_gauss_is_exact_for_polynomials_between_two_cuts(width, degree):
    line, nodes, log_weights = gauss_between(np.array([[0.2, 0.2 + width], [-width, 0.0]]), 1.0)
    for row, (low, high) in enumerate(((0.2, 0.2 + width), (-width, 0.0))):
        own = line == row
        assert own.sum() == (degree + 1) // 2, "no more nodes than that takes"
        exact = (high ** (degree + 1) - low ** (degree + 1)) / (degree + 1)
        np.testing.assert_allclose(np.exp(log_weights[own]) @ nodes[own] ** degree, exact, rtol=1e-12)


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_what_is_spread_over_three_points_along_each_axis_is_left_as_it_is_and_what_is_sharper_is_not(latent_dim):
    wanted = 3**latent_dim
    log_f = np.full(50, -800.0)
    log_f[:wanted] = -7.0
    weights, temper = quadrature._temper(log_f, latent_dim)
    assert temper == 1.0
    np.testing.assert_allclose(weights[:wanted], 1 / wanted, rtol=1e-14)
    for sharpness in (1e-1, 1e1, 1e4):
        log_f = -sharpness * np.square(np.arange(50.0))
        weights, temper = quadrature._temper(log_f, latent_dim)
        assert 0 < temper < 1 or 1 / np.square(weights).sum() > wanted
        assert 1 / np.square(weights).sum() >= wanted
        assert 1 / np.square(weights).sum() < 1.01 * wanted or temper == 1.0
        np.testing.assert_allclose(weights, np.exp(temper * log_f) / np.exp(temper * log_f).sum(), rtol=1e-12)


@pytest.mark.parametrize("width", [0.01, 0.03, 0.1, 0.3, 1.0])
def test_a_piece_as_wide_as_an_order_goes_is_counted_once(width):
    _, _, log_weights = gauss_between(np.array([[0.0, width]]), 1.0)
    np.testing.assert_allclose(np.exp(log_weights).sum(), width, rtol=1e-14)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_elbo_that_the_kl_is_taken_from_is_the_one_of_the_rule_before(activation):
    vae, x, _ = build(latent_dim=1, rows=1, activation=activation)
    q = vae.encode(x)
    frame, region = Frame.of(q.mu[0], q.covariance[0]), Region(quadrature.FRAME_BOX, ball=True)
    first = len(quadrature._rule(vae).nodes(0, frame, region, 10**6).u)
    coarse = quadrature._elbo_integral(vae, x[0], frame, 1e-3, first)
    assert (coarse.points, coarse.error, coarse.before) == (first, np.inf, coarse.last)
    fine = quadrature._elbo_integral(vae, x[0], frame, 1e-3, 10**6)
    assert fine.before == coarse.last != fine.last
    outside = fine.error - 4 * abs(fine.last - fine.before)
    assert 0 < outside < 1e-10, "eight standard deviations out"


def test_peaks_of_a_survey_are_what_matters_and_has_no_higher_neighbour():
    axis = np.linspace(-1.0, 1.0, 5)
    log_f = np.full((5, 5), -100.0)
    log_f[0, 1], log_f[2, 2], log_f[2, 3], log_f[4, 4] = -3.0, -1.0, -2.0, -34.5
    survey = quadrature.Survey(axis, log_f)
    for log_integral, count in ((-2.0, 3), (-1.0, 2), (40.0, 0)):  # a cell of volume 1/4 takes 1.4 nats
        peaks, points = survey.peaks(log_integral), survey.points(log_integral)
        np.testing.assert_array_equal(peaks.z, np.array([[-1.0, -0.5], [0.0, 0.0], [1.0, 1.0]])[:count])
        np.testing.assert_array_equal(peaks.log_f, [-3.0, -1.0, -34.5][:count])
        assert len(points.z) == len(points.log_f) == (count + 1 if count else 0)


def test_a_rule_reaches_a_peak_where_a_node_near_it_is_less_than_a_nat_lower():
    nodes, log_f = quadrature.Nodes(np.array([[0.0, 0.0], [2.0, 1.0]]), np.zeros(2)), np.array([-1.0, -7.0])
    for peak, height, size, reached in (
        ([0.4, -0.4], -0.1, 0.5, True),
        ([0.4, -0.4], 0.1, 0.5, False),
        ([0.4, -0.6], -0.1, 0.5, False),
        ([1.6, 0.7], -6.5, 0.5, True),
        ([9.0, 9.0], -90.0, 0.5, False),
    ):
        own = np.array([[0.0, 0.0], peak]), np.array([-1.0, height])
        assert quadrature._reaches(nodes, log_f, *own, size) == reached
    assert quadrature._reaches(nodes, log_f, np.empty((0, 2)), np.empty(0), 0.5)


def test_a_region_holds_its_points_and_their_surroundings_and_not_the_rest():
    u = np.array([[0.1, 0.2], [2.9, -2.9]])
    region = Region.around(u, half=3.0, size=0.5)
    assert region.contains(u).all()
    assert region.contains(u + 0.4 * np.array([1, -1])).all()
    assert not region.contains(np.array([[-2.0, 2.0]])).any()


def test_a_region_is_the_cell_of_its_point_and_both_neighbours_up_to_the_edge():
    middles = -3.0 + 0.5 * (np.arange(12) + 0.5)
    for cell, middle in enumerate(middles):
        region = Region.around(np.array([[middle]]), half=3.0, size=0.5)
        np.testing.assert_array_equal(region.contains(middles[:, None]), np.abs(np.arange(12) - cell) <= 1)
    assert Region(3.0, ball=True).contains(np.array([[0.0, 3.0], [2.2, 2.2]])).tolist() == [True, False]
    assert Region(3.0).contains(np.array([[3.0, 3.0]])).all()


def test_what_lies_outside_a_ball_falls_on_as_it_does_in_its_two_outermost_layers():
    u, half = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, -5.5], [-6.0, 0.0]]), 6.0  # layers of width 0.75
    for terms, outside in (
        ([9.0, 8.0, 1.0, 1.0], 2 / 3),  # 8, 2, and then 1/2, 1/8, ...
        ([9.0, 8.0, 0.0, 4.0], 4.0),
        ([9.0, 8.0, 4.0, 4.0], np.inf),
        ([9.0, 8.0, 0.0, 0.0], 0.0),
    ):
        np.testing.assert_allclose(quadrature._outside(u, np.array(terms), half), outside, rtol=1e-14)


def rule_of(latent_dim: int, activation: str) -> tuple[quadrature.Rule, Frame]:
    vae, _, _ = build(latent_dim=latent_dim, hidden=(3,), activation=activation)
    return quadrature._rule(vae), Frame(np.zeros(latent_dim), np.eye(latent_dim))


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.parametrize("level", [0, 1])
def test_nodes_between_kinks_lie_in_the_box_and_weigh_its_volume(latent_dim, level):
    (rule, frame), half = rule_of(latent_dim, "relu"), 2.0
    nodes = rule.nodes(level, frame, Region(half), 10**6)
    assert nodes.u.shape == (len(nodes.log_weight), latent_dim)
    assert np.abs(nodes.u).max() <= half
    sides = [2 * half] * latent_dim
    for which in range(latent_dim - 1 if level == 0 else latent_dim - 2):  # there the rule is the trapezoidal one
        sides[which] = rule.spacing(level) * len(np.unique(nodes.u[:, which]))
    np.testing.assert_allclose(np.exp(nodes.log_weight).sum(), np.prod(sides), rtol=1e-12)
    assert np.diff(rule._even(half, level, 0)).max() <= 2 * rule.spacing(level), "no piece is wider"


@pytest.mark.parametrize("level", [1, 2])
def test_squares_on_the_edge_of_a_region_belong_to_it(level):
    rule, frame = rule_of(2, "relu")
    nodes, side = rule.nodes(level, frame, Region(2.0, ball=True), 10**6), rule.cell(level)
    area = np.exp(nodes.log_weight).sum()
    assert np.pi * 2.0**2 < area < np.pi * (2.0 + np.sqrt(2) * side) ** 2


def test_squares_of_a_large_box_take_little_memory_and_are_the_same_however_many_at_a_time(monkeypatch):
    (rule, frame), region = rule_of(2, "relu"), Region.around(np.zeros((1, 2)), half=300.0, size=1.0)
    tracemalloc.start()
    nodes = rule.nodes(2, frame, region, 10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    squares = (2 * region.half / rule.cell(2)) ** 2
    assert peak < 64 * squares, "bytes of their corners alone: 4 of 2 numbers"
    monkeypatch.setattr(quadrature, "CHUNK", 1)
    for whole, by_rows in zip(nodes, rule.nodes(2, frame, region, 10**6), strict=True):
        np.testing.assert_array_equal(whole, by_rows)


def test_pieces_of_a_long_line_take_little_memory_and_are_the_same_however_many_at_a_time(monkeypatch):
    (rule, frame), region = rule_of(1, "relu"), Region.around(np.zeros((1, 1)), half=3e4, size=1.0)
    whole = rule.nodes(2, frame, region, 10**6)
    monkeypatch.setattr(quadrature, "CHUNK", 1000)
    tracemalloc.start()
    nodes = rule.nodes(2, frame, region, 10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pieces = 2 * region.half / rule.cell(2)
    assert peak < 64 * pieces, "bytes of their nodes alone: 8 of a number"
    np.testing.assert_array_equal(np.sort(nodes.u, axis=0), np.sort(whole.u, axis=0))
    np.testing.assert_allclose(np.exp(nodes.log_weight).sum(), np.exp(whole.log_weight).sum(), rtol=1e-14)


def test_between_kinks_of_a_plane_the_first_rule_that_counts_is_exact():
    vae, _, _ = build(latent_dim=2, hidden=(4, 3), activation="relu")
    frame, integrals = Frame(np.array([0.3, -0.1]), np.array([[1.0, 0.4], [0.0, 0.8]])), []
    for level in (1, 2):
        nodes = quadrature.BetweenKinks(vae).nodes(level, frame, Region(2.0), 10**6)
        out, _ = vae.ops.network_forward(frame.points(nodes.u), vae._decoder)
        integrals.append(np.exp(nodes.log_weight) @ out)
    np.testing.assert_allclose(*integrals, rtol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_a_rule_may_have_as_many_nodes_as_the_limit_and_not_one_more(latent_dim, activation):
    (rule, frame), region = rule_of(latent_dim, activation), Region(2.0)
    count = len(rule.nodes(0, frame, region, 10**6).u)
    assert len(rule.nodes(0, frame, region, count).u) == count
    assert rule.nodes(0, frame, region, count - 1) is None


def test_where_there_are_too_many_triangles_lines_take_their_place():
    (rule, frame), region = rule_of(2, "relu"), Region(2.0)
    triangles = len(rule.nodes(1, frame, region, 10**6).u)
    assert len(rule.nodes(1, frame, region, triangles).u) == triangles
    lines = len(rule.nodes(1, frame, region, triangles - 1).u)
    assert 0 < lines < triangles
    assert rule.nodes(1, frame, region, lines - 1) is None


def test_the_posterior_on_a_grid_is_bayes_rule_and_integrates_to_one():
    vae, x, _ = build(latent_dim=2, rows=2)
    axis = np.linspace(-7, 7, 141)
    grid = posterior_on_grid(vae, x, (axis, axis[::2]))
    assert grid.log_density.shape == (2, 141, 71)
    np.testing.assert_allclose(np.exp(grid.log_density).sum(axis=(1, 2)) * 0.1 * 0.2, 1, rtol=1e-9)
    z = np.array([[axis[50], axis[60]]] * 2)
    np.testing.assert_allclose(grid.log_density[:, 50, 30] + grid.log_evidence, vae.log_joint(x, z), rtol=1e-12)
    weights = np.exp(grid.log_density) * 0.02
    np.testing.assert_allclose((weights * axis[:, None]).sum(axis=(1, 2)), grid.mean[:, 0], atol=1e-8)
    unasked = posterior_on_grid(vae, x)
    assert unasked.log_density.shape == (2, 101, 101)
    np.testing.assert_array_equal(unasked.axes, [np.linspace(-4, 4, 101)] * 2)
    together = posterior_on_grid(vae, x, np.stack([axis, -axis]))
    np.testing.assert_array_equal(together.axes, [axis, -axis])
    assert posterior_on_grid(vae, x, (axis, [])).log_density.shape == (2, 141, 0)
    for axes in ((), (axis,), (axis, axis[:, None])):
        with pytest.raises(ValueError, match="expected 2 1-D arrays"):
            posterior_on_grid(vae, x, axes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"latent_dim": 3, "rows": 2},
        {"latent_dim": 3, "activation": "softplus", "likelihood": "gaussian-learned", "rows": 2},
        {"latent_dim": 2, "activation": "relu", "hidden": (8,), "rows": 2},
    ],
    ids=str,
)
def test_the_identity_holds_where_it_takes_millions_of_points(arguments):
    vae, x, _ = build(data_dim=6, **arguments)
    got: Quadrature = integrate(vae, x, max_points=1 << 22)
    assert got.converged.all()
    assert np.abs(got.residual).max() <= BAR


@pytest.mark.slow
def test_the_identity_holds_for_every_digit_of_a_trained_model(digits):
    train, held_out = digits
    vae = sv.VAE(64, 2, (64,), activation="tanh", engine="compiled")
    sv.fit(vae, train, epochs=30, progress=False)
    x = (held_out > 0.5).astype(float)
    got = integrate(vae, x)
    assert got.converged.all()
    assert np.abs(got.residual).max() <= BAR
    assert (got.kl_to_posterior > -BAR).all()


@pytest.mark.parametrize("slope", [80.0, 90.0, 300.0])
def test_a_density_of_zero_at_the_edge_of_the_lattice_is_no_obstacle(slope):
    """Rates of exp(slope z) are beyond all numbers from z = 709 / slope on, far from the posterior."""
    vae = sv.VAE(1, 1, (), "poisson", dtype="float64", engine="reference")
    vae.parameters["encoder.head.weight"][...] = 0
    vae.parameters["decoder.head.weight"][...] = slope
    z = np.linspace(-1, 1, 400_001)
    log_joint = 3 * slope * z - np.exp(np.minimum(slope * z, 700)) - np.log(6) - 0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    expected = np.log(np.trapezoid(np.exp(log_joint), z))
    found = sv.log_evidence(vae, np.array([[3.0]]), method="quadrature").log_evidence
    np.testing.assert_allclose(found, expected, rtol=1e-7)
