# ruff: noqa: RUF001
"""The numbers of `explain` and the page that shows them, on a small model: numbers and page are tested apart."""

import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files

import matplotlib
import numpy as np
import pytest

import scratchvae as sv
from scratchvae.data import load
from scratchvae.evidence import LinearGaussian, log_evidence
from scratchvae.evidence.annealed import PILOT_TEMPERATURES, PILOT_WARM_UP
from scratchvae.evidence.quadrature import integrate
from scratchvae.reference.random import Stream, normals
from scratchvae.report import plots
from scratchvae.report.explain import (
    Settings,
    answer,
    figures,
    formulas,
    known_density,
    movement,
    page,
    render,
    sources,
    subject_of,
    train_on_digits,
)
from scratchvae.report.explain import estimators as point_8
from scratchvae.report.explain import identity as point_1
from scratchvae.report.explain.answers import surgery
from scratchvae.report.explain.gradient_noise import gradient_noise, reparameterized_draws, score_function_draws
from tests.report.test_plots import assert_svg_of_both_styles

pytestmark = pytest.mark.slow
SETTINGS = Settings.quick()


@pytest.fixture(scope="module")
def subject():
    return train_on_digits(SETTINGS, 0, "reference", lambda epoch: None)


@pytest.fixture(scope="module")
def answers(subject):
    return answer(subject, SETTINGS, 0, lambda words, done, total: None)


