"""The IDX format of MNIST: a magic number, the sizes, then the values, all big-endian. Read strictly.

    bytes 0, 1   zero
    byte 2       the type of the values: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
    byte 3       the rank, at least 1
    then         rank sizes of 4 bytes each, and the values, the last index varying fastest

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats".
"""

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import DataError, one_line

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_LIMIT = 1032  # deflate never makes more than this many bytes out of one
STEP = 1 << 20


def read_idx(path: str | PathLike[str], sha256: str | None = None) -> NDArray:
    """The array in an IDX file, gzipped or not.

    Takes     path; sha256: what the SHA-256 of the content (uncompressed) must be, in hexadecimal
    Returns   a writable array of the file's shape, in native byte order; uint8 stays uint8
    Raises    DataError, one line that names the file, what was found and what was expected: no such file, another
              format, too few or too many bytes, a damaged gzip, another checksum
    """
    path = Path(path)
    try:
        with _open_content(path) as file:
            head, dtype, shape = _read_header(file, path)
            values = _read_values(file, path, len(head), dtype, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip ({one_line(error)}); expected a complete gzipped IDX file") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or one_line(error)}; expected an IDX file") from None
    if sha256 is not None:
        _check_content(path, head, values, sha256)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


@contextmanager
def _open_content(path: Path) -> Iterator[BinaryIO]:
    """The uncompressed bytes: whether there is a gzip around them is in the first two bytes, not in the name."""
    with open(path, "rb") as file:
        start = file.read(2)
        file.seek(0)
        if start == GZIP_MAGIC:
            with gzip.GzipFile(fileobj=file) as inside:
                yield cast(BinaryIO, inside)
        elif path.suffix.lower() == ".gz":
            raise DataError(f"{path}: not gzip: starts with bytes '{start.hex(' ')}'; expected '1f 8b'")
        else:
            yield file


def _read_header(file: BinaryIO, path: Path) -> tuple[bytes, np.dtype, tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or magic[3] == 0:
        raise DataError(
            f"{path}: starts with bytes '{magic.hex(' ')}'; expected IDX's magic number: "
            "00 00, a type (08, 09, 0b to 0e), a rank of 1 or more"
        )
    rank = magic[3]
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError(f"{path}: {len(sizes)} bytes of sizes; expected {4 * rank} for rank {rank}")
    return magic + sizes, np.dtype(TYPES[magic[2]]), struct.unpack(f">{rank}I", sizes)


def _read_values(file: BinaryIO, path: Path, head: int, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray:
    """The values as they lie in the file, big-endian."""
    expected = math.prod(shape) * dtype.itemsize
    promise = f"its header, {shape} of {dtype.newbyteorder('=')}, expects {expected}"
    room = _room(path) - head
    if expected > room:  # asked before the memory is: a damaged size may promise anything
        raise DataError(f"{path}: no more than {max(0, room)} bytes of values; {promise}")
    try:
        values = np.empty(shape, dtype)
    except ValueError as error:  # too many sizes; or sizes too large beside one of zero
        raise DataError(f"{path}: {one_line(error)}; expected a shape that an array can have") from None
    content = values.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < expected and (count := file.readinto(content[filled : filled + STEP])):  # type: ignore[attr-defined]
        filled += count
    if filled < expected:
        raise DataError(f"{path}: {filled} bytes of values; {promise}")
    if file.read(1):
        raise DataError(f"{path}: more bytes of values than {promise}")
    return values


def _room(path: Path) -> int:
    """The most bytes of content the file can have."""
    with open(path, "rb") as file:
        gzipped = file.read(2) == GZIP_MAGIC
    size = path.stat().st_size
    return DEFLATE_LIMIT * size if gzipped else size


def _check_content(path: Path, head: bytes, values: NDArray, sha256: str) -> None:
    digest = hashlib.sha256(head)
    digest.update(values.reshape(-1).view(np.uint8).data)
    if digest.hexdigest() != sha256:
        raise DataError(f"{path}: SHA-256 of the content is {digest.hexdigest()}; expected {sha256}")
