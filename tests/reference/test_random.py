"""Random numbers: the known bits, the right distributions, and a draw that depends on its address alone."""

import numpy as np
import pytest
from scipy import stats

from scratchvae import reference
from scratchvae.reference.random import Stream, box_muller, minus_two_log

FULL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((FULL, FULL, FULL, FULL), (FULL, FULL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_random123s_known_answers(ops, counter, key, words):
    assert tuple(int(word) for word in ops.philox4x32(*counter, *key)) == words


def test_a_word_is_philox_of_its_address(ops):
    seed, step = 0x0123456789ABCDEF, 77
    words = ops.random_words(seed, Stream.POSTERIOR, step, np.array([5, FULL]), 11)
    for row, example in enumerate((5, FULL)):
        for element in range(11):
            block = ops.philox4x32(element // 4, example, step, Stream.POSTERIOR, seed & FULL, seed >> 32)
            assert words[row, element] == block[element % 4]


@pytest.mark.parametrize("name", ["random_words", "uniforms", "normals"])
def test_a_draw_does_not_depend_on_its_batch_or_on_how_many_are_drawn(ops, name):
    draw = getattr(ops, name)
    examples = np.array([3, 1000, 0, 59_999])
    together = draw(9, Stream.POSTERIOR, 4, examples, 50)
    for row, example in enumerate(examples):
        np.testing.assert_array_equal(draw(9, Stream.POSTERIOR, 4, np.array([example]), 50)[0], together[row])
    np.testing.assert_array_equal(draw(9, Stream.POSTERIOR, 4, examples, 13), together[:, :13])


def test_every_part_of_the_address_changes_the_draw(ops):
    examples = np.arange(4)
    draws = [
        ops.random_words(1, Stream.POSTERIOR, 0, examples, 8),
        ops.random_words(2, Stream.POSTERIOR, 0, examples, 8),
        ops.random_words(1 + 2**32, Stream.POSTERIOR, 0, examples, 8),
        ops.random_words(1, Stream.VALIDATION, 0, examples, 8),
        ops.random_words(1, Stream.POSTERIOR, 1, examples, 8),
        ops.random_words(1, Stream.POSTERIOR, 0, examples + 4, 8),
        ops.random_words(1, Stream.POSTERIOR, 0, examples, 8, attempt=1),
    ]
    words = np.concatenate([draw.ravel() for draw in draws])
    assert np.unique(words).size == words.size  # 224 words of 2^32: a collision by chance has probability 6e-6


def test_no_two_streams_are_the_same():
    assert len({stream.value for stream in Stream}) == len(Stream.__members__)
    assert all(0 < stream < 2**16 for stream in Stream), "the attempt number has the bits above"
    assert sorted(Stream) == list(range(1, 17)), "a number that changes is another draw of what was kept under it"
    assert [stream.name for stream in sorted(Stream)] == [
        "SHUFFLE", "BINARIZE", "POSTERIOR", "VALIDATION", "EVIDENCE", "WEIGHTS", "LATENT", "PIXELS", "SPLIT",
        "FIXED_BINARIZE", "VALIDATION_BINARIZE", "EVIDENCE_BINARIZE", "MOMENTUM", "ACCEPTANCE", "AGGREGATE",
        "COORDINATES",
    ]  # fmt: skip


def test_uniforms_are_whole_multiples_of_two_to_the_minus_24(ops):
    numbers = ops.uniforms(0, Stream.PIXELS, 0, np.arange(100), 1000)
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    multiples = numbers.astype(np.float64) * 2**24
    np.testing.assert_array_equal(multiples, np.round(multiples))
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3


def looks_standard_normal(sample):
    """Mean, variance, skewness, kurtosis and the fraction beyond 3 within 5 standard errors, and Kolmogorov-Smirnov."""
    n, sample = sample.size, sample.ravel().astype(np.float64)
    beyond = 2 * stats.norm.sf(3)
    errors = [
        sample.mean() * np.sqrt(n),
        (np.square(sample).mean() - 1) * np.sqrt(n / 2),
        np.power(sample, 3).mean() * np.sqrt(n / 15),
        (np.power(sample, 4).mean() - 3) * np.sqrt(n / 96),
        ((np.abs(sample) > 3).mean() - beyond) * np.sqrt(n / beyond),
    ]
    return np.abs(errors).max() < 5 and stats.kstest(sample, "norm").pvalue > 1e-3


def test_normals_are_standard_normal_and_independent(ops):
    sample = ops.normals(3, Stream.POSTERIOR, 0, np.arange(1000), 400)
    assert sample.dtype == np.float32
    assert looks_standard_normal(sample)
    for lag in (1, 2, 3, 4):  # within a pair, a block, and across
        products = sample[:, lag:] * sample[:, :-lag]
        assert abs(products.mean()) * np.sqrt(products.size) < 5
        squares = (np.square(sample[:, lag:]) - 1) * (np.square(sample[:, :-lag]) - 1)
        assert abs(squares.mean()) * np.sqrt(squares.size) / 2 < 5


def test_the_check_of_normality_catches_wrong_normals():
    sample = reference.normals(3, Stream.POSTERIOR, 0, np.arange(1000), 400)
    uniforms = reference.uniforms(3, Stream.POSTERIOR, 0, np.arange(1000 * 12), 400).reshape(12, -1)
    assert not looks_standard_normal(1.01 * sample)
    assert not looks_standard_normal(sample + 0.01)
    assert not looks_standard_normal(np.clip(sample, -3, 3))
    assert not looks_standard_normal(uniforms.sum(axis=0) - 6), "twelve uniforms: right variance, tails too short"


def test_box_muller_is_the_formula_to_float32():
    rng = np.random.default_rng(0)
    radius_words, angle_words = rng.integers(0, 2**32, (2, 200_000), dtype=np.uint32)
    radius_words[:3], angle_words[:3] = (0, 1, FULL - 1000), (0, FULL, 1 << 30)
    cosines, sines = (normal.astype(np.float64) for normal in box_muller(radius_words, angle_words))
    radius = np.sqrt(-2 * np.log((radius_words + 0.5) / 2**32))
    np.testing.assert_allclose(np.hypot(cosines, sines), radius, rtol=3e-7, atol=4e-4)  # u near 1 is rounded to 2^-24
    offset = (angle_words << np.uint32(2)).view(np.int32) / 2**31 * np.pi / 4
    turned = np.where(angle_words >> 30 & 1, np.pi / 2 - offset, offset) + np.pi * (angle_words >> 31)
    length = np.hypot(cosines, sines)
    np.testing.assert_allclose(cosines, length * np.cos(turned), atol=1.5e-6)
    np.testing.assert_allclose(sines, length * np.sin(turned), atol=1.5e-6)


def test_normals_are_right_relative_to_the_uniform_that_float32_holds_and_small_radii_absolutely():
    rng = np.random.default_rng(0)
    words, angle_words = rng.integers(0, 2**32, (2, 200_000), dtype=np.uint32)
    held = (words.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)).astype(np.float64)
    angle = (angle_words << np.uint32(2)).view(np.int32) / 2**31 * np.pi / 4
    angle = np.where(angle_words >> 30 & 1, np.pi / 2 - angle, angle)
    radius = np.where(angle_words >> 31, -1, 1) * np.sqrt(-2 * np.log(held))
    for got, want in zip(box_muller(words, angle_words), (radius * np.cos(angle), radius * np.sin(angle)), strict=True):
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=4e-7)
    top = np.arange(FULL - 2**16, FULL, dtype=np.uint32)  # u near 1
    got = box_muller(top, np.zeros_like(top))[0].astype(np.float64)
    np.testing.assert_allclose(got, np.sqrt(-2 * np.log((top + 0.5) / 2**32)), rtol=0, atol=2.5e-4)


def test_the_smallest_uniform_gives_the_longest_radius_and_none_is_infinite():
    words = np.array([0, FULL], np.uint32)
    radius = box_muller(words, np.zeros(2, np.uint32))[0]
    assert radius[0] == pytest.approx(np.sqrt(66 * np.log(2)), rel=1e-6)
    assert radius[1] == 0
    assert (minus_two_log(np.linspace(2.0**-33, 1, 10_001, dtype=np.float32)) >= 0).all()


def test_the_logarithm_is_right_to_one_and_a_half_units_in_the_last_place_where_its_intervals_meet():
    """At sqrt(1/2) and at twice that, the polynomial goes on from one end of its interval at the other."""
    ends = [np.float32(0.5**0.5), np.float32(0.5**1.5)]
    near = np.concatenate([np.asarray(end).view(np.int32) + np.arange(-4, 5, dtype=np.int32) for end in ends])
    u = near.view(np.float32)
    got, want = minus_two_log(u), -2 * np.log(u.astype(np.float64))
    assert (np.abs(got - want) < 1.5 * np.spacing(want.astype(np.float32))).all()


def excess_of_ones(drawn):
    """Standard errors by which the ones among Bernoulli(p / 255), p = 0 .. 255 along the columns, are too many."""
    p = np.arange(256) / 255
    return (drawn.mean(axis=0) - p).sum() * np.sqrt(len(drawn) / (p * (1 - p)).sum())


def test_a_pixel_p_is_one_with_probability_p_255ths(ops):
    n = 20_000
    pixels, rows = np.arange(256, dtype=np.uint8)[None, :], np.zeros(n, np.int64)
    drawn = ops.bernoulli_bytes(pixels, rows, 5, Stream.BINARIZE, 0, np.arange(n))
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn)) == {0, 1}
    assert drawn[:, 0].max() == 0
    assert drawn[:, 255].min() == 1
    counts, p = drawn[:, 1:255].sum(axis=0), np.arange(1, 255) / 255
    assert np.abs((counts - n * p) / np.sqrt(n * p * (1 - p))).max() < 5
    assert abs(excess_of_ones(drawn)) < 5


