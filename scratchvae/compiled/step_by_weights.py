"""A training step on few rows, whose weights are shared out between two threads.

A small batch is little work beside its weights. Were its examples shared out, each thread would read all the weights
and write half of them anew, and at every step the weights would cross from one processor's cache to the other's. Here
each thread keeps the weights of half of every layer's inputs, and the rows' numbers cross instead:

    forward    a thread multiplies its half of the inputs with their weights: one half of every output's sum. The two
               are added by the thread whose inputs of the next layer these outputs are
    backward   d loss / d its inputs, from all outputs, by inner products: a row of its weights for every input
    sums       its rows of dW, and Adam on them, while the other thread finishes the layer

What the other processor has read, even ahead of need, is slow to write: it must give up every line first. A product
walks down its weights in long strides, and the processor fetches some fifty rows beyond their end. So those rows should
be the same thread's. The halves change hands from layer to layer, so that a layer begins with the part that the one
before ends with, and a first half is walked from its end to its beginning; the bias between the two is that part's too.
On two cores with a common third-level cache a step is 1.06 times as fast for it, on two cores without 1.4 times. The
rows' numbers stand apart for the same reason (`step_parts.laid_out`).

Between layers the two wait for one another. One thread alone works on both halves in turn: the same sums in the same
order, so that the number of threads changes no bit.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scratchvae.compiled.adam_by_rows import update_by_rows
from scratchvae.compiled.barrier import arrive, meet, together, wait
from scratchvae.compiled.gather import ask
from scratchvae.compiled.gemm import NONE, all_finite, matrix, product, sparse_product
from scratchvae.compiled.inner import inner_products
from scratchvae.compiled.kernel_cache import INLINED, INNER
from scratchvae.compiled.network import RELU, bias_sums, call, mostly_zero, skips, slice_of, weight_sums
from scratchvae.compiled.posterior import _forward as posterior_forward_rows
from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.step_parts import (
    KL,
    LINE_FLOATS,
    Settings,
    at,
    example_terms,
    head_gradient,
    laid_out,
    likelihoods,
    log_ratios,
    noise,
    scale,
)
from scratchvae.compiled.vector_math import activate_row, activation_backward_row

BY_ROWS = SIMD.estimates  # whether Adam makes the gradient itself where inputs are zero (see `adam_by_rows`)
BEGIN = np.intp(0)  # of columns and layers; not a plain integer, for which Numba would compile some functions once more
HEIGHT = 4  # of a tile that is still fast: a half has a multiple of so many inputs, or whole cache lines of them


class Layer(NamedTuple):
    """A layer of either network, those of the encoder first; offsets into the parameters and into the work space."""

    rows: int
    inputs: int
    outputs: int
    weight: int
    bias: int  # the part's whose inputs are the second half: it lies behind their weights
    activation: int  # code of what made its inputs; of a network's first layer, identity
    first: int  # the part whose inputs are the first half; in the next layer it is the other
    cut: int  # the first half's inputs
    halves: int  # offset of the first half's inputs (rows, cut)
    other: int  # offset of the second half's (rows, inputs - cut)
    sums: int  # offset of its outputs' sums over the first half (rows, outputs)
    other_sums: int  # offset of those over the second half
    das: int  # offset of d loss / d [its outputs before their activation] (rows, outputs)


class Shared(NamedTuple):
    """The arrays that one thread writes and the other reads, by their numbers; B examples, K samples, Z latents."""

    eps: int  # (B K, Z): each draws that of half of the examples
    log_likelihood: int  # (2, B K): of either half of the pixels
    ratios: int  # (2, B K): log p(z) - log q(z|x) of either half of the latents
    kl: int  # (2, B): of either half of the latents


class Own(NamedTuple):
    """The arrays that each thread has for itself, by their numbers: those of its H latents, and of the sums over all
    latents and pixels."""

    head: int  # (B, 2 H)
    dhead: int  # (B, 2 H)
    std: int  # (B, H)
    eps: int  # (B K, H)
    dz: int  # (B K, H)
    log_likelihood: int  # (B, K)
    ratios: int  # (B, K): log p(z) - log q(z|x), then d loss / d log-weights
    terms: int  # (4, B)
    finite: int  # (1, layers): whether it is known of its half of a layer's weights that they are


SHARED, OWN = Shared(*range(len(Shared._fields))), Own(*range(len(Own._fields)))
FIRST = len(SHARED) + 2 * len(OWN) + 1  # row of the plan where layers begin; above: arrays, how many are the encoder's


@cache
def plan(examples: int, samples: int, encoder: bytes, decoder: bytes) -> NDArray[np.int64]:
    """Where everything stands in the work space: arrays as (offset, rows, columns), then the layers. The second number
    behind the encoder's layers is the space's size."""
    tables = [np.frombuffer(table, np.int64).reshape(-1, 5) for table in (encoder, decoder)]
    all_samples, latent = examples * samples, tables[1][0, 0]
    shapes: list[tuple[int, int]] = []
    layers: list[tuple[int, ...]] = []
    for rows, table in zip((examples, all_samples), tables, strict=True):
        for number, (inputs, outputs, weight, bias, _) in enumerate(table.tolist()):
            whole = HEIGHT if layers and inputs % LINE_FLOATS else LINE_FLOATS  # pixels are drawn in sixteens too
            cut = (inputs // 2 + (whole - 1) // 2) // whole * whole  # the nearest; of two, the lower
            activation = table[number - 1, 4] if number else 0
            layers.append((rows, inputs, outputs, weight, bias, activation, len(layers) % 2, cut))
            shapes += [(rows, cut), (rows, inputs - cut), *[(rows, outputs)] * 3]
    first, cut = layers[len(tables[0])][6:]
    halves = [cut, latent - cut] if first == 0 else [latent - cut, cut]
    # no line is written by both threads
    lines, all_lines = (-(-n // LINE_FLOATS) * LINE_FLOATS for n in (examples, all_samples))
    arrays = [(all_samples, latent), (2, all_lines), (2, all_lines), (2, lines)]
    for half in halves:
        arrays += [(examples, 2 * half)] * 2 + [(examples, half)] + [(all_samples, half)] * 2
        arrays += [(examples, samples)] * 2 + [(4, examples), (1, len(layers))]
    shapes = arrays + shapes
    *places, (end, _, _) = laid_out(shapes)
    filled = np.zeros((FIRST + len(layers), len(Layer._fields)), np.int64)
    filled[: FIRST - 1, :3], filled[FIRST - 1, :2] = places[: FIRST - 1], (len(tables[0]), end)
    filled[FIRST:, :8], filled[FIRST:, 8:] = layers, np.reshape([p[0] for p in places[FIRST - 1 :]], (-1, 5))
    return filled


def size_of(plan: NDArray[np.int64]) -> int:
    """Elements of the work space."""
    return int(plan[FIRST - 1, 1])


# --- what stands where ------------------------------------------------------------------------------------------------


@njit(**INLINED)
def _shared(work, plan, number):
    """The array of that number in `SHARED`."""
    return at((work, plan), number)


@njit(**INLINED)
def _own(work, plan, part, number):
    """The array of that number in `OWN` that is a part's."""
    return at((work, plan), len(SHARED) + part * len(OWN) + number)


