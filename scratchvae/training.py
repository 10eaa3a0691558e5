"""Training: shuffled minibatches, Adam, validation, early stopping, checkpoints.

Every random choice is addressed, not drawn from a moving state: the order of an epoch by (seed, epoch), the noise of an
example by (seed, update, row). So a run is the same bits whatever is logged or validated in between, and after
stopping and resuming.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import checked_seed, in_short, whole_positive
from scratchvae.checkpoint import TrainingState, load_state, save_model
from scratchvae.data.binarize import binarize as draw_batch
from scratchvae.data.binarize import mean_shown
from scratchvae.data.mapped import Data, fingerprint, row_by_row
from scratchvae.engine import get_threads, one_compiled_thread, one_order_of_sums
from scratchvae.finite import (
    DivergedError,
    arrays_of_a_pass,
    first_not_finite,
    is_finite_number,
    named_parameters,
    quiet,
)
from scratchvae.likelihoods import data_set_for
from scratchvae.objectives import ELBO, IWAE, Objective
from scratchvae.parameters import Parameters
from scratchvae.progress import Progress, progress_bar
from scratchvae.reference.random import Stream
from scratchvae.schedules import LearningRate, check_learning_rate, rate_at
from scratchvae.vae import VAE, Deltas, Terms

if TYPE_CHECKING:
    from scratchvae.distributed import Processes

VALIDATION_ROWS = 500  # examples handled together; the result does not depend on it
VALIDATION_VALUES = 16_000_000  # decoded of them at most, so that wide data or many samples take no more memory
UPDATES_TOGETHER = 1_024  # made in one call of the engine at most
FIRST_CORRECTION = math.sqrt(1 - 0.999)  # what `adam_update` multiplies epsilon by at update 1, the least it ever does
SMALL = 20_000_000  # multiply-adds of a forward pass below which one thread may be faster than many
PACED_TOGETHER = 64  # updates that are made before it is looked whether it is, at least
WORK_TOGETHER = 5_000_000_000  # multiply-adds of a thread in their forward passes at most: a quarter of a second

OnEpoch: TypeAlias = Callable[[dict[str, Any]], object]  # is called with a copy of each entry of the history


class Averages(NamedTuple):
    """Means over examples, in nats. elbo is reconstruction - kl to the last bit; None where there is no error bar."""

    elbo: float
    reconstruction: float
    kl: float
    objective: float
    standard_error: float | None = None

    @classmethod
    def of(cls, terms: list[Terms], with_error: bool = False) -> "Averages":
        """Means of per-example terms, every example counted once whatever batch it was in."""
        reconstruction, kl, objective, elbo = (
            np.concatenate([getattr(part, name) for part in terms], axis=None).astype(np.float64)
            for name in ("reconstruction", "kl", "objective", "elbo")
        )
        error = float(elbo.std(ddof=1) / np.sqrt(elbo.size)) if with_error and elbo.size > 1 else None
        means = float(reconstruction.mean()), float(kl.mean())
        return cls(means[0] - means[1], *means, float(objective.mean()), error)


@dataclass
class History:
    """What training saw: one entry an epoch, in nats per example, signed so that elbo = reconstruction - kl exactly.

    Entries   epoch; step: updates so far; train and validation: elbo, reconstruction, kl, objective, and of validation
              the elbo's standard_error (None without validation data); seconds: what it took, where this call of `fit`
              trained it
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = "all epochs done"

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The entries, in order."""
        return iter(self.epochs)

    def __getitem__(self, name: str) -> list[float]:
        """A column: "elbo", "reconstruction", "kl", "objective" of the training data, "validation.elbo", ...,
        "validation.standard_error"."""
        part, _, term = str(name).rpartition(".")
        if part == "validation" and any(entry[part] is None for entry in self.epochs):
            raise KeyError(f"{name}: training had no validation data")
        try:
            return [entry[part or "train"][term] for entry in self.epochs]
        except (KeyError, TypeError):  # no such part, or one that is a number
            raise KeyError(
                f"{name}: no column; expected elbo, reconstruction, kl, objective, or validation. before one of them "
                "(the entries are in epochs)"
            ) from None


class Trainer:
    """One model, its data and its moments; `step` is one update.

    With `noise` (N, K, Z) every example's noise is given instead of drawn: for comparing with another program.

    Raises    ValueError for an adam_epsilon that is not a positive number, or rounds to 0 or infinity in vae's dtype;
              for noise of another shape; for parameters in memory that is read-only
    """

    def __init__(
        self,
        vae: VAE,
        x: Data,
        learning_rate: LearningRate = 1e-3,
        objective: Objective | None = None,
        binarize: str = "dynamic",
        seed: int = 0,
        adam_epsilon: float = 1e-8,
        noise: NDArray | None = None,
    ) -> None:
        if not vae.parameters.flat.flags.writeable:
            raise ValueError("the model's parameters are read-only; expected memory that training can write to")
        self.vae = vae
        self.x = x
        self.learning_rate = learning_rate
        self.adam_epsilon = _adam_epsilon(adam_epsilon, vae.dtype)
        self.objective = objective or ELBO()
        self._at = self.objective.at if isinstance(self.objective, ELBO) and self.objective.warm_up else None
        self.binarize = binarize
        self.seed = seed
        self.first = vae.parameters.zeros_like(lasting=True)
        self.second = vae.parameters.zeros_like(lasting=True)
        self.updates = 0
        self._pace = vae.ops.Pace() if hasattr(vae.ops, "Pace") else None  # of steps made operation by operation
        if noise is not None and noise.shape != (shape := (len(x), self.objective.num_samples, vae.latent_dim)):
            raise ValueError(f"noise has shape {noise.shape}; expected {shape}: (examples, samples, latents)")
        self.noise = noise
        self.writes = True  # whether this process writes files: of several, the first does

    def step(self, rows: NDArray) -> Terms:
        """One update from the given rows of the data. Returns the terms before it, each (B,)."""
        (terms,) = self.steps([rows])
        return terms

    def steps(self, batches: Iterable[NDArray]) -> Iterator[Terms]:
        """An update from each batch of rows, and the terms before it, each (B,).

        Where the engine makes several in one call, all of these are made before the first one's terms are given.
        """
        for several in self.calls(batches):
            yield from map(Terms, *several)

    def calls(self, batches: Iterable[NDArray]) -> Iterator[Terms]:
        """The same, by calls of the engine: the terms of the updates that one makes, each (S, B)."""
        if not self._in_one_call():
            yield from map(of_one_update, self._composed_steps(batches))
            return
        for size, alike in groupby(batches, len):
            together = max(1, min(UPDATES_TOGETHER, WORK_TOGETHER * get_threads() // max(1, self._work(size))))
            while some := list(islice(alike, together)):
                yield self._steps_in_one_call(np.concatenate(some).reshape(len(some), size))

    def epoch(self, epoch: int, batch_size: int) -> Iterator[Terms]:
        """The updates of one pass over the shuffled data, as `calls`; a short last batch has a mean over its own
        rows."""
        return self.calls(self.batches(epoch, batch_size))

    def batches(self, epoch: int, batch_size: int) -> Iterator[NDArray]:
        """The rows of every update of an epoch."""
        if self._in_one_call() and len(mine := self._mine(np.arange(min(batch_size, len(self.x))))):
            self.vae.ops.compile_steps(self._minibatches(mine[None], 1))
        order = self.vae.ops.permutation(self.seed, Stream.SHUFFLE, epoch, len(self.x))
        return (order[start : start + batch_size] for start in range(0, len(order), batch_size))

    def first_not_finite(self, batches: Iterable[NDArray], last: int) -> str:
        """Make updates again, up to and with update `last`: the first array that is not finite, and in which update.

        Where several processes share the work, each looks at its own part of the rows, and all make the same updates.
        """
        found = None
        for rows in batches:
            mine = self._mine(rows)
            if found is None and len(mine):
                arrays = arrays_of_a_pass(self.vae, *self._inputs(mine, self.updates + 1))
                found = first_not_finite(self._at_update(arrays, 1))
            self.step(rows)
            found = found or first_not_finite(self._at_update(self._state_by_name(), 0))
            if self.updates == last:
                break
        return found or f"objective at update {last}"

    def _state_by_name(self) -> Iterator[tuple[str, NDArray]]:
        yield from named_parameters(self.vae)
        for name, moments in (("first", self.first), ("second", self.second)):
            yield from ((f"Adam's {name} moment of {tensor}", array) for tensor, array in moments.items())

    def _at_update(self, arrays: Iterable[tuple[str, NDArray]], ahead: int) -> Iterator[tuple[str, NDArray]]:
        return ((f"{name} at update {self.updates + ahead}", array) for name, array in arrays)

    def _mine(self, rows: NDArray) -> NDArray:
        """The rows of a batch that this process works on."""
        return rows

    def averages(self, terms: list[Terms], with_error: bool = False) -> Averages:
        """Means over the examples of all terms."""
        return Averages.of(terms, with_error)

    def validate(self, x: Data) -> Averages:
        """Mean terms on held-out data and the standard error of the ELBO, with the same noise whenever it is called."""
        return self.averages(self._held_out(x, 0, len(x)), with_error=True)

    def _held_out(self, x: Data, low: int, high: int) -> list[Terms]:
        """The terms of rows low to high of held-out data."""
        terms = []
        values = self.objective.num_samples * self.vae.data_dim
        together = max(1, min(VALIDATION_ROWS, VALIDATION_VALUES // values))
        for start in range(low, high, together):
            rows = np.arange(start, min(start + together, high))
            batch = self._draw(x, rows, Stream.VALIDATION_BINARIZE, 0)
            sampled, _ = self.vae.forward(batch, self._noise(rows, Stream.VALIDATION, 0))
            value, _ = self.vae.evaluate(self.objective, sampled)
            elbo = sampled.reconstruction - sampled.kl
            terms.append(Terms(elbo, sampled.reconstruction, sampled.kl, value))
        return terms

    def _terms_and_deltas(self, rows: NDArray) -> tuple[Terms, Deltas]:
        """Forward and backward on rows of the training data, with this update's draws."""
        return self.vae.terms_and_deltas(*self._inputs(rows, self.updates))

    def _objective_at(self, update: int) -> Objective:
        return self.objective if self._at is None else self._at(update)

    def _in_one_call(self) -> bool:
        """Whether the engine has one call for the whole step of this model, objective and data."""
        vae, drawn = self.vae, self.binarize in ("dynamic", "fixed")
        return (
            hasattr(vae.ops, "training_steps")
            and isinstance(self.x, np.ndarray)
            and self.x.flags.c_contiguous
            and set(vae.networks) == {"encoder", "decoder"}
            and (vae.likelihood.name, vae.posterior.name) == ("bernoulli", "diagonal")
            and _in_kernels(self.objective)
            and (self.x.dtype == np.uint8 if drawn else self.binarize == "none")
        )

    def _work(self, rows: int) -> int:
        """Multiply-adds of a forward pass, more or less."""
        return rows * self.objective.num_samples * self.vae.parameters.flat.size

    def _steps_in_one_call(self, rows: NDArray) -> Terms:
        """An update from each of the rows (S, B)."""
        first, moments = self.updates + 1, (self.first.flat, self.second.flat)
        rates = [rate_at(self.learning_rate, update) for update in range(first, first + len(rows))]
        minibatches = self._minibatches(rows, first)
        terms = self.vae.ops.training_steps(minibatches, moments, first, rates, self.adam_epsilon)
        self.updates += len(rows)
        return Terms(*terms.swapaxes(0, 1))

    def _minibatches(self, rows: NDArray, first: int) -> Any:
        """What the engine's `training_steps` and `step_gradient` take, for updates from the first on."""
        vae, fixed, updates = self.vae, self.binarize == "fixed", np.arange(first, first + len(rows))
        bound, beta = (self.objective.kl, self.objective.beta) if isinstance(self.objective, ELBO) else ("iwae", 1.0)
        betas = np.full(len(rows), beta, vae.dtype)
        if self._at is not None:
            betas[:] = [self._at(update).beta for update in updates.tolist()]
        return vae.ops.Minibatches(
            encoder=vae.networks["encoder"],
            decoder=vae.networks["decoder"],
            data=self.x,
            rows=rows,
            seed=self.seed,
            binarize=self.binarize != "none",
            pixel_stream=Stream.FIXED_BINARIZE if fixed else Stream.BINARIZE,
            pixel_steps=0 * updates if fixed else updates,
            noise_stream=Stream.POSTERIOR,
            noise_steps=updates,
            noise=self.noise,
            samples=self.objective.num_samples,
            bound=bound,
            betas=betas,
        )

    def _composed_steps(self, batches: Iterable[NDArray]) -> Iterator[Terms]:
        """Updates made operation by operation; small ones by all threads or by one, whichever is faster.

        Each has dozens of parallel operations. While another program keeps a processor busy, all threads wait in every
        one of them for the one that it has taken the place of.
        """
        if self._pace is None or get_threads() == 1:
            yield from map(self._composed_step, batches)
            return
        batches = iter(batches)
        while several := list(islice(batches, PACED_TOGETHER)):
            small = self._work(len(several[0])) < SMALL
            yield from self._paced_steps(self._pace, several) if small else map(self._composed_step, several)

    def _paced_steps(self, pace: Any, batches: list[NDArray]) -> Iterator[Terms]:
        """The same, by as many threads as the pace gives each, which is told what they took."""
        for begin, end, alone in pace.pieces(len(batches)):
            seconds = []
            for rows in batches[begin:end]:
                started = time.perf_counter()
                with one_compiled_thread(alone):
                    terms = self._composed_step(rows)
                seconds.append(time.perf_counter() - started)
                yield terms
            pace.took(alone, float(np.median(seconds)))

    def _composed_step(self, rows: NDArray) -> Terms:
        """An update made operation by operation."""
        self.updates += 1
        terms, deltas = self._terms_and_deltas(rows)
        self._adam(deltas)
        return terms

    def _inputs(self, rows: NDArray, update: int) -> tuple[NDArray, NDArray, Objective]:
        """The data, the noise and the objective of an update."""
        x = self._draw(self.x, rows, Stream.BINARIZE, update)
        eps = self._noise(rows, Stream.POSTERIOR, update)
        return x, eps, self._objective_at(update)

    def _draw(self, x: Data, rows: NDArray, stream: Stream, step: int) -> NDArray:
        return draw_batch(self.vae.ops, x, rows, self.binarize, self.seed, stream, step, self.vae.dtype)

    def _noise(self, rows: NDArray, stream: Stream, step: int) -> NDArray:
        if self.noise is not None and stream == Stream.POSTERIOR:  # that of held-out rows is drawn
            return self.noise[rows]
        return self.vae.noise(self.seed, stream, step, rows, self.objective.num_samples)

    def _adam(self, deltas: Deltas) -> None:
        ops, vae = self.vae.ops, self.vae
        settings = self._adam_settings()
        state = self.first.flat, self.second.flat, self.updates
        for name, network in deltas.networks.items():
            ops.network_adam(network, vae.networks[name], *state, **settings)
        for name, gradient in deltas.likelihood.items():
            place = vae.parameters[name], gradient.astype(vae.dtype), self.first[name], self.second[name]
            ops.adam_update(*place, self.updates, **settings)

    def _adam_settings(self) -> dict[str, float]:
        return {"learning_rate": rate_at(self.learning_rate, self.updates), "epsilon": self.adam_epsilon}


