"""`explain` on runs unlike its own model, on small models that need no training."""

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import scratchvae as sv
from scratchvae.data import Dataset
from scratchvae.report import plots
from scratchvae.report.drawing import as_written, shades
from scratchvae.report.explain import Settings, figures, page, subject_of
from scratchvae.report.explain.answers import numbers
from scratchvae.report.explain.identity import identity
from scratchvae.report.explain.known_density import infinite_mixture, train_toy
from scratchvae.report.explain.movement import Movement, Phase, movement
from scratchvae.report.explain.posterior_shapes import shapes

SETTINGS = Settings.quick()._replace(examples=2, movement_steps=4, movement_looks=2, toy_epochs=1, toy_examples=100)
PIXELS = np.random.default_rng(0).random((60, 4))


def subject_on(x, labels=None, binarize="threshold", image_shape=None, **options):
    """An untrained model and its data, the last ten rows held out."""
    parts = (None, None) if labels is None else (labels[:-10], labels[-10:])
    data = Dataset("table", x[:-10], x[-10:], image_shape, True, "a table", *parts)
    settings = {"latent_dim": 1, "hidden": (3,), "activation": "tanh", "dtype": "float64", "engine": "reference"}
    vae = sv.VAE(x.shape[1], **settings | options)
    return subject_of(vae, data, binarize, 0, 1, "of a run")


MARKUP = [("a & b", "<i>"), (r"$\foo$", "$5")]


@pytest.mark.parametrize("words", [("cat", "dog"), *(pytest.param(words, marks=pytest.mark.slow) for words in MARKUP)])
def test_labels_that_are_words_are_shown_as_they_are_written(words):
    subject = subject_on(PIXELS, np.where(PIXELS[:, 0] > 0.5, *words))
    one = identity(subject, SETTINGS)
    found = shapes(subject, SETTINGS, one)
    assert [shape["label"] for shape in numbers(found)["shapes"]] == [subject.labels[s.row] for s in found.shapes]
    assert f"image {found.largest.row}, a {page.escape(found.largest.label)}</td>" in page._shapes_table(
        SimpleNamespace(shapes=found)
    )
    drawn = figures.the_model(subject), figures.two_divergences(one, subject), figures.shapes(found, subject)
    for figure in drawn:
        figure.draw_without_rendering()  # where text that is a formula would be read
    (axes,) = drawn[0].axes
    colours = {text.get_text(): text.get_color() for text in axes.texts} or {
        text.get_text(): tuple(points.get_edgecolor()[0])
        for text, points in zip(axes.get_legend().get_texts(), axes.collections, strict=True)
    }
    assert len(colours) == len(set(colours.values())) == 2, "a colour for each label"


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_words_stand_in_a_legend_and_not_across_one_another(latent_dim):
    words = np.array(["setosa", "_virginica"])
    subject = subject_on(PIXELS, words[np.arange(60) % 2], latent_dim=latent_dim)
    (axes,) = figures.the_model(subject).axes
    assert not axes.texts
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [as_written("_virginica"), "setosa"]
    assert sum(len(points.get_offsets()) for points in axes.collections) == len(subject.held_out)


def test_examples_whose_label_is_no_number_are_in_the_picture_too():
    subject = subject_on(PIXELS, np.where(np.arange(60) % 2, np.nan, 7.0))
    (axes,) = figures.the_model(subject).axes
    assert sorted(text.get_text() for text in axes.texts) == ["7.0"] * 5 + ["nan"] * 5


