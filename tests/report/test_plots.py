"""Pictures, drawn without a display and looked at: how many images, what is written on the axes, which limits."""

import io
import re
import tracemalloc

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import scratchvae as sv
from scratchvae.report import plots
from scratchvae.report.drawing import HELD_OUT, MOST_ACROSS, TRAINING, shades, tile_middles, zoom
from scratchvae.report.examples import NAMED
from scratchvae.report.run_report import latent_picture

IMAGES = np.linspace(0.0, 1.0, 7 * 4 * 3).reshape(7, 4, 3)
RNG = np.random.default_rng(0)
ROWS = (RNG.random((30, 16)) > 0.5).astype(np.float32)
LABELS = np.arange(30) % 3


def epochs(count: int, objective: float = 0.0) -> list[dict]:
    """A history whose first epochs are far worse than the rest, and whose objective is the ELBO and something."""
    values = [-1000.0 / (1 + epoch) for epoch in range(count)]
    terms = [{"elbo": v, "reconstruction": v + 3.0, "kl": 3.0, "objective": v + objective} for v in values]
    return [{"epoch": epoch + 1, "train": term, "validation": term} for epoch, term in enumerate(terms)]


def model(data_dim: int = 16, latent_dim: int = 4, **options) -> sv.VAE:
    return sv.VAE(data_dim, latent_dim, (8,), engine="reference", **options)


def images_in(axes, shape: tuple[int, int]) -> float:
    """How many images of this shape a grid holds: pixels that are drawn, by the pixels of one."""
    return np.isfinite(axes.images[0].get_array().filled(np.nan)).sum() / np.prod(shape)


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def written(labels) -> list[str]:
    return [label.get_text() for label in labels]


# --- grids ------------------------------------------------------------------------------------------------------------


def test_tiles_have_their_middles_in_the_middle():
    """Half an image on either side, and the first begins where the grid does, the last ends where it ends."""
    axes = plots.show_grid(Figure().subplots(), np.ones((6, 5, 3)), columns=3)
    grid = axes.images[0].get_array().filled(np.nan)
    for length, count, size in zip(grid.shape, (2, 3), (5, 3), strict=True):
        ends = [(middle - size / 2 + 0.5, middle + size / 2 - 0.5) for middle in tile_middles(range(count), size)]
        assert ends[0][0] == 0
        assert ends[-1][1] == length - 1


def test_the_middles_of_a_grid_that_is_thinned_are_where_they_were():
    shape, columns = (200, 140), 12
    axes = plots.show_grid(Figure().subplots(), np.ones((3 * columns, *shape)), columns)
    assert axes.images[0].get_array().shape[1] <= MOST_ACROSS
    for limits, count, size in zip((axes.get_ylim()[::-1], axes.get_xlim()), (3, columns), shape, strict=True):
        middles = tile_middles(range(count), size)
        assert (middles[0] - size / 2, middles[-1] + size / 2) == limits


def test_a_grid_holds_every_image_where_it_belongs_and_nothing_elsewhere():
    grid = plots.image_grid(IMAGES, columns=3, gap=1)
    assert grid.shape == (3 * 4 + 2, 3 * 3 + 2)
    for index in range(7):
        top, left = index // 3 * 5, index % 3 * 4
        assert np.array_equal(grid[top : top + 4, left : left + 3], IMAGES[index])
    assert np.isfinite(grid).sum() == IMAGES.size


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (4, 2, 2), (7, 3, 3), (12, 3, 4)])
def test_a_grid_is_as_near_to_a_square_as_whole_rows_allow(count, rows, columns):
    assert plots.image_grid(np.zeros((count, 4, 4)), gap=1).shape == (rows * 5 - 1, columns * 5 - 1)


@pytest.mark.parametrize(("shape", "drawn"), [((4, 4), (96, 96)), ((28, 14), (84, 42)), ((200, 3), (200, 3))])
def test_small_images_are_enlarged_and_large_ones_are_kept(shape, drawn):
    with Image.open(io.BytesIO(plots.grid_png(np.zeros((1, *shape))))) as picture:
        assert (picture.height, picture.width) == drawn


@pytest.mark.parametrize(
    ("values", "black_and_white"),
    [([0.2, 0.7], (0.0, 1.0)), ([5.0, 5.0], (5.0, 6.0)), ([-0.5] * 500 + [0.5] * 500, (-0.5, 0.5))],
)
def test_black_and_white_are_0_and_1_or_the_range_of_the_values(values, black_and_white):
    assert shades(np.array(values)) == black_and_white


