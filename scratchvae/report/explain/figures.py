# ruff: noqa: RUF001
"""The pictures of the page, one function a point. Each quantity has one colour, here and in the text of the page."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from ..drawing import as_written, shades, show_grid, tile_middles
from ..latent_space import label_colour, label_groups
from .estimators import Estimators
from .gradient_noise import GradientNoise
from .identity import Forms, Identity
from .known_density import InfiniteMixture, WhichDensity
from .movement import Movement, Phase
from .posterior_shapes import Shape, Shapes
from .squared_error import SquaredError
from .subject import Subject

WIDTH = 9.4
MANIFOLD = 15  # decoded grid points along each axis
LONGEST = 3  # letters of a label that stands at its example's place: words would lie across one another

COLOURS = {"elbo": "C0", "gap": "C1", "prior": "C2", "other": "C3", "first": "C4", "second": "C6", "third": "C5"}
"""In the style's order of colours. log p(x) is drawn in the colour of the text. What has a colour in one picture alone,
as methods that are compared, is first, second and third there: none of the terms."""


def is_dark() -> bool:
    """Whether the style in force is that of a dark page."""
    return matplotlib.colors.to_rgb(matplotlib.rcParams["text.color"])[0] > 0.5


def colour(name: str) -> str:
    """The colour of a quantity under the style in force."""
    return ink() if name == "evidence" else COLOURS[name]


def ink() -> str:
    return str(matplotlib.rcParams["text.color"])


def soft() -> str:
    return str(matplotlib.rcParams["axes.edgecolor"])


def bare_log_axis(axis: Axis) -> None:
    """Ticks at powers of ten and nowhere between: less ink, and half the time to draw."""
    axis.set_minor_locator(NullLocator())


def density_colours() -> LinearSegmentedColormap:
    """From transparent to strong: a density of 0 looks like nothing on either ground."""
    steps = (
        ("#6cb2f500", "#3f7fc4", "#9fd0ff", "#ffffff") if is_dark() else ("#1f6fb800", "#7fb2de", "#1f6fb8", "#0a2540")
    )
    return LinearSegmentedColormap.from_list("density", steps)


# --- the model --------------------------------------------------------------------------------------------------------


def the_model(subject: Subject) -> Figure:
    """Where q(z|x) puts held-out examples, and what the decoder makes of a grid of z: over a plane, or along a line."""
    figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
    count = 1 if subject.image_shape is None else 2
    if subject.vae.latent_dim == 1:
        panels: Any = figure.subplots(count, 1, height_ratios=(5, 1)[:count], squeeze=False)[:, 0]
        _means_on_a_line(panels[0], subject)
    else:
        panels = figure.subplots(1, count, squeeze=False)[0]
        _means_in_the_plane(panels[0], subject)
    panels[0].grid(False)
    panels[0].set_title("Held-out images at the mean of q(z|x)")
    if count == 2:
        _decoder_means(panels[1], subject)
    return figure


def _means_in_the_plane(axes: Axes, subject: Subject) -> None:
    """The first two latent dimensions."""
    mu, _ = subject.vae.encode(subject.held_out)
    _examples(axes, mu[:, 0], mu[:, 1], subject.labels, "o")
    limit = 1.05 * max(3.0, float(np.abs(mu).max()))
    for radius in (1, 2):
        axes.add_patch(matplotlib.patches.Circle((0, 0), radius, fill=False, color=soft(), linestyle=":", linewidth=1))
    width = limit if subject.image_shape is not None else 2 * limit  # alone, it fills the figure
    axes.set_xlim(-width, width)
    axes.set_ylim(-limit, limit)
    axes.set_aspect("equal")
    axes.set_xlabel("z[0]")
    axes.set_ylabel("z[1]")


def _means_on_a_line(axes: Axes, subject: Subject) -> None:
    """The only latent dimension: one row for each label, the first on top."""
    mu, _ = subject.vae.encode(subject.held_out)
    row = np.zeros(len(mu)) if subject.labels is None else np.unique(subject.labels, return_inverse=True)[1]
    _examples(axes, mu[:, 0], -row, subject.labels, "|")
    limit = 1.05 * max(3.0, float(np.abs(mu).max()))
    for place in (-2, -1, 1, 2):
        axes.axvline(place, color=soft(), linestyle=":", linewidth=1)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-row.max() - 0.8, 0.8)
    axes.set_yticks([])
    axes.set_xlabel("z[0]")
    axes.set_ylabel("" if subject.labels is None else "label")


def _examples(axes: Axes, x: NDArray, y: NDArray, labels: NDArray | None, marker: str) -> None:
    """Each example at its place: its label, in a colour for each, or, where there are none or long ones, a mark."""
    marks: Any = {"s": 8 if marker == "o" else 300, "marker": marker, "linewidths": 0.8}
    if labels is None:
        axes.scatter(x, y, color=colour("first"), **marks)
        return
    if max(len(str(label)) for label in labels) > LONGEST:
        for index, (name, own) in enumerate(label_groups(labels).items()):
            axes.scatter(x[own], y[own], color=[label_colour(index)], label=name, **marks)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="label", fontsize="small",
                    markerscale=1.6 if marker == "o" else 0.4)  # fmt: skip
        return
    palette = matplotlib.colormaps["tab10"]
    values, places = np.unique(labels, return_inverse=True)
    for index, label in enumerate(values):
        for m in np.flatnonzero(places == index):  # nan is not equal to itself
            axes.text(x[m], y[m], as_written(label), color=palette(index % 10), ha="center", va="center",
                      fontsize=8, fontweight="bold")  # fmt: skip


def _decoder_means(axes: Axes, subject: Subject) -> None:
    """Means of p(x|z) in the middles of equal shares of the prior's mass; z is 0 beyond its first two dimensions."""
    across, latent_dim = _normal_quantiles(MANIFOLD).round(2), subject.vae.latent_dim
    axis = [across[:, None]] if latent_dim == 1 else np.meshgrid(across, -across)
    z = np.stack([part.ravel() for part in axis], axis=1)
    z = np.pad(z, ((0, 0), (0, latent_dim - z.shape[1])))
    images = subject.vae.decode(z).reshape(-1, *(subject.image_shape or ()))
    show_grid(axes, images, MANIFOLD, shades(subject.held_out))
    marks = [0, MANIFOLD // 2, MANIFOLD - 1]
    names = [f"{value:.1f}".replace("-", "−") for value in across[marks] + 0.0]
    axes.set_xticks(tile_middles(marks, images.shape[2]), names)
    axes.set_xlabel("z[0]")
    if latent_dim > 1:
        axes.set_yticks(tile_middles(marks, images.shape[1]), names[::-1])
        axes.set_ylabel("z[1]")
    axes.tick_params(length=0)
    axes.set_title("The decoder's picture at each z" + (", z[2] being 0" if latent_dim > 2 else ""))


def _normal_quantiles(count: int) -> NDArray:
    """Quantiles of N(0, 1) at (i + 1/2) / count."""
    fine = np.linspace(-5, 5, 20001)
    mass = np.cumsum(np.exp(-0.5 * fine**2))
    return np.interp((np.arange(count) + 0.5) / count, mass / mass[-1], fine)


# --- 1, 2 -------------------------------------------------------------------------------------------------------------


def identity(found: Identity) -> Figure:
    """ELBO and log p(x) of every example, the KL between them, and what is left over."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    order = np.argsort(found.log_evidence)
    place = np.arange(len(order))
    left.vlines(place, found.elbo[order], found.log_evidence[order], color=colour("gap"), linewidth=5, alpha=0.55,
                label="KL(q ‖ p(z|x)), the gap")  # fmt: skip
    left.plot(place, found.log_evidence[order], "_", color=colour("evidence"), markersize=9, markeredgewidth=2,
              label="log p(x)")  # fmt: skip
    left.plot(place, found.elbo[order], "o", color=colour("elbo"), markersize=4.5, label="ELBO")
    left.set_xlabel("held-out example, in order of log p(x)")
    left.set_ylabel("nats")
    left.set_title("Three integrals for each image")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(loc="lower right")
    floor = 1e-16
    right.semilogy(place, np.maximum(np.abs(found.residual[order]), floor), "o", color=colour("first"), markersize=4)
    right.axhline(1e-10, color=soft(), linewidth=1, linestyle="--")
    right.text(0, 1.3e-10, "1e-10", color=ink(), fontsize=8, va="bottom")
    right.set_ylim(floor, max(1e-8, 3 * found.worst_residual))
    bare_log_axis(right.yaxis)
    right.set_xlabel("the same examples")
    right.set_ylabel("|residual|, nats")
    right.set_title("log p(x) − ELBO − KL")
    return figure


def forms(found: Forms) -> Figure:
    """Running means of the three forms that can be sampled, on one example, and the scatter of a single draw."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    count = np.arange(1, found.samples + 1)
    shades = [colour("first"), colour("second"), colour("third")]
    for name, draws, shade in zip(found.names, found.trace, shades, strict=False):
        left.plot(count, np.cumsum(draws) / count, color=shade, linewidth=1.2, label=name)
    left.axhline(found.exact[0, 0], color=ink(), linewidth=1, linestyle="--", label="exact, all four forms")
    span = 1.5 * float(found.deviation[:, 0].max()) / np.sqrt(5)
    left.set_ylim(found.exact[0, 0] - span, found.exact[0, 0] + span)
    left.set_xscale("log")
    bare_log_axis(left.xaxis)
    left.set_xlabel("draws of z averaged")
    left.set_ylabel("nats")
    left.set_title("One number, three ways to average")
    left.legend(loc="upper right", fontsize=8)
    right.barh([2, 1, 0], found.mean_deviations, color=shades, height=0.6)
    right.set_yticks([2, 1, 0], ["log p(x,z) − log q", "log p(x|z) − KL", "log p(x,z) + H"])
    right.set_xlabel("standard deviation of one draw, nats")
    right.set_title("Their noise")
    right.grid(False)
    return figure


# --- 3 ----------------------------------------------------------------------------------------------------------------


def movement(found: Movement) -> Figure:
    """log p(x) and ELBO over the steps of both phases, the gap between them shaded."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = "φ moves (encoder), θ frozen: the line is flat", "θ moves (decoder), φ frozen: the line moves"
    for axes, phase, title in zip(panels, (found.phi, found.theta), titles, strict=True):
        _phase(axes, phase)
        axes.set_title(title)
    lines = np.concatenate([p.log_evidence.mean(axis=1) for p in (found.phi, found.theta)])
    bounds = np.concatenate([p.elbo.mean(axis=1) for p in (found.phi, found.theta)])
    lowest, high = max(min(bounds.min(), lines.min()), lines.min() - 12.0) - 0.3, max(lines.max(), bounds.max()) + 0.3
    panels[0].set_ylim(lowest, high)
    for axes, phase in zip(panels, (found.phi, found.theta), strict=True):
        cut = bool((phase.elbo.mean(axis=1) < lowest).any())
        axes.set_xlabel("training steps" + (", some cut off" if cut else ""))
    panels[0].set_ylabel(f"nats, mean of {found.examples} held-out examples")
    panels[0].legend(loc="lower right")
    return figure


def _phase(axes: Axes, phase: Phase) -> None:
    steps = phase.steps
    line, bound = phase.log_evidence.mean(axis=1), phase.elbo.mean(axis=1)
    axes.fill_between(steps, bound, line, color=colour("gap"), alpha=0.25, linewidth=0, label="gap = KL(q ‖ p(z|x))")
    axes.plot(steps, line, color=colour("evidence"), marker="s", markersize=3.5, linewidth=1.6, label="log p(x)")
    axes.plot(steps, bound, color=colour("elbo"), marker="o", markersize=3.5, linewidth=1.6, label="ELBO")


# --- 4, 5 -------------------------------------------------------------------------------------------------------------


def shapes(found: Shapes, subject: Subject) -> Figure:
    """Each example's image, true posterior and q, on the same axes and the same colour scale."""
    count = len(found.shapes)
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    panels = figure.subplots(3, count, height_ratios=(0.75, 1, 1), squeeze=False)
    for column, one in enumerate(found.shapes):
        _example(panels[0, column], one, subject)
        limit = max(float(one.posterior.max()), float(one.approximation.max()))
        for axes, density in ((panels[1, column], one.posterior), (panels[2, column], one.approximation)):
            _density(axes, one.axes, density, limit)
        _contours(panels[1, column], one)
    panels[1, 0].set_title("true posterior p(z|x); lines: q")
    panels[2, 0].set_title("encoder's q(z|x)")
    for row in (1, 2):
        panels[row, 0].set_ylabel("z[1]" if len(found.smallest.axes) > 1 else "density, 1/unit of z")
    for axes in panels[2]:
        axes.set_xlabel("z[0]")
    return figure


def _example(axes: Axes, one: Shape, subject: Subject) -> None:
    if subject.image_shape is not None:
        black, white = shades(subject.held_out)
        image = one.image.reshape(subject.image_shape)
        axes.imshow(image, cmap="gray", vmin=black, vmax=white, interpolation="nearest")
    else:
        axes.plot(one.image, color=ink(), linewidth=1)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    name = "x" if one.label is None else f"x, a {as_written(one.label)}"
    axes.set_title(f"{name}: gap {one.gap:.2f} nats")


def _density(axes: Axes, grid: tuple[NDArray, ...], density: NDArray, limit: float) -> None:
    axes.grid(False)
    if len(grid) == 1:
        axes.plot(grid[0], density, color=ink(), linewidth=1.4)
        axes.set_ylim(0, 1.05 * limit)
        return
    extent = (grid[0][0], grid[0][-1], grid[1][0], grid[1][-1])
    axes.imshow(density.T, origin="lower", extent=extent, cmap=density_colours(), vmin=0, vmax=limit, aspect="auto")
    axes.set_box_aspect(1)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))