def test_the_check_of_pixels_catches_a_probability_of_p_256ths():
    bytes_ = np.random.default_rng(0).integers(0, 256, (20_000, 256))
    assert abs(excess_of_ones(bytes_ < np.arange(256))) > 5


def test_a_rejected_byte_is_drawn_again_from_the_next_attempt():
    seed, step, examples = 8, 2, np.arange(500)
    pixels = np.full((1, 64), 128, np.uint8)
    drawn = reference.bernoulli_bytes(pixels, np.zeros(500, np.int64), seed, Stream.BINARIZE, step, examples)
    attempts = [
        reference.random_words(seed, Stream.BINARIZE, step, examples, 16, attempt).view(np.uint8) for attempt in (0, 1)
    ]
    rejected = (attempts[0] == 255) & (attempts[1] != 255)
    assert rejected.sum() > 50
    np.testing.assert_array_equal(drawn[rejected], attempts[1][rejected] < 128)


def test_a_pixels_draw_does_not_depend_on_its_batch(ops):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 100), dtype=np.uint8)
    rows = np.array([4, 4, 0, 8])
    examples = np.array([40, 41, 7, 8])
    together = ops.bernoulli_bytes(pixels, rows, 5, Stream.BINARIZE, 3, examples)
    for b in range(4):
        alone = ops.bernoulli_bytes(pixels, rows[b : b + 1], 5, Stream.BINARIZE, 3, examples[b : b + 1])
        np.testing.assert_array_equal(alone[0], together[b])
    assert (together[0] != together[1]).any(), "the same row under another example number is another draw"


