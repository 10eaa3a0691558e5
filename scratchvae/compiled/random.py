"""Numba twin of `scratchvae.reference.random`: the same names, arguments and, bit for bit, the same results.

Two stages: `philox` turns counters into words, then a loop that vectorises turns the words of a chunk, still in the
first-level cache, into what is asked for. Rows are often shorter than a vector (20 latents are five blocks), so chunks
run across rows: block f of the whole draw is block f % blocks of example f // blocks.
"""

import numpy as np
from numba import njit, prange, types
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numpy.typing import ArrayLike, DTypeLike, NDArray

from scratchvae.compiled.gather import ask, within
from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.philox import COUNTERS, ROUNDS, philox
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.vector_math import bits_from_float32, float32_from_bits, fused_multiply_add, multiply_add
from scratchvae.reference.random import (
    ATTEMPT_SHIFT,
    COS_COEFFICIENTS,
    LOG_COEFFICIENTS,
    LOW_WORD,
    MINUS_TWO_LOG_TWO,
    PHILOX_MULTIPLIERS,
    PHILOX_WEYL_INCREMENTS,
    SIN_COEFFICIENTS,
    SQRT_HALF_BITS,
    Stream,
)

__all__ = [
    "Stream",
    "bernoulli_bytes",
    "bernoulli_probabilities",
    "box_muller",
    "normals",
    "permutation",
    "philox4x32",
    "random_words",
    "uniforms",
]

f32, f64, i32, i64 = np.float32, np.float64, np.int32, np.int64
u8, u32, u64 = np.uint8, np.uint32, np.uint64

MULTIPLIER_0, MULTIPLIER_1 = (u64(m) for m in PHILOX_MULTIPLIERS)
WEYL_0, WEYL_1 = (u64(w) for w in PHILOX_WEYL_INCREMENTS)
LOW, HIGH = u64(LOW_WORD), u64(32)

L0, L1, L2, L3, L4, L5, L6, L7, L8 = LOG_COEFFICIENTS
S0, S1, S2, S3 = SIN_COEFFICIENTS
C0, C1, C2, C3 = COS_COEFFICIENTS
OF_EXPONENT_BITS = f32(MINUS_TWO_LOG_TWO * 2.0**-23)

WORDS, UNIFORMS, NORMALS = 0, 1, 2  # what `_fill_span` writes
CHUNK = 512  # blocks at a time: 8 KiB of words and 8 KiB of results
REJECTED = u8(2)  # marks a pixel that must be drawn again
SEARCHED = 64  # pixels looked at together for such a mark


