"""Whole steps of the usual model in one compiled call: Bernoulli pixels, a diagonal posterior, ELBO or IWAE.

    draw x, eps -> encoder -> mu, logvar -> z -> decoder -> logits -> log p(x|z) -> objective -> back to both networks
    then the sums over rows, and Adam

One call makes several steps: the kernels' numbers fill the processor's caches, and Python, called after every step,
takes 60 to 130 us to come back into them, against 20 us where it runs for a while.

Threads share out the examples (`step_by_examples`) or, where there are few, the weights (`step_by_weights`). The
operations, one by one, are those of `random`, `gather`, `posterior`, `bernoulli`, `importance` and `network`;
`Trainer.steps` composes them for all other models, and a test holds this step to that composition, bit for bit where
the order of operations is the same.
"""

from collections.abc import Sequence
from functools import cache
from time import perf_counter
from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange, types
from numpy.typing import NDArray

from scratchvae.compiled.adam import adam_constants
from scratchvae.compiled.barrier import signals_for
from scratchvae.compiled.denormals import FLUSH
from scratchvae.compiled.gather import within
from scratchvae.compiled.gemm import kernel
from scratchvae.compiled.kernel_cache import KERNEL, compiled_beside
from scratchvae.compiled.network import (
    _backward,
    _forward,
    _gradient,
    address,
    call_in_mode,
    hidden_units,
    multiply_adds,
    network_address,
)
from scratchvae.compiled.pace import pace_of
from scratchvae.compiled.random import _fill_span, _key
from scratchvae.compiled.step_by_examples import keep, places_of, several, spread
from scratchvae.compiled.step_by_weights import halves, halves_backward, halves_forward, plan, size_of
from scratchvae.compiled.step_parts import (
    Settings,
    binarized,
    converted_from,
    importance_bound,
    monte_carlo_bound,
)
from scratchvae.parameters import Network, aligned_empty

PARALLEL = 1_500_000  # multiply-adds of a forward and a backward pass below which a second thread is not woken
SMALL = 10_000_000  # those below which it may be that a second thread does not pay (see `pace`)
FEW_SAMPLES = 32  # samples up to which the weights are shared out instead of the examples


class Minibatches(NamedTuple):
    """What S steps work on: rows of the data, where their pixels and noise come from, and the objective."""

    encoder: Network  # it and the decoder are parts of one flat array
    decoder: Network
    data: NDArray  # (N, D)
    rows: NDArray  # (S, B)
    seed: int
    binarize: bool  # whether uint8 pixels are drawn
    pixel_stream: int
    pixel_steps: NDArray  # (S,)
    noise_stream: int
    noise_steps: NDArray  # (S,)
    noise: NDArray | None  # (N, K, Z) where it is given instead of drawn
    samples: int  # K
    bound: str  # "exact", the ELBO with its KL in closed form; "monte-carlo", with its KL sampled; "iwae"
    betas: NDArray  # (S,): the weight of the KL

    def multiply_adds(self) -> int:
        """Of a step: forward, and back by inputs and by weights."""
        each = multiply_adds(self.encoder.table) + self.samples * multiply_adds(self.decoder.table)
        return 3 * self.rows.shape[1] * int(each)

    def shares_weights(self) -> bool:
        """Whether two threads share out the weights, and not all threads the examples."""
        return self.multiply_adds() >= PARALLEL and self.rows.shape[1] * self.samples <= FEW_SAMPLES

    def threads(self) -> int:
        """How many may work on a step."""
        most = numba.get_num_threads() if self.multiply_adds() >= PARALLEL else 1
        return min(most, 2) if self.shares_weights() else most

    def weighted(self) -> bool:
        """Whether the bound gives every sample its own weight."""
        return self.bound == "iwae" and self.samples > 1

    def tasks(self) -> "Tasks":
        """The kernels, compiled at the first call or read from the cache."""
        dtypes, noise_given = (self.encoder.flat.dtype, self.data.dtype), self.noise is not None
        return _tasks(*dtypes, self.binarize, noise_given, self.bound, self.weighted(), self.shares_weights())


def compile_steps(minibatches: Minibatches) -> None:
    """Compile what such minibatches need, before anything else is compiled: half of it is, in a process beside."""
    minibatches.tasks()