def test_bernoulli_draws_have_their_probabilities(ops):
    probabilities = np.tile(np.array([0.0, 0.1, 0.5, 0.9, 1.0, np.nan]), (20_000, 1))
    drawn = ops.bernoulli_probabilities(probabilities, 5, Stream.PIXELS, 0, np.arange(20_000))
    assert drawn.dtype == np.uint8
    np.testing.assert_allclose(drawn.mean(axis=0), [0, 0.1, 0.5, 0.9, 1, 0], atol=0.018)
    assert drawn[:, 0].max() == 0
    assert drawn[:, 4].min() == 1
    as_floats = ops.bernoulli_probabilities(probabilities, 5, Stream.PIXELS, 0, np.arange(20_000), dtype=np.float32)
    assert as_floats.dtype == np.float32
    np.testing.assert_array_equal(as_floats, drawn)


def test_a_pixel_is_one_where_its_uniform_number_is_below_its_probability_and_not_where_it_is_equal(ops):
    address = 5, Stream.PIXELS, 0, np.arange(3)
    equal = ops.uniforms(*address, 40)
    assert not ops.bernoulli_probabilities(equal, *address).any()
    assert ops.bernoulli_probabilities(np.nextafter(equal, np.float32(2)), *address).all()


def test_a_permutation_has_every_number_once_in_every_place_equally_often(ops):
    order = ops.permutation(1, Stream.SHUFFLE, 0, 1000)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert (ops.permutation(1, Stream.SHUFFLE, 1, 1000) != order).any()
    places = np.array([ops.permutation(1, Stream.SHUFFLE, step, 5) for step in range(2000)])
    counts = (places[:, :, None] == np.arange(5)).sum(axis=0)
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400 * 0.8)


def test_a_permutation_of_many_sorts_ties_of_the_upper_words_by_the_lower_ones(ops):
    many, address = 300_000, (7, Stream.SHUFFLE, 3)
    words = ops.random_words(*address, np.zeros(1, np.int64), 2 * many)[0]
    assert np.unique(words[1::2]).size < many, "no tie, so that nothing is shown"
    np.testing.assert_array_equal(ops.permutation(*address, many), np.lexsort((words[0::2], words[1::2])))


@pytest.mark.parametrize("count", [0, 1])
def test_empty_draws_are_empty(ops, count):
    assert ops.normals(1, Stream.LATENT, 0, np.arange(0), count).shape == (0, count)
    assert ops.normals(1, Stream.LATENT, 0, np.arange(3), count).shape == (3, count)
    assert ops.permutation(1, Stream.SHUFFLE, 0, count).shape == (count,)


@pytest.mark.parametrize(
    ("seed", "step", "examples"),
    [(-1, 0, [0]), (2**64, 0, [0]), (0, -1, [0]), (0, 2**32, [0]), (0, 0, [-1]), (0, 0, [2**32])],
)
def test_an_address_that_does_not_fit_is_refused(ops, seed, step, examples):
    with pytest.raises(ValueError, match=r"seed|step|examples"):
        ops.random_words(seed, Stream.LATENT, step, np.array(examples), 4)
