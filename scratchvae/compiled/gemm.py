"""Matrix products: a register-tiled micro-kernel, and the three products of a dense layer made of it.

A tile of C, a few rows high and a few vectors wide, stays in registers while k runs over the whole sum (Goto, van de
Geijn 2008; Van Zee, van de Geijn 2015, BLIS). Numba has no vector types, so the tile is written as LLVM code by an
`@intrinsic`. A is read by its strides, one element at a time, so its transpose is free; B is read by whole vectors,
the last one masked, so no size is special.

Every element of a product is one chain of multiply-adds, k ascending. No tile, edge, thread count, split of a batch or
vector width changes that chain, so none of them changes a bit of a result.

The tiles are compiled once for a dtype, behind a C function; everything else calls it by its address, `kernel(dtype)`.
Numba would otherwise compile them again into each of its callers.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from scratchvae.compiled.simd import SIMD

INDEX, INT32 = ir.IntType(64), ir.IntType(32)
HEIGHTS, COUNTS = SIMD.heights, SIMD.counts  # of tiles: rows and vectors, descending
SPARSE_HEIGHTS, SPARSE_COUNTS = (2, 1), SIMD.sparse_counts
ROW_BLOCK = 64  # rows whose nonzero places are listed together
DENSE = 0.6  # share of places that are nonzero in one of two rows, from which skipping the others does not pay


# --- one tile, as LLVM code -------------------------------------------------------------------------------------------


def _bytes(scalar):
    return 4 if scalar == ir.FloatType() else 8


def _splat(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))


def _call(builder, name, result, arguments):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return builder.call(function, arguments)


class _Row:
    """Loads, stores and arithmetic on a row of `count` vectors that holds `columns` elements: the last is masked."""

    def __init__(self, builder, scalar, count, columns):
        self.builder, self.count = builder, count
        self.lanes = SIMD.bytes // _bytes(scalar)
        self.vector = ir.VectorType(scalar, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * _bytes(scalar)}"
        self.alignment = _bytes(scalar)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.left = builder.sub(columns, INDEX((count - 1) * self.lanes))
        ascending = ir.Constant(ir.VectorType(INT32, self.lanes), list(range(self.lanes)))
        self.mask = builder.icmp_signed(
            "<", ascending, _splat(builder, builder.trunc(self.left, INT32), self.lanes)
        )

    def _place(self, base, j):
        return self.builder.bitcast(self.builder.gep(base, [INDEX(j * self.lanes)]), self.vector.as_pointer())

    def load(self, base, j):
        place = self._place(base, j)
        if j == self.count - 1:
            name = f"llvm.masked.load.{self.suffix}.p0"
            return _call(self.builder, name, self.vector, [place, INT32(self.alignment), self.mask, self.zero])
        value = self.builder.load(place)
        value.align = self.alignment
        return value

    def store_vector(self, value, base, j):
        self.builder.store(value, self._place(base, j)).align = self.alignment

    def store_last(self, pairs):
        """Store each (value, base) of the masked vector; by a plain store if it is whole, which is faster on AVX2."""
        whole = self.builder.icmp_signed(">=", self.left, INDEX(self.lanes))
        with self.builder.if_else(whole) as (then, otherwise):
            with then:
                for value, base in pairs:
                    self.store_vector(value, base, self.count - 1)
            with otherwise:
                for value, base in pairs:
                    place = self._place(base, self.count - 1)
                    name = f"llvm.masked.store.{self.suffix}.p0"
                    _call(self.builder, name, ir.VoidType(), [value, place, INT32(self.alignment), self.mask])

    def broadcast(self, place):
        return _splat(self.builder, self.builder.load(place), self.lanes)

    def multiply_add(self, a, b, c):
        if SIMD.fused:
            return _call(self.builder, f"llvm.fma.{self.suffix}", self.vector, [a, b, c])
        return self.builder.fadd(self.builder.fmul(a, b), c)

    def square_root(self, a):
        return _call(self.builder, f"llvm.sqrt.{self.suffix}", self.vector, [a])

    def divide(self, a, b):
        """a / b for b > 0, to one unit in the last place.

        AVX-512 has an approximate reciprocal of 14 bits; one Newton step doubles them. It is as fast as a
        multiplication, where the divider takes ten cycles and the square root before it another ten.
        """
        if SIMD.name != "avx512" or self.lanes != 16:
            return self.builder.fdiv(a, b)
        large, two = (ir.Constant(self.vector, [value] * self.lanes) for value in (1e38, 2.0))
        b = self.builder.select(self.builder.fcmp_ordered("<", large, b), large, b)  # Newton turns infinity into NaN
        whole = ir.Constant(ir.IntType(16), -1)
        r = _call(self.builder, "llvm.x86.avx512.rcp14.ps.512", self.vector, [b, self.zero, whole])
        r = self.builder.fmul(r, self.multiply_add(self.builder.fneg(b), r, two))
        return self.builder.fmul(a, r)


def _adam(row, gradient, parameters, first, second, constants, j):
    """Values of one vector of parameters and moments after Adam's step; `reference.adam` has the formula."""
    builder = row.builder
    rate, epsilon, rest1, rest2 = (row.broadcast(builder.gep(constants, [INDEX(n)])) for n in range(4))
    m, v = row.load(first, j), row.load(second, j)
    m = row.multiply_add(rest1, builder.fsub(gradient, m), m)
    v = row.multiply_add(rest2, builder.fsub(builder.fmul(gradient, gradient), v), v)
    move = row.divide(builder.fmul(rate, m), builder.fadd(row.square_root(v), epsilon))
    return builder.fsub(row.load(parameters, j), move), m, v


