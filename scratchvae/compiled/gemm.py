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

INDEX = ir.IntType(64)
ROWS, VECTORS = SIMD.rows, SIMD.vectors


# --- one tile, as LLVM code -------------------------------------------------------------------------------------------


def _bytes(scalar):
    return 4 if scalar == ir.FloatType() else 8


def _splat(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


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
        left = builder.sub(columns, INDEX((count - 1) * self.lanes))
        ascending = ir.Constant(ir.VectorType(INDEX, self.lanes), list(range(self.lanes)))
        self.mask = builder.icmp_signed("<", ascending, _splat(builder, left, self.lanes))

    def _place(self, base, j):
        return self.builder.bitcast(self.builder.gep(base, [INDEX(j * self.lanes)]), self.vector.as_pointer())

    def load(self, base, j):
        place, alignment = self._place(base, j), ir.IntType(32)(self.alignment)
        if j == self.count - 1:
            name = f"llvm.masked.load.{self.suffix}.p0"
            return _call(self.builder, name, self.vector, [place, alignment, self.mask, self.zero])
        value = self.builder.load(place)
        value.align = self.alignment
        return value

    def store(self, value, base, j):
        place, alignment = self._place(base, j), ir.IntType(32)(self.alignment)
        if j == self.count - 1:
            name = f"llvm.masked.store.{self.suffix}.p0"
            _call(self.builder, name, ir.VoidType(), [value, place, alignment, self.mask])
        else:
            self.builder.store(value, place).align = self.alignment

    def broadcast(self, place):
        return _splat(self.builder, self.builder.load(place), self.lanes)

    def multiply_add(self, a, b, c):
        if SIMD.fused:
            return _call(self.builder, f"llvm.fma.{self.suffix}", self.vector, [a, b, c])
        return self.builder.fadd(self.builder.fmul(a, b), c)

    def square_root(self, a):
        return _call(self.builder, f"llvm.sqrt.{self.suffix}", self.vector, [a])


def _adam(row, gradient, parameters, first, second, constants, j):
    """Adam's update of one vector of parameters, in the order of operations of `reference.adam`."""
    builder = row.builder
    rate, epsilon, beta1, rest1, beta2, rest2 = (row.broadcast(builder.gep(constants, [INDEX(n)])) for n in range(6))
    m = builder.fadd(builder.fmul(beta1, row.load(first, j)), builder.fmul(rest1, gradient))
    v = builder.fadd(builder.fmul(beta2, row.load(second, j)), builder.fmul(builder.fmul(rest2, gradient), gradient))
    row.store(m, first, j)
    row.store(v, second, j)
    move = builder.fdiv(builder.fmul(rate, m), builder.fadd(row.square_root(v), epsilon))
    row.store(builder.fsub(row.load(parameters, j), move), parameters, j)


def _tile_function(module, scalar, rows, count, adam):
    """The LLVM function for tiles of `rows` x `count` vectors; `_make_tile` says what it computes."""
    name = f"scratchvae_tile_{scalar}_{rows}x{count}{'_adam' if adam else ''}"
    if name in module.globals:
        return module.globals[name]
    pointer = scalar.as_pointer()
    arguments = [INDEX, INDEX, pointer, INDEX, INDEX, pointer, INDEX, pointer, pointer, INDEX, pointer, pointer, pointer]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    columns, steps, a, a_row, a_step, b, b_step, start, c, c_row, first, second, constants = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    row = _Row(builder, scalar, count, columns)
    tile = [[cgutils.alloca_once_value(builder, row.zero) for _ in range(count)] for _ in range(rows)]

    with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(start, INDEX), INDEX(0))):
        for j in range(count):
            value = row.load(start, j)
            for i in range(rows):
                builder.store(value, tile[i][j])

    with cgutils.for_range(builder, steps) as loop:
        b_row = builder.gep(b, [builder.mul(loop.index, b_step)])
        a_column = builder.gep(a, [builder.mul(loop.index, a_step)])
        vectors = [row.load(b_row, j) for j in range(count)]
        for i in range(rows):
            element = row.broadcast(builder.gep(a_column, [builder.mul(a_row, INDEX(i))]))
            for j in range(count):
                builder.store(row.multiply_add(element, vectors[j], builder.load(tile[i][j])), tile[i][j])

    for i in range(rows):
        to_row = [builder.mul(c_row, INDEX(i))]
        for j in range(count):
            value = builder.load(tile[i][j])
            if adam:
                _adam(row, value, *(builder.gep(p, to_row) for p in (c, first, second)), constants, j)
            else:
                row.store(value, builder.gep(c, to_row), j)
    builder.ret_void()
    return function


