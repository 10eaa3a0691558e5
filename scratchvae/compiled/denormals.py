"""Numbers too small for a full mantissa, below 1.2e-38 in float32 and 2.2e-308 in float64: a training step takes them
for zero.

Intel's processors need some 150 cycles for one multiply-add with such a number, and training makes them by the million:
Adam's moments of a pixel that stays black decay through them, and the weights of IWAE's unlikely samples are small
exponentials, which every gradient behind them multiplies. Without this mode a step of IWAE takes 20 times as long. JAX
and TensorFlow compute so too; torch does on request.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.tile import INDEX, INT32, call_llvm, on_x86

FLUSH = 0x8040  # of x86's control register MXCSR: small results become zero, and small operands count as zero


@intrinsic
def mode(context):
    """What the thread does with such numbers now; always 0 on processors that compute with them at full speed."""

    return types.int64(), lambda context, builder, signature, arguments: read_mode(builder)


@intrinsic
def set_mode(context, mode):
    """From here on, in this thread."""

    def emit(context, builder, signature, arguments):
        write_mode(builder, *arguments)
        return context.get_dummy_value()

    return types.void(mode), emit


def read_mode(builder):
    """`mode` for who writes LLVM code."""
    place = cgutils.alloca_once_value(builder, INT32(0))
    _control(builder, "llvm.x86.sse.stmxcsr", place)
    return builder.zext(builder.load(place), INDEX)


def write_mode(builder, mode):
    """`set_mode` for who writes LLVM code."""
    place = cgutils.alloca_once(builder, INT32)
    builder.store(builder.trunc(mode, INT32), place)
    _control(builder, "llvm.x86.sse.ldmxcsr", place)


def _control(builder, name, place):
    """Move the control register to or from memory, where there is one."""
    if on_x86(builder):
        call_llvm(builder, name, ir.VoidType(), [builder.bitcast(place, ir.IntType(8).as_pointer())])