def _function(module, name, arguments):
    """A new LLVM function without result, or None if the module has it; and a builder in it."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, ir.IRBuilder(function.append_basic_block())


def _tile_function(module, scalar, rows, count, indexed, adam):
    """The LLVM function for tiles of `rows` x `count` vectors; `_make_tile` says what it computes."""
    name = f"scratchvae_tile_{scalar}_{rows}x{count}{'_indexed' * indexed}{'_adam' * adam}"
    if name in module.globals:
        return module.globals[name]
    s, i64 = scalar.as_pointer(), INDEX
    arguments = [i64, i64, INT32.as_pointer(), s, i64, i64, s, i64, s, s, i64, s, s, s]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    columns, steps, indices, a, a_row, a_step, b, b_step, start, c, c_row, first, second, constants = function.args
    row = _Row(builder, scalar, count, columns)
    tile = [[cgutils.alloca_once_value(builder, row.zero) for _ in range(count)] for _ in range(rows)]

    with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(start, INDEX), INDEX(0))):
        for j in range(count):
            value = row.load(start, j)
            for i in range(rows):
                builder.store(value, tile[i][j])

    with cgutils.for_range(builder, steps) as loop:
        k = loop.index
        if indexed:
            k = builder.zext(builder.load(builder.gep(indices, [k])), INDEX)
        b_row = builder.gep(b, [builder.mul(k, b_step)])
        a_column = builder.gep(a, [builder.mul(k, a_step)])
        vectors = [row.load(b_row, j) for j in range(count)]
        for i in range(rows):
            element = row.broadcast(builder.gep(a_column, [builder.mul(a_row, INDEX(i))]))
            for j in range(count):
                builder.store(row.multiply_add(element, vectors[j], builder.load(tile[i][j])), tile[i][j])

    last = []
    for i in range(rows):
        bases = [builder.gep(base, [builder.mul(c_row, INDEX(i))]) for base in ((c, first, second) if adam else (c,))]
        for j in range(count):
            value = builder.load(tile[i][j])
            values = _adam(row, value, *bases, constants, j) if adam else [value]
            if j < count - 1:
                for pair in zip(values, bases, strict=True):
                    row.store_vector(*pair, j)
            else:
                last += zip(values, bases, strict=True)
        if adam:
            row.store_last(last)
            last = []
    if last:
        row.store_last(last)
    builder.ret_void()
    return function


def _make_tile(indexed, adam):
    """Intrinsic for a tile of C at `place`, rows x columns:  C_ij = start_j + sum_k A_ik B_kj.

    A null `start` stands for zeros. With `indexed`, k runs over `indices[:steps]`, else over 0 .. steps - 1. With `adam`
    the tile is the gradient of C, and C takes Adam's step with the moments `first`, `second`.
    """
    heights, counts = (SPARSE_HEIGHTS, SPARSE_COUNTS) if indexed else (HEIGHTS, COUNTS)

    def emit(context, builder, signature, arguments):
        rows, columns, *others = arguments
        scalar = context.get_value_type(signature.args[4].dtype)
        lanes = SIMD.bytes // _bytes(scalar)
        count = builder.sdiv(builder.add(columns, INDEX(lanes - 1)), INDEX(lanes))
        after = builder.append_basic_block()
        switch = builder.switch(builder.add(builder.mul(rows, INDEX(16)), count), after)
        for m in heights:
            for n in counts:
                block = builder.append_basic_block()
                switch.add_case(INDEX(m * 16 + n), block)
                builder.position_at_end(block)
                builder.call(_tile_function(builder.module, scalar, m, n, indexed, adam), [columns, *others])
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    def typed(
        context, rows, columns, steps, indices, a, a_row, a_step, b, b_step, start, c, c_row, first, second, constants
    ):  # fmt: skip
        size = types.intp
        return types.void(
            size, size, size, indices, a, size, size, b, size, start, c, size, first, second, constants
        ), emit

    return intrinsic(typed)


_tile = _make_tile(indexed=False, adam=False)
_tile_adam = _make_tile(indexed=False, adam=True)
_sparse_tile = _make_tile(indexed=True, adam=False)
_sparse_tile_adam = _make_tile(indexed=True, adam=True)


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


# --- a product, tile by tile ------------------------------------------------------------------------------------------


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
    item, rows, columns, steps, a, a_row, a_step, b, b_step, start, c, c_row,
    adam, first, second, constants, sparse, lists, list_row, counts,
):  # fmt: skip
    """The C function of `kernel`: panels of columns, down each panel the tiles. Strides in elements, `item` in bytes."""
    lanes = SIMD.bytes // item
    exponent = 0x7F800000 if item == 4 else 0x7FF0000000000000
    j = 0
    while j < columns:
        left = -(-(columns - j) // lanes)
        b_panel, start_panel = _plus(b, j), _plus(start, j)
        count = _largest(SPARSE_COUNTS, left)
        width = min(count * lanes, columns - j)
        if sparse and _finite(b_panel, b_step, steps, width, exponent):
            for i in range(0, rows, 2):
                if adam:
                    _sparse_tile_adam(
                        min(2, rows - i), width, counts[i // 2], _plus(lists, i // 2 * list_row), _plus(a, i * a_row), a_row, a_step, b_panel, b_step, start_panel,
                        _plus(c, i * c_row + j), c_row, _plus(first, i * c_row + j), _plus(second, i * c_row + j), constants,
                    )  # fmt: skip
                else:
                    _sparse_tile(
                        min(2, rows - i), width, counts[i // 2], _plus(lists, i // 2 * list_row), _plus(a, i * a_row), a_row, a_step, b_panel, b_step, start_panel,
                        _plus(c, i * c_row + j), c_row, _plus(first, i * c_row + j), _plus(second, i * c_row + j), constants,
                    )  # fmt: skip
        else:
            count = _largest(COUNTS, left)
            if len(COUNTS) > 2 and left == count + 1:
                count -= 1
            width = min(count * lanes, columns - j)
            i = 0
            while i < rows:
                height = _largest(HEIGHTS, rows - i)
                if adam:
                    _tile_adam(
                        height, width, steps, lists, _plus(a, i * a_row), a_row, a_step, b_panel, b_step, start_panel,
                        _plus(c, i * c_row + j), c_row, _plus(first, i * c_row + j), _plus(second, i * c_row + j), constants,
                    )  # fmt: skip
                else:
                    _tile(
                        height, width, steps, lists, _plus(a, i * a_row), a_row, a_step, b_panel, b_step, start_panel,
                        _plus(c, i * c_row + j), c_row, _plus(first, i * c_row + j), _plus(second, i * c_row + j), constants,
                    )  # fmt: skip
                i += height
        j += width


def _signature(number):
    p, size, integers = types.CPointer(number), types.intp, types.CPointer(types.int32)
    return types.void(
        size, size, size, size, p, size, size, p, size, p, p, size,
        size, p, p, p, size, integers, size, integers,
    )  # fmt: skip


@cache
def kernel(dtype: DTypeLike) -> int:
    """Address of the product's C function for float32 or float64; compiled, or read from the cache, at the first call."""
    number = {np.dtype("float32"): types.float32, np.dtype("float64"): types.float64}[np.dtype(dtype)]
    return cfunc(_signature(number), cache=True, error_model="numpy")(_product).address


