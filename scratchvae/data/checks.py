"""What may be called data: every check of an array from outside, in one place, each failure one line.

Shapes: N examples (rows), D data dimensions (columns).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchvae.data.mapped import Data, MappedRows, blocks, converted, grey_in, kept_dtype

HINTS = {1: "; one example x is x[None, :]", 3: "; images x are flattened by x.reshape(len(x), -1)"}
LEVEL_ROUNDING = 0.01  # of a step between levels: float32 is off by 2^-8 of a step where there are 2^16

SCALES = {
    "bytes": "uint8, which means value / 255",
    "unit": "numbers from 0 to 1",
    "own": "numbers beyond 0 to 1, taken as they are",
}


class DataError(ValueError):
    """Data, or a file of data, that cannot be used. The message is one line: what was found, what is expected."""

    def __init__(self, message: str):
        super().__init__(one_line(message))  # a file's name may hold a line break


def one_line(error: object) -> str:
    """The text of an error with its line breaks taken out."""
    return " ".join(str(error).split())


def as_data(x: ArrayLike, data_dim: int | None = None, unit_interval: bool = False, name: str = "x") -> NDArray:
    """The array `x` as data: 2-D, native uint8, float32 or float64, with finite values.

    Takes     x (N, D), N and D at least 1; data_dim: the D it must have; unit_interval: whether its values
              are to lie in [0, 1]; name: what the messages call it
    Returns   (N, D), not copied if it is uint8, float32 or float64 already. uint8 stays uint8 and means value / 255.
              bool becomes uint8 0 or 255, which means exactly 0 or 1. Other integers become the float of the same
              value (float32 where it holds all of them exactly): they are not scaled. float16 becomes float32
    Raises    DataError (a ValueError), one line, for anything else
    """
    array = _numeric_array(x, name)
    _check_shape(array, data_dim, name)
    array = converted(array, kept_dtype(array))
    if array.dtype != np.uint8:
        _check_values(array, float(array.min()), float(array.max()), unit_interval, name)
    return array


def as_data_set(x: ArrayLike | MappedRows, data_dim: int | None, unit_interval: bool, name: str = "x") -> Data:
    """As `as_data`, for a whole data set: rows on the disk stay there, and under a Bernoulli pixels are checked.

    Raises    DataError, one line
    """
    if isinstance(x, MappedRows):
        data: Data = _mapped_data(x, data_dim, unit_interval, name)
    else:
        data = as_data(x, data_dim, unit_interval, name)
    if unit_interval:
        check_pixels(data, name)
    return data


def map_rows(array: NDArray, name: str) -> MappedRows:
    """An array mapped from the disk as data that stays there, with all the checks of `as_data`."""
    array = _numeric_array(array, name)
    if array.ndim < 2 or array.size == 0:
        _check_shape(array, None, name)
    return _mapped_data(MappedRows(array), None, False, name)


def _mapped_data(data: MappedRows, data_dim: int | None, unit_interval: bool, name: str) -> MappedRows:
    _check_shape(data, data_dim, name)
    if data.dtype != np.uint8:
        _check_values(data, data.range.low, data.range.high, unit_interval, name)
    return data


def check_pixels(data: Data, name: str = "x") -> None:
    """Refuse a whole data set of uint8 in which nothing is above 1: uint8 means value / 255, so this is a slip.

    For data sets only. A batch or a row of a proper data set may well be that dark.
    Raises    DataError, one line
    """
    if data.dtype == np.uint8 and _greatest_up_to_2(data) == 1:
        raise DataError(
            f"{name}: uint8 with no value above 1; expected pixels 0..255 (uint8 means value / 255): "
            "pass data of 0 and 1 as bool or float"
        )


def _greatest_up_to_2(data: Data) -> int:
    """The greatest pixel, or 2 as soon as one is greater than 1."""
    if isinstance(data, MappedRows):
        return min(2, int(data.range.high))
    greatest = 0
    for _, block in blocks(data):
        greatest = max(greatest, min(2, int(block.max())))
        if greatest == 2:
            break
    return greatest


def is_grey(data: Data) -> bool:
    """Whether any value is strictly between 0 and 1 (uint8: between 0 and 255). Stops at the first block with one.

    A Bernoulli's log-likelihood of such values is not normalised: the data are to be binarized first.
    """
    return data.range.grey if isinstance(data, MappedRows) else any(grey_in(block) for _, block in blocks(data))


def scale_of(data: Data) -> str:
    """What values mean, a name in SCALES. Data of 0 and 1 alone are "unit", however they are stored."""
    if data.dtype == np.uint8 and is_grey(data):
        return "bytes"
    low, high = (data.range.low, data.range.high) if isinstance(data, MappedRows) else (data.min(), data.max())
    return "unit" if data.dtype == np.uint8 or (low >= 0 and high <= 1) else "own"


def check_scale(data: Data, scale: str | None, name: str = "x") -> None:
    """Refuse bytes for a model of other numbers than those from 0 to 1, and such numbers for a model of bytes.

    Takes     scale: of what the model was trained on, None where that is not known
    Raises    DataError, one line
    """
    found = scale_of(data)
    if {found, scale} == {"bytes", "own"}:
        raise DataError(f"{name}: {SCALES[found]}; expected {SCALES[str(scale)]}, as the model was trained on")


def check_levels(data: Data, levels: int, name: str = "x") -> None:
    """Refuse values that are none of 0, 1 / (levels - 1), ..., 1, but for rounding.

    Raises    DataError, one line
    """
    steps = levels - 1

    def between(block: NDArray) -> NDArray:
        level = block * (steps / 255 if block.dtype == np.uint8 else steps)
        return np.abs(level - np.rint(level)) > LEVEL_ROUNDING

    if any(between(block).any() for _, block in blocks(data)):
        raise DataError(
            f"{name}: {_first(data, between)}; expected multiples of 1/{steps}, {levels} levels: "
            f"0 to {steps} divided by {steps} "
            "(discretised-logistic is for 8-bit pixels, discretised-logistic:L for L levels)"
        )


def check_counts(data: Data, name: str = "x") -> None:
    """Refuse what is no count: a negative number, a fraction, and uint8 that is not 0 or 255, for it means value / 255.

    Raises    DataError, one line
    """

    def is_no_count(block: NDArray) -> NDArray:
        return _grey_bytes(block) if block.dtype == np.uint8 else (block < 0) | (block != np.floor(block))

    if any(is_no_count(block).any() for _, block in blocks(data)):
        raise DataError(f"{name}: {_first(data, is_no_count)}; expected counts 0, 1, 2, ...{_no_scaling(data)}")


def check_one_hot(data: Data, starts: NDArray, name: str = "x") -> None:
    """Refuse rows that do not have, in every group of columns, one 1 and else 0.

    Takes     starts (G,): the first column of each group (uint8: 255 means 1)
    Raises    DataError, one line
    """

    def is_not_binary(block: NDArray) -> NDArray:
        return _grey_bytes(block) if block.dtype == np.uint8 else (block != 0) & (block != 1)

    for start, block in blocks(data):
        if is_not_binary(block).any():
            expected = f"expected 0 or 1, one-hot columns{_no_scaling(data)}"
            raise DataError(f"{name}: {_first(data, is_not_binary)}; {expected}")
        ones = np.add.reduceat(block != 0, starts, axis=1, dtype=np.int64)
        if (ones != 1).any():
            row, group = np.unravel_index(int((ones != 1).argmax()), ones.shape)
            last = [*starts[1:], data.shape[1]][group] - 1
            raise DataError(
                f"{name}: row {start + row} has {ones[row, group]} ones in columns {starts[group]} to {last} "
                "(counted from 0); expected exactly one, as a one-hot group has"
            )


def _grey_bytes(block: NDArray) -> NDArray:
    """Where uint8 is neither 0 nor 255."""
    return (block != 0) & (block != 255)


def _no_scaling(data: Data) -> str:
    return ": pass them as int or float, for uint8 means value / 255" if data.dtype == np.uint8 else ""


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


def _check_shape(array: Data, data_dim: int | None, name: str) -> None:
    if array.size == 0:
        raise DataError(f"{name}: empty, shape {array.shape}; expected at least one row and one column")
    if array.ndim != 2:
        hint = HINTS.get(min(array.ndim, 3), "")
        raise DataError(f"{name}: {array.ndim}-D, shape {array.shape}; expected 2-D (examples, values){hint}")
    if data_dim is not None and array.shape[1] != data_dim:
        raise DataError(
            f"{name}: {array.shape[1]} columns, shape {array.shape}; expected data_dim = {data_dim} columns"
        )


def _check_values(array: Data, low: float, high: float, unit_interval: bool, name: str) -> None:
    """Refuse NaN, infinity and what is outside [0, 1]; low and high: its least and greatest value, NaN for a NaN."""
    if not (np.isfinite(low) and np.isfinite(high)):
        where = _first(array, lambda block: ~np.isfinite(block)) or f"values from {low:g} to {high:g}"
        raise DataError(f"{name}: {where}; expected finite numbers")
    if unit_interval and (low < 0.0 or high > 1.0):
        where = _first(array, lambda block: (block < 0) | (block > 1)) or f"values from {low:g} to {high:g}"
        pixels = low >= 0.0 and high <= 255.0
        hint = "any numbers: likelihood gaussian-learned"
        if pixels:
            hint = "levels 0..L: divide by L; pixels 0..255: pass uint8, or divide by 255; counts: likelihood poisson"
        raise DataError(f"{name}: {where}; expected values in [0, 1] ({hint})")


def _first(array: Data, is_bad: Callable[[NDArray], NDArray]) -> str | None:
    """Where the first bad value is, and what it is; None where it is in another part of the data on the disk."""
    for start, block in blocks(array):
        bad = is_bad(block)
        if bad.any():
            row, column = np.unravel_index(int(bad.argmax()), bad.shape)
            number = array.rows[start + row] if isinstance(array, MappedRows) else start + row
            return f"row {number}, column {column} (counted from 0) is {block[row, column]:g}"
    return None
