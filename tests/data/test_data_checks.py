"""What may be called data, and what every refusal says."""

import tracemalloc

import numpy as np
import pytest
from data_files import message_of, planted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scratchvae.data import as_data, check_pixels, is_grey
from scratchvae.data.checks import check_levels, check_one_hot
from scratchvae.data.mapped import BLOCK

X = np.random.default_rng(0).random((4, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_data_that_is_as_expected_is_not_copied(dtype):
    x = X.astype(dtype)
    assert as_data(x, 3, unit_interval=True) is x


@pytest.mark.parametrize(
    ("given_type", "kept_as"),
    [
        (np.float16, np.float32),
        (np.longdouble, np.float64),
        (">f4", np.float32),
        (">f8", np.float64),
        (np.int8, np.float32),
        (np.int64, np.float32),
        (">u2", np.float32),
        (np.uint64, np.float32),
    ],
)
def test_other_numbers_become_the_float_of_the_same_value(given_type, kept_as):
    x = np.array([[0, 1], [100, 7]], given_type)
    data = as_data(x)
    assert data.dtype == kept_as
    assert data.dtype.isnative
    np.testing.assert_array_equal(data, x.astype(np.float64))


@pytest.mark.parametrize(
    ("value", "kept_as"),
    [(2**24, np.float32), (-(2**24), np.float32), (2**24 + 1, np.float64), (-(2**24) - 1, np.float64)],
)
def test_integers_that_float32_rounds_become_float64(value, kept_as):
    x = np.array([[value, 3]])
    assert as_data(x).dtype == kept_as
    np.testing.assert_array_equal(as_data(x), x)


def test_true_and_false_mean_one_and_zero():
    data = as_data(np.array([[True, False]]), unit_interval=True)
    assert data.dtype == np.uint8
    np.testing.assert_array_equal(data / 255, [[1.0, 0.0]])


def test_lists_and_non_contiguous_arrays_are_data():
    assert as_data([[0.5, 1.0]]).shape == (1, 2)
    assert as_data(X[::2, ::-1], 3).shape == (2, 3)


def test_a_masked_array_of_which_nothing_is_masked_is_data():
    np.testing.assert_array_equal(as_data(np.ma.masked_greater(X, 1)), X)


@pytest.mark.parametrize(
    ("x", "arguments", "parts"),
    [
        (X[0], {}, ["1-D, shape (3,)", "expected 2-D", "one example x is x[None, :]"]),
        (X[None], {}, ["3-D, shape (1, 4, 3)", "expected 2-D", "x.reshape(len(x), -1)"]),
        (X[None, None], {}, ["4-D, shape (1, 1, 4, 3)", "x.reshape(len(x), -1)"]),
        (3.0, {}, ["0-D, shape ()", "expected 2-D"]),
        (X[:0], {}, ["empty, shape (0, 3)", "expected at least one row"]),
        (X[:, :0], {}, ["empty, shape (4, 0)", "one column"]),
        ([], {}, ["empty, shape (0,)"]),
        (X, {"data_dim": 784}, ["3 columns, shape (4, 3)", "expected data_dim = 784 columns"]),
        (X.astype(object), {}, ["an array of object", "expected numbers"]),
        ([["a", "b"]], {}, ["an array of <U1", "expected numbers"]),
        (X.astype(complex), {}, ["an array of complex128", "expected numbers"]),
        (np.zeros((2, 2), "datetime64[s]"), {}, ["an array of datetime64[s]", "expected numbers"]),
        (np.zeros((2, 2), [("a", "f4")]), {}, ["expected numbers"]),
        (None, {}, ["an array of object", "expected numbers"]),
        ([[1.0, 2.0], [3.0]], {}, ["not an array", "expected 2-D numbers"]),
        (np.ma.masked_greater(X, 0.5), {}, ["masked values", "expected every value present"]),
        (planted(X, 2, 1, np.nan), {}, ["row 2, column 1 (counted from 0) is nan", "expected finite"]),
        (planted(X, 3, 0, -np.inf), {}, ["row 3, column 0 (counted from 0) is -inf", "expected finite"]),
        (X - 0.5, {"unit_interval": True}, ["expected values in [0, 1] (any numbers: likelihood gaussian-learned)"]),
        (
            X * 7,
            {"unit_interval": True},
            ["(levels 0..L: divide by L; pixels", "pass uint8, or divide by 255; counts: likelihood poisson)"],
        ),
        (planted(X, 1, 2, 1.5), {"unit_interval": True}, ["row 1, column 2", "is 1.5", "expected values in"]),
        (np.array([[0.0, 255.0]]), {"unit_interval": True}, ["is 255", "pass uint8, or divide by 255"]),
        (np.array([[0, 7]]), {"unit_interval": True}, ["is 7", "pass uint8, or divide by 255"]),
    ],
)
def test_what_is_not_data_is_refused_with_what_where_and_what_is_expected(x, arguments, parts):
    message_of(lambda: as_data(x, **arguments, name="pixels"), "pixels: ", *parts)


def test_the_hint_at_pixels_is_for_pixels_only():
    assert "255" not in message_of(lambda: as_data(X - 0.5, unit_interval=True))
    assert "255" not in message_of(lambda: as_data(X * 1000, unit_interval=True))


@given(
    array=hnp.arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)),
    row=st.integers(0, 4),
    column=st.integers(0, 3),
    bad=st.sampled_from([np.nan, np.inf, -np.inf, -0.25, 1.25]),
)
def test_one_bad_value_anywhere_is_found_where_it_is(array, row, column, bad):
    as_data(array, unit_interval=True)
    array[row, column] = bad
    message_of(lambda: as_data(array, unit_interval=True), f"row {row}, column {column} ")


