"""Pictures of a run and of a model: each is one call that takes numbers or a model and returns a matplotlib Axes.

    training_curves    every term of the ELBO against the epoch      latent_scatter      means of q(z|x), by label
    reconstructions    data above what the model makes of them       posterior_ellipses  q(z|x) of each example
    samples            means of p(x|z) at draws of z                 kl_per_dimension    what each dimension carries
    traversals         one latent dimension varied at a time         manifold            p(x|z) over a plane of z

`axes` is where to draw, so that a notebook can place a picture anywhere; without it the Axes stands on a figure of its
own, `axes.figure`. Data are images where `image_shape` says so or their dimensions are a square, else points of a plane
where there are two dimensions, else rows of numbers. All terms are in nats per example.
"""

from collections.abc import Mapping, Sequence
from math import ceil, isclose
from statistics import NormalDist
from typing import Any, Literal

import matplotlib.colors
import matplotlib.lines
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scratchvae.training import History
from scratchvae.vae import VAE

from .drawing import (
    TILE_GAP,
    figure_bytes,
    grid_png,
    image_grid,
    image_shape_of,
    light_and_dark,
    shades,
    show_grid,
    style,
    zoom,
)

__all__ = [
    "figure_bytes",
    "grid_png",
    "image_grid",
    "image_shape_of",
    "kl_per_dimension",
    "latent_scatter",
    "learning_curve",
    "learning_curves",
    "light_and_dark",
    "main_plane",
    "manifold",
    "pictures",
    "posterior_ellipses",
    "reconstructions",
    "samples",
    "show_grid",
    "show_lines",
    "style",
    "training_curves",
    "traversals",
]

TRAINING, HELD_OUT = "C0", "C1"
TERMS = {
    "elbo": "ELBO",
    "reconstruction": "Reconstruction  E_q log p(x|z)",
    "kl": "KL(q(z|x) || p(z))",
    "objective": "Objective",
}
CATEGORIES = 20  # more different labels than this are drawn as a scale, or the rarest as "other"
ACTIVE = 0.01  # a dimension is active where the variance over data of the mean of q(z_j|x) is above (Burda et al. 2015)
Shape = Sequence[int] | None


def _axes(axes: Axes | None, width: float = 6.0, height: float = 4.0) -> Axes:
    return Figure(figsize=(width, height), layout="constrained").subplots() if axes is None else axes


# --- training ---------------------------------------------------------------------------------------------------------


