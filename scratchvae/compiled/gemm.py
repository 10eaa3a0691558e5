"""The three matrix products of a dense layer, made of tiles: x W, (W da^T)^T and x^T da; of many outputs the second is
made of inner products instead (`inner`).

Every element of a product is one chain of multiply-adds, k ascending. No tile, edge, thread count, split of a batch or
vector width changes that chain, so none of them changes a bit of a result. Where zeros are skipped the terms left out
are exact zeros, so that changes nothing either.

The tiles are compiled once for a dtype, behind a C function; everything else calls it by its address, `kernel(dtype)`.
Numba would otherwise compile them again into each of its callers.
"""

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from scratchvae.compiled.kernel_cache import INLINED, INNER, kernel_cache
from scratchvae.compiled.nonzeros import GROUP, list_nonzeros, pair_alike
from scratchvae.compiled.simd import SIMD, asking_is_enough
from scratchvae.compiled.tile import (
    INDEX,
    INT32,
    LINE_BYTES,
    NARROW,
    NARROW_BYTES,
    PLAIN,
    ROWS_AHEAD,
    SIZES,
    SKIP,
    WHOLE,
    WHOLE_SKIP,
    Row,
    call_llvm,
    element,
    scalar_bytes,
    tile,
)
from scratchvae.compiled.vector_math import activate_row

HEIGHTS, COUNTS, BYTES = SIMD.heights, SIMD.counts, SIMD.bytes
SPARSE_HEIGHTS, SPARSE_COUNTS, NARROW_HEIGHTS = SIMD.sparse_heights, SIMD.sparse_counts, SIMD.narrow_heights
WIDE, WIDE_HEIGHTS = SIMD.wide, SIMD.wide_heights
WHOLE_SIZES, WHOLE_SKIP_SIZES = SIZES[WHOLE], SIZES[WHOLE_SKIP]
ASKS = asking_is_enough()
ROW_BLOCK = 64  # rows whose nonzero places are listed together
DENSE = SIMD.dense
# Not plain values, for each of which Numba would compile the products once more:
NONE = np.intp(0)  # the code of no activation
FRESH = np.bool_(False)  # of sums that do not go on


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
def _claim(context, pointer, distance):
    """Make the cache line that many bytes behind the pointer this core's own: by asking for it, or, where the processor
    leaves a line shared that it has already (`asking_is_enough`), by writing to it what it holds."""

    def emit(context, builder, signature, arguments):
        place = builder.gep(builder.bitcast(arguments[0], ir.IntType(8).as_pointer()), [arguments[1]])
        if ASKS:
            to_write = [INT32(1), INT32(3), INT32(1)]  # soon and again; data, not code
            call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [place, *to_write])
        else:
            word = builder.bitcast(place, INT32.as_pointer())
            # a plain load and a plain store on the processor; being atomic, the compiler may not leave them out
            held = builder.load_atomic(word, "monotonic", 4)
            builder.store_atomic(held, word, "monotonic", 4)
        return context.get_dummy_value()

    return types.void(pointer, types.intp), emit


@njit(**INLINED)
def _largest(sizes, left):
    """The first of the descending sizes that is at most `left`."""
    for size in sizes:
        if size <= left:
            return size
    return 1


