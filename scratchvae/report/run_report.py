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
from .summary import Summary, as_seen, spread_rows

EXAMPLES, SAMPLES = 24, 48  # images or rows of numbers, a few to look at each
POINTS = 500  # points of a plane: as many as show a density


@dataclass(frozen=True)
class RunReport:
    """The two files, ready to be written."""

    pictures: bytes  # PNG
    html: str


def picture_of(vae: VAE, held_out: Data, shape: Sequence[int] | None, binarize: str, seed: int) -> Figure:
    """Held-out data, what the model was shown of them, its reconstructions, and samples, in one figure."""
    examples, samples = (POINTS, POINTS) if vae.data_dim == 2 else (EXAMPLES, SAMPLES)
    rows = spread_rows(len(held_out), examples)
    shown = as_seen(vae, held_out, rows, binarize, seed)
    lines: dict[str, NDArray[Any]] = {"data": as_seen(vae, held_out, rows, "none", seed)}
    if not np.array_equal(lines["data"], shown):
        lines["binarized"] = shown
    lines["reconstruction"] = vae.reconstruct(shown)
    return plots.pictures(lines, vae.sample(samples, seed=seed, mean=True), plots.image_shape_of(vae.data_dim, shape))


def run_report(
    vae: VAE,
    held_out: Data,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    summaries: Mapping[str, Summary],
    seed: int,
) -> RunReport:
    """Draw everything from a trained model, the data held out, config.json, the history and the final measurements."""

    def pictures() -> Figure:
        return picture_of(vae, held_out, config["data"]["image_shape"], config["training"]["binarize"], seed)

    with plots.style(dark=False):
        light = plots.figure_bytes(pictures(), "png", background="white")
    with plots.style(dark=True):
        dark = plots.figure_bytes(pictures(), "png")
    name = config["data"]["name"]
    sections = [
        ("What the model is worth", page.summary_section(summaries)),
        ("Learning", page.figure(plots.light_and_dark(lambda: plots.learning_curves(history)), "svg+xml", CURVES)),
        ("Reconstructions and samples", page.figure((light, dark), "png", PICTURES)),
        ("Configuration", page.configuration_section(config)),
    ]
    lead = f"{vae!r}, {len(history)} epochs on {config['data']['examples']:,} training examples. {IDENTITY}"
    return RunReport(light, page.render(f"A variational autoencoder trained on {name}", lead, sections))


IDENTITY = "All terms are in nats per example, higher is better: ELBO = reconstruction - KL, and log p(x) = ELBO + gap."
CURVES = "ELBO, reconstruction and KL against the epoch, for training and held-out data"
PICTURES = "Held-out data above their reconstructions, and samples from the model"