@njit(**INNER)
def _ten_rounds(a, b, c, d, k0, k1):
    """Philox4x32-10 of one counter, in words of 64 bits whose upper halves are arbitrary. For many see `philox`."""
    for _ in range(ROUNDS):
        product_0, product_1 = (a & LOW) * MULTIPLIER_0, (c & LOW) * MULTIPLIER_1
        a, b, c, d = (product_1 >> HIGH) ^ b ^ k0, product_1, (product_0 >> HIGH) ^ d ^ k1, product_0
        k0, k1 = (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW
    return a, b, c, d


def _view(context, builder, signature, args):
    """The memory of a one-dimensional array, seen in the smaller type of the signature's result."""
    source = make_array(signature.args[0])(context, builder, args[0])
    view = make_array(signature.return_type)(context, builder)
    size, old = signature.return_type.dtype.bitwidth // 8, signature.args[0].dtype.bitwidth // 8
    populate_array(
        view,
        data=builder.bitcast(source.data, view.data.type),
        shape=[builder.mul(source.nitems, context.get_constant(types.intp, old // size))],
        strides=[context.get_constant(types.intp, size)],
        itemsize=context.get_constant(types.intp, size),
        meminfo=source.meminfo,
        parent=source.parent,
    )
    return impl_ret_borrowed(context, builder, signature.return_type, view._getvalue())


@intrinsic
def _as_words(typing_context, pairs):
    """A uint64 array as its 32-bit words, lower first. (`ndarray.view` does the same and costs seconds to compile.)"""
    return types.Array(types.uint32, 1, "C")(pairs), _view


@intrinsic
def _as_bytes(typing_context, words):
    """An array of words as their bytes, lowest first."""
    return types.Array(types.uint8, 1, "C")(words), _view


@njit(forceinline=True, **INNER)
def _cubic(x, c0, c1, c2, c3):
    return fused_multiply_add(x, fused_multiply_add(x, fused_multiply_add(x, c3, c2), c1), c0)


@njit(forceinline=True, **INNER)
def _minus_two_log(u):
    bits = bits_from_float32(u)
    exponent = i32(i32(bits - i32(SQRT_HALF_BITS)) & i32(-(2**23)))  # 2^23 times as large
    x = float32_from_bits(i32(bits - exponent)) - f32(1)
    q = x * x
    even, odd = fused_multiply_add(q, _cubic(q, L2, L4, L6, L8), L0), _cubic(q, L1, L3, L5, L7)
    return fused_multiply_add(x, fused_multiply_add(x, odd, even), f32(exponent) * OF_EXPONENT_BITS)


@njit(forceinline=True, **INNER)
def _box_muller_pair(radius_word, angle_word):
    """In the reference's order, fused where the reference is and nowhere else, so the bits are the same."""
    u = multiply_add(f32(radius_word), f32(2.0**-32), f32(2.0**-33))  # the product is exact, fused or not
    radius = np.sqrt(_minus_two_log(u))
    radius = float32_from_bits(bits_from_float32(radius) ^ (i32(angle_word) & i32(-0x80000000)))
    w = f32(i32(angle_word << u32(2))) * f32(2.0**-31)
    q = w * w
    cosine, sine = _cubic(q, C0, C1, C2, C3), w * _cubic(q, S0, S1, S2, S3)
    mirrored = (angle_word & u32(1 << 30)) != u32(0)
    return radius * (sine if mirrored else cosine), radius * (cosine if mirrored else sine)


@njit(**KERNEL)
def _words_to_normals(even, odd, bits):
    """Even and odd words become the bits of normals; another array, or it would not vectorise."""
    for i in range(bits.size // 2):
        one, other = _box_muller_pair(even[i], odd[i])
        bits[2 * i], bits[2 * i + 1] = u32(bits_from_float32(one)), u32(bits_from_float32(other))


@njit(**INNER)
def _words_to_uniforms(even, odd, bits):
    for i in range(bits.size // 2):
        bits[2 * i], bits[2 * i + 1] = _uniform_bits(even[i]), _uniform_bits(odd[i])


@njit(forceinline=True, **INNER)
def _uniform_bits(word):
    return u32(bits_from_float32(f32(word >> u32(8)) * f32(2.0**-24)))


@njit(**INNER)
def _in_order(even, odd, words):
    for i in range(words.size // 2):
        words[2 * i], words[2 * i + 1] = even[i], odd[i]


@njit(**INNER)
def _address_run(block, example, counters):
    high = example << HIGH
    for i in range(counters.size):
        counters[i] = u64(block + i) | high


@njit(**INNER)
def _address(first, number, row_blocks, examples, counters):
    """Counters, see `philox`, of flat blocks first .. first + number - 1; returns `number` rounded up to what it takes.

    Long rows are counted through. For short ones the quotient flat / row_blocks is taken in float64, where it
    vectorises; it is at least 1/2 / row_blocks away from a whole number, far more than its rounding. What lies beyond
    `number` is drawn too, and dropped.
    """
    padded = (number + COUNTERS - 1) // COUNTERS * COUNTERS
    first_row, offset = u64(first // row_blocks), first % row_blocks
    if row_blocks >= COUNTERS:
        start, stop, block = i64(0), row_blocks - offset, offset
        while start < number:
            end = min(stop, number)
            whole = (end - start + COUNTERS - 1) // COUNTERS * COUNTERS  # what is too much, the next run writes over
            _address_run(block, u64(examples[first_row]), counters[start : start + whole])
            first_row = u64(first_row + u64(1))
            start, stop, block = stop, stop + row_blocks, i64(0)
        return padded
    width, inverse = i32(row_blocks), 1.0 / row_blocks
    for i in range(number):
        flat = i32(i32(offset) + i32(i))
        row = i32((f64(flat) + 0.5) * inverse)
        counters[i] = u64(flat - i32(row * width)) | u64(row) << HIGH
    for i in range(number):
        row = counters[i] >> HIGH
        counters[i] = (counters[i] & LOW) | u64(examples[first_row + row]) << HIGH
    return padded


@njit(**INNER)
def _copy(source, target):
    for e in range(target.size):
        target[e] = source[e]


@njit(**INNER)
def _copy_rows(drawn, first, number, row_blocks, count, out):
    """Blocks to their places in out, rows of `count` elements: where a row ends inside a block, the rest is dropped."""
    row, column = first // row_blocks, 4 * (first % row_blocks)
    position = 0
    while position < 4 * number:
        run = min(4 * row_blocks - column, 4 * number - position)
        kept = min(run, count - column)
        _copy(drawn[position : position + kept], out[row * count + column : row * count + column + kept])
        position += run
        row += 1
        column = 0


@njit(**KERNEL)
def _fill_span(kind, first, last, examples, count, step, stream, key0, key1, out):
    """Flat blocks first .. last - 1 of a draw into the flat rows of out, as words or as bits of float32."""
    counters, drawn = np.empty(CHUNK + COUNTERS, u64), np.empty(4 * CHUNK, u32)
    even_pairs, odd_pairs = np.empty(CHUNK, u64), np.empty(CHUNK, u64)
    even, odd, row_blocks = _as_words(even_pairs), _as_words(odd_pairs), (count + 3) // 4
    whole = 4 * row_blocks == count  # rows end where blocks end, so that results need not be moved
    skipped, start = out.ctypes.data // 16 % 4, first  # blocks of the cache line that out begins in
    while start < last:
        number = min(CHUNK - (start + skipped) % 4, last - start)  # to the end of a line: no vector lies across two
        padded = _address(start, number, row_blocks, examples, counters)
        philox(padded, counters, step, stream, key0, key1, even_pairs, odd_pairs)
        target = out[4 * start : 4 * (start + number)] if whole else drawn[: 4 * padded]
        if kind == NORMALS:
            _words_to_normals(even, odd, target)
        elif kind == UNIFORMS:
            _words_to_uniforms(even, odd, target)
        else:
            _in_order(even, odd, target)
        if not whole:
            _copy_rows(target, start, number, row_blocks, count, out)
        start += number


@njit(parallel=True, **KERNEL)
def _fill_parallel(kind, examples, count, step, stream, key0, key1, out, slices):
    total = examples.size * ((count + 3) // 4)
    for t in prange(slices):
        first, last = total * i64(t) // i64(slices), total * i64(t + 1) // i64(slices)
        _fill_span(kind, first, last, examples, count, step, stream, key0, key1, out)


def _key(seed: int, step: int, examples: NDArray) -> tuple[int, int]:
    """The key (k0, k1), once the address is known to fit its words."""
    if not (0 <= seed < 2**64 and 0 <= step <= LOW_WORD):
        raise ValueError(f"seed is {seed} and step {step}, expected 0 <= seed < 2**64 and 0 <= step < 2**32")
    if not within(examples, 2**32):
        raise ValueError("examples must be row numbers from 0 to 2**32 - 1")
    return int(seed) & LOW_WORD, int(seed) >> 32


def _draw(
    kind: int, seed: int, stream: int, step: int, examples: NDArray, count: int, attempt: int = 0
) -> NDArray[np.uint32]:
    examples = np.asarray(examples)
    key0, key1 = _key(seed, step, examples)
    stream_word = int(stream) + (attempt << ATTEMPT_SHIFT)
    out = np.empty(examples.size * count, u32)
    # one example's draws, as those of a permutation, take no time beside compiling what shares them out
    slices = slices_for(out.size, 1.0) if examples.size > 1 else 1
    if slices > 1:
        _fill_parallel(kind, examples, count, step, stream_word, key0, key1, out, slices)
    else:
        blocks = examples.size * ((count + 3) // 4)
        _fill_span(kind, 0, blocks, examples, count, step, stream_word, key0, key1, out)
    return out.reshape(examples.size, count)


def random_words(
    seed: int, stream: int, step: int, examples: NDArray, count: int, attempt: int = 0
) -> NDArray[np.uint32]:
    """See `scratchvae.reference.random.random_words`."""
    return _draw(WORDS, seed, stream, step, examples, count, attempt)


def uniforms(seed: int, stream: int, step: int, examples: NDArray, count: int) -> NDArray[np.float32]:
    """See `scratchvae.reference.random.uniforms`."""
    return _draw(UNIFORMS, seed, stream, step, examples, count).view(f32)


def normals(seed: int, stream: int, step: int, examples: NDArray, count: int) -> NDArray[np.float32]:
    """See `scratchvae.reference.random.normals`."""
    return _draw(NORMALS, seed, stream, step, examples, count).view(f32)


@njit(**KERNEL)
def _philox_arrays(c0, c1, c2, c3, key0, key1, words):
    for i in range(c0.size):
        a, b, c, d = _ten_rounds(c0[i], c1[i], c2[i], c3[i], u64(key0), u64(key1))
        words[0, i], words[1, i], words[2, i], words[3, i] = u32(a), u32(b), u32(c), u32(d)


def philox4x32(
    c0: ArrayLike, c1: ArrayLike, c2: ArrayLike, c3: ArrayLike, k0: int, k1: int
) -> tuple[NDArray[np.uint32], ...]:
    """See `reference.random.philox4x32`."""
    counters = np.broadcast_arrays(*(np.asarray(c, u64) for c in (c0, c1, c2, c3)))
    words = np.empty((4, counters[0].size), u32)
    _philox_arrays(*(np.ravel(c) for c in counters), int(k0), int(k1), words)
    return tuple(word.reshape(counters[0].shape) for word in words)


def box_muller(
    radius_words: NDArray[np.uint32], angle_words: NDArray[np.uint32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """See `reference.random.box_muller`."""
    bits = np.empty((*np.shape(radius_words), 2), u32)
    _words_to_normals(np.ravel(radius_words), np.ravel(angle_words), bits.reshape(-1))
    return bits[..., 0].view(f32), bits[..., 1].view(f32)


# --- binary pixels ----------------------------------------------------------------------------------------------------


@njit(**INNER)
def _compare(draws, pixels, drawn):
    """drawn = draws < pixels, and REJECTED where a byte of 255 has met a grey pixel; returns whether one has.

    Black and white pixels, most of an image, are what they are whatever the byte is.
    """
    seen = u8(0)
    for j in range(pixels.size):
        grey = u8(pixels[j] - u8(1)) < u8(254)
        bit = u8((draws[j] < pixels[j]) | (pixels[j] == u8(255)))
        bit = REJECTED if (draws[j] == u8(255)) & grey else bit
        drawn[j] = bit
        seen = u8(seen | bit)  # without the cast it would be 64 bits wide, and so would the loop
    return seen >= REJECTED


@njit(**INNER)
def _any_rejected(drawn):
    seen = u8(0)
    for j in range(drawn.size):
        seen = u8(seen | drawn[j])
    return seen >= REJECTED


@njit(**INNER)
def _redraw(first_pixel, pixels, step, stream, example, key0, key1, drawn):
    """Draw rejected pixels again, from the next attempt's block, until the byte is below 255."""
    for start in range(0, pixels.size, SEARCHED):
        stop = min(start + SEARCHED, pixels.size)
        if _any_rejected(drawn[start:stop]):
            for j in range(start, stop):
                place, attempt = first_pixel + j, 0
                while drawn[j] == REJECTED:
                    attempt += 1
                    stream_word = u64(stream + (attempt << ATTEMPT_SHIFT))
                    block, word, shift = u64(place // 16), place % 16 // 4, u64(8 * (place % 4))
                    words = _ten_rounds(block, u64(example), u64(step), stream_word, u64(key0), u64(key1))
                    byte = u8(words[word] >> shift)
                    drawn[j] = REJECTED if byte == u8(255) else u8(byte < pixels[j])


@njit(**INNER)
def _convert(source, target):
    for j in range(target.size):
        target[j] = target.dtype.type(source[j])


@njit(**KERNEL)
def _binarize_span(first, last, pixels, left, rows, examples, step, stream, key0, key1, out):
    """Flat blocks of sixteen pixels, first .. last - 1, of as many columns as out has, from `left`, whole blocks in."""
    width = out.shape[1]
    row_blocks = (width + 15) // 16
    counters, words, drawn = np.empty(CHUNK + COUNTERS, u64), np.empty(4 * CHUNK, u32), np.empty(width, u8)
    even_pairs, odd_pairs = np.empty(CHUNK, u64), np.empty(CHUNK, u64)
    even, odd, draws = _as_words(even_pairs), _as_words(odd_pairs), _as_bytes(words)
    for start in range(first, last, CHUNK):
        number = min(CHUNK, last - start)
        for row in range(start // row_blocks, (start + number - 1) // row_blocks + 1):
            ask(pixels, rows[row], left, width)
        padded = _address(start, number, row_blocks, examples, counters)
        for i in range(padded):
            counters[i] += u64(left // 16)
        philox(padded, counters, step, stream, key0, key1, even_pairs, odd_pairs)
        _in_order(even, odd, words[: 4 * padded])
        row, column, position = start // row_blocks, 16 * (start % row_blocks), 0
        while position < 16 * number:
            run = min(16 * row_blocks - column, 16 * number - position)
            kept = min(run, width - column)
            p = pixels[rows[row], left + column : left + column + kept]
            if _compare(draws[position : position + kept], p, drawn):
                _redraw(left + column, p, step, stream, examples[row], key0, key1, drawn)
            _convert(drawn, out[row, column : column + kept])
            row, column, position = row + 1, 0, position + run


@njit(parallel=True, **KERNEL)
def _binarize_parallel(pixels, rows, examples, step, stream, key0, key1, out, slices):
    total = rows.size * ((pixels.shape[1] + 15) // 16)
    for t in prange(slices):
        first, last = total * i64(t) // i64(slices), total * i64(t + 1) // i64(slices)
        _binarize_span(first, last, pixels, i64(0), rows, examples, step, stream, key0, key1, out)


def bernoulli_bytes(
    pixels: NDArray[np.uint8],
    rows: NDArray,
    seed: int,
    stream: int,
    step: int,
    examples: NDArray,
    dtype: DTypeLike = np.uint8,
) -> NDArray:
    """See `reference.random.bernoulli_bytes`."""
    pixels, rows, examples = np.ascontiguousarray(pixels), np.asarray(rows), np.asarray(examples)
    if rows.size != examples.size:
        raise ValueError(f"there are {rows.size} rows of pixels and {examples.size} examples; expected as many")
    key0, key1 = _key(seed, step, examples)
    if not within(rows, len(pixels)):
        raise IndexError(f"rows must be rows of the pixels, 0 to {len(pixels) - 1}")
    out = np.empty((rows.size, pixels.shape[1]), dtype)
    slices = slices_for(out.size, 0.25)
    if slices > 1:
        _binarize_parallel(pixels, rows, examples, step, int(stream), key0, key1, out, slices)
    else:
        blocks = rows.size * ((pixels.shape[1] + 15) // 16)
        _binarize_span(0, blocks, pixels, 0, rows, examples, step, int(stream), key0, key1, out)
    return out


@njit(**KERNEL)
def _below(uniforms, probabilities, out):
    for i in range(out.size):
        out[i] = uniforms[i] < probabilities[i]


def bernoulli_probabilities(
    probabilities: NDArray,
    seed: int,
    stream: int,
    step: int,
    examples: NDArray,
    dtype: DTypeLike = np.uint8,
) -> NDArray:
    """See `reference.random.bernoulli_probabilities`."""
    draws = uniforms(seed, stream, step, examples, probabilities.shape[1])
    out = np.empty(draws.shape, dtype)
    probabilities = np.ascontiguousarray(np.broadcast_to(probabilities, draws.shape))
    _below(draws.reshape(-1), probabilities.reshape(-1), out.reshape(-1))
    return out


def permutation(seed: int, stream: int, step: int, n: int) -> NDArray[np.int64]:
    """See `reference.random.permutation`."""
    words = random_words(seed, stream, step, np.zeros(1, i64), 2 * n)[0].astype(u64)
    return np.argsort(words[0::2] | (words[1::2] << HIGH), kind="stable").astype(i64)
