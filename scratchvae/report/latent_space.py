"""The latent space: where q(z|x) puts examples, what each dimension carries, and what p(x|z) makes of it."""

from collections.abc import Sequence
from math import ceil
from numbers import Real
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import matplotlib.colors
import matplotlib.lines
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.patches import Circle
from numpy.typing import NDArray

from scratchvae.evidence.surgery import ACTIVE_VARIANCE
from scratchvae.vae import VAE

from .drawing import HELD_OUT, TRAINING, as_written, axes_or_new, image_shape_of, shades, show_grid, tile_middles
from .examples import Shape, grid_axes, name_plane, show_lines

CATEGORIES = 20  # more different labels than this are drawn as a scale, or the rarest as "other"
TRAVERSALS = 10  # latent dimensions drawn without being asked for


class Posteriors(NamedTuple):
    """q(z|x) of N examples."""

    mu: NDArray[Any]  # (N, Z)
    variance: NDArray[Any]  # (N, Z): of every dimension by itself
    factor: NDArray[Any] | None  # (N, Z, Z): L, where the covariance is L L^T and not diagonal

    def marginal_kl(self) -> NDArray[Any]:
        """KL(q(z_j|x) || N(0, 1)) of every dimension, (N, Z), in nats; under a diagonal q they add up to the KL."""
        variance = np.maximum(self.variance, np.finfo(np.float64).tiny)  # one may underflow
        return 0.5 * (np.square(self.mu) + variance - 1.0 - np.log(variance))

    def covariance_on(self, plane: tuple[int, int]) -> NDArray[Any]:
        """(N, 2, 2)."""
        if self.factor is None:
            return self.variance[:, plane, None] * np.eye(2)
        rows = self.factor[:, plane]
        return rows @ rows.transpose(0, 2, 1)


def _posteriors(vae: VAE, x: NDArray[Any]) -> Posteriors:
    found = vae.encode(x)
    mu = np.asarray(found.mu, dtype=np.float64)
    if hasattr(found, "cholesky"):
        factor = np.asarray(found.cholesky, dtype=np.float64)
        return Posteriors(mu, np.square(factor).sum(2), factor)
    return Posteriors(mu, np.exp(np.asarray(found.logvar, dtype=np.float64)), None)


def main_plane(vae: VAE, x: NDArray[Any]) -> tuple[int, int]:
    """The two latent dimensions with the largest mean KL to the prior. Raises ValueError where there is but one."""
    return _two_dimensions(vae, _posteriors(vae, x), None)


def _two_dimensions(vae: VAE, q: Posteriors, dimensions: tuple[int, int] | None) -> tuple[int, int]:
    """The dimensions asked for, or those that carry most, in their order."""
    if vae.latent_dim < 2:
        raise ValueError("latent_dim is 1; expected at least 2 latent dimensions for a plane")
    if dimensions is None:
        first, second = sorted(np.argsort(-q.marginal_kl().mean(0), kind="stable")[:2])
        return int(first), int(second)
    if not len(dimensions) == len(set(dimensions)) == 2 or not all(0 <= index < vae.latent_dim for index in dimensions):
        raise ValueError(f"dimensions are {dimensions}; expected two different ones of 0 to {vae.latent_dim - 1}")
    return dimensions


def label_groups(labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Rows by label, in the labels' order; of too many words, the commonest, and the rest as "other"."""
    values, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    commonest = np.argsort(-counts, kind="stable")
    kept = np.sort(commonest if len(values) <= CATEGORIES else commonest[: CATEGORIES - 1])
    groups = {as_written(values[place]): places == place for place in kept}  # nan is not equal to itself
    rest = ~np.isin(places, kept)
    return groups | {"other": groups.get("other", False) | rest} if rest.any() else groups


def _labels(labels: NDArray[Any] | None, rows: int) -> NDArray[Any] | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (rows,):
        raise ValueError(f"labels have shape {labels.shape}; expected one for each of {rows} examples")
    return _of_one_kind(labels) if labels.dtype == object else labels


def _of_one_kind(labels: NDArray[Any]) -> NDArray[Any]:
    """Objects as numbers, None as nan, or all as words where one is no number, so that they have an order."""
    numbers = all(label is None or (isinstance(label, Real) and not isinstance(label, bool)) for label in labels)
    return labels.astype(float if numbers else str)


def _is_scale(labels: NDArray[Any] | None) -> bool:
    """Whether labels are so many numbers that they are drawn as a scale."""
    return labels is not None and labels.dtype.kind in "iuf" and len(np.unique(labels)) > CATEGORIES


def label_colour(index: int) -> Any:
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
    labels, axes = _labels(labels, len(x)), axes_or_new(axes, 6.2, 4.8)
    q = _posteriors(vae, x)
    plane = _two_dimensions(vae, q, dimensions)
    across, up = q.mu[:, plane].T
    if labels is None:
        axes.scatter(across, up, s=9, alpha=0.7, linewidths=0)
    elif _is_scale(labels):
        axes.figure.colorbar(
            axes.scatter(across, up, s=9, c=labels, cmap="viridis", linewidths=0), ax=axes, label="label"
        )
    else:
        for index, (name, rows) in enumerate(label_groups(labels).items()):
            axes.scatter(across[rows], up[rows], s=9, color=[label_colour(index)], linewidths=0, label=name)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="label", markerscale=1.6, fontsize="small")
    return _finish_plane(axes, plane, "Latent space: the mean of q(z|x) of every example", "datalim")


