"""Pictures of a run: image grids, reconstructions beside their data, samples, and the learning curve.

Each drawing function takes the matplotlib Axes it draws on and returns it, so that a notebook can place it anywhere.
`figure_bytes` turns a finished figure into a PNG or an SVG. pyplot is never imported: no window, no global figures.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import ceil, isqrt, sqrt
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

TRAINING, HELD_OUT = "C0", "C1"
TILE_GAP = 1  # pixels between the images of a grid


def style(dark: bool = False) -> AbstractContextManager[None]:
    """Colours and lines of every figure; blue and orange differ for colour-blind readers too."""
    ink, soft, colours = (
        ("#e6e6e6", "#8a8f98", ["#6cb2f5", "#f5a15b"]) if dark else ("#1c1e21", "#8a8f98", ["#1f6fb8", "#c8560b"])
    )
    return matplotlib.rc_context(
        {
            "font.size": 9.0,
            "axes.titlesize": 10.0,
            "axes.titlelocation": "left",
            "text.color": ink,
            "axes.labelcolor": ink,
            "axes.titlecolor": ink,
            "xtick.color": soft,
            "ytick.color": soft,
            "xtick.labelcolor": ink,
            "ytick.labelcolor": ink,
            "axes.edgecolor": soft,
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": soft,
            "grid.alpha": 0.25,
            "axes.prop_cycle": cycler(color=colours),
            "legend.frameon": False,
            "svg.fonttype": "path",  # letters are drawn: the file needs no font
            "svg.hashsalt": "scratchvae",  # the same figure gives the same bytes
        }
    )


def figure_bytes(figure: Figure, kind: str = "png", background: str = "none", dots_per_inch: int = 160) -> bytes:
    """The figure as a "png" or "svg" file, without a date, so that the same numbers give the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(
        buffer,
        format=kind,
        dpi=dots_per_inch,
        facecolor=background,
        metadata=metadata,
        bbox_inches="tight",
        pad_inches=0.08,
    )
    return buffer.getvalue()


def image_shape_of(data_dim: int, image_shape: Sequence[int] | None = None) -> tuple[int, int] | None:
    """(height, width) of one example: as the data says, else a square of at least 4 x 4, else None: not an image."""
    if image_shape is not None and len(image_shape) == 2:
        return int(image_shape[0]), int(image_shape[1])
    side = isqrt(data_dim)
    return (side, side) if side * side == data_dim and side >= 4 else None


def image_grid(
    images: NDArray[Any], columns: int | None = None, gap: int = TILE_GAP, fill: float = np.nan
) -> NDArray[Any]:
    """Images (N, H, W) row by row in one array; what none covers holds `fill`. Near square without `columns`."""
    count, height, width = images.shape
    columns = columns or ceil(sqrt(count))
    rows = ceil(count / columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), fill, dtype=np.float64)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid


