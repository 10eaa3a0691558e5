"""One tile of a matrix product in vector registers, written as LLVM code: Numba has no vector types of its own.

A tile of C, a few rows high and a few vectors wide, stays in registers while k runs over the whole sum (Goto, van de
Geijn 2008; Van Zee, van de Geijn 2015, BLIS). A is read by its strides, one element at a time, so its transpose is
free; B is read by whole vectors, the last one masked, so no size is special.

Every element is one chain of multiply-adds, k ascending, whatever the tile's shape or the vector's width.
"""

from itertools import product

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.simd import SIMD

INDEX, INT32, BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)

PLAIN, SKIP, NARROW, WHOLE, WHOLE_SKIP = range(5)  # kinds of tiles
NARROW_BYTES = 16
LINE_BYTES = 64  # bytes of a cache line
FIRST_LEVEL, SECOND_LEVEL = 3, 2  # of caches, as LLVM names how soon something is needed
ROWS_AHEAD = 8  # of B, asked for before their turn: a processor does not by itself where they lie far apart
HIGH, WIDE = 9, 10  # more than a tile has rows, and vectors: a tile's number is made of its kind, vectors and rows
WIDE_COUNTS = (SIMD.wide,) if SIMD.wide else ()
SIZES = {  # rows and vectors
    PLAIN: (*product(SIMD.heights, SIMD.counts), *product(SIMD.wide_heights, WIDE_COUNTS)),
    SKIP: (*product(SIMD.sparse_heights, SIMD.sparse_counts),),
    NARROW: (*product(SIMD.narrow_heights, (2,)),),
    WHOLE: (*product(SIMD.heights[:1], SIMD.counts[:2]), *product(SIMD.wide_heights[:1], WIDE_COUNTS)),  # the usual
    WHOLE_SKIP: (*product(SIMD.sparse_heights[:1], SIMD.sparse_counts[:2]),),
}


def on_x86(builder):
    return builder.module.triple.startswith(("x86", "i386", "i686"))


def scalar_bytes(scalar):
    if isinstance(scalar, ir.IntType):
        return scalar.width // 8
    return 8 if scalar == ir.DoubleType() else 4


def row_stride(builder, view):
    """Elements from one row of a matrix to the next."""
    return builder.sdiv(builder.extract_value(view.strides, 0), INDEX(scalar_bytes(view.data.type.pointee)))


def element(builder, view, i, j):
    """Pointer to an element of a matrix whose rows are contiguous."""
    return builder.gep(view.data, [builder.add(builder.mul(i, row_stride(builder, view)), j)])


def splat(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))


