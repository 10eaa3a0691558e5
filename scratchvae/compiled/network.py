"""Twin of `reference.network`: a stack of dense layers, each pass one compiled call and one parallel region.

Forward and backward split the rows between threads: a thread takes its rows through all layers, and never waits for
another. The sums over rows split the weights: a thread owns some rows of every weight, of their moments and of their
gradients. Every element is summed in one order, so the number of threads changes no bit (see `gemm`).

A kernel finds all layers in flat arrays, by the network's table. The three kernels have one list of arguments, so one
parallel loop serves them all, and every architecture.
"""

from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike, NDArray

from scratchvae.compiled.adam import adam_constants, update
from scratchvae.compiled.denormals import FLUSH, read_mode, write_mode
from scratchvae.compiled.gemm import (
    DENSE,
    NONE,
    all_finite,
    finite_sparse_product,
    kernel,
    matrix,
    product,
    product_ahead,
    sparse_product,
    transpose,
)
from scratchvae.compiled.inner import inner_products
from scratchvae.compiled.kernel_cache import INLINED, INNER, KERNEL
from scratchvae.compiled.memory import keep_freed_memory
from scratchvae.compiled.nonzeros import GROUP
from scratchvae.compiled.slices import threads
from scratchvae.compiled.tile import LINE_BYTES
from scratchvae.compiled.vector_math import activation_backward_row
from scratchvae.parameters import ACTIVATION_CODES, Network

BLOCK = 96  # rows that go back through the layers together: their transposed deltas stay in the second-level cache
LONG = 400  # outputs from which inner products are faster than transposes, or nearly, for any number of rows
GRADIENT_BLOCK = 32_768  # elements of a gradient that go to Adam while they are in the second-level cache
PARALLEL = 1_000_000  # multiply-adds below which waking a second thread gains little, and on a busy machine loses much
RELU = ACTIVATION_CODES["relu"]  # leaves zeros: often for all samples of one example
NO_ROWS = -1  # work that is split by weights

keep_freed_memory()


class NetworkCache(NamedTuple):
    x: NDArray  # (N, in)
    hidden: NDArray  # outputs of all layers but the last, one after the other, each (N, out)


class NetworkDeltas(NamedTuple):
    x: NDArray  # (N, in)
    hidden: NDArray  # as in the cache
    hidden_das: NDArray  # d loss / d pre-activation of the layers in `hidden`, in the same places
    dout: NDArray  # (N, out): the same of the last layer, which is linear


# --- forward ----------------------------------------------------------------------------------------------------------


@njit(**INNER)
def _forward(
    kernel, flat, table, x, hidden, hidden_das, out, finite, first, second, constants, spans, low, high, parts,
):  # fmt: skip
    """Rows low .. high - 1, through all layers, into `hidden` and `out`. For `finite` see `_gradient`."""
    rows, place, h = x.shape[0], 0, x
    for layer in range(table.shape[0]):
        inputs, outputs, weight, bias, activation = _row(table, layer)
        target = out
        if layer < table.shape[0] - 1:
            target = matrix(hidden, place, rows, outputs)
            place += rows * outputs
        w, b = matrix(flat, weight, inputs, outputs), flat[bias : bias + outputs]
        # of the data only these rows are looked at: the others may not have been written yet
        zeros = mostly_zero(x[low:high]) if layer == 0 else table[layer - 1, 4] == RELU
        if zeros:
            sparse_product(kernel, h[low:high], w, b, target[low:high], activation, _all(finite, layer))
        else:
            product(kernel, h[low:high], w, b, target[low:high], activation)
        h = target


