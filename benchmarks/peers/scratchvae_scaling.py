"""One process of `benchmarks.scaling`, alone or under mpiexec: times training steps, and the exchange by itself.

The first process prints one JSON object: seconds a step in each round, of a step without its exchange at several batch
sizes, and of the exchange with another process by itself. A round is an epoch as in `sv.fit`, with what processes
exchange once an epoch: the first one's state before, all moments and the terms after.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.images import images_of
from benchmarks.peers.scratchvae_training import objective_of
from benchmarks.workloads import WORKLOADS, Workload
from scratchvae.distributed import Processes, launched_processes
from scratchvae.engine import set_threads
from scratchvae.training import Trainer
from scratchvae.vae import VAE

WARM_EXCHANGES = 20
IN_SHARED_MEMORY, BY_MESSAGES, LATENCY = "exchange in shared memory", "exchange by messages", "sum of a number"
EXCHANGES = IN_SHARED_MEMORY, BY_MESSAGES, LATENCY
ON_PAPER = (1, 2, 4, 8, 16, 32, 64)  # processes that share a batch


class Alone:
    """In the place of the other processes: one that takes rows / share of each batch and adds nothing up."""

    is_first = True

    def __init__(self, share: int) -> None:
        self.share = share

    def part(self, count: int) -> slice:
        return slice(0, count // self.share)

    def add_up(self, array) -> None:
        pass

    def own(self, count: int) -> slice:
        return self.part(count)

    def shared_zeros(self, size: int, dtype) -> list:
        return [np.zeros(size, dtype)]

    def add_up_part(self, arrays):
        return arrays[0][self.own(len(arrays[0]))]

    def share_parts(self, array, arrays) -> None:
        pass

    def copy_from_first(self, array) -> None:
        pass

    def gather(self, array):
        return array


def trainer_of(workload: Workload, pixels, processes) -> Trainer:
    shape = workload.data_dim, workload.latent_dim, workload.hidden
    settings = (
        VAE(*shape, activation=workload.activation), pixels, workload.learning_rate, objective_of(workload), "none"
    )  # fmt: skip
    return Trainer(*settings) if processes is None else Processes.trainer(processes, *settings)


def seconds_a_step(trainer: Trainer, batch_size: int, rounds: int) -> list[float]:
    """Of every round, which is an epoch and its averages as in `sv.fit`, where one process puts updates together; after
    one that is not timed."""
    seconds = []
    for epoch in range(1, rounds + 2):
        start, before = time.perf_counter(), trainer.updates
        trainer.averages(list(trainer.epoch(epoch, batch_size)))
        seconds.append((time.perf_counter() - start) / (trainer.updates - before))
    return seconds[1:]


def seconds_each(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="an epoch, a round")
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    processes = launched_processes()
    rank = 0 if processes is None else processes.rank
    if hasattr(os, "sched_setaffinity"):  # a processor of its own for each
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [allowed[rank % len(allowed)]])
    set_threads(1)
    workload = replace(WORKLOADS["pytorch-example"], batch_size=options.batch)
    images = images_of(workload, options.data_dir)
    steps = min(options.steps, len(images.pixels) // options.batch)
    pixels = images.pixels[: steps * options.batch]

    trainer = trainer_of(workload, pixels, processes)
    answer = {"data": images.found, "parameters": trainer.vae.parameters.flat.size}
    answer["step"] = seconds_a_step(trainer, options.batch, options.rounds)
    if processes is None:
        answer["unreduced"] = {
            options.batch // share: unreduced(workload, pixels, share, options) for share in ON_PAPER
        }
    else:
        answer |= reductions(processes, trainer.vae.parameters.flat.size, options)
    if rank == 0:
        print(json.dumps(answer))


def unreduced(workload: Workload, pixels, share: int, options) -> list[float]:
    """Seconds of what one of `share` processes does in a step, but for the exchange: its rows, and Adam on its part of
    the parameters."""
    trainer = trainer_of(workload, pixels, Alone(share))
    return seconds_a_step(trainer, options.batch, options.rounds)


def reductions(processes: Processes, size: int, options) -> dict[str, list[float]]:
    """Seconds of the exchange of gradients and parameters, in shared memory and by messages as between machines, and of
    the sum of one number."""
    from mpi4py import MPI

    one = np.zeros(1, np.float32)
    calls = {
        IN_SHARED_MEMORY: exchange(processes, size),
        BY_MESSAGES: exchange(Processes(MPI.COMM_WORLD, MPI.COMM_SELF), size),
        LATENCY: lambda: processes.add_up(one),
    }
    for call in calls.values():
        seconds_each(call, WARM_EXCHANGES)
    return {name: [seconds_each(call, options.steps) for _ in range(options.rounds)] for name, call in calls.items()}


def exchange(processes: Processes, size: int) -> Callable[[], object]:
    parameters = np.zeros(size, np.float32)
    arrays = processes.shared_zeros(size, parameters.dtype)

    def reduce_and_share() -> None:
        processes.add_up_part(arrays)
        processes.share_parts(parameters, arrays)

    return reduce_and_share


if __name__ == "__main__":
    main()