@njit(**INNER)
def _layer(plan, number):
    p = plan[FIRST + number]
    return Layer(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12])


@njit(**INNER)
def _range(layer, part):
    """The inputs that are a part's: low, high."""
    return (0, layer.cut) if part == layer.first else (layer.cut, layer.inputs)


@njit(**INNER)
def _inputs(work, layer, part):
    """A part's inputs (rows, its share)."""
    low, high = _range(layer, part)
    return matrix(work, layer.halves if part == layer.first else layer.other, layer.rows, high - low)


@njit(**INNER)
def _half_sums(work, layer, part):
    return matrix(work, layer.sums if part == layer.first else layer.other_sums, layer.rows, layer.outputs)


@njit(**INNER)
def _das(work, layer):
    """d loss / d [outputs of a layer before their activation]."""
    return matrix(work, layer.das, layer.rows, layer.outputs)


@njit(**INNER)
def _weights(flat, layer, part):
    """A part's rows of the layer's weight."""
    low, high = _range(layer, part)
    return matrix(flat, layer.weight + low * layer.outputs, high - low, layer.outputs)


# --- forward ----------------------------------------------------------------------------------------------------------


@njit(**INLINED)
def _draw(settings, data, rows, given, work, plan, part):
    """Half of the pixels of all examples, and all noise of half of the examples."""
    first = _layer(plan, BEGIN)
    call(settings.pixels, settings, data, _range(first, part)[0], rows, _inputs(work, first, part))
    low, high = slice_of(rows.size, part, 2)
    own = slice(low * settings.samples, high * settings.samples)
    noise(settings, rows[low:high], given, _shared(work, plan, SHARED.eps)[own])


@njit(**INNER)
def _add_halves(work, layer, low, high, target, place):
    """Columns place .. of target = columns low .. high - 1 of the layer's outputs, from both halves of their sums."""
    halves = _half_sums(work, layer, 0), _half_sums(work, layer, 1)
    for i in range(layer.rows):
        one, other, row = halves[0][i, low:high], halves[1][i, low:high], target[i, place : place + high - low]
        for j in range(row.size):
            row[j] = one[j] + other[j]


@njit(**INNER)
def _copy_columns(source, low, target):
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            target[i, j] = source[i, low + j]


