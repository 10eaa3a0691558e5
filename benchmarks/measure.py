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
    """Each call's value in each round. Within rounds each follows each of the others equally often, or nearly: what one
    leaves behind, in the caches, in the processor's clock, harms all alike.

    Source    Williams 1949, "Experimental designs balanced for the estimation of residual effects of treatments"
    """
    names = list(calls)
    values: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for place in williams_row(len(names), turn):
            values[names[place]].append(calls[names[place]]())
    return values


def williams_row(count: int, turn: int) -> list[int]:
    """The order 0, n - 1, 1, n - 2, ..., moved on by the turn; of an odd number every second row is from behind."""
    zigzag = [place // 2 if place % 2 == 0 else count - 1 - place // 2 for place in range(count)]
    row = [(place + turn) % count for place in zigzag]
    return row[::-1] if count % 2 and turn % 2 else row


def ratios(values: list[float], base: list[float]) -> Spread:
    """values / base, round by round."""
    return Spread.of([value / other for value, other in zip(values, base, strict=True)])


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))