@intrinsic
def _run(context, kernel, a, b, start, c, first_row, last_row, first, second, constants, lists, counts):
    """Call the C function at address `kernel` for rows first_row .. last_row of C."""
    names = ["kernel", "a", "b", "start", "c", "first_row", "last_row", "first", "second", "constants", "lists", "counts"]
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
            pointer("b"), b_step, pointer("start"), pointer("c", c_row), c_row,
            builder.zext(filled("constants"), INDEX), pointer("first", c_row), pointer("second", c_row),
            pointer("constants"), builder.zext(filled("counts"), INDEX), pointer("lists"), list_row, pointer("counts"),
        ]  # fmt: skip
        called = ir.FunctionType(ir.VoidType(), [value.type for value in passed]).as_pointer()
        builder.call(builder.inttoptr(given["kernel"], called), passed)
        return context.get_dummy_value()

    size = types.intp
    return types.void(size, a, b, start, c, size, size, first, second, constants, lists, counts), emit


@njit(cache=True, error_model="numpy")
def product(kernel, a, b, start, c, first, second, constants, first_row, last_row, skip_zeros):
    """Rows first_row .. last_row of  c_ij = start_j + sum_k a_ik b_kj,  or Adam's step on them with that gradient.

    Takes     kernel: `kernel(dtype)`; a (M, K) of any strides; b (K, N); start (N,), or empty for zeros; c (M, N)
              for Adam: c are parameters, first, second (M, N) their moments, all updated in place; constants (4,): rate,
              epsilon, 1 - beta1, 1 - beta2. Without Adam `constants` is empty, first and second any matrix
              skip_zeros: do not multiply where a_ik = a_i'k = 0 for a pair of rows, as long as b is finite: the same
              result, and the faster the more zeros there are
    """
    if not skip_zeros:
        lists, counts = np.empty((0, 0), np.int32), np.empty(0, np.int32)
        _run(kernel, a, b, start, c, first_row, last_row, first, second, constants, lists, counts)
        return
    lists, counts = np.empty((ROW_BLOCK // 2, b.shape[0] + 1), np.int32), np.empty(ROW_BLOCK // 2, np.int32)
    for row in range(first_row, last_row, ROW_BLOCK):
        stop = min(row + ROW_BLOCK, last_row)
        listed = list_nonzeros(a, row, stop, lists, counts)
        kept = counts if listed < DENSE * b.shape[0] * (stop - row + 1) // 2 else counts[:0]
        _run(kernel, a, b, start, c, row, stop, first, second, constants, lists, kept)


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
        lanes = SIMD.bytes // _bytes(scalar)
        row = _Row(builder, scalar, 2, INDEX(2 * lanes))

        def rows(array_type, array, i, j):
            view = context.make_array(array_type)(context, builder, array)
            stride = builder.sdiv(builder.extract_value(view.strides, 0), INDEX(_bytes(scalar)))
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
