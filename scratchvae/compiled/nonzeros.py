"""Where rows are not zero: lists of places, so that a product multiplies at these alone.

A few rows share a list, as they share a tile, and where one of them is zero and another is not the tile multiplies by
zero. Of what relu leaves half is zero, here and there: of two rows' places three quarters are then not. But units that
see the same things are on together, in most examples, and like examples have the same units on. So of such rows each is
put together with the one most like it, which leaves a tenth fewer places. An element's sum is the same in any order of
the rows.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.tile import BYTE, INDEX, INT32, ROWS_AHEAD, Row, call_llvm, element, scalar_bytes, splat

GROUP = SIMD.sparse_heights[0]  # rows that share a list
ALIKE = 0.4  # share of places that are not zero from which it pays to look which rows are alike
WORD = 64  # columns that are compared at once
FOUR_FLOATS = ir.VectorType(ir.FloatType(), 4)


@njit(**INNER)
def list_nonzeros(a, order, places, counts):
    """For each group of rows of a (M, K), taken in that order, the places k, ascending, where one of them is not zero.
    Returns their total.

    Fills     places (M / GROUP, > K), with room for one vector and ROWS_AHEAD numbers behind K: a tile asks for rows
              ahead, behind a list's end for row 0; counts (M / GROUP,): how many
    """
    lanes, total = SIMD.bytes // a.itemsize, 0
    for low in range(0, a.shape[0], GROUP):
        group, count = low // GROUP, 0
        rows = taken(order, low, a.shape[0] - 1)
        for k in range(0, a.shape[1], lanes):
            columns = min(lanes, a.shape[1] - k)
            count += append_nonzeros(a, rows, k, columns, places, group, count)
        counts[group] = count
        places[group, count : count + ROWS_AHEAD] = 0
        total += count
    return total


@njit(**INNER)
def pair_alike(a, order):
    """Fill `order` with the rows of a (M, K) so that two that share a list are alike; where more share one, with the
    rows as they are."""
    for i in range(a.shape[0]):
        order[i] = i
    if GROUP == 2:
        pair(a, order)


@njit(**INNER)
def pair(a, order):
    """To each row of a (M, K) in turn comes the one of those left that differs from it in the fewest places, being zero
    or not; `order` holds all rows as they are."""
    rows = a.shape[0]
    if a.shape[1] < WORD:
        return
    masks = np.empty((a.shape[1] // WORD, rows), np.int64)
    if not _mask(a, masks):
        return
    differences = np.empty(rows, np.int64)
    for i in range(0, rows - 2, 2):
        _count_differences(masks, i, differences)
        mate = i + 1
        for j in range(i + 2, rows):
            mate = j if differences[j] < differences[mate] else mate
        order[i + 1], order[mate] = order[mate], order[i + 1]
        for w in range(masks.shape[0]):
            masks[w, i + 1], masks[w, mate] = masks[w, mate], masks[w, i + 1]


@njit(**INNER)
def _mask(a, masks):
    """A bit for each element, whether it is not zero, into masks (K / WORD, M); what is left of K is not looked at.
    Returns whether enough are: if the first eight rows have too few, it ends there."""
    found = 0
    for i in range(masks.shape[1]):
        for w in range(masks.shape[0]):
            masks[w, i] = nonzero_bits(a, i, w * WORD)
            found += ones(masks[w, i])
        if i == 7 and found < ALIKE * 8 * masks.shape[0] * WORD:
            return False
    return True


@njit(**INNER)
def _count_differences(masks, i, differences):
    """In how many places one of row i and each row is zero and the other is not."""
    for j in range(differences.size):
        differences[j] = 0
    for w in range(masks.shape[0]):
        own, others = masks[w, i], masks[w]
        for j in range(differences.size):
            differences[j] += ones(own ^ others[j])


# --- vectors ----------------------------------------------------------------------------------------------------------


@intrinsic
def taken(context, order, low, last):
    """The rows of a group: order[low], order[low + 1], ...; the last stands for those behind it."""

    def emit(context, builder, signature, arguments):
        data, (low, last) = context.make_array(order)(context, builder, arguments[0]).data, arguments[1:]
        positions = [builder.add(low, INDEX(m)) for m in range(GROUP)]
        inside = [builder.select(builder.icmp_signed("<", p, last), p, last) for p in positions]
        rows = [builder.zext(builder.load(builder.gep(data, [p])), INDEX) for p in inside]
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(types.intp, GROUP)(order, types.intp, types.intp), emit


@intrinsic
def append_nonzeros(context, a, rows, k, columns, places, group, count):
    """Append to a list of `count` places, row `group` of them, where one of a group's rows of `a` is not zero.

    Takes     a: those rows, and columns k .. k + columns - 1, at most a vector
    Returns   how many were appended
    """

    def emit(context, builder, signature, arguments):
        view_a, view_places = (
            context.make_array(kind)(context, builder, arguments[n]) for kind, n in ((a, 0), (places, 4))
        )
        group_rows, k, columns, group, count = (arguments[n] for n in (1, 2, 3, 5, 6))
        scalar = context.get_value_type(a.dtype)
        row = Row(builder, scalar, 1, columns)
        integers = ir.VectorType(ir.IntType(8 * scalar_bytes(scalar)), row.lanes)
        numbers = ir.VectorType(INT32, row.lanes)
        found = ir.Constant(integers, None)
        for i in cgutils.unpack_tuple(builder, group_rows):
            found = builder.or_(found, builder.bitcast(row.load(element(builder, view_a, i, k), 0), integers))
        mask = builder.icmp_unsigned("!=", found, ir.Constant(integers, None))
        ascending = ir.Constant(numbers, list(range(row.lanes)))
        columns_here = builder.add(ascending, splat(builder, builder.trunc(k, INT32), row.lanes))
        place = builder.bitcast(element(builder, view_places, group, count), numbers.as_pointer())
        builder.store(_compressed(builder, columns_here, mask), place).align = 4
        bits = builder.bitcast(mask, ir.IntType(row.lanes))
        return builder.zext(builder.ctpop(bits), INDEX)

    size = types.intp
    return size(a, rows, size, size, places, size, size), emit


def _compressed(builder, numbers, mask):
    """The vector's numbers that the mask names, one behind the other; behind them stands anything."""
    if SIMD.name == "avx2":
        return _compressed_by_table(builder, numbers, mask)
    name = f"llvm.experimental.vector.compress.v{numbers.type.count}i32"
    return call_llvm(builder, name, numbers.type, [numbers, mask, ir.Constant(numbers.type, ir.Undefined)])


