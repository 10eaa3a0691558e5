"""Every random number of the project: a pure function of (seed, stream, step, example, element).

There is no generator whose state moves on. A draw is addressed, and Philox4x32-10, a block cipher with a 128-bit
counter and a 64-bit key, turns the address into four random words:

    counter = (element // 4, example, step, stream)        key = (seed mod 2^32, seed div 2^32)

So a draw is the same whichever batch its example is in, however many threads or processes work, whether or not
something else was drawn in between, and after stopping and resuming.

Shapes: B examples, `count` or D elements of each. `examples` (B,) are row numbers of the data set, 0 .. 2^32 - 1.

Sources: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox, Random123);
Box, Muller 1958, "A note on the generation of random normal deviates".
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from scratchvae.reference.fused_multiply_add import fused_multiply_add

PHILOX_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
PHILOX_WEYL_INCREMENTS = 0x9E3779B9, 0xBB67AE85  # the golden ratio and sqrt(3) - 1, as fractions of 2^32
LOW_WORD = 0xFFFFFFFF
ATTEMPT_SHIFT = 16  # a stream word is stream + attempt * 2^16

# -2 log(1 + x) = x Q(x) on [sqrt(1/2) - 1, sqrt(2) - 1]: coefficients of Q, constant first, relative error 3e-8
LOG_COEFFICIENTS = tuple(
    np.float32(c)
    for c in (
        -2.0,
        1.0,
        -0.6666782153975338,
        0.5000267403212296,
        -0.39926124580701117,
        0.3315517201500224,
        -0.2982957404408666,
        0.28534952646358164,
        -0.1740071989403901,
    )
)
# sin(pi w / 4) = w S(w^2) and cos(pi w / 4) = C(w^2) for w in [-1, 1], relative error 3e-9 and 4e-8
SIN_COEFFICIENTS = tuple(
    np.float32(c) for c in (0.7853981608541684, -0.08074543252911462, 0.002490001023925847, -3.5950452184892706e-05)
)
COS_COEFFICIENTS = tuple(
    np.float32(c) for c in (1.0, -0.30842442657620106, 0.015850200659982563, -0.00031902002381132725)
)
MINUS_TWO_LOG_TWO = np.float32(-1.3862943611198906)
SQRT_HALF_BITS = 0x3F3504F3  # sqrt(1/2) as a float32


class Stream(IntEnum):
    """What a draw is for. Uses that share a stream have steps or examples of their own, or are meant to see the same
    draws; the numbers are part of the format and never change."""

    SHUFFLE = 1  # order of the examples in an epoch
    BINARIZE = 2  # training pixels, drawn afresh at each use
    POSTERIOR = 3  # noise of z ~ q(z|x) in training
    VALIDATION = 4  # noise of z ~ q(z|x) on held-out data
    EVIDENCE = 5  # noise of the estimators of log p(x)
    WEIGHTS = 6  # initial weights
    LATENT = 7  # z ~ p(z), for samples of the model
    PIXELS = 8  # x ~ p(x|z), for samples of the model
    SPLIT = 9  # which examples are held out
    FIXED_BINARIZE = 10  # pixels drawn once and kept
    VALIDATION_BINARIZE = 11  # held-out pixels
    EVIDENCE_BINARIZE = 12  # pixels whose log p(x) is estimated
    MOMENTUM = 13  # Hamiltonian Monte Carlo: momenta
    ACCEPTANCE = 14  # Hamiltonian Monte Carlo: accept or reject
    AGGREGATE = 15  # z ~ q(z|x), for the aggregate posterior
    COORDINATES = 16  # which elements of a tensor a gradient check looks at


def philox4x32(
    c0: ArrayLike, c1: ArrayLike, c2: ArrayLike, c3: ArrayLike, k0: int, k1: int
) -> tuple[NDArray[np.uint32], ...]:
    """Four random words from a counter of four words and a key of two, by ten rounds of Philox4x32.

    A round   (c0, c1, c2, c3) <- (high(c2 M1) ^ c1 ^ k0,  low(c2 M1),  high(c0 M0) ^ c3 ^ k1,  low(c0 M0))
              high and low are the halves of the 64-bit product; then k0 and k1 advance by the Weyl increments
    Takes     c0 .. c3: integer arrays or numbers that broadcast; k0, k1: integers; all in 0 .. 2^32 - 1
    Returns   four uint32 arrays of the broadcast shape
    Source    Salmon et al. 2011, section 3.3; the constants and known answers are Random123's
    """
    high_word = np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(word, np.uint64) for word in (c0, c1, c2, c3))
    k0, k1 = int(k0), int(k1)
    for _ in range(10):
        product_0 = c0 * np.uint64(PHILOX_MULTIPLIERS[0])  # 32 bits times 32 bits fits in 64
        product_1 = c2 * np.uint64(PHILOX_MULTIPLIERS[1])
        c0 = (product_1 >> high_word) ^ c1 ^ np.uint64(k0)
        c1 = product_1 & np.uint64(LOW_WORD)
        c2 = (product_0 >> high_word) ^ c3 ^ np.uint64(k1)
        c3 = product_0 & np.uint64(LOW_WORD)
        k0 = (k0 + PHILOX_WEYL_INCREMENTS[0]) & LOW_WORD
        k1 = (k1 + PHILOX_WEYL_INCREMENTS[1]) & LOW_WORD
    return tuple(word.astype(np.uint32) for word in np.broadcast_arrays(c0, c1, c2, c3))


def random_words(
    seed: int, stream: int, step: int, examples: NDArray, count: int, attempt: int = 0
) -> NDArray[np.uint32]:
    """Uniform 32-bit words: element e of an example is word e % 4 of counter (e // 4, example, step, stream).

    Takes     seed 0 .. 2^64 - 1; stream: Stream; step 0 .. 2^32 - 1; examples (B,) integers; count >= 0;
              attempt: 0, or the number of the redraw where a draw can be rejected
    Returns   uint32 (B, count)
    Raises    ValueError: seed, step or an example outside its range
    """
    key, stream_word = check_address(seed, stream, step, examples, attempt)
    examples = np.asarray(examples)
    blocks = np.arange(-(-count // 4))
    words = philox4x32(blocks[None, :], examples[:, None], step, stream_word, *key)
    return np.stack(words, axis=-1).reshape(examples.size, 4 * blocks.size)[:, :count]


def check_address(
    seed: int, stream: int, step: int, examples: NDArray, attempt: int = 0
) -> tuple[tuple[int, int], int]:
    """The key (k0, k1) and the stream word of an address; ValueError where a part of it is out of range."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}, expected 0 <= seed < 2**64")
    if not 0 <= step <= LOW_WORD:
        raise ValueError(f"step is {step}, expected 0 <= step < 2**32")
    examples = np.asarray(examples)
    if examples.size and not (0 <= examples.min() and examples.max() <= LOW_WORD):
        raise ValueError("examples must be row numbers from 0 to 2**32 - 1")
    return (int(seed) & LOW_WORD, int(seed) >> 32), int(stream) + (attempt << ATTEMPT_SHIFT)


