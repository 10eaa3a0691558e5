"""A whole step of the usual model in one compiled call: Bernoulli pixels, a diagonal posterior, ELBO or IWAE.

    draw x, eps -> encoder -> mu, logvar -> z -> decoder -> logits -> log p(x|z) -> objective -> back to both networks
    then the sums over rows, and Adam

There are two parallel regions. In the first a thread takes its examples all the way: none depends on another, and what
the thread writes it finds in its own cache. In the second it owns rows of every weight. The operations, one by one, are
those of `random`, `gather`, `posterior`, `bernoulli`, `importance` and `network`; `Trainer.step` composes them for all
other models, and a test holds this step to that composition, bit for bit where the order of operations is the same.
"""

import math
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange, types
from numpy.typing import NDArray

from scratchvae.compiled.adam import adam_constants
from scratchvae.compiled.gather import _gather, within
from scratchvae.compiled.gemm import kernel, matrix
from scratchvae.compiled.kernel_cache import INNER, compiled_beside
from scratchvae.compiled.log_sum_exp import _rows as log_sum_exp_rows
from scratchvae.compiled.network import (
    NO_ROWS,
    _backward,
    _forward,
    _gradient,
    address,
    call,
    hidden_units,
    multiply_adds,
    network_signature,
    slice_of,
)
from scratchvae.compiled.posterior import _backward as posterior_backward_rows
from scratchvae.compiled.posterior import _forward as posterior_forward_rows
from scratchvae.compiled.random import NORMALS, _binarize_span, _fill_span, _key
from scratchvae.compiled.vector_math import float32_from_bits, softplus_sigmoid, sum_row
from scratchvae.parameters import Network

ROWS = 256  # of the decoder that go forward and back together: what they write stays in the second-level cache
PARALLEL = 1_500_000  # multiply-adds of a forward and a backward pass below which a second thread is not woken
ELBO, RECONSTRUCTION, KL, OBJECTIVE = range(4)  # rows of `terms`


class Settings(NamedTuple):
    """All whole numbers of a step: addresses of kernels, sizes, and where pixels and noise come from."""

    kernel: int
    forward: int
    backward: int
    gradient: int
    pixels: int
    noise: int
    bound: int  # of the log-weights; 0 for the ELBO with its KL in closed form
    batch: int  # examples that the loss is a mean over: those of this call, or more that others work on
    samples: int
    latent: int
    pixel_stream: int
    pixel_step: int
    noise_stream: int
    noise_step: int
    key0: int
    key1: int


class Space(NamedTuple):
    """What a step writes, views on one array; B examples, K samples, D pixels, Z latents."""

    x: NDArray  # (B, D)
    head: NDArray  # (B, 2 Z): mu, logvar
    dhead: NDArray
    std: NDArray  # (B, Z)
    eps: NDArray  # (B K, Z)
    z: NDArray
    dz: NDArray
    out: NDArray  # (B K, D): logits, then d loss / d logits
    log_likelihood: NDArray  # (B, K); of a bound of log-weights it becomes d loss / d [log p(z) - log q(z|x)]
    encoder_hidden: NDArray  # (1, ...): as in `NetworkDeltas`
    encoder_das: NDArray
    decoder_hidden: NDArray
    decoder_das: NDArray


