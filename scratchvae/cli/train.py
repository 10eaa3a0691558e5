"""`scratchvae train`: from data to a run directory with a trained model, its history, its worth and its pictures."""

import hashlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from scratchvae import VAE, DivergedError, History, __version__, checkpoint, fit
from scratchvae.data import METHODS, Dataset, as_data, check_method, load
from scratchvae.engine import get_threads
from scratchvae.likelihoods import LIKELIHOODS
from scratchvae.objectives import OBJECTIVES, Objective
from scratchvae.parameters import ACTIVATION_CODES
from scratchvae.report.summary import Summary, summarise

from .options import Engine, Json, Seed, Threads, use_threads
from .output import Output
from .run_directory import ENTRIES, FORMAT, RunDirectory, new_run, write_whole
from .status import InterruptionError

FREE_ON_RESUME = ("epochs",)  # what may change when a run goes on
FINAL_SAMPLES = 1000  # of the bound on log p(x) in the table at the end
FINAL_EXAMPLES = 500  # per part of the data


class Defaults(NamedTuple):
    """What suits data of one size."""

    hidden: tuple[int, ...]
    latent_dim: int
    activation: str
    epochs: int
    batch_size: int
    learning_rate: float


SMALL = Defaults((128,), 8, "relu", 150, 64, 3e-3)  # the digits: 64-128-8
LARGE = Defaults((400,), 20, "relu", 20, 128, 1e-3)  # MNIST: 784-400-20
SMALL_DIMENSIONS = 128


def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            help="digits, mnist, or a path: .npy .npz .csv .idx .gz, a folder of images.", show_default="digits"
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
        float | None, typer.Option(min=0.0, help="Adam's step size.", show_default="0.003; 0.001")
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
    likelihood: Annotated[str, typer.Option(help=f"p(x|z): {', '.join(LIKELIHOODS)}.")] = "bernoulli",
    activation: Annotated[
        str | None, typer.Option(help=f"Of the hidden layers: {', '.join(ACTIVATION_CODES)}.", show_default="relu")
    ] = None,
    objective: Annotated[str, typer.Option(help=f"What is maximised: {', '.join(OBJECTIVES)}.")] = "elbo",
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of z per example and update.", show_default="1; 50 for iwae")
    ] = None,
    beta: Annotated[
        float, typer.Option(min=0.0, help="Weight of the KL in the elbo; only 1 is a bound on log p(x).")
    ] = 1.0,
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
    seed: Seed = 0,
    threads: Threads = None,
    engine: Engine = "compiled",
) -> None:
    """Train a VAE, then measure it and draw what it learned.

    [bold]scratchvae train[/bold]  trains 64-128-8 on scikit-learn's 8x8 digits in seconds;
    [bold]scratchvae train mnist[/bold]  trains 784-400-20 on MNIST for 20 epochs.

    scratchvae train faces.npy --likelihood gaussian-learned --hidden 500 --hidden 250
    scratchvae train mnist --objective iwae --samples 5 --out runs/iwae
    scratchvae train --out runs/iwae --resume --epochs 40
    """
    output = Output(as_json)
    use_threads(threads)
    given = {name: value for name, value in context.params.items() if _was_given(context, name)}
    job = _job_to_resume(out, given) if resume else _new_job(out, context.params)
    output.message(_announcement(job))
    try:
        history, seconds = _fit(job)
        output.message(f"{history.stopped}: {len(history)} epochs, {seconds:.1f} s; measuring the model")
        training = job.config["training"]
        summaries = measure(job.vae, job.dataset, training["binarize"], training["seed"])
        _draw(job, history, summaries)
    except KeyboardInterrupt:
        raise InterruptionError(f"interrupted; {_kept(job.run)}; {_how_to_go_on(job.run)}") from None
    except DivergedError as error:
        output.record({"command": "train", "status": "diverged", "run": job.run.path, "error": str(error)})
        raise
    _finish(output, job, history, seconds, summaries)