def _product(
    item, rows, columns, steps, a, a_row, a_step, b, b_step, start, start_row, c, c_row, activation,
    skip, places, place_row, counts, order, ahead, ahead_lines,
):  # fmt: skip
    """The C function of `kernel`: panels of columns, down each panel tiles. Strides in elements, `item` in bytes."""
    lanes, j, claimed = BYTES // item, 0, 0
    while j < columns:
        left = -(-(columns - j) // lanes)
        widest = SPARSE_COUNTS[0] if skip else COUNTS[0]
        even = -(-left // -(-left // widest))  # panels of much the same width: a thin one is slow
        count = _largest(SPARSE_COUNTS, even) if skip else _largest(COUNTS, even)
        if not skip and 0 < WIDE <= left and left % COUNTS[0] == WIDE % COUNTS[0]:
            count = WIDE  # and whole panels of the widest others are left
        width, i = min(count * lanes, columns - j), 0
        narrow = BYTES < width * item <= BYTES + NARROW_BYTES
        while i < rows:
            height = _largest(HEIGHTS, rows - i)
            if skip:
                height = _largest(SPARSE_HEIGHTS, min(GROUP - i % GROUP, rows - i))
            elif count == WIDE:
                height = _largest(WIDE_HEIGHTS, rows - i)
            group, row, apart = i // GROUP, i, 1
            if skip:
                row = order[i]
                apart = order[i + 1] - row if height > 1 else 1
            place = row * c_row + j
            kind = SKIP if skip else NARROW if narrow and height in NARROW_HEIGHTS else PLAIN
            if width == count * lanes:
                if kind == PLAIN and (height, count) in WHOLE_SIZES:
                    kind = WHOLE
                elif kind == SKIP and (height, count) in WHOLE_SKIP_SIZES:
                    kind = WHOLE_SKIP
            tile(
                kind, height, width, counts[group] if skip else steps,
                _plus(places, group * place_row),
                _plus(a, row * a_row), apart * a_row, a_step, _plus(b, j), b_step,
                _plus(start, row * start_row + j), apart * start_row, _plus(c, place), apart * c_row,
            )  # fmt: skip
            i += height
            if claimed < ahead_lines:  # the same share of the lines as of the product is behind us
                for line in range(claimed, ahead_lines * (j * rows + i * width) // (columns * rows)):
                    _claim(ahead, line * LINE_BYTES)
                    claimed = line + 1
        j += width
    for i in range(rows if activation != 0 else 0):
        activate_row(carray(_plus(c, i * c_row), (columns,)), activation)


def _signature(number):
    p, size, integers = types.CPointer(number), types.intp, types.CPointer(types.int32)
    return types.void(
        size, size, size, size, p, size, size, p, size, p, size, p, size, size, size, integers, size, integers,
        integers, p, size,
    )  # fmt: skip


@cache
def kernel(dtype: DTypeLike) -> int:
    """Address of the product's C function for a dtype; compiled, or read from the cache, at the first call."""
    number = {np.dtype("float32"): types.float32, np.dtype("float64"): types.float64}[np.dtype(dtype)]
    with kernel_cache():
        function = cfunc(_signature(number), cache=True, error_model="numpy")(_product)
    _compiled.append(function)  # its machine code lives as long as it does
    return function.address


_compiled: list[Any] = []


@intrinsic
def _run(context, kernel, a, b, start, c, more, activation, places, counts, order, ahead):
    """Call the C function at address `kernel`. With `places` and `counts` it multiplies at those places alone, by rows
    in that `order`; with `more` c holds sums that go on."""
    names = "kernel", "a", "b", "start", "c", "more", "activation", "places", "counts", "order", "ahead"
    arrays = dict(zip(names, (None, a, b, start, c, None, None, places, counts, order, ahead), strict=True))
    arrays = {name: kind for name, kind in arrays.items() if kind is not None}

    def emit(context, builder, signature, arguments):
        given = dict(zip(names, arguments, strict=True))
        views = {name: context.make_array(kind)(context, builder, given[name]) for name, kind in arrays.items()}

        def strides(name):
            item = INDEX(arrays[name].dtype.bitwidth // 8)
            return [builder.sdiv(stride, item) for stride in cgutils.unpack_tuple(builder, views[name].strides)]

        def filled(name):
            return builder.icmp_unsigned("!=", views[name].nitems, INDEX(0))

        def pointer(name):
            return builder.select(filled(name), views[name].data, ir.Constant(views[name].data.type, None))

        rows, columns = cgutils.unpack_tuple(builder, views["c"].shape)
        steps = builder.extract_value(views["b"].shape, 0)
        a_row, a_step = strides("a")
        (b_step, _), (c_row, _), (place_row, _) = strides("b"), strides("c"), strides("places")
        begin = builder.select(given["more"], views["c"].data, pointer("start"))
        begin_row = builder.select(given["more"], c_row, INDEX(0))
        passed = [
            INDEX(c.dtype.bitwidth // 8), rows, columns, steps, pointer("a"), a_row, a_step,
            pointer("b"), b_step, begin, begin_row, pointer("c"), c_row, given["activation"],
            builder.zext(filled("counts"), INDEX), pointer("places"), place_row, pointer("counts"),
            pointer("order"), pointer("ahead"),
            builder.sdiv(builder.mul(views["ahead"].nitems, views["ahead"].itemsize), INDEX(LINE_BYTES)),
        ]  # fmt: skip
        called = ir.FunctionType(ir.VoidType(), [value.type for value in passed]).as_pointer()
        builder.call(builder.inttoptr(given["kernel"], called), passed)
        return context.get_dummy_value()

    size = types.intp
    return types.void(size, a, b, start, c, types.boolean, size, places, counts, order, ahead), emit


@njit(**INNER)
def product(kernel, a, b, start, c, activation):
    """c_ij = f(start_j + sum_k a_ik b_kj).

    Takes     kernel: `kernel(dtype)`; a (M, K) of any strides; b (K, N); start (N,), or empty for zeros; c (M, N);
              activation: the code of f in `ACTIVATION_CODES`
    """
    none = np.empty(0, np.int32)
    _run(kernel, a, b, start, c, False, activation, np.empty((0, 0), np.int32), none, none, start[:0])


@njit(**INNER)
def product_ahead(kernel, a, b, c, more, ahead):
    """c_ij = sum_k a_ik b_kj.

    Takes     more: whether c holds sums that go on;
              ahead: what the caller, and no other thread, will write next, or empty. Where another core has read it,
              the first write to a line waits until that core has given it up; claimed while there are products to
              compute, the lines are there in time
    """
    none = np.empty(0, np.int32)
    _run(kernel, a, b, ahead[:0], c, more, 0, np.empty((0, 0), np.int32), none, none, ahead)


@njit(**INLINED)
def sparse_product(kernel, a, b, start, c, activation, finite=False):
    """The same as `product` for a that is mostly zero, of contiguous rows: where a group of rows is zero it multiplies
    nothing. It does multiply if that could hide a NaN or an infinity of b, which is looked for unless b is known to be
    finite, or if there are too few zeros after all."""
    if finite or all_finite(b):
        finite_sparse_product(kernel, a, b, start, c, FRESH, activation, start[:0])
    else:
        product(kernel, a, b, start, c, activation)


@njit(**INNER)
def finite_sparse_product(kernel, a, b, start, c, more, activation, ahead):
    """The same for a b that is known to hold neither NaN nor infinity: looking takes a while, so that who multiplies by
    it several times looks once. For more and ahead see `product_ahead`."""
    rows, steps = a.shape
    room = steps + max(BYTES // a.itemsize, ROWS_AHEAD)
    places, counts = np.empty((ROW_BLOCK // GROUP, room), np.int32), np.empty(ROW_BLOCK // GROUP, np.int32)
    order = np.empty(ROW_BLOCK, np.int32)
    for low in range(0, rows, ROW_BLOCK):
        high = min(low + ROW_BLOCK, rows)
        pair_alike(a[low:high], order)
        listed, of = list_nonzeros(a[low:high], order, places, counts), -(-(high - low) // GROUP) * steps
        used = counts if listed < DENSE * of else counts[:0]
        _run(kernel, a[low:high], b, start, c[low:high], more, activation, places, used, order, ahead)
        ahead = ahead[:0]


@njit(**INNER)
def all_finite(b):
    """Whether b holds neither NaN nor infinity: either, less itself, is NaN."""
    for i in range(b.shape[0]):
        row, found = b[i], False
        for j in range(row.size):
            found |= row[j] - row[j] != 0
        if found:
            return False
    return True


@njit(**INNER)
def transpose(source, target):
    """target_ji = source_ij. Takes source (M, N), target (N, M), both of contiguous rows."""
    lanes = BYTES // source.itemsize
    for j in range(0, source.shape[1], lanes):
        for i in range(0, source.shape[0], lanes):
            _transpose_square(source, i, j, target)


@intrinsic
def _transpose_square(context, source, i, j, target):
    """Transpose the square at (i, j), one vector wide, or what is left of it at an edge, in registers."""

    def emit(context, builder, signature, arguments):
        source_array, i, j, target_array = arguments
        scalar = context.get_value_type(source.dtype)
        lanes = SIMD.bytes // scalar_bytes(scalar)
        views = [
            context.make_array(kind)(context, builder, array)
            for kind, array in ((source, source_array), (target, target_array))
        ]
        rows, columns = (
            builder.sub(size, low)
            for size, low in zip(cgutils.unpack_tuple(builder, views[0].shape), (i, j), strict=True)
        )

        fits = (builder.icmp_signed(">=", count, INDEX(lanes)) for count in (rows, columns))
        with builder.if_else(builder.and_(*fits)) as (whole, edge):
            with whole:
                row = Row(builder, scalar, 1, INDEX(lanes), whole=True)
                places = [element(builder, views[0], builder.add(i, INDEX(m)), j) for m in range(lanes)]
                for m, vector in enumerate(_transposed(builder, [row.load(start, 0) for start in places])):
                    row.store_vector(vector, element(builder, views[1], builder.add(j, INDEX(m)), i), 0)
            with edge:  # behind the last row it stands in for others
                row, last = Row(builder, scalar, 1, columns), builder.sub(rows, INDEX(1))
                inside = [
                    builder.select(builder.icmp_signed("<", INDEX(m), rows), INDEX(m), last) for m in range(lanes)
                ]
                vectors = [row.load(element(builder, views[0], builder.add(i, m), j), 0) for m in inside]
                row = Row(builder, scalar, 1, rows)
                for m, vector in enumerate(_transposed(builder, vectors)):
                    with builder.if_then(builder.icmp_signed("<", INDEX(m), columns)):
                        row.store_last([(vector, element(builder, views[1], builder.add(j, INDEX(m)), i))])
        return context.get_dummy_value()

    size = types.intp
    return types.void(source, size, size, target), emit


def _transposed(builder, vectors):
    """The columns of a square of vectors, as vectors: halves off the diagonal of ever larger squares change places."""
    vectors, lanes, distance = list(vectors), len(vectors), 1
    while distance < lanes:
        for m in (m for m in range(lanes) if not m & distance):
            pair = vectors[m], vectors[m + distance]
            upper = [p if not p & distance else lanes + p - distance for p in range(lanes)]
            lower = [p + distance if not p & distance else lanes + p for p in range(lanes)]
            for place, order in ((m, upper), (m + distance, lower)):
                mask = ir.Constant(ir.VectorType(INT32, lanes), order)
                vectors[place] = builder.shuffle_vector(*pair, mask)
        distance *= 2
    return vectors


@intrinsic
def matrix(context, flat, offset, rows, columns):
    """The (rows, columns) matrix that starts `offset` elements into a flat array. The array must outlive it."""

    def emit(context, builder, signature, arguments):
        return matrix_view(context, builder, flat, *arguments)

    return types.Array(flat.dtype, 2, "C")(flat, types.intp, types.intp, types.intp), emit


def matrix_view(context, builder, flat, array, offset, rows, columns):
    """The same of an array of type `flat`, for who writes LLVM code."""
    source = context.make_array(flat)(context, builder, array)
    view = context.make_array(types.Array(flat.dtype, 2, "C"))(context, builder)
    size = INDEX(flat.dtype.bitwidth // 8)
    view.data = builder.gep(source.data, [offset])
    view.nitems, view.itemsize = builder.mul(rows, columns), size
    view.shape = cgutils.pack_array(builder, (rows, columns))
    view.strides = cgutils.pack_array(builder, (builder.mul(columns, size), size))
    view.meminfo = cgutils.get_null_value(view.meminfo.type)
    view.parent = cgutils.get_null_value(view.parent.type)
    return view._getvalue()
