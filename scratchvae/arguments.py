"""Arguments that many functions take, checked: each failure is a ValueError of one line, with what was given."""

import reprlib
from collections.abc import Iterable

from scratchvae.finite import is_whole_number


def whole_positive(name: str, value: int) -> int:
    """A whole number of at least 1."""
    if not is_whole_number(value) or value < 1:
        raise ValueError(f"{name} is {in_short(value)}; expected a whole number of at least 1")
    return int(value)


def checked_seed(seed: int) -> int:
    """A whole number of 64 bits."""
    if not is_whole_number(seed) or not 0 <= seed < 2**64:
        raise ValueError(f"seed is {in_short(seed)}; expected a whole number from 0 to 2^64 - 1")
    return int(seed)


def one_of(name: str, value: str, names: Iterable[str]) -> str:
    """One of these names."""
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name} is {in_short(value)}; expected one of {', '.join(names)}")
    return value


def in_short(value: object) -> str:
    """What was given, on one line: it may be an array, out of its place among the arguments."""
    return " ".join(reprlib.repr(value).split())
