"""How everything here is timed: all sides take turns, round after round, and medians with quartiles are reported.

A ratio is taken within a round, where both sides met the same machine, and the median is over rounds.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and extremes of a measurement over rounds."""

    median: float
    lower_quartile: float
    upper_quartile: float
    minimum: float
    maximum: float
    rounds: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        return cls(float(middle), float(low), float(high), float(min(values)), float(max(values)), len(values))

    def as_json(self) -> dict:
        return {name: round_to(value) if isinstance(value, float) else value for name, value in asdict(self).items()}


def round_to(value: float, digits: int = 5) -> float:
    """So many significant digits: more are noise."""
    return float(f"{value:.{digits}g}")


def alternate(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each call's value in each round. Every round starts with another one, so that none always follows the same."""
    names = list(calls)
    values: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names) if names else 0
        for name in names[shift:] + names[:shift]:
            values[name].append(calls[name]())
    return values


def ratios(values: list[float], base: list[float]) -> Spread:
    """values / base, round by round."""
    return Spread.of([value / other for value, other in zip(values, base, strict=True)])


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))