def uniforms(seed: int, stream: int, step: int, examples: NDArray, count: int) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1): the upper 24 bits of a word, times 2^-24. Every value is exact.

    Takes     see `random_words`
    Returns   float32 (B, count)
    Raises    ValueError as `random_words`
    """
    words = random_words(seed, stream, step, examples, count)
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normals(seed: int, stream: int, step: int, examples: NDArray, count: int) -> NDArray[np.float32]:
    """Standard normal numbers: words (0, 1) of a block give elements 0 and 1, words (2, 3) elements 2 and 3.

    Takes     see `random_words`
    Returns   float32 (B, count)
    Raises    ValueError as `random_words`
    Source    Box, Muller 1958: see `box_muller`
    """
    words = random_words(seed, stream, step, examples, 4 * -(-count // 4))
    even, odd = box_muller(words[:, 0::2], words[:, 1::2])
    return np.stack([even, odd], axis=-1).reshape(words.shape)[:, :count]


def box_muller(
    radius_words: NDArray[np.uint32], angle_words: NDArray[np.uint32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two independent normals from two random words.

    Formula   u = (radius word + 1/2) / 2^32 in (0, 1]        radius = sqrt(-2 log u), at most 6.8
              angle uniform in [-pi, pi)                      normals: radius cos(angle), radius sin(angle)
    The two top bits of the angle word say where on the circle, the other 30 an angle within pi/4 of the x axis:
    bit 31 turns by pi (a negative radius), bit 30 mirrors at the diagonal (sine and cosine trade places).

    Only float32 products, sums, fused multiply-adds and one root, each rounded once and in the order written: a
    compiled twin that keeps the order has the same bits.

    Errors    each normal is right to 4e-7, relative to the normals of the u that float32 holds. That u is off by up to
              2^-25, which near u = 1 moves a small radius: by 2.5e-4 at most, for u = 1 stands for radii up to there

    Takes     two uint32 arrays of one shape
    Returns   two float32 arrays of that shape
    Source    Box, Muller 1958
    """
    radius = np.sqrt(minus_two_log(radius_words.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)))
    radius = np.where(angle_words >> np.uint32(31), -radius, radius)
    w = (angle_words << np.uint32(2)).view(np.int32).astype(np.float32) * np.float32(2.0**-31)  # angle = pi/4 w
    cosine = polynomial(COS_COEFFICIENTS, w * w)
    sine = w * polynomial(SIN_COEFFICIENTS, w * w)
    mirrored = (angle_words & np.uint32(1 << 30)) != 0
    return radius * np.where(mirrored, sine, cosine), radius * np.where(mirrored, cosine, sine)


