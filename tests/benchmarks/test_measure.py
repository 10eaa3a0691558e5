"""Medians and quartiles over rounds, ratios within them, and the bars that they decide."""

from collections import Counter
from itertools import pairwise, permutations

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


def turns(names: str, rounds: int) -> tuple[str, dict]:
    """In which order all were called, and what each answered: how many calls there had been."""
    order: list[str] = []

    def number_of(name):
        order.append(name)
        return len(order)

    values = alternate({name: lambda name=name: number_of(name) for name in names}, rounds)
    return "".join(order), values


def test_all_take_turns_and_answer_in_every_round():
    order, values = turns("abc", rounds=4)
    assert order == "acb cab cba bca".replace(" ", "")
    assert values == {"a": [1, 5, 9, 12], "b": [3, 6, 8, 10], "c": [2, 4, 7, 11]}


@pytest.mark.parametrize("count", range(2, 10))
def test_each_follows_each_of_the_others_as_often(count):
    names, rounds = "abcdefghi"[:count], 2 * count
    order, _ = turns(names, rounds)
    rows = [order[turn * count : (turn + 1) * count] for turn in range(rounds)]
    assert all(sorted(row) == list(names) for row in rows)
    pairs = Counter(pair for row in rows for pair in pairwise(row))
    assert set(pairs) == set(permutations(names, 2))
    assert set(pairs.values()) == {2}


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