def _contours(axes: Axes, one: Shape) -> None:
    """Ellipses of q at one and two standard deviations; its curve, for one latent dimension."""
    if len(one.axes) == 1:
        axes.plot(one.axes[0], one.approximation, color=colour("first"), linestyle="--", linewidth=1.2)
        return
    for deviations in (1, 2):
        width, height = 2 * deviations * np.sqrt(one.variance[:2])
        axes.add_patch(
            matplotlib.patches.Ellipse(
                tuple(one.mu[:2]), width, height, fill=False, color=colour("first"), linewidth=1.4
            )
        )


def two_divergences(found: Identity, subject: Subject) -> Figure:
    """Both KLs of every example against each other, and their means."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    left.scatter(found.kl_to_prior, found.kl_to_posterior, s=26, color=colour("first"), linewidths=0, zorder=3)
    if subject.labels is not None:
        for x, y, row in zip(found.kl_to_prior, found.kl_to_posterior, found.rows, strict=True):
            left.annotate(as_written(subject.labels[row]), (x, y), (5, 0), textcoords="offset points", fontsize=8,
                          va="center")  # fmt: skip
    left.set_yscale("log")
    left.set_xlabel("KL(q ‖ prior), nats: a term of the ELBO")
    left.set_ylabel("KL(q ‖ p(z|x)), nats: the gap")
    left.set_title("One point an image" + (", with its label" if subject.labels is not None else ""))
    right.bar(["KL(q ‖ prior)", "KL(q ‖ p(z|x))"], [found.mean_kl_to_prior, found.mean_gap], width=0.6,
              color=[colour("prior"), colour("gap")])  # fmt: skip
    for place, value in enumerate((found.mean_kl_to_prior, found.mean_gap)):
        right.annotate(f"{value:.2f}", (place, value), (0, 3), textcoords="offset points", ha="center")
    right.set_ylim(0, 1.15 * max(found.mean_kl_to_prior, found.mean_gap))
    right.set_ylabel("nats, mean")
    right.set_xlabel("divergence")
    right.set_title("Their means")
    return figure


# --- 6, 7 -------------------------------------------------------------------------------------------------------------


def mixture(found: InfiniteMixture) -> Figure:
    """The density of the mixture for a few sizes, and its distance from log p(x) for all."""
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    upper, lower = parts
    panels = upper.subplots(1, len(found.shown), sharey=True)
    limit = float(found.pictures[-1].max())
    for axes, size, density, centres, weight in zip(
        panels, found.shown, found.pictures, found.centres, found.weights, strict=True
    ):
        _plane(axes, found.grid, density, limit)
        if size < 100:
            axes.scatter(*centres.T, s=6 + 60 * weight / weight.max(), facecolors="none", edgecolors=colour("first"),
                         linewidths=0.8)  # fmt: skip
        axes.set_title(f"{size} components")
    panels[0].set_ylabel("x[1]")
    axes = lower.subplots(1, 1)
    axes.set_facecolor("none")
    axes.loglog(
        found.sizes, found.errors, marker="o", markersize=4, color=colour("first"), label="the plane, z on a line"
    )
    axes.loglog(found.components, found.digit_errors, marker="s", markersize=4, color=colour("second"),
                label=f"the images, Z = {found.latent_dim}")  # fmt: skip
    bare_log_axis(axes.xaxis)
    bare_log_axis(axes.yaxis)
    axes.set_xlabel("components of the mixture: points of a grid of z")
    axes.set_ylabel("mean |log mixture − log p(x)|, nats")
    axes.set_title("The mixture becomes p(x)")
    axes.legend()
    return figure


def _plane(axes: Axes, grid: NDArray, density: NDArray, limit: float) -> None:
    """A density on the square that `grid` spans."""
    extent = (grid[0], grid[-1], grid[0], grid[-1])
    axes.imshow(density, origin="lower", extent=extent, cmap=density_colours(), vmin=0, vmax=limit)
    axes.grid(False)
    axes.set_xlabel("x[0]")
    axes.xaxis.set_major_locator(MaxNLocator(3))


def which_density(found: WhichDensity) -> Figure:
    """The two gaps between the ELBO and minus the entropy over training, and the densities themselves."""
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    upper, lower = parts
    axes = upper.subplots(1, 1)
    x = np.arange(len(found.epochs))
    ceiling = np.full(len(x), -found.entropy)
    axes.fill_between(x, found.log_evidence, ceiling, color=colour("other"), alpha=0.25, linewidth=0,
                      label="KL(data ‖ model)")  # fmt: skip
    axes.fill_between(x, found.elbo, found.log_evidence, color=colour("gap"), alpha=0.3, linewidth=0,
                      label="mean posterior gap")  # fmt: skip
    axes.plot(x, ceiling, color=colour("other"), linewidth=1.6, label="−entropy of the data: E log $p_{data}$(x)")
    axes.plot(x, found.log_evidence, color=colour("evidence"), marker="s", markersize=3.5, label="E log $p_θ$(x)")
    axes.plot(x, found.elbo, color=colour("elbo"), marker="o", markersize=3.5, label="mean ELBO")
    axes.set_xticks(x, [str(epoch) for epoch in found.epochs])
    axes.set_xlabel("epochs of training (not to scale)")
    axes.set_ylabel("nats, expectation over the data's density")
    axes.set_title("What separates the ELBO from the data")
    axes.legend(loc="lower right")
    panels = lower.subplots(1, 3, sharey=True)
    early, late = (f"$p_θ$(x) after {epoch} epochs" for epoch in (found.early_epoch, found.epochs[-1]))
    names = "$p_{data}$(x)", early, late
    limit = float(found.data_density.max())
    for panel, name, density in zip(
        panels, names, (found.data_density, found.early_density, found.late_density), strict=True
    ):
        _plane(panel, found.grid, density, limit)
        panel.set_title(name)
    panels[0].set_ylabel("x[1]")
    return figure


# --- 8, 9, 10 ---------------------------------------------------------------------------------------------------------


def estimators(found: Estimators) -> Figure:
    """How far each estimator falls short as the latent space grows, and the bounds L_K in order."""
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    titles = {"prior": "average over the prior", "importance": "importance sampling from q", "annealed": "annealing"}
    shades = {"prior": colour("first"), "importance": colour("elbo"), "annealed": colour("third")}
    x = np.arange(len(found.latent_dims))
    for shift, name in zip((-0.12, 0.0, 0.12), found.names, strict=True):
        row = found.row(name)
        left.errorbar(x + shift, row["bias"], 2 * row["error"], color=shades[name], marker="o", markersize=4,
                      linewidth=1.3, capsize=2.5, label=titles[name])  # fmt: skip
    left.axhline(0, color=ink(), linewidth=1, linestyle="--")
    left.set_yscale("symlog", linthresh=0.1)
    bare_log_axis(left.yaxis)
    left.set_xticks(x, [str(value) for value in found.latent_dims])
    left.set_xlabel("latent dimensions Z")
    left.set_ylabel("estimate − exact log p(x), nats (± 2 s.e.)")
    left.set_title(f"{found.points:,} decoder evaluations each")
    left.legend(loc="lower left")
    bounds = found.bounds
    right.errorbar(bounds.samples, bounds.values, 2 * bounds.errors, color=colour("elbo"), marker="o", markersize=4,
                   capsize=2.5, linewidth=1.3, label="$L_K$, K draws of z")  # fmt: skip
    right.axhline(bounds.log_evidence, color=colour("evidence"), linewidth=1.4, label="log p(x), exact")
    right.set_xscale("log")
    right.xaxis.set_major_locator(LogLocator(10, numticks=6))
    bare_log_axis(right.xaxis)
    right.set_xlabel("draws K")
    right.set_ylabel("nats, mean")
    right.set_title("On the images: $L_1$ = ELBO ≤ $L_K$ ≤ log p(x)")
    right.legend(loc="lower right")
    return figure


def gradient_noise(found: GradientNoise) -> Figure:
    """Single-draw gradients of one example by three methods, and how many draws each needs."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    shades = [colour("first"), colour("third"), colour("second")]
    reach = 4 * float(found.histogram[1].std())
    centre = float(found.mean[-1, 0, 0])
    edges = np.linspace(centre - reach, centre + reach, 81)
    for name, draws, shade in zip(found.names, found.histogram, shades, strict=True):
        share = np.full(
            len(draws), 1 / (len(draws) * (edges[1] - edges[0]))
        )  # of all draws, those beyond the frame too
        label = f"{name} ± {draws.std():.3g}"  # the frame cuts the widest off
        left.hist(draws, edges, weights=share, histtype="step", color=shade, linewidth=1.5, label=label)
    left.axvline(centre, color=ink(), linewidth=1, linestyle="--", label="their common mean")
    left.set_xlabel("d ELBO / d μ[0] from one draw of z, nats per unit of μ")
    left.set_ylabel("density of draws")
    left.set_title("The same gradient, drawn many times")
    left.set_ylim(top=1.5 * left.get_ylim()[1])  # room for the legend
    left.legend(loc="upper left", fontsize=8, title="± standard deviation of a draw", title_fontsize=8)
    right.barh([2, 1, 0], found.ratios, color=shades, height=0.6)
    right.set_xscale("log")
    right.set_yticks([2, 1, 0], ["score\nfunction", "with\nbaseline", "repara-\nmeterized"])
    for place, value in zip((2, 1, 0), found.ratios, strict=True):
        right.annotate(f"{value:.3g}", (value, place), (4, 0), textcoords="offset points", va="center")
    right.set_xlim(0.5, 6 * max(found.ratios))
    bare_log_axis(right.xaxis)
    right.set_xlabel("draws for the same noise")
    right.set_title("What it costs")
    right.grid(False)
    return figure


