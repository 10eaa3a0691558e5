"""The user's own arrays: .npy and .npz (without pickle), and .csv with or without a header line."""

import csv
import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import DataError, one_line
from scratchvae.data.idx import DEFLATE_LIMIT

NPY_MAGIC = b"\x93NUMPY"
TRAIN_KEYS = ("train", "x_train", "train_images", "x", "data", "images")
HELD_OUT_KEYS = ("held_out", "test", "x_test", "test_images")
DELIMITERS = ",;\t"
# what a damaged .npy or .npz makes NumPy and zipfile raise
DAMAGE = (
    ValueError,
    EOFError,
    OSError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    KeyError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class Arrays(NamedTuple):
    """What a file holds: its data and, where it has such an array, the held-out part; and their names in it."""

    train: NDArray
    held_out: NDArray | None
    found: str


def read_npy(path: Path) -> NDArray:
    """The array of a .npy file, mapped from the disk: rows are read when they are taken.

    Errors    DataError, one line: another format, pickled objects, too few or too many bytes
    """
    _check_start(path, NPY_MAGIC, "NumPy's .npy format")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that Python 2 wrote, or that is odd but readable
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}); expected a complete .npy file of numbers"
        ) from None
    size, expected = path.stat().st_size, array.offset + array.nbytes
    if size != expected:
        raise DataError(f"{path}: {size} bytes; its header, {array.shape} of {array.dtype}, expects {expected}")
    return array


def read_npz(path: Path) -> Arrays:
    """The data in a .npz file: its only array, or the one named like data and the one named like held-out data.

    Names     TRAIN_KEYS and HELD_OUT_KEYS, upper case or lower case; other arrays (labels) are left alone
    Errors    DataError, one line: another format, a damaged archive, pickled objects, no or several arrays to choose
    """
    _check_start(path, b"PK", "NumPy's .npz format, a zip archive")
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `read_npy`
            train, held_out = _choose(
                path, [name[:-4] for name in dict.fromkeys(archive.namelist()) if _is_array(name)]
            )
            arrays = [_read_member(path, archive, f"{key}.npy") for key in (train, held_out) if key is not None]
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}); expected a complete .npz file of numbers"
        ) from None
    if held_out is None:
        return Arrays(arrays[0], None, f"array '{train}'")
    return Arrays(arrays[0], arrays[1], f"array '{train}', held out '{held_out}'")


def _is_array(name: str) -> bool:
    return name.endswith(".npy")


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray:
    """One array, once the size that its header promises is what the archive has: a few bytes may promise anything.

    Nothing is extracted: a member's name is looked up and never becomes a path.
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {name!r} is compressed by method {info.compress_type}; expected none, or deflate")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
        if dtype.hasobject:
            raise ValueError(f"{name!r} holds Python objects, which are never loaded")
        promised, there = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
    if promised != there or info.file_size > DEFLATE_LIMIT * path.stat().st_size:
        raise DataError(
            f"{path}: {name!r} has {there} bytes of values; its header, {shape} of {dtype}, expects {promised}"
        )
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _choose(path: Path, keys: list[str]) -> tuple[str, str | None]:
    """The names of the data and of the held-out data among the names in the file."""
    if len(keys) == 1:
        return keys[0], None
    train = [key for key in keys if key.lower() in TRAIN_KEYS]
    held_out = [key for key in keys if key.lower() in HELD_OUT_KEYS]
    if len(train) != 1 or len(held_out) > 1:
        raise DataError(
            f"{path}: holds {_listed(keys)}; expected one array, or one named {' or '.join(TRAIN_KEYS)} "
            f"and at most one named {' or '.join(HELD_OUT_KEYS)}"
        )
    return train[0], held_out[0] if held_out else None


def _listed(keys: list[str]) -> str:
    shown = ", ".join(repr(key) for key in keys[:6])
    return f"{len(keys)} arrays ({shown}{', ...' if len(keys) > 6 else ''})" if keys else "no array"


def _check_start(path: Path, magic: bytes, expected: str) -> None:
    with open(path, "rb") as file:
        start = file.read(len(magic))
    if start != magic:
        found = f"starts with bytes '{start.hex(' ')}'" if start else "an empty file"
        raise DataError(f"{path}: {found}; expected {expected} ('{magic.hex(' ')}')")


def read_csv(path: Path) -> NDArray:
    """The numbers of a text file, one example a line, separated by comma, semicolon or tab: float64 (N, D).

    The first line is a header if none of its fields is a number. Lines that are empty or start with # are skipped.
    Errors    DataError, one line: a field that is no number, lines of different lengths, no line of numbers
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text in UTF-8; expected lines of comma-separated numbers") from None
    try:
        return _numbers(path, text)
    except csv.Error as error:
        raise DataError(f"{path}: {one_line(error)}; expected lines of comma-separated numbers") from None


def _numbers(path: Path, text: str) -> NDArray:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if _counts(line)]
    delimiter = next((mark for mark in DELIMITERS if lines and mark in lines[0][1]), ",")
    if lines and not any(_is_number(field) for field in _fields(lines[0][1], delimiter)):
        del lines[0]
    if not lines:
        raise DataError(f"{path}: no line of numbers; expected lines of comma-separated numbers")
    try:
        return np.loadtxt((line for _, line in lines), delimiter=delimiter, ndmin=2, comments=None, quotechar='"')
    except ValueError as error:
        reason = _first_bad_field(lines, delimiter) or one_line(error)
        raise DataError(f"{path}: {reason}") from None


def _counts(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith("#")


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter))


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _first_bad_field(lines: Iterable[tuple[int, str]], delimiter: str) -> str | None:
    """Line and column, counted from 1 as an editor does, of the first thing that is not as expected."""
    width, first = None, 0
    for number, line in lines:
        fields = _fields(line, delimiter)
        if width is None:
            width, first = len(fields), number
        if len(fields) != width:
            return f"line {number} has {len(fields)} fields; expected {width} as in line {first}"
        for column, field in enumerate(fields, 1):
            if not _is_number(field):
                return f"line {number}, column {column} is {field[:40]!r}; expected a number"
    return None