def of_one_update(terms: Terms) -> Terms:
    """The terms of an update (B,), as those of a call that makes it alone (1, B)."""
    return Terms(*(term[np.newaxis] for term in terms))


def _in_kernels(objective: Objective) -> bool:
    """Whether the engine has a kernel for the objective: for these themselves, and none that is made from them."""
    return type(objective) is IWAE or (type(objective) is ELBO and not objective.free_bits)


def fit(
    vae: VAE,
    x: Data,
    epochs: int = 10,
    batch_size: int = 100,
    learning_rate: LearningRate = 1e-3,
    objective: Objective | None = None,
    binarize: str | None = None,
    validation: Data | None = None,
    seed: int = 0,
    patience: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 0.0,
    resume: bool | str | os.PathLike[str] = False,
    progress: bool = True,
    allow_grey: bool = False,
    on_epoch: OnEpoch | None = None,
    adam_epsilon: float = 1e-8,
    processes: "Processes | None" = None,
) -> History:
    """Train `vae` in place by Adam on loss = -mean(objective).

    Takes     x (N, D): uint8 (scaled by 1/255) or float; mapped from the disk it is read a batch at a time
              epochs: in all, those before `resume` included
              learning_rate: a number, or a schedule such as `Stages`: any function from an update's number, counted
              from 1, to its rate. To be resumed it needs a repr that says what it is, as a frozen dataclass has
              objective: `ELBO()` by default
              binarize: under a Bernoulli "none", "dynamic" (fresh Bernoulli draws at every use, the default), "fixed"
              (one draw for good) or "threshold"; under any other likelihood "none"
              validation (M, D): held-out data, evaluated after every epoch
              patience: stop after so many epochs without a better validation ELBO, and keep the best parameters
              checkpoint: a .safetensors file, written after every epoch, but where epochs are short not before
              checkpoint_seconds have passed since it was last written; always when training ends
              resume: True to go on from `checkpoint`, or the checkpoint to go on from: with the same data and settings,
              but for `epochs`
              progress: a bar on standard error, where that is a terminal
              allow_grey: accept values between 0 and 1 under a Bernoulli with binarize="none"
              on_epoch: called with a copy of each entry of the history
              adam_epsilon: what Adam adds to the root of the second moment, so that a gradient that has always been 0
              is not divided by 0: positive also in the model's dtype
              processes: `scratchvae.distributed.launched_processes()` to share the work with all processes that a
              launcher started together and that call `fit` with the same arguments; the first alone writes
    Returns   History. An untrained model's output bias is first set to fit the training mean
    Raises    ValueError for bad input, before anything is written. In an epoch ValueError where a schedule gives no
              number of at least 0, and DivergedError when the loss is no longer finite: with the last checkpoint kept,
              and the model as it was before that epoch
    Source    Kingma, Welling 2013, algorithm 1; Kingma, Ba 2015, "Adam: a method for stochastic optimization",
              algorithm 1
    """
    epochs, batch_size = whole_positive("epochs", epochs), whole_positive("batch_size", batch_size)
    patience = None if patience is None else whole_positive("patience", patience)
    plan = _check(vae, x, validation, learning_rate, objective, binarize, patience, allow_grey)
    for name, value, others in (("checkpoint", checkpoint, (None,)), ("resume", resume, (True, False, None))):
        if not (isinstance(value, (str, os.PathLike)) or any(value is other for other in others)):
            raise ValueError(f"{name} is {in_short(value)}; expected the path of a checkpoint")
    if checkpoint is not None:
        _check_writable(Path(checkpoint))
    _check_non_negative("checkpoint_seconds", checkpoint_seconds)
    if on_epoch is not None and not callable(on_epoch):
        raise ValueError(f"on_epoch is {in_short(on_epoch)}; expected a function of an epoch's entry, or None")
    if not isinstance(allow_grey, (bool, np.bool_)):
        raise ValueError(f"allow_grey is {in_short(allow_grey)}; expected True or False")
    if processes is not None and not hasattr(processes, "trainer"):
        raise ValueError(f"processes is {in_short(processes)}; expected what `launched_processes` gives, or None")
    rate = learning_rate if callable(learning_rate) else float(learning_rate)
    new_trainer = Trainer if processes is None else processes.trainer
    trainer = new_trainer(vae, plan.x, rate, plan.objective, plan.binarize, checked_seed(seed), adam_epsilon)
    source = checkpoint if resume is True else resume
    if resume is True and checkpoint is None:
        raise ValueError("resume is True but checkpoint is None; expected the checkpoint to go on from")
    run = _Run(trainer, plan, epochs, batch_size, patience, checkpoint, checkpoint_seconds)
    if isinstance(source, (str, os.PathLike)):
        run.restore(source)
    elif not vae.output_bias.any():
        with quiet():  # a mean beyond this precision is named by the first update
            vae.set_output_bias(mean_shown(plan.x, plan.binarize))
    return run.train(progress, on_epoch)


