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
RING = 64  # vectors in the queue for Adam: more than two tiles
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


class _AdamQueue:
    """Vectors of gradient that wait for their Adam step, in a ring.

    A square root and a division keep a unit busy that the products leave idle. So a finished tile does not take its
    step at once: it is queued, and the next tile's loop over k takes one vector from the queue every few products, while
    it fetches its own parameters and moments from memory.

    `gradients`  `RING` vectors        `places`  for each its place in the matrices and how many of its elements count;
                 then the running numbers of the first vector queued and of the first free slot
    """

    def __init__(self, builder, scalar, matrices, constants, gradients, places):
        self.builder, self.scalar, self.matrices, self.constants = builder, scalar, matrices, constants
        self.lanes = SIMD.bytes // _bytes(scalar)
        self.gradients, self.places = gradients, places
        self.first, self.free = (builder.gep(places, [INDEX(2 * RING + n)]) for n in (0, 1))

    def _slot(self, number):
        return self.builder.and_(number, INDEX(RING - 1))

    def _gradient(self, slot):
        return self.builder.gep(self.gradients, [self.builder.mul(slot, INDEX(self.lanes))])

    def announce(self, distance, place, left):
        """Note the place of the vector that will be `distance` slots behind the last one queued."""
        slot = self._slot(self.builder.add(self.builder.load(self.free), INDEX(distance)))
        self.builder.store(place, self.builder.gep(self.places, [slot]))
        self.builder.store(left, self.builder.gep(self.places, [self.builder.add(slot, INDEX(RING))]))

    def fetch(self, distance):
        """Ask for the parameters and moments of an announced vector; any number will do."""
        slot = self._slot(self.builder.add(self.builder.load(self.free), distance))
        place = self.builder.load(self.builder.gep(self.places, [slot]))
        for base in self.matrices:
            arguments = [self.builder.gep(base, [place]), INT32(0), INT32(3), INT32(1)]
            _call(self.builder, "llvm.prefetch.p0", ir.VoidType(), arguments)

    def push(self, vectors, row):
        """Queue the gradients of the vectors announced."""
        free = self.builder.load(self.free)
        for distance, vector in enumerate(vectors):
            slot = self._slot(self.builder.add(free, INDEX(distance)))
            row.store_vector(vector, self._gradient(slot), 0)
        self.builder.store(self.builder.add(free, INDEX(len(vectors))), self.free)

    def waiting(self):
        return self.builder.icmp_signed("<", self.builder.load(self.first), self.builder.load(self.free))

    def step(self):
        """Take the first vector's Adam step, in the order of operations of `reference.adam`."""
        builder = self.builder
        number = builder.load(self.first)
        builder.store(builder.add(number, INDEX(1)), self.first)
        slot = self._slot(number)
        place = builder.load(builder.gep(self.places, [slot]))
        row = _Row(builder, self.scalar, 1, builder.load(builder.gep(self.places, [builder.add(slot, INDEX(RING))])))
        gradient = builder.load(row._place(self._gradient(slot), 0))
        gradient.align = row.alignment
        parameters, first, second = (builder.gep(base, [place]) for base in self.matrices)
        rate, epsilon, beta1, rest1, beta2, rest2 = (
            row.broadcast(builder.gep(self.constants, [INDEX(n)])) for n in range(6)
        )
        m = builder.fadd(builder.fmul(beta1, row.load(first, 0)), builder.fmul(rest1, gradient))
        square = builder.fmul(builder.fmul(rest2, gradient), gradient)
        v = builder.fadd(builder.fmul(beta2, row.load(second, 0)), square)
        move = builder.fdiv(builder.fmul(rate, m), builder.fadd(row.square_root(v), epsilon))
        moved = builder.fsub(row.load(parameters, 0), move)
        row.store_last([(moved, parameters), (m, first), (v, second)])


def _while(builder, condition):
    """Blocks of a loop: returns its body's builder position and how to close it."""
    test, body, after = (builder.append_basic_block() for _ in range(3))
    builder.branch(test)
    builder.position_at_end(test)
    builder.cbranch(condition(), body, after)
    builder.position_at_end(body)

    def close():
        builder.branch(test)
        builder.position_at_end(after)

    return close


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
    arguments = [i64, i64, INT32.as_pointer(), s, i64, i64, s, i64, s, s, i64, i64, s, s, s, s, i64.as_pointer()]
    function, builder = _function(module, name, arguments)
    columns, steps, indices, a, a_row, a_step, b, b_step, start, c, place, c_row = function.args[:12]
    first, second, constants, gradients, places = function.args[12:]
    row = _Row(builder, scalar, count, columns)
    tile = [[cgutils.alloca_once_value(builder, row.zero) for _ in range(count)] for _ in range(rows)]
    queue = _AdamQueue(builder, scalar, (c, first, second), constants, gradients, places)

    with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(start, INDEX), INDEX(0))):
        for j in range(count):
            value = row.load(start, j)
            for i in range(rows):
                builder.store(value, tile[i][j])

    def multiply(first_step, last_step):
        with cgutils.for_range_slice(builder, first_step, last_step, INDEX(1), INDEX) as (k, _):
            if indexed:
                k = builder.zext(builder.load(builder.gep(indices, [k])), INDEX)
            b_row = builder.gep(b, [builder.mul(k, b_step)])
            a_column = builder.gep(a, [builder.mul(k, a_step)])
            vectors = [row.load(b_row, j) for j in range(count)]
            for i in range(rows):
                element = row.broadcast(builder.gep(a_column, [builder.mul(a_row, INDEX(i))]))
                for j in range(count):
                    builder.store(row.multiply_add(element, vectors[j], builder.load(tile[i][j])), tile[i][j])

    places_of_rows = [builder.add(place, builder.mul(c_row, INDEX(i))) for i in range(rows)]
    if not adam:
        multiply(INDEX(0), steps)
        for i in range(rows):
            to_row = builder.gep(c, [places_of_rows[i]])
            for j in range(count - 1):
                row.store_vector(builder.load(tile[i][j]), to_row, j)
        row.store_last(
            [(builder.load(tile[i][-1]), builder.gep(c, [places_of_rows[i]])) for i in range(rows)]
        )
        builder.ret_void()
        return function

    for i in range(rows):
        for j in range(count):
            offset = INDEX(j * row.lanes)
            left = INDEX(row.lanes) if j < count - 1 else row.left
            queue.announce(i * count + j, builder.add(places_of_rows[i], offset), left)
    share = builder.sdiv(steps, INDEX(rows * count))
    share = builder.select(builder.icmp_signed("<", share, INDEX(1)), INDEX(1), share)
    with cgutils.for_range_slice(builder, INDEX(0), steps, share, INDEX) as (k, turn):
        stop = builder.add(k, share)
        multiply(k, builder.select(builder.icmp_signed("<", stop, steps), stop, steps))
        with builder.if_then(queue.waiting()):
            queue.step()
        queue.fetch(turn)
    close = _while(builder, queue.waiting)
    queue.step()
    close()
    queue.push([builder.load(vector) for row_of_tile in tile for vector in row_of_tile], row)
    builder.ret_void()
    return function