def test_a_png_of_a_grid_keeps_every_pixel_sharp():
    images = np.zeros((2, 2, 2))
    images[0, 0, 0] = 1.0
    with Image.open(io.BytesIO(plots.grid_png(images, columns=2, scale=10))) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (20, 2 * 20 + 5)
    assert np.all(pixels[:10, :10] == 255)
    assert np.all(pixels[10:, :20] == 0)


def test_a_png_of_a_grid_has_the_shades_of_its_images():
    counts = np.arange(5.0, 21.0).reshape(1, 4, 4)
    with Image.open(io.BytesIO(plots.grid_png(counts, scale=1))) as picture:
        pixels = np.asarray(picture)
    assert (pixels[0, 0], pixels[-1, -1]) == (0, 255)
    assert (np.diff(pixels.reshape(-1).astype(int)) > 0).all()


@pytest.mark.parametrize(
    ("count", "side"), [(64, 810), (10_000, 7_596), pytest.param(40_000, 6_798, marks=pytest.mark.slow)]
)
def test_a_png_of_many_images_has_small_ones_and_takes_little_memory(count, side):
    """Twelve pixels for one of an 8 x 8 image, then nine and four, and half as many between images."""
    images = np.zeros((count, 8, 8), np.float32)
    tracemalloc.start()
    png = plots.grid_png(images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (side, side)
    assert peak < 4 * side**2


@pytest.mark.parametrize(
    ("data_dim", "given", "shape"),
    [(784, None, (28, 28)), (12, (3, 4), (3, 4)), (12, [3, 4], (3, 4)), (12, None, None), (4, None, None)],
)
def test_what_counts_as_an_image(data_dim, given, shape):
    assert plots.image_shape_of(data_dim, given) == shape


@pytest.mark.parametrize("given", [(14, 56, 1), (784,), (28, 27), ()])
def test_what_is_no_height_and_width_of_an_example_is_refused(given):
    with pytest.raises(ValueError, match=rf"image_shape is {re.escape(str(given))}; expected a height and a width"):
        plots.image_shape_of(784, given)


# --- data and what the model makes of them ----------------------------------------------------------------------------


def test_lines_of_images_stand_under_each_other_and_say_what_they_are():
    rows = IMAGES.reshape(7, 12)
    axes = plots.show_lines(Figure().subplots(), {"data": rows, "reconstruction": 1 - rows}, (4, 3), columns=3)
    assert images_in(axes, (4, 3)) == 2 * 6  # two full rows of three, each twice
    assert written(axes.get_yticklabels()) == ["data", "reconstruction"] * 2
    grid = axes.images[0].get_array()
    assert np.allclose(grid[:4, :3] + grid[5:9, :3], 1.0)


def test_reconstructions_are_the_data_and_the_models_means():
    vae = model()
    axes = plots.reconstructions(vae, ROWS[:12], columns=6)
    assert images_in(axes, (4, 4)) == 24
    assert written(axes.get_yticklabels()) == ["data", "reconstruction"] * 2
    grid = axes.images[0].get_array()
    np.testing.assert_allclose(grid[:4, :4].ravel(), ROWS[0])
    np.testing.assert_allclose(grid[5:9, :4].ravel(), vae.reconstruct(ROWS[:12])[0], rtol=1e-5)
    assert "reconstructions" in axes.get_title()


def test_bytes_are_drawn_as_pixels_between_0_and_1():
    axes = plots.reconstructions(model(), (ROWS[:4] * 255).astype(np.uint8))
    assert axes.images[0].get_array().max() == 1.0
    assert axes.images[0].get_clim() == (0.0, 1.0)


def test_no_label_of_the_reconstructions_is_cut():
    figure = plots.pictures({"data": ROWS[:24], "reconstruction": 1 - ROWS[:24]}, ROWS[:12], (4, 4))
    with Image.open(io.BytesIO(plots.figure_bytes(figure, background="white", dots_per_inch=60))) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels[:, :3] > 250).all()  # a white margin left of the longest word
    assert (pixels[:, 3:40] < 128).any()


def test_samples_are_as_many_images_as_asked_for():
    vae = model()
    axes = plots.samples(vae, 10, seed=3, columns=4)
    assert images_in(axes, (4, 4)) == 10
    np.testing.assert_allclose(axes.images[0].get_array()[:4, :4].ravel(), vae.sample(10, seed=3, mean=True)[0])
    assert "prior" in axes.get_title()
    assert "the mean of p(x|z)" in axes.get_title()
    draws = plots.samples(vae, 10, mean=False)
    assert set(np.unique(draws.images[0].get_array().compressed())) <= {0.0, 1.0}
    assert "x drawn from p(x|z)" in draws.get_title()


