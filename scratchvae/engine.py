"""Chooses where operations come from: `"reference"` (NumPy, to be read) or `"compiled"` (Numba, to be run).

Both are packages that offer the same functions under the same names, so the model is written once.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import ModuleType
from typing import Any

from scratchvae.arguments import one_of
from scratchvae.openmp import load_openmp

ENGINES = ("reference", "compiled")


def check_engine(name: str) -> str:
    """The name, if there is such an engine. Raises ValueError for any other."""
    return one_of("engine", name, ENGINES)


def get_engine(name: str) -> ModuleType:
    """The package of operations called `name`. Raises ValueError for a name that is neither."""
    if check_engine(name) == "compiled":
        load_openmp()
    return importlib.import_module(f"scratchvae.{name}")


def set_threads(threads: int) -> None:
    """Use this many threads in compiled operations. Results do not depend on it.

    Raises ValueError unless 1 <= threads <= the number of processors Numba was started with.
    """
    numba = _numba()
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= threads <= most:
        raise ValueError(f"threads is {threads}; expected 1 to {most}, as many as Numba was started with")
    numba.set_num_threads(threads)


def get_threads() -> int:
    """How many threads compiled operations use."""
    return int(_numba().get_num_threads())


def _numba() -> ModuleType:
    """Numba, which starts its threads when it is first asked for their number."""
    load_openmp()
    import numba

    return numba


@contextmanager
def one_order_of_sums(engine: str) -> Iterator[None]:
    """While it lasts, an engine's results are the same bits for any number of threads.

    The compiled engine's always are. NumPy's matrix library sums in another order with every number of threads, so
    under the reference engine it keeps to one.
    """
    if engine != "reference":
        yield
        return
    _ONE_MATRIX_THREAD.enter()
    try:
        yield
    finally:
        _ONE_MATRIX_THREAD.leave()


class _OneMatrixThread:
    """Keeps NumPy's matrix library to one thread as long as anyone is inside, who may come and go in any order.

    The library's number of threads is the process's: what one of several Python threads finds there may be what another
    has set for a while.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.inside = 0
        self.limits: Any = None

    def enter(self) -> None:
        from threadpoolctl import threadpool_limits

        with self.lock:
            if self.inside == 0:
                self.limits = threadpool_limits(1, "blas")
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.limits.restore_original_limits()


_ONE_MATRIX_THREAD = _OneMatrixThread()


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """One thread for compiled operations and NumPy's matrix products while it lasts, if `wanted`.

    For work so small that a second thread only waits, and burns a processor doing so. Results do not depend on it.
    """
    if not wanted:
        yield
        return
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with one_compiled_thread(), threadpool_limits(1):
        yield


@contextmanager
def one_compiled_thread(wanted: bool = True) -> Iterator[None]:
    """The same for compiled operations alone: to come and go takes no time."""
    if not wanted:
        yield
        return
    before = get_threads()
    set_threads(1)
    try:
        yield
    finally:
        set_threads(before)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