def training_steps(
    minibatches: Minibatches,
    moments: tuple[NDArray, NDArray],
    update: int,
    learning_rates: Sequence[float],
    epsilon: float,
) -> NDArray:
    """Updates by Adam, in place; the first is number `update`. Returns the terms before each, (S, 4, B): elbo,
    reconstruction, kl, objective."""
    flat = minibatches.encoder.flat
    each = [adam_constants(number, rate, 0.9, 0.999, epsilon) for number, rate in enumerate(learning_rates, update)]
    return _run(minibatches, minibatches.rows.shape[1], *moments, np.array(each, flat.dtype))


def step_gradient(minibatches: Minibatches, batch: int, gradient: NDArray) -> NDArray:
    """The addend of the rows of one minibatch to the gradient of -mean(objective) over `batch` examples, into the flat
    `gradient`. Returns the terms as `training_steps` does."""
    return _run(minibatches, batch, gradient, gradient, np.empty((1, 0), gradient.dtype))


def _run(minibatches: Minibatches, batch: int, first: NDArray, second: NDArray, constants: NDArray) -> NDArray:
    """Terms (S, 4, B); the sums over rows go through Adam, or, without its constants, into `first` as they are."""
    encoder, decoder, data, samples = minibatches.encoder, minibatches.decoder, minibatches.data, minibatches.samples
    flat, dtype, latent = encoder.flat, encoder.flat.dtype, decoder.layers[0].weight.shape[0]
    # as the kernels, called by their addresses, were compiled for
    rows = np.ascontiguousarray(minibatches.rows, np.intp)
    if not within(rows.reshape(-1), len(data)):
        raise IndexError(f"rows must be rows of the data, 0 to {len(data) - 1}")
    pixels = data.view(np.uint8)
    drawn, size, threads = minibatches.noise is None, rows.shape[1], minibatches.threads()
    noise = np.empty((0, 0, 0), dtype) if drawn else np.ascontiguousarray(minibatches.noise, dtype)
    pixel_steps, noise_steps = (
        np.ascontiguousarray(steps, np.intp) for steps in (minibatches.pixel_steps, minibatches.noise_steps)
    )
    tasks, key = minibatches.tasks(), _key(minibatches.seed, int(noise_steps.max()), rows.reshape(-1))
    streams = int(minibatches.pixel_stream), int(minibatches.noise_stream)
    weighted = int(minibatches.weighted())
    settings = kernel(dtype), *tasks[:-1], weighted, batch, samples, latent, *streams, *key  # and steps: `Settings`
    work, places = _work_space(minibatches, threads)
    betas, terms = np.ascontiguousarray(minibatches.betas, dtype), np.empty((len(rows), 4, size), dtype)
    work_of_a_step, whole = minibatches.multiply_adds(), [(0, len(rows), False)]
    pace, small = pace_of(work_of_a_step, threads), threads > 1 and work_of_a_step < SMALL
    for begin, end, alone in pace.pieces(len(rows)) if small else whole:
        parts, piece, started = 1 if alone else threads, slice(begin, end), perf_counter()
        _steps(
            tasks.steps, parts, settings, pixel_steps[piece], noise_steps[piece], flat, encoder.table, decoder.table,
            pixels, rows[piece], noise, work, places, betas[piece], terms[piece], first, second, constants[piece],
            signals_for(parts),
        )  # fmt: skip
        pace.took(alone, (perf_counter() - started) / (end - begin))
    return terms


def _work_space(minibatches: Minibatches, threads: int) -> tuple[NDArray, NDArray[np.int64]]:
    """Room for everything that steps write but their results, and where in it what stands."""
    tables = minibatches.encoder.table, minibatches.decoder.table
    size, samples = minibatches.rows.shape[1], minibatches.samples
    if minibatches.shares_weights():
        places = plan(size, samples, *(table.tobytes() for table in tables))
        elements = size_of(places)
    else:
        below, above = map(hidden_units, tables)
        pixels, latent = minibatches.data.shape[1], int(tables[1][0, 0])
        places = places_of(size, samples, pixels, latent, below, above, len(tables[0]), threads, minibatches.weighted())
        elements = int(places[-1, 0])
    return aligned_empty(elements, minibatches.encoder.flat.dtype), places


@njit(parallel=True, **KERNEL)
def _steps(
    task, parts, settings, pixel_steps, noise_steps, flat, encoder, decoder, data, rows, given, work, places, betas,
    terms, first, second, constants, signals,
):  # fmt: skip
    """All steps in one region, a part a thread: the threads wait for one another by themselves."""
    if parts == 1:
        call_in_mode(
            FLUSH, task, settings, pixel_steps, noise_steps, flat, encoder, decoder, data, rows, given, work, places,
            betas, terms, first, second, constants, signals, 0, 1,
        )  # fmt: skip
        return
    for part in prange(parts):
        call_in_mode(
            FLUSH, task, settings, pixel_steps, noise_steps, flat, encoder, decoder, data, rows, given, work, places,
            betas, terms, first, second, constants, signals, np.intp(part), parts,
        )  # fmt: skip