@njit(**INLINED)
def _latents(settings, work, plan, part):
    """A part's latents of all samples, with their KL and their addends to log p(z) - log q(z|x)."""
    below, head, eps = plan[FIRST - 1, 0], _own(work, plan, part, OWN.head), _own(work, plan, part, OWN.eps)
    layer, (low, high) = _layer(plan, below - 1), _range(_layer(plan, below), part)
    _add_halves(work, layer, low, high, head, BEGIN)
    _add_halves(work, layer, settings.latent + low, settings.latent + high, head, high - low)
    _copy_columns(_shared(work, plan, SHARED.eps), low, eps)
    z, shape = _inputs(work, _layer(plan, below), part), (len(head), settings.samples, high - low)
    kl, std = _shared(work, plan, SHARED.kl)[part, : len(head)], _own(work, plan, part, OWN.std)
    posterior_forward_rows(head, eps.reshape(shape), std, z.reshape(shape), kl)
    if settings.bound:
        ratios = _shared(work, plan, SHARED.ratios)[part, : len(z)]
        log_ratios(head, eps, z, ratios.reshape((len(head), settings.samples)))


@njit(**INLINED)
def _forward_layer(settings, flat, work, plan, number, part):
    """A part's inputs, and its half of the outputs' sums."""
    layer = _layer(plan, number)
    (low, high), h = _range(layer, part), _inputs(work, layer, part)
    if number == plan[FIRST - 1, 0]:
        _latents(settings, work, plan, part)
    elif number > 0:
        _add_halves(work, _layer(plan, number - 1), low, high, h, BEGIN)
        for i in range(layer.rows):
            activate_row(h[i], layer.activation)
    none, kernel, weights, sums = flat[:0], settings.kernel, _weights(flat, layer, part), _half_sums(work, layer, part)
    start = flat[layer.bias : layer.bias + layer.outputs] if part != layer.first else none
    zeros = layer.activation == RELU if number else mostly_zero(h)
    if zeros:
        sparse_product(kernel, h, weights, start, sums, NONE, _own(work, plan, part, OWN.finite)[0, number] != 0)
    elif part == layer.first:  # from its last input to its first: the rows beyond are the same part's too
        product(kernel, h[:, ::-1], weights[::-1], start, sums, NONE)
    else:
        product(kernel, h, weights, start, sums, NONE)


@njit(**INLINED)
def _likelihood(settings, work, plan, part):
    """log p(x|z) of a part's pixels, whose logits become their gradients."""
    first, last = _layer(plan, BEGIN), len(plan) - FIRST - 1
    (low, high), out = _range(first, part), _das(work, _layer(plan, last))
    _add_halves(work, _layer(plan, last), low, high, out, low)
    log_likelihood = _shared(work, plan, SHARED.log_likelihood)[part]
    likelihoods(settings, _inputs(work, first, part), out, low, high, log_likelihood)


@njit(**INLINED)
def _objective(settings, beta, work, plan, part):
    """All terms, from both halves of the latents and of the pixels; weights of samples scale the gradients of a part's
    logits."""
    ratios, terms = _own(work, plan, part, OWN.ratios), _own(work, plan, part, OWN.terms)
    log_likelihood, kl = _own(work, plan, part, OWN.log_likelihood), _shared(work, plan, SHARED.kl)
    half_likelihoods, half_ratios = _shared(work, plan, SHARED.log_likelihood), _shared(work, plan, SHARED.ratios)
    for b in range(len(ratios)):
        terms[KL, b] = kl[0, b] + kl[1, b]
        for k in range(settings.samples):
            n = b * settings.samples + k
            log_likelihood[b, k] = half_likelihoods[0, n] + half_likelihoods[1, n]
            ratios[b, k] = half_ratios[0, n] + half_ratios[1, n]
    example_terms(settings, beta, log_likelihood, ratios, terms, 0, len(ratios))
    if settings.weighted:
        (low, high), out = _range(_layer(plan, BEGIN), part), _das(work, _layer(plan, len(plan) - FIRST - 1))
        scale(out, low, high, ratios.reshape(ratios.size))


# --- backward ---------------------------------------------------------------------------------------------------------


