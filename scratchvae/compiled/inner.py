"""The product A B^T by inner products of rows, vectors running along both.

The tile of `gemm` broadcasts one factor's elements, and the other's rows fill vectors: for this product both A and C
are transposed, and of twenty rows one vector is full and one a quarter. Here all are full, and nothing is transposed;
but an inner product is not one chain of multiply-adds: each lane has one, and the lanes are added in the end, by
halves, which long rows make up for.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from scratchvae.compiled.kernel_cache import INNER
from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.tile import INDEX, INT32, Row, element, row_stride, scalar_bytes

HEIGHT, COLUMNS = SIMD.inner_height, 4  # of a tile: rows of A and of B
TOGETHER = 4  # vectors along rows in a round of a tall tile's loop, whose counting takes the place of multiply-adds


@njit(**INNER)
def inner_products(a, b, c):
    """c_ij = sum_k a_ik b_jk.

    Takes     a (M, K), b (N, K), c (M, N), all of contiguous rows

    b is read from its end to its beginning (see `step_by_weights`); the last tile goes over some rows once more.
    """
    j, columns = b.shape[0], min(COLUMNS, SIMD.bytes // a.itemsize)
    width, tiles = (columns, -(-a.shape[0] // HEIGHT)) if j >= columns else (1, a.shape[0])
    while j > 0:
        j = max(j - width, 0)
        for part in range(tiles):
            low, high = a.shape[0] * part // tiles, a.shape[0] * (part + 1) // tiles
            _tile(a, b, c, low, j, high - low, width)


@intrinsic
def _tile(context, a, b, c, i, j, rows, columns):
    """The products of so many rows of a from row i on with so many of b from row j on."""

    def emit(context, builder, signature, arguments):
        arrays, (i, j, rows, columns) = arguments[:3], arguments[3:]
        scalar = context.get_value_type(a.dtype)
        views = [
            context.make_array(kind)(context, builder, array) for kind, array in zip((a, b, c), arrays, strict=True)
        ]
        passed = [builder.extract_value(views[0].shape, 1)]
        for view, row, column in zip(views, (i, j, i), (INDEX(0), INDEX(0), j), strict=True):
            passed += [element(builder, view, row, column), row_stride(builder, view)]
        after = builder.append_basic_block()
        switch = builder.switch(builder.add(builder.mul(columns, INDEX(HEIGHT + 1)), rows), after)
        widest = min(COLUMNS, SIMD.bytes // scalar_bytes(scalar))
        for m, n in ((1, 1), *((m, widest) for m in range(1, HEIGHT + 1))):
            block = builder.append_basic_block()
            switch.add_case(INDEX(n * (HEIGHT + 1) + m), block)
            builder.position_at_end(block)
            builder.call(_tile_function(builder.module, scalar, m, n), passed)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    size = types.intp
    return types.void(a, b, c, size, size, size, size), emit


def _tile_function(module, scalar, rows, columns):
    """The LLVM function for tiles of so many rows of A and of B."""
    name = f"scratchvae_inner_{scalar}_{rows}x{columns}"
    if name in module.globals:
        return module.globals[name]
    pointer, size = scalar.as_pointer(), INDEX
    arguments = [size, pointer, size, pointer, size, pointer, size]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    steps, a, a_row, b, b_row, c, c_row = function.args
    lanes = INDEX(SIMD.bytes // scalar_bytes(scalar))
    whole = Row(builder, scalar, 1, lanes, whole=True)
    tile = [[cgutils.alloca_once_value(builder, whole.zero(0)) for _ in range(columns)] for _ in range(rows)]
    transposed = [list(column) for column in zip(*tile, strict=True)]
    a_rows = [builder.gep(a, [builder.mul(a_row, INDEX(i))]) for i in range(rows)]
    b_rows = [builder.gep(b, [builder.mul(b_row, INDEX(j))]) for j in range(columns)]

    def step(row, k):
        """Of the fewer rows all vectors are held, of the others one at a time: 3 and 4 rows fill 16 registers."""
        few = len(a_rows) <= len(b_rows)
        held, passing, places = (a_rows, b_rows, transposed) if few else (b_rows, a_rows, tile)
        vectors = [row.load(builder.gep(start, [k]), 0) for start in held]
        for start, sums in zip(passing, places, strict=True):
            other = row.load(builder.gep(start, [k]), 0)
            for vector, place in zip(vectors, sums, strict=True):
                builder.store(row.multiply_add(vector, other, builder.load(place)), place)

    full, low = builder.mul(builder.sdiv(steps, lanes), lanes), INDEX(0)
    for vectors in (TOGETHER, 1) if rows >= HEIGHT - 1 else (1,):
        length = builder.mul(lanes, INDEX(vectors))
        high = builder.mul(builder.sdiv(full, length), length)
        with cgutils.for_range_slice(builder, low, high, length, inc=True) as (k, _):
            for n in range(vectors):
                step(whole, builder.add(k, builder.mul(lanes, INDEX(n))))
        low = high
    left = builder.sub(steps, full)
    with builder.if_then(builder.icmp_signed(">", left, INDEX(0))):
        step(Row(builder, scalar, 1, left), full)

    for i, sums in enumerate(tile):
        row = _sums(builder, [builder.load(place) for place in sums])
        place = builder.gep(c, [builder.mul(c_row, INDEX(i))])
        builder.store(row, builder.bitcast(place, row.type.as_pointer())).align = scalar_bytes(scalar)
    builder.ret_void()
    return function


def _sums(builder, vectors):
    """The sums of the lanes of each of 1, 2 or 4 vectors, as one vector."""
    count, lanes = len(vectors), vectors[0].type.count
    distance = lanes // 2
    while distance:
        if len(vectors) > 1:
            vectors = [_folded(builder, *pair, distance) for pair in zip(vectors[::2], vectors[1::2], strict=True)]
        else:
            vectors = [_folded(builder, vectors[0], vectors[0], distance)]
        distance //= 2
    places = [sum(lanes >> bit + 1 for bit in range(2) if m >> bit & 1) for m in range(count)]
    (sums,) = vectors
    return _shuffled(builder, sums, sums, places)


def _folded(builder, x, y, distance):
    """Lanes so far apart are added: at the first of both the sum of x, at the other that of y."""
    lanes = range(x.type.count)
    if x is y:
        return builder.fadd(x, _shuffled(builder, x, x, [p ^ distance for p in lanes]))
    kept = _shuffled(builder, x, y, [p + len(lanes) if p & distance else p for p in lanes])
    moved = _shuffled(builder, x, y, [p - distance + len(lanes) if p & distance else p + distance for p in lanes])
    return builder.fadd(kept, moved)


def _shuffled(builder, x, y, places):
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT32, len(places)), places))
