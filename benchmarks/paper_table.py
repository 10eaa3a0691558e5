"""`python -m benchmarks.paper_table --model vae --k 1`: one cell of table 1 of Burda, Grosse, Salakhutdinov 2015.

Trains the model of that cell as the paper's code does, estimates L_5000 of the 10,000 test images, counts active units
and sets both beside what was published. Stopped at any moment, the same command goes on from the last checkpoint and
ends with the same bits. The result is kept in OUT/CELL.json, the checkpoint beside it.
"""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import scratchvae as sv
from benchmarks.machine import describe_machine, warn_if_busy
from benchmarks.measure import round_to
from benchmarks.report import say
from scratchvae.data.mnist import Mnist, read_mnist
from scratchvae.engine import get_threads, set_threads
from scratchvae.evidence import active_units_by_layer
from scratchvae.files import append_whole, write_whole
from scratchvae.objectives.elbo import KLS
from scratchvae.progress import counting_bar
from scratchvae.report.summary import Summary, as_seen, spread_rows, summarise

TRAINING_IMAGES = 59_600  # the first; their code keeps the other 400 apart
TEST_IMAGES = 10_000
BATCH_SIZE = 20
RATES = tuple(1e-3 * factor for factor in (1, 0.72, 0.52, 0.37, 0.27, 0.19, 0.14, 0.10))
PASSES = tuple(3**stage for stage in range(len(RATES)))  # over the training images, at each rate: 3,280 in all
ADAM_EPSILON = 1e-4
SAMPLES = 5000
USUAL = {
    "train_images": TRAINING_IMAGES,
    "test_images": TEST_IMAGES,
    "samples": SAMPLES,
}  # of a run that is no first look
CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 30.0
RESULTS = Path(__file__).parent / "results" / "paper_table"


class Published(NamedTuple):
    """What the paper's table 1 says of a cell."""

    nll: float  # nats, an L_5000 bound
    active_units: tuple[int, ...]  # of each stochastic layer


PUBLISHED = {  # layers, model, k
    (1, "vae", 1): Published(86.76, (19,)),
    (1, "vae", 5): Published(86.47, (20,)),
    (1, "vae", 50): Published(86.35, (20,)),
    (1, "iwae", 1): Published(86.76, (19,)),
    (1, "iwae", 5): Published(85.54, (22,)),
    (1, "iwae", 50): Published(84.78, (25,)),
    (2, "vae", 1): Published(85.33, (16, 5)),
    (2, "vae", 5): Published(85.01, (17, 5)),
    (2, "vae", 50): Published(84.78, (17, 5)),
    (2, "iwae", 1): Published(85.33, (16, 5)),
    (2, "iwae", 5): Published(83.89, (21, 5)),
    (2, "iwae", 50): Published(82.90, (26, 7)),
}


@dataclass(frozen=True)
class Cell:
    """One cell of the table: model, samples K of its objective, stochastic layers; how long to train, and the seed."""

    model: str
    k: int
    layers: int
    passes: float  # of the 3,280; 1 is the full schedule
    seed: int
    kl: str = "monte-carlo"  # of a VAE; the paper's code samples all of the bound

    @property
    def length(self) -> str:
        """As `--passes` takes it, with every digit: the command makes the same run again."""
        return "full" if self.passes == 1 else str(self.passes)

    @property
    def name(self) -> str:
        kl = "-kl-exact" if self.kl == "exact" else ""
        return f"{self.model}-k{self.k}-layers{self.layers}{kl}-{self.length}-seed{self.seed}"

    @property
    def command(self) -> str:
        options = f"--model {self.model} --k {self.k} --layers {self.layers} --passes {self.length} --seed {self.seed}"
        return f"python -m benchmarks.paper_table {options}" + (" --kl exact" if self.kl == "exact" else "")

    def objective(self) -> Any:
        """The mean of k single-sample bounds, or the bound of k samples."""
        return sv.ELBO(num_samples=self.k, kl=self.kl) if self.model == "vae" else sv.IWAE(num_samples=self.k)

    def untrained(self) -> sv.VAE:
        """784-200-200-50; or 784-200-200-100, then 100-100-100-50."""
        if self.layers == 1:
            return sv.VAE(784, 50, (200, 200), activation="tanh", seed=self.seed)
        return sv.HierarchicalVAE(784, (100, 50), ((200, 200), (100, 100)), activation="tanh", seed=self.seed)


class Schedule(NamedTuple):
    """How long a run is and the learning rate of each of its updates."""

    epochs: int
    stages: sv.Stages


