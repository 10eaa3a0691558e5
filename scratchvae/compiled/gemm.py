"""The three matrix products of a dense layer, made of tiles: x W, (W da^T)^T and x^T da.

Every element of a product is one chain of multiply-adds, k ascending. No tile, edge, thread count, split of a batch or
vector width changes that chain, so none of them changes a bit of a result. Where zeros are skipped the terms left out
are exact zeros, so that changes nothing either.

The tiles are compiled once for a dtype, behind a C function; everything else calls it by its address, `kernel(dtype)`.
Numba would otherwise compile them again into each of its callers.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.tile import ADAM, INDEX, INT32, SKIP, Row, scalar_bytes, tile
from scratchvae.compiled.vector_math import activate_row

HEIGHTS, COUNTS, SPARSE_COUNTS, BYTES = SIMD.heights, SIMD.counts, SIMD.sparse_counts, SIMD.bytes
ROW_BLOCK = 64  # rows whose nonzero places are listed together
DENSE = 0.6  # share of places that are nonzero in one of two rows, from which skipping the others does not pay


# --- the C function ---------------------------------------------------------------------------------------------------


@intrinsic
def _plus(context, pointer, elements):
    """The pointer, that many elements further on; null stays null."""

    def emit(context, builder, signature, arguments):
        start, distance = arguments
        null = ir.Constant(start.type, None)
        return builder.select(builder.icmp_unsigned("==", start, null), null, builder.gep(start, [distance]))

    return pointer(pointer, types.intp), emit


@intrinsic
def _bits(context, pointer):
    """The same memory, seen as integers."""
    integers = types.CPointer({types.float32: types.int32, types.float64: types.int64}[pointer.dtype])

    def emit(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(integers))

    return integers(pointer), emit


@njit(inline="always")
def _largest(sizes, left):
    """The first of the descending sizes that is at most `left`."""
    for size in sizes:
        if size <= left:
            return size
    return 1


@njit(error_model="numpy")
def _finite(b, b_step, steps, width, exponent):
    """Whether B's panel of `width` columns holds neither NaN nor infinity: their exponent bits are all ones."""
    for k in range(steps):
        row, found = _bits(_plus(b, k * b_step)), 0
        for j in range(width):
            found |= (row[j] & exponent) == exponent
        if found:
            return False
    return True


