"""Adam on the weights of inputs that are zero in most of a few examples: each row's gradient is made where it is used.

Of twenty examples a pixel is on in two or three. Its row of dW = x^T da is the sum of as many rows of da, which stay in
the first-level cache: less work than a tile's call, and than a list of zeros. So the sum never leaves the registers
before it is Adam's gradient, and weights and moments are read from end to end, as by a whole block of rows.

On 512-bit registers, as `adam_by_estimates`: on Zen 4 20 cycles a vector of weights, where tiles and Adam behind them
take 27.
"""

from contextlib import contextmanager

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.adam_by_estimates import LANES, loop
from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.tile import INDEX, call_llvm, row_stride

MOST = 32  # examples: one bit each


@njit(**INNER)
def update_by_rows(flat, weight, h, da, first, second, constants):
    """One step on the weights (in, out) that start at flat[weight], of a layer with inputs h (N, in) and finite da
    (N, out), float32, N <= MOST. Returns whether all of the weights are finite now."""
    outputs, examples, finite = da.shape[1], np.zeros(h.shape[1], np.int32), True
    _mark(h, examples)
    for i in range(h.shape[1]):
        start, reach = weight + i * outputs, (h.shape[1] - i) * outputs
        finite &= _update_row(flat, first, second, start, examples[i], h, i, da, constants, reach)
    return finite


@njit(**INNER)
def _mark(h, examples):
    """Set bit n of examples[i] where h[n, i] is not zero."""
    for n in range(h.shape[0]):
        row, bit = h[n], np.int32(np.int32(1) << np.int32(n))
        for i in range(examples.size):
            examples[i] |= bit if row[i] != 0 else np.int32(0)


@intrinsic
def _update_row(context, flat, first, second, start, examples, h, i, da, constants, reach):
    """The step on the row that starts at flat[start], whose gradient is the sum of h[n, i] da[n] over the examples n
    that are marked, in order; for reach see `adam.update`. For vectors of sixteen float32 alone; others are not asked
    for."""

    def emit(context, builder, signature, arguments):
        if flat.dtype != types.float32 or SIMD.bytes != 4 * LANES:
            return ir.Constant(ir.IntType(1), 0)
        kinds = signature.args
        views = {n: context.make_array(kinds[n])(context, builder, arguments[n]) for n in (0, 1, 2, 5, 7, 8)}
        start, examples, i = arguments[3], builder.zext(arguments[4], INDEX), arguments[6]
        h_row, da_row = (row_stride(builder, views[n]) for n in (5, 7))
        passed = [
            builder.extract_value(views[7].shape, 1), *(builder.gep(views[n].data, [start]) for n in range(3)),
            views[8].data, examples, builder.gep(views[5].data, [i]), h_row, views[7].data, da_row,
            arguments[9],
        ]  # fmt: skip
        return builder.call(_function(builder.module), passed)

    size = types.intp
    return types.boolean(flat, first, second, size, types.int32, h, size, da, constants, size), emit


def _function(module):
    name, number = "scratchvae_adam_row", ir.FloatType().as_pointer()
    if name in module.globals:
        return module.globals[name]
    arguments = [INDEX, *[number] * 4, INDEX, number, INDEX, number, INDEX, INDEX]
    function = ir.Function(module, ir.FunctionType(ir.IntType(1), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    size, p, m, v, constants, examples, h, h_row, da, da_row, reach = function.args

    def gradient(row, starts):
        sums = [cgutils.alloca_once(builder, row.vectors[0]) for _ in starts]
        for place in sums:
            builder.store(row.zero(0), place)
        with _each_bit(builder, examples) as n:
            (factor,) = row.broadcast(builder.gep(h, [builder.mul(n, h_row)]))
            of_example = builder.gep(da, [builder.mul(n, da_row)])
            for start, place in zip(starts, sums, strict=True):
                vector = row.load(builder.gep(of_example, [start]), 0)
                builder.store(row.multiply_add(factor, vector, builder.load(place)), place)
        return [builder.load(place) for place in sums]

    loop(builder, size, p, m, v, constants, reach, gradient)
    return function


@contextmanager
def _each_bit(builder, word):
    """A loop over the numbers of the bits that are set, the lowest first."""
    head, body, after = (builder.append_basic_block() for _ in range(3))
    left = cgutils.alloca_once(builder, INDEX)
    builder.store(word, left)
    builder.branch(head)
    builder.position_at_end(head)
    now = builder.load(left)
    builder.cbranch(builder.icmp_unsigned("!=", now, INDEX(0)), body, after)
    builder.position_at_end(body)
    yield call_llvm(builder, "llvm.cttz.i64", INDEX, [now, ir.IntType(1)(True)])
    builder.store(builder.and_(now, builder.sub(now, INDEX(1))), left)
    builder.branch(head)
    builder.position_at_end(after)
