"""What is to be trained: data, model and settings, from the options of a new run or from config.json of an old one."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scratchvae import VAE, __version__, checkpoint
from scratchvae.data import Data, Dataset, load
from scratchvae.data.checks import scale_of
from scratchvae.data.dataset import NAMES, whole_path_of_labels
from scratchvae.data.images import parse_size
from scratchvae.data.mapped import fingerprint
from scratchvae.likelihoods import data_set_for, likelihood_named
from scratchvae.objectives import ELBO, OBJECTIVES, Objective

from .run_directory import ENTRIES, FORMAT, RunDirectory, new_run

ELBO_SETTINGS = ("beta", "free_bits", "warm_up", "kl")
FREE_ON_RESUME = ("epochs",)  # what may change when a run goes on
SMALL_WORK = 4_000_000  # multiply-adds of a product pass over the batch: about 50 microseconds of one core


class Defaults(NamedTuple):
    """What suits data of one size."""

    hidden: tuple[int, ...]
    latent_dim: int
    activation: str
    epochs: int
    batch_size: int
    learning_rate: float
    engine: str


SMALL = Defaults((128,), 8, "relu", 150, 64, 3e-3, "reference")  # the digits, 64-128-8: done before a compiler would be
LARGE = Defaults((400,), 20, "relu", 20, 128, 1e-3, "compiled")  # MNIST: 784-400-20
SMALL_DIMENSIONS = 128
WIDE = 4096  # columns; of more the first step of 0.001 a weight, all in one direction, would move z too far


def suited_to(dimensions: int) -> Defaults:
    """What suits data of so many columns."""
    if dimensions <= SMALL_DIMENSIONS:
        return SMALL
    return LARGE._replace(learning_rate=LARGE.learning_rate * min(1.0, WIDE / dimensions))


class Job(NamedTuple):
    """Everything checked and ready to be trained; nothing is on disk yet, unless it is resumed."""

    run: RunDirectory
    config: dict[str, Any]  # config.json
    dataset: Dataset
    vae: VAE
    objective: Objective
    resumed: bool

    @property
    def is_small(self) -> bool:
        """Whether an update is so little work that a second thread gains nothing and on a busy machine loses much."""
        training, weights = self.config["training"], sum(array.size for array in self.vae.parameters.values())
        return training["batch_size"] * training["samples"] * weights < SMALL_WORK


def new_job(out: Path | None, asked: Mapping[str, Any]) -> Job:
    """A run that starts from nothing, with all its input checked. Raises ValueError for bad input; writes nothing."""
    options = {name: asked[name] for name in ("data_dir", "seed", "labels")}
    likelihood = likelihood_named(asked["likelihood"])
    if asked["binarize"] is None:
        asked = {**asked, "binarize": "dynamic" if likelihood.binary else "none"}

    def check(rows: Data, name: str) -> None:
        likelihood.parameter_shapes(rows.shape[1])  # refuses columns that it cannot have
        data_set_for(likelihood, rows, None, asked["binarize"], asked["allow_grey"], name)

    dataset = load(asked["data"], resize=parse_size(asked["resize"]), check=check, **options)
    run = new_run(out, Path(dataset.name).stem)
    config = _configuration(asked, dataset)
    vae, objective = _model_and_objective(config)
    return Job(run, config, dataset, vae, objective, resumed=False)


def job_to_resume(out: Path | None, given: Mapping[str, Any]) -> Job:
    """The run in `out` as its config.json says; what is asked for now must not contradict it, --epochs excepted."""
    if out is None:
        raise ValueError("--resume needs --out RUN, the run to go on with")
    run = RunDirectory(out)
    config = run.config()
    source = run.source(config)
    same = "data" in given and os.path.abspath(given["data"]) == os.path.abspath(source)
    known = {**config["model"], **config["training"], "data": given["data"] if same else source}
    known["resize"] = _width_by_height(config["data"].get("resize"))
    known["labels"] = whole_path_of_labels(source, config["data"].get("labels"))  # an older run's may be relative
    for name, value in _as_kept(given, source).items():
        if name in known and name not in FREE_ON_RESUME and value != known[name]:
            option = "DATA" if name == "data" else f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{out} was made with {option} {known[name]}, now asked {value}; leave it out, or start a new run"
            )
    if "epochs" in given:
        config["training"]["epochs"] = given["epochs"]
    dataset = run.data(config, given.get("data_dir"))
    if given.get("data_dir"):  # where they are now
        config["data"]["data_dir"] = os.path.abspath(given["data_dir"])
    vae, objective = _model_and_objective(config)
    if run.model_file.exists():  # else it was stopped before its first checkpoint, and starts again
        checkpoint.load_state(vae, run.model_file)
    return Job(run, config, dataset, vae, objective, resumed=True)


def _as_kept(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What is asked for as it is compared with config.json: a likelihood by its own name, a size as width x height, a
    file with labels by its whole path."""
    kept = dict(given)
    if "likelihood" in kept:
        kept["likelihood"] = likelihood_named(kept["likelihood"]).name
    if "resize" in kept:
        kept["resize"] = _width_by_height(kept["resize"])
    if "labels" in kept:
        kept["labels"] = whole_path_of_labels(source, kept["labels"])
    return kept