@njit(**INLINED)
def _backward_layer(settings, beta, flat, work, plan, number, part):
    """d loss / d what made a part's inputs: the layer before, before its activation."""
    if number == 0:
        return
    layer, below = _layer(plan, number), plan[FIRST - 1, 0]
    (low, high), target = _range(layer, part), _das(work, _layer(plan, number - 1))
    h, weights = _inputs(work, layer, part), _weights(flat, layer, part)
    if number == below:
        head, dhead = _own(work, plan, part, OWN.head), _own(work, plan, part, OWN.dhead)
        dz, shape = _own(work, plan, part, OWN.dz), (len(head), settings.samples, high - low)
        inner_products(_das(work, layer), weights, dz)
        head_gradient(
            settings, beta, head, _own(work, plan, part, OWN.std), _own(work, plan, part, OWN.eps).reshape(shape),
            h.reshape(shape), dz.reshape(shape), _own(work, plan, part, OWN.ratios), dhead,
        )  # fmt: skip
        for i in range(len(target)):
            for j in range(high - low):
                target[i, low + j], target[i, settings.latent + low + j] = dhead[i, j], dhead[i, high - low + j]
        return
    inner_products(_das(work, layer), weights, target[:, low:high])
    for i in range(layer.rows):
        activation_backward_row(target[i, low:high], h[i], layer.activation)


@njit(**INLINED)
def _sums(settings, target, work, plan, number, part, first, second, constants):
    """A part's rows of dW and, in turn, db; or Adam with them."""
    layer = _layer(plan, number)
    (low, _), h, da, kernel = _range(layer, part), _inputs(work, layer, part), _das(work, layer), settings.kernel
    zeros, weight = skips(h, number, layer.activation == RELU), layer.weight + low * layer.outputs
    spans = ((0, layer.rows),)
    if BY_ROWS and zeros and target.itemsize == 4 and constants.size and all_finite(da):
        known = update_by_rows(target, weight, h, da, first, second, constants)
    else:
        known = weight_sums(kernel, target, weight, h, da, spans, zeros, False, first, second, constants)
    _own(work, plan, part, OWN.finite)[0, number] = known
    if part != layer.first:
        bias_sums(target, layer.bias, da, spans, first, second, constants)


# --- the step ---------------------------------------------------------------------------------------------------------


@njit(**INNER)
def halves(
    settings, pixel_steps, noise_steps, flat, encoder, decoder, data, rows, given, work, plan, betas, terms,
    first, second, constants, signals, part, parts,
):  # fmt: skip
    """One of two parts of all steps, or both: rows (S, B), terms (S, 4, B), constants (S, 5), the others (S,).

    A thread that is through with its weights begins the next step: what this writes until they next wait for one
    another, the other no longer reads.
    """
    low, high = meet(signals, part, 2) if parts == 2 else (0, 2)
    for own in range(low, high):
        _own(work, plan, own, OWN.finite)[:] = 0
    for s in range(len(rows)):
        arguments = (
            (*settings, pixel_steps[s], noise_steps[s]), flat, encoder, decoder, data, rows[s], given, work, plan,
            betas[s], terms[s], first, second, constants[s], signals, low, high,
        )  # fmt: skip
        of = Settings(*arguments[0])
        call(of.forward, *arguments)
        if s + 1 < len(rows):
            _ask_for_pixels(data, rows[s + 1], plan, low, high)
        call(of.backward, *arguments)


@njit(**INLINED)
def _ask_for_pixels(data, rows, plan, low, high):
    """Parts low .. high - 1 ask for theirs of these rows of the data: they come from memory during a backward pass."""
    first = _layer(plan, BEGIN)
    item = data.shape[1] // first.inputs
    for part in range(low, high):
        begin, end = _range(first, part)
        for row in rows:
            ask(data, row, begin * item, (end - begin) * item)


@njit(**INNER)
def halves_forward(
    settings, flat, encoder, decoder, data, rows, given, work, plan, beta, terms, first, second, constants, signals,
    low, high,
):  # fmt: skip
    """From the draws to the terms and d loss / d logits."""
    settings = Settings(*settings)
    for part in range(low, high):
        _draw(settings, data, rows, given, work, plan, part)
    for number in range(len(plan) - FIRST):
        for part in range(low, high):
            _forward_layer(settings, flat, work, plan, number, part)
        together(signals, low, high, 2)
    for part in range(low, high):
        _likelihood(settings, work, plan, part)
    together(signals, low, high, 2)
    for part in range(low, high):
        _objective(settings, beta, work, plan, part)
    if settings.weighted:
        together(signals, low, high, 2)
    if low == 0 and high > 0:
        _copy_columns(_own(work, plan, 0, OWN.terms), 0, terms)


@njit(**INNER)
def halves_backward(
    settings, flat, encoder, decoder, data, rows, given, work, plan, beta, terms, first, second, constants, signals,
    low, high,
):  # fmt: skip
    """Back through all layers, each with its sums. Without Adam's constants the gradient goes to `first`."""
    settings, target = Settings(*settings), flat if constants.size else first
    for number in range(len(plan) - FIRST - 1, -1, -1):
        for part in range(low, high):
            _backward_layer(settings, beta, flat, work, plan, number, part)
        arrive(signals, low, high, 2)
        for part in range(low, high):
            _sums(settings, target, work, plan, number, part, first, second, constants)
        wait(signals, low, high, 2)
