"""Parameters: named views on one flat array.

Gradients, Adam's moments and checkpoints have the same layout, so an update is one pass over flat memory and a
name means the same place in all of them.
"""

import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64  # bytes: a cache line and an AVX-512 register
HUGE_PAGE = 2 << 20  # bytes
ACTIVATION_CODES = MappingProxyType({"identity": 0, "tanh": 1, "relu": 2, "sigmoid": 3, "softplus": 4})


class Entry(NamedTuple):
    """Where a tensor stands in the flat array: `flat[offset : offset + prod(shape)]`."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Layer(NamedTuple):
    """One dense layer, h = activation(x @ weight + bias)."""

    weight: NDArray  # (in, out)
    bias: NDArray  # (out,)
    activation: str


class Network(NamedTuple):
    """A stack of dense layers, as views for a reader and as a table of offsets into `flat` for a kernel."""

    layers: tuple[Layer, ...]
    flat: NDArray
    table: NDArray[np.int64]  # (L, 5): in, out, offset of the weight, offset of the bias, activation code


class Parameters(Mapping[str, NDArray]):
    """Mapping from name to array; every array is a view on `flat`.

    Each tensor starts on a 64-byte boundary. What lies between tensors is zero and stays zero.
    """

    def __init__(self, layout: tuple[Entry, ...], flat: NDArray) -> None:
        self.layout = layout
        self.flat = flat
        self._views = {
            entry.name: flat[entry.offset : entry.offset + entry.size].reshape(entry.shape) for entry in layout
        }

    @classmethod
    def zeros(cls, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype | type | str) -> "Parameters":
        """Zero arrays of the given shapes, in their order."""
        dtype = np.dtype(dtype)
        per_line = ALIGNMENT // dtype.itemsize
        layout, offset = [], 0
        for name, shape in shapes.items():
            entry = Entry(name, tuple(shape), offset)
            layout.append(entry)
            offset += -(-entry.size // per_line) * per_line
        return cls(tuple(layout), aligned_zeros(offset, dtype, lasting=True))

    @classmethod
    def holding(
        cls, arrays: Mapping[str, NDArray], shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype
    ) -> "Parameters":
        """Copies of the arrays of these names. What does not fit is refused before memory is taken.

        Raises    ValueError for an array that is missing or too many, or of another shape or dtype
        """
        for name, shape in shapes.items():
            if arrays.get(name) is None:
                raise ValueError(f"has no tensor {name}")
            array = np.asarray(arrays[name])
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"tensor {name} is {array.dtype} {array.shape}; expected {dtype} {shape}")
        if unknown := sorted(arrays.keys() - shapes.keys()):
            raise ValueError(f"has a tensor {unknown[0]}; expected {', '.join(shapes)}")
        parameters = cls.zeros(shapes, dtype)
        for name, place in parameters.items():
            place[...] = arrays[name]
        return parameters

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every array by name."""
        return {entry.name: entry.shape for entry in self.layout}

    def zeros_like(self, lasting: bool = False) -> "Parameters":
        """The same names and shapes, all zero. For `lasting` see `aligned_zeros`."""
        return Parameters(self.layout, aligned_zeros(self.flat.size, self.flat.dtype, lasting))

    def copy(self) -> "Parameters":
        """The same names, shapes and values in memory of their own."""
        return self.astype(self.flat.dtype)

    def astype(self, dtype: np.dtype | type | str) -> "Parameters":
        """The same values in another dtype (complex for the complex step), always in memory of their own."""
        other = Parameters(self.layout, aligned_zeros(self.flat.size, np.dtype(dtype), lasting=True))
        other.flat[:] = self.flat
        return other

    def network(self, prefix: str, activation: str) -> Network:
        """The dense layers under `prefix`: hidden layers with `activation`, then the linear head."""
        entries = {entry.name: entry for entry in self.layout}
        stems = [
            name.removesuffix(".weight")
            for name in entries
            if name.startswith(prefix + ".") and name.endswith(".weight")
        ]
        layers, rows = [], []
        for stem in stems:
            kind = "identity" if stem.endswith(".head") else activation
            weight, bias = entries[f"{stem}.weight"], entries[f"{stem}.bias"]
            layers.append(Layer(self[weight.name], self[bias.name], kind))
            rows.append((*weight.shape, weight.offset, bias.offset, ACTIVATION_CODES[kind]))
        return Network(tuple(layers), self.flat, np.array(rows, np.int64).reshape(-1, 5))

    def __getitem__(self, name: str) -> NDArray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __reduce__(self) -> tuple[Callable[..., "Parameters"], tuple[tuple[Entry, ...], NDArray]]:
        """Copies and pickles carry the flat array. What is loaded may lie anywhere, and joblib maps it read-only: the
        values go to memory as `zeros` takes it."""
        return _copied, (self.layout, self.flat)

    def __repr__(self) -> str:
        lines = [f"  {name}: {array.shape}" for name, array in self.items()]
        return f"Parameters({self.flat.dtype}, {sum(a.size for a in self.values()):,} values)\n" + "\n".join(lines)


def _copied(layout: tuple[Entry, ...], flat: NDArray) -> Parameters:
    return Parameters(layout, flat).copy()


def aligned_zeros(size: int, dtype: np.dtype | type | str, lasting: bool = False) -> NDArray:
    """A zero array whose first element lies on a 64-byte boundary.

    Takes     lasting: whether it is worth huge pages, where there are any, if it is large. Weights and moments are
              walked through from end to end at every update; in pages of 4 KB they are more than the processor knows
              the places of, and in a virtual machine a place is looked up in two tables. What is used once is not: the
              system clears such pages first, where NumPy takes memory that was used before
    """
    large = size * np.dtype(dtype).itemsize >= HUGE_PAGE // 2 and hasattr(mmap, "MADV_HUGEPAGE")
    return _in_huge_pages(size, np.dtype(dtype)) if lasting and large else _aligned(np.zeros, size, np.dtype(dtype))


def _in_huge_pages(size: int, dtype: np.dtype) -> NDArray:
    """A zero array from a huge page's beginning on."""
    try:
        memory = mmap.mmap(-1, size * dtype.itemsize + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):  # too large: NumPy has its words for that
        return _aligned(np.zeros, size, dtype)
    with suppress(OSError):  # a system that has none
        memory.madvise(mmap.MADV_HUGEPAGE)
    pages = np.frombuffer(memory, np.uint8)
    start = -pages.ctypes.data % HUGE_PAGE
    return pages[start : start + size * dtype.itemsize].view(dtype)


def aligned_empty(size: int, dtype: np.dtype | type | str) -> NDArray:
    """The same, of whatever the memory holds."""
    return _aligned(np.empty, size, np.dtype(dtype))


def _aligned(make: Callable[[int, type], NDArray], size: int, dtype: np.dtype) -> NDArray:
    raw = make(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)
