"""What training leaves for a person to look at: pictures.png and report.html."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scratchvae.data.mapped import Data
from scratchvae.vae import VAE

from . import page, plots
from .latent_space import TRAVERSALS
from .summary import Summary, as_seen, described, how_many, kept_epoch, spread_rows

EXAMPLES, SAMPLES = 24, 48  # images or rows of numbers, a few to look at each
LATENT_POINTS, ELLIPSES = 1000, 150  # examples in the pictures of the latent space
LATENT_VALUES = 4_000_000  # pixels of these points in all, so that wide data are not read into memory for a picture
POINTS = 500  # points of a plane: as many as show a density


@dataclass(frozen=True)
class RunReport:
    """The two files, ready to be written."""

    pictures: bytes  # PNG
    html: str


def picture_of(
    vae: VAE,
    held_out: Data,
    shape: Sequence[int] | None,
    binarize: str,
    seed: int,
    names: Sequence[str] | None = None,
) -> Figure:
    """Held-out data, what the model was shown of them, its reconstructions, and samples, in one figure."""
    examples, samples = (POINTS, POINTS) if vae.data_dim == 2 else (EXAMPLES, SAMPLES)
    rows = spread_rows(len(held_out), examples)
    shown = as_seen(vae, held_out, rows, binarize, seed)
    lines: dict[str, NDArray[Any]] = {"data": as_seen(vae, held_out, rows, "none", seed)}
    if not np.array_equal(lines["data"], shown):
        lines["binarized"] = shown
    lines["reconstruction"] = vae.reconstruct(shown)
    draws, sides = vae.sample(samples, seed=seed, mean=True), plots.image_shape_of(vae.data_dim, shape)
    return plots.pictures(lines, draws, sides, names)


def latent_picture(vae: VAE, x: NDArray, labels: NDArray | None) -> Figure:
    """Where examples are in the latent space, how sure the encoder is, and what each dimension carries."""
    figure = Figure(figsize=(9.4, 7.2 if vae.latent_dim > 1 else 3.0), layout="constrained")
    if vae.latent_dim == 1:
        plots.kl_per_dimension(vae, x, axes=figure.subplots())
        return figure
    panels = figure.subplot_mosaic("AB;CC", height_ratios=(2, 1))
    plane = plots.main_plane(vae, x)
    plots.latent_scatter(vae, x, labels, plane, axes=panels["A"])
    plots.posterior_ellipses(vae, x, labels, plane, axes=panels["B"], first=ELLIPSES)
    plots.kl_per_dimension(vae, x, axes=panels["C"])
    return figure


def run_report(
    vae: VAE,
    held_out: Data,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    summaries: Mapping[str, Summary],
    seed: int,
    labels: NDArray | None = None,
) -> RunReport:
    """Draw everything from a trained model, the data held out, config.json, the history and the final measurements.

    Takes     labels (N,): of the data held out, for the pictures of the latent space
    """
    shape, names = config["data"]["image_shape"], config["data"].get("columns")
    binarize = config["training"]["binarize"]
    rows = spread_rows(len(held_out), min(LATENT_POINTS, max(1, LATENT_VALUES // vae.data_dim)))
    seen, marks = as_seen(vae, held_out, rows, binarize, seed), None if labels is None else labels[rows]

    def pictures() -> Figure:
        return picture_of(vae, held_out, shape, binarize, seed, names)

    def curves() -> Figure:
        return plots.learning_curves(history)

    def latent() -> Figure:
        return latent_picture(vae, seen, marks)

    flat = vae.latent_dim == 2 and (vae.data_dim == 2 or plots.image_shape_of(vae.data_dim, shape))

    def moving() -> Figure:
        given: dict[str, Any] = {"image_shape": shape, "names": names}
        draw = plots.manifold(vae, **given) if flat else plots.traversals(vae, seen, **given)
        figure = draw.get_figure(root=True)
        assert figure is not None
        return figure

    with plots.style(dark=False):
        light = plots.figure_bytes(pictures(), "png", background="white")
    with plots.style(dark=True):
        dark = plots.figure_bytes(pictures(), "png")
    name = config["data"]["name"]
    moved = "" if flat else traversals_caption(vae.latent_dim)
    of_z = latent_caption(vae.latent_dim, len(rows), len(held_out))
    of_latent = LATENT if vae.latent_dim > 1 else LATENT_LINE
    sections = [
        ("What the model is worth", page.summary_section(summaries)),
        ("Learning", page.figure(plots.light_and_dark(curves), "svg+xml", CURVES, CURVES_CAPTION)),
        ("Reconstructions and samples", page.figure((light, dark), "png", PICTURES)),
        ("Latent space", page.figure(plots.light_and_dark(latent), "svg+xml", of_latent, of_z)),
        ("What the latent dimensions mean", page.figure(plots.light_and_dark(moving, "png"), "png", MOVING, moved)),
        ("Configuration", page.configuration_section(config)),
    ]
    lead = (
        f"{vae!r}, {epochs_in_words(history, config)} on {config['data']['examples']:,} training examples. {IDENTITY}"
    )
    return RunReport(light, page.render(f"A variational autoencoder trained on {name}", lead, sections))


def epochs_in_words(history: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    """How many there were, and of which the weights are kept, where that is not the last."""
    kept = kept_epoch(history, config["training"]["patience"])
    which = "" if kept == len(history) else f" (the weights of epoch {kept} are kept, the best on held-out data)"
    return how_many(len(history), "epoch") + which


def latent_caption(latent_dim: int, examples: int, in_all: int) -> str:
    """What the picture of the latent space shows: of a single dimension there is no plane, and of a single example no
    dimension is active or not."""
    of, inactive = f"Of {described(examples, in_all, 'held-out')}", INACTIVE if examples > 1 else ""
    if latent_dim == 1:
        return f"{of}. {inactive}"
    return f"{of}, ellipses of {min(examples, ELLIPSES)}. {PLANE}{inactive}"


def traversals_caption(latent_dim: int) -> str:
    """Which dimensions move, and where the others are meanwhile."""
    chosen = f"The {TRAVERSALS} of {latent_dim} latent dimensions with the largest KL to the prior. "
    others = "While one moves, the others stay at the mean of q(z|x) of the first held-out example."
    return (chosen if latent_dim > TRAVERSALS else "") + (others if latent_dim > 1 else "")


IDENTITY = "All terms are in nats per example, higher is better: ELBO = reconstruction - KL, and log p(x) = ELBO + gap."
CURVES = "ELBO, reconstruction, KL, and the objective where it is another, by epoch, for training and held-out data"
LATENT_LINE = "The KL of the latent dimension"
LATENT = "Where q(z|x) is and how wide, with the prior's circle, and the KL of each latent dimension"
CURVES_CAPTION = (
    "Training: means over an epoch's minibatches, while the weights change. Held out: by the weights at its end."
)
PLANE = (
    "The plane is that of the two latent dimensions with the largest KL to the prior; an ellipse is one standard "
    "deviation of q(z|x). "
)
INACTIVE = (
    "A dimension is inactive where the variance over the data of its mean is at most 0.01: it carries next to nothing "
    "about x."
)
MOVING = "The mean of p(x|z) over the latent space"
PICTURES = "Held-out data above their reconstructions, and samples from the model"