@pytest.mark.parametrize(("examples", "drawn"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_of_a_few_examples_each_is_drawn_once_and_a_single_one_has_no_correlation(examples, drawn):
    settings, subject = SETTINGS._replace(examples=examples, shown=4), subject_on(PIXELS)
    one = identity(subject, settings)
    found = shapes(subject, settings, one)
    assert len({shape.row for shape in found.shapes}) == len(found.shapes) == drawn
    assert (found.smallest.gap, found.largest.gap) == (one.smallest_gap, one.largest_gap)
    assert np.isnan(one.correlation) == (examples == 1)
    assert bool(page.correlation_in_words(SimpleNamespace(identity=one))) == (examples > 1)


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([1e-12, 1e-11], None),
        (
            [1e-12, 2e-5],
            "For 1 of the 2 images the integrals have not settled to 1e-10 nats; the largest error they report",
        ),
        (
            [np.inf, 2e-5],
            "For 2 of the 2 images the integrals have not settled to 1e-10 nats; of 1 of them no error is known.",
        ),
    ],
)
def test_the_page_says_how_far_integrals_are_from_settled_where_that_is_known(errors, said):
    error = np.array(errors)
    doubt = page.doubt(SimpleNamespace(identity=SimpleNamespace(converged=error <= 1e-10, error=error, examples=2)))
    assert said in doubt if said else doubt == ""


def test_grey_pixels_that_were_trained_on_are_explained_as_they_are():
    subject = subject_on(PIXELS, binarize="none")
    np.testing.assert_array_equal(subject.train, PIXELS[:-10])
    found = movement(subject, SETTINGS, seed=0)
    assert found.phi.largest_change <= 1e-10 < found.theta.largest_change


def test_a_run_whose_examples_cannot_be_integrated_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("scratchvae.report.explain.identity.MAX_POINTS", 20)
    with pytest.raises(
        ValueError, match=r"^of a run: 20 points do not integrate p\(x, z\) of held-out example 0;"
    ) as said:
        identity(subject_on(PIXELS), SETTINGS)
    assert "\n" not in str(said.value)


def test_a_run_with_one_example_held_out_is_refused():
    data = Dataset("table", PIXELS[:-1], PIXELS[-1:], None, True, "a table", None, None)
    with pytest.raises(ValueError, match=r"^of a run: 1 example is held out; explain compares examples, at least 2$"):
        subject_of(sv.VAE(4, 1, (3,)), data, "threshold", 0, 1, "of a run")


@pytest.mark.parametrize(("first", "words"), [(-5.0, "training steps"), (-99.0, "training steps, some cut off")])
def test_a_picture_of_training_says_where_its_frame_cuts_a_bound_off(first, words):
    steps, line = np.arange(3), np.full((3, 2), -1.0)
    bound = np.array([[first, first], [-3.0, -3.0], [-2.0, -2.0]])
    phi = Phase("phi", steps, line, bound, line - bound, line)
    theta = Phase("theta", steps, line, np.full((3, 2), -2.0), line + 2.0, line)
    left, right = figures.movement(Movement(phi, theta, 2)).axes
    assert (left.get_xlabel(), right.get_xlabel()) == (words, "training steps")
    assert (left.get_ylim()[0] <= first) == ("cut" not in words)


def test_the_page_says_where_the_elbo_was_highest_of_the_epochs_that_it_shows():
    which = SimpleNamespace(epochs=(0, 4, 9), elbo=np.array([-3.0, -1.0, -2.0]), kl=np.zeros(3), gap=np.arange(3.0))
    assert page.late_epochs(SimpleNamespace(which=which)).startswith("Of the epochs shown the ELBO is highest at 4. ")


def test_the_last_seed_is_as_good_as_any():
    subject, seed = subject_on(PIXELS), 2**64 - 1
    assert movement(subject, SETTINGS, seed).examples == SETTINGS.movement_examples
    found = infinite_mixture(train_toy(SETTINGS, seed), subject, SETTINGS, identity(subject, SETTINGS), seed)
    assert found.errors[-1] < found.errors[0]