def call_llvm(builder, name, result, arguments):
    """Call a function that LLVM or the C library has under this name."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [a.type for a in arguments]), name
    )
    return builder.call(function, arguments)


def _opaque(builder, pointer):
    """The pointer, or a distance, LLVM being told nothing of how it was made: it keeps it in a register, and does not
    make it anew in every round of a loop."""
    return builder.asm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0", [pointer], False)


def prefetch(builder, place, size, locality=FIRST_LEVEL):
    """Ask for `size` bytes, to read them, into that cache and those above it."""
    start = builder.bitcast(place, BYTE.as_pointer())
    for distance in range(0, size, LINE_BYTES):
        line = builder.gep(start, [INDEX(distance)])
        arguments = [line, *map(INT32, (0, locality, 1))]  # to read it; data, not code
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), arguments)


def _suffix(vector):
    return f"v{vector.count}f{8 * scalar_bytes(vector.element)}"


class Row:
    """Loads, stores and arithmetic on a row of `count` vectors that holds `columns` elements: the last is of
    `last_bytes`, and masked unless the row is known to be `whole`."""

    def __init__(self, builder, scalar, count, columns, last_bytes=SIMD.bytes, whole=False):
        self.builder, self.count, self.whole = builder, count, whole
        self.alignment = scalar_bytes(scalar)
        self.lanes, self.last_lanes = SIMD.bytes // self.alignment, last_bytes // self.alignment
        full, last = (ir.VectorType(scalar, lanes) for lanes in (self.lanes, self.last_lanes))
        self.vectors = [full] * (count - 1) + [last]
        self.left = builder.sub(columns, INDEX((count - 1) * self.lanes))
        ascending = ir.Constant(ir.VectorType(INT32, self.last_lanes), list(range(self.last_lanes)))
        left = splat(builder, builder.trunc(self.left, INT32), self.last_lanes)
        self.mask = builder.icmp_signed("<", ascending, left)

    def zero(self, j):
        return ir.Constant(self.vectors[j], [0.0] * self.vectors[j].count)

    def _place(self, base, j):
        return self.builder.bitcast(self.builder.gep(base, [INDEX(j * self.lanes)]), self.vectors[j].as_pointer())

    def load(self, base, j):
        place = self._place(base, j)
        if j == self.count - 1 and not self.whole:
            name = f"llvm.masked.load.{_suffix(self.vectors[j])}.p0"
            return call_llvm(
                self.builder, name, self.vectors[j], [place, INT32(self.alignment), self.mask, self.zero(j)]
            )
        value = self.builder.load(place)
        value.align = self.alignment
        return value

    def store_vector(self, value, base, j):
        self.builder.store(value, self._place(base, j)).align = self.alignment

    def store(self, pairs):
        """Store each (value, base) of the last vector, masked or not."""
        if not self.whole:
            self.store_last(pairs)
            return
        for value, base in pairs:
            self.store_vector(value, base, self.count - 1)

    def store_last(self, pairs):
        """Store each (value, base) of the masked vector; by a plain store if it is whole, which is faster on AVX2."""
        whole = self.builder.icmp_signed(">=", self.left, INDEX(self.last_lanes))
        with self.builder.if_else(whole) as (then, otherwise):
            with then:
                for value, base in pairs:
                    self.store_vector(value, base, self.count - 1)
            with otherwise:
                for value, base in pairs:
                    place = self._place(base, self.count - 1)
                    name = f"llvm.masked.store.{_suffix(value.type)}.p0"
                    call_llvm(self.builder, name, ir.VoidType(), [value, place, INT32(self.alignment), self.mask])

    def broadcast(self, place):
        """An element in all lanes, for each vector of the row."""
        element = self.builder.load(place)
        return [splat(self.builder, element, vector.count) for vector in self.vectors]

    def multiply_add(self, a, b, c):
        if SIMD.fused:
            return call_llvm(self.builder, f"llvm.fma.{_suffix(c.type)}", c.type, [a, b, c])
        return self.builder.fadd(self.builder.fmul(a, b), c)


class Sums:
    """The sums of a tile, `rows` x `row.count` vectors, in registers."""

    def __init__(self, builder, row, rows):
        self.builder, self.row, self.rows = builder, row, rows
        self.places = [[cgutils.alloca_once_value(builder, row.zero(j)) for j in range(row.count)] for _ in range(rows)]

    def load(self, start, start_row):
        """What they begin with, unless `start` is null and that is zero."""
        builder, row, rows = self.builder, self.row, range(self.rows)
        given = builder.icmp_unsigned("!=", builder.ptrtoint(start, INDEX), INDEX(0))
        same = builder.icmp_unsigned("==", start_row, INDEX(0))
        with builder.if_then(given), builder.if_else(same) as (one_row, all_rows):
            with one_row:
                for j in range(row.count):
                    value = row.load(start, j)
                    for i in rows:
                        builder.store(value, self.places[i][j])
            with all_rows:
                for i in rows:
                    base = builder.gep(start, [builder.mul(start_row, INDEX(i))])
                    for j in range(row.count):
                        builder.store(row.load(base, j), self.places[i][j])

    def add(self, a_places, b_row):
        """One more addend: a row of B by the elements of A at these places. Registers hold the row, and one element at
        a time; where that leaves too few for the sums, the elements, and one vector of the row."""
        row, rows = self.row, range(self.rows)
        if (self.rows + 1) * row.count + 1 <= SIMD.registers:
            vectors = [row.load(b_row, j) for j in range(row.count)]
            for i in rows:
                for j, element in enumerate(row.broadcast(a_places(i))):
                    self._add(i, j, element, vectors[j])
        else:
            elements = [row.broadcast(a_places(i)) for i in rows]
            for j in range(row.count):
                vector = row.load(b_row, j)
                for i in rows:
                    self._add(i, j, elements[i][j], vector)

    def _add(self, i, j, element, vector):
        place = self.places[i][j]
        self.builder.store(self.row.multiply_add(element, vector, self.builder.load(place)), place)

    def store(self, c, c_row):
        builder, last = self.builder, []
        for i in range(self.rows):
            base = builder.gep(c, [builder.mul(c_row, INDEX(i))])
            for j in range(self.row.count - 1):
                self.row.store_vector(builder.load(self.places[i][j]), base, j)
            last.append((builder.load(self.places[i][-1]), base))
        self.row.store_last(last)


def _tile_function(module, scalar, rows, count, kind):
    """The LLVM function for tiles of `rows` x `count` vectors; `tile` says what it computes."""
    name = f"scratchvae_tile_{scalar}_{rows}x{count}_{kind}"
    if name in module.globals:
        return module.globals[name]
    s, i64 = scalar.as_pointer(), INDEX
    arguments = [i64, i64, INT32.as_pointer(), s, i64, i64, s, i64, s, i64, s, i64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("optsize")  # no unrolled loops: a step is many instructions, and LLVM would take longer
    builder = ir.IRBuilder(function.append_basic_block())
    columns, steps, indices, a, a_row, a_step, b, b_step, start, start_row, c, c_row = function.args
    last_bytes, whole = NARROW_BYTES if kind == NARROW else SIMD.bytes, kind in (WHOLE, WHOLE_SKIP)
    row = Row(builder, scalar, count, columns, last_bytes, whole)
    sums = Sums(builder, row, rows)
    sums.load(start, start_row)
    a_rows = [_opaque(builder, builder.gep(a, [builder.mul(a_row, INDEX(i))])) for i in range(rows)]

    def step(k, a_column):
        sums.add(lambda i: builder.gep(a_rows[i], [a_column]), row_of_b(k))

    def row_of_b(k):
        return builder.gep(b, [builder.mul(k, b_step)])

    if kind in (SKIP, WHOLE_SKIP):
        with cgutils.for_range(builder, steps) as loop:
            now, later = (builder.gep(indices, [builder.add(loop.index, INDEX(n))]) for n in (0, ROWS_AHEAD))
            k, later = (builder.zext(builder.load(place), INDEX) for place in (now, later))
            prefetch(builder, row_of_b(later), count * SIMD.bytes)
            step(k, k)
    else:  # nothing is asked for beyond the end: what stands there may be another thread's
        distance = _opaque(builder, builder.mul(b_step, INDEX(ROWS_AHEAD)))
        asked = builder.sub(steps, INDEX(ROWS_AHEAD))
        asked = builder.select(builder.icmp_signed(">", asked, INDEX(0)), asked, INDEX(0))
        with cgutils.for_range_slice(builder, INDEX(0), asked, INDEX(1), inc=True) as (k, _):
            prefetch(builder, builder.gep(row_of_b(k), [distance]), count * SIMD.bytes)
            step(k, builder.mul(k, a_step))
        with cgutils.for_range_slice(builder, asked, steps, INDEX(1), inc=True) as (k, _):
            step(k, builder.mul(k, a_step))

    sums.store(c, c_row)
    builder.ret_void()
    return function


@intrinsic
def tile(context, kind, rows, columns, steps, indices, a, a_row, a_step, b, b_step, start, start_row, c, c_row):
    """Tile of C, rows x columns:  C_ij = start_ij + sum_k A_ik B_kj.

    Takes     pointers, and strides in elements; rows, columns: a height and a number of vectors that `SIMD` lists;
              start: null stands for zeros, a stride of 0 for the same row everywhere, C itself for a sum that goes on;
              kind: PLAIN if k runs over 0 .. steps - 1, SKIP if over `indices[:steps]`,
              behind which ROWS_AHEAD more rows of B are named, with contiguous rows of A,
              NARROW as PLAIN with NARROW_BYTES for the last vector, WHOLE as PLAIN and WHOLE_SKIP as SKIP for a last
              vector that is full: on Intel's processors a mask takes the place of a multiply-add
    """

    def emit(context, builder, signature, arguments):
        kind, rows, columns, *others = arguments
        scalar = context.get_value_type(signature.args[5].dtype)
        lanes = INDEX(SIMD.bytes // scalar_bytes(scalar))
        count = builder.sdiv(builder.add(columns, builder.sub(lanes, INDEX(1))), lanes)
        key = builder.add(builder.mul(builder.add(builder.mul(kind, INDEX(WIDE)), count), INDEX(HIGH)), rows)
        after = builder.append_basic_block()
        switch = builder.switch(key, after)
        for number, sizes in SIZES.items():
            for m, n in sizes:
                block = builder.append_basic_block()
                switch.add_case(INDEX((number * WIDE + n) * HIGH + m), block)
                builder.position_at_end(block)
                builder.call(_tile_function(builder.module, scalar, m, n, number), [columns, *others])
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    size = types.intp
    return types.void(size, size, size, size, indices, a, size, size, b, size, start, size, c, size), emit
