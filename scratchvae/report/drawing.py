"""What every picture stands on: colours for light and dark, files, grids of images, shades, limits that show the end.

pyplot is never imported: no window, no global figures. `figure_bytes` turns a finished figure into a PNG or an SVG.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from math import ceil, isqrt, sqrt
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

CUT = 3  # times the height of a curve's middle: of a higher one the first epochs leave the frame
TILE_GAP = 1  # pixels between the images of a grid
GREY = 89  # of the gaps in a PNG of images
LARGEST_SIDE = 8192  # pixels: browsers and Pillow refuse pictures much larger
MOST_ACROSS = 1000  # pixels of a grid of images: of more, a picture would lose some, and gaps with them
# blue and orange first: they differ for colour-blind readers too
LIGHT = ["#1f6fb8", "#c8560b", "#2b8a57", "#7d55c0", "#b8336a", "#8a6d1b", "#11808a", "#5f6670", "#a3401f", "#4a4fd8"]
DARK = ["#6cb2f5", "#f5a15b", "#63d196", "#b79af0", "#f27fae", "#dcb949", "#55cdd8", "#a6adb8", "#f08a66", "#9da2ff"]
LIGHT_INK, DARK_INK, SOFT = "#1c1e21", "#e6e6e6", "#8a8f98"  # of text; of axes, for light and dark pages alike
TRAINING, HELD_OUT = "C0", "C1"


def style(dark: bool = False) -> AbstractContextManager[None]:
    """Colours and lines of every figure."""
    ink, soft, colours = (DARK_INK, SOFT, DARK) if dark else (LIGHT_INK, SOFT, LIGHT)
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


def as_written(label: object) -> str:
    """A label from the data as text for a picture: a dollar sign in it begins no formula, and what Matplotlib leaves
    out of a legend is written, an underscore at its beginning as one and no letters as (none)."""
    text = str(label).replace("$", r"\$")
    if text.startswith("_"):
        return rf"$\_${text[1:]}"
    return text if text.strip() else "(none)"


def axes_or_new(axes: Axes | None, width: float = 6.0, height: float = 4.0) -> Axes:
    """These axes, or those of a figure of its own."""
    return Figure(figsize=(width, height), layout="constrained").subplots() if axes is None else axes


def image_shape_of(data_dim: int, image_shape: Sequence[int] | None = None) -> tuple[int, int] | None:
    """(height, width) of one example: as given, else a square of at least 4 x 4, else None: not an image.

    Raises    ValueError for what is no height and width, or an image of more or fewer pixels than an example has
    """
    if image_shape is not None:
        sides = tuple(map(int, image_shape))
        if len(sides) != 2 or sides[0] * sides[1] != data_dim:
            raise ValueError(f"image_shape is {sides}; expected a height and a width of {data_dim} pixels")
        return sides
    side = isqrt(data_dim)
    return (side, side) if side * side == data_dim and side >= 4 else None


def image_grid(
    images: NDArray[Any], columns: int | None = None, gap: int = TILE_GAP, fill: float = np.nan
) -> NDArray[Any]:
    """Images (N, H, W) row by row in one array, of bytes if they are; what none covers holds `fill`. Near square if no
    `columns` are given."""
    count, height, width = images.shape
    columns = columns or ceil(sqrt(count))
    rows = ceil(count / columns)
    kind = np.uint8 if images.dtype == np.uint8 else np.float64
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), fill, dtype=kind)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid


def grid_png(images: NDArray[Any], columns: int | None = None, scale: int | None = None) -> bytes:
    """A PNG of images (N, H, W) in their `shades`, every pixel enlarged `scale` times and nothing blurred. Without
    `scale` an image has some 96 pixels a side, or fewer where there are so many that all would have more than
    LARGEST_SIDE."""
    from PIL import Image

    side, columns = max(images.shape[1:]), columns or ceil(sqrt(len(images)))
    scale = scale or max(1, min(round(96 / side), LARGEST_SIDE // (columns * (side + 1))))
    black, white = shades(images)
    levels = np.empty(images.shape, np.uint8)
    for image, out in zip(images, levels, strict=True):
        out[...] = np.rint(255.0 * np.clip((image - black) / (white - black), 0.0, 1.0).astype(np.float64))
    enlarged = levels.repeat(scale, axis=1).repeat(scale, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(image_grid(enlarged, columns, gap=max(1, scale // 2), fill=GREY)).save(buffer, format="PNG")
    return buffer.getvalue()


def show_grid(axes: Axes, images: NDArray[Any], columns: int, limits: tuple[float, float] = (0.0, 1.0)) -> Axes:
    """Draw images (N, H, W) as one grid in grey, `limits` being black and white; the gaps stay transparent."""
    count, height, width = images.shape
    bottom, right = ceil(count / columns) * (height + TILE_GAP) - TILE_GAP, columns * (width + TILE_GAP) - TILE_GAP
    every = ceil(right / MOST_ACROSS)
    axes.imshow(
        image_grid(images[:, ::every, ::every], columns),
        extent=(-0.5, right - 0.5, bottom - 0.5, -0.5),  # of the whole grid, in which `tile_middles` are places
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def tile_middles(places: Iterable[int], size: int) -> list[float]:
    """Where in a grid of images so high, or wide, those in these rows, or columns, have their middles: for ticks."""
    return [(place + 0.5) * (size + TILE_GAP) - 1.0 for place in places]


def shades(data: NDArray[Any]) -> tuple[float, float]:
    """What is drawn black and white: 0 and 1 for pixels in [0, 1], else the range that holds 99 % of the values."""
    if data.min() >= 0.0 and data.max() <= 1.0:
        return 0.0, 1.0
    low, high = np.percentile(data, [0.5, 99.5])
    return float(low), float(high if high > low else low + 1.0)


def zoom(values: NDArray[Any]) -> tuple[float, float] | None:
    """Limits that show the end of a curve: the first epochs, often ten times worse, leave the frame at the edge. Where
    the whole curve is at most CUT times as high it is all in the frame."""
    finite = values[np.isfinite(values)]
    if len(finite) < 10:
        return None
    low, high = np.percentile(finite, [8.0, 92.0])
    low, high = min(low, finite[-1]), max(high, finite[-1])
    margin = 0.25 * (high - low) or 1.0
    lowest, highest = finite.min(), finite.max()
    if highest - lowest <= CUT * (high - low):
        return lowest - 0.2 * margin, highest + 0.2 * margin
    return max(low - margin, finite.min() - 0.05 * margin), min(high + margin, finite.max() + 0.05 * margin)


def light_and_dark(draw: Callable[[], Figure], kind: str = "svg") -> tuple[bytes, bytes]:
    """The same figure for a light and for a dark page, both on a transparent ground. An SVG is drawn once: its colours
    are exchanged."""
    with style(dark=False):
        light = figure_bytes(draw(), kind)
    if kind == "svg":
        return light, _in_dark_colours(light)
    with style(dark=True):
        return light, figure_bytes(draw(), kind)


def _in_dark_colours(svg: bytes) -> bytes:
    dark = {light.encode(): dark.encode() for light, dark in zip([LIGHT_INK, *LIGHT], [DARK_INK, *DARK], strict=True)}
    return re.sub(rb"#[0-9a-f]{6}\b", lambda found: dark.get(found[0], found[0]), svg)