@pytest.fixture(scope="module")
def html(subject, answers):
    """The page with every picture in it, drawn once and not twice, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "light_and_dark", lambda draw, kind="svg": (plots.figure_bytes(draw(), kind),) * 2)
        return render(subject, answers, SETTINGS, "scratchvae explain --quick --seed 0")


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_the_identity_holds_to_ten_digits_for_every_example(answers):
    found = answers.identity
    assert found.converged.all()
    assert np.abs(found.residual).max() <= 1e-10
    assert found.linear_residual <= 1e-12
    assert (found.kl_to_posterior > 0).all()
    np.testing.assert_allclose(found.residual, found.log_evidence - found.elbo - found.kl_to_posterior, atol=1e-15)


def test_the_exact_elbo_is_the_mean_of_sampled_ones(subject, answers):
    found = answers.identity
    x = subject.held_out[found.rows]
    eps = normals(3, Stream.POSTERIOR, 0, np.arange(len(x)), 2000 * 2).reshape(len(x), 2000, 2).astype(float)
    sampled = subject.vae.elbo(x, eps)
    np.testing.assert_allclose(found.elbo, sampled.elbo, atol=0.3)
    np.testing.assert_allclose(found.kl_to_prior, sampled.kl, rtol=1e-12)


def test_the_correlation_is_that_of_the_two_kls(answers):
    rising = np.arange(5.0)
    for kl_to_posterior, correlation in ((3 + 2 * rising, 1), (-rising, -1), ((rising - 2) ** 2, 0)):
        found = dataclasses.replace(answers.identity, kl_to_prior=rising, kl_to_posterior=kl_to_posterior)
        assert found.correlation == pytest.approx(correlation, abs=1e-12)


def test_four_forms_are_one_number(answers):
    assert answers.forms.exact.shape == (4, answers.identity.examples)
    assert answers.forms.spread <= 1e-10
    miss = np.abs(np.array(answers.forms.sampled_means) - answers.forms.means[0])
    assert (miss < 5 * np.array(answers.forms.sampled_errors)).all()


def test_moving_the_encoder_leaves_log_evidence_and_moving_the_decoder_does_not(answers):
    phi, theta = answers.movement.phi, answers.movement.theta
    np.testing.assert_array_equal(phi.elbo[-1], theta.elbo[0], err_msg="theta moves from where phi came to")
    assert phi.largest_change <= 1e-10
    assert phi.elbo[-1].mean() > phi.elbo[0].mean() + 0.2, "the ELBO rises towards the line"
    assert phi.gap[-1].mean() < phi.gap[0].mean()
    assert (phi.elbo < phi.log_evidence).all()
    assert theta.largest_change > 0.05
    np.testing.assert_allclose(theta.log_evidence[0], phi.log_evidence[-1], atol=1e-10)


@pytest.mark.parametrize("moving", ["phi", "theta"])
def test_freezing_keeps_the_other_network_to_the_bit(subject, moving):
    vae = subject.fresh(1)
    before = {name: array.copy() for name, array in vae.parameters.items()}
    settings = SETTINGS._replace(movement_steps=3, movement_looks=1)
    movement.move_only(moving, vae, subject.train, subject.held_out[:1], settings, 0)
    for name, array in vae.parameters.items():
        moves = name.startswith("encoder") == (moving == "phi")
        assert np.array_equal(array, before[name]) != moves, name


def test_shapes_are_densities_with_the_moments_of_integration(answers):
    for shape in answers.shapes.shapes:
        area = np.prod([axis[1] - axis[0] for axis in shape.axes])
        assert shape.posterior.sum() * area == pytest.approx(1, abs=0.02)
        assert shape.approximation.sum() * area == pytest.approx(1, abs=1e-3)
        z = np.stack(np.meshgrid(*shape.axes, indexing="ij"), axis=-1)
        mean = (shape.posterior[..., None] * z).sum(axis=(0, 1)) * area
        np.testing.assert_allclose(mean, shape.posterior_mean, atol=0.05)
        q_mean = (shape.approximation[..., None] * z).sum(axis=(0, 1)) * area
        np.testing.assert_allclose(q_mean, shape.mu, atol=0.01)
        assert shape.approximation_gap > 0
        assert shape.amortization_gap >= 0
        assert shape.approximation_gap + shape.amortization_gap == pytest.approx(shape.gap, abs=1e-9)
    assert answers.shapes.smallest.gap <= answers.shapes.largest.gap


def test_the_correlation_of_a_posterior_is_its_covariance_over_both_deviations(answers):
    shape = dataclasses.replace(answers.shapes.largest, posterior_covariance=np.array([[4.0, 1.0], [1.0, 9.0]]))
    assert shape.posterior_correlation == pytest.approx(1 / (2 * 3))


def test_finer_mixtures_come_to_log_evidence(answers):
    found = answers.mixture
    assert found.errors[-1] < 0.2 * found.errors[0]
    assert found.digit_errors[-1] < 1e-3
    assert found.digit_errors[-1] < found.digit_errors[0]
    for weight in found.weights:
        assert weight.sum() == pytest.approx(1)


def test_every_finite_mixture_integrates_to_one():
    vae = sv.VAE(2, 1, (8,), "gaussian-learned", "tanh", "float64", "reference", seed=1)
    axis = np.arange(-9, 9, 0.2)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mixture = known_density.Mixture.over_grid(vae, 7)
    assert np.exp(mixture.log_density(x)).sum() * 0.04 == pytest.approx(1, abs=1e-6)


def test_the_known_density_is_one_and_its_draws_have_its_moments():
    density = known_density.Horseshoe.make()
    plane = known_density.Plane.of(density, 0.1)
    assert plane.weight.sum() == pytest.approx(1, abs=1e-10)
    draws = density.draw(20_000, 0)
    np.testing.assert_allclose(draws.mean(axis=0), plane.weight @ plane.x, atol=0.05)
    assert -density.log_density(draws).mean() == pytest.approx(plane.mean(-plane.log_density), abs=0.03)


def test_the_elbo_is_minus_entropy_minus_both_distances(answers):
    found = answers.which
    assert found.worst_residual <= 1e-8
    assert (found.kl > 0).all()
    assert (found.gap > 0).all()
    assert (found.log_evidence < -found.entropy).all()
    assert found.kl[-1] < found.kl[0]


def test_the_pictures_of_the_plane_are_densities_of_the_data_and_of_the_models_they_are_named_after(answers):
    """Against integrals over z at some points of the grid; a row of a picture is x[1], a column x[0]."""
    found, toy = answers.which, known_density.train_toy(SETTINGS, 0)
    row, column = np.random.default_rng(0).integers(len(found.grid), size=(2, 30))
    x = np.stack([found.grid[column], found.grid[row]], axis=1)
    early, late = (integrate(toy.looks[epoch], x).log_evidence for epoch in (found.early_epoch, SETTINGS.toy_epochs))
    for picture, log_density in (
        (found.data_density, toy.density.log_density(x)),
        (found.early_density, early),
        (found.late_density, late),
    ):
        np.testing.assert_allclose(picture[row, column], np.exp(log_density), rtol=1e-6, atol=1e-9)
    assert found.early_epoch < SETTINGS.toy_epochs
    assert 2 * np.log(found.deviation) == pytest.approx(toy.vae.parameters["likelihood.logvar"][0])


def test_the_planes_log_evidence_is_that_of_quadrature(subject):
    toy = known_density.train_toy(SETTINGS, 0)
    x = toy.density.draw(3, 9)
    plane = known_density.Plane(x, np.ones(3), np.zeros(3))
    log_evidence_, elbo, gap = known_density.terms_on(toy.vae, plane)
    exact = integrate(toy.vae, x)
    np.testing.assert_allclose(log_evidence_, exact.log_evidence, atol=1e-8)
    np.testing.assert_allclose(elbo, exact.elbo, atol=1e-8)
    np.testing.assert_allclose(gap, exact.kl_to_posterior, atol=1e-8)


def test_turned_components_keep_their_density_and_have_the_best_diagonal_encoder():
    x = np.random.default_rng(0).normal(size=(50, 6)) @ np.random.default_rng(1).normal(size=(6, 6))
    vae = point_8.turned_components(x, 3, seed=0)
    model = LinearGaussian.from_vae(vae)
    from scratchvae.evidence.exact import principal_components

    np.testing.assert_allclose(model.log_evidence(x), principal_components(x, 3).log_evidence(x), rtol=1e-10)
    best, q = model.best_diagonal(x), vae.encode(x)
    np.testing.assert_allclose(q.mu, best.mu, atol=1e-10)
    np.testing.assert_allclose(q.logvar, best.logvar, atol=1e-10)
    assert model.gap > 0.01


def test_estimators_fall_short_and_the_prior_most(answers):
    found = answers.estimators
    prior, importance = found.row("prior"), found.row("importance")
    assert prior["bias"][-1] < importance["bias"][-1] - 1
    assert abs(importance["bias"][0]) < 0.05
    assert prior["effective"][-1] < 10


@pytest.mark.parametrize("name", ["prior", "importance"])
def test_what_is_said_of_an_estimator_is_what_its_estimates_show(answers, name):
    data = load("digits")
    x = data.held_out[: SETTINGS.evidence_examples].astype(float)
    for column, latent_dim in enumerate(SETTINGS.latent_dims):
        vae = point_8.turned_components(data.train.astype(float), latent_dim, seed=0)
        model, found = LinearGaussian.from_vae(vae), log_evidence(vae, x, name, SETTINGS.evidence_points)
        miss = found.log_evidence - model.log_evidence(x)
        expected = {
            "bias": miss.mean(),
            "error": miss.std(ddof=1) / np.sqrt(len(x)),
            "claimed": np.sqrt(np.square(found.standard_error).mean()),
            "effective": np.median(found.effective_sample_size),
        }
        said = {key: values[column] for key, values in answers.estimators.row(name).items()}
        assert said == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert answers.estimators.gap[column] == pytest.approx(model.gap)


def test_bounds_are_in_order_within_their_standard_errors(answers):
    bounds = answers.estimators.bounds
    assert bounds.in_order
    assert abs(bounds.values[0] - bounds.elbo) < 4 * bounds.errors[0], "L_1 is the ELBO"
    assert bounds.values[-1] > bounds.elbo + 0.01


def test_bounds_scatter_over_many_seeds_as_their_errors_say(subject, answers):
    settings = SETTINGS._replace(bound_samples=(1, 5), bound_draws=400)
    runs = [point_8.bounds(subject, settings, answers.identity, seed) for seed in range(80)]
    scatter = np.std([one.values for one in runs], axis=0)
    np.testing.assert_allclose(scatter, np.mean([one.errors for one in runs], axis=0), rtol=0.3)


def test_bounds_out_of_order_are_noticed():
    bounds = point_8.Bounds(np.array([1, 5]), np.array([-1.0, -2.0]), np.array([0.01, 0.01]), -1.0, -0.5, 10)
    assert not bounds.in_order


def test_both_gradients_agree_and_reparameterization_is_quieter(answers):
    found = answers.gradients
    assert found.disagreement < 5
    assert found.ratios[0] > found.ratios[1] > 1
    assert found.ratios[2] == 1


def test_variances_and_errors_of_gradients_are_those_of_their_draws(subject, answers):
    found, row = answers.gradients, 1
    eps = normals(0, Stream.POSTERIOR, 1, np.array([row]), found.samples * 2).reshape(-1, 2).astype(float)
    x = subject.held_out[answers.identity.rows[row]]
    for method, draws_of in ((0, score_function_draws), (2, reparameterized_draws)):
        variance = draws_of(subject.vae, x, eps).var(axis=0, ddof=1)
        assert found.variance[method, row] == pytest.approx(variance.sum()), "of one draw, all components together"
        np.testing.assert_allclose(found.error[method, row], np.sqrt(variance / found.samples), err_msg="of the mean")


def test_differences_of_gradients_from_the_same_noise_have_errors_of_the_right_size(subject, answers):
    """Over many seeds the differences scatter as their errors say, and less than those of independent means would."""
    settings = SETTINGS._replace(gradient_samples=200, gradient_examples=2)
    runs = [gradient_noise(subject, settings, answers.identity, seed) for seed in range(150)]
    scatter = np.std([one.mean[:-1] - one.mean[-1] for one in runs], axis=0)
    paired = np.mean([np.square(one.difference_error) for one in runs], axis=0)
    independent = np.mean([np.square(one.error[:-1]) + np.square(one.error[-1]) for one in runs], axis=0)
    ratios = [(scatter / np.sqrt(square)).mean(axis=(1, 2)) for square in (paired, independent)]
    np.testing.assert_allclose(ratios[0], 1, atol=0.1)
    assert ratios[1][1] < 0.85, "with a baseline the two are correlated"


def test_an_integral_that_does_not_converge_is_the_finest_rules_and_without_a_rule_no_number(subject, monkeypatch):
    vae, x = subject.vae, subject.held_out[0]
    (mu,), (logvar,) = vae.encode(x[None])
    q = sv.Gaussian(mu, logvar)
    want = point_1.expectation_of_log_joint(vae, x, q)
    monkeypatch.setattr(point_1, "MAX_POINTS", 1500)
    np.testing.assert_allclose(point_1.expectation_of_log_joint(vae, x, q), want, rtol=1e-2)
    monkeypatch.setattr(point_1, "MAX_POINTS", 10)
    assert np.isnan(point_1.expectation_of_log_joint(vae, x, q))


def test_the_forms_of_an_elbo_whose_mass_is_out_in_the_tails_of_q_are_whole():
    """A Poisson's E_q exp(w z) = exp(w^2 sigma^2 / 2) comes from w standard deviations of q out."""
    vae = sv.VAE(1, 1, (), "poisson", dtype="float64", engine="reference")
    vae.parameters["encoder.head.weight"][...] = 0
    vae.parameters["decoder.head.weight"][...] = rate = 4.0
    x, q = np.array([3.0]), sv.Gaussian(np.zeros(1), np.zeros(1))
    log_likelihood = -np.exp(rate**2 / 2) - np.log(6)
    assert point_1.expectation_of_log_likelihood(vae, x, q) == pytest.approx(log_likelihood, abs=1e-9)
    log_prior = -0.5 * (1 + np.log(2 * np.pi))
    assert point_1.expectation_of_log_joint(vae, x, q) == pytest.approx(log_likelihood + log_prior, abs=1e-9)