class Tasks(NamedTuple):
    """Addresses of kernels: what works on both networks; those of pixels, noise and bound asked for; that of all
    steps."""

    forward: int
    backward: int
    gradient: int  # 0 where weights are shared out
    pixels: int
    noise: int
    bound: int
    keep: int  # 0, with `spread`, where all samples go back
    spread: int
    steps: int


BOUNDS = {"iwae": importance_bound, "monte-carlo": monte_carlo_bound}


@cache
def _tasks(
    dtype: np.dtype, data_dtype: np.dtype, binarize: bool, noise_given: bool, bound: str, weighted: bool,
    by_weights: bool,
) -> Tasks:  # fmt: skip
    """What is not asked for is not compiled; half of what is, in a process beside."""
    signatures = _signatures(dtype)
    settings, data, numbers, number, terms = (signatures.by_weights[n] for n in (0, 4, 5, 9, 10))
    size, words = types.intp, types.Array(types.uint32, 1, "C")
    noise_arguments = (size, size, size, numbers, *5 * (size,), words)
    bound_arguments = (size, number, *3 * (terms,), size, size)
    pixels = binarized if binarize else converted_from(data_dtype)
    if by_weights:
        name, half = f"by-weights-{dtype}", f"_forward_by_weights('{dtype}')"
    else:
        name, half = f"network-{dtype}", f"_network('{dtype}')"
    with compiled_beside(name, f"from scratchvae.compiled import step; step.{half}"):
        asked_for = (
            address(pixels, (settings, data, size, numbers, terms)),
            0 if noise_given else address(_fill_span, noise_arguments),
            address(BOUNDS[bound], bound_arguments) if bound in BOUNDS else 0,
            *(_keep_and_spread(dtype) if weighted and not by_weights else (0, 0)),
        )
        if by_weights:
            backward = address(halves_backward, signatures.by_weights)
        steps = address(halves if by_weights else several, signatures.several)
        _steps.compile((size, size, *signatures.several[:-2]))
    if by_weights:
        return Tasks(_forward_by_weights(str(dtype)), backward, 0, *asked_for, steps)
    return Tasks(*_network(str(dtype)), *asked_for, steps)


class Signatures(NamedTuple):
    """What kernels take."""

    by_weights: tuple[types.Type, ...]  # the halves of a step
    several: tuple[types.Type, ...]  # several steps


@cache
def _signatures(dtype: np.dtype) -> Signatures:
    number, size = numba.from_dtype(dtype), types.intp
    vector, matrix, cube = (types.Array(number, n, "C") for n in (1, 2, 3))
    numbers, table = (types.Array(size, n, "C") for n in (1, 2))
    networks = vector, table, table, types.Array(types.uint8, 2, "C")
    settings = [types.UniTuple(size, len(Settings._fields) - changing) for changing in (0, 2)]
    step = settings[0], *networks, numbers, cube, vector, table, number, matrix, *3 * (vector,)
    steps = settings[1], numbers, numbers, *networks, table, cube, vector, table, vector, cube, vector, vector, matrix
    return Signatures((*step, numbers, size, size), (*steps, numbers, size, size))


@cache
def _keep_and_spread(dtype: np.dtype) -> tuple[int, int]:
    number, size = numba.from_dtype(dtype), types.intp
    vector, matrix, table = (types.Array(kind, n, "C") for kind, n in ((number, 1), (number, 2), (size, 2)))
    weights, kept = (vector, vector), types.Array(types.int64, 1, "C")
    return (
        address(keep, (*weights, table, matrix, vector, *2 * (matrix,), size, size, kept)),
        address(spread, (*weights, matrix, size, size, kept)),
    )


@cache
def _network(name: str) -> tuple[int, int, int]:
    """The network's three kernels and the products they call, in a data type: half of the compiler's work."""
    dtype = np.dtype(name)
    kernel(dtype)
    forward, backward, gradient = (network_address(task, dtype) for task in (_forward, _backward, _gradient))
    return forward, backward, gradient


@cache
def _forward_by_weights(name: str) -> int:
    """The same half of the work where weights are shared out."""
    dtype = np.dtype(name)
    kernel(dtype)
    return address(halves_forward, _signatures(dtype).by_weights)
