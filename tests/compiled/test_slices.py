"""Into how many slices work is split: as many as threads are in use, where there is enough of it."""

import os
import subprocess
import sys

import numba
import pytest

from scratchvae.compiled.slices import WORTH_A_THREAD, slices_for
from scratchvae.engine import get_threads, set_threads

MOST = numba.config.NUMBA_NUM_THREADS


@pytest.mark.parametrize("threads", range(1, MOST + 1))
def test_large_work_has_a_slice_for_every_thread_in_use(threads):
    before = get_threads()
    set_threads(threads)
    try:
        assert slices_for(1_000_000, WORTH_A_THREAD) == threads
        assert slices_for(2 * WORTH_A_THREAD, 1.0) == min(threads, 2)
        assert slices_for(2 * WORTH_A_THREAD - 1, 1.0) == 1
    finally:
        set_threads(before)


def test_threads_are_counted_in_a_process_that_has_started_none():
    """The kernel that counts them calls a function that is there from their start on."""
    script = "from scratchvae.compiled.slices import slices_for; print(slices_for(1_000_000, 4_000))"
    environment = os.environ | {"NUMBA_NUM_THREADS": str(MOST)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(MOST)), done.stderr
