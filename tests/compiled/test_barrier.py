"""Two threads that wait for one another."""

from threading import Thread

import numpy as np
import pytest
from numba import njit

from scratchvae.compiled.barrier import SIGNALS, arrive, meet, wait


@njit(nogil=True)
def met(signals):
    return meet(signals)


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
    assert met(signals) == (0, 2)
    assert met(signals) == (0, 0)
    assert met(signals) == (0, 0)


def test_who_finds_another_takes_the_second_part():
    signals = np.zeros(SIGNALS, np.int64)
    signals[0] = 1
    assert met(signals) == (1, 2)
    assert signals[0] == 2


def test_the_first_takes_the_first_part_when_another_comes():
    parts, signals = [], np.zeros(SIGNALS, np.int64)
    met(signals.copy())  # compiled
    threads = [Thread(target=lambda: parts.append(met(signals))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(parts) in ([(0, 1), (1, 2)], [(0, 0), (0, 2)])  # side by side, or one long after the other


@pytest.mark.parametrize("steps", [1, 2000])
def test_what_the_other_wrote_before_it_arrived_is_there(steps):
    signals, shared, seen = (np.zeros(n, np.int64) for n in (SIGNALS, (2, steps + 1), (2, steps + 1)))
    threads = [Thread(target=take_turns, args=(signals, part, steps, shared, seen)) for part in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(seen, [np.arange(steps + 1)] * 2)
