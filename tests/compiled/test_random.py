"""The compiled random numbers are the reference's bits, at every size that takes another path, on any thread count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchvae import compiled, reference
from scratchvae.compiled import random as compiled_random
from scratchvae.engine import get_threads, set_threads
from scratchvae.reference import random as reference_random
from scratchvae.reference.random import Stream

DRAWS = ("random_words", "uniforms", "normals")


def assert_same_bits(got, want):
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), np.ascontiguousarray(want).view(f"u{want.itemsize}"))


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
    examples=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
    count=st.integers(1, 90),
)
@settings(max_examples=60)
def test_draws_of_any_shape_have_the_references_bits(seed, step, examples, count):
    for name in DRAWS:
        arguments = seed, Stream.EVIDENCE, step, np.array(examples), count
        assert_same_bits(getattr(compiled, name)(*arguments), getattr(reference, name)(*arguments))


@pytest.mark.parametrize(
    "shape",
    [(1, 2047), (1, 2048), (1, 2049), (1, 100_003), (3, 2050), (700, 3), (513, 4), (129, 20), (5000, 1), (300, 300)],
)
@pytest.mark.parametrize("name", DRAWS)
def test_draws_across_chunks_and_threads_have_the_references_bits(name, shape):
    arguments = 1, Stream.POSTERIOR, 2, np.arange(shape[0]) * 3 + 1, shape[1]
    assert_same_bits(getattr(compiled, name)(*arguments), getattr(reference, name)(*arguments))


def test_box_muller_has_the_references_bits_at_the_ends_of_its_words():
    edges = np.array([0, 1, 127, 128, 1 << 30, (1 << 30) - 1, 3 << 30, 1 << 31, (1 << 31) - 1, 0xFFFFFFFF], np.uint32)
    words = np.random.default_rng(0).integers(0, 2**32, (2, 100_000), dtype=np.uint32)
    for radius_words, angle_words in (words, np.meshgrid(edges, edges)):
        got = compiled_random.box_muller(radius_words, angle_words)
        want = reference_random.box_muller(radius_words, angle_words)
        for mine, theirs in zip(got, want, strict=True):
            assert_same_bits(np.ascontiguousarray(mine), theirs)


@given(
    seed=st.integers(0, 2**64 - 1), batch=st.integers(1, 40), width=st.integers(1, 130), step=st.integers(0, 2**32 - 1)
)
@settings(max_examples=60)
def test_pixels_have_the_references_bits(seed, batch, width, step):
    rng = np.random.default_rng(seed)
    pixels = rng.choice(np.array([0, 1, 128, 254, 255], np.uint8), (7, width))
    arguments = pixels, rng.integers(0, 7, batch), seed, Stream.BINARIZE, step, rng.integers(0, 2**32, batch)
    assert_same_bits(compiled.bernoulli_bytes(*arguments), reference.bernoulli_bytes(*arguments))
    as_floats = compiled.bernoulli_bytes(*arguments, dtype=np.float32)
    assert_same_bits(as_floats, reference.bernoulli_bytes(*arguments, dtype=np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "width"), [(400, 784), (2, 9000), (1, 1)])
def test_many_pixels_have_the_references_bits(batch, width):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (50, width), dtype=np.uint8)
    arguments = pixels, rng.integers(0, 50, batch), 3, Stream.BINARIZE, 9, np.arange(batch)
    assert_same_bits(compiled.bernoulli_bytes(*arguments), reference.bernoulli_bytes(*arguments))


def test_a_byte_rejected_twice_is_drawn_a_third_time():
    """One pixel in 65,536 needs it: 400 rows of 784 grey pixels hold a few."""
    pixels, rows = np.full((1, 784), 100, np.uint8), np.zeros(400, np.int64)
    first, second = (
        np.ascontiguousarray(reference.random_words(3, Stream.BINARIZE, 0, np.arange(400), 196, attempt)).view(np.uint8)
        for attempt in (0, 1)
    )
    assert ((first == 255) & (second == 255)).sum() > 0
    arguments = pixels, rows, 3, Stream.BINARIZE, 0, np.arange(400)
    assert_same_bits(compiled.bernoulli_bytes(*arguments), reference.bernoulli_bytes(*arguments))


def test_some_of_the_columns_have_the_bits_that_they_have_among_all():
    """A step by weights draws a part of a row; of 400 times 48 bytes in it some are rejected."""
    pixels = np.random.default_rng(0).integers(1, 255, (400, 96), dtype=np.uint8)
    rows, part = np.arange(400), np.empty((400, 48), np.uint8)
    whole = reference.bernoulli_bytes(pixels, rows, 3, Stream.BINARIZE, 0, rows)
    compiled_random._binarize_span(0, 3 * 400, pixels, 32, rows, rows, 0, int(Stream.BINARIZE), 3, 0, part)
    assert_same_bits(part, whole[:, 32:80])


def test_the_number_of_threads_changes_no_bit():
    if get_threads() < 2:
        pytest.skip("one processor")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 784), dtype=np.uint8)
    results = []
    for threads in (1, 2):
        set_threads(threads)
        draws = compiled.normals(1, Stream.POSTERIOR, 0, np.arange(1001), 77)
        bits = compiled.bernoulli_bytes(pixels, np.arange(300), 1, Stream.BINARIZE, 0, np.arange(300))
        results.append((draws, bits))
    for one, two in zip(*results, strict=True):
        assert_same_bits(one, two)


def test_rows_outside_the_data_are_refused():
    pixels = np.zeros((3, 8), np.uint8)
    for row in (-1, 3):
        with pytest.raises(IndexError, match="0 to 2"):
            compiled.bernoulli_bytes(pixels, np.array([row]), 0, Stream.BINARIZE, 0, np.array([0]))


@pytest.mark.parametrize("ops", [reference, compiled])
def test_every_row_of_pixels_is_one_examples(ops):
    with pytest.raises(ValueError, match=r"broadcast|3 rows of pixels and 2 examples"):
        ops.bernoulli_bytes(np.full((9, 8), 128, np.uint8), np.arange(3), 1, Stream.BINARIZE, 0, np.arange(2))


def test_probabilities_may_be_those_of_all_examples():
    probabilities = np.linspace(0, 1, 8)[np.newaxis]
    both = [
        ops.bernoulli_probabilities(probabilities, 1, Stream.PIXELS, 0, np.arange(3)) for ops in (reference, compiled)
    ]
    np.testing.assert_array_equal(*both)


def test_threads_fill_their_own_part_and_nothing_behind_it():
    count, room = 8, 64
    examples, out = np.arange(40)[:20], np.zeros(20 * count + room, np.uint32)
    arguments = compiled_random.WORDS, examples, count, 5, int(Stream.LATENT), 1, 2
    for slices in (1, 2, 3):
        out[:] = 0
        compiled_random._fill_parallel(*arguments, out[: 20 * count], slices)
        want = reference.random_words(1 + (2 << 32), Stream.LATENT, 5, examples, count)
        np.testing.assert_array_equal(out[: 20 * count].reshape(want.shape), want)
        assert not out[20 * count :].any()
