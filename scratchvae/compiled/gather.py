"""Twin of `reference.gather`: rows are converted as they are read, so that a data set can stay uint8."""

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic
from numpy.typing import DTypeLike, NDArray

from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.slices import slices_for
from scratchvae.compiled.tile import BYTE, LINE_BYTES, prefetch

ROWS_AHEAD = 4  # that are asked for before their turn


@njit(**KERNEL)
def within(numbers, limit):
    """Whether every number is one of 0 .. limit - 1: compiled loops do not check their indices."""
    inside = True
    for i in range(numbers.size):
        inside &= (numbers[i] >= 0) & (numbers[i] < limit)
    return inside


@njit(**INNER)
def _convert(source, scale, target):
    for d in range(source.size):
        target[d] = target.dtype.type(source[d]) / scale


@njit(**INNER)
def ask(data, row, left, columns):
    """Ask for a part of a row: rows here and there in a large array come from memory, each after a while."""
    for column in range(left, left + columns, LINE_BYTES // data.itemsize):
        _ask(data, row, column)


@intrinsic
def _ask(context, data, row, column):
    """Ask for the cache line of an element."""

    def emit(context, builder, signature, arguments):
        view = context.make_array(data)(context, builder, arguments[0])
        row_bytes, item_bytes = builder.extract_value(view.strides, 0), view.itemsize
        distance = builder.add(builder.mul(arguments[1], row_bytes), builder.mul(arguments[2], item_bytes))
        prefetch(builder, builder.gep(builder.bitcast(view.data, BYTE.as_pointer()), [distance]), LINE_BYTES)
        return context.get_dummy_value()

    return types.void(data, types.intp, types.intp), emit


@njit(**KERNEL)
def _gather(data, left, rows, scale, batch, first, last):
    """Of the columns from `left` as many as the batch has."""
    for b in range(first, last):
        if b + ROWS_AHEAD < last:
            ask(data, rows[b + ROWS_AHEAD], left, batch.shape[1])
        _convert(data[rows[b], left : left + batch.shape[1]], scale, batch[b])


@njit(parallel=True, **KERNEL)
def _gather_parallel(data, rows, scale, batch, slices):
    for t in prange(slices):
        _gather(data, np.intp(0), rows, scale, batch, rows.size * t // slices, rows.size * (t + 1) // slices)


def gather_rows(data: NDArray, rows: NDArray, dtype: DTypeLike) -> NDArray:
    """See `reference.gather.gather_rows`."""
    data, rows = np.ascontiguousarray(data), np.asarray(rows)
    if not within(rows, len(data)):
        raise IndexError(f"rows must be rows of the data, 0 to {len(data) - 1}")
    batch = np.empty((rows.size, data.shape[1]), dtype)
    scale = batch.dtype.type(255 if data.dtype == np.uint8 else 1)  # a division, as in the reference: the same bits
    slices = slices_for(batch.size, 0.12)
    if slices > 1:
        _gather_parallel(data, rows, scale, batch, slices)
    else:
        _gather(data, 0, rows, scale, batch, 0, rows.size)
    return batch
