"""Data larger than memory: rows of an array on the disk, read when a batch takes them.

NumPy maps the file, so the system keeps what fits of it in its cache and gives it up again where memory is short.
Nothing here copies the array or makes an array of its size: what is to be known of all values is found block by block.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from mmap import mmap
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

BLOCK = 1 << 18  # values looked at together, so that a check of a huge array needs no huge temporary
EXACT_IN_FLOAT32 = 1 << 24  # every whole number up to here is a float32


class Range(NamedTuple):
    """What is known of all values: NaN in low and high if there is one."""

    low: float
    high: float
    grey: bool  # whether any is strictly between 0 and 1 (uint8: 0 and 255)


class MappedRows:
    """Rows of an array on the disk, as data (N, D): uint8, float32 or float64, read and converted as they are taken.

    Takes     array (M, ...): a mapped .npy, each entry flattened to a row; rows (N,): numbers of its rows, all of them
              if None; dtype: what values are converted to, found from the array if None
    Indexing  by a row number, a slice or an array of row numbers gives an ordinary array; np.asarray reads everything
    """

    ndim = 2

    def __init__(self, array: NDArray, rows: NDArray | None = None, dtype: DTypeLike | None = None) -> None:
        self._array = np.asarray(array)  # a view on the mapping without np.memmap's bookkeeping
        self.rows = np.arange(len(array)) if rows is None else np.asarray(rows)
        self.dtype = np.dtype(dtype) if dtype is not None else kept_dtype(self._array)
        self.shape = len(self.rows), int(np.prod(array.shape[1:]))
        self.size = self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray:
        chosen = self.rows[index]
        return converted(self._array[chosen].reshape(*np.shape(chosen), self.shape[1]), self.dtype)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        if copy is False:
            raise ValueError("rows on the disk cannot be an array without a copy")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def astype(self, dtype: DTypeLike) -> NDArray:
        """Everything, read into memory."""
        return np.asarray(self, dtype)

    def subset(self, index: NDArray) -> "MappedRows":
        """Some of these rows, still on the disk, with what is known of all of them."""
        part = MappedRows(self._array, self.rows[index], self.dtype)
        part.range = self.range
        return part

    @cached_property
    def range(self) -> Range:
        """Least and greatest value, and whether any is grey: one pass, done once for a data set and all its parts."""
        low, high, grey = np.inf, -np.inf, False
        for _, block in blocks(self):
            # minimum and maximum pass on a NaN, so two reductions without a temporary see everything there is to see
            low, high = float(np.minimum(low, block.min())), float(np.maximum(high, block.max()))
            grey = grey or grey_in(block)
        return Range(low, high, grey)

    def __repr__(self) -> str:
        return f"MappedRows({self.shape[0]} x {self.shape[1]}, {self.dtype})"


Data: TypeAlias = NDArray | MappedRows


def row_by_row(data: Data) -> Data:
    """The same values, one row behind the other in memory, as kernels read them; what is on the disk stays there."""
    if isinstance(data, MappedRows) or data.flags.c_contiguous:
        return data
    owner = data
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return data if isinstance(owner.base, mmap) else np.ascontiguousarray(data)


def blocks(data: Data) -> Iterator[tuple[int, NDArray]]:
    """Blocks of whole rows (N, D), each with the number of its first row."""
    rows = max(1, BLOCK // max(1, data.shape[1]))
    for start in range(0, data.shape[0], rows):
        yield start, data[start : start + rows]


def grey_in(block: NDArray) -> bool:
    """Whether any value is strictly between 0 and 1 (uint8: 0 and 255)."""
    if block.dtype == np.uint8:
        # uint8 wraps, 0 - 1 = 255: what is then below 254 was neither 0 nor 255
        return bool((block - np.uint8(1) < 254).any())
    return bool(((block > 0) & (block < 1)).any())


def column_mean(data: Data) -> NDArray:
    """The mean of every column, (D,), float64; uint8 counts as value / 255. Block by block, wherever the data are."""
    total = np.zeros(data.shape[1])
    for _, block in blocks(data):
        total += block.sum(axis=0, dtype=np.float64)
    mean = total / data.shape[0]
    return mean / 255 if data.dtype == np.uint8 else mean


def fingerprint(*parts: Data) -> str:
    """SHA-256 of the values of all parts, their types and shapes, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        for _, block in blocks(part):
            digest.update(np.ascontiguousarray(block).view(np.uint8).data)
    return digest.hexdigest()


def kept_dtype(array: NDArray) -> np.dtype:
    """What numbers of the array's type are kept as: uint8 (bool too), float32 or float64 in native byte order."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b" or array.dtype == np.uint8:
        return np.dtype(np.uint8)
    if kind == "f":
        return np.dtype(np.float32 if size <= 4 else np.float64)
    small = max(-int(array.min()), int(array.max())) <= EXACT_IN_FLOAT32
    return np.dtype(np.float32 if small else np.float64)


def converted(array: NDArray, dtype: np.dtype) -> NDArray:
    """The array in the type it is kept as, not copied if it has it; bool becomes 0 and 255, exactly 0 and 1."""
    return array.astype(np.uint8) * np.uint8(255) if array.dtype.kind == "b" else array.astype(dtype, copy=False)