def minus_two_log(u: NDArray[np.float32]) -> NDArray[np.float32]:
    """-2 log u for float32 u in (0, 1], never negative: u = 2^e (1 + x) with 1 + x in [sqrt(1/2), sqrt(2))."""
    bits = u.view(np.int32)
    exponent = (bits - np.int32(SQRT_HALF_BITS)) >> np.int32(23)
    x = (bits - (exponent << np.int32(23))).view(np.float32) - np.float32(1)
    even, odd = polynomial(LOG_COEFFICIENTS[0::2], x * x), polynomial(LOG_COEFFICIENTS[1::2], x * x)
    return fused_multiply_add(x, fused_multiply_add(x, odd, even), exponent.astype(np.float32) * MINUS_TWO_LOG_TWO)


def polynomial(coefficients: Sequence[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """c0 + x (c1 + x (c2 + ...)), by Horner's rule."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = fused_multiply_add(total, x, coefficient)
    return total


def bernoulli_bytes(
    pixels: NDArray[np.uint8],
    rows: NDArray,
    seed: int,
    stream: int,
    step: int,
    examples: NDArray,
    dtype: DTypeLike = np.uint8,
) -> NDArray:
    """Draw every pixel of some rows of a data set from Bernoulli(p / 255), exactly.

    A pixel compares p with a random byte b uniform on 0 .. 254: P(b < p) = p / 255. A byte of 255 is drawn again,
    with the next attempt number in the address, until every byte is below 255. Byte j % 16 of block j // 16 belongs
    to pixel j, the least significant byte of a word first.

    Takes     pixels uint8 (N, D); rows (B,): which of them; seed, stream, step, examples (B,): see `random_words`
    Returns   (B, D) of dtype, 0 or 1
    Raises    ValueError as `random_words`
    """
    probabilities = np.asarray(pixels)[rows]
    width = probabilities.shape[1]
    draws = random_bytes(seed, stream, step, examples, width, 0)
    attempt = 0
    while (rejected := draws == 255).any():
        attempt += 1
        draws = np.where(rejected, random_bytes(seed, stream, step, examples, width, attempt), draws)
    return (draws < probabilities).astype(dtype)


def random_bytes(seed: int, stream: int, step: int, examples: NDArray, count: int, attempt: int) -> NDArray[np.uint8]:
    """Uniform bytes (B, count), sixteen from a block."""
    words = random_words(seed, stream, step, examples, 4 * -(-count // 16), attempt)
    return np.ascontiguousarray(words, "<u4").view(np.uint8)[:, :count]


def bernoulli_probabilities(
    probabilities: NDArray,
    seed: int,
    stream: int,
    step: int,
    examples: NDArray,
    dtype: DTypeLike = np.uint8,
) -> NDArray:
    """Draw from Bernoulli(p): 1 where a uniform number of 24 bits is below p. p = 0 never is 1, p = 1 always.

    Takes     probabilities (B, D) float; seed, stream, step, examples (B,): see `random_words`
    Returns   (B, D) of dtype, 0 or 1 (0 for NaN)
    Raises    ValueError as `random_words`
    """
    return (uniforms(seed, stream, step, examples, probabilities.shape[1]) < probabilities).astype(dtype)


def permutation(seed: int, stream: int, step: int, n: int) -> NDArray[np.int64]:
    """A random order of 0 .. n - 1: the stable order of n random 64-bit keys, those of example 0.

    Takes     seed, stream, step: see `random_words`; n >= 0
    Returns   int64 (n,)
    Raises    ValueError as `random_words`
    """
    words = random_words(seed, stream, step, np.zeros(1, np.int64), 2 * n)[0].astype(np.uint64)
    keys = words[0::2] | (words[1::2] << np.uint64(32))
    return np.argsort(keys, kind="stable").astype(np.int64)