def test_a_draws_gradient_averages_to_the_slope_of_the_exact_elbo(subject):
    """Both estimators against finite differences of the integral."""
    from scratchvae.report.explain.posterior_shapes import elbo_of

    vae, x = subject.vae, subject.held_out[0]
    (mu,), (logvar,) = vae.encode(x[None])
    slope = []
    for index in range(4):
        values = []
        for sign in (1, -1):
            head = np.concatenate([mu, logvar])
            head[index] += sign * 1e-4
            values.append(elbo_of(vae, x, sv.Gaussian(head[:2], head[2:])))
        slope.append((values[0] - values[1]) / 2e-4)
    eps = normals(1, Stream.POSTERIOR, 5, np.array([0]), 2 * 20_000).reshape(-1, 2).astype(float)
    for draws in (reparameterized_draws(vae, x, eps), score_function_draws(vae, x, eps, baseline=True)):
        error = draws.std(axis=0) / np.sqrt(len(eps))
        assert (np.abs(draws.mean(axis=0) - slope) < 5 * error).all()


def test_a_weight_on_the_kl_is_a_variance(answers):
    found = answers.squared
    assert found.gradient_difference < 1e-12
    assert found.best_log_evidence >= found.log_evidence.max() - 1e-9
    assert {one.name: one.variance for one in found.implied}["mse-mean"] == pytest.approx(32)
    assert (np.diff(found.active) <= 0).all(), "a larger variance keeps fewer units"


