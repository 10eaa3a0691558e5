"""Philox4x32-10 of many counters (Salmon et al. 2011, section 3.3), written as LLVM code.

A word of 32 bits is the lower half of a lane of 64, whose upper half is arbitrary. So a round is two products of 32 by
32 bits, two moves of a product's upper half into the lower, and two exclusive ors of three: nothing is packed or
unpacked. Numba's loops would move by shifts, which Intel's processors make where they multiply; shuffles they make
elsewhere. A round waits for the one before: several vectors side by side take less time than one after the other.
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.tile import INDEX, INT32, splat
from scratchvae.reference.random import LOW_WORD, PHILOX_MULTIPLIERS, PHILOX_WEYL_INCREMENTS

ROUNDS = 10
VECTORS = 4  # side by side
LANES = SIMD.bytes // 8
COUNTERS = VECTORS * LANES  # together
LANE_TYPE, HALF_TYPE = ir.VectorType(INDEX, LANES), ir.VectorType(INT32, 2 * LANES)
UPPER = [half | 1 for half in range(2 * LANES)]  # of every lane the upper half, in both places
PAIRS = [half + half % 2 * (2 * LANES - 1) for half in range(2 * LANES)]  # the lower halves of two vectors' lanes


@njit(**INNER)
def philox(number, counters, step, stream, key0, key1, even, odd):
    """Words of counters (block, example, step, stream), of a multiple of COUNTERS. An element of `counters` is a block,
    its lower half, and an example; half an element behind the last is read too. Words 0 and 2 are an element of `even`,
    1 and 3 one of `odd`, the first the lower: the radii and the angles of normals."""
    for i in range(0, number, COUNTERS):
        _philox(counters, i, step, stream, key0, key1, even, odd)


@intrinsic
def _philox(context, counters, i, step, stream, key0, key1, even, odd):
    """Those from i on."""

    def emit(context, builder, signature, arguments):
        view, i, step, stream, key0, key1, *views = arguments
        of_counters, to_even, to_odd = (
            context.make_array(kind)(context, builder, given).data
            for kind, given in zip((counters, even, odd), (view, *views), strict=True)
        )

        def place(data, vector):
            start = builder.gep(data, [builder.add(i, INDEX(vector * LANES))])
            return builder.bitcast(start, LANE_TYPE.as_pointer())

        def load(vector, half):
            """Lanes whose lower half is that half of a counter: the upper one if read from the middle of the first."""
            start = builder.bitcast(place(of_counters, vector), INT32.as_pointer())
            loaded = builder.load(builder.bitcast(builder.gep(start, [INDEX(half)]), LANE_TYPE.as_pointer()))
            loaded.align = 4
            return loaded

        same = [splat(builder, word, LANES) for word in (step, stream)]
        words = [(load(v, 0), load(v, 1), *same) for v in range(VECTORS)]
        for number in range(ROUNDS):
            keys = [
                splat(builder, builder.add(key, INDEX(number * increment)), LANES)
                for key, increment in zip((key0, key1), PHILOX_WEYL_INCREMENTS, strict=True)
            ]
            words = [_round(builder, *of_vector, *keys) for of_vector in words]
        for v, (a, b, c, d) in enumerate(words):
            builder.store(_halves(builder, a, c, PAIRS), place(to_even, v)).align = 8
            builder.store(_halves(builder, b, d, PAIRS), place(to_odd, v)).align = 8
        return context.get_dummy_value()

    size = types.intp
    return types.void(counters, size, size, size, size, size, even, odd), emit


def _round(builder, a, b, c, d, k0, k1):
    product_0, product_1 = (_product(builder, *pair) for pair in zip((a, c), PHILOX_MULTIPLIERS, strict=True))
    upper_0, upper_1 = (_halves(builder, product, product, UPPER) for product in (product_0, product_1))
    first, third = builder.xor(builder.xor(upper_1, b), k0), builder.xor(builder.xor(upper_0, d), k1)
    return first, product_1, third, product_0


def _product(builder, word, multiplier):
    low = builder.and_(word, ir.Constant(LANE_TYPE, [LOW_WORD] * LANES))
    return builder.mul(low, ir.Constant(LANE_TYPE, [int(multiplier)] * LANES))


def _halves(builder, x, y, places):
    """A vector of these halves of lanes of x and, behind them, of y."""
    halves = [builder.bitcast(vector, HALF_TYPE) for vector in (x, y)]
    return builder.bitcast(builder.shuffle_vector(*halves, ir.Constant(HALF_TYPE, places)), LANE_TYPE)
