"""`scratchvae sample`: new examples from a trained model, as a picture or as numbers."""

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from scratchvae.files import write_whole

from .options import Engine, Json, Quiet, Seed, Threads, check_out, use_threads
from .output import Output
from .run_directory import RunDirectory

KINDS = (".png", ".npy")


def sample(
    run: Annotated[Path, typer.Argument(help="A run directory made by train.")],
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 64,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .png (images in a grid) or a .npy (count, D).",
            show_default="RUN/samples.png, or .npy where data are no images",
        ),
    ] = None,
    mean: Annotated[bool, typer.Option("--mean", help="The means of p(x|z) instead of draws from it.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    threads: Threads = None,
    engine: Engine = "compiled",
) -> None:
    """Draw z from the prior N(0, I), then x from p(x|z).

    [bold]Examples[/bold]
    scratchvae sample runs/digits-1 --count 100 --mean --out digits.png
    scratchvae sample runs/digits-1 --count 10000 --seed 7 --out digits.npy
    """
    output = Output(as_json, quiet)
    use_threads(threads, engine)
    directory = RunDirectory(run)
    vae, config = directory.trained(engine)
    shape = config["data"].get("image_shape")
    target = out or directory.path / ("samples.png" if shape else "samples.npy")
    check_out(target, KINDS)
    if target.suffix.lower() == ".png" and shape is None:
        raise ValueError(f"--out is {target} but the run's data are no images; expected a file that ends in .npy")
    x = vae.sample(count, seed=seed, mean=mean)
    write_whole(target, _npy(x) if target.suffix.lower() == ".npy" else _png(x, shape))
    output.message(f"{count} {'means' if mean else 'draws'} written to {target}")
    output.record(
        {"command": "sample", "run": run, "out": target, "count": count, "mean": mean, "seed": seed, "shape": x.shape}
    )


def _npy(x: NDArray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, x, allow_pickle=False)
    return buffer.getvalue()


def _png(x: NDArray, shape: list[int]) -> bytes:
    from scratchvae.report.plots import grid_png

    return grid_png(x.reshape(-1, *shape))