def posterior_ellipses(
    vae: VAE,
    x: NDArray[Any],
    labels: NDArray[Any] | None = None,
    dimensions: tuple[int, int] | None = None,
    axes: Axes | None = None,
    first: int | None = None,
) -> Axes:
    """q(z|x) of every example as its ellipse of one standard deviation, and the prior's circle of radius 1.

    Formula   {z: (z - mu)^T S^-1 (z - mu) = 1}, S the 2 x 2 covariance of q on the plane
    Takes     as `latent_scatter`; first: how many examples are drawn, in the colours that all of them would have
    """
    labels, axes = _labels(labels, len(x)), axes_or_new(axes, 6.2, 4.8)
    groups = {"": np.ones(len(x), bool)} if labels is None or _is_scale(labels) else label_groups(labels)
    q = _posteriors(vae, x[:first])
    plane = _two_dimensions(vae, q, dimensions)
    means = q.mu[:, plane]
    values, vectors = np.linalg.eigh(q.covariance_on(plane))
    across = 2.0 * np.sqrt(values)  # full axes of the ellipse, the shorter first
    angles = np.degrees(np.arctan2(vectors[:, 1, 0], vectors[:, 0, 0]))
    handles = []
    for index, (name, rows) in enumerate((name, rows[:first]) for name, rows in groups.items()):
        if not rows.any():
            continue
        ellipses = EllipseCollection(
            across[rows, 0],
            across[rows, 1],
            angles[rows],
            units="xy",
            offsets=means[rows],
            offset_transform=axes.transData,
            facecolors="none",
            edgecolors=[label_colour(index)],
            linewidths=0.8,
            label=f"q(z|x), {name}" if name else "q(z|x)",
        )
        axes.add_collection(ellipses)
        handles.append(matplotlib.lines.Line2D([], [], color=label_colour(index), label=ellipses.get_label()))
    ink: Any = matplotlib.rcParams["text.color"]
    axes.add_patch(Circle((0, 0), 1.0, fill=False, linestyle="--", linewidth=1.6, edgecolor=ink, zorder=3))
    reach = 1.05 * max(1.0, float((np.abs(means) + across.max(1, keepdims=True) / 2).max()))
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    handles.append(matplotlib.lines.Line2D([], [], color=ink, linestyle="--", label="prior N(0, I)"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return _finish_plane(axes, plane, "Posteriors: one standard deviation of q(z|x)", "box")


def kl_per_dimension(vae: VAE, x: NDArray[Any], axes: Axes | None = None) -> Axes:
    """The mean over examples of KL(q(z_j|x) || N(0, 1)), largest first; a colour tells dimensions that carry nothing.

    Formula   1/2 (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2); under a diagonal q their sum is the KL of the ELBO
    Active    where the variance over examples of the mean of q(z_j|x) is above 0.01; of one example none is said to be
    Source    Burda, Grosse, Salakhutdinov 2015, section 5.2
    """
    axes = axes_or_new(axes, 6.0, 3.2)
    q = _posteriors(vae, x)
    kl, active = q.marginal_kl().mean(0), q.mu.var(0) > ACTIVE_VARIANCE
    order = np.argsort(-kl, kind="stable")
    places = np.arange(len(order))
    kinds = ((active, "active", TRAINING), (~active, "inactive", HELD_OUT))
    for chosen, name, colour in kinds if len(x) > 1 else ((np.ones_like(active), "all", TRAINING),):
        rows = chosen[order]
        if rows.any():
            axes.bar(places[rows], kl[order][rows], color=colour, label=f"{name}: {int(chosen.sum())}")
    step = ceil(len(order) / 25)
    axes.set_xticks(places[::step], [str(index) for index in order[::step]])
    axes.set_axisbelow(True)
    axes.set_xlabel("latent dimension")
    axes.set_ylabel("nats per example")
    axes.set_title("KL to the prior of each latent dimension")
    if len(x) > 1:
        axes.margins(y=0.3)  # room for the legend above the bars
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
    names: Sequence[str] | None = None,
) -> Axes:
    """The mean of p(x|z) as one latent dimension at a time goes from -span to span, the others at 0: a row each.

    Takes     x (N, D): examples; the others then stay at the mean of q(z|x) of the first, and without `dimensions` the
              ten with the largest mean KL are drawn, largest first; dimensions: which to draw; names: of the data's
              D columns, written where these are no images
    Raises    ValueError for a dimension that there is not, or fewer than two steps
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; expected at least 2")
    centre, order = np.zeros(vae.latent_dim), np.arange(vae.latent_dim)
    if x is not None:
        q = _posteriors(vae, x)
        centre, order = q.mu[0], np.argsort(-q.marginal_kl().mean(0), kind="stable")
    chosen = [int(index) for index in (order[:TRAVERSALS] if dimensions is None else dimensions)]
    if not chosen or not all(0 <= index < vae.latent_dim for index in chosen):
        raise ValueError(f"dimensions are {chosen}; expected some of 0 to {vae.latent_dim - 1}")
    values = np.linspace(-span, span, steps)
    z = np.tile(centre, (len(chosen), steps, 1))
    for row, index in enumerate(chosen):
        z[row, :, index] = values
    decoded = vae.decode(z)
    shape = image_shape_of(vae.data_dim, image_shape)
    axes = grid_axes(axes, shape, len(chosen), steps)
    axes.set_title(f"Traversals: the mean of p(x|z), one dimension of z from {-span:g} to {span:g}")
    moved = [f"z[{index}]" for index in chosen]
    if shape is None:
        axes.set_ylabel(f"{-span:g} above, {span:g} below")
        return show_lines(axes, dict(zip(moved, decoded, strict=True)), None, names=names)
    show_grid(axes, decoded.reshape(-1, *shape), steps, shades(decoded))
    axes.set_yticks(tile_middles(range(len(chosen)), shape[0]), moved)
    axes.set_xticks(tile_middles(range(steps), shape[1]), [f"{value:.1f}" for value in values])
    axes.tick_params(length=0)
    return axes


def manifold(
    vae: VAE,
    count: int = 20,
    image_shape: Shape = None,
    axes: Axes | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """The mean of p(x|z) over the plane of a two-dimensional latent space: a count x count grid of z.

    Formula   z[0] and z[1] at the quantiles (i - 1/2) / count of N(0, 1), so that every tile is as probable
    Takes     names: of the data's columns, where these are points of a plane
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
    axes = axes_or_new(axes, 6.4, 6.4 if shape is None else 6.4 * shape[0] / shape[1])
    axes.set_title("Manifold: the mean of p(x|z) over z, every tile equally probable")
    if shape is None:
        for line, label in ((decoded, "z[0] varies"), (decoded.transpose(1, 0, 2), "z[1] varies")):
            for index, points in enumerate(line):
                colour = TRAINING if label.startswith("z[0]") else HELD_OUT
                axes.plot(points[:, 0], points[:, 1], color=colour, linewidth=0.8, label=None if index else label)
        name_plane(axes, names)
        axes.legend(loc="best")
        return axes
    show_grid(axes, decoded.reshape(-1, *shape), count, shades(decoded))
    marks = np.unique(np.linspace(0, count - 1, min(count, 7)).round().astype(int))
    axes.set_xticks(tile_middles(marks, shape[1]), [f"{values[mark]:.1f}" for mark in marks])
    axes.set_yticks(tile_middles(marks, shape[0]), [f"{values[::-1][mark]:.1f}" for mark in marks])
    axes.tick_params(length=0)
    axes.set_xlabel("z[0]")
    axes.set_ylabel("z[1]")
    return axes
