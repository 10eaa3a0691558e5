"""`scratchvae evaluate`: log p(x) of a trained model, with error bars, beside the terms of its ELBO."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from scratchvae import VAE
from scratchvae.data import Data, load, load_rows
from scratchvae.data.checks import check_scale
from scratchvae.data.dataset import NAMES
from scratchvae.data.images import parse_size
from scratchvae.data.labels import BY_NAME, NoLabelsError
from scratchvae.evidence import METHODS
from scratchvae.likelihoods import data_set_for
from scratchvae.progress import counting_bar
from scratchvae.report.summary import summarise

from .options import Engine, Json, Quiet, Seed, Threads, use_threads
from .output import Output
from .run_directory import RunDirectory


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory made by train.")],
    data: Annotated[
        str | None, typer.Argument(help="digits, mnist or a path.", show_default="the run's own data")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Samples K of z per example: the bound rises towards log p(x) with K.")
    ] = 5000,
    limit: Annotated[
        int, typer.Option(min=0, help="At most so many examples of each part, evenly spread; 0 for all.")
    ] = 1000,
    method: Annotated[
        str,
        typer.Option(
            help=f"Estimator: {', '.join(METHODS)}. Quadrature takes minutes an example where a wide decoder has relus."
        ),
    ] = "importance",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with MNIST's files.", show_default="the run's own, else SCRATCHVAE_DATA, else download once"
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    threads: Threads = None,
    engine: Engine = "compiled",
) -> None:
    """Estimate log p(x), with error bars, on training and held-out data, or on all rows of the data given.

    [bold]Examples[/bold]
    scratchvae evaluate runs/digits-1
    scratchvae evaluate runs/mnist-1 --samples 5000 --limit 0 --json
    """
    from scratchvae.report.tables import caption, summary_table

    output = Output(as_json, quiet)
    use_threads(threads)
    directory = RunDirectory(run)
    vae, config = directory.trained(engine)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    training = config["training"]
    parts = _parts(vae, directory, data, data_dir)
    pixel_seed = training["seed"] if training["binarize"] == "fixed" else seed  # those that it was trained on
    summaries = {}
    for name, array in parts.items():
        with counting_bar(f"{name}: {method}, {samples:,} samples", enabled=output.is_live) as watch:
            part = name.replace(" ", "-")
            summaries[name] = summarise(
                vae, array, part, training["binarize"], samples, limit, method, seed, watch, pixel_seed
            )
    output.result(summary_table(summaries, sampling=True))
    output.note(caption(summaries.values()))
    output.record(
        {
            "command": "evaluate",
            "run": run,
            "method": method,
            "samples": samples,
            "seed": seed,
            "binarize": training["binarize"],
            "data": config["data"]["source"] if data is None else data,
            **{name.replace(" ", "_"): summary.as_dict() for name, summary in summaries.items()},
        }
    )


def _given(config: dict[str, Any], data: str) -> Data:
    """Other data than the run's own, read as those were: images of a folder resized, labels taken out of a table.

    A table may do without the labels. Of a file that holds none, the run's labels are a file with those of other rows.
    """
    known = config["data"]
    resize, labels = parse_size(known.get("resize")), known.get("labels")
    rows = partial(load_rows, data, image_shape=known.get("image_shape"), columns=known["columns"])
    if Path(data).is_dir():
        return rows(resize)
    if data.lower().endswith(BY_NAME):
        with suppress(NoLabelsError):
            return rows(labels=labels)
    return rows()


def _parts(vae: VAE, directory: RunDirectory, data: str | None, data_dir: Path | None) -> dict[str, Data]:
    """The parts of the data to measure, checked against the model. Raises ValueError where they do not fit."""
    config = directory.config()
    parts: dict[str, Data]
    if data is None or data in NAMES:
        folder = data_dir or config["data"].get("data_dir")
        dataset = directory.data(config, data_dir) if data is None else load(data, data_dir=folder)
        name, parts = dataset.name, {"training": dataset.train, "held out": dataset.held_out}
    else:
        name, parts = Path(data).name, {"given": _given(config, data)}
    training = config["training"]
    for array in parts.values():
        data_set_for(vae.likelihood, array, vae.data_dim, training["binarize"], training["allow_grey"], name)
        check_scale(array, config["data"]["scale"], name)
    return parts
