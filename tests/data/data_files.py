"""The bytes of files under test, written from the formats' descriptions; and what every refusal must look like."""

import gzip
import struct
from collections.abc import Callable

import pytest
from numpy.typing import NDArray

from scratchvae.data import DataError

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: NDArray) -> bytes:
    """The array as the content of an IDX file, written from the format's description."""
    code = IDX_CODES[f"{array.dtype.kind}{array.dtype.itemsize}"]
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def message_of(call: Callable[[], object], *parts: str) -> str:
    """The one line that the call is refused with; it must hold every one of the parts."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert message
    for part in parts:
        assert part in message, message
    assert caught.value.__cause__ is None
    return message


def planted(x: NDArray, row: int, column: int, value: float) -> NDArray:
    """A copy of x with one value replaced."""
    changed = x.copy()
    changed[row, column] = value
    return changed
