"""How rows are split between threads: contiguous slices, one a thread, and one slice where the work is small.

No result depends on the split: every row is computed alone. The split is that of `network`, so that a thread finds in
its cache the rows it wrote itself.
"""

from collections.abc import Callable
from functools import cache

import numba
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.kernel_cache import KERNEL
from scratchvae.compiled.tile import INDEX

WORTH_A_THREAD = 4_000  # nanoseconds of work: about what it takes to wake a thread and to wait for it


def slices_for(elements: int, nanoseconds: float) -> int:
    """Into how many slices to split work on so many elements that take about so many nanoseconds each."""
    slices = int(elements * nanoseconds) // WORTH_A_THREAD
    return min(_counter()(), slices) if slices > 1 else 1


@intrinsic
def threads(context):
    """`numba.get_num_threads()` in a kernel that can be kept on disk: the symbol that Numba's parallel loops call."""

    def emit(context, builder, signature, arguments):
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(INDEX, []), "get_num_threads")
        return builder.call(function, [])

    return types.intp(), emit


@njit(**KERNEL)
def _threads():
    """`numba.get_num_threads()` without its two locks, which take microseconds where caches are full of numbers."""
    return threads()


@cache
def _counter() -> Callable[[], int]:
    """`_threads`, once Numba has started them: there is no such symbol before."""
    numba.get_num_threads()
    return _threads