def test_deviations_are_roots_of_variances_of_the_pixels(answers):
    x = load("digits").train.astype(float)
    assert answers.squared.pixel_deviation == pytest.approx(np.sqrt(np.square(x - x.mean(axis=0)).mean()))
    assert answers.squared.best_deviation**2 == pytest.approx(answers.squared.best_variance)


def test_all_numbers_are_json(answers):
    record = json.loads(json.dumps(answers.as_dict()))
    assert set(record) == {field.name for field in dataclasses.fields(answers)}
    assert record["identity"]["worst_residual"] <= 1e-10
    assert len(record["identity"]["log_evidence"]) == SETTINGS.examples


def test_more_than_three_latent_dimensions_are_refused():
    from scratchvae.data import load

    vae = sv.VAE(64, 4, (4,), engine="reference")
    with pytest.raises(ValueError, match="latent_dim is 4"):
        subject_of(vae, load("digits"), "threshold", 0, 0, "run")


# --- how they are shown -----------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Everything a page could fetch, its headings, and its tags."""

    def __init__(self):
        super().__init__()
        self.links, self.tags, self.ids, self.alts = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
            if name == "alt":
                self.alts.append(value)


def test_the_page_fetches_nothing_and_runs_nothing(html):
    found = Links()
    found.feed(html)
    assert "script" not in found.tags
    assert "iframe" not in found.tags
    for link in found.links:
        assert link.startswith(("data:", "#")), link[:80]
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)


