"""`scratchvae train`: from data to a run directory with a trained model, its history, its worth and its pictures."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from scratchvae import VAE, DivergedError, History, fit
from scratchvae.checkpoint import trained_epochs
from scratchvae.data import METHODS, Data, Dataset
from scratchvae.distributed import Processes, launched_processes
from scratchvae.engine import ENGINES, get_threads, one_thread
from scratchvae.files import write_together
from scratchvae.likelihoods import LIKELIHOODS
from scratchvae.objectives import KLS, OBJECTIVES
from scratchvae.parameters import ACTIVATION_CODES
from scratchvae.posteriors import POSTERIORS
from scratchvae.report.summary import Summary, how_many, summarise

from .job import Job, job_to_resume, new_job
from .options import PANEL, Json, Quiet, Seed, Threads, known_engine, use_threads
from .output import Output, plain
from .run_directory import RunDirectory
from .status import InterruptionError

DATA_OF_EACH = "; ".join(f"{name} ({p.data})" for name, p in LIKELIHOODS.items() if not name.endswith("-diagonal"))
FINAL_SAMPLES = 1000  # of the bound on log p(x) in the table at the end
FINAL_EXAMPLES = 500  # per part of the data


def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(help="digits, mnist, or a path: .npy .npz .csv .parquet .idx .gz, a folder of images (grey)."),
    ] = "digits",
    resize: Annotated[
        str | None,
        typer.Option(help="Size of images from a folder, such as 28x28 (width x height).", show_default="as they are"),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Labels for the pictures: a column of a .csv or .parquet, an array of a .npz, a file beside a .npy.",
            show_default="subfolders, IDX label files, y or labels in a .npz",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Passes over the training data, those before --resume included.",
            show_default="150 for data of at most 128 dimensions; 20 for wider",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples per update.", show_default="64; 128")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Adam's step size, above 0.", show_default="0.003; 0.001; less above 4096"),
    ] = None,
    latent_dim: Annotated[int | None, typer.Option(min=1, help="Latent dimensions Z.", show_default="8; 20")] = None,
    hidden: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Size of a hidden layer of the encoder, mirrored by the decoder; repeat for more layers.",
            show_default="128; 400",
        ),
    ] = None,
    likelihood: Annotated[
        str,
        typer.Option(help=f"p(x|z), by what the data are: {DATA_OF_EACH}."),
    ] = "bernoulli",
    activation: Annotated[
        str | None, typer.Option(help=f"Of the hidden layers: {', '.join(ACTIVATION_CODES)}.", show_default="relu")
    ] = None,
    objective: Annotated[str, typer.Option(help=f"What is maximised: {', '.join(OBJECTIVES)}.")] = "elbo",
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Samples of z per example and update.", show_default="1; 50 for iwae, dreg"),
    ] = None,
    beta: Annotated[
        float, typer.Option(min=0.0, help="Weight of the KL in the elbo; only 1 is the elbo itself.")
    ] = 1.0,
    free_bits: Annotated[
        float, typer.Option(min=0.0, help="Nats of KL that each latent dimension has free in the elbo.")
    ] = 0.0,
    warm_up: Annotated[
        int, typer.Option(min=0, help="Updates over which the KL's weight in the elbo rises from 0 to beta.")
    ] = 0,
    kl: Annotated[str, typer.Option(help=f"The KL of the elbo: {', '.join(KLS)}.")] = "exact",
    posterior: Annotated[str, typer.Option(help=f"Covariance of q(z|x): {', '.join(POSTERIORS)}.")] = "diagonal",
    binarize: Annotated[
        str | None,
        typer.Option(
            help=f"How grey pixels become 0 and 1: {', '.join(METHODS)}.", show_default="dynamic under a bernoulli"
        ),
    ] = None,
    allow_grey: Annotated[
        bool,
        typer.Option(
            "--allow-grey",
            help="Accept grey pixels under a bernoulli with --binarize none, though it is no normalised likelihood.",
        ),
    ] = False,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after so many epochs without a better held-out ELBO and keep the best model.",
            show_default="never",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with MNIST's files.", show_default="SCRATCHVAE_DATA, else download once")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for the run.", show_default="runs/DATA-1, -2, ...")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, to the same bits as if it had never stopped.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    threads: Threads = None,
    engine: Annotated[
        str | None,
        typer.Option(
            callback=known_engine,
            help=f"Where operations come from: {' or '.join(ENGINES)}.",
            show_default="compiled; reference for up to 128 columns, whose training needs no compiler",
            rich_help_panel=PANEL,
        ),
    ] = None,
) -> None:
    """Train a VAE, then measure it and draw what it learned.

    [bold]scratchvae train[/bold]  trains 64-128-8 on scikit-learn's 8x8 digits in seconds;
    [bold]scratchvae train mnist[/bold]  trains 784-400-20 on MNIST for 20 epochs.

    [bold]Examples[/bold]
    scratchvae train faces/ --resize 28x28 --likelihood gaussian-learned
    scratchvae train table.csv --labels kind --hidden 64 --hidden 32
    scratchvae train mnist --objective iwae --samples 5 --out runs/iwae
    scratchvae train --out runs/iwae --resume --epochs 40
    mpiexec -n 4 scratchvae train mnist
    """
    output, processes = Output(as_json, quiet), launched_processes()
    use_threads(threads if processes is None or threads is not None else processes.threads_each())
    given = {name: value for name, value in context.params.items() if _was_given(context, name)}
    job = job_to_resume(out, given) if resume else new_job(out, context.params)
    if processes is not None:  # until all know what is to be done nothing is on disk
        config = {**job.config, "data": {**job.config["data"], "folder": None}}  # each may be called in its own
        processes.check_same("data, settings or version", json.dumps(plain(config)).encode())
    with one_thread(threads is None and job.is_small):
        if processes is None or processes.is_first:
            _train(output, job, processes)
        else:
            _take_part(job, processes)
    if processes is not None:
        processes.leave()


def _train(output: Output, job: Job, processes: Processes | None) -> None:
    with job.run.held() as made:
        history, seconds, summaries = _train_measure_and_draw(output, job, made, processes)
    _finish(output, job, history, seconds, summaries)


def _take_part(job: Job, processes: Processes) -> None:
    """What all processes but the first do: their rows of every batch, and nothing on disk or screen."""
    source = job.run.model_file if trained_epochs(job.run.model_file) else False
    fit(**_arguments(job), resume=source, progress=False, processes=processes)


def _train_measure_and_draw(
    output: Output, job: Job, made: list[Path], processes: Processes | None
) -> tuple[History, float, dict[str, Summary]]:
    """All that takes time. Whatever ends it early, the last complete checkpoint is kept.

    Takes     made: the folders that were made for the run
    """
    try:
        history, seconds = _fit(job, made, processes, output)
        output.message(f"{history.stopped}: {how_many(len(history), 'epoch')}, {seconds:.1f} s; measuring the model")
        training = job.config["training"]
        summaries = measure(job.vae, job.dataset, training["binarize"], training["seed"])
        _draw(job, history, summaries)
    except KeyboardInterrupt:
        raise InterruptionError(f"interrupted; {_kept(job.run)}; {_how_to_go_on(job.run)}") from None
    except DivergedError as error:
        run = job.run.path if job.run.exists() else None
        output.record({"command": "train", "status": "diverged", "run": run, "error": str(error)})
        raise
    return history, seconds, summaries


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _announcement(job: Job, processes: Processes | None) -> str:
    action = "resuming" if job.resumed else "training"
    workers = how_many(get_threads(), "thread")
    if processes is not None:
        workers = f"{processes.size} processes of {workers}; if one ends early all do, {_how_to_go_on(job.run)}"
    return f"{action} {job.vae!r} on {job.config['data']['found']}; {workers}; run in {job.run.path}"


def _arguments(job: Job) -> dict[str, Any]:
    """What every process calls `fit` with."""
    names = ("epochs", "batch_size", "learning_rate", "binarize", "allow_grey", "patience", "seed")
    data = {"vae": job.vae, "x": job.dataset.train, "validation": job.dataset.held_out, "objective": job.objective}
    return data | {name: job.config["training"][name] for name in names}


def _fit(job: Job, made: list[Path], processes: Processes | None, output: Output) -> tuple[History, float]:
    """Train, one line of history an epoch. What `fit` refuses, or has no memory for, leaves nothing behind; nor does a
    new run that diverges in its first epoch: taken up again it would again."""
    run = job.run
    if run.exists() and not job.resumed:
        raise ValueError(f"{run.path} was made into a run by another process; continue it with --resume")
    started = time.perf_counter()
    trained = trained_epochs(run.model_file)  # read again, now that no other process can add to it
    if job.config["training"]["epochs"] < len(trained):
        epochs = job.config["training"]["epochs"]
        raise ValueError(f"--epochs is {epochs}; expected at least the {len(trained)} that {run.path} has already")
    output.message(_announcement(job, processes))
    try:
        run.create(job.config)
        run.rewrite_history(trained)
        history = fit(
            **_arguments(job),
            checkpoint=run.model_file,
            resume=bool(trained),
            on_epoch=run.append_epoch,
            processes=processes,
            progress=output.is_live,
        )
    except DivergedError:
        if not (job.resumed or run.model_file.exists()):
            run.remove(made)
        raise
    except (ValueError, MemoryError) as error:
        if len(trained_epochs(run.model_file)) > len(trained):
            raise ValueError(f"{str(error) or 'out of memory'}; {_kept(run)}; {_how_to_go_on(run)}") from None
        if not job.resumed:
            run.remove(made)
        raise
    return history, time.perf_counter() - started


def _kept(run: RunDirectory) -> str:
    epochs = len(trained_epochs(run.model_file))
    return f"the checkpoint of epoch {epochs} is kept" if epochs else "no epoch was finished"


def _how_to_go_on(run: RunDirectory) -> str:
    return f"go on with: scratchvae train --out {quote(str(run.path))} --resume"


def measure(vae: VAE, dataset: Dataset, binarize: str, seed: int) -> dict[str, Summary]:
    """The numbers of the table at the end, for the training data and the data held out."""
    parts: dict[str, Data] = {"training": dataset.train, "held out": dataset.held_out}
    return {
        name: summarise(vae, array, name.replace(" ", "-"), binarize, FINAL_SAMPLES, FINAL_EXAMPLES, seed=seed)
        for name, array in parts.items()
    }


def _draw(job: Job, history: History, summaries: Mapping[str, Summary]) -> None:
    from scratchvae.report.run_report import run_report

    seed, held_out, labels = job.config["training"]["seed"], job.dataset.held_out, job.dataset.held_out_labels
    report = run_report(job.vae, held_out, job.config, history.epochs, summaries, seed, labels)
    write_together({job.run.pictures_file: report.pictures, job.run.report_file: report.html})


def _finish(output: Output, job: Job, history: History, seconds: float, summaries: Mapping[str, Summary]) -> None:
    """The table and where the files are, or the JSON object."""
    from scratchvae.report.tables import caption, summary_table

    run = job.run
    output.result(summary_table(summaries))
    output.note(caption(summaries.values()))
    output.message(f"model {run.model_file}, pictures {run.pictures_file}, page {run.report_file}")
    output.record(
        {
            "command": "train",
            "status": "done",
            "run": run.path,
            "config": job.config,
            "epochs": len(history),
            "stopped": history.stopped,
            "seconds": seconds,
            "last_epoch": history.epochs[-1],
            "training": summaries["training"].as_dict(),
            "held_out": summaries["held out"].as_dict(),
            "files": {
                "model": run.model_file,
                "history": run.history_file,
                "pictures": run.pictures_file,
                "report": run.report_file,
            },
        }
    )
