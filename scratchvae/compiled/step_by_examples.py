"""A training step whose examples are shared out between threads.

A step has two passes. In the first a thread takes its examples all the way: none depends on another, and what it writes
it finds in its own cache. In the second it owns rows of every weight. After each pass all wait for one another, and how
much of either each thread has follows its pace (`shares`).

Of an importance-weighted bound's samples many weigh nothing (`reference.importance.negligible`). The rows of the others
move together behind the decoder's forward pass; they alone go back and are summed, which are two thirds of the work.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scratchvae.compiled.barrier import line_of, meet, together
from scratchvae.compiled.gemm import matrix
from scratchvae.compiled.kernel_cache import INLINED, INNER
from scratchvae.compiled.network import call
from scratchvae.compiled.posterior import _forward as posterior_forward_rows
from scratchvae.compiled.random import _copy
from scratchvae.compiled.shares import equal_shares, follow, say, share_of, ticks
from scratchvae.compiled.step_parts import (
    KL,
    Settings,
    at,
    example_terms,
    head_gradient,
    laid_out,
    likelihoods,
    log_ratios,
    noise,
    scale_row,
)

# not plain integers, for each of which Numba would compile the functions that take them once more
EXAMPLES, WEIGHTS = np.intp(0), np.intp(1)  # what a pass shares out
PIECES = np.intp(512)  # of every weight, which are shared out in the second pass
KEPT = 3  # where in its cache line of the signals, behind its paces, a part says which rows have gone back
ROWS = 256  # of the decoder that go forward and back together: what they write stays in the second-level cache


class Space(NamedTuple):
    """The arrays that a step writes, by their numbers; B examples, K samples, D pixels, Z latents."""

    x: int  # (B, D)
    head: int  # (B, 2 Z): mu, logvar
    dhead: int
    std: int  # (B, Z)
    eps: int  # (B K, Z)
    z: int
    dz: int
    out: int  # (B K, D): logits, then d loss / d logits
    log_likelihood: int  # (B, K)
    ratios: int  # (B, K): log p(z) - log q(z|x), then d loss / d log-weights
    kept_z: int  # (B K, Z): of the samples that go back; where that is all, z itself
    encoder_hidden: int  # (1, ...): as in `NetworkDeltas`
    encoder_das: int
    decoder_hidden: int
    decoder_das: int
    encoder_finite: int  # (parts, layers): of which weights it is known that they are
    decoder_finite: int


SPACE = Space(*range(len(Space._fields)))


@cache
def places_of(
    examples: int, samples: int, pixels: int, latent: int, below: int, above: int, layers: int, parts: int,
    weighted: bool,
) -> NDArray[np.int64]:  # fmt: skip
    """Offset, rows and columns of each array of `Space` in the one that holds them all; below, above: hidden units of
    the encoder and the decoder, which have as many layers. The last row is the end."""
    all_samples = examples * samples
    shapes = (
        *((examples, pixels), (examples, 2 * latent), (examples, 2 * latent), (examples, latent)),
        *((all_samples, latent), (all_samples, latent), (all_samples, latent), (all_samples, pixels)),
        *((examples, samples), (examples, samples), (all_samples if weighted else 0, latent)),
        *((1, examples * below), (1, examples * below)),
        *((1, all_samples * above), (1, all_samples * above)),
        *((parts, layers), (parts, layers)),
    )
    places = np.array(laid_out(shapes))
    if not weighted:
        places[SPACE.kept_z] = places[SPACE.z]
    return places


@njit(**INNER)
def several(
    settings, pixel_steps, noise_steps, flat, encoder, decoder, data, rows, given, work, places, betas, terms,
    first, second, constants, signals, part, parts,
):  # fmt: skip
    """A part of all steps: rows (S, B), terms (S, 4, B), constants (S, 5), the others (S,). Without Adam's constants
    the gradient goes to `first`."""
    low, high = meet(signals, part, parts) if parts > 1 else (0, 1)
    space, target = (work, places), flat if constants.size else first
    for finite in (at(space, SPACE.encoder_finite), at(space, SPACE.decoder_finite)):
        for own in range(low, high):
            finite[own] = 0
    examples, spans, shares = rows.shape[1], np.empty((parts + 1, 2), np.int64), equal_shares(2, parts)
    all_rows, spans = spans[parts:], spans[:parts]
    all_rows[0, 0], all_rows[0, 1] = 0, examples
    follow(shares[EXAMPLES], examples, signals, EXAMPLES)
    follow(shares[WEIGHTS], PIECES, signals, WEIGHTS)
    together(signals, low, high, parts)
    for s in range(len(rows)):
        of = Settings(*(*settings, pixel_steps[s], noise_steps[s]))
        for own in range(low, high):
            started, (begin, end), kept = ticks(), share_of(shares[EXAMPLES], examples, own), _kept(signals, own)
            _examples(of, space, flat, encoder, decoder, data, rows[s], given, betas[s], terms[s], begin, end, kept)
            say(signals, own, EXAMPLES, ticks() - started)
        together(signals, low, high, parts)
        kept_rows = _kept_rows(of, examples, shares[EXAMPLES], signals, spans)
        for own in range(low, high):
            started, share = ticks(), share_of(shares[WEIGHTS], PIECES, own)
            _sums(of, space, target, encoder, decoder, first, second, constants[s], kept_rows, all_rows, own, share)
            say(signals, own, WEIGHTS, ticks() - started)
        follow(shares[EXAMPLES], examples, signals, EXAMPLES)  # before the others say how long the next took
        together(signals, low, high, parts)
        follow(shares[WEIGHTS], PIECES, signals, WEIGHTS)


# --- the first pass: examples, all the way ----------------------------------------------------------------------------


@njit(**INLINED)
def _examples(settings, space, flat, encoder, decoder, data, rows, given, beta, terms, low, high, kept):
    """Examples low .. high - 1, forward and back. The objective is a bound of the log-weights, or, where there is none,
    the ELBO with its KL in closed form; beta weighs the KL. In kept[0] is then the last + 1 of the decoder's rows that
    have gone back."""
    x, head, dhead, std = at(space, SPACE.x), at(space, SPACE.head), at(space, SPACE.dhead), at(space, SPACE.std)
    all_z, kept_z, all_dz, out = at(space, SPACE.z), at(space, SPACE.kept_z), at(space, SPACE.dz), at(space, SPACE.out)
    encoder_hidden, decoder_hidden = at(space, SPACE.encoder_hidden)[0], at(space, SPACE.decoder_hidden)[0]
    ratios, log_likelihood = at(space, SPACE.ratios), at(space, SPACE.log_likelihood)
    weights, log_weights = ratios.reshape(ratios.size), log_likelihood.reshape(ratios.size)
    kernel, none, no_rows, samples = settings.kernel, flat[:0], out[:0], settings.samples
    no_spans, kept[0] = encoder[:0], low * samples
    own = slice(low * samples, high * samples)
    own_eps = at(space, SPACE.eps)[own]
    call(settings.pixels, settings, data, 0, rows[low:high], x[low:high])
    noise(settings, rows[low:high], given, own_eps)
    call(
        settings.forward, kernel, flat, encoder, x, encoder_hidden, none, head, at(space, SPACE.encoder_finite),
        none, none, none, no_spans, low, high, 1,
    )  # fmt: skip
    shape = high - low, samples, settings.latent
    eps, z, dz = own_eps.reshape(shape), all_z[own].reshape(shape), all_dz[own].reshape(shape)
    posterior_forward_rows(head[low:high], eps, std[low:high], z, terms[KL, low:high])
    block = max(1, ROWS // samples)
    for start in range(low, high, block):
        stop = min(start + block, high)
        own_first, own_last = start * samples, stop * samples
        call(
            settings.forward, kernel, flat, decoder, all_z, decoder_hidden, none, out, at(space, SPACE.decoder_finite),
            none, none, none, no_spans, own_first, own_last, 1,
        )  # fmt: skip
        _objective(settings, space, start, stop, beta, terms)
        free = kept[0]
        if settings.keep:
            call(
                settings.keep, weights, log_weights, decoder, all_z, decoder_hidden, out, kept_z, own_first, own_last,
                kept,
            )  # fmt: skip
        else:
            kept[0] = own_last
        call(
            settings.backward, kernel, flat, decoder, kept_z, decoder_hidden, at(space, SPACE.decoder_das)[0], out,
            all_dz, none, none, none, no_spans, free, kept[0], 1,
        )  # fmt: skip
    if settings.keep:
        call(settings.spread, weights, log_weights, all_dz, own.start, own.stop, kept)
    head_gradient(settings, beta, head[low:high], std[low:high], eps, z, dz, ratios[low:high], dhead[low:high])
    call(
        settings.backward, kernel, flat, encoder, x, encoder_hidden, at(space, SPACE.encoder_das)[0], dhead, no_rows,
        none, none, none, no_spans, low, high, 1,
    )  # fmt: skip


@njit(**INLINED)
def _objective(settings, space, low, high, beta, terms):
    """Terms of examples low .. high - 1, and d loss / d logits of their samples."""
    x, log_likelihood, ratios = at(space, SPACE.x), at(space, SPACE.log_likelihood), at(space, SPACE.ratios)
    own = slice(low * settings.samples, high * settings.samples)
    own_likelihoods = log_likelihood.reshape(log_likelihood.size)[own]
    likelihoods(settings, x[low:high], at(space, SPACE.out)[own], 0, x.shape[1], own_likelihoods)
    if settings.bound:
        eps, z = at(space, SPACE.eps)[own], at(space, SPACE.z)[own]
        log_ratios(at(space, SPACE.head)[low:high], eps, z, ratios[low:high])
    example_terms(settings, beta, log_likelihood, ratios, terms, low, high)


@njit(**INNER)
def keep(weights, log_weights, decoder, z, hidden, out, kept_z, first, last, kept):
    """Of rows first .. last - 1 those that weigh something move to row kept[0] and on, d log p / d logits by their
    weights. In kept[0] is then the row behind them."""
    free = kept[0]
    for n in range(first, last):
        if _weighs(weights[n], log_weights[n]):
            scale_row(out[n], weights[n], out[free])
            _copy(z[n], kept_z[free])
            if free < n:
                _move_hidden(decoder, hidden, len(out), n, free)
            free += 1
    kept[0] = free


@njit(**INNER)
def _move_hidden(decoder, hidden, rows, source, target):
    """A row of what all layers but the last have put out."""
    place = 0
    for layer in range(len(decoder) - 1):
        of_layer = matrix(hidden, place, rows, decoder[layer, 1])
        _copy(of_layer[source], of_layer[target])
        place += of_layer.size


@njit(**INNER)
def spread(weights, log_weights, dz, first, last, kept):
    """The rows of dz, which end before row kept[0], move back to their samples among rows first .. last - 1. A sample
    that weighs nothing has none."""
    source = kept[0]
    for n in range(last - 1, first - 1, -1):
        if _weighs(weights[n], log_weights[n]):
            source -= 1
            _copy(dz[source], dz[n])
        else:
            dz[n, :] = 0


@njit(**INLINED)
def _weighs(weight, log_weight):
    """Whether a sample has a gradient. Where a density is infinite or NaN, a weight of zero may not make it zero."""
    return weight != 0 or log_weight - log_weight != 0


# --- the second pass: rows of every weight ----------------------------------------------------------------------------


@njit(**INLINED)
def _sums(settings, space, flat, encoder, decoder, first, second, constants, kept_rows, all_rows, part, share):
    """A part's share of both networks' gradients and, where there are constants, of Adam: pieces begin .. end - 1."""
    own, (begin, end) = slice(part, part + 1), share
    call(
        settings.gradient, settings.kernel, flat, decoder, at(space, SPACE.kept_z), at(space, SPACE.decoder_hidden)[0],
        at(space, SPACE.decoder_das)[0], at(space, SPACE.out), at(space, SPACE.decoder_finite)[own],
        first, second, constants, kept_rows, begin, end, PIECES,
    )  # fmt: skip
    call(
        settings.gradient, settings.kernel, flat, encoder, at(space, SPACE.x), at(space, SPACE.encoder_hidden)[0],
        at(space, SPACE.encoder_das)[0], at(space, SPACE.dhead), at(space, SPACE.encoder_finite)[own],
        first, second, constants, all_rows, begin, end, PIECES,
    )  # fmt: skip


@njit(**INLINED)
def _kept(signals, part):
    """(1,): where a part says the last + 1 of its rows that have gone back."""
    place = line_of(part) + KEPT
    return signals[place : place + 1]


@njit(**INLINED)
def _kept_rows(settings, examples, shares, signals, spans):
    """The decoder's rows that have gone back, those of all parts; a span goes on where the next part follows it."""
    parts, count = len(spans), 0
    for part in range(parts):
        first = share_of(shares, examples, part)[0] * settings.samples
        if part == 0 or first > spans[count - 1, 1]:
            spans[count, 0] = first
            count += 1
        spans[count - 1, 1] = _kept(signals, part)[0]
    return spans[:count]