def test_a_bad_value_in_the_last_chunk_is_found_without_a_large_temporary():
    x = np.zeros((9, BLOCK), np.float32)
    x[8, 5] = np.nan
    tracemalloc.start()
    message_of(lambda: as_data(x), "row 8, column 5 ")
    is_grey(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 4


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.sampled_from([0, 1, 128, 254, 255])))
def test_grey_bytes_are_those_between_0_and_255(x):
    assert is_grey(x) == bool(((x > 0) & (x < 255)).any())


@given(hnp.arrays(np.float32, (3, 3), elements=st.sampled_from([0.0, 1.0, 0.5, 1e-30, -1.0, 2.0])))
def test_grey_floats_are_those_between_0_and_1(x):
    assert is_grey(x) == bool(((x > 0) & (x < 1)).any())


def test_grey_is_found_in_the_last_chunk_too():
    x = np.zeros((3, BLOCK), np.uint8)
    assert not is_grey(x)
    x[2, -1] = 7
    assert is_grey(x)


def test_a_row_may_be_wider_than_what_is_looked_at_together():
    assert is_grey(np.full((2, BLOCK + 1), 7, np.uint8))


def test_zeros_and_ones_kept_as_bytes_are_refused_as_a_data_set():
    message_of(lambda: check_pixels(np.eye(3, dtype=np.uint8)), "no value above 1", "expected pixels 0..255", "bool")
    check_pixels(np.zeros((2, 2), np.uint8))
    check_pixels(np.full((2, 2), 2, np.uint8))
    check_pixels(np.eye(3))
    check_pixels(as_data(np.eye(3, dtype=bool)))


def test_bytes_are_pixels_if_one_anywhere_is_above_1():
    x = np.zeros((3, BLOCK), np.uint8)
    x[0, 0] = 1
    message_of(lambda: check_pixels(x), "no value above 1")
    x[2, -1] = 255
    check_pixels(x)


def test_a_row_that_is_not_one_hot_is_named_by_its_number_among_all():
    x = np.zeros((4, BLOCK), np.float32)
    x[:, 7] = x[3, 9] = 1
    message_of(lambda: check_one_hot(x, np.array([0])), f"row 3 has 2 ones in columns 0 to {BLOCK - 1} ")


def test_pixels_of_many_levels_in_single_precision_lie_on_them():
    levels = np.arange(2.0**16)[:, None] / (2**16 - 1)
    for x in (levels.astype(np.float32), levels.astype(np.float32).astype(np.float64)):
        check_levels(x, 2**16)
    message_of(lambda: check_levels(levels + 0.02 / 2**16, 2**16), "expected multiples of 1/65535")