def _make_tile(adam):
    """Intrinsic for a tile of C, rows x columns:  C_ij = start_j + sum_k A_ik B_kj.  A null `start` stands for zeros.

    With `adam` the tile is the gradient of C, and C takes Adam's step with the moments `first`, `second`.
    """

    def emit(context, builder, signature, arguments):
        rows, columns, *others = arguments
        scalar = context.get_value_type(signature.args[3].dtype)
        lanes = SIMD.bytes // _bytes(scalar)
        count = builder.sdiv(builder.add(columns, INDEX(lanes - 1)), INDEX(lanes))
        after = builder.append_basic_block()
        switch = builder.switch(builder.add(builder.mul(rows, INDEX(VECTORS + 1)), count), after)
        for m in range(1, ROWS + 1):
            for n in range(1, VECTORS + 1):
                block = builder.append_basic_block()
                switch.add_case(INDEX(m * (VECTORS + 1) + n), block)
                builder.position_at_end(block)
                builder.call(_tile_function(builder.module, scalar, m, n, adam), [columns, *others])
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    def typed(context, rows, columns, steps, a, a_row, a_step, b, b_step, start, c, c_row, first, second, constants):
        size = types.intp
        return types.void(size, size, size, a, size, size, b, size, start, c, size, first, second, constants), emit

    return intrinsic(typed)


_tile = _make_tile(adam=False)
_tile_adam = _make_tile(adam=True)


@intrinsic
def _plus(context, pointer, elements):
    """The pointer, that many elements further on; null stays null."""

    def emit(context, builder, signature, arguments):
        start, distance = arguments
        null = ir.Constant(start.type, None)
        return builder.select(builder.icmp_unsigned("==", start, null), null, builder.gep(start, [distance]))

    return pointer(pointer, types.intp), emit


# --- a product, tile by tile ------------------------------------------------------------------------------------------


def _product(item, rows, columns, steps, a, a_row, a_step, b, b_step, start, c, c_row, first, second, constants, adam):
    """The C function of `kernel`: panels of columns, down each panel the rows. Strides in elements, `item` in bytes."""
    full = VECTORS * SIMD.bytes // item
    lanes = full // VECTORS
    j = 0
    while j < columns:
        left = columns - j
        width = min(left, full)
        if VECTORS > 2 and full < left <= full + lanes:  # two panels of middling width before a full and a thin one
            width = full - lanes
        for i in range(0, rows, ROWS):
            height, place = min(ROWS, rows - i), i * c_row + j
            if adam:
                _tile_adam(
                    height, width, steps, _plus(a, i * a_row), a_row, a_step, _plus(b, j), b_step, start,
                    _plus(c, place), c_row, _plus(first, place), _plus(second, place), constants,
                )  # fmt: skip
            else:
                _tile(
                    height, width, steps, _plus(a, i * a_row), a_row, a_step, _plus(b, j), b_step, _plus(start, j),
                    _plus(c, place), c_row, first, second, constants,
                )  # fmt: skip
        j += width


def _signature(number):
    pointer, size = types.CPointer(number), types.intp
    return types.void(
        size, size, size, size, pointer, size, size, pointer, size, pointer, pointer, size, pointer, pointer, pointer, size
    )