def test_images_that_are_no_square_are_drawn_as_the_data_say():
    axes = plots.samples(model(), 6, image_shape=(2, 8), columns=3)
    assert axes.images[0].get_array().shape == (2 * 2 + 1, 3 * 8 + 2)


def test_points_of_a_plane_are_scattered():
    axes = plots.reconstructions(model(2, likelihood="gaussian"), RNG.normal(size=(9, 2)).astype(np.float32))
    assert [len(points.get_offsets()) for points in axes.collections] == [9, 9]
    assert legend_of(axes) == ["data", "reconstruction"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x[0]", "x[1]")


def test_rows_that_are_no_images_are_a_heat_map():
    axes = plots.reconstructions(model(5, likelihood="gaussian"), RNG.normal(size=(9, 5)).astype(np.float32))
    assert axes.images[0].get_array().shape == (2 * 9 + 1, 5)
    assert written(axes.get_yticklabels()) == ["data", "reconstruction"]
    assert list(axes.get_yticks()) == [4, 14]  # the middles of rows 0 to 8 and 10 to 18
    assert axes.get_xlabel() == "dimension"


def test_columns_that_have_names_are_called_by_them():
    names, rows = ["$ a year", "_begun", "height", "a name that is too long for a tick"], RNG.normal(size=(6, 4))
    figure = plots.pictures({"data": rows}, rows, None, names)
    for axes in (*figure.axes[:2], plots.traversals(model(4, likelihood="gaussian"), names=names)):
        assert written(axes.get_xticklabels()) == [r"\$ a year", r"$\_$begun", "height", "a name that is too …"]
        assert axes.get_xlabel() == ""
    many = [f"column {number}" for number in range(NAMED + 1)]
    axes = plots.traversals(model(NAMED + 1, likelihood="gaussian"), names=many)
    assert axes.get_xlabel() == "dimension"  # their names would overlap


def test_the_columns_of_a_plane_are_called_by_their_names():
    names, rows, vae = ["$ a year", "height"], RNG.normal(size=(6, 2)), model(2, latent_dim=2, likelihood="gaussian")
    figure = plots.pictures({"data": rows}, rows, None, names)
    for axes in (*figure.axes, plots.manifold(vae, 3, names=names), plots.traversals(vae, names=names)):
        assert (axes.get_xlabel(), axes.get_ylabel()) == (r"\$ a year", "height")


@pytest.mark.parametrize(
    ("dimensions", "shape", "panels"), [(16, (4, 4), 2), (2, None, 2), (5, None, 4)], ids=["images", "plane", "vectors"]
)
def test_every_kind_of_data_has_its_picture(dimensions, shape, panels):
    rows = RNG.normal(size=(24, dimensions))
    figure = plots.pictures({"data": rows, "reconstruction": 0.5 * rows}, rows, shape)
    assert len(figure.axes) == panels  # heat maps have colour bars of their own
    assert all(axes.get_title() or axes.get_ylabel() for axes in figure.axes)
    assert plots.figure_bytes(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(("dimensions", "shape"), [(16, (4, 4)), (5, None)], ids=["images", "vectors"])
def test_reconstructions_and_samples_are_in_the_shades_of_the_data(dimensions, shape):
    rows = RNG.normal(size=(24, dimensions))
    figure = plots.pictures({"data": rows, "reconstruction": 0.5 * rows}, 9.0 * rows, shape)
    assert [picture.get_clim() for axes in figure.axes[:2] for picture in axes.images] == [shades(rows)] * 2


@pytest.mark.parametrize("count", [1, 2, 12, 24])
def test_a_few_tall_images_are_not_drawn_larger_than_many(count):
    rows = RNG.random((count, 360))
    figure = plots.pictures({"data": rows, "reconstruction": rows}, RNG.random((48, 360)), (30, 12))
    assert figure.get_figheight() < 20  # inches


# --- training ---------------------------------------------------------------------------------------------------------


def test_learning_curves_show_every_term_with_units_and_both_parts():
    figure = plots.learning_curves(epochs(40))
    assert [axes.get_title().split()[0] for axes in figure.axes] == ["ELBO", "Reconstruction", "KL(q(z|x)"]
    assert figure.axes[0].get_ylabel() == "nats per example"
    assert [axes.get_xlabel() for axes in figure.axes] == [*2 * ["epoch, the first cut off"], "epoch"]
    assert all(len(axes.lines) == 2 for axes in figure.axes)
    assert legend_of(figure.axes[0]) == ["training", "held out"]


def test_every_learning_curve_is_its_own_term_of_its_own_part():
    history = [entry | {"validation": {k: 2 * v for k, v in entry["train"].items()}} for entry in epochs(3)]
    for axes, term in zip(plots.learning_curves(history).axes, ("elbo", "reconstruction", "kl"), strict=True):
        for line, part, name in zip(axes.lines, ("train", "validation"), ("training", "held out"), strict=True):
            assert line.get_label() == name
            np.testing.assert_array_equal(line.get_xydata(), [[row["epoch"], row[part][term]] for row in history])


def test_an_objective_other_than_the_elbo_is_a_term_too():
    assert [axes.get_title() for axes in plots.learning_curves(epochs(5, objective=1.0)).axes][3] == "Objective"


def test_an_objective_that_becomes_the_elbo_is_a_term_still():
    """A warm-up: the weight of the KL rises to 1."""
    history = epochs(3, objective=1.0) + epochs(5)[3:]
    assert len(plots.learning_curves(history).axes) == 4


def test_training_curves_have_every_term_in_one_picture():
    axes = plots.training_curves(epochs(12, objective=2.0))
    names = [name for term in ("ELBO", "Reconstruction", "KL(q(z|x) || p(z))", "Objective") for name in (term, term)]
    parts = ["training", "held out"] * 4
    assert legend_of(axes) == [f"{name}, {part}" for name, part in zip(names, parts, strict=True)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "nats per example")
    np.testing.assert_array_equal(axes.lines[4].get_ydata(), np.full(12, 3.0))
    assert [line.get_linestyle() for line in axes.lines[:2]] == ["-", "--"]
    low, high = axes.get_ylim()
    assert low < -1000 / 12
    assert high > 3.0  # no term ends outside


def test_training_curves_take_what_fit_returns_and_refuse_an_empty_history():
    history = sv.fit(model(), ROWS, epochs=2, progress=False)
    assert len(plots.training_curves(history).lines) == 3
    with pytest.raises(ValueError, match="no epoch"):
        plots.training_curves([])


def test_learning_curves_zoom_in_on_the_end():
    low, high = plots.learning_curves(epochs(40)).axes[0].get_ylim()
    assert -1000.0 < low < -25.0 < high


def test_a_curve_that_fits_is_whole_and_one_that_is_cut_says_so():
    steady = [entry | {"train": {name: 5 - 1 / entry["epoch"] for name in entry["train"]}} for entry in epochs(40)]
    for entry in steady[:20]:
        entry["train"] = {name: 4 + 0.05 * entry["epoch"] for name in entry["train"]}
    spiked = epochs(40)
    spiked[29]["train"] = {name: value - 1e4 for name, value in spiked[29]["train"].items()}
    cases = (steady, "epoch"), (epochs(40), "epoch, the first cut off"), (spiked, "epoch, some cut off")
    for history, words in cases:
        axes = plots.learning_curves([entry | {"validation": None} for entry in history]).axes[0]
        low, high = axes.get_ylim()
        assert all(low <= value <= high for value in axes.lines[0].get_ydata()) == (words == "epoch")
        assert axes.get_xlabel() == words


@pytest.mark.parametrize("last", [-9.0, 9.0])
def test_the_end_of_a_curve_is_in_the_frame_wherever_it_goes(last):
    low, high = zoom(np.array([*np.linspace(-1.0, 1.0, 39), last]))
    assert low < last < high


def test_a_curve_too_short_to_zoom_in_on_is_whole_beside_one_that_is_not():
    history = [entry | {"validation": None} for entry in epochs(40)]
    for entry in history[:2]:
        entry["validation"] = {name: value - 100.0 for name, value in entry["train"].items()}
    for axes in plots.learning_curves(history).axes:
        low, high = axes.get_ylim()
        assert all(low <= value <= high for value in axes.lines[1].get_ydata())


def test_one_epoch_is_a_point_and_not_an_invisible_line():
    line = plots.learning_curves(epochs(1)).axes[0].lines[0]
    assert line.get_marker() == "o"


# --- the latent space -------------------------------------------------------------------------------------------------


def test_a_latent_scatter_has_every_example_once_and_a_legend_of_its_labels():
    vae = model()
    axes = plots.latent_scatter(vae, ROWS, np.array(["cat", "dog", "owl"])[LABELS], dimensions=(1, 3))
    assert legend_of(axes) == ["cat", "dog", "owl"]
    mu = vae.encode(ROWS).mu
    for points, kind in zip(axes.collections, range(3), strict=True):
        np.testing.assert_allclose(points.get_offsets(), mu[LABELS == kind][:, [1, 3]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[1]", "z[3]")
    assert len({to_hex(points.get_facecolor()[0]) for points in axes.collections}) == 3


def test_a_latent_scatter_without_labels_is_one_colour_and_takes_the_plane_that_carries_most():
    vae = model()
    vae.parameters["encoder.head.weight"][:, [0, 2]] *= 20.0
    axes = plots.latent_scatter(vae, ROWS)
    assert len(axes.collections) == 1
    assert axes.get_legend() is None
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[0]", "z[2]")


def test_many_numbers_are_a_scale_and_many_words_the_commonest_and_others():
    for numbers in (np.arange(30), np.arange(30.0)):
        scale = plots.latent_scatter(model(), ROWS, numbers)
        assert scale.get_legend() is None
        assert [axes.get_ylabel() for axes in scale.figure.axes] == [scale.get_ylabel(), "label"]
        assert legend_of(plots.posterior_ellipses(model(), ROWS, numbers)) == ["q(z|x)", "prior N(0, I)"]
    words = plots.latent_scatter(model(), ROWS, np.array([f"w{row:02d}" for row in range(30)]))
    assert len(legend_of(words)) == 20
    assert legend_of(words)[-1] == "other"
    assert sum(len(points.get_offsets()) for points in words.collections) == 30


def test_twenty_labels_have_a_name_and_a_colour_each():
    axes = plots.latent_scatter(model(), ROWS, np.arange(30) % 20)
    assert legend_of(axes) == [str(label) for label in range(20)]
    assert len({tuple(points.get_facecolor()[0]) for points in axes.collections}) == 20


def test_of_many_words_the_commonest_keeps_its_name_wherever_it_stands_in_the_alphabet():
    words = np.array(["zebra"] * 8 + [f"w{row:02d}" for row in range(22)])
    groups = {points.get_label(): points for points in plots.latent_scatter(model(), ROWS, words).collections}
    assert len(groups["zebra"].get_offsets()) == 8


@pytest.mark.parametrize(
    "labels",
    [
        np.array([1.0, 2.0, np.nan])[LABELS],
        np.array([1, 2, np.nan], object)[LABELS],
        np.array([1, 2, None], object)[LABELS],
        np.array(["cat", "owl", np.nan], object)[LABELS],
        np.array(["cat", "owl", None], object)[LABELS],
        np.array(["other"] * 8 + [f"w{row:02d}" for row in range(22)]),
    ],
    ids=[
        "no number",
        "no number among objects",
        "none among numbers",
        "no word",
        "none among words",
        "a word of its own",
    ],
)
def test_no_example_is_left_out_for_its_label(labels):
    groups = plots.latent_scatter(model(), ROWS, labels).collections
    assert sum(len(points.get_offsets()) for points in groups) == 30


@pytest.mark.parametrize(("label", "text"), [("_a", r"$\_$a"), ("", "(none)"), (" ", "(none)")])
def test_a_label_that_matplotlib_would_leave_out_is_in_the_legend(label, text):
    labels = np.array([label, "b", "c"])[LABELS]
    axes = plots.latent_scatter(model(), ROWS, labels)
    assert legend_of(axes) == [text, "b", "c"]
    assert f"q(z|x), {text}" in legend_of(plots.posterior_ellipses(model(), ROWS, labels))
    axes.figure.draw_without_rendering()


def test_a_dollar_sign_in_a_label_begins_no_formula():
    axes = plots.latent_scatter(model(), ROWS, np.array([r"$\foo$", "$5", "5$ or $6"])[LABELS])
    axes.figure.draw_without_rendering()  # where a formula would be read
    assert [text.replace(r"\$", "$") for text in legend_of(axes)] == ["$5", r"$\foo$", "5$ or $6"]


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_ellipses_are_one_standard_deviation_of_each_posterior(posterior):
    vae = model(latent_dim=2, posterior=posterior, dtype="float64")  # a row's bits depend on how many are multiplied
    axes = plots.posterior_ellipses(vae, ROWS, LABELS)
    assert legend_of(axes) == ["q(z|x), 0", "q(z|x), 1", "q(z|x), 2", "prior N(0, I)"]
    assert [len(group.get_offsets()) for group in axes.collections] == [10, 10, 10]
    found, group = vae.encode(ROWS[LABELS == 1]), axes.collections[1]
    np.testing.assert_allclose(group.get_offsets(), found.mu)
    shapes = [np.diag(np.exp(row)) for row in found.logvar] if posterior == "diagonal" else None
    covariance = shapes or [factor @ factor.T for factor in found.cholesky]
    for wide, high, turn, expected in zip(
        group.get_widths(), group.get_heights(), group.get_angles(), covariance, strict=True
    ):
        angle = np.radians(turn)
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        drawn = turned @ np.diag([wide**2 / 4, high**2 / 4]) @ turned.T
        np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-6)
    assert axes.patches[0].get_radius() == 1.0
    reach = axes.get_xlim()[1]
    assert np.abs(vae.encode(ROWS).mu).max() < reach


def test_no_ellipse_is_cut_by_the_frame():
    vae = model(latent_dim=2)
    vae.parameters["encoder.head.bias"][2:] = 4.0  # log variances: wider than the prior
    axes = plots.posterior_ellipses(vae, ROWS)
    found = vae.encode(ROWS)
    reach = (np.abs(found.mu) + np.exp(found.logvar / 2)).max()
    assert -axes.get_xlim()[0] == axes.get_xlim()[1] == axes.get_ylim()[1] > reach


def test_the_first_examples_have_ellipses_in_the_colours_of_their_own_labels(monkeypatch):
    monkeypatch.setattr("scratchvae.report.run_report.ELLIPSES", 10)
    vae = model(latent_dim=2, dtype="float64")  # a row's bits depend on how many are multiplied
    ellipses = latent_picture(vae, ROWS, LABELS).axes[1].collections
    assert [group.get_label() for group in ellipses] == ["q(z|x), 0", "q(z|x), 1", "q(z|x), 2"]
    mu = vae.encode(ROWS).mu[:10]
    for group, label in zip(ellipses, range(3), strict=True):
        np.testing.assert_allclose(group.get_offsets(), mu[LABELS[:10] == label])


def test_a_label_has_one_colour_among_the_points_and_the_ellipses_though_not_every_label_has_an_ellipse(monkeypatch):
    monkeypatch.setattr("scratchvae.report.run_report.ELLIPSES", 10)
    labels = np.repeat(["owl", "cat", "owl", "dog"], [5, 5, 10, 10])
    scatter, ellipses = latent_picture(model(latent_dim=2), ROWS, labels).axes[:2]
    points = {group.get_label(): to_hex(group.get_facecolor()[0]) for group in scatter.collections}
    drawn = {group.get_label(): to_hex(group.get_edgecolor()[0]) for group in ellipses.collections}
    assert drawn == {f"q(z|x), {label}": points[label] for label in ("cat", "owl")}
    legend = ellipses.get_legend()
    lines = {
        text.get_text(): to_hex(line.get_color())
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert lines.items() > drawn.items()


def test_the_kl_of_every_dimension_is_a_bar_largest_first_and_adds_up_to_the_kl():
    vae = model()
    vae.parameters["encoder.head.weight"][:, [1, 5]] = 0.0  # mu and logvar of dimension 1: an inactive one
    vae.parameters["encoder.head.weight"][:, 3] *= 9.0
    axes = plots.kl_per_dimension(vae, ROWS)
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axes.patches}
    ordered = [heights[place] for place in range(4)]
    assert ordered == sorted(ordered, reverse=True)
    assert sum(ordered) == pytest.approx(vae.elbo(ROWS, np.zeros((30, 4))).kl.mean(), rel=1e-5)
    assert written(axes.get_xticklabels())[0] == "3"
    assert written(axes.get_xticklabels())[-1] == "1"
    assert ordered[-1] == pytest.approx(0.0, abs=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latent dimension", "nats per example")
    assert legend_of(axes)[-1].startswith("inactive: ")


def test_a_posterior_whose_variance_underflows_has_bars_all_the_same():
    vae = model()
    vae.parameters["encoder.head.bias"][4:] = -2000.0  # logvar
    heights = [bar.get_height() for bar in plots.kl_per_dimension(vae, ROWS).patches]
    assert np.isfinite(heights).all()
    assert min(heights) > 300


@pytest.mark.parametrize("draw", [plots.kl_per_dimension, plots.latent_scatter, plots.posterior_ellipses])
def test_a_wide_latent_space_takes_memory_by_its_dimensions_and_not_by_their_square(draw):
    vae, x, dimensions = model(latent_dim=300), np.tile(ROWS, (7, 1)), (0, 299)
    options = {} if draw is plots.kl_per_dimension else {"dimensions": dimensions}
    draw(vae, x, **options)
    tracemalloc.start()
    draw(vae, x, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(x) * 300 * 300 * 8 / 10


def test_of_very_many_bars_some_are_named_by_their_own_dimensions():
    vae = model(latent_dim=60)
    axes = plots.kl_per_dimension(vae, ROWS)
    found = vae.encode(ROWS)
    order = np.argsort(-(found.mu**2 + np.exp(found.logvar) - 1 - found.logvar).mean(axis=0))
    names = dict(zip(axes.get_xticks(), written(axes.get_xticklabels()), strict=True))
    assert len(names) == 20
    assert names == {place: str(order[place]) for place in names}


def test_a_dimension_has_the_inactive_colour_where_the_variance_of_its_mean_is_at_most_a_hundredth():
    vae = model()
    weight = vae.parameters["encoder.head.weight"]
    weight[:, :4] *= np.array([0.5, 0.09, 0.11, 0.5]) / vae.encode(ROWS).mu.std(axis=0)
    weight[:, 5] = 0.0  # logvar of dimension 1, whose bar is then the last and not the second
    axes = plots.kl_per_dimension(vae, ROWS)
    names = written(axes.get_xticklabels())
    colours = {names[round(bar.get_x() + bar.get_width() / 2)]: to_hex(bar.get_facecolor()) for bar in axes.patches}
    assert names[-1] == "1"
    assert colours == {name: to_hex(HELD_OUT if name == "1" else TRAINING) for name in "0123"}
    assert legend_of(axes) == ["active: 3", "inactive: 1"]
    one = plots.kl_per_dimension(vae, ROWS[:1])
    assert (len(one.patches), one.get_legend()) == (4, None), "of one example no mean varies"


def test_traversals_vary_one_dimension_in_each_row():
    vae = model()
    axes = plots.traversals(vae, dimensions=[2, 0], steps=5, span=2.0)
    assert images_in(axes, (4, 4)) == 10
    assert written(axes.get_yticklabels()) == ["z[2]", "z[0]"]
    assert written(axes.get_xticklabels()) == ["-2.0", "-1.0", "0.0", "1.0", "2.0"]
    np.testing.assert_allclose(
        axes.images[0].get_array()[:4, :4].ravel(), vae.decode(np.array([0.0, 0.0, -2.0, 0.0])), rtol=1e-5
    )


def test_traversals_from_an_example_take_the_dimensions_that_carry_most():
    vae = model()
    vae.parameters["encoder.head.weight"][:, 3] *= 20.0
    axes = plots.traversals(vae, ROWS, steps=3)
    assert written(axes.get_yticklabels())[0] == "z[3]"
    z = vae.encode(ROWS).mu[0].copy()
    z[3] = -3.0
    np.testing.assert_allclose(axes.images[0].get_array()[:4, :4].ravel(), vae.decode(z), rtol=1e-4, atol=1e-6)


def test_of_more_than_ten_dimensions_those_that_carry_most_are_traversed():
    vae = model(latent_dim=12)
    vae.parameters["encoder.head.weight"][:, [4, 7]] *= 0.0
    vae.parameters["encoder.head.weight"][:, [16, 19]] *= 0.0  # their log variances
    names = written(plots.traversals(vae, ROWS, steps=2).get_yticklabels())
    assert sorted(names) == sorted(f"z[{index}]" for index in range(12) if index not in (4, 7))


def test_traversals_of_real_numbers_are_in_their_own_shades():
    vae = model(likelihood="gaussian")
    vae.parameters["decoder.head.bias"][...] = 5.0
    axes = plots.traversals(vae, dimensions=[0], steps=3)
    low, high = axes.images[0].get_clim()
    assert 1.0 < low < 5.0 < high


def test_traversals_of_rows_that_are_no_images_are_a_heat_map():
    axes = plots.traversals(model(5, likelihood="gaussian"), dimensions=[0, 1], steps=4)
    assert axes.get_ylabel() == "-3 above, 3 below"
    assert axes.images[0].get_array().shape == (2 * 4 + 1, 5)
    assert written(axes.get_yticklabels()) == ["z[0]", "z[1]"]


def test_of_few_dimensions_none_has_a_tick_between_two():
    for count in (1, 3):
        axes = plots.traversals(model(count, likelihood="gaussian"), dimensions=[0])
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_a_manifold_is_a_grid_of_equally_probable_z():
    from scipy.stats import norm

    vae = model(latent_dim=2)
    axes = plots.manifold(vae, count=6)
    assert images_in(axes, (4, 4)) == 36
    corner = np.array([norm.ppf(0.5 / 6), norm.ppf(5.5 / 6)])  # left and up: z[0] low, z[1] high
    np.testing.assert_allclose(axes.images[0].get_array()[:4, :4].ravel(), vae.decode(corner), rtol=1e-5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[0]", "z[1]")
    assert written(axes.get_xticklabels())[0] == f"{norm.ppf(0.5 / 6):.1f}"
    assert written(axes.get_yticklabels())[0] == f"{norm.ppf(5.5 / 6):.1f}"
    assert axes.get_xticks()[0] == axes.get_yticks()[0] == 1.5  # of the tile in the corner


def test_a_manifold_of_points_is_a_net():
    vae = model(2, 2, likelihood="gaussian", dtype="float64")
    vae.parameters["decoder.0.weight"][1] = 0.0  # of z[1]: the whole plane is one line, along which z[0] varies
    axes = plots.manifold(vae, count=5)
    assert len(axes.lines) == 10
    assert legend_of(axes) == ["z[0] varies", "z[1] varies"]
    still = [np.ptp(line.get_xydata(), axis=0).max() < 1e-12 for line in axes.lines]
    assert still == [False] * 5 + [True] * 5
    assert len({line.get_color() for line in axes.lines[5:]} | {axes.lines[0].get_color()}) == 2


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plots.manifold(model(latent_dim=3)), "expected 2 latent dimensions"),
        (lambda: plots.manifold(model(5, 2)), "no images"),
        (lambda: plots.latent_scatter(model(latent_dim=1), ROWS), "latent_dim is 1"),
        (lambda: plots.latent_scatter(model(), ROWS, dimensions=(1, 4)), "dimensions are"),
        (lambda: plots.latent_scatter(model(), ROWS, dimensions=(1, 1)), "two different"),
        (lambda: plots.latent_scatter(model(), ROWS, dimensions=(0, 1, 1)), "two different"),
        (lambda: plots.posterior_ellipses(model(), ROWS, dimensions=(0, 1, 1)), "two different"),
        (lambda: plots.samples(model(), 4, image_shape=(8, 8)), r"image_shape is \(8, 8\); expected .* 16 pixels"),
        (lambda: plots.posterior_ellipses(model(), ROWS, LABELS[:3]), "labels have shape"),
        (lambda: plots.latent_scatter(model(), ROWS, dimensions=(-1, 0)), "dimensions are"),
        (lambda: plots.traversals(model(), dimensions=[9]), "dimensions are"),
        (lambda: plots.traversals(model(), dimensions=[-1]), "dimensions are"),
        (lambda: plots.traversals(model(), dimensions=[]), "dimensions are"),
        (lambda: plots.traversals(model(), steps=1), "steps is 1"),
        (lambda: plots.reconstructions(model(), ROWS[:, :3]), "16 columns"),
        (
            lambda: plots.reconstructions(model(), ROWS, columns=0),
            "columns is 0; expected a whole number of at least 1",
        ),
        (lambda: plots.samples(model(), 4, columns=-1), "columns is -1; expected a whole number of at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(draw, words):
    with pytest.raises(ValueError, match=words) as caught:
        draw()
    assert "\n" not in str(caught.value)


def test_a_picture_goes_where_it_is_told():
    left, right = Figure().subplots(1, 2)
    assert plots.samples(model(), 4, axes=left) is left
    assert plots.kl_per_dimension(model(), ROWS, axes=right) is right


def assert_svg_of_both_styles(draw):
    """What is drawn once, for light and dark pages, is what each style draws: the light one byte for byte."""
    light, dark = plots.light_and_dark(draw)
    assert light != dark
    with plots.style(dark=False):
        assert plots.figure_bytes(draw(), "svg") == light
    with plots.style(dark=True):
        assert without_names(plots.figure_bytes(draw(), "svg")) == without_names(dark)


def without_names(svg):
    """Those of shapes are made of their colours too."""
    return re.sub(rb"(id=\"|#)[mp][0-9a-f]{10}", rb"\1", svg)


@pytest.mark.parametrize(
    "draw", [lambda: plots.learning_curves(epochs(12)), lambda: latent_picture(model(), ROWS, None)]
)
def test_an_svg_is_drawn_once_for_both_styles(draw):
    assert_svg_of_both_styles(draw)