def _finish_function(module, scalar):
    name = f"scratchvae_finish_{scalar}"
    s = scalar.as_pointer()
    function, builder = _function(module, name, [s, s, s, s, s, INDEX.as_pointer()])
    c, first, second, constants, gradients, places = function.args
    queue = _AdamQueue(builder, scalar, (c, first, second), constants, gradients, places)
    close = _while(builder, queue.waiting)
    queue.step()
    close()
    builder.ret_void()
    return function


def _make_tile(indexed, adam):
    """Intrinsic for a tile of C at `place`, rows x columns:  C_ij = start_j + sum_k A_ik B_kj.

    A null `start` stands for zeros. With `indexed`, k runs over `indices[:steps]`, else over 0 .. steps - 1. With `adam`
    the tile is the gradient of C and joins the queue for Adam's step on C and its moments `first`, `second`.
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
        context, rows, columns, steps, indices, a, a_row, a_step, b, b_step, start, c, place, c_row,
        first, second, constants, gradients, places,
    ):  # fmt: skip
        size = types.intp
        return types.void(
            size, size, size, indices, a, size, size, b, size, start, c, size, size,
            first, second, constants, gradients, places,
        ), emit  # fmt: skip

    return intrinsic(typed)


_tile = _make_tile(indexed=False, adam=False)
_tile_adam = _make_tile(indexed=False, adam=True)
_sparse_tile = _make_tile(indexed=True, adam=False)
_sparse_tile_adam = _make_tile(indexed=True, adam=True)


@intrinsic
def _finish(context, c, first, second, constants, gradients, places):
    """Empty the queue: Adam's step for every vector in it."""

    def emit(context, builder, signature, arguments):
        scalar = context.get_value_type(c.dtype)
        builder.call(_finish_function(builder.module, scalar), arguments)
        return context.get_dummy_value()

    return types.void(c, first, second, constants, gradients, places), emit


@intrinsic
def _plus(context, pointer, elements):
    """The pointer, that many elements further on; null stays null."""

    def emit(context, builder, signature, arguments):
        start, distance = arguments
        null = ir.Constant(start.type, None)
        return builder.select(builder.icmp_unsigned("==", start, null), null, builder.gep(start, [distance]))

    return pointer(pointer, types.intp), emit


@intrinsic
def _gradient_ring(context, pointer):
    """Memory on the stack for the queue's vectors, of the type that `pointer` points to."""

    def emit(context, builder, signature, arguments):
        scalar = context.get_value_type(pointer.dtype)
        block = cgutils.alloca_once(builder, ir.ArrayType(scalar, RING * SIMD.bytes // _bytes(scalar)))
        return builder.bitcast(block, scalar.as_pointer())

    return pointer(pointer), emit


@intrinsic
def _place_ring(context):
    """Memory on the stack for the queue's places and its two running numbers, which are zero."""

    def emit(context, builder, signature, arguments):
        block = builder.bitcast(cgutils.alloca_once(builder, ir.ArrayType(INDEX, 2 * RING + 2)), INDEX.as_pointer())
        for n in (0, 1):
            builder.store(INDEX(0), builder.gep(block, [INDEX(2 * RING + n)]))
        return block

    return types.CPointer(types.intp)(), emit


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
    gradients, places = _gradient_ring(c), _place_ring()
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
                        c, i * c_row + j, c_row, first, second, constants, gradients, places,
                    )  # fmt: skip
                else:
                    _sparse_tile(
                        min(2, rows - i), width, counts[i // 2], _plus(lists, i // 2 * list_row), _plus(a, i * a_row), a_row, a_step, b_panel, b_step, start_panel,
                        c, i * c_row + j, c_row, first, second, constants, gradients, places,
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
                        c, i * c_row + j, c_row, first, second, constants, gradients, places,
                    )  # fmt: skip
                else:
                    _tile(
                        height, width, steps, lists, _plus(a, i * a_row), a_row, a_step, b_panel, b_step, start_panel,
                        c, i * c_row + j, c_row, first, second, constants, gradients, places,
                    )  # fmt: skip
                i += height
        j += width
    if adam:
        _finish(c, first, second, constants, gradients, places)


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
              for Adam: c are parameters, first, second (M, N) their moments, all updated in place; constants (6,): rate,
              epsilon, beta1, 1 - beta1, beta2, 1 - beta2. Without Adam `constants` is empty, first and second any matrix
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