def _width_by_height(resize: str | None) -> str | None:
    """A size in one way of writing it. Raises as `parse_size`."""
    size = parse_size(resize)
    return None if size is None else f"{size[0]}x{size[1]}"


def _configuration(asked: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """config.json of a new run: what was asked, with defaults that suit the data where nothing was."""
    dimensions = dataset.train.shape[1]
    nothing = (None, ())  # how typer says that an option was not given
    suited = suited_to(dimensions)._asdict()
    chosen = {name: value if asked[name] in nothing else asked[name] for name, value in suited.items()}
    likelihood, objective = likelihood_named(asked["likelihood"]), asked["objective"]
    return {
        "format": FORMAT,
        "scratchvae": __version__,
        "data": {
            "name": dataset.name,
            "source": asked["data"],
            "folder": None if asked["data"] in NAMES or os.path.isabs(asked["data"]) else os.getcwd(),  # where it is
            "data_dir": asked["data_dir"] and os.path.abspath(asked["data_dir"]),
            "resize": asked["resize"],
            "labels": whole_path_of_labels(asked["data"], asked["labels"]),
            "found": dataset.found,
            "examples": len(dataset.train),
            "held_out": len(dataset.held_out),
            "dimensions": dimensions,
            "image_shape": dataset.image_shape,
            "columns": dataset.columns,
            "scale": scale_of(dataset.train),
            "sha256": fingerprint(dataset.train, dataset.held_out),
        },
        "model": {
            "data_dim": dimensions,
            "latent_dim": chosen["latent_dim"],
            "hidden": list(chosen["hidden"]),
            "likelihood": likelihood.name,
            "activation": chosen["activation"],
            "engine": chosen["engine"],
            "posterior": asked["posterior"],
        },
        "training": {
            "objective": objective,
            "samples": asked["samples"] or (OBJECTIVES[objective]().num_samples if objective in OBJECTIVES else 1),
            **{name: asked[name] for name in ELBO_SETTINGS},
            "epochs": chosen["epochs"],
            "batch_size": chosen["batch_size"],
            "learning_rate": chosen["learning_rate"],
            "binarize": asked["binarize"],
            "allow_grey": asked["allow_grey"],
            "patience": asked["patience"],
            "seed": asked["seed"],
        },
    }


def _model_and_objective(config: Mapping[str, Any]) -> tuple[VAE, Objective]:
    """The untrained model and its objective. Raises ValueError for an unknown name or setting."""
    model, training = config["model"], config["training"]
    vae = VAE(**{name: model[name] for name in ENTRIES["model"]}, seed=training["seed"])
    objective = objective_of(training)
    if not 0.0 < training["learning_rate"] < math.inf:
        raise ValueError(f"learning_rate is {training['learning_rate']}; expected a positive, finite number")
    return vae, objective


def objective_of(training: Mapping[str, Any]) -> Objective:
    """The objective by its name and settings. Raises ValueError for an unknown name, or a setting it does not have."""
    name, settings = training["objective"], {setting: training[setting] for setting in ELBO_SETTINGS}
    if name not in OBJECTIVES:
        raise ValueError(f"objective is {name!r}; expected one of {', '.join(OBJECTIVES)}")
    if name == ELBO.name:
        return ELBO(training["samples"], **settings)
    for setting, value in settings.items():
        if value != getattr(ELBO(), setting):
            raise ValueError(f"{setting} is {value} with objective {name!r}; only elbo has a {setting}")
    return OBJECTIVES[name](num_samples=training["samples"])