def _entries(history: History | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return history.epochs if isinstance(history, History) else history


def _series(history: Sequence[Mapping[str, Any]], part: str, term: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Epochs and values of one term of one part ("train", "validation") of the history, where it was measured."""
    rows = [row for row in history if row.get(part)]
    return np.array([row["epoch"] for row in rows]), np.array([row[part][term] for row in rows], dtype=float)


def _terms(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """The terms worth a curve: the objective too where it is not the ELBO."""
    trained = [row["train"] for row in history]
    is_elbo = all(isclose(row.get("objective", row["elbo"]), row["elbo"], rel_tol=1e-5) for row in trained)
    return [term for term in TERMS if term != "objective" or not is_elbo]


def _draw_curves(axes: Axes, history: Sequence[Mapping[str, Any]], curves: Sequence[tuple[str, str, str, str]]) -> None:
    """Curves of (part, term, label, line style or colour), and limits that show their ends."""
    limits = []
    for part, term, label, look in curves:
        epochs, values = _series(history, part, term)
        if len(epochs):
            drawn: dict[str, Any] = {"marker": "o" if len(epochs) == 1 else None, "linewidth": 1.4, "label": label}
            colour, _, line = look.partition(" ")
            axes.plot(epochs, values, color=colour, linestyle=line or "-", **drawn)
            limits.append(zoom(values))
    zooms = [limit for limit in limits if limit]
    if zooms and len(zooms) == len(limits):
        axes.set_ylim(min(limit[0] for limit in zooms), max(limit[1] for limit in zooms))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def learning_curve(axes: Axes, history: Sequence[Mapping[str, Any]], term: str, title: str) -> Axes:
    """One term of the ELBO against the epoch, for training and held-out data, in nats per example."""
    _draw_curves(axes, history, [("train", term, "training", TRAINING), ("validation", term, "held out", HELD_OUT)])
    axes.set_title(title)
    return axes


def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Every term side by side against the epoch: elbo = reconstruction - kl."""
    terms = _terms(history)
    figure = Figure(figsize=(9.4, 2.3))
    places = {"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0.16 if len(terms) == 3 else 0.26}
    panels = figure.subplots(1, len(terms), gridspec_kw=places)
    for axes, term in zip(panels, terms, strict=True):
        learning_curve(axes, history, term, TERMS[term])
    panels[0].set_ylabel("nats per example")
    panels[0].legend(loc="lower right")
    return figure


def training_curves(history: History | Sequence[Mapping[str, Any]], axes: Axes | None = None) -> Axes:
    """Every term of training against the epoch in one picture: training data solid, held-out data dashed.

    Takes     history: what `fit` returned, or its entries (the lines of history.jsonl)
    Raises    ValueError for a history without epochs
    """
    entries, axes = _entries(history), _axes(axes)
    if not entries:
        raise ValueError("the history has no epoch; expected at least one to draw")
    curves = []
    for index, term in enumerate(_terms(entries)):
        name = TERMS[term].split("  ")[0]
        curves.append(("train", term, f"{name}, training", f"C{index}"))
        curves.append(("validation", term, f"{name}, held out", f"C{index} --"))
    _draw_curves(axes, entries, curves)
    axes.set_ylabel("nats per example")
    axes.set_title("Training: ELBO = reconstruction - KL")
    axes.legend(loc="center right", fontsize="small")
    return axes


# --- data and what the model makes of them ----------------------------------------------------------------------------


def show_lines(
    axes: Axes,
    lines: Mapping[str, NDArray[Any]],
    shape: tuple[int, int] | None,
    columns: int = 12,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Examples (N, D) under their names, in turn: a line of data, as the model saw them, reconstructed, ...

    Images in rows of `columns`; points of a plane in one scatter plot; else one heat map, one example a row.
    """
    first = next(iter(lines.values()))
    low, high = limits or shades(first)
    if shape is not None:
        return _show_images(axes, lines, shape, columns, (low, high))
    if first.shape[1] == 2:
        for name, points in lines.items():
            axes.scatter(points[:, 0], points[:, 1], s=8, alpha=0.7, linewidths=0, label=name)
        axes.set_xlabel("x[0]")
        axes.set_ylabel("x[1]")
        axes.legend(loc="best")
        return axes
    gap = np.full((1, first.shape[1]), np.nan)
    stacked = np.concatenate([part for rows in lines.values() for part in (rows, gap)][:-1])
    picture = axes.imshow(stacked, aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    axes.grid(False)
    starts = np.cumsum([0, *(len(rows) + 1 for rows in lines.values())])[:-1]
    middles = [start + (len(rows) - 1) / 2 for start, rows in zip(starts, lines.values(), strict=True)]
    axes.set_yticks(middles, list(lines))
    axes.set_xlabel("dimension")
    axes.figure.colorbar(picture, ax=axes, label="value", pad=0.02)
    return axes


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
        height = shape[0] + TILE_GAP
        axes.set_yticks([(row + 0.5) * height - 1.0 for row in range(len(rows))], list(lines) * len(starts))
        axes.tick_params(length=0)
    return axes


def _seen(x: NDArray[Any]) -> NDArray[Any]:
    """Data as numbers to draw: bytes mean value / 255."""
    x = np.asarray(x)
    return x / 255.0 if x.dtype == np.uint8 else x


def _grid_axes(axes: Axes | None, shape: tuple[int, int] | None, rows: int, columns: int) -> Axes:
    """Axes in the proportions of a grid of images, if there are none yet."""
    if axes is not None or shape is None:
        return _axes(axes)
    tile = 8.4 / columns
    return _axes(None, 8.4 + 0.9, rows * tile * shape[0] / shape[1] + 0.5)


def reconstructions(
    vae: VAE, x: NDArray[Any], image_shape: Shape = None, columns: int = 12, axes: Axes | None = None
) -> Axes:
    """Data, and below them what the model makes of them: the mean of p(x|z) at z = the mean of q(z|x).

    Takes     x (N, D) as the model is to see it; image_shape: (height, width) of a row, where it is no square
    Raises    ValueError for data that do not fit the model
    """
    shape, columns = image_shape_of(vae.data_dim, image_shape), min(columns, len(x))
    lines = {"data": _seen(x), "reconstruction": vae.reconstruct(x)}
    axes = _grid_axes(axes, shape, 2 * (len(x) // columns), columns)
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
    shape, columns = image_shape_of(vae.data_dim, image_shape), min(columns, count)
    drawn = vae.sample(count, seed=seed, mean=mean)
    axes = _grid_axes(axes, shape, ceil(count / columns), columns)
    what = "the mean of p(x|z)" if mean else "x drawn from p(x|z)"
    axes.set_title(f"Samples: {what} at z drawn from the prior N(0, I)")
    return show_lines(axes, {"samples": drawn}, shape, columns)


def pictures(lines: Mapping[str, NDArray[Any]], draws: NDArray[Any], shape: tuple[int, int] | None) -> Figure:
    """Data and what became of them, each (N, D) under its name, above samples (M, D), in one figure."""
    limits = shades(next(iter(lines.values())))
    columns = min(12, len(next(iter(lines.values()))))
    if shape is None:
        figure = Figure(figsize=(9.4, 3.8), layout="constrained")
        upper, lower = figure.subplots(1, 2, sharex=True, sharey=draws.shape[1] == 2)
    else:
        rows = len(lines) * (len(next(iter(lines.values()))) // columns), ceil(len(draws) / columns)
        heights = [count * 8.4 / columns * shape[0] / shape[1] + 0.4 for count in rows]
        figure = Figure(figsize=(8.4 / 0.88, sum(heights)))
        places = {"left": 0.12, "right": 1, "bottom": 0, "top": 1, "hspace": 0.1}
        upper, lower = figure.subplots(2, 1, height_ratios=heights, gridspec_kw=places)
    show_lines(upper, lines, shape, columns, limits)
    upper.set_title("Held-out data and their reconstructions, p(x|z)'s mean at z = q(z|x)'s")
    show_lines(lower, {"samples": draws}, shape, columns, limits)
    lower.set_title("Samples: the mean of p(x|z) at z drawn from the prior N(0, I)")
    return figure


# --- the latent space -------------------------------------------------------------------------------------------------


def _posterior(vae: VAE, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean (N, Z) and covariance (N, Z, Z) of q(z|x), diagonal or full."""
    found = vae.encode(x)
    mu = np.asarray(found.mu, dtype=np.float64)
    if hasattr(found, "cholesky"):
        factor = np.asarray(found.cholesky, dtype=np.float64)
        return mu, factor @ factor.transpose(0, 2, 1)
    return mu, np.exp(np.asarray(found.logvar, dtype=np.float64))[:, :, None] * np.eye(mu.shape[1])


def _marginal_kl(mu: NDArray[Any], covariance: NDArray[Any]) -> NDArray[Any]:
    """KL(q(z_j|x) || N(0, 1)) of every dimension, (N, Z), in nats; under a diagonal q they add up to the KL."""
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    return 0.5 * (np.square(mu) + variance - 1.0 - np.log(variance))


def main_plane(vae: VAE, x: NDArray[Any]) -> tuple[int, int]:
    """The two latent dimensions with the largest mean KL to the prior. Raises ValueError where there is but one."""
    return _two_dimensions(vae, _marginal_kl(*_posterior(vae, x)), None)


def _two_dimensions(vae: VAE, kl: NDArray[Any], dimensions: tuple[int, int] | None) -> tuple[int, int]:
    """The dimensions asked for, or those that carry most, in their order."""
    if vae.latent_dim < 2:
        raise ValueError("latent_dim is 1; expected at least 2 latent dimensions for a plane")
    if dimensions is None:
        first, second = sorted(np.argsort(-kl.mean(0), kind="stable")[:2])
        return int(first), int(second)
    if len(set(dimensions)) != 2 or not all(0 <= index < vae.latent_dim for index in dimensions):
        raise ValueError(f"dimensions are {dimensions}; expected two different ones of 0 to {vae.latent_dim - 1}")
    return dimensions


def _groups(labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Rows by label, in the labels' order; of too many words, the commonest, and the rest as "other"."""
    values, counts = np.unique(labels, return_counts=True)
    if len(values) <= CATEGORIES:
        return {str(value): labels == value for value in values}
    kept = np.sort(values[np.argsort(-counts, kind="stable")[: CATEGORIES - 1]])
    return {str(value): labels == value for value in kept} | {"other": ~np.isin(labels, kept)}


def _labels(labels: NDArray[Any] | None, rows: int) -> NDArray[Any] | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (rows,):
        raise ValueError(f"labels have shape {labels.shape}; expected one for each of {rows} examples")
    return labels


def _is_scale(labels: NDArray[Any] | None) -> bool:
    """Whether labels are so many numbers that they are drawn as a scale."""
    return labels is not None and labels.dtype.kind in "iuf" and len(np.unique(labels)) > CATEGORIES


def _colour(index: int) -> Any:
    """The colours of the style in turn; a second round is paler."""
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return matplotlib.colors.to_rgba(cycle[index % len(cycle)], 0.75 if index < len(cycle) else 0.4)


def _finish_plane(axes: Axes, dimensions: tuple[int, int], title: str, adjustable: Literal["box", "datalim"]) -> Axes:
    axes.set_xlabel(f"z[{dimensions[0]}]")
    axes.set_ylabel(f"z[{dimensions[1]}]")
    axes.set_aspect("equal", adjustable=adjustable)
    axes.set_title(title)
    return axes


def latent_scatter(
    vae: VAE,
    x: NDArray[Any],
    labels: NDArray[Any] | None = None,
    dimensions: tuple[int, int] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """The mean of q(z|x) of every example as a point of a plane of the latent space, coloured by label.

    Takes     x (N, D); labels (N,), numbers or words, a legend names them (a colour bar, for numbers of more than
              20 values); dimensions: the plane; the two with the largest KL to the prior by default
    Raises    ValueError for one latent dimension, or what does not fit
    """
    labels, axes = _labels(labels, len(x)), _axes(axes, 6.2, 4.8)
    mu, covariance = _posterior(vae, x)
    plane = _two_dimensions(vae, _marginal_kl(mu, covariance), dimensions)
    across, up = mu[:, list(plane)].T
    if labels is None:
        axes.scatter(across, up, s=9, alpha=0.7, linewidths=0)
    elif _is_scale(labels):
        axes.figure.colorbar(
            axes.scatter(across, up, s=9, c=labels, cmap="viridis", linewidths=0), ax=axes, label="label"
        )
    else:
        for index, (name, rows) in enumerate(_groups(labels).items()):
            axes.scatter(across[rows], up[rows], s=9, color=[_colour(index)], linewidths=0, label=name)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="label", markerscale=1.6, fontsize="small")
    return _finish_plane(axes, plane, "Latent space: the mean of q(z|x) of every example", "datalim")


def posterior_ellipses(
    vae: VAE,
    x: NDArray[Any],
    labels: NDArray[Any] | None = None,
    dimensions: tuple[int, int] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """q(z|x) of every example as its ellipse of one standard deviation, and the prior's circle of radius 1.

    Formula   {z: (z - mu)^T S^-1 (z - mu) = 1}, S the 2 x 2 covariance of q on the plane
    Takes     as `latent_scatter`
    """
    labels, axes = _labels(labels, len(x)), _axes(axes, 6.2, 4.8)
    mu, covariance = _posterior(vae, x)
    plane = _two_dimensions(vae, _marginal_kl(mu, covariance), dimensions)
    values, vectors = np.linalg.eigh(covariance[:, plane][:, :, plane])
    across = 2.0 * np.sqrt(values)  # full axes of the ellipse, the shorter first
    angles = np.degrees(np.arctan2(vectors[:, 1, 0], vectors[:, 0, 0]))
    groups = {"": np.ones(len(x), bool)} if labels is None or _is_scale(labels) else _groups(labels)
    for index, (name, rows) in enumerate(groups.items()):
        ellipses = EllipseCollection(
            across[rows, 0],
            across[rows, 1],
            angles[rows],
            units="xy",
            offsets=mu[rows][:, list(plane)],
            offset_transform=axes.transData,
            facecolors="none",
            edgecolors=[_colour(index)],
            linewidths=0.8,
            label=f"q(z|x), {name}" if name else "q(z|x)",
        )
        axes.add_collection(ellipses)
    ink: Any = matplotlib.rcParams["text.color"]
    axes.add_patch(Circle((0, 0), 1.0, fill=False, linestyle="--", linewidth=1.6, edgecolor=ink, zorder=3))
    reach = 1.05 * max(1.0, float((np.abs(mu[:, list(plane)]) + across.max(1, keepdims=True) / 2).max()))
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    handles = [
        matplotlib.lines.Line2D([], [], color=_colour(index), label=entry.get_label())
        for index, entry in enumerate(axes.collections)
    ]
    handles.append(matplotlib.lines.Line2D([], [], color=ink, linestyle="--", label="prior N(0, I)"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return _finish_plane(axes, plane, "Posteriors: one standard deviation of q(z|x)", "box")


def kl_per_dimension(vae: VAE, x: NDArray[Any], axes: Axes | None = None) -> Axes:
    """The mean over examples of KL(q(z_j|x) || N(0, 1)), largest first; a colour tells dimensions that carry nothing.

    Formula   1/2 (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2); under a diagonal q their sum is the KL of the ELBO
    Active    where the variance over examples of the mean of q(z_j|x) is above 0.01
    Source    Burda, Grosse, Salakhutdinov 2015, section 5
    """
    axes = _axes(axes, 6.0, 3.2)
    mu, covariance = _posterior(vae, x)
    kl, active = _marginal_kl(mu, covariance).mean(0), mu.var(0) > ACTIVE
    order = np.argsort(-kl, kind="stable")
    places = np.arange(len(order))
    for chosen, name, colour in ((active, "active", TRAINING), (~active, "inactive", HELD_OUT)):
        rows = chosen[order]
        if rows.any():
            axes.bar(places[rows], kl[order][rows], color=colour, label=f"{name}: {int(chosen.sum())}")
    step = ceil(len(order) / 25)
    axes.set_xticks(places[::step], [str(index) for index in order[::step]])
    axes.set_axisbelow(True)
    axes.set_xlabel("latent dimension")
    axes.set_ylabel("nats per example")
    axes.set_title("KL to the prior of each latent dimension")
    axes.legend(loc="upper right")
    return axes


def traversals(
    vae: VAE,
    x: NDArray[Any] | None = None,
    dimensions: Sequence[int] | None = None,
    steps: int = 11,
    span: float = 3.0,
    image_shape: Shape = None,
    axes: Axes | None = None,
) -> Axes:
    """The mean of p(x|z) as one latent dimension at a time goes from -span to span, the others at 0: a row each.

    Takes     x (N, D): examples; the others then stay at the mean of q(z|x) of the first, and without `dimensions` the
              ten with the largest mean KL are drawn, largest first; dimensions: which to draw
    Raises    ValueError for a dimension that there is not, or fewer than two steps
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; expected at least 2")
    centre, order = np.zeros(vae.latent_dim), np.arange(vae.latent_dim)
    if x is not None:
        mu, covariance = _posterior(vae, x)
        centre, order = mu[0], np.argsort(-_marginal_kl(mu, covariance).mean(0), kind="stable")
    chosen = [int(index) for index in (order[:10] if dimensions is None else dimensions)]
    if not chosen or not all(0 <= index < vae.latent_dim for index in chosen):
        raise ValueError(f"dimensions are {chosen}; expected some of 0 to {vae.latent_dim - 1}")
    values = np.linspace(-span, span, steps)
    z = np.tile(centre, (len(chosen), steps, 1))
    for row, index in enumerate(chosen):
        z[row, :, index] = values
    decoded = vae.decode(z)
    shape = image_shape_of(vae.data_dim, image_shape)
    axes = _grid_axes(axes, shape, len(chosen), steps)
    axes.set_title(f"Traversals: the mean of p(x|z), one dimension of z from {-span:g} to {span:g}")
    names = [f"z[{index}]" for index in chosen]
    if shape is None:
        return show_lines(axes, dict(zip(names, decoded, strict=True)), None)
    show_grid(axes, decoded.reshape(-1, *shape), steps, shades(decoded))
    high, wide = shape[0] + TILE_GAP, shape[1] + TILE_GAP
    axes.set_yticks([(row + 0.5) * high - 1.0 for row in range(len(chosen))], names)
    axes.set_xticks([(column + 0.5) * wide - 1.0 for column in range(steps)], [f"{value:.1f}" for value in values])
    axes.tick_params(length=0)
    return axes


def manifold(vae: VAE, count: int = 20, image_shape: Shape = None, axes: Axes | None = None) -> Axes:
    """The mean of p(x|z) over the plane of a two-dimensional latent space: a count x count grid of z.

    Formula   z[0] and z[1] at the quantiles (i - 1/2) / count of N(0, 1), so that every tile is as probable
    Raises    ValueError unless there are two latent dimensions and data are images or points of a plane
    Source    Kingma, Welling 2013, figure 4
    """
    shape = image_shape_of(vae.data_dim, image_shape)
    if vae.latent_dim != 2:
        raise ValueError(f"latent_dim is {vae.latent_dim}; expected 2 latent dimensions for a manifold")
    if shape is None and vae.data_dim != 2:
        raise ValueError(f"data have {vae.data_dim} dimensions and are no images; expected images, or 2 dimensions")
    values = np.array([NormalDist().inv_cdf((index + 0.5) / count) for index in range(count)])
    across, down = np.meshgrid(values, values[::-1])
    decoded = vae.decode(np.stack([across, down], axis=-1))
    axes = _axes(axes, 6.4, 6.4 if shape is None else 6.4 * shape[0] / shape[1])
    axes.set_title("Manifold: the mean of p(x|z) over z, every tile equally probable")
    if shape is None:
        for line, label in ((decoded, "z[0] varies"), (decoded.transpose(1, 0, 2), "z[1] varies")):
            for index, points in enumerate(line):
                colour = TRAINING if label.startswith("z[0]") else HELD_OUT
                axes.plot(points[:, 0], points[:, 1], color=colour, linewidth=0.8, label=None if index else label)
        axes.set_xlabel("x[0]")
        axes.set_ylabel("x[1]")
        axes.legend(loc="best")
        return axes
    show_grid(axes, decoded.reshape(-1, *shape), count, shades(decoded))
    marks = np.unique(np.linspace(0, count - 1, min(count, 7)).round().astype(int))
    high, wide = shape[0] + TILE_GAP, shape[1] + TILE_GAP
    axes.set_xticks([(mark + 0.5) * wide - 1.0 for mark in marks], [f"{values[mark]:.1f}" for mark in marks])
    axes.set_yticks([(mark + 0.5) * high - 1.0 for mark in marks], [f"{values[::-1][mark]:.1f}" for mark in marks])
    axes.tick_params(length=0)
    axes.set_xlabel("z[0]")
    axes.set_ylabel("z[1]")
    return axes