@cache
def _places(examples: int, samples: int, pixels: int, latent: int, below: int, above: int) -> NDArray[np.int64]:
    """Offset, rows and columns of each array of `Space` in the one that holds them all; below, above: hidden units of
    the encoder and the decoder. The last row is the end."""
    all_samples = examples * samples
    shapes = (
        *((examples, pixels), (examples, 2 * latent), (examples, 2 * latent), (examples, latent)),
        *((all_samples, latent), (all_samples, latent), (all_samples, latent), (all_samples, pixels)),
        *((examples, samples), (1, examples * below), (1, examples * below)),
        *((1, all_samples * above), (1, all_samples * above), (0, 0)),
    )
    line = 16  # elements: every array starts on a cache line
    sizes = [-(-rows * columns // line) * line for rows, columns in shapes]
    return np.array([(sum(sizes[:n]), *shape) for n, shape in enumerate(shapes)])


@njit(cache=True, **INNER)
def _space(work, places):
    return Space(
        _at(work, places[0]), _at(work, places[1]), _at(work, places[2]), _at(work, places[3]), _at(work, places[4]),
        _at(work, places[5]), _at(work, places[6]), _at(work, places[7]), _at(work, places[8]), _at(work, places[9]),
        _at(work, places[10]), _at(work, places[11]), _at(work, places[12]),
    )  # fmt: skip


@njit(cache=True, **INNER)
def _at(work, place):
    return matrix(work, place[0], place[1], place[2])


# --- the first region: examples, all the way --------------------------------------------------------------------------


@njit(cache=True, error_model="numpy", **INNER)
def _examples(
    settings, flat, encoder, decoder, data, rows, given, work, places, beta, terms, first, second, constants, low, high
):
    """Examples low .. high - 1, forward and back. The objective is a bound of the log-weights, or, where there is none,
    the ELBO with its KL in closed form; beta weighs the KL."""
    settings, space = Settings(*settings), _space(work, places)
    kernel, none, no_rows, samples = settings.kernel, flat[:0], space.out[:0], settings.samples
    own = slice(low * samples, high * samples)
    call(settings.pixels, (settings, data, rows[low:high], space.x[low:high]))
    call(settings.noise, (settings, rows[low:high], given, space.eps[own]))
    call(
        settings.forward,
        (
            kernel, flat, encoder, space.x, space.encoder_hidden[0], none, space.head, no_rows,
            none, none, none, low, high, 1,
        ),
    )  # fmt: skip
    shape = high - low, samples, settings.latent
    eps, z, dz = space.eps[own].reshape(shape), space.z[own].reshape(shape), space.dz[own].reshape(shape)
    posterior_forward_rows(space.head[low:high], eps, space.std[low:high], z, terms[KL, low:high])
    block = max(1, ROWS // samples)
    for start in range(low, high, block):
        stop = min(start + block, high)
        own_first, own_last = start * samples, stop * samples
        call(
            settings.forward,
            (
                kernel, flat, decoder, space.z, space.decoder_hidden[0], none, space.out, no_rows,
                none, none, none, own_first, own_last, 1,
            ),
        )  # fmt: skip
        for b in range(start, stop):
            _objective(settings, work, places, b, beta, terms)
        call(
            settings.backward,
            (
                kernel, flat, decoder, space.z, space.decoder_hidden[0], space.decoder_das[0], space.out, space.dz,
                none, none, none, own_first, own_last, 1,
            ),
        )  # fmt: skip
    # the KL in closed form, or in the ratio of the densities, log p(z) - log q(z|x)
    dkl = np.full(high - low, (flat.dtype.type(0) if settings.bound else beta) / flat.dtype.type(settings.batch))
    if settings.bound:
        _dz_of_ratio(space, own)
    posterior_backward_rows(dz, dkl, space.head[low:high], space.std[low:high], eps, space.dhead[low:high])
    if settings.bound:
        _dlogvar_of_ratio(space, low, high)
    call(
        settings.backward,
        (
            kernel, flat, encoder, space.x, space.encoder_hidden[0], space.encoder_das[0], space.dhead, no_rows,
            none, none, none, low, high, 1,
        ),
    )  # fmt: skip


@njit(cache=True, error_model="numpy", **INNER)
def _converted(settings, data, rows, x):
    """Pixels as they are, uint8 scaled."""
    _gather(data, rows, x.dtype.type(255 if data.itemsize == 1 else 1), x, 0, rows.size)


@njit(cache=True, error_model="numpy", **INNER)
def _binarized(settings, data, rows, x):
    """Pixels drawn from uint8."""
    settings = Settings(*settings)
    blocks, address = rows.size * ((x.shape[1] + 15) // 16), (settings.pixel_step, settings.pixel_stream)
    _binarize_span(0, blocks, data, rows, rows, *address, settings.key0, settings.key1, x)


@njit(cache=True, error_model="numpy", **INNER)
def _drawn(settings, rows, given, eps):
    """Normal noise."""
    settings = Settings(*settings)
    count, address = settings.samples * settings.latent, (settings.noise_step, settings.noise_stream)
    bits, flat, blocks = np.empty(eps.size, np.uint32), eps.reshape(eps.size), rows.size * ((count + 3) // 4)
    _fill_span(NORMALS, 0, blocks, rows, count, *address, settings.key0, settings.key1, bits)
    for i in range(bits.size):
        flat[i] = float32_from_bits(np.int32(bits[i]))


@njit(cache=True, error_model="numpy", **INNER)
def _given(settings, rows, given, eps):
    """Noise as it is given."""
    samples = Settings(*settings).samples
    for i in range(len(eps)):
        _copy(given[rows[i // samples], i % samples], eps[i])


@njit(cache=True, **INNER)
def _copy(source, target):
    for j in range(target.size):
        target[j] = source[j]


@njit(cache=True, error_model="numpy", **INNER)
def _objective(settings, work, places, b, beta, terms):
    """Terms of example b, and d loss / d logits of its samples."""
    space = _space(work, places)
    x, samples, number = space.x, settings.samples, space.x.dtype.type
    out, values = space.out[b * samples : (b + 1) * samples], np.empty(max(x.shape[1], settings.latent), x.dtype)
    factor = number(1) if settings.bound else number(-1.0 / (settings.batch * samples))
    for k in range(samples):
        space.log_likelihood[b, k] = _log_likelihood(x[b], out[k], factor, values[: x.shape[1]])
    terms[RECONSTRUCTION, b] = sum_row(space.log_likelihood[b]) / number(samples)
    terms[ELBO, b] = terms[RECONSTRUCTION, b] - terms[KL, b]
    terms[OBJECTIVE, b] = terms[RECONSTRUCTION, b] - beta * terms[KL, b]
    if settings.bound:
        call(settings.bound, (settings.batch, beta, work, places, b, values[: settings.latent], terms))


@njit(cache=True, error_model="numpy", **INNER)
def _log_likelihood(pixels, logits, factor, values):
    """log p(x|z) of a row; its logits become factor d log p / d logits, in one read."""
    for d in range(logits.size):
        softplus, sigmoid = softplus_sigmoid(logits[d])
        values[d] = pixels[d] * logits[d] - softplus
        logits[d] = factor * (pixels[d] - sigmoid)
    return sum_row(values)


@njit(cache=True, error_model="numpy", **INNER)
def _importance_bound(batch, beta, work, places, b, values, terms):
    """L_K of example b. Its log-likelihoods become d loss / d log w_k = -w~_k / batch; its logits, their gradients."""
    space = _space(work, places)
    samples, number, logvar = space.log_likelihood.shape[1], values.dtype.type, space.head[b, values.size :]
    log_weights, weights = np.empty((1, samples), values.dtype), np.empty((1, samples), values.dtype)
    for k in range(samples):
        row = b * samples + k
        log_weights[0, k] = space.log_likelihood[b, k] + _log_ratio(logvar, space.eps[row], space.z[row], values)
    bound = np.empty(1, values.dtype)
    log_sum_exp_rows(log_weights, bound, weights)
    for k in range(samples):
        space.log_likelihood[b, k] = -weights[0, k] / number(batch)
        _scale(space.out[b * samples + k], space.log_likelihood[b, k])
    terms[OBJECTIVE, b] = bound[0] - number(math.log(samples))


@njit(cache=True, error_model="numpy", **INNER)
def _monte_carlo_bound(batch, beta, work, places, b, values, terms):
    """The mean over samples of log p(x|z) + beta (log p(z) - log q(z|x)) of example b. Its log-likelihoods become the
    gradient by the ratio, -beta / (batch K); its logits, theirs."""
    space = _space(work, places)
    samples, number, logvar = space.log_likelihood.shape[1], values.dtype.type, space.head[b, values.size :]
    factor, ratios = number(-1.0 / (batch * samples)), np.empty(samples, values.dtype)
    for k in range(samples):
        row = b * samples + k
        ratios[k] = _log_ratio(logvar, space.eps[row], space.z[row], values)
        space.log_likelihood[b, k] = beta * factor
        _scale(space.out[row], factor)
    terms[OBJECTIVE, b] = terms[RECONSTRUCTION, b] + beta * sum_row(ratios) / number(samples)


@njit(cache=True, error_model="numpy", **INNER)
def _log_ratio(logvar, eps, z, values):
    """log p(z) - log q(z|x) = 1/2 sum_j (logvar_j + eps_j^2 - z_j^2) of a sample z = mu + exp(logvar / 2) eps."""
    for j in range(values.size):
        values[j] = logvar[j] + eps[j] * eps[j] - z[j] * z[j]
    return values.dtype.type(0.5) * sum_row(values)


@njit(cache=True, error_model="numpy", **INNER)
def _dz_of_ratio(space, own):
    """dz += d loss / d ratio times -z."""
    dratios = space.log_likelihood.reshape(space.log_likelihood.size)
    for i in range(own.start, own.stop):
        dz, z, factor = space.dz[i], space.z[i], dratios[i]
        for j in range(z.size):
            dz[j] -= factor * z[j]


@njit(cache=True, error_model="numpy", **INNER)
def _dlogvar_of_ratio(space, low, high):
    """d logvar += sum_k d loss / d ratio_k times 1/2."""
    latent, half = space.std.shape[1], space.head.dtype.type(0.5)
    for b in range(low, high):
        half_of_sum = half * sum_row(space.log_likelihood[b])
        for j in range(latent):
            space.dhead[b, latent + j] += half_of_sum


@njit(cache=True, error_model="numpy", **INNER)
def _scale(row, factor):
    for d in range(row.size):
        row[d] = factor * row[d]


# --- the second region: rows of every weight --------------------------------------------------------------------------


@njit(cache=True, **INNER)
def _sums(
    settings,
    flat,
    encoder,
    decoder,
    data,
    rows,
    given,
    work,
    places,
    beta,
    terms,
    first,
    second,
    constants,
    part,
    parts,
):
    """Part `part` of `parts` of both networks' gradients and, where there are constants, of Adam."""
    settings, space = Settings(*settings), _space(work, places)
    no_rows, adam = space.out[:0], (first, second, constants, part, part, parts)
    call(
        settings.gradient,
        (
            settings.kernel, flat, decoder, space.z, space.decoder_hidden[0], space.decoder_das[0], space.out, no_rows,
            *adam,
        ),
    )  # fmt: skip
    call(
        settings.gradient,
        (
            settings.kernel, flat, encoder, space.x, space.encoder_hidden[0], space.encoder_das[0], space.dhead,
            no_rows, *adam,
        ),
    )  # fmt: skip


# --- the step ---------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _step(examples, sums, parts, target, settings, flat, *others):
    """Both regions; `examples` and `sums` are the addresses of `_examples` and `_sums`."""
    _region(examples, others[3].size, parts, settings, flat, *others)
    _region(sums, NO_ROWS, parts, settings, target, *others)


@njit(cache=True, parallel=True)
def _region(
    task, size, parts, settings, flat, encoder, decoder, data, rows, given, work, places, beta, terms,
    first, second, constants,
):  # fmt: skip
    """Run the kernel at address `task` a part a thread: on part of so many examples, or, with `NO_ROWS`, on
    part of the weights. A region is a function of its own: Numba would join two loops over the parts into one."""
    if parts == 1:
        high = 1 if size == NO_ROWS else size
        call(task, (
            settings, flat, encoder, decoder, data, rows, given, work, places, beta, terms, first, second, constants,
            0, high,
        ))  # fmt: skip
        return
    for part in prange(parts):
        low, high = (np.intp(part), parts) if size == NO_ROWS else slice_of(size, part, parts)
        call(task, (
            settings, flat, encoder, decoder, data, rows, given, work, places, beta, terms, first, second, constants,
            low, high,
        ))  # fmt: skip


class Minibatch(NamedTuple):
    """What a step works on: rows of the data, where their pixels and noise come from, and the objective."""

    encoder: Network  # it and the decoder are parts of one flat array
    decoder: Network
    data: NDArray  # (N, D)
    rows: NDArray  # (B,)
    seed: int
    binarize: bool  # whether uint8 pixels are drawn
    pixel_stream: int
    pixel_step: int
    noise_stream: int
    noise_step: int
    noise: NDArray | None  # (N, K, Z) where it is given instead of drawn
    samples: int  # K
    bound: str  # "exact", the ELBO with its KL in closed form; "monte-carlo", with its KL sampled; "iwae"
    beta: float  # the weight of the KL


def training_step(
    minibatch: Minibatch, moments: tuple[NDArray, NDArray], update: int, learning_rate: float, epsilon: float
) -> NDArray:
    """One update by Adam, in place. Returns the terms before it, (4, B): elbo, reconstruction, kl, objective."""
    flat = minibatch.encoder.flat
    constants = adam_constants(flat.dtype, update, learning_rate, 0.9, 0.999, epsilon)
    return _run(minibatch, len(minibatch.rows), flat, *moments, constants)


def step_gradient(minibatch: Minibatch, batch: int, gradient: NDArray) -> NDArray:
    """The addend of the minibatch's rows to the gradient of -mean(objective) over `batch` examples, into the flat
    `gradient`. Returns the terms as `training_step` does."""
    return _run(minibatch, batch, gradient, gradient, gradient, gradient[:0])


def _run(
    minibatch: Minibatch, batch: int, target: NDArray, first: NDArray, second: NDArray, constants: NDArray
) -> NDArray:
    """Terms (4, B); the sums over rows go into the target as they are, or, with Adam's constants, through Adam."""
    encoder, decoder, data, samples = minibatch.encoder, minibatch.decoder, minibatch.data, minibatch.samples
    flat, dtype, latent = encoder.flat, encoder.flat.dtype, decoder.layers[0].weight.shape[0]
    # as the kernels, called by their addresses, were compiled for
    rows = np.ascontiguousarray(minibatch.rows, np.intp)
    if not within(rows, len(data)):
        raise IndexError(f"rows must be rows of the data, 0 to {len(data) - 1}")
    drawn = minibatch.noise is None
    given = np.empty((0, 0, 0), dtype) if drawn else np.ascontiguousarray(minibatch.noise, dtype)
    below, above = hidden_units(encoder.table), hidden_units(decoder.table)
    places = _places(len(rows), samples, data.shape[1], latent, below, above)
    work, terms = np.empty(places[-1, 0], dtype), np.empty((4, len(rows)), dtype)
    tasks = _tasks(dtype, data.dtype, minibatch.binarize, not drawn, minibatch.bound)
    settings = Settings(
        kernel(dtype), *tasks[:6], batch, samples, latent, int(minibatch.pixel_stream), minibatch.pixel_step,
        int(minibatch.noise_stream), minibatch.noise_step, *_key(minibatch.seed, minibatch.noise_step, rows),
    )  # fmt: skip
    multiply_adds_of_step = 3 * len(rows) * (multiply_adds(encoder.table) + samples * multiply_adds(decoder.table))
    _step(
        tasks.examples, tasks.sums, 1 if multiply_adds_of_step < PARALLEL else numba.get_num_threads(),
        target, tuple(settings), flat, encoder.table, decoder.table, data, rows, given, work, places,
        dtype.type(minibatch.beta), terms, first, second, constants,
    )  # fmt: skip
    return terms


class Tasks(NamedTuple):
    """Addresses of kernels: the network's three; those of pixels, noise and bound asked for; the two regions'."""

    forward: int
    backward: int
    gradient: int
    pixels: int
    noise: int
    bound: int
    examples: int
    sums: int


BOUNDS = {"iwae": _importance_bound, "monte-carlo": _monte_carlo_bound}


@cache
def _tasks(dtype: np.dtype, data_dtype: np.dtype, binarize: bool, given: bool, bound: str) -> Tasks:
    """What is not asked for is not compiled."""
    number, size = numba.from_dtype(dtype), types.intp
    settings, numbers, table = (
        types.UniTuple(size, len(Settings._fields)),
        types.Array(size, 1, "C"),
        types.Array(size, 2, "C"),
    )
    flat, matrices, noise = (types.Array(number, n, "C") for n in (1, 2, 3))
    data = types.Array(numba.from_dtype(data_dtype), 2, "C")
    arguments = (
        *(settings, flat, table, table, data, numbers, noise, flat, table, number, matrices, flat, flat, flat),
        *(size, size),
    )
    network = f"from scratchvae.compiled import step; step._network('{dtype}')"
    with compiled_beside(f"network-{dtype}", network):
        others = (
            address(_binarized if binarize else _converted, (settings, data, numbers, matrices)),
            address(_given if given else _drawn, (settings, numbers, noise, matrices)),
            address(BOUNDS[bound], (size, number, flat, table, size, flat, matrices)) if bound in BOUNDS else 0,
            address(_examples, arguments),
            address(_sums, arguments),
        )
    return Tasks(*_network(str(dtype)), *others)


@cache
def _network(name: str) -> tuple[int, int, int]:
    """The network's three kernels and the products they call, in a data type: half of the compiler's work."""
    dtype = np.dtype(name)
    kernel(dtype)
    forward, backward, gradient = (address(task, network_signature(dtype)) for task in (_forward, _backward, _gradient))
    return forward, backward, gradient