def _product(
    item, rows, columns, steps, a, a_row, a_step, b, b_step, start, c, c_row, activation,
    adam, first, second, constants, sparse, lists, list_row, counts,
):  # fmt: skip
    """The C function of `kernel`: panels of columns, down each panel the tiles. Strides in elements, `item` in bytes."""
    lanes, j = BYTES // item, 0
    exponent = 0x7F800000 if item == 4 else 0x7FF0000000000000
    while j < columns:
        left = -(-(columns - j) // lanes)
        count = _largest(SPARSE_COUNTS, left)
        skip = sparse and _finite(_plus(b, j), b_step, steps, min(count * lanes, columns - j), exponent)
        if not skip:
            count = _largest(COUNTS, left)
            if count > 2 and left == count + 1:  # two panels of middling width, not a full and a thin one
                count -= 1
        width, i = min(count * lanes, columns - j), 0
        while i < rows:
            height = min(2, rows - i) if skip else _largest(HEIGHTS, rows - i)
            pair, place = i // 2, i * c_row + j
            tile(
                SKIP * skip + ADAM * adam, height, width, counts[pair] if skip else steps, _plus(lists, pair * list_row),
                _plus(a, i * a_row), a_row, a_step, _plus(b, j), b_step, _plus(start, j), _plus(c, place), c_row,
                _plus(first, place), _plus(second, place), constants,
            )  # fmt: skip
            i += height
        j += width
    for i in range(rows if activation != 0 else 0):
        activate_row(carray(_plus(c, i * c_row), (columns,)), activation)


def _signature(number):
    p, size, integers = types.CPointer(number), types.intp, types.CPointer(types.int32)
    return types.void(
        size, size, size, size, p, size, size, p, size, p, p, size, size,
        size, p, p, p, size, integers, size, integers,
    )  # fmt: skip


@cache
def kernel(dtype: DTypeLike) -> int:
    """Address of the product's C function for float32 or float64; compiled, or read from the cache, at the first call."""
    number = {np.dtype("float32"): types.float32, np.dtype("float64"): types.float64}[np.dtype(dtype)]
    return cfunc(_signature(number), cache=True, error_model="numpy")(_product).address


@intrinsic
def _run(context, kernel, a, b, start, c, activation, first_row, last_row, first, second, constants, lists, counts):
    """Call the C function at address `kernel` for rows first_row .. last_row of C."""
    names = "kernel a b start c activation first_row last_row first second constants lists counts".split()
    arrays = {"a": a, "b": b, "start": start, "c": c, "first": first, "second": second, "constants": constants}
    arrays |= {"lists": lists, "counts": counts}

    def emit(context, builder, signature, arguments):
        given = dict(zip(names, arguments, strict=True))
        views = {name: context.make_array(kind)(context, builder, given[name]) for name, kind in arrays.items()}
        first_row = given["first_row"]

        def strides(name):
            item = INDEX(arrays[name].dtype.bitwidth // 8)
            return [builder.sdiv(stride, item) for stride in cgutils.unpack_tuple(builder, views[name].strides)]

        def filled(name):
            return builder.icmp_unsigned("!=", views[name].nitems, INDEX(0))

        def pointer(name, row_stride=None):
            place = views[name].data
            if row_stride is not None:
                place = builder.gep(place, [builder.mul(first_row, row_stride)])
            return builder.select(filled(name), place, ir.Constant(place.type, None))

        rows = builder.sub(given["last_row"], first_row)
        columns, steps = builder.extract_value(views["c"].shape, 1), builder.extract_value(views["b"].shape, 0)
        a_row, a_step = strides("a")
        (b_step, _), (c_row, _), (list_row, _) = strides("b"), strides("c"), strides("lists")
        passed = [
            INDEX(c.dtype.bitwidth // 8), rows, columns, steps, pointer("a", a_row), a_row, a_step,
            pointer("b"), b_step, pointer("start"), pointer("c", c_row), c_row, given["activation"],
            builder.zext(filled("constants"), INDEX), pointer("first", c_row), pointer("second", c_row),
            pointer("constants"), builder.zext(filled("counts"), INDEX), pointer("lists"), list_row, pointer("counts"),
        ]  # fmt: skip
        called = ir.FunctionType(ir.VoidType(), [value.type for value in passed]).as_pointer()
        builder.call(builder.inttoptr(given["kernel"], called), passed)
        return context.get_dummy_value()

    size = types.intp
    return types.void(size, a, b, start, c, size, size, size, first, second, constants, lists, counts), emit


@njit(cache=True, error_model="numpy")
def product(kernel, a, b, start, c, activation, first, second, constants, first_row, last_row, skip_zeros):
    """Rows first_row .. last_row of  c_ij = f(start_j + sum_k a_ik b_kj),  or Adam's step on them with that gradient.

    Takes     kernel: `kernel(dtype)`; a (M, K) of any strides; b (K, N); start (N,), or empty for zeros; c (M, N);
              activation: the code of f in `ACTIVATION_CODES`
              for Adam: c are parameters, first, second (M, N) their moments, all updated in place; constants (4,): rate,
              epsilon, 1 - beta1, 1 - beta2. Without Adam `constants` is empty, first and second any matrix
              skip_zeros: do not multiply where a_ik = a_i'k = 0 for a pair of rows, as long as b is finite: the same
              result, and the faster the more zeros there are
    """
    if not skip_zeros:
        lists, counts = np.empty((0, 0), np.int32), np.empty(0, np.int32)
        _run(kernel, a, b, start, c, activation, first_row, last_row, first, second, constants, lists, counts)
        return
    lists, counts = np.empty((ROW_BLOCK // 2, b.shape[0] + 1), np.int32), np.empty(ROW_BLOCK // 2, np.int32)
    for row in range(first_row, last_row, ROW_BLOCK):
        stop = min(row + ROW_BLOCK, last_row)
        listed = list_nonzeros(a, row, stop, lists, counts)
        kept = counts if listed < DENSE * b.shape[0] * (stop - row + 1) // 2 else counts[:0]
        _run(kernel, a, b, start, c, activation, row, stop, first, second, constants, lists, kept)


@njit(cache=True, error_model="numpy")
def list_nonzeros(a, first_row, last_row, lists, counts):
    """For each two rows of a, the places k in ascending order where one of them is not zero. Returns their total."""
    total = 0
    for i in range(first_row, last_row, 2):
        pair, count = (i - first_row) // 2, 0
        other = min(i + 1, last_row - 1)
        for k in range(a.shape[1]):
            lists[pair, count] = k
            count += (a[i, k] != 0) | (a[other, k] != 0)
        counts[pair] = count
        total += count
    return total


@njit(cache=True, error_model="numpy")
def transpose(source, first_row, last_row, target):
    """target_ji = source_ij for rows first_row .. last_row of the source (M, N); target (N, last_row - first_row)."""
    lanes, j = SIMD.bytes // source.itemsize, 0
    full_rows = first_row + (last_row - first_row) // lanes * lanes
    full_columns = source.shape[1] // lanes * lanes
    for j in range(0, full_columns, lanes):
        for i in range(first_row, full_rows, lanes):
            _transpose_square(source, i, j, target, j, i - first_row)
    for j in range(source.shape[1]):
        for i in range(full_rows if j < full_columns else first_row, last_row):
            target[j, i - first_row] = source[i, j]


@intrinsic
def _transpose_square(context, source, i, j, target, k, n):
    """Transpose the square at (i, j), one vector wide, to (k, n) of the target, in registers."""

    def emit(context, builder, signature, arguments):
        scalar = context.get_value_type(source.dtype)
        lanes = SIMD.bytes // scalar_bytes(scalar)
        row = Row(builder, scalar, 2, INDEX(2 * lanes))

        def rows(array_type, array, i, j):
            view = context.make_array(array_type)(context, builder, array)
            stride = builder.sdiv(builder.extract_value(view.strides, 0), INDEX(scalar_bytes(scalar)))
            first = builder.add(builder.mul(i, stride), j)
            return [builder.gep(view.data, [builder.add(first, builder.mul(stride, INDEX(m)))]) for m in range(lanes)]

        vectors = [row.load(place, 0) for place in rows(source, *arguments[:3])]
        distance = 1
        while distance < lanes:  # swap the off-diagonal halves of ever larger squares
            for m in (m for m in range(lanes) if not m & distance):
                pair = vectors[m], vectors[m + distance]
                upper = [p if not p & distance else lanes + p - distance for p in range(lanes)]
                lower = [p + distance if not p & distance else lanes + p for p in range(lanes)]
                for place, order in ((m, upper), (m + distance, lower)):
                    mask = ir.Constant(ir.VectorType(INT32, lanes), order)
                    vectors[place] = builder.shuffle_vector(*pair, mask)
            distance *= 2
        for vector, place in zip(vectors, rows(target, *arguments[3:]), strict=True):
            row.store_vector(vector, place, 0)
        return context.get_dummy_value()

    size = types.intp
    return types.void(source, size, size, target, size, size), emit


@intrinsic
def matrix(context, flat, offset, rows, columns):
    """The (rows, columns) matrix that starts `offset` elements into a flat array. The array must outlive it."""
    result = types.Array(flat.dtype, 2, "C")

    def emit(context, builder, signature, arguments):
        array, offset, rows, columns = arguments
        source = context.make_array(flat)(context, builder, array)
        view = context.make_array(result)(context, builder)
        size = INDEX(flat.dtype.bitwidth // 8)
        view.data = builder.gep(source.data, [offset])
        view.nitems, view.itemsize = builder.mul(rows, columns), size
        view.shape = cgutils.pack_array(builder, (rows, columns))
        view.strides = cgutils.pack_array(builder, (builder.mul(columns, size), size))
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return result(flat, types.intp, types.intp, types.intp), emit