class Job(NamedTuple):
    """Everything checked and ready to be trained; nothing is on disk yet, unless it is resumed."""

    run: RunDirectory
    config: dict[str, Any]  # config.json
    dataset: Dataset
    vae: VAE
    objective: Objective
    resumed: bool
    trained: list[dict[str, Any]]  # epochs of the checkpoint that a resumed run goes on from


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _new_job(out: Path | None, asked: Mapping[str, Any]) -> Job:
    """A run that starts from nothing, with all its input checked. Raises ValueError for bad input; writes nothing."""
    dataset = load(asked["data"] or "digits", data_dir=asked["data_dir"], seed=asked["seed"])
    run = new_run(out, Path(dataset.name).stem if asked["data"] else dataset.name)
    config = _configuration(asked, dataset)
    vae, objective = _model_and_objective(config, dataset)
    return Job(run, config, dataset, vae, objective, resumed=False, trained=[])


def _job_to_resume(out: Path | None, given: Mapping[str, Any]) -> Job:
    """The run in `out` as its config.json says; what is asked for now must not contradict it, --epochs excepted."""
    if out is None:
        raise ValueError("--resume needs --out RUN, the run to go on with")
    run = RunDirectory(out)
    config = run.config()
    known = {**config["model"], **config["training"], "data": config["data"].get("source")}
    for name, value in given.items():
        if name in known and name not in FREE_ON_RESUME and value != known[name]:
            option = "DATA" if name == "data" else f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{out} was made with {option} {known[name]}, now asked {value}; leave it out, or start a new run"
            )
    if "epochs" in given:
        config["training"]["epochs"] = given["epochs"]
    source, data_dir = config["data"]["source"], given.get("data_dir") or config["data"].get("data_dir")
    dataset = load(source, data_dir=data_dir, seed=config["training"]["seed"])
    if fingerprint(dataset) != config["data"]["sha256"]:
        raise ValueError(f"{source} no longer holds the data that {out} was trained on; expected the same values")
    vae, objective = _model_and_objective(config, dataset)
    started = run.model_file.is_file()  # else it was stopped before its first checkpoint, and starts again
    trained = checkpoint.load_state(vae, run.model_file)[1].progress["history"] if started else []
    return Job(run, config, dataset, vae, objective, resumed=True, trained=trained)


