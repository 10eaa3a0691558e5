"""Adam on the weights of pixels that are black in most of a few examples: each row's gradient is made where it is used.

Of twenty examples a pixel is on in two or three. Its row of dW = x^T da is the sum of as many rows of da, which stay in
the first-level cache: less work than a tile's call, and than a list of zeros. So the sum never leaves the registers
before it is Adam's gradient, and weights and moments are read from end to end, as by a whole block of rows.

For Zen 4, as `adam_by_estimates`: 20 cycles a vector of weights, where tiles and Adam behind them take 27.
"""

from contextlib import contextmanager

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.adam_by_estimates import loop
from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.tile import INDEX, call_llvm

MOST = 32  # examples: one bit each


@njit(cache=True, error_model="numpy", **INNER)
def update_by_rows(p, m, v, h, da, constants):
    """One step on the weights p (in, out), with their moments, of a layer with inputs h (N, in) and finite da (N, out),
    float32, N <= MOST. Returns whether all of p is finite now."""
    examples, finite = np.zeros(h.shape[1], np.int32), True
    _mark(h, examples)
    for i in range(h.shape[1]):
        finite &= _update_row(p[i], m[i], v[i], examples[i], h, i, da, constants)
    return finite


@njit(cache=True, error_model="numpy", **INNER)
def _mark(h, examples):
    """Set bit n of examples[i] where h[n, i] is not zero."""
    for n in range(h.shape[0]):
        row, bit = h[n], np.int32(np.int32(1) << np.int32(n))
        for i in range(examples.size):
            examples[i] |= bit if row[i] != 0 else np.int32(0)


@intrinsic
def _update_row(context, p, m, v, examples, h, i, da, constants):
    """The step on row i, whose gradient is the sum of h[n, i] da[n] over the examples n that are marked, in order."""

    def emit(context, builder, signature, arguments):
        of_row = [context.make_array(p)(context, builder, arguments[n]).data for n in range(3)]
        examples, i = builder.zext(arguments[3], INDEX), arguments[5]
        h_view, da_view = (context.make_array(kind)(context, builder, arguments[n]) for kind, n in ((h, 4), (da, 6)))
        settings = context.make_array(constants)(context, builder, arguments[7]).data
        (_, inputs), (_, outputs) = (cgutils.unpack_tuple(builder, view.shape) for view in (h_view, da_view))
        passed = [outputs, *of_row, settings, examples, builder.gep(h_view.data, [i]), inputs, da_view.data]
        return builder.call(_function(builder.module), passed)

    return types.boolean(p, m, v, types.int32, h, types.intp, da, constants), emit


def _function(module):
    name, number = "scratchvae_adam_row", ir.FloatType().as_pointer()
    if name in module.globals:
        return module.globals[name]
    arguments = [INDEX, *[number] * 4, INDEX, number, INDEX, number]
    function = ir.Function(module, ir.FunctionType(ir.IntType(1), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    size, p, m, v, constants, examples, h, h_row, da = function.args

    def gradient(row, starts):
        sums = [cgutils.alloca_once(builder, row.vectors[0]) for _ in starts]
        for place in sums:
            builder.store(row.zero(0), place)
        with _each_bit(builder, examples) as n:
            (factor,) = row.broadcast(builder.gep(h, [builder.mul(n, h_row)]))
            of_example = builder.gep(da, [builder.mul(n, size)])
            for start, place in zip(starts, sums, strict=True):
                vector = row.load(builder.gep(of_example, [start]), 0)
                builder.store(row.multiply_add(factor, vector, builder.load(place)), place)
        return [builder.load(place) for place in sums]

    loop(builder, size, p, m, v, constants, gradient)
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