def schedule(fraction: float, images: int) -> Schedule:
    """The paper's stages, each shortened alike; the whole is rounded up to whole passes over the images."""
    epochs = max(1, math.ceil(round(fraction * sum(PASSES), 6)))
    updates = epochs * -(-images // BATCH_SIZE)
    ends = [round(updates * sum(PASSES[: stage + 1]) / sum(PASSES)) for stage in range(len(PASSES))]
    lengths = tuple(end - start for start, end in zip([0, *ends[:-1]], ends, strict=True))
    return Schedule(epochs, sv.Stages(RATES, lengths))


class Training(NamedTuple):
    vae: sv.VAE
    history: sv.History
    seconds: float  # stops left out


def train(cell: Cell, mnist: Mnist, options: argparse.Namespace) -> Training:
    """The trained model of the cell, from where its checkpoint stands."""
    vae, x = cell.untrained(), mnist.train[: options.train_images]
    epochs, stages = schedule(cell.passes, len(x))
    checkpoint = options.out / f"{name_of_checkpoint(cell, options)}.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    say(f"{cell.name}: {epochs:,} passes over {len(x):,} images, {sum(stages.updates):,} updates")
    countdown, clock = Countdown("training"), Clock(checkpoint.with_suffix(".seconds"))

    def on_epoch(entry: dict[str, Any]) -> None:
        clock.keep(entry["epoch"], entry["seconds"])
        countdown(entry["epoch"], epochs, f"ELBO {entry['train']['elbo']:.2f}  ")

    history = sv.fit(
        vae, x, epochs, BATCH_SIZE, stages, cell.objective(), "dynamic", seed=cell.seed, adam_epsilon=ADAM_EPSILON,
        checkpoint=checkpoint, checkpoint_seconds=CHECKPOINT_SECONDS, resume=checkpoint.exists(),
        on_epoch=on_epoch,
    )  # fmt: skip
    return Training(vae, history, clock.seconds())


class Clock:
    """How long every pass took, in a file beside the checkpoint; a pass that is made again counts once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, epoch: int, seconds: float) -> None:
        append_whole(self.path, f"{epoch} {seconds:.6f}\n".encode())

    def seconds(self) -> float:
        """Of all passes together; a line that a crash has cut short is none."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        latest = dict(words for line in lines if len(words := line.split()) == 2)
        return sum(map(float, latest.values()))


class Countdown:
    """Says every half minute how far a piece of work is and how much time is left; a resumed one counts from where it
    was taken up. Silent where standard error is a terminal, which has a bar instead."""

    def __init__(self, work: str) -> None:
        self.work = work
        self.started = self.said = time.monotonic()
        self.behind: int | None = None  # steps of earlier runs

    def __call__(self, done: int, total: int, more: str = "") -> None:
        now = time.monotonic()
        if self.behind is None:
            self.behind = done - 1
        if sys.stderr.isatty() or (now - self.said < REPORT_SECONDS and done < total):
            return
        self.said, left = now, (now - self.started) / (done - self.behind) * (total - done)
        say(f"{self.work} {done:,} of {total:,} ({done / total:.1%})  {more}{spoken(left)} left")


def spoken(seconds: float) -> str:
    """A duration in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Evaluation(NamedTuple):
    summary: Summary
    active_units: tuple[int, ...]  # of each stochastic layer
    seconds: float


def evaluate(cell: Cell, vae: sv.VAE, mnist: Mnist, options: argparse.Namespace) -> Evaluation:
    """L_5000 of the freshly binarized test images and what goes with it."""
    say(f"L_{options.samples} of {options.test_images:,} test images")
    started = time.monotonic()
    with counting_bar("evaluation") as bar:
        summary = summarise(
            vae, mnist.test, "test", "dynamic", options.samples, options.test_images, seed=cell.seed,
            watch=bar or Countdown("evaluation"),
        )  # fmt: skip
    seen = as_seen(vae, mnist.test, spread_rows(len(mnist.test), options.test_images), "dynamic", cell.seed)
    return Evaluation(summary, active_units_by_layer(vae, seen), time.monotonic() - started)


def result(cell: Cell, training: Training, evaluation: Evaluation, options: argparse.Namespace) -> dict:
    """What is kept of a run, with all that is needed to make it again."""
    published, found = PUBLISHED[cell.layers, cell.model, cell.k], evaluation.summary
    complete = options.train_images == TRAINING_IMAGES and cell.passes == 1
    return {
        "benchmark": "paper_table",
        "cell": {"model": cell.model, "k": cell.k, "layers": cell.layers, "kl": cell.kl},
        "nll": round_to(-found.log_evidence, 7),
        "standard_error": round_to(found.standard_error, 3),
        "sampling_error": round_to(found.sampling_error, 3),
        "elbo": round_to(found.elbo, 7),
        "active_units": list(evaluation.active_units),
        "published": {"nll": published.nll, "active_units": list(published.active_units)},
        "difference": round(-found.log_evidence - published.nll, 3),
        "schedule": "full" if complete else "shortened",
        "training": {
            "images": options.train_images,
            "passes": len(training.history),
            "updates": training.history.epochs[-1]["step"],
            "minutes": round_to(training.seconds / 60, 4),
            "elbo": round_to(training.history["elbo"][-1], 7),
        },
        "evaluation": {
            "images": found.examples,
            "samples": found.num_samples,
            "minutes": round_to(evaluation.seconds / 60, 4),
        },
        "seed": cell.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "threads": get_threads(),
        "command": cell.command + shortenings(options),
        "source": "Burda, Grosse, Salakhutdinov 2015, table 1",
    }


def shortenings(options: argparse.Namespace, names: Iterable[str] = USUAL) -> str:
    """The options of a first look, as they were given; or of those of these names."""
    given = {name: getattr(options, name) for name in names if getattr(options, name) != USUAL[name]}
    return "".join(f" --{name.replace('_', '-')} {value}" for name, value in given.items())


def name_of_checkpoint(cell: Cell, options: argparse.Namespace) -> str:
    """That of the cell; where it is trained on fewer images, with how many."""
    return _name_after(cell, shortenings(options, ["train_images"]))


def name_of_result(cell: Cell, options: argparse.Namespace) -> str:
    """That of the cell; a first look's says what it is, and replaces no whole result."""
    return _name_after(cell, shortenings(options))


def _name_after(cell: Cell, given: str) -> str:
    return cell.name + re.sub(" -*", "-", given)


def show(document: dict) -> None:
    """Ours beside the published cell, on standard error."""
    evaluated, published = document["evaluation"], document["published"]
    theirs, ours = ("+".join(map(str, counts)) for counts in (published["active_units"], document["active_units"]))
    samples, images = f"{evaluated['samples']:,} samples", f"{evaluated['images']:,} test images"
    say(f"published  {published['nll']:.2f} nats, active units {theirs}")
    say(
        f"ours       {document['nll']:.2f} +- {document['standard_error']:.2f} over {images} "
        f"(+- {document['sampling_error']:.3f} from the {samples} of each), active units {ours}"
    )
    minutes = document["training"]["minutes"]
    say(f"           {document['difference']:+.2f} nats; {document['schedule']} schedule, {minutes:g} minutes")


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_table", description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("vae", "iwae"), default="vae")
    parser.add_argument("--k", type=int, choices=(1, 5, 50), default=1, help="samples of the objective")
    parser.add_argument("--layers", type=int, choices=(1, 2), default=1, help="stochastic layers")
    parser.add_argument("--kl", choices=KLS, default=Cell.kl, help="of a VAE; the paper's code samples it")
    parser.add_argument("--passes", type=passes, default=1.0, metavar="full|FRACTION", help="shortens all stages alike")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for CELL.json and the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of the compiled engine")
    parser.add_argument("--data-dir", help="folder with MNIST's four files; else SCRATCHVAE_DATA, else downloaded")
    parser.add_argument("--json", action="store_true", help="the result on standard output")
    parser.add_argument("--train-images", type=int, default=TRAINING_IMAGES, help="fewer for a first look")
    parser.add_argument("--test-images", type=int, default=TEST_IMAGES, help="fewer for a first look")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="K of the estimate; fewer for a first look")
    options = parser.parse_args(arguments)
    for name, most in (("train_images", TRAINING_IMAGES), ("test_images", TEST_IMAGES), ("samples", 10**9)):
        if not 1 <= getattr(options, name) <= most:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}; expected 1 to {most:,}")
    if options.kl == "exact" and (options.model, options.layers) != ("vae", 1):
        parser.error("--kl is exact; expected --model vae --layers 1 with it: others know their KL by samples alone")
    return options


def passes(text: str) -> float:
    """full, or a fraction of the schedule."""
    try:
        fraction = 1.0 if text == "full" else float(text)
    except ValueError:
        fraction = math.nan
    if not 0 < fraction <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected full or a fraction of it, above 0 and at most 1")
    return fraction


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 done, 1 training diverged, 2 bad input, 130 stopped: the same command goes on."""
    options = read_options(arguments)
    cell = Cell(options.model, options.k, options.layers, options.passes, options.seed, options.kl)
    warn_if_busy(say)
    try:
        if options.threads is not None:
            set_threads(options.threads)
        mnist = read_mnist(options.data_dir)
        training = train(cell, mnist, options)
        document = result(cell, training, evaluate(cell, training.vae, mnist, options), options)
        path = options.out / f"{name_of_result(cell, options)}.json"
        write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
    except sv.DivergedError as error:
        say(str(error))
        return 1
    except (ValueError, OSError) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; the same command goes on from the last checkpoint")
        return 130
    show(document)
    say(f"wrote {path}")
    if options.json:
        print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
