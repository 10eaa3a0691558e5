"""Learning rates: a number, or a schedule, which is a function from an update's number (from 1) to its rate."""

import reprlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from scratchvae.arguments import in_short
from scratchvae.finite import is_finite_number, is_whole_number

Schedule = Callable[[int], float]
LearningRate = float | Schedule


@dataclass(frozen=True)
class Stages:
    """A rate that is constant in stages, as in Burda, Grosse, Salakhutdinov 2015, section 5.1.

    Takes     rates, each a positive number; updates: how many updates each lasts. The last rate goes on for ever
    Raises    ValueError for stages that are empty, rates and updates that do not pair, or updates that are not whole
    """

    rates: tuple[float, ...]
    updates: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, numbers in (("rates", self.rates), ("updates", self.updates)):
            if not isinstance(numbers, (tuple, list)):
                raise ValueError(f"{name} is {in_short(numbers)}; expected a tuple, a number for each stage")
        if len(self.rates) != len(self.updates) or not self.rates:
            raise ValueError(f"{len(self.rates)} rates and {len(self.updates)} updates; expected as many, at least one")
        for rate in self.rates:
            check_learning_rate(rate)
        if not all(is_whole_number(number) and number >= 0 for number in self.updates):
            raise ValueError(f"updates is {self.updates}; expected whole numbers that are not negative")
        for name, kind in (("rates", float), ("updates", int)):  # equal stages are written equally
            object.__setattr__(self, name, tuple(map(kind, getattr(self, name))))

    def __call__(self, update: int) -> float:
        """The rate of an update, counted from 1."""
        return self.rates[bisect_left(self._ends, update)]

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """The number of the last update of each stage but the last."""
        return tuple(accumulate(self.updates[:-1]))


def check_learning_rate(learning_rate: LearningRate) -> None:
    """Raises ValueError for what is neither a positive number nor a schedule whose first rate is a number."""
    if callable(learning_rate) and not isinstance(learning_rate, type):
        rate_at(learning_rate, 1)
    elif isinstance(learning_rate, type) or not (is_finite_number(learning_rate) and learning_rate > 0):
        expected = "expected a positive number, or a schedule such as Stages(...)"
        raise ValueError(f"learning_rate is {in_short(learning_rate)}; {expected}")


def rate_at(learning_rate: LearningRate, update: int) -> float:
    """The rate of an update, counted from 1. Raises ValueError where a schedule gives no number of at least 0."""
    if not callable(learning_rate):
        return learning_rate
    rate = learning_rate(update)
    if not (is_finite_number(rate) and rate >= 0):
        raise ValueError(f"learning_rate({update}) is {reprlib.repr(rate)}; expected a number of at least 0")
    return float(rate)
