"""How long idle threads of OpenMP stay awake: a moment.

A thread that has nothing to do waits for the next parallel loop, and one that has done its part for the others. GNU's
library lets it spin for 300,000 turns, up to 16 milliseconds, before it sleeps. Where processors are shared, it takes
them from the very thread it waits for: two programs of two threads each on two processors come to take twenty times as
long as one. 10,000 turns are more than Python needs from one operation to the next, so that where processors are free
nothing is lost; with 1,000 a sixth of a step's time is.
"""

import os
from functools import cache
from importlib import import_module

TURNS = 10_000
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # of the user, who may know better


@cache
def load_openmp() -> None:
    """Load the library that Numba's threads use, if there is one: it reads its settings then and never again. The
    environment stays as it is, and after the first call nothing is done."""
    if any(name in os.environ for name in SETTINGS):
        return
    os.environ[SETTINGS[0]] = str(TURNS)
    try:
        import_module("numba.np.ufunc.omppool")
    except ImportError:
        pass  # Numba has threads of another kind
    finally:
        os.environ.pop(SETTINGS[0], None)  # another thread's first call may have done it