@pytest.mark.parametrize("columns", [[0], [0, 1], [0, 1, 0, 1]])
def test_data_may_vary_in_no_more_directions_than_there_are_latent_dimensions(columns):
    subject = subject_on(PIXELS[:, columns], binarize="none", latent_dim=2, likelihood="gaussian")
    found = identity(subject, SETTINGS)
    assert found.worst_residual <= 1e-10
    assert found.linear_residual <= 1e-12
    assert found.linear_examples == SETTINGS.examples


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.parametrize("image_shape", [None, (2, 2)])
@pytest.mark.parametrize("labels", [None, np.arange(60) % 2])
def test_the_picture_of_the_model_has_the_dimensions_of_z_and_fills_its_place(latent_dim, image_shape, labels):
    subject = subject_on(PIXELS, labels, latent_dim=latent_dim, image_shape=image_shape)
    with plots.style(dark=False):
        figure = figures.the_model(subject)
        width, height = Image.open(io.BytesIO(plots.figure_bytes(figure))).size
    assert width > 1.7 * height
    assert width > 8 * 160, "inches, dots an inch: a picture less wide would be drawn out, and blurred"
    assert len(figure.axes) == (1 if image_shape is None else 2)
    for axes in figure.axes:
        assert (axes.get_xlabel(), axes.get_ylabel() == "z[1]") == ("z[0]", latent_dim > 1)
    caption = page.captions(subject)["model"]
    assert ("first two of three" in caption) == (latent_dim == 3)
    assert ("circles" in caption) == (latent_dim > 1)
    assert ("each point is a picture" in caption) == (image_shape is not None)
    assert ("for each label" in caption) == (latent_dim == 1 and labels is not None)


def test_a_decoded_grid_has_the_means_of_its_points():
    subject = subject_on(PIXELS, image_shape=(2, 2), latent_dim=3)
    (shown,) = figures.the_model(subject).axes[1].images
    corner = figures._normal_quantiles(figures.MANIFOLD).round(2)[-1]
    top_right = subject.vae.decode(np.array([[corner, corner, 0.0]])).reshape(2, 2)
    np.testing.assert_array_equal(shown.get_array()[:2, -2:], top_right)


def test_counts_are_drawn_in_the_shades_of_the_data():
    counts = np.random.default_rng(0).poisson(20.0, (60, 4))
    subject = subject_on(counts, None, "none", image_shape=(2, 2), latent_dim=2, likelihood="poisson")
    found = shapes(subject, SETTINGS, identity(subject, SETTINGS))
    (decoded,), (example,) = figures.the_model(subject).axes[1].images, figures.shapes(found, subject).axes[0].images
    assert decoded.get_clim() == example.get_clim() == shades(subject.held_out) != (0.0, 1.0)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (sv.ELBO(num_samples=3), None),
        (sv.ELBO(beta=4.0), "ELBO(num_samples=1, beta=4.0)"),
        (sv.IWAE(num_samples=5), "IWAE(num_samples=5)"),
    ],
)
def test_the_page_says_by_what_a_model_was_trained_where_it_is_not_the_elbo(objective, said):
    words = page.maximised(dataclasses.replace(subject_on(PIXELS), objective=objective))
    assert words == "what is maximised" if said is None else f"trained by <code>{said}</code>" in words


@pytest.mark.parametrize(("log_evidence", "mantissa", "power"), [(-12.5, "2.7", 5), (-3000.0, "7.6", 1302)])
def test_a_probability_too_small_for_a_float_is_said_too(log_evidence, mantissa, power):
    answers = SimpleNamespace(identity=SimpleNamespace(mean_log_evidence=log_evidence))
    said = page.density_in_words(subject_on(PIXELS), answers)
    assert f"about one in {mantissa} \N{MULTIPLICATION SIGN} 10<sup>{power}</sup>; " in said


def test_the_words_are_those_of_the_data():
    table = subject_on(PIXELS, binarize="none", likelihood="gaussian")
    assert page.examples_in_words(table) == (
        "50 examples of “table”; what the page calls an image is a row of them, a pixel a column"
    )
    images = subject_on(PIXELS, image_shape=(2, 2), likelihood="discretised-logistic:2")
    assert page.examples_in_words(images) == "50 examples of “table” (binarized: threshold)"
    assert "one of 2 levels" in page.likelihood_in_words(images)
