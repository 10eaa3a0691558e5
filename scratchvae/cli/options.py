"""The options that every command takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from scratchvae.engine import ENGINES, check_engine, set_threads
from scratchvae.files import may_be_written


def _below_2_to_64(seed: int) -> int:
    if not 0 <= seed < 2**64:
        raise typer.BadParameter(f"{seed} is not a whole number from 0 to 2^64 - 1")
    return seed


def known_engine(name: str | None) -> str | None:
    """The name of an engine, or None where none was given. Refuses any other."""
    return None if name is None else check_engine(name)


PANEL = "Options of every command"  # a table of their own in the help: the command's have columns for themselves

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object on standard output; all else goes to standard error.",
        rich_help_panel=PANEL,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Results and errors only: no progress, no messages on standard error.",
        rich_help_panel=PANEL,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        callback=_below_2_to_64,
        help="Seed of every random number: the same seed gives the same bits.",
        rich_help_panel=PANEL,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads to use; results do not depend on it.",
        show_default="all processors; one to train a small model",
        rich_help_panel=PANEL,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        callback=known_engine,
        help=f"Where operations come from: {' or '.join(ENGINES)}.",
        rich_help_panel=PANEL,
    ),
]


def use_threads(threads: int | None, engine: str | None = None) -> None:
    """Limit the compiled engine and NumPy's matrix library to `threads`; to one that library under the reference
    engine, since its sums have another order with every number."""
    from threadpoolctl import threadpool_limits

    if threads is not None:
        set_threads(threads)
        threadpool_limits(threads)
    if engine == "reference":
        threadpool_limits(1, "blas")


def check_out(path: Path, endings: Sequence[str]) -> None:
    """Refuse, before anything is computed, a file of another kind, or one that cannot be written where it is to go.

    Raises    ValueError, one line
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"--out is {path}; expected a file that ends in {' or '.join(endings)}")
    if path.is_dir():
        raise ValueError(f"--out is {path}, a folder; expected a file")
    if not path.parent.is_dir():
        raise ValueError(f"--out is {path}; expected a file in a folder that exists")
    if not may_be_written(path.parent):
        raise ValueError(f"--out is {path}; expected a file in a folder that may be written")