def test_every_entry_of_the_contents_leads_somewhere(html):
    found = Links()
    found.feed(html)
    inside = [link[1:] for link in found.links if link.startswith("#")]
    assert set(inside) <= set(found.ids)
    assert [f"p{number}" for number in range(1, 11)] == inside[3:], "three cross-references, then ten questions"


def test_nothing_is_left_unfilled_and_every_number_is_a_number(html):
    text = re.sub(r"<style>.*?</style>|<pre>.*?</pre>|src(set)?=\"[^\"]*\"", "", html, flags=re.S)
    assert "$" not in text
    assert not re.search(r"\{[a-z_]+[.\[]", text)
    assert not re.search(r"\bnan\b|\binf\b|None", text)


def test_the_page_shows_the_numbers_that_were_computed(html, answers):
    assert page.written(answers.identity.mean_log_evidence, ".3f") in html
    assert page.written(answers.movement.phi.largest_change, ".1e") in html
    assert page.written(answers.which.worst_residual, ".1e") in html


def test_every_picture_has_axes_with_labels_and_units(subject, answers):
    unlabelled_on_purpose = {"x", ""}
    for name, draw in page.drawings(subject, answers).items():
        with plots.style(dark=False):
            figure = draw()
            figure.draw_without_rendering()
        assert name in page.captions(subject)
        axes = [axes for axes in figure.axes if axes.get_visible()]
        assert axes
        for one in axes:
            if one.get_title().split(",")[0].split(":")[0] in unlabelled_on_purpose and not len(one.get_xticks()):
                continue  # the image itself
            shared = one.get_subplotspec()
            assert one.get_xlabel() or not shared.is_last_row(), (name, one.get_title())
            needs_label = shared.is_first_col()
            assert one.get_ylabel() or not needs_label or _named_ticks(one), (name, one.get_title())
        words = " ".join(one.get_xlabel() + one.get_ylabel() for one in axes)
        if name not in ("model", "shapes"):
            assert "nats" in words or "pixels" in words, name


@pytest.mark.parametrize("name", ["model", "forms", "mixture", "gradients", "squared"])
def test_a_picture_of_none_of_the_pages_terms_has_none_of_their_colours(subject, answers, name):
    with plots.style(dark=False):
        figure = page.drawings(subject, answers)[name]()
        terms = {matplotlib.colors.to_hex(figures.colour(term)) for term in ("elbo", "gap", "prior", "other")}
    used = set()
    for axes in figure.axes:
        parts = [line.get_color() for line in axes.lines] + [patch.get_facecolor() for patch in axes.patches]
        parts += [patch.get_edgecolor() for patch in axes.patches]
        parts += [each for marks in axes.collections for each in (*marks.get_edgecolor(), *marks.get_facecolor())]
        used |= {matplotlib.colors.to_hex(part) for part in parts}
    assert used
    assert not used & terms


