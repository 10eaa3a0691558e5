"""The command line, one file a command: train, evaluate, explain, sample, export, gradcheck, audit, info.

    train.py evaluate.py explain.py sample.py export.py
    gradcheck.py audit.py info.py               the commands
    options.py          the options every command takes
    output.py           what goes to standard output and what to standard error
    status.py           exit statuses
    job.py              what train is to train, from its options or from a run to resume
    run_directory.py    config.json, history.jsonl, model.safetensors, report.html of one run

Exit status: 0 done, 1 a check failed or training diverged, 2 bad input or usage, 130 interrupted.
"""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from scratchvae import NotFiniteError, __version__
from scratchvae.distributed import Processes, launched_processes

from .audit import audit
from .evaluate import evaluate
from .explain import explain
from .export import export
from .gradcheck import gradcheck
from .info import info
from .sample import sample
from .status import BAD_INPUT, FAILED, INTERRUPTED, InterruptionError
from .train import train

__all__ = ["app", "main"]

TRACEBACK_VARIABLE = "SCRATCHVAE_TRACEBACK"  # set to see where a line about bad input comes from

app = typer.Typer(
    name="scratchvae",
    help="A variational autoencoder whose every gradient is derived by hand. Start with [bold]scratchvae train[/bold].",
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for command in (train, evaluate, explain, sample, export, gradcheck, audit, info):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"scratchvae {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def scratchvae(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A variational autoencoder whose every gradient is derived by hand. Start with [bold]scratchvae train[/bold]."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; what went wrong is one line on standard error, never a traceback."""
    if arguments is None:  # a process of its own
        _refuse_more_than_memory_holds()
    _replace_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: no letter takes a result away
    try:
        status = _run(arguments)
        if arguments is None:
            _drop_what_cannot_be_written()
        return status
    except BaseException:  # a mistake of ours; the other processes would wait for this one for ever
        if processes := _processes():
            traceback.print_exc()
            processes.abort(FAILED)
        raise


def _refuse_more_than_memory_holds() -> None:
    """Arrays that are larger together than all memory fail where they are made: Linux would grant them, and kill the
    process when they are filled."""
    try:
        import resource
    except ImportError:  # not on Windows, which grants no more than there is
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))


def _replace_closed_streams() -> None:
    """A standard stream that is closed is None to Python, and its number goes to the next file that is opened."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - until the end


def _drop_what_cannot_be_written() -> None:
    """What standard output has not taken, which has been said: Python would try again as it ends, and where it fails
    once more end with a status of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    try:
        status = app(args=None if arguments is None else list(arguments), prog_name="scratchvae", standalone_mode=False)
    except InterruptionError as interruption:
        return _report(interruption, INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", INTERRUPTED)
    except NotFiniteError as error:
        return _report(error, FAILED)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        return _report(error, BAD_INPUT)
    except Exception as error:
        if hasattr(error, "format_message"):  # what typer raises for an unknown option or a value out of range
            return _report(error.format_message(), BAD_INPUT)
        raise
    return _report("interrupted", INTERRUPTED) if status == INTERRUPTED else int(status or 0)


def _processes() -> Processes | None:
    try:
        return launched_processes()
    except ValueError:  # which is being reported
        return None


def _words(error: BaseException | str) -> str:
    """What an error says; of the system's, which know numbers, and of memory that there is not, with what is wanted."""
    if isinstance(error, OSError) and error.strerror:
        what = error.filename or "standard output, or another file"
        return f"{what}: {error.strerror}; expected a file that can be read or written"
    if isinstance(error, MemoryError) or str(error).startswith("Maximum allowed "):  # NumPy's, beyond all addresses
        found = f": {error}" if str(error) else ""
        return f"not enough memory{found}; expected fewer or smaller examples, samples or layers"
    return str(error)


def _report(error: BaseException | str, status: int) -> int:
    """Say in one line what went wrong; of several processes once, and where it is one's alone, end them all."""
    words = " ".join(_words(error).split()) or type(error).__name__
    processes = _processes()
    alone = processes is not None and not processes.all_failed()
    if processes is None or processes.is_first or alone:
        print(f"scratchvae: {words}", file=sys.stderr, flush=True)
    if processes is not None and alone:
        processes.abort(status)
    return status
