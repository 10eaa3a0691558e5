"""Threads that wait for one another inside a kernel: what one has written before it arrives, the others read after.

A parallel loop promises no two threads at once: it may run all parts on one, one after the other. So a part first asks
whether the others have come (`meet`), and does the work of all where they have not.
"""

import os

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.tile import INT32, call_llvm, on_x86
from scratchvae.parameters import aligned_zeros

LINE_WORDS = 8  # elements of a cache line: each thread writes to one of its own
CLOSED = -1  # instead of how many have come: one of them works alone
PATIENCE = 20_000  # turns after which the other threads are not waited for: about half a millisecond
SPINS = 2_000  # turns between two offers of the processor to others


def signals_for(parts: int) -> NDArray[np.int64]:
    """What so many threads speak by: how many have come; then, a cache line each, how many steps a part has done, and
    behind that what else it says (`shares`, and in `step_by_examples` which rows have gone back)."""
    return aligned_zeros((1 + parts) * LINE_WORDS, np.int64)


@njit(**INNER)
def line_of(part):
    """Where in the signals a part's cache line begins."""
    return (1 + part) * LINE_WORDS


@njit(**INNER)
def meet(signals, part, parts):
    """Which parts to work on, (first, last + 1): this one where all threads have come, all or none where not."""
    before, turn = _read(signals, 0), 0
    while before != CLOSED and _swap(signals, 0, before, before + 1) != before:
        before = _read(signals, 0)
    while True:
        come = _read(signals, 0)
        if come == parts:
            return part, part + 1
        if come == CLOSED:
            return 0, 0
        if turn >= PATIENCE and _swap(signals, 0, come, CLOSED) == come:
            return 0, parts
        _breathe(turn)
        turn += 1


@njit(**INNER)
def together(signals, low, high, parts):
    """Wait until all parts have come this far. Who works on all, from 0 to parts, or on none, waits for nobody."""
    arrive(signals, low, high, parts)
    wait(signals, low, high, parts)


@njit(**INNER)
def arrive(signals, low, high, parts):
    """Say that a part has done one more step."""
    if 0 < high - low < parts:
        _write(signals, line_of(low), _read(signals, line_of(low)) + 1)


@njit(**INNER)
def wait(signals, low, high, parts):
    """Wait until the other parts have done as many steps as this one."""
    if 0 < high - low < parts:
        done, turn = _read(signals, line_of(low)), 0
        for other in range(parts):
            while _read(signals, line_of(other)) < done:
                _breathe(turn)
                turn += 1


@njit(**INNER)
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
