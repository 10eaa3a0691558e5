"""Two threads that wait for one another."""

from threading import Thread

import numpy as np
import pytest
from numba import njit

from scratchvae.compiled.barrier import SIGNALS, arrive, meet, wait


@njit(nogil=True)
def met(signals, part):
    return meet(signals, part)


@njit(nogil=True)
def take_turns(signals, part, steps, shared, seen):
    """Each part writes its number, waits for the other and reads what that has written."""
    for step in range(1, steps + 1):
        shared[part, step] = step
        arrive(signals, part)
        wait(signals, part)
        seen[part, step] = shared[1 - part, step]


def test_who_is_alone_works_on_both_parts_and_who_is_late_on_none():
    signals = np.zeros(SIGNALS, np.int64)
    assert met(signals, 1) == (0, 2)
    assert met(signals, 0) == (0, 0)
    assert met(signals, 1) == (0, 0)


@pytest.mark.parametrize("part", [0, 1])
def test_who_finds_another_works_on_its_own_part(part):
    signals = np.zeros(SIGNALS, np.int64)
    signals[0] = 1
    assert met(signals, part) == (part, part + 1)
    assert signals[0] == 2


def test_two_who_meet_work_each_on_its_own_part():
    """The weights of a part stay in the cache of the thread that worked on them last."""
    parts, signals = {}, np.zeros(SIGNALS, np.int64)
    met(signals.copy(), 0)  # compiled
    threads = [Thread(target=lambda part=part: parts.update({part: met(signals, part)})) for part in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    both = {0: (0, 1), 1: (1, 2)}, {0: (0, 0), 1: (0, 2)}, {0: (0, 2), 1: (0, 0)}
    assert parts in both  # side by side, or one long after the other


@pytest.mark.parametrize("steps", [1, 2000])
def test_what_the_other_wrote_before_it_arrived_is_there(steps):
    signals, shared, seen = (np.zeros(n, np.int64) for n in (SIGNALS, (2, steps + 1), (2, steps + 1)))
    threads = [Thread(target=take_turns, args=(signals, part, steps, shared, seen)) for part in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(seen, [np.arange(steps + 1)] * 2)