def _named_ticks(axes):
    """Bars whose ticks are names need no label."""
    return any(label.get_text().strip() and not re.match(r"^[−\d.\s$\\{}^a-z]*$", label.get_text())
               for label in axes.get_yticklabels())  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(page.CAPTIONS) - set(page.RASTER)))
def test_an_svg_is_drawn_once_for_both_styles(subject, answers, name):
    assert_svg_of_both_styles(page.drawings(subject, answers)[name])


def test_the_average_kl_is_taken_apart_by_integration_where_that_can_be(subject, answers):
    assert answers.surgery_is_integral
    x = subject.held_out[:50]
    by_samples, is_integral = surgery(sv.VAE(x.shape[1], 3, (8,), seed=0), x, seed=0)
    assert not is_integral
    assert by_samples.error > 1e-6
    assert answers.surgery.error < 1e-7


def test_every_excerpt_stands_in_the_package_word_for_word():
    for name, shown in page.excerpts().items():
        lines = (sources.PACKAGE.parent / shown.file).read_text().splitlines()
        assert shown.code, name
        code = [line.strip() for line in shown.code.splitlines()]
        assert code[0] in lines[shown.line - 1], name
        assert all(any(line in whole for whole in lines) for line in code)


def test_the_code_stands_right_below_every_formula_that_is_computed():
    text = (files("scratchvae.report.explain") / "page.html").read_text(encoding="utf-8")
    formulas_and_next = re.findall(r"\$\$(.+?)\$\$\n(\S+)", text, flags=re.S)
    without = [formula for formula, after in formulas_and_next if not after.startswith("{code[")]
    assert len(formulas_and_next) >= 12
    assert len(without) == 2, "the identity, whose code stands below its three terms, and the definition of the KL"


def test_annealing_spends_no_more_than_it_is_given():
    per_transition = point_8.CHAINS * point_8.LEAPFROG
    for points in (2000, 20_000, 200_000):
        temperatures = point_8.affordable_temperatures(points)
        pilot = PILOT_WARM_UP + min(temperatures, PILOT_TEMPERATURES)
        starts = 2 * point_8.CHAINS
        assert 0 <= points - starts - per_transition * (temperatures - 2 + pilot) <= 2 * per_transition


def test_the_page_says_what_p_of_x_is_of_these_data(subject, answers):
    assert "one image among all 2<sup>64</sup>" in page.density_in_words(subject, answers)
    grey = dataclasses.replace(subject, held_out=subject.held_out * 0.5)
    assert "neither a probability nor a density" in page.density_in_words(grey, answers)
    for likelihood, phrase in (
        ("poisson", "is a probability"),
        ("discretised-logistic-diagonal:17", "is a probability"),
        ("gaussian-learned-diagonal", "per unit of volume"),
        ("continuous-bernoulli", "per unit"),
    ):
        other = dataclasses.replace(subject, vae=sv.VAE(64, 2, (3,), likelihood, engine="reference"))
        assert phrase in page.density_in_words(other, answers)
        assert page.family(other) in page.LIKELIHOODS


def test_the_page_warns_where_integrals_have_not_settled(answers):
    assert page.doubt(answers) == ""
    worse = dataclasses.replace(answers.identity, converged=np.zeros_like(answers.identity.converged))
    assert f"For {worse.examples} of the {worse.examples}" in page.doubt(dataclasses.replace(answers, identity=worse))


def test_an_excerpt_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no line"):
        sources.excerpt(sources.excerpt, "this line does not " + "exist")
    with pytest.raises(ValueError, match="no line"):
        sources.excerpt(sources.excerpt, "lines, start", "this neither, it is " + "nowhere")


def test_marked_code_says_what_the_code_says():
    code = 'def f(x):\n    return "a<b" if x else None  # a comment\n'
    shown = sources.marked(code)
    assert '<span class="comment"># a comment</span>' in shown
    assert re.sub(r"</?span[^>]*>", "", shown) == code.replace("<", "&lt;").rstrip()
    assert sources.marked("if (") == "if ("


