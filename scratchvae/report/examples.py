"""Data, what a model makes of them, and what it draws by itself: images, points of a plane, or rows of numbers."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scratchvae.arguments import whole_positive
from scratchvae.vae import VAE

from .drawing import as_written, axes_or_new, image_shape_of, shades, show_grid, tile_middles

COLUMNS = 12  # of images in a picture
NAMED = 30  # columns of data at most that are named below a heat map, and letters of a name that are written
LONGEST = 20

Shape = Sequence[int] | None


def show_lines(
    axes: Axes,
    lines: Mapping[str, NDArray[Any]],
    shape: tuple[int, int] | None,
    columns: int = 12,
    limits: tuple[float, float] | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Examples (N, D) under their names, in turn: a line of data, as the model saw them, reconstructed, ...

    Images in rows of `columns`, under several names only in full rows; points of a plane in one scatter plot; else one
    heat map, one example a row. names: of the data's D columns.
    """
    first = next(iter(lines.values()))
    low, high = limits or shades(first)
    if shape is not None:
        return _show_images(axes, lines, shape, columns, (low, high))
    if first.shape[1] == 2:
        for name, points in lines.items():
            axes.scatter(points[:, 0], points[:, 1], s=8, alpha=0.7, linewidths=0, label=name)
        name_plane(axes, names)
        axes.legend(loc="best")
        return axes
    gap = np.full((1, first.shape[1]), np.nan)
    stacked = np.concatenate([part for rows in lines.values() for part in (rows, gap)][:-1])
    picture = axes.imshow(stacked, aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    axes.grid(False)
    starts = np.cumsum([0, *(len(rows) + 1 for rows in lines.values())])[:-1]
    middles = [start + (len(rows) - 1) / 2 for start, rows in zip(starts, lines.values(), strict=True)]
    axes.set_yticks(middles, list(lines))
    if names and len(names) <= NAMED:
        short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
        axes.set_xticks(range(len(names)), map(as_written, short), rotation=90)
    else:
        axes.set_xlabel("dimension")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.figure.colorbar(picture, ax=axes, label="value", pad=0.02)
    return axes


def name_plane(axes: Axes, names: Sequence[str] | None) -> None:
    """What the two axes of a plane of data are called."""
    across, up = names or ("x[0]", "x[1]")
    axes.set_xlabel(as_written(across))
    axes.set_ylabel(as_written(up))


def _show_images(
    axes: Axes,
    lines: Mapping[str, NDArray[Any]],
    shape: tuple[int, int],
    columns: int,
    limits: tuple[float, float],
) -> Axes:
    count = len(next(iter(lines.values())))
    columns = min(columns, count)
    starts = range(0, count // columns * columns, columns) if len(lines) > 1 else [0]
    pick = [slice(start, start + columns) for start in starts] if len(lines) > 1 else [slice(None)]
    rows = [images[part].reshape(-1, *shape) for part in pick for images in lines.values()]
    show_grid(axes, np.concatenate(rows), columns, limits)
    if len(lines) > 1:
        axes.set_yticks(tile_middles(range(len(rows)), shape[0]), list(lines) * len(starts))
        axes.tick_params(length=0)
    return axes


def _seen(x: NDArray[Any]) -> NDArray[Any]:
    """Data as numbers to draw: bytes mean value / 255."""
    x = np.asarray(x)
    return x / 255.0 if x.dtype == np.uint8 else x


def grid_axes(axes: Axes | None, shape: tuple[int, int] | None, rows: int, columns: int) -> Axes:
    """Axes in the proportions of a grid of images, if there are none yet."""
    if axes is not None or shape is None:
        return axes_or_new(axes)
    tile = 8.4 / columns
    return axes_or_new(None, 8.4 + 0.9, rows * tile * shape[0] / shape[1] + 0.5)


def reconstructions(
    vae: VAE, x: NDArray[Any], image_shape: Shape = None, columns: int = 12, axes: Axes | None = None
) -> Axes:
    """Data, and below them what the model makes of them: the mean of p(x|z) at z = the mean of q(z|x).

    Takes     x (N, D) as the model is to see it; image_shape: (height, width) of a row, where it is no square; columns:
              of images; those that would not fill a last row are left out
    Raises    ValueError for data that do not fit the model
    """
    shape, columns = image_shape_of(vae.data_dim, image_shape), min(whole_positive("columns", columns), len(x))
    lines = {"data": _seen(x), "reconstruction": vae.reconstruct(x)}
    axes = grid_axes(axes, shape, 2 * (len(x) // columns), columns)
    axes.set_title("Data, and their reconstructions: the mean of p(x|z) at z = the mean of q(z|x)")
    return show_lines(axes, lines, shape, columns)


def samples(
    vae: VAE,
    count: int = 48,
    seed: int = 0,
    mean: bool = True,
    image_shape: Shape = None,
    columns: int = 12,
    axes: Axes | None = None,
) -> Axes:
    """New examples: the means of p(x|z), or with `mean=False` draws from it, at z drawn from the prior N(0, I)."""
    shape, columns = image_shape_of(vae.data_dim, image_shape), min(whole_positive("columns", columns), count)
    drawn = vae.sample(count, seed=seed, mean=mean)
    axes = grid_axes(axes, shape, ceil(count / columns), columns)
    what = "the mean of p(x|z)" if mean else "x drawn from p(x|z)"
    axes.set_title(f"Samples: {what} at z drawn from the prior N(0, I)")
    return show_lines(axes, {"samples": drawn}, shape, columns)


def pictures(
    lines: Mapping[str, NDArray[Any]],
    draws: NDArray[Any],
    shape: tuple[int, int] | None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Data and what became of them, each (N, D) under its name, above samples (M, D), in one figure. names: of the D
    columns."""
    limits = shades(next(iter(lines.values())))
    columns = min(COLUMNS, len(next(iter(lines.values()))))
    if shape is None:
        figure = Figure(figsize=(9.4, 3.8), layout="constrained")
        upper, lower = figure.subplots(1, 2, sharex=True, sharey=draws.shape[1] == 2)
    else:
        rows = len(lines) * (len(next(iter(lines.values()))) // columns), ceil(len(draws) / COLUMNS)
        widths = 8.4 / max(columns, COLUMNS // 2), 8.4 / COLUMNS  # inches: a few images are not drawn larger
        heights = [count * width * shape[0] / shape[1] + 0.4 for count, width in zip(rows, widths, strict=True)]
        figure = Figure(figsize=(8.4 / 0.88, sum(heights)))
        places = {"left": 0.12, "right": 1, "bottom": 0, "top": 1, "hspace": 0.1}
        upper, lower = figure.subplots(2, 1, height_ratios=heights, gridspec_kw=places)
    show_lines(upper, lines, shape, columns, limits, names)
    gap = "\n" if shape is None else " "  # side by side there is room for half of a title
    upper.set_title(f"Held-out data and their reconstructions,{gap}the mean of p(x|z) at the mean of q(z|x)")
    show_lines(lower, {"samples": draws}, shape, COLUMNS, limits, names)
    lower.set_title(f"Samples: the mean of p(x|z){gap}at z drawn from the prior N(0, I)")
    return figure