def network_forward(x: NDArray, network: Network) -> tuple[NDArray, NetworkCache]:
    """See `reference.network.network_forward`. Raises ValueError for an x of another width."""
    flat, layers = network.flat, network.layers
    x = _plain(x, flat.dtype)
    check_width("x", x, len(layers[0].weight))
    out = np.empty((len(x), len(layers[-1].bias)), flat.dtype)
    hidden = np.empty(len(x) * sum([len(layer.bias) for layer in layers[:-1]]), flat.dtype)
    _run(_forward, network, len(x), x, hidden, hidden, out, out[:0], flat, flat, hidden)
    return out, NetworkCache(x, hidden)


# --- backward, row by row ---------------------------------------------------------------------------------------------


@njit(**INNER)
def _backward(
    kernel, flat, table, x, hidden, hidden_das, dout, dx, first, second, constants, spans, low, high, parts,
):  # fmt: skip
    """Rows low .. high - 1, back through all layers, into `hidden_das` and, unless it is empty, `dx`."""
    rows, layers, widest = x.shape[0], table.shape[0], 0
    for layer in range(0 if dx.size else 1, layers):
        if table[layer, 1] < LONG:  # the others need no scratch
            widest = max(widest, table[layer, 0] + table[layer, 1])
    scratch = work_space(widest * BLOCK, flat)
    for start in range(low, high, BLOCK):
        size, place, da = min(BLOCK, high - start), hidden.size, dout
        for layer in range(layers - 1, 0 if dx.size == 0 else -1, -1):
            inputs, outputs, weight, _, _ = _row(table, layer)
            w, below = matrix(flat, weight, inputs, outputs), dx
            if layer > 0:
                place -= rows * inputs
                below = matrix(hidden_das, place, rows, inputs)
            gradient_by_inputs(kernel, da[start : start + size], w, below[start : start + size], scratch)
            if layer > 0:
                own = slice(place + start * inputs, place + (start + size) * inputs)
                activation_backward_row(hidden_das[own], hidden[own], table[layer - 1, 4])
            da = below


