"""Pictures, drawn without a display and looked at: how many images, what is written on the axes, which limits."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from scratchvae.report import plots

IMAGES = np.linspace(0.0, 1.0, 7 * 4 * 3).reshape(7, 4, 3)


def epochs(count: int) -> list[dict]:
    """A history whose first epochs are far worse than the rest."""
    values = [-1000.0 / (1 + epoch) for epoch in range(count)]
    terms = [{"elbo": value, "reconstruction": value + 3.0, "kl": 3.0} for value in values]
    return [{"epoch": epoch + 1, "train": term, "validation": term} for epoch, term in enumerate(terms)]


def test_a_grid_holds_every_image_where_it_belongs_and_nothing_elsewhere():
    grid = plots.image_grid(IMAGES, columns=3, gap=1)
    assert grid.shape == (3 * 4 + 2, 3 * 3 + 2)
    for index in range(7):
        top, left = index // 3 * 5, index % 3 * 4
        assert np.array_equal(grid[top : top + 4, left : left + 3], IMAGES[index])
    assert np.isfinite(grid).sum() == IMAGES.size


def test_a_png_of_a_grid_keeps_every_pixel_sharp():
    images = np.zeros((2, 2, 2))
    images[0, 0, 0] = 1.0
    with Image.open(io.BytesIO(plots.grid_png(images, columns=2, scale=10))) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (20, 2 * 20 + 5)
    assert np.all(pixels[:10, :10] == 255)
    assert np.all(pixels[10:, :20] == 0)


@pytest.mark.parametrize(
    ("data_dim", "given", "shape"),
    [(784, None, (28, 28)), (12, (3, 4), (3, 4)), (12, [3, 4], (3, 4)), (12, None, None), (4, None, None)],
)
def test_what_counts_as_an_image(data_dim, given, shape):
    assert plots.image_shape_of(data_dim, given) == shape


def test_reconstructions_stand_under_their_data_and_say_so():
    axes = plots.reconstructions(Figure().subplots(), {"data": IMAGES, "reconstruction": 1 - IMAGES}, columns=3)
    grid = axes.images[0].get_array()
    assert np.isfinite(grid.filled(np.nan)).sum() == 2 * 6 * 12  # two full rows of three, each twice
    assert [label.get_text() for label in axes.get_yticklabels()] == ["data", "reconstruction"] * 2
    assert np.allclose(grid[:4, :3] + grid[5:9, :3], 1.0)


@pytest.mark.parametrize(
    ("dimensions", "shape", "panels"), [(16, (4, 4), 2), (2, None, 3), (5, None, 4)], ids=["images", "plane", "vectors"]
)
def test_every_kind_of_data_has_its_picture(dimensions, shape, panels):
    rows = np.random.default_rng(0).normal(size=(24, dimensions))
    figure = plots.pictures({"data": rows, "reconstruction": 0.5 * rows}, rows, shape)
    assert len(figure.axes) == panels  # heat maps have a colour bar of their own
    assert all(axes.get_title() or axes.get_ylabel() for axes in figure.axes)
    assert plots.figure_bytes(figure).startswith(b"\x89PNG")


def test_learning_curves_show_every_term_with_units_and_both_parts():
    figure = plots.learning_curves(epochs(40))
    assert [axes.get_title().split()[0] for axes in figure.axes] == ["ELBO", "Reconstruction", "KL(q(z|x)"]
    assert figure.axes[0].get_ylabel() == "nats per example"
    assert all(axes.get_xlabel() == "epoch" and len(axes.lines) == 2 for axes in figure.axes)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["training", "held out"]


def test_learning_curves_zoom_in_on_the_end():
    low, high = plots.learning_curves(epochs(40)).axes[0].get_ylim()
    assert -1000.0 < low < -25.0 < high


def test_one_epoch_is_a_point_and_not_an_invisible_line():
    line = plots.learning_curves(epochs(1)).axes[0].lines[0]
    assert line.get_marker() == "o"


def test_the_same_figure_gives_the_same_bytes_and_differs_in_the_dark():
    light, dark = plots.light_and_dark(lambda: plots.learning_curves(epochs(12)))
    again, _ = plots.light_and_dark(lambda: plots.learning_curves(epochs(12)))
    assert light == again
    assert light != dark
