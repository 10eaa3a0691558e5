"""Medians and quartiles over rounds, ratios within them, and the bars that they decide."""

import pytest

from benchmarks.measure import Spread, alternate, geometric_mean, ratios, round_to
from benchmarks.report import bar


def test_a_spread_has_the_median_the_quartiles_and_the_ends():
    spread = Spread.of([5.0, 1.0, 2.0, 30.0, 4.0])
    found = spread.minimum, spread.lower_quartile, spread.median, spread.upper_quartile, spread.maximum
    assert (*found, spread.rounds) == (1, 2, 4, 5, 30, 5)


def test_a_ratio_is_taken_within_a_round_and_its_median_over_rounds():
    found = ratios([2.0, 30.0, 8.0], [1.0, 10.0, 2.0])
    assert (found.minimum, found.median, found.maximum) == (2, 3, 4)  # of the medians it would be 4


def test_all_take_turns_and_every_round_starts_with_another():
    order: list[str] = []

    def number_of(name):
        order.append(name)
        return len(order)

    values = alternate({name: lambda name=name: number_of(name) for name in "abc"}, rounds=4)
    assert "".join(order) == "abc bca cab abc".replace(" ", "")
    assert values == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_a_number_is_rounded_to_its_significant_digits():
    assert [round_to(value, 3) for value in (0.000123456, 1.23456, 123456.0)] == [0.000123, 1.23, 123000.0]


def test_a_geometric_mean_counts_twice_as_fast_and_half_as_fast_as_even():
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("measured", "at_most", "met"),
    [(1.99996, False, False), (2.0, False, True), (2.5, False, True), (2.0, True, True), (2.00004, True, False)],
)
def test_a_bar_is_met_on_its_side_by_what_was_measured_before_it_is_rounded(measured, at_most, met):
    assert bar("speed", 2.0, measured, at_most)["met"] is met
