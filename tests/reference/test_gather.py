"""Rows of a data set as a batch."""

import numpy as np
import pytest


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uint8_is_value_over_255_and_floats_are_themselves(ops, dtype):
    pixels = np.array([[0, 51, 255], [1, 2, 3]], np.uint8)
    rows = np.array([1, 0, 1])
    got = ops.gather_rows(pixels, rows, dtype)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, (pixels.astype(dtype) / dtype(255))[rows])
    floats = np.array([[0.25, -3.0], [7.0, 0.5]])
    np.testing.assert_array_equal(ops.gather_rows(floats, rows, dtype), floats[rows].astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_whole_numbers_that_are_not_bytes_are_counts_and_stay_themselves(ops, dtype):
    counts = np.array([[0, 51, 255], [300, 2, 3]], dtype)
    np.testing.assert_array_equal(ops.gather_rows(counts, np.array([1, 0]), np.float32), counts[::-1])


def test_a_batch_is_a_copy(ops):
    data = np.ones((2, 2), np.float32)
    ops.gather_rows(data, np.arange(2), np.float32)[...] = 7
    np.testing.assert_array_equal(data, 1)