def _check_writable(checkpoint: Path) -> None:
    folder = checkpoint.parent
    try:
        if not folder.is_dir():
            raise ValueError(f"{checkpoint}: cannot be written; expected a folder {folder}")
        if checkpoint.is_dir():
            raise ValueError(f"{checkpoint}: cannot be written; expected a file, not a folder")
        TemporaryFile(dir=folder).close()
    except OSError as error:
        words = "expected a file in a folder that may be written"
        raise ValueError(f"{checkpoint}: cannot be written ({error.strerror}); {words}") from None


class _Plan(NamedTuple):
    x: Data
    validation: Data | None
    objective: Objective
    binarize: str


class _Run:
    """The state of one call of `fit` beyond the trainer's: history, the best epoch, files."""

    def __init__(
        self,
        trainer: Trainer,
        plan: _Plan,
        epochs: int,
        batch_size: int,
        patience: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 0.0,
    ) -> None:
        self.trainer = trainer
        self.plan = plan
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.checkpoint = checkpoint
        self.checkpoint_seconds = checkpoint_seconds
        self.written: float | None = None  # when the checkpoint was, on the monotonic clock
        self.started = time.monotonic()
        self.history = History()
        self.written_entries: list[str] = []  # the history as a checkpoint keeps it
        self.best: Parameters | None = None
        self.best_elbo = -np.inf
        self.best_epoch = 0
        self._start: list[Parameters] | None = None

    def train(self, progress: bool, on_epoch: OnEpoch | None) -> History:
        updates = -(-len(self.plan.x) // self.batch_size)
        bars = progress_bar(self.epochs, updates, enabled=progress, done=len(self.history))
        with quiet(), one_order_of_sums(self.trainer.vae.engine), bars as bar:
            while not self._is_over():
                try:
                    entry = self._epoch(bar)
                except Exception:
                    self._go_back()
                    raise
                if self._is_due():
                    self._save()
                if on_epoch is not None:
                    on_epoch(deepcopy(entry))
        if self.written is None:  # the run of another file, with no epoch left to train
            self._save()
        if self._patience_is_over():
            self.history.stopped = f"no better validation ELBO for {self.patience} epochs; best epoch {self.best_epoch}"
        if self.best is not None:
            self.trainer.vae.parameters.flat[:] = self.best.flat
        return self.history

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Take up the run that `path` holds."""
        trainer = self.trainer
        parameters, state = load_state(trainer.vae, path)
        mine, theirs = self._settings(), self._data | state.progress["settings"]  # older files do not say their data
        for name, value in mine.items():
            if theirs.get(name) != value:
                raise ValueError(f"{path}: was trained with {name} {theirs.get(name)!r}; got {value!r} now")
        done = len(state.history)
        if done > self.epochs:
            raise ValueError(f"epochs is {self.epochs}; expected at least the {done} that {path} has already")
        trainer.vae.parameters.flat[:] = parameters.flat
        trainer.first, trainer.second = state.first, state.second
        trainer.updates = state.progress["updates"]
        self.written_entries = state.history
        self.history.epochs = [json.loads(entry) for entry in state.history]
        if self.checkpoint is not None and Path(path).resolve() == Path(self.checkpoint).resolve():
            self.written = self.started
        self.best, self.best_epoch = state.best, state.progress["best_epoch"]
        if self.best is not None:
            self.best_elbo = self.history.epochs[self.best_epoch - 1]["validation"]["elbo"]

    def _epoch(self, bar: Progress) -> dict[str, Any]:
        epoch, started = len(self.history) + 1, time.perf_counter()
        self._remember_start()
        seen: list[Terms] = []
        for terms in self.trainer.epoch(epoch, self.batch_size):
            seen.append(terms)
            self._check_finite(terms)
            bar.advance(epoch, terms)
        if not all(np.isfinite(state.flat).all() for state in self._states()):  # no loss has shown the last update's
            raise self._diverged(self.trainer.updates, "gave parameters or moments that are not finite")
        entry: dict[str, Any] = {"epoch": epoch, "step": self.trainer.updates}
        entry |= {"train": _row(self.trainer.averages(seen)), "validation": None}
        if self.plan.validation is not None:
            held_out = self.trainer.validate(self.plan.validation)
            entry["validation"] = _row(held_out)
            self._remember(epoch, held_out.elbo)
        self._check_entry(entry)
        entry["seconds"] = time.perf_counter() - started
        self.history.epochs.append(entry)
        self.written_entries.append(json.dumps(_without_seconds(entry)))
        bar.epoch(entry)
        return entry

    def _remember(self, epoch: int, elbo: float) -> None:
        if self.patience is not None and elbo > self.best_elbo:
            self.best, self.best_elbo, self.best_epoch = self.trainer.vae.parameters.copy(), elbo, epoch

    def _is_over(self) -> bool:
        return len(self.history) >= self.epochs or self._patience_is_over()

    def _is_due(self) -> bool:
        since = self.started if self.written is None else self.written
        return self._is_over() or time.monotonic() - since >= self.checkpoint_seconds

    def _save(self) -> None:
        if self.trainer.writes and self.checkpoint is not None:
            save_model(self.trainer.vae, self.checkpoint, self._state())
            self.written = time.monotonic()

    def _patience_is_over(self) -> bool:
        return self.patience is not None and len(self.history) - self.best_epoch >= self.patience

    def _check_finite(self, latest: Terms) -> None:
        """Raise at the first of the latest updates whose loss is NaN or infinite."""
        if np.isfinite(latest.objective.sum(dtype=np.float64)):
            return
        first = self.trainer.updates - len(latest.objective) + 1
        for update, objective in enumerate(latest.objective, first):
            value = -float(objective.sum(dtype=np.float64))
            if not np.isfinite(value):
                raise self._diverged(update, f"the loss is {value}; expected a finite number")

    def _check_entry(self, entry: dict[str, Any]) -> None:
        """Raise where an average is not finite although the loss is: of a term it leaves out, or of held-out data."""
        for part in ("train", "validation"):
            for name, value in (entry[part] or {}).items():
                if not np.isfinite(value):
                    raise DivergedError(
                        f"epoch {entry['epoch']}, update {self.trainer.updates}: {name} of the {part} data is {value}; "
                        f"expected a finite number"
                        f"{self._kept()}"
                    )

    def _states(self) -> tuple[Parameters, Parameters, Parameters]:
        return self.trainer.vae.parameters, self.trainer.first, self.trainer.second

    def _remember_start(self) -> None:
        """Keep what an epoch starts from, to look for the cause there if it diverges."""
        if self._start is None:
            self._start = [state.copy() for state in self._states()]
        for kept, state in zip(self._start, self._states(), strict=True):
            kept.flat[:] = state.flat

    def _go_back(self) -> None:
        """To what the epoch started from."""
        for kept, state in zip(self._start or [], self._states(), strict=True):
            state.flat[:] = kept.flat

    def _diverged(self, update: int, words: str) -> DivergedError:
        """The error of an update, with the first array that went bad: found by going through the epoch once more."""
        self._go_back()
        epoch = len(self.history) + 1
        batches = list(self.trainer.batches(epoch, self.batch_size))
        self.trainer.updates = self.history.epochs[-1]["step"] if self.history.epochs else 0
        first = self.trainer.first_not_finite(batches, update)
        words = f"{words} (a smaller learning rate may help)"
        return DivergedError(f"update {update}: {words}; the first array to go bad: {first}{self._kept()}")

    def _kept(self) -> str:
        return f"; the last good checkpoint is {self.checkpoint}" if self.written is not None else ""

    @cached_property
    def _data(self) -> dict[str, str | None]:
        """The data, each by what tells them from others."""
        parts = {"data": self.plan.x, "validation": self.plan.validation}
        return {name: None if part is None else f"SHA-256 {fingerprint(part)}" for name, part in parts.items()}

    def _settings(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "batch_size": self.batch_size,
            "learning_rate": repr(trainer.learning_rate) if callable(trainer.learning_rate) else trainer.learning_rate,
            "adam_epsilon": trainer.adam_epsilon,
            "objective": repr(trainer.objective),
            "binarize": trainer.binarize,
            "seed": trainer.seed,
            "examples": len(self.plan.x),
            "patience": self.patience,
            **self._data,
        }

    def _state(self) -> TrainingState:
        trainer = self.trainer
        progress = {
            "settings": self._settings(),
            "updates": trainer.updates,
            "best_epoch": self.best_epoch,
        }
        return TrainingState(trainer.first, trainer.second, self.best, progress, self.written_entries)


def _without_seconds(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the history as a checkpoint keeps it: equal runs write equal files, whatever time they took."""
    return {name: value for name, value in entry.items() if name != "seconds"}


def _check(
    vae: VAE,
    x: Data,
    validation: Data | None,
    learning_rate: LearningRate,
    objective: Objective | None,
    binarize: str | None,
    patience: int | None,
    allow_grey: bool,
) -> _Plan:
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data to watch; got validation=None")
    if objective is not None:
        vae._check_objective(objective)
    check_learning_rate(learning_rate)
    likelihood = vae.likelihood
    method = binarize if binarize is not None else ("dynamic" if likelihood.binary else "none")
    x = data_set_for(likelihood, x, vae.data_dim, method, allow_grey)
    if validation is not None:
        validation = data_set_for(likelihood, validation, vae.data_dim, method, allow_grey, "validation")
    return _Plan(row_by_row(x), validation, objective or ELBO(), method)


def _adam_epsilon(value: float, dtype: np.dtype) -> float:
    """The value, if what `adam_update` makes of it is a normal number of the dtype at every update."""
    range_of = np.finfo(dtype)
    smallest, largest = float(range_of.tiny) / FIRST_CORRECTION, float(range_of.max)
    if not (is_finite_number(value) and smallest <= float(value) <= largest):
        raise ValueError(
            f"adam_epsilon is {value!r}; expected a number from {smallest:.2g} to {largest:.2g} ({dtype}): Adam "
            "divides by it where a gradient has always been 0"
        )
    return float(value)


def _check_non_negative(name: str, value: float) -> None:
    if not (is_finite_number(value) and value >= 0):
        raise ValueError(f"{name} is {value!r}; expected a number of at least 0")


def _row(averages: Averages) -> dict[str, float]:
    return {name: value for name, value in averages._asdict().items() if value is not None}
