"""Which rows are held out: drawn once from the seed, the same on every machine."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import in_short
from scratchvae.data.checks import DataError
from scratchvae.finite import is_finite_number, is_whole_number
from scratchvae.reference.random import Stream, permutation


def check_split(held_out: float, seed: int) -> None:
    """Raises DataError, one line, for a fraction or a seed by which no rows can be held out."""
    if not (is_finite_number(held_out) and 0.0 < held_out < 1.0):
        raise DataError(f"held_out is {in_short(held_out)}; expected a fraction of the rows, above 0 and below 1")
    if not is_whole_number(seed) or not 0 <= seed < 2**64:
        raise DataError(f"seed is {in_short(seed)}; expected a whole number from 0 to 2^64 - 1")


def split_rows(count: int, held_out: float, seed: int, name: str = "x") -> tuple[NDArray, NDArray]:
    """The numbers of the rows to train on and of those held out, each ascending; together all rows, once each.

    Takes     count: rows in all, at least 2; held_out: the fraction to hold out, rounded down but at least one row
    """
    check_split(held_out, seed)
    if count < 2:
        raise DataError(f"{name}: {count} row; expected at least 2, one of them to hold out")
    exact = Fraction(repr(float(held_out)))  # as it is written: 0.29 of 100 rows are 29
    number = min(max(1, int(exact * count)), count - 1)
    order = permutation(seed, Stream.SPLIT, 0, count)
    return np.sort(order[number:]), np.sort(order[:number])
