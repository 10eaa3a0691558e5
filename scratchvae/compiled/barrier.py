"""Two threads that wait for one another inside a kernel: what one has written before it arrives, the other reads after.

A parallel loop promises no two threads at once: it may run both parts on one, one after the other. So a part first asks
whether the other has come (`meet`), and does the work of both where it has not.
"""

import os

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.tile import INT32, call_llvm, on_x86

LINE = 8  # elements of a cache line: each thread writes to one of its own
SIGNALS = 3 * LINE  # int64, all zero before the loop: who has come, then how many steps each part has done
PATIENCE = 20_000  # turns after which the other thread is not waited for: about half a millisecond
SPINS = 2_000  # turns between two offers of the processor to others
INT64 = ir.IntType(64)


@njit(cache=True, **INNER)
def meet(signals, part):
    """Which parts to work on, (first, last + 1): this one where both threads have come, both or none where not."""
    if _swap(signals, 0, 0, 1) != 0:
        return (part, part + 1) if _swap(signals, 0, 1, 2) == 1 else (0, 0)
    for turn in range(PATIENCE):
        if _read(signals, 0) == 2:
            return part, part + 1
        _breathe(turn)
    return (0, 2) if _swap(signals, 0, 1, 3) == 1 else (part, part + 1)


@njit(cache=True, **INNER)
def arrive(signals, part):
    """Say that a part has done one more step."""
    place = (1 + part) * LINE
    _write(signals, place, _read(signals, place) + 1)


@njit(cache=True, **INNER)
def wait(signals, part):
    """Wait until the other part has done as many steps as this one."""
    done, other, turn = _read(signals, (1 + part) * LINE), (2 - part) * LINE, 0
    while _read(signals, other) < done:
        _breathe(turn)
        turn += 1


@njit(cache=True, **INNER)
def _breathe(turn):
    if turn % SPINS == SPINS - 1:
        _yield()
    else:
        _pause()


def _place(context, builder, kind, array, index):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


@intrinsic
def _read(context, array, index):
    def emit(context, builder, signature, arguments):
        return builder.load_atomic(_place(context, builder, array, *arguments), "acquire", 8)

    return types.int64(array, types.intp), emit


@intrinsic
def _write(context, array, index, value):
    def emit(context, builder, signature, arguments):
        builder.store_atomic(arguments[2], _place(context, builder, array, *arguments[:2]), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), emit


@intrinsic
def _swap(context, array, index, expected, value):
    """What was there; it is `value` now if it was `expected`."""

    def emit(context, builder, signature, arguments):
        place = _place(context, builder, array, *arguments[:2])
        return builder.extract_value(builder.cmpxchg(place, arguments[2], arguments[3], "acq_rel", "acquire"), 0)

    return types.int64(array, types.intp, types.int64, types.int64), emit


@intrinsic
def _pause(context):
    """A hint that the thread spins, where the processor has one that LLVM names."""

    def emit(context, builder, signature, arguments):
        if on_x86(builder):
            call_llvm(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def _yield(context):
    """Offer the processor to other threads."""

    def emit(context, builder, signature, arguments):
        if os.name == "posix":
            call_llvm(builder, "sched_yield", INT32, [])
        return context.get_dummy_value()

    return types.void(), emit