def _configuration(asked: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """config.json of a new run: what was asked, with defaults that suit the data where nothing was."""
    dimensions = dataset.train.shape[1]
    suited = SMALL if dimensions <= SMALL_DIMENSIONS else LARGE
    nothing = (None, ())  # how typer says that an option was not given
    chosen = {name: value if asked[name] in nothing else asked[name] for name, value in suited._asdict().items()}
    likelihood, objective = asked["likelihood"], asked["objective"]
    unit_interval = likelihood in LIKELIHOODS and LIKELIHOODS[likelihood].unit_interval
    return {
        "format": FORMAT,
        "scratchvae": __version__,
        "data": {
            "name": dataset.name,
            "source": asked["data"] or "digits",
            "data_dir": asked["data_dir"],
            "found": dataset.found,
            "examples": len(dataset.train),
            "held_out": len(dataset.held_out),
            "dimensions": dimensions,
            "image_shape": dataset.image_shape,
            "sha256": fingerprint(dataset),
        },
        "model": {
            "data_dim": dimensions,
            "latent_dim": chosen["latent_dim"],
            "hidden": list(chosen["hidden"]),
            "likelihood": likelihood,
            "activation": chosen["activation"],
            "engine": asked["engine"],
        },
        "training": {
            "objective": objective,
            "samples": asked["samples"] or (50 if objective == "iwae" else 1),
            "beta": asked["beta"],
            "epochs": chosen["epochs"],
            "batch_size": chosen["batch_size"],
            "learning_rate": chosen["learning_rate"],
            "binarize": asked["binarize"] or ("dynamic" if unit_interval else "none"),
            "allow_grey": asked["allow_grey"],
            "patience": asked["patience"],
            "seed": asked["seed"],
        },
    }


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the values, training part first: a resumed run must meet the same data."""
    digest = hashlib.sha256()
    for part in (dataset.train, dataset.held_out):
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).view(np.uint8).data)
    return digest.hexdigest()


def _model_and_objective(config: Mapping[str, Any], dataset: Dataset) -> tuple[VAE, Objective]:
    """The untrained model and its objective. Raises ValueError for an unknown name or data that do not fit."""
    model, training = config["model"], config["training"]
    vae = VAE(**{name: model[name] for name in ENTRIES["model"]}, seed=training["seed"])
    if training["objective"] not in OBJECTIVES:
        raise ValueError(f"objective is {training['objective']!r}; expected one of {', '.join(OBJECTIVES)}")
    options = {"beta": training["beta"]} if training["objective"] == "elbo" else {}
    if training["objective"] != "elbo" and training["beta"] != 1.0:
        raise ValueError(f"beta is {training['beta']} with objective {training['objective']!r}; only elbo has a beta")
    if not 0.0 < training["learning_rate"] < math.inf:
        raise ValueError(f"learning_rate is {training['learning_rate']}; expected a positive, finite number")
    if training["binarize"] != "none" and not vae.likelihood.unit_interval:
        raise ValueError(
            f"binarize is {training['binarize']!r} under likelihood {model['likelihood']!r}; expected none"
        )
    for part in (dataset.train, dataset.held_out):
        as_data(part, vae.data_dim, vae.likelihood.unit_interval, name=dataset.name)
        check_method(training["binarize"], part if vae.likelihood.unit_interval else None, training["allow_grey"])
    return vae, OBJECTIVES[training["objective"]](num_samples=training["samples"], **options)


def _announcement(job: Job) -> str:
    action = "resuming" if job.resumed else "training"
    return f"{action} {job.vae!r} on {job.config['data']['found']}; {get_threads()} threads; run in {job.run.path}"


def _fit(job: Job) -> tuple[History, float]:
    """Train, one line of history an epoch. Bad input that only `fit` sees leaves nothing behind."""
    run, dataset, training = job.run, job.dataset, job.config["training"]
    made = run.create(job.config)
    run.rewrite_history(job.trained)
    started = time.perf_counter()
    try:
        history = fit(
            job.vae,
            dataset.train,
            validation=dataset.held_out,
            objective=job.objective,
            checkpoint=run.model_file,
            resume=bool(job.trained),
            on_epoch=run.append_epoch,
            **{
                name: training[name]
                for name in ("epochs", "batch_size", "learning_rate", "binarize", "allow_grey", "patience", "seed")
            },
        )
    except ValueError:
        if made and not run.model_file.exists():
            run.remove()
        raise
    return history, time.perf_counter() - started


def _kept(run: RunDirectory) -> str:
    epochs = len(run.history())
    return f"the checkpoint of epoch {epochs} is kept" if epochs else "no epoch was finished"


def _how_to_go_on(run: RunDirectory) -> str:
    return f"go on with: scratchvae train --out {run.path} --resume"


def measure(vae: VAE, dataset: Dataset, binarize: str, seed: int) -> dict[str, Summary]:
    """The numbers of the table at the end, for the training data and the data held out."""
    parts: dict[str, NDArray] = {"training": dataset.train, "held out": dataset.held_out}
    return {
        name: summarise(vae, array, name.replace(" ", "-"), binarize, FINAL_SAMPLES, FINAL_EXAMPLES, seed=seed)
        for name, array in parts.items()
    }


def _draw(job: Job, history: History, summaries: Mapping[str, Summary]) -> None:
    from scratchvae.report.run_report import run_report

    report = run_report(
        job.vae, job.dataset.held_out, job.config, history.epochs, summaries, job.config["training"]["seed"]
    )
    write_whole(job.run.pictures_file, report.pictures)
    write_whole(job.run.report_file, report.html)


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