@njit(**INLINED)
def gradient_by_inputs(kernel, da, w, dh, scratch):
    """dh = da W^T, by inner products where there are many outputs, else by the tile of all products: dh^T = W da^T.
    Takes scratch for both transposes.

    Their rows are filled up with zeros to whole cache lines, so that no vector lies across two; but not those of few
    elements, for which there are narrower tiles. The number of rows, which threads share out, does not decide between
    the two, whose sums are of another order."""
    if w.shape[1] >= LONG:
        inner_products(da, w, dh)
        return
    rows, (inputs, outputs), line = len(da), w.shape, LINE_BYTES // da.itemsize
    width = rows if rows <= 2 * line else -(-rows // line) * line
    da_columns, dh_columns = matrix(scratch, 0, outputs, width), matrix(scratch, outputs * width, inputs, width)
    transpose(da[:, :outputs], da_columns)  # of the type of the one below: it is compiled once
    for j in range(outputs if rows < width else 0):
        da_columns[j, rows:] = 0
    product(kernel, w, da_columns, scratch[:0], dh_columns, NONE)
    transpose(dh_columns[:, :rows], dh)


def network_backward(
    dout: NDArray, cache: NetworkCache, network: Network, input_gradient: bool = True
) -> tuple[NDArray | None, NetworkDeltas]:
    """See `reference.network.network_backward`."""
    x, hidden = cache
    flat = network.flat
    dout, hidden_das = _plain(dout, flat.dtype), np.empty(len(hidden), flat.dtype)
    dx = np.empty(x.shape if input_gradient else (0, 0), flat.dtype)
    _run(_backward, network, len(x), x, hidden, hidden_das, dout, dx, flat, flat, hidden)
    return (dx if input_gradient else None), NetworkDeltas(x, hidden, hidden_das, dout)


# --- the sums over rows: gradient, or Adam at once --------------------------------------------------------------------


@njit(**INNER)
def _gradient(
    kernel, flat, table, x, hidden, hidden_das, dout, finite, first, second, constants, spans, begin, end, pieces,
):  # fmt: skip
    """Of each layer's dW = h^T da, cut into so many pieces, begin .. end - 1, and some layers' db = sum da: written to
    `flat` if `constants` is empty, else used in Adam's step on `flat`. The sums are over rows first .. last - 1 of
    every span (S, 2).

    Then `finite` (1, layers), unless it is empty, says of which weights it is known that they are: a forward pass that
    skips zeros would else have to look."""
    rows, layers, place, h = x.shape[0], table.shape[0], 0, x
    for layer in range(layers):
        inputs, outputs, weight, bias, _ = _row(table, layer)
        da, following = dout, dout
        if layer < layers - 1:
            da, following = matrix(hidden_das, place, rows, outputs), matrix(hidden, place, rows, outputs)
            place += rows * outputs
        low, high = inputs * begin // pieces, inputs * end // pieces
        zeros, own = skips(h, layer, layer > 0 and table[layer - 1, 4] == RELU), weight + low * outputs
        known = weight_sums(kernel, flat, own, h[:, low:high], da, spans, zeros, True, first, second, constants)
        if finite.size:
            finite[0, layer] = known
        if begin <= layer * pieces // layers < end:
            bias_sums(flat, bias, da, spans, first, second, constants)
        h = following


@njit(**INLINED)
def weight_sums(kernel, flat, weight, h, da, spans, zeros, shared, first, second, constants):
    """dW = h^T da for those rows of a weight that start at flat[weight], h (N, that many inputs), da (N, out), over the
    rows of the spans. Whether other threads read these weights too is `shared`: then their lines are claimed ahead.
    Returns whether the weights are known to be finite: after Adam's step.

    Adam has a block of rows at a time. Inside the product's tile it measures slower: a tile touches many short pieces
    of the moments, a block reads them from end to end.
    """
    inputs, outputs = h.shape[1], da.shape[1]
    block = max(1, GRADIENT_BLOCK // outputs // 8) * 8  # whole tiles
    scratch = work_space(block * outputs if constants.size else 0, flat)
    finite = constants.size > 0
    for n in range(len(spans)):
        zeros = zeros and all_finite(da[spans[n][0] : spans[n][1]])
    for low in range(0, inputs, block):
        high = min(low + block, inputs)
        own, size = weight + low * outputs, (high - low) * outputs
        gradient, ahead = matrix(flat, own, high - low, outputs), flat[:0]
        if constants.size:
            gradient = matrix(scratch, 0, high - low, outputs)
            if shared:
                ahead = flat[own : own + size]
        for n in range(len(spans)):
            rows = slice(spans[n][0], spans[n][1])
            if zeros:
                columns = np.empty((high - low, rows.stop - rows.start), h.dtype)
                transpose(h[rows, low:high], columns)
                finite_sparse_product(kernel, columns, da[rows], flat[:0], gradient, n > 0, NONE, ahead)
            else:
                product_ahead(kernel, h[rows, low:high].T, da[rows], gradient, n > 0, ahead)
            ahead = ahead[:0]
        if constants.size:
            finite &= _adam(flat, scratch, first, second, own, size, constants, (inputs - low) * outputs)
    return finite


@njit(**INLINED)
def bias_sums(flat, bias, da, spans, first, second, constants):
    """db = sum da, da (N, out), over the rows of the spans."""
    outputs = da.shape[1]
    sums = np.empty(outputs, flat.dtype) if constants.size else flat[bias : bias + outputs]
    sums[:] = 0
    for n in range(len(spans)):
        _add_rows(da[spans[n][0] : spans[n][1]], sums)
    if constants.size:
        _adam(flat, sums, first, second, bias, outputs, constants, outputs)


@njit(**INNER)
def _add_rows(da, sums):
    """Four rows at a time: the sums themselves are read and written less often."""
    fours = len(da) - len(da) % 4
    for i in range(0, fours, 4):
        a, b, c, d = da[i], da[i + 1], da[i + 2], da[i + 3]
        for j in range(sums.size):
            sums[j] = (((sums[j] + a[j]) + b[j]) + c[j]) + d[j]
    for i in range(fours, len(da)):
        for j in range(sums.size):
            sums[j] += da[i, j]


@njit(**INNER)
def _adam(flat, gradient, first, second, start, size, constants, reach):
    """Adam's step on flat[start : start + size]. Returns whether all of it is finite. For reach see `adam.update`."""
    place = slice(start, start + size)
    return update(flat[place], gradient[:size], first[place], second[place], constants, reach)


def network_gradient(deltas: NetworkDeltas, gradient: Network) -> None:
    """See `reference.network.network_gradient`."""
    flat = gradient.flat
    _run(_gradient, gradient, NO_ROWS, *deltas, deltas.x[:0], flat, flat, flat[:0])


def network_adam(
    deltas: NetworkDeltas,
    network: Network,
    first: NDArray,
    second: NDArray,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """See `reference.network.network_adam`."""
    constants = np.array(adam_constants(step, learning_rate, beta1, beta2, epsilon), network.flat.dtype)
    _run(_gradient, network, NO_ROWS, *deltas, deltas.x[:0], first, second, constants)


# --- what the three share ---------------------------------------------------------------------------------------------


@njit(**INLINED)
def _row(table, layer):
    return table[layer, 0], table[layer, 1], table[layer, 2], table[layer, 3], table[layer, 4]


@njit(**INNER)
def work_space(size, like):
    """An array of the other's type from a cache line on: vectors that lie across two take a load more each."""
    raw = np.empty(size + LINE_BYTES // like.itemsize, like.dtype)
    start = -raw.ctypes.data % LINE_BYTES // raw.itemsize
    return raw[start : start + size]


@njit(**INNER)
def finite_layers(flat, table):
    """(1, layers): of which weights it is known that they are, for passes over the same weights. It is looked for where
    a forward pass would, behind relu."""
    finite = np.zeros((1, table.shape[0]), flat.dtype)
    for layer in range(1, table.shape[0]):
        inputs, outputs, weight, _, _ = _row(table, layer)
        if table[layer - 1, 4] == RELU:
            finite[0, layer] = all_finite(matrix(flat, weight, inputs, outputs))
    return finite


@njit(**INNER)
def _all(finite, layer):
    """Whether it is known of all parts of a layer's weights that they are finite."""
    known = finite.size > 0
    for part in range(len(finite)):
        known = known and finite[part, layer] != 0
    return known


@njit(**INNER)
def skips(h, layer, relu):
    """Whether the gradient of a layer's weights skips zeros of its inputs h (N, in): pixels, where most are zero, and
    what relu leaves, where a group of columns is likely to be zero in the same row."""
    if layer == 0:
        return mostly_zero(h)
    return relu and (1 - _share_of_others(h)) ** GROUP > 1 - DENSE


@njit(**KERNEL)
def mostly_zero(x):
    """Whether fewer than a third of x's elements differ from zero."""
    return 3 * _share_of_others(x) < 1


@njit(**INNER)
def _share_of_others(x):
    """Of x's elements, how many differ from zero, by the look of four rows."""
    samples, found = min(x.shape[0], 4), 0
    for sample in range(samples):
        row = x[sample * x.shape[0] // samples]
        for j in range(row.size):
            found += row[j] != 0
    return found / (samples * x.shape[1])


def check_width(name: str, x: NDArray, width: int) -> None:
    """Kernels do not check their indices."""
    if x.shape[-1] != width:
        raise ValueError(f"{name} has {x.shape[-1]} columns, shape {x.shape}; expected {width}")


def _plain(x: NDArray, dtype: np.dtype) -> NDArray:
    """x as the kernels take it: of the network's dtype, contiguous, aligned and writable; itself where possible."""
    if x.dtype == dtype and x.flags.carray:
        return x
    return np.array(x, dtype, order="C")


def _run(task: Any, network: Network, rows: int, *arrays: NDArray) -> None:
    """Run a kernel over its parts: over so many rows, or, with `NO_ROWS`, over as many parts as there are threads."""
    dtype = network.flat.dtype
    flush, spans = 0 if task is _forward else FLUSH, np.array([[0, len(arrays[0])]])
    _in_parallel(network_address(task, dtype), kernel(dtype), network.flat, network.table, *arrays, spans, rows, flush)


@njit(parallel=True, **KERNEL)
def _in_parallel(
    task, kernel, flat, table, x, hidden, hidden_das, out, dx, first, second, constants, spans, rows, flush
):
    """Run the kernel at address `task`: a part a thread, or a single one where the work is small."""
    if x.shape[0] * multiply_adds(table) < PARALLEL:
        high = 1 if rows == NO_ROWS else rows
        call_in_mode(
            flush, task, kernel, flat, table, x, hidden, hidden_das, out, dx, first, second, constants, spans,
            0, high, 1,
        )  # fmt: skip
        return
    parts = threads()
    for part in prange(parts):
        low, high = (np.intp(part), np.intp(part + 1)) if rows == NO_ROWS else slice_of(rows, part, parts)
        call_in_mode(
            flush, task, kernel, flat, table, x, hidden, hidden_das, out, dx, first, second, constants, spans,
            low, high, parts,
        )  # fmt: skip


@njit(**INNER)
def slice_of(rows, part, parts):
    """First and last + 1 of the rows of a part; a parallel loop's index is unsigned, and would make them floats."""
    part = np.intp(part)
    return rows * part // parts, rows * (part + 1) // parts


@njit(**KERNEL)
def multiply_adds(table):
    """How many a row of input takes."""
    total = 0
    for layer in range(table.shape[0]):
        total += table[layer, 0] * table[layer, 1]
    return total


@njit(**KERNEL)
def hidden_units(table):
    """How many outputs all layers but the last have."""
    total = 0
    for layer in range(table.shape[0] - 1):
        total += table[layer, 1]
    return total


@cache
def network_signature(dtype: DTypeLike) -> tuple[types.Type, ...]:
    """What the three kernels take."""
    number, size = numba.from_dtype(np.dtype(dtype)), types.intp
    flat, rows, table = types.Array(number, 1, "C"), types.Array(number, 2, "C"), types.Array(types.int64, 2, "C")
    return size, flat, table, rows, flat, flat, rows, rows, flat, flat, flat, table, size, size, size


@cache
def network_address(task: Any, dtype: np.dtype) -> int:
    """Address of one of the three kernels. Kept by dtype: to hash the types of all arguments takes longer than a small
    pass."""
    return address(task, network_signature(dtype))


@cache
def address(task: Any, arguments: tuple[types.Type, ...]) -> int:
    """Address of a kernel's machine code for arguments of these types."""
    task.compile(arguments)
    compiled = task.overloads[arguments]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@intrinsic
def call(context, task, *arguments):
    """Call the kernel at address `task`: by its address, so that the parallel loop is compiled once, not with each."""

    def emit(context, builder, signature, values):
        _call(context, builder, arguments, *values)
        return context.get_dummy_value()

    return types.void(task, types.StarArgTuple(arguments)), emit


@intrinsic
def call_in_mode(context, flush, task, *arguments):
    """The same, denormal numbers being flushed or not."""

    def emit(context, builder, signature, values):
        flush, *others = values
        before = read_mode(builder)
        write_mode(builder, builder.or_(before, flush))
        _call(context, builder, arguments, *others)
        write_mode(builder, before)
        return context.get_dummy_value()

    return types.void(types.intp, task, types.StarArgTuple(arguments)), emit


def _call(context, builder, kinds, task, values):
    called = context.call_conv.get_function_type(types.void, kinds).as_pointer()
    place, passed = builder.inttoptr(task, called), cgutils.unpack_tuple(builder, values)
    context.call_conv.call_function(builder, place, types.void, kinds, passed)
