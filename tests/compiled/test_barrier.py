"""Threads that wait for one another."""

from threading import Thread

import numpy as np
import pytest
from numba import njit

from scratchvae.compiled.barrier import meet, signals_for, together


@njit(nogil=True)
def met(signals, part, parts):
    return meet(signals, part, parts)


@njit(nogil=True)
def take_turns(signals, part, parts, steps, shared, seen):
    """Each part writes its number, waits for the others and reads what the next one has written."""
    for step in range(1, steps + 1):
        shared[part, step] = step
        together(signals, part, part + 1, parts)
        seen[part, step] = shared[(part + 1) % parts, step]


@njit
def stand_together(signals, low, high, parts):
    together(signals, low, high, parts)


def run(threads: list[Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("parts", [2, 3])
def test_who_is_alone_works_on_all_parts_and_who_is_late_on_none(parts):
    signals = signals_for(parts)
    assert met(signals, 1, parts) == (0, parts)
    assert met(signals, 0, parts) == (0, 0)
    assert met(signals, 1, parts) == (0, 0)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_who_finds_the_others_works_on_its_own_part(part):
    signals = signals_for(3)
    signals[0] = 2
    assert met(signals, part, 3) == (part, part + 1)
    assert signals[0] == 3


@pytest.mark.parametrize("count", [2, 3])
def test_those_who_meet_work_each_on_its_own_part(count):
    """What a part works on stays in the cache of the thread that worked on it last."""
    parts, signals = {}, signals_for(count)
    met(signals.copy(), 0, count)  # compiled
    run([Thread(target=lambda part=part: parts.update({part: met(signals, part, count)})) for part in range(count)])
    each, alone = [(part, part + 1) for part in range(count)], [(0, 0)] * (count - 1) + [(0, count)]
    assert [parts[part] for part in range(count)] == each or sorted(parts.values()) == alone  # one long after the other


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("steps", [1, 2000])
def test_what_another_wrote_before_it_arrived_is_there(steps, parts):
    signals, shared, seen = signals_for(parts), *(np.zeros((parts, steps + 1), np.int64) for _ in range(2))
    run([Thread(target=take_turns, args=(signals, part, parts, steps, shared, seen)) for part in range(parts)])
    np.testing.assert_array_equal(seen, [np.arange(steps + 1)] * parts)


@pytest.mark.parametrize("high", [2, 0])
def test_who_works_on_all_parts_or_on_none_waits_for_nobody_and_says_nothing(high):
    signals = signals_for(2)
    stand_together(signals, 0, high, 2)
    assert not signals.any()