@cache
def kernel(dtype: DTypeLike) -> int:
    """Address of the product's C function for float32 or float64; compiled, or read from the cache, at the first call."""
    number = {np.dtype("float32"): types.float32, np.dtype("float64"): types.float64}[np.dtype(dtype)]
    return cfunc(_signature(number), cache=True)(_product).address


@intrinsic
def _run(context, kernel, a, b, start, c, first_row, last_row, first, second, constants):
    """Call the C function at address `kernel` for rows first_row .. last_row of C."""
    arrays = {"a": a, "b": b, "start": start, "c": c, "first": first, "second": second, "constants": constants}

    def emit(context, builder, signature, arguments):
        names = ["kernel", "a", "b", "start", "c", "first_row", "last_row", "first", "second", "constants"]
        given = dict(zip(names, arguments, strict=True))
        views = {n: context.make_array(t)(context, builder, given[n]) for n, t in arrays.items()}
        item = INDEX(c.dtype.bitwidth // 8)

        def strides(name):
            in_bytes = cgutils.unpack_tuple(builder, views[name].strides)
            return [builder.sdiv(stride, item) for stride in in_bytes]

        def pointer(name, row_stride=None):
            view = views[name]
            place = view.data if row_stride is None else builder.gep(view.data, [builder.mul(first_row, row_stride)])
            null = ir.Constant(place.type, None)
            return builder.select(builder.icmp_unsigned("==", view.nitems, INDEX(0)), null, place)

        first_row = given["first_row"]
        rows = builder.sub(given["last_row"], first_row)
        columns, steps = builder.extract_value(views["c"].shape, 1), builder.extract_value(views["b"].shape, 0)
        a_row, a_step = strides("a")
        (b_step, _), (c_row, _) = strides("b"), strides("c")
        adam = builder.zext(builder.icmp_unsigned("!=", views["constants"].nitems, INDEX(0)), INDEX)
        passed = [
            item, rows, columns, steps, pointer("a", a_row), a_row, a_step, pointer("b"), b_step, pointer("start"),
            pointer("c", c_row), c_row, pointer("first", c_row), pointer("second", c_row), pointer("constants"), adam,
        ]  # fmt: skip
        called = ir.FunctionType(ir.VoidType(), [p.type for p in passed]).as_pointer()
        builder.call(builder.inttoptr(given["kernel"], called), passed)
        return context.get_dummy_value()

    return types.void(types.intp, a, b, start, c, types.intp, types.intp, first, second, constants), emit


@njit(cache=True)
def product(kernel, a, b, start, c, first_row, last_row):
    """Rows first_row .. last_row of  c_ij = start_j + sum_k a_ik b_kj.  An empty `start` stands for zeros.

    Takes     kernel: `kernel(dtype)`; a (M, K) of any strides; b (K, N); start (N,) or (0,); c (M, N), overwritten
    """
    none, no_matrix = start[:0], c[:0]
    _run(kernel, a, b, start, c, first_row, last_row, no_matrix, no_matrix, none)


@njit(cache=True)
def product_adam(kernel, a, b, c, first, second, constants, first_row, last_row):
    """Rows first_row .. last_row of c take Adam's step for the gradient  sum_k a_ik b_kj, which is never stored.

    Takes     kernel: `kernel(dtype)`; a (M, K) of any strides; b (K, N); c, first, second (M, N): parameters and their
              moments, updated; constants (6,): rate, epsilon, beta1, 1 - beta1, beta2, 1 - beta2
    """
    _run(kernel, a, b, constants[:0], c, first_row, last_row, first, second, constants)


@njit(cache=True, error_model="numpy")
def transpose_rows(source, first_row, last_row, target):
    """target_ji = source_ij for rows first_row .. last_row of the source (M, N); target (N, last_row - first_row)."""
    for j in range(source.shape[1]):
        for i in range(first_row, last_row):
            target[j, i - first_row] = source[i, j]


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
