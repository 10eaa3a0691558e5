"""The training step of scratchvae: the `Trainer` that `sv.fit` runs, stepped through its own epochs.

The data stay uint8, as `sv.fit` keeps them; they are static for every system, hence binarize="none".
"""

import argparse
import time
from collections.abc import Iterator
from itertools import chain, count, islice

import numpy as np
from numpy.typing import NDArray

import scratchvae as sv
from benchmarks.equality import record
from benchmarks.peers.protocol import serve
from benchmarks.workloads import Workload
from scratchvae.compiled.network import mostly_zero
from scratchvae.compiled.nonzeros import GROUP
from scratchvae.compiled.step import FEW_SAMPLES
from scratchvae.compiled.step_by_weights import BY_ROWS
from scratchvae.engine import get_threads, set_threads
from scratchvae.training import Trainer
from scratchvae.vae import VAE

OBJECTIVES = {"ELBO": sv.ELBO, "IWAE": sv.IWAE}


def model_with(workload: Workload, arrays: dict, dtype: str = "float32", engine: str = "compiled") -> VAE:
    """The workload's model with the given weights."""
    vae = VAE(
        data_dim=workload.data_dim,
        latent_dim=workload.latent_dim,
        hidden=workload.hidden,
        activation=workload.activation,
        dtype=dtype,
        engine=engine,
    )
    for name, array in vae.parameters.items():
        array[...] = arrays[name]
    return vae


def objective_of(workload: Workload) -> sv.ELBO | sv.IWAE:
    return OBJECTIVES[workload.objective](num_samples=workload.num_samples)


def train_on_problem(workload: Workload, problem: dict, dtype="float32", engine="compiled") -> dict:
    """The record of the problem's updates by `Trainer.steps`, which puts all into one call of the engine. Moments are
    seen between calls alone, so those are of the same updates one by one, which have the same bits."""
    together, apart = (trainer_on(workload, problem, dtype, engine) for _ in range(2))
    losses = [-float(terms.objective.mean()) for terms in together.steps(problem["rows"])]
    moments = []
    for rows in problem["rows"]:
        apart.step(rows)
        moments.append(apart.first.copy())
    return record(losses, moments, together.vae.parameters)


def trainer_on(workload: Workload, problem: dict, dtype: str, engine: str) -> Trainer:
    """A trainer with the problem's weights, data and noise."""
    vae, noise = model_with(workload, problem, dtype, engine), problem["eps"].astype(dtype)
    settings = workload.learning_rate, objective_of(workload)
    return Trainer(vae, problem["x"], *settings, binarize="none", noise=noise)


def endless_batches(trainer: Trainer, batch_size: int) -> Iterator[NDArray]:
    """The rows of every update of one epoch after the other."""
    return chain.from_iterable(trainer.batches(epoch, batch_size) for epoch in count(1))


def skipped_multiply_adds(workload: Workload, x: NDArray) -> int:
    """Multiply-adds of the first layer, forward and weight gradient, that are not executed on this minibatch (B, D).

    Only where x is mostly zero. The kernels step over a place where a whole group of rows of the left factor is zero:
    rows of x forward, columns of x in the gradient, but where Adam makes the gradient itself, over every zero.
    """
    if not mostly_zero(x.astype(np.float32)):
        return 0
    outputs = workload.layer_sizes()["encoder.0"][1]
    few = workload.batch_size * workload.num_samples <= FEW_SAMPLES
    of_gradient = int((x == 0).sum()) if BY_ROWS and few else zero_groups(x.T) * GROUP
    return (zero_groups(x) * GROUP + of_gradient) * outputs


def zero_groups(factor: NDArray) -> int:
    """How many columns of groups of GROUP rows are zero altogether. Rows left over at the end count as executed."""
    whole = len(factor) // GROUP * GROUP
    return int((factor[:whole].reshape(-1, GROUP, factor.shape[1]) == 0).all(axis=1).sum())


def multiply_adds_of_weightless_samples(workload: Workload, vae: VAE, x: NDArray, eps: NDArray) -> int:
    """Multiply-adds of the decoder, by inputs and by weights, that are not executed: IWAE goes back through samples
    that weigh something."""
    if workload.objective != "IWAE":
        return 0
    x, eps = x.astype(vae.dtype), eps.astype(vae.dtype)
    _, weights = vae.ops.importance_bound_forward(vae.log_weights(x, vae.encoder_head(x), eps))
    decoder = sum(i * o for name, (i, o) in workload.layer_sizes().items() if name.startswith("decoder"))
    return 2 * int((weights == 0).sum()) * decoder


class ScratchvaeTraining:
    def __init__(self, threads: int) -> None:
        set_threads(threads)

    def prepare(self, workload: dict, problem: str, data: str) -> dict:
        self.workload = Workload.from_json(workload)
        self.problem = dict(np.load(problem))
        pixels = np.load(data)
        whole_batches = len(pixels) // self.workload.batch_size * self.workload.batch_size
        vae, rate = model_with(self.workload, self.problem), self.workload.learning_rate
        data = pixels[:whole_batches]
        self.trainer = Trainer(vae, data, rate, objective_of(self.workload), binarize="none")
        self.batches = endless_batches(self.trainer, self.workload.batch_size)
        return {"version": sv.__version__, "generator": "Philox4x32-10, Box-Muller", "threads": get_threads()}

    def count_multiply_adds(self, minibatches: int = 5) -> dict:
        """How many multiply-adds a step executes: products with pixels leave out zeros, a group of rows at a time, and
        samples without weight do not go back."""
        rng, workload, left_out = np.random.default_rng(0), self.workload, 0
        for _ in range(minibatches):
            pixels = self.trainer.x[rng.choice(len(self.trainer.x), workload.batch_size, replace=False)]
            left_out += skipped_multiply_adds(workload, pixels)
            eps = rng.standard_normal(workload.noise_shape)
            left_out += multiply_adds_of_weightless_samples(workload, self.trainer.vae, pixels / np.float32(255), eps)
        return {"multiply_adds_executed": workload.multiply_adds() - round(left_out / minibatches)}

    def prove(self, out: str) -> dict:
        """Trains on the problem, and writes the record. What is timed takes its rows from `Trainer.batches`, and the
        kernel draws the noise."""
        np.savez(out, **train_on_problem(self.workload, self.problem))
        return {}

    def run(self, steps: int, warm: int) -> dict:
        if warm:
            self.train(warm)
        start = time.perf_counter()
        terms = self.train(steps)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "steps": len(terms), "last_loss": -float(terms[-1].objective.mean())}

    def train(self, steps: int) -> list:
        """As in `sv.fit`, which puts updates together: all terms are kept, and their means are taken at the end."""
        terms = list(self.trainer.steps(islice(self.batches, steps)))
        np.concatenate([part.objective for part in terms]).mean()
        return terms


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    serve(ScratchvaeTraining(**vars(parser.parse_args())))