def grid_png(images: NDArray[Any], columns: int | None = None, scale: int | None = None) -> bytes:
    """A PNG of images (N, H, W), 0 black and 1 white, every pixel enlarged `scale` times and nothing blurred."""
    from PIL import Image

    scale = scale or max(1, round(96 / max(images.shape[1:])))
    enlarged = np.kron(images, np.ones((1, scale, scale)))
    grid = image_grid(enlarged, columns, gap=max(1, scale // 2), fill=0.35)
    pixels = np.rint(255.0 * np.clip(grid, 0.0, 1.0)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode=None).save(buffer, format="PNG")
    return buffer.getvalue()


def show_grid(axes: Axes, images: NDArray[Any], columns: int, limits: tuple[float, float] = (0.0, 1.0)) -> Axes:
    """Draw images (N, H, W) as one grid in grey, `limits` being black and white; the gaps stay transparent."""
    axes.imshow(image_grid(images, columns), cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def reconstructions(
    axes: Axes, lines: Mapping[str, NDArray[Any]], columns: int = 12, limits: tuple[float, float] = (0.0, 1.0)
) -> Axes:
    """Images (N, H, W) under their names, in turn: a line of data, as the model saw them, reconstructed, ..."""
    count = len(next(iter(lines.values())))
    columns = min(columns, count)
    starts = range(0, count // columns * columns, columns)
    rows = [images[start : start + columns] for start in starts for images in lines.values()]
    show_grid(axes, np.concatenate(rows), columns, limits)
    height = rows[0].shape[1] + TILE_GAP
    axes.set_yticks([(row + 0.5) * height - 1.0 for row in range(len(rows))], list(lines) * len(starts))
    axes.tick_params(length=0)
    axes.set_title("Held-out data, and below them their reconstructions: the mean of p(x|z) at z = the mean of q(z|x)")
    return axes


def samples(axes: Axes, means: NDArray[Any], columns: int = 12, limits: tuple[float, float] = (0.0, 1.0)) -> Axes:
    """A grid of the means (N, H, W) of p(x|z) at draws of z from the prior."""
    show_grid(axes, means, columns, limits)
    axes.set_title("Samples: the mean of p(x|z) at z drawn from the prior N(0, I)")
    return axes


def _shades(data: NDArray[Any]) -> tuple[float, float]:
    """What is drawn black and white: 0 and 1 for pixels in [0, 1], else the range that holds 99 % of the values."""
    if data.min() >= 0.0 and data.max() <= 1.0:
        return 0.0, 1.0
    low, high = np.percentile(data, [0.5, 99.5])
    return float(low), float(high if high > low else low + 1.0)


def _image_pictures(lines: Mapping[str, NDArray[Any]], draws: NDArray[Any], shape: tuple[int, int]) -> Figure:
    """Reconstructions above samples, both in columns of twelve (fewer if there is less)."""
    data = next(iter(lines.values()))
    columns, limits = min(12, len(data)), _shades(data)
    rows = len(lines) * (len(data) // columns), ceil(len(draws) / columns)
    tile = 8.4 / columns * shape[0] / shape[1]
    heights = [rows[0] * tile + 0.4, rows[1] * tile + 0.4]
    figure = Figure(figsize=(8.4, sum(heights)))
    places = {"left": 0, "right": 1, "bottom": 0, "top": 1, "hspace": 0.1}
    upper, lower = figure.subplots(2, 1, height_ratios=heights, gridspec_kw=places)
    reconstructions(upper, {name: images.reshape(-1, *shape) for name, images in lines.items()}, columns, limits)
    samples(lower, draws.reshape(-1, *shape), columns, limits)
    return figure


def _plane_pictures(parts: Mapping[str, NDArray[Any]]) -> Figure:
    """Two-dimensional data: scatter plots on the same axes."""
    figure = Figure(figsize=(9.4, 3.4))
    panels = figure.subplots(1, len(parts), sharex=True, sharey=True, gridspec_kw={"wspace": 0.08})
    for axes, (name, points) in zip(panels, parts.items(), strict=True):
        axes.scatter(points[:, 0], points[:, 1], s=8, alpha=0.7, linewidths=0)
        axes.set_title(name)
        axes.set_xlabel("x[0]")
    panels[0].set_ylabel("x[1]")
    return figure


def _vector_pictures(parts: Mapping[str, NDArray[Any]]) -> Figure:
    """Data that are no images: heat maps, one example a row, on one colour scale."""
    limits = _shades(next(iter(parts.values())))
    figure = Figure(figsize=(9.4, 3.4))
    panels = figure.subplots(1, len(parts), gridspec_kw={"wspace": 0.2})
    for axes, (name, rows) in zip(panels, parts.items(), strict=True):
        picture = axes.imshow(
            rows, aspect="auto", cmap="viridis", vmin=limits[0], vmax=limits[1], interpolation="nearest"
        )
        axes.grid(False)
        axes.set_title(name)
        axes.set_xlabel("dimension")
    panels[0].set_ylabel("example")
    figure.colorbar(picture, ax=panels, label="value", pad=0.02)
    return figure


def pictures(lines: Mapping[str, NDArray[Any]], draws: NDArray[Any], shape: tuple[int, int] | None) -> Figure:
    """Data and what became of them, each (N, D) under its name, and samples (M, D), in one figure.

    Images of `shape` where there is one; else points of a plane for D = 2; else heat maps.
    """
    if shape is not None:
        return _image_pictures(lines, draws, shape)
    parts = dict(lines) | {"samples (means)": draws}
    return _plane_pictures(parts) if draws.shape[1] == 2 else _vector_pictures(parts)


def _series(history: Sequence[Mapping[str, Any]], part: str, term: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Epochs and values of one term of one part ("train", "validation") of the history, where it was measured."""
    rows = [row for row in history if row.get(part)]
    return np.array([row["epoch"] for row in rows]), np.array([row[part][term] for row in rows], dtype=float)


def _zoom(values: NDArray[Any]) -> tuple[float, float] | None:
    """Limits that show the end of a curve: the first epochs, often ten times worse, leave the frame at the edge."""
    finite = values[np.isfinite(values)]
    if len(finite) < 10:
        return None
    low, high = np.percentile(finite, [8.0, 92.0])
    low, high = min(low, finite[-1]), max(high, finite[-1])
    margin = 0.25 * (high - low) or 1.0
    return max(low - margin, finite.min() - 0.05 * margin), min(high + margin, finite.max() + 0.05 * margin)


def learning_curve(axes: Axes, history: Sequence[Mapping[str, Any]], term: str, title: str) -> Axes:
    """One term of the ELBO against the epoch, for training and held-out data, in nats per example."""
    shown = []
    for part, name, colour in (("train", "training", TRAINING), ("validation", "held out", HELD_OUT)):
        epochs, values = _series(history, part, term)
        if len(epochs):
            axes.plot(epochs, values, color=colour, label=name, linewidth=1.4, marker="o" if len(epochs) == 1 else None)
            shown.append(_zoom(values))
    zooms = [zoom for zoom in shown if zoom]
    if zooms and len(zooms) == len(shown):
        axes.set_ylim(min(zoom[0] for zoom in zooms), max(zoom[1] for zoom in zooms))
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return axes


def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """ELBO, reconstruction and KL side by side against the epoch: elbo = reconstruction - kl."""
    figure = Figure(figsize=(9.4, 2.3))
    panels = figure.subplots(1, 3, gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0.16})
    titles = {"elbo": "ELBO", "reconstruction": "Reconstruction  E_q log p(x|z)", "kl": "KL(q(z|x) || p(z))"}
    for axes, (term, title) in zip(panels, titles.items(), strict=True):
        learning_curve(axes, history, term, title)
    panels[0].set_ylabel("nats per example")
    panels[0].legend(loc="lower right")
    return figure


def light_and_dark(draw: Callable[[], Figure], kind: str = "svg") -> tuple[bytes, bytes]:
    """The same figure drawn for a light and for a dark page, both on a transparent ground."""
    with style(dark=False):
        light = figure_bytes(draw(), kind)
    with style(dark=True):
        return light, figure_bytes(draw(), kind)
