"""`scratchvae export`: a trained model for other tools: ONNX graphs, or weights and a module for PyTorch."""

import os
from pathlib import Path
from typing import Annotated

import typer

from scratchvae.export import onnx_files, torch_call, torch_files
from scratchvae.files import make_folder, may_be_written, write_together

from .options import Engine, Json, Quiet, Seed, Threads, use_threads
from .output import Output
from .run_directory import RunDirectory

FORMATS = {"onnx": onnx_files, "torch": torch_files}


def export(
    run: Annotated[Path, typer.Argument(help="A run directory made by train.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx: encoder.onnx (x to mu, logvar) and decoder.onnx (z to the mean of p(x|z)), with a free batch "
            "dimension. torch: weights.safetensors (a state_dict) and vae.py (the module it fits).",
        ),
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files, made if it is not there.", show_default="RUN/FORMAT")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    threads: Threads = None,
    engine: Engine = "compiled",
) -> None:
    r"""Write a trained model, of a diagonal posterior, in the format of another tool.

    ONNX needs: pip install 'scratchvae\[onnx]'

    [bold]Examples[/bold]
    scratchvae export runs/digits-1
    scratchvae export runs/digits-1 --format torch --out digits-torch
    """
    output = Output(as_json, quiet)
    use_threads(threads)
    if kind not in FORMATS:
        raise ValueError(f"--format is {kind!r}; expected {' or '.join(FORMATS)}")
    directory = RunDirectory(run)
    vae, _ = directory.trained(engine)
    folder = out or directory.path / kind
    if not folder.parent.is_dir() or (os.path.lexists(folder) and not folder.is_dir()):  # a file, or a link to nothing
        raise ValueError(f"--out is {folder}; expected a folder, or a new one in a folder that exists")
    if not may_be_written(folder if folder.is_dir() else folder.parent):
        raise ValueError(f"--out is {folder}; expected a folder that may be written, or a new one in such a folder")
    files = FORMATS[kind](vae)  # everything that can be refused is refused before the folder is made
    make_folder(folder)
    paths = {folder / name: content for name, content in files.items()}
    write_together(paths)
    made = f"; the module is {torch_call(vae)}" if kind == "torch" else ""
    output.message(f"{' and '.join(files)} written to {folder}{made}")
    output.record({"command": "export", "run": run, "format": kind, "files": list(paths), "model": vae.config})
