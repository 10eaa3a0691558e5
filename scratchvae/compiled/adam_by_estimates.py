"""Adam's loop on 512-bit registers: the processor's root, and a division made of an estimate.

Zen 4 multiplies and adds once a cycle, which bounds the loop. `adam.update_by_arithmetic` takes nine multiplications
and additions for a root and a division: seven for the root, two that the division keeps their unit. Here the root,
which keeps it for two, is the processor's, and the division is an estimate and three.

Intel's processors make two a cycle, and wait for the moments: those of a large model come from the third-level cache or
from memory, 4 KB at most ahead of need, since the processor by itself does not look beyond a page. So they are asked
for two pages ahead.

Numba knows neither estimates nor prefetches, so the vectors are written as LLVM code.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.tile import INDEX, SECOND_LEVEL, Row, call_llvm, prefetch

LANES, TOGETHER = 16, 4
ELEMENTS_AHEAD = 2048  # elements: two pages
LARGEST = float(np.finfo(np.float32).max)


@intrinsic
def update(context, p, g, m, v, constants, reach):
    """`adam.update_by_arithmetic` of float32, by vectors of 512 bits."""

    def emit(context, builder, signature, arguments):
        views = [
            context.make_array(kind)(context, builder, array)
            for kind, array in zip(signature.args[:-1], arguments[:-1], strict=True)
        ]
        size = builder.extract_value(views[0].shape, 0)
        return builder.call(_function(builder.module), [size, *(view.data for view in views), arguments[-1]])

    return types.boolean(p, g, m, v, constants, types.intp), emit


def _function(module):
    name, scalar = "scratchvae_adam", ir.FloatType().as_pointer()
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.IntType(1), [INDEX, *[scalar] * 5, INDEX]), name)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    size, p, g, m, v, constants, reach = function.args

    def gradient(row, starts):
        return [row.load(builder.gep(g, [i]), 0) for i in starts]

    loop(builder, size, p, m, v, constants, reach, gradient)
    return function


def loop(builder, size, p, m, v, constants, reach, gradient):
    """The body of a function that makes the step on so many elements and returns whether p is finite; `gradient` gives
    the vectors of a row that start at some places.

    Whole vectors begin with p's cache lines, and m's and v's, which lie alike. What is left of the last vector comes
    before them, what is left of the first behind them: a masked vector reaches into what stands beside it, and were
    that the next to be loaded, it would wait for the masked store."""
    scalar = ir.FloatType()
    whole = Row(builder, scalar, 1, INDEX(LANES), whole=True)
    settings = [whole.broadcast(builder.gep(constants, [INDEX(n)]))[0] for n in range(5)]
    bits = ir.VectorType(ir.IntType(32), LANES)
    seen = cgutils.alloca_once_value(builder, ir.Constant(bits, None))

    def step(row, starts):
        """Vectors at these places. All are loaded before the first is stored: a load waits for a store to the same
        place of another page."""
        later = builder.add(starts[0], INDEX(ELEMENTS_AHEAD))
        later = builder.select(builder.icmp_signed("<", later, reach), later, starts[0])  # not another thread's
        for moments in (m, v):
            prefetch(builder, builder.gep(moments, [later]), len(starts) * SIMD.bytes, SECOND_LEVEL)
        slopes = gradient(row, starts)
        places = [[builder.gep(array, [i]) for array in (p, m, v)] for i in starts]
        loaded = [[row.load(place, 0) for place in of_vector] for of_vector in places]
        for of_vector, slope, (old, *moments) in zip(places, slopes, loaded, strict=True):
            new = _stepped(row, old, slope, *moments, *settings)
            row.store(list(zip(new, of_vector, strict=True)))
            left_of_itself = builder.bitcast(builder.fsub(new[0], new[0]), bits)
            none = builder.select(row.mask, left_of_itself, ir.Constant(bits, None))
            builder.store(builder.or_(builder.load(seen), none), seen)

    def masked(start, count):
        with builder.if_then(builder.icmp_signed(">", count, INDEX(0))):
            step(Row(builder, scalar, 1, count), [start])

    place = builder.udiv(builder.ptrtoint(p, INDEX), INDEX(SIMD.bytes // LANES))
    first = builder.and_(builder.neg(place), INDEX(LANES - 1))  # to the next line
    first = builder.select(builder.icmp_signed("<", first, size), first, size)
    last = builder.and_(builder.sub(size, first), INDEX(LANES - 1))
    masked(builder.sub(size, last), last)
    low = first
    for vectors in (TOGETHER, 1):
        length = INDEX(vectors * LANES)
        high = builder.add(low, builder.and_(builder.sub(size, low), INDEX(-vectors * LANES)))
        with cgutils.for_range_slice(builder, low, high, length, inc=True) as (i, _):
            step(whole, [builder.add(i, INDEX(n * LANES)) for n in range(vectors)])
        low = high
    masked(INDEX(0), first)
    pattern = builder.bitcast(builder.load(seen), ir.IntType(32 * LANES))
    builder.ret(builder.icmp_unsigned("==", pattern, ir.Constant(pattern.type, 0)))


def _stepped(row, p, g, m, v, one_minus_beta1, beta2, one_minus_beta2, size, epsilon):
    """New p, m and v."""
    builder = row.builder
    first = row.multiply_add(one_minus_beta1, builder.fsub(g, m), m)
    second = row.multiply_add(builder.fmul(one_minus_beta2, g), g, builder.fmul(beta2, v))
    root = call_llvm(builder, f"llvm.sqrt.v{LANES}f32", v.type, [second])
    ratio = _quotient(row, first, builder.fadd(root, epsilon))
    return row.multiply_add(builder.fneg(size), ratio, p), first, second


def _quotient(row, a, b):
    """a / b for b >= 0: by an estimate of 1 / b, right to 2^-14, and again of what that leaves of a. The largest number
    stands for an infinite b, which leaves no number."""
    builder, largest = row.builder, ir.Constant(b.type, [LARGEST] * LANES)
    b = builder.select(builder.fcmp_ordered("<", largest, b), largest, b)  # NaN stays NaN
    estimate = call_llvm(builder, "llvm.x86.avx512.rcp14.ps.512", b.type, [b, row.zero(0), ir.IntType(16)(-1)])
    quotient = builder.fmul(a, estimate)
    remainder = row.multiply_add(builder.fneg(quotient), b, a)
    return row.multiply_add(remainder, estimate, quotient)