def test_formulas_become_mathml():
    shown = formulas.inline("log p_θ(x) = frac{1}{2} ∑_{k=1}^K x_k^2")
    assert shown.startswith("<math>")
    assert "<msub><mi>p</mi><mi>θ</mi></msub>" in shown
    assert "<mfrac>" in shown
    assert "<munderover>" in shown
    assert "<msubsup><mi>x</mi><mi>k</mi><mn>2</mn></msubsup>" in shown
    assert formulas.display("a & = b\n& = c").count("<mtr>") == 2
    assert '<mrow class="elbo">' in formulas.inline("@elbo{ELBO}")
    with pytest.raises(ValueError, match="brace"):
        formulas.inline("a}")


@pytest.mark.parametrize(
    ("value", "spec", "shown"),
    [
        (-1.5, ".2f", "−1.50"),
        (-0.0001, ".2f", "0.00"),
        (2.3e-12, ".1e", "2.3 × 10<sup>−12</sup>"),
        (1e-12, ".0e", "10<sup>−12</sup>"),
        (20000, ",", "20,000"),
        (0.0, ".1e", "0"),
        (0.0, ".3f", "0.000"),
    ],
)
def test_numbers_are_written_as_a_reader_expects(value, spec, shown):
    assert page.written(value, spec) == shown


CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nor does the browser get anywhere on its own
)


def open_in_chromium(path, folder):
    """The page's DOM after loading, what its console said, and every address it asked for besides its own file."""
    log = folder / "net.json"
    ended = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}",
         "--virtual-time-budget=3000", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    return ended.stdout, console, requests_of_the_page(log.read_text())


def requests_of_the_page(log):
    """Addresses in a network log that the page itself asked for; what the browser does on its own has no origin."""
    try:
        events = json.loads(log)["events"]
    except json.JSONDecodeError:  # the browser was gone before it had closed the list
        events = json.loads(log.rstrip().rstrip(",") + "]}")["events"]
    started = [event["params"] for event in events if "initiator" in event.get("params", {})]
    return {entry["url"] for entry in started if entry["initiator"] != "not an origin"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install chromium to open the page in it")
def test_the_page_opens_from_a_file_without_an_error_and_without_a_network(html, tmp_path):
    path = tmp_path / "explain.html"
    path.write_text(html, encoding="utf-8")
    dom, console, addresses = open_in_chromium(path, tmp_path)
    assert "Ten questions" in dom
    assert dom.count("<figure") == html.count("<figure")
    assert console == []
    assert addresses == set()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install chromium to open the page in it")
def test_a_page_with_an_error_or_a_request_is_noticed(tmp_path):
    path = tmp_path / "bad.html"
    path.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("wrong")</script>', encoding="utf-8")
    _, console, addresses = open_in_chromium(path, tmp_path)
    assert any("wrong" in line for line in console)
    assert any("127.0.0.1:9" in address for address in addresses)


@pytest.mark.slow
def test_the_whole_page_with_its_own_settings_keeps_its_bars():
    settings = Settings()
    subject = train_on_digits(settings, 0, "compiled", lambda epoch: None)
    answers = answer(subject, settings, 0, lambda words, done, total: None)
    assert answers.identity.converged.all()
    assert answers.identity.worst_residual <= 1e-10
    assert answers.identity.linear_residual <= 1e-12
    assert answers.forms.spread <= 1e-10
    assert answers.movement.phi.largest_change <= 1e-10
    assert answers.movement.theta.largest_change > 0.5
    assert answers.which.worst_residual <= 1e-8
    assert answers.estimators.bounds.in_order
    assert list(answers.estimators.bounds.samples) == [1, 5, 50, 500, 5000]
    x = subject.held_out[answers.identity.rows]
    sampled = log_evidence(subject.vae, x, num_samples=5000)
    miss = sampled.log_evidence - answers.identity.log_evidence
    assert (miss < 6 * sampled.standard_error).all(), "sampling is never far above"
    assert np.median(np.abs(miss)) < 0.05, "below it may be, where q misses a part of the posterior"
    assert "Ten questions" in render(subject, answers, settings, "scratchvae explain")
