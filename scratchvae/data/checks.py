"""What may be called data: every check of an array from outside, in one place, each failure one line.

Shapes: N examples (rows), D data dimensions (columns).
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 1 << 18  # elements looked at together, so that a check of a huge array needs no huge temporary
HINTS = {1: "; one example x is x[None, :]", 3: "; images x are flattened by x.reshape(len(x), -1)"}
EXACT_IN_FLOAT32 = 1 << 24  # every whole number up to here is a float32


class DataError(ValueError):
    """Data, or a file of data, that cannot be used. The message is one line: what was found, what is expected."""

    def __init__(self, message: str):
        super().__init__(one_line(message))  # a file's name may hold a line break


def one_line(error: object) -> str:
    """The text of an error with its line breaks taken out."""
    return " ".join(str(error).split())


def as_data(x: ArrayLike, data_dim: int | None = None, unit_interval: bool = False, name: str = "x") -> NDArray:
    """The array `x` as data: 2-D, native uint8, float32 or float64, with finite values.

    Takes     x (N, D), N and D at least 1; data_dim: the D it must have; unit_interval: whether its values are
              means of a Bernoulli, to lie in [0, 1]; name: what the messages call it
    Returns   (N, D), not copied if it is uint8, float32 or float64 already. uint8 stays uint8 and means value / 255.
              bool becomes uint8 0 or 255, which means exactly 0 or 1. Other integers become the float of the same
              value (float32 where it holds all of them exactly): they are not scaled. float16 becomes float32
    Errors    DataError (a ValueError), one line, for anything else
    """
    array = _numeric_array(x, name)
    _check_shape(array, data_dim, name)
    array = _uint8_or_float(array)
    if array.dtype != np.uint8:
        _check_values(array, unit_interval, name)
    return array


def check_pixels(data: NDArray, name: str = "x") -> None:
    """Refuse a whole data set of uint8 in which nothing is above 1: uint8 means value / 255, so this is a slip.

    For data sets only. A batch or a row of a proper data set may well be that dark.
    Errors    DataError, one line
    """
    if data.dtype == np.uint8 and all(block.max() <= 1 for _, block in _chunks(data)) and data.any():
        raise DataError(
            f"{name}: uint8 with no value above 1; expected pixels 0..255 (uint8 means value / 255): "
            "pass data of 0 and 1 as bool or float"
        )


def is_grey(data: NDArray) -> bool:
    """Whether any value is strictly between 0 and 1 (uint8: between 0 and 255). Stops at the first chunk with one.

    A Bernoulli's log-likelihood of such values is not normalised: the data are to be binarized first.
    """
    for _, block in _chunks(data):
        if data.dtype == np.uint8:
            # uint8 wraps, 0 - 1 = 255: what is then below 254 was neither 0 nor 255
            if (block - np.uint8(1) < 254).any():
                return True
        elif ((block > 0) & (block < 1)).any():
            return True
    return False


def _numeric_array(x: ArrayLike, name: str) -> NDArray:
    try:
        array = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name}: not an array ({one_line(error)}); expected 2-D numbers (examples, values)") from None
    if array.dtype.kind not in "buif":
        raise DataError(f"{name}: an array of {array.dtype}; expected numbers: float, uint8, integer or bool")
    if isinstance(x, np.ma.MaskedArray) and np.ma.getmaskarray(x).any():
        raise DataError(f"{name}: an array with masked values; expected every value present")
    return array


def _check_shape(array: NDArray, data_dim: int | None, name: str) -> None:
    if array.size == 0:
        raise DataError(f"{name}: empty, shape {array.shape}; expected at least one row and one column")
    if array.ndim != 2:
        hint = HINTS.get(min(array.ndim, 3), "")
        raise DataError(f"{name}: {array.ndim}-D, shape {array.shape}; expected 2-D (examples, values){hint}")
    if data_dim is not None and array.shape[1] != data_dim:
        raise DataError(
            f"{name}: {array.shape[1]} columns, shape {array.shape}; expected data_dim = {data_dim} columns"
        )


def _uint8_or_float(array: NDArray) -> NDArray:
    """The same values as uint8, float32 or float64 in native byte order (bool: True as 255)."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "f":
        return array.astype(np.float32 if size <= 4 else np.float64, copy=False)
    small = max(-int(array.min()), int(array.max())) <= EXACT_IN_FLOAT32
    return array.astype(np.float32 if small else np.float64)


def _check_values(array: NDArray, unit_interval: bool, name: str) -> None:
    # minimum and maximum pass on a NaN, so two reductions without a temporary see everything there is to see
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        where = _first(array, lambda block: ~np.isfinite(block))
        raise DataError(f"{name}: {where}; expected finite numbers")
    if unit_interval and (low < 0.0 or high > 1.0):
        where = _first(array, lambda block: (block < 0) | (block > 1))
        hint = " (pixels 0..255: pass uint8, or divide by 255)" if low >= 0.0 and high <= 255.0 else ""
        raise DataError(f"{name}: {where}; expected values in [0, 1] for a Bernoulli{hint}")


def _first(array: NDArray, is_bad: Callable[[NDArray], NDArray]) -> str:
    """Where the first bad value is, and what it is."""
    for start, block in _chunks(array):
        bad = is_bad(block)
        if bad.any():
            row, column = np.unravel_index(int(bad.argmax()), bad.shape)
            return f"row {start + row}, column {column} (counted from 0) is {block[row, column]:g}"
    raise AssertionError("called for an array without a bad value")


def _chunks(array: NDArray) -> Iterator[tuple[int, NDArray]]:
    """Blocks of whole rows, each with the number of its first row."""
    rows = max(1, CHUNK // max(1, array.shape[1]))
    for start in range(0, array.shape[0], rows):
        yield start, array[start : start + rows]