def _compressed_by_table(builder, numbers, mask):
    """The same by a permutation that a table holds for every mask: AVX2 has no instruction for it, and what LLVM makes
    instead goes through memory a number at a time."""
    count = numbers.type.count
    bits = builder.zext(builder.bitcast(mask, ir.IntType(count)), INDEX)
    start = builder.gep(_permutations(builder.module, count), [INDEX(0), bits])
    short = builder.load(builder.bitcast(start, ir.VectorType(BYTE, count).as_pointer()))
    short.align = 1
    kind, name = {8: (numbers.type, "llvm.x86.avx2.permd"), 4: (FOUR_FLOATS, "llvm.x86.avx.vpermilvar.ps")}[count]
    moved = call_llvm(builder, name, kind, [builder.bitcast(numbers, kind), builder.zext(short, numbers.type)])
    return builder.bitcast(moved, numbers.type)


def _permutations(module, count):
    """For every mask of so many numbers: those that come first, second, ..."""
    name = f"scratchvae_compress_{count}"
    if name not in module.globals:
        kind = ir.ArrayType(ir.ArrayType(BYTE, count), 1 << count)
        table = ir.GlobalVariable(module, kind, name)
        table.linkage, table.global_constant = "internal", True
        named = ([n for n in range(count) if mask >> n & 1] for mask in range(1 << count))
        table.initializer = ir.Constant(kind, [row + [0] * (count - len(row)) for row in named])
    return module.globals[name]


@intrinsic
def nonzero_bits(context, a, i, k):
    """A bit for each of WORD columns from k on in row i of a: whether it is not zero."""

    def emit(context, builder, signature, arguments):
        view, i, k = arguments
        scalar = context.get_value_type(a.dtype)
        lanes = SIMD.bytes // scalar_bytes(scalar)
        row = Row(builder, scalar, WORD // lanes, INDEX(WORD), whole=True)
        start, word = element(builder, context.make_array(a)(context, builder, view), i, k), INDEX(0)
        for j in range(row.count):
            mask = builder.fcmp_unordered("!=", row.load(start, j), row.zero(j))
            bits = builder.zext(builder.bitcast(mask, ir.IntType(lanes)), INDEX)
            word = builder.or_(word, builder.shl(bits, INDEX(j * lanes)))
        return word

    size = types.intp
    return size(a, size, size), emit


@intrinsic
def ones(context, bits):
    """How many bits are set."""
    return types.int64(bits), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])
