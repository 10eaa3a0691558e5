"""`scratchvae explain`: what log p(x), the ELBO and the two KLs are, with exact numbers and pictures, on one page."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from scratchvae.files import write_whole

from .job import objective_of
from .options import PANEL, Json, Quiet, Seed, Threads, check_out, known_engine, use_threads
from .output import Output
from .run_directory import RunDirectory

if TYPE_CHECKING:
    from rich.table import Table

    from scratchvae.report.explain import Answers, Settings, Subject

PAGE, KINDS = "explain.html", (".html", ".htm")
Watch = Callable[[str, int, int], None]


def explain(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A run directory made by train, with a latent dimension of 1 to 3.",
            show_default="a model trained on the digits for this page",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the page goes.", show_default=f"{PAGE}, or RUN/{PAGE}"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where MNIST's files are.", show_default="where the run found them")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer examples and steps: seconds, not minutes.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    threads: Threads = None,
    engine: Annotated[
        str,
        typer.Option(
            callback=known_engine,
            help="What trains a model where no run is given: reference or compiled. It is explained by reference.",
            rich_help_panel=PANEL,
        ),
    ] = "compiled",
) -> None:
    """Ten questions about log p(x), the ELBO and its KLs, each answered with exact numbers, a picture and the code.

    The page is one HTML file that needs no network. It takes a minute or two, longer on a busy machine.

    A run needs at most 3 latent dimensions; one with relu takes ten times as long as one with tanh, and with 3 of them
    its layers must be narrow.

    [bold]Examples[/bold]
    scratchvae explain --out explain.html
    scratchvae explain runs/plane --json
    """
    from scratchvae.report.explain import Settings, answer, render

    output, started = Output(as_json, quiet), time.perf_counter()
    use_threads(threads, "reference")  # whose arithmetic a run is explained by
    if run:
        RunDirectory(run).trained_model()
    target = out or (run / PAGE if run else Path(PAGE))
    check_out(target, KINDS)
    settings = Settings.quick() if quick else Settings()
    with _progress(output) as watch:
        subject = _of_run(run, data_dir) if run else _of_digits(settings, seed, engine, watch)
        answers = answer(subject, settings, seed, watch)
        watch("drawing the page", 0, 1)
        html = render(subject, answers, settings, _command(run, quick, seed))
        watch("drawing the page", 1, 1)
    write_whole(target, html)
    seconds = time.perf_counter() - started
    output.result(_table(answers))
    output.message(f"{target} written in {seconds:.0f} s: {len(html) / 1e6:.1f} MB, no network needed")
    output.record(_record(run, target, seed, seconds, subject, settings, answers))


def _of_digits(settings: "Settings", seed: int, engine: str, watch: Watch) -> "Subject":
    from scratchvae.report.explain import train_on_digits

    watch("training on the digits", 0, settings.epochs)
    return train_on_digits(
        settings, seed, engine, lambda epoch: watch("training on the digits", epoch, settings.epochs)
    )


def _of_run(run: Path, data_dir: Path | None) -> "Subject":
    from scratchvae.report.explain import subject_of
    from scratchvae.report.summary import kept_epoch

    directory = RunDirectory(run)
    vae, config = directory.trained("reference")
    training = config["training"]
    epochs = kept_epoch(directory.history(), training["patience"])
    data, objective = directory.data(config, data_dir), objective_of(training)
    return subject_of(vae, data, training["binarize"], training["seed"], epochs, f"of {run}", objective)


def _command(run: Path | None, quick: bool, seed: int) -> str:
    words = [
        "scratchvae explain",
        *([quote(str(run))] if run else []),
        *(["--quick"] if quick else []),
        f"--seed {seed}",
    ]
    return " ".join(words)


@contextmanager
def _progress(output: Output) -> Iterator[Watch]:
    """A bar for each part on a terminal, else a line as each part begins. All of it on standard error."""
    if not output.is_live:
        begun: set[str] = set()

        def line(words: str, done: int, total: int) -> None:
            if words not in begun:
                begun.add(words)
                output.message(f"{words} ...")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bars:
        tasks: dict[str, object] = {}

        def bar(words: str, done: int, total: int) -> None:
            if words not in tasks:
                tasks[words] = bars.add_task(words, total=total)
            bars.update(tasks[words], completed=done)  # type: ignore[arg-type]

        yield bar


def _table(answers: "Answers") -> "Table":
    from rich.table import Table

    one, moves, which = answers.identity, answers.movement, answers.which
    table = Table(title="log p(x) = ELBO + KL(q || p(z|x))", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in {
        f"mean log p(x) of {one.examples} held-out examples": f"{one.mean_log_evidence:.6f} nats",
        "mean ELBO": f"{one.mean_elbo:.6f} nats",
        "mean gap, KL(q || p(z|x))": f"{one.mean_gap:.6f} nats",
        "mean KL(q || prior), a term of the ELBO": f"{one.mean_kl_to_prior:.6f} nats",
        "largest residual of the identity": f"{one.worst_residual:.1e} nats",
        "log p(x) changed, encoder moving": f"{moves.phi.largest_change:.1e} nats",
        "log p(x) changed, decoder moving": f"{moves.theta.largest_change:.3f} nats",
        "known density: -entropy - KL - gap - ELBO": f"{which.worst_residual:.1e} nats",
    }.items():
        table.add_row(name, value)
    return table


def _record(
    run: Path | None,
    target: Path,
    seed: int,
    seconds: float,
    subject: "Subject",
    settings: "Settings",
    answers: "Answers",
) -> dict[str, object]:
    return {
        "command": "explain",
        "run": run,
        "out": target,
        "seed": seed,
        "seconds": seconds,
        "model": subject.vae.config
        | {
            "epochs": subject.epochs,
            "data": subject.name,
            "binarize": subject.binarize,
            "objective": repr(subject.objective),
        },
        "settings": settings._asdict(),
        **answers.as_dict(),
    }
