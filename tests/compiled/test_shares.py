"""How much of a step's work each thread has."""

import platform

import numpy as np
import pytest
from numba import njit

from scratchvae.compiled.barrier import LINE_WORDS, signals_for
from scratchvae.compiled.shares import LEAST, SHORT, equal_shares, follow, say, share_of, ticks

PARTS = [1, 2, 3, 8, 40]


@njit
def equal(parts):
    return equal_shares(1, parts)[0]


@njit
def ends(bounds, pieces):
    """Where each part's share begins, and the last one's end."""
    parts, found = bounds.size - 1, [0]
    for part in range(parts):
        first, last = share_of(bounds, pieces, part)
        if first != found[-1]:
            raise ValueError("shares leave a gap, or lie over one another")
        found.append(last)
    return found


@njit
def after(steps, bounds, pieces, signals, seconds_a_piece):
    """The shares after so many steps of parts that need so long for a piece."""
    for _ in range(steps):
        for part in range(bounds.size - 1):
            first, last = share_of(bounds, pieces, part)
            say(signals, part, 0, np.int64(1e9 * (last - first) * seconds_a_piece[part]))
        follow(bounds, pieces, signals, 0)


def shares_after(steps: int, pieces: int, seconds_a_piece: list[float]) -> list[int]:
    parts = len(seconds_a_piece)
    bounds, signals = equal(parts), signals_for(parts)
    after(steps, bounds, pieces, signals, np.array(seconds_a_piece))
    return np.diff(ends(bounds, pieces)).tolist()


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("pieces", [1, 7, 20, 64, 100, 512])
def test_all_pieces_are_shared_out_and_nobody_is_left_without(parts, pieces):
    rng, bounds, signals = np.random.default_rng(0), equal(parts), signals_for(parts)
    for _ in range(50):
        after(1, bounds, pieces, signals, 10.0 ** rng.uniform(-3, 3, parts))
        shares = np.diff(ends(bounds, pieces))
        assert shares.sum() == pieces
        assert shares.min() >= min(1, pieces // parts)


@pytest.mark.parametrize("pieces", [64, 100, 512])
@pytest.mark.parametrize("seconds", [[1.0, 1.7], [2.0, 1.0], [1.0, 1.0, 2.0, 1.5]])
def test_unequal_paces_end_at_the_same_time(seconds, pieces):
    """But for a tile's height of rows."""
    needed = np.array(shares_after(20, pieces, seconds)) * seconds
    assert np.ptp(needed) <= 4 * max(seconds)
    assert np.ptp(needed) < np.ptp(pieces / len(seconds) * np.array(seconds))


def test_a_few_steps_are_enough():
    assert shares_after(4, 100, [1.0, 2.0]) == pytest.approx([67, 33], abs=2)


def test_much_the_same_paces_and_few_pieces_have_equal_shares():
    assert shares_after(20, 100, [1.0, 1.04]) == [50, 50]
    assert shares_after(20, 10, [1.0, 3.0]) == [5, 5]


def test_a_thread_that_stood_still_once_has_its_share_back():
    bounds, signals, same = equal(2), signals_for(2), np.array([1.0, 1.0])
    after(1, bounds, 100, signals, np.array([1.0, 1000.0]))
    first = np.diff(ends(bounds, 100))
    after(4, bounds, 100, signals, same)
    assert first[1] < 40
    assert np.diff(ends(bounds, 100)).tolist() == [50, 50]


def test_no_pace_is_believed_to_be_next_to_nothing():
    slow = shares_after(50, 512, [1.0, 1e6])[1]
    assert slow == pytest.approx(512 * (LEAST / 2) / (1 + LEAST / 2), rel=0.1)


@njit
def moved(spent, number):
    """Where the first of two parts' shares ends once each has said how long its share of the second pass took, or has
    said nothing."""
    bounds, signals = equal_shares(1, 2)[0], np.zeros(3 * LINE_WORDS, np.int64)
    for part in range(len(spent)):
        say(signals, part, 1, spent[part])
    follow(bounds, 100, signals, number)
    return bounds[1]


def test_shares_follow_what_was_said_of_their_own_pass():
    assert moved(np.array([SHORT, 3 * SHORT]), 1) > 0.5
    assert moved(np.array([SHORT, 3 * SHORT]), 0) == 0.5


def test_shares_stay_where_no_time_is_known():
    assert moved(np.array([2 * SHORT]), 1) == 0.5


def test_shares_stay_where_a_step_is_over_at_once():
    assert moved(np.array([2 * SHORT, SHORT - 1]), 1) == 0.5


@njit
def two_ticks():
    return ticks(), ticks()


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="LLVM names a clock of x86 alone")
def test_the_clock_goes_forward():
    first, second = two_ticks()
    assert 0 < first < second
