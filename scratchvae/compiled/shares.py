"""How much of a step's work each thread has: what it gets done while the others do theirs.

Processors of one kind do not always run at one pace. A virtual machine's may be half of a core whose other half another
tenant keeps busy, and then do half as much, now one of them and now the other, for some milliseconds or for seconds;
threads with equal shares spend that time waiting for the slowest. So each says how long its share took, and the next
step's shares are nearer to what would have taken all of them as long.

Every sum has one order, whoever makes it, so no bit depends on the shares.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from scratchvae.compiled.barrier import line_of
from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.tile import call_llvm, on_x86

STEP = 0.6  # of the way to the shares that would have been right, which a passing disturbance changes too
EQUAL = 0.03  # of an equal share: where less than that is between them, shares are equal
LEAST = 1 / 3  # of the mean pace that a thread is believed to have
SHORT = 200_000  # ticks, some 0.1 ms: how long a shorter share takes is chance more than pace
FEW_PIECES = 8  # pieces a thread below which shares are equal
GRAIN = 2  # pieces at a time where there are FEW_PIECES times as many: tiles with fewer rows are slower


@njit(**INNER)
def equal_shares(passes, parts):
    """Where the parts' shares end in each of a step's passes (passes, parts + 1), as fractions of the whole."""
    bounds = np.empty((passes, parts + 1))
    for n in range(passes):
        for part in range(parts + 1):
            bounds[n, part] = part / parts
    return bounds


@njit(**INNER)
def share_of(bounds, pieces, part):
    """First and last + 1 of the pieces that are a part's."""
    return _bound(bounds, pieces, part), _bound(bounds, pieces, part + 1)


@njit(**INNER)
def _bound(bounds, pieces, part):
    parts = bounds.size - 1
    equal, of_each = pieces * part // parts, pieces / parts
    if of_each < FEW_PIECES or abs(bounds[part] * pieces - equal) < EQUAL * of_each:
        return equal
    grain = GRAIN if of_each >= FEW_PIECES * GRAIN else 1
    return np.intp(bounds[part] * pieces / grain + 0.5) * grain


@njit(**INNER)
def say(signals, part, number, spent):
    """How long the part's share of that pass took; the others read it when they have met again."""
    signals[line_of(part) + 1 + number] = spent


@njit(**INNER)
def follow(bounds, pieces, signals, number):
    """Move the shares of a pass towards those with which all parts, each at the pace that it said, would have taken as
    long; not where one has said nothing, or next to nothing. Each thread does so for itself, from the same numbers."""
    parts, total = bounds.size - 1, 0.0
    paces = np.empty(parts)
    for part in range(parts):
        first, last = share_of(bounds, pieces, part)
        spent = signals[line_of(part) + 1 + number]
        if spent < SHORT:
            return
        paces[part] = (last - first) / spent
        total += paces[part]
    least, total = LEAST * total / parts, 0.0
    for part in range(parts):
        paces[part] = max(paces[part], least)
        total += paces[part]
    done = 0.0
    for part in range(1, parts):
        done += paces[part - 1]
        bounds[part] += STEP * (done / total - bounds[part])


@intrinsic
def ticks(context):
    """A clock that all processors share, in units of its own; 0 where LLVM names none that a program may read."""

    def emit(context, builder, signature, arguments):
        if not on_x86(builder):
            return ir.Constant(ir.IntType(64), 0)
        return call_llvm(builder, "llvm.readcyclecounter", ir.IntType(64), [])

    return types.int64(), emit