def squared_error(found: SquaredError) -> Figure:
    """The data's spectrum with the variances that losses imply, and log p(x) for every variance."""
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    count = min(32, len(found.eigenvalues))
    left.semilogy(np.arange(1, count + 1), found.eigenvalues[:count], "o", color=colour("second"), markersize=4)
    shown = [one for one in found.implied if one.variance < 40 * found.eigenvalues[0]]
    levels = [("best s²", found.best_variance, colour("third"))] + [
        (one.name, one.variance, colour("first")) for one in shown
    ]
    for name, value, shade in levels:
        left.axhline(value, color=shade, linewidth=1, linestyle="--")
        place, side = (1, "left") if value == found.best_variance else (count, "right")
        left.annotate(f"{name}: {value:.3g}", (place, value), (0, 3), textcoords="offset points", ha=side, fontsize=8)
    above = [f"{one.name}: {one.variance:.3g}" for one in found.implied if one not in shown]
    if above:
        left.set_ylim(top=4 * max(value for _, value, _ in levels))
        left.annotate("above the frame: " + ", ".join(above), (count, 1), (0, -4), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="right", va="top", fontsize=8)  # fmt: skip
    left.axvline(found.latent_dim + 0.5, color=soft(), linewidth=1, linestyle=":")
    left.set_xlabel(f"principal direction (the first {count} of {len(found.eigenvalues)})")
    left.set_ylabel("variance of the data along it, squared pixel values")
    left.set_title("Units below a line collapse")
    right.semilogx(found.variances, found.log_evidence, color=colour("evidence"), linewidth=1.6)
    right.plot(found.best_variance, found.best_log_evidence, "*", color=colour("third"), markersize=11)
    right.annotate("the maximum", (found.best_variance, found.best_log_evidence), (8, 2), textcoords="offset points",
                   fontsize=8)  # fmt: skip
    for one in found.implied:
        right.plot(one.variance, one.log_evidence, "o", color=colour("first"), markersize=5)
        right.annotate(f"{one.name} ({one.active} active)", (one.variance, one.log_evidence), (-6, -2),
                       textcoords="offset points", fontsize=8, ha="right", va="top")  # fmt: skip
    bare_log_axis(right.xaxis)
    low, high = min(one.log_evidence for one in found.implied), found.best_log_evidence
    right.set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))
    right.set_xlabel("variance s² of the decoder, squared pixel values")
    right.set_ylabel("mean log p(x) of the best W, nats")
    right.set_title("Nobody chose these variances")
    return figure
