"""The user's own arrays: .npy and .npz (without pickle), and .csv with or without a header line; labels beside them."""

import csv
import difflib
import math
import re
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
from scratchvae.data.labels import NoLabelsError, are_labels, as_labels

NPY_MAGIC = b"\x93NUMPY"
TRAIN_KEYS = ("train", "x_train", "train_images", "x", "data", "images")
HELD_OUT_KEYS = ("held_out", "test", "x_test", "test_images")
LABEL_KEYS = ("y", "labels", "label", "target", "targets", "y_train", "train_labels")
HELD_OUT_LABEL_KEYS = ("y_test", "test_labels", "held_out_labels")
DELIMITERS = ",;\t"
QUOTED = re.compile(r'"[^"]*"')
NAMED = 6  # columns at most that a message names
NUMBERED = 4  # columns from which a first line 0, 1, 2, ... is taken for a header; of fewer it may well be an example
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
    """What a file or folder holds: its data and, where it has them, the held-out part, labels, and a name for each
    column; and what it was."""

    train: NDArray
    held_out: NDArray | None
    found: str
    labels: NDArray | None = None
    held_out_labels: NDArray | None = None
    columns: tuple[str, ...] | None = None


def read_npy(path: Path) -> NDArray:
    """The array of a .npy file, mapped from the disk: rows are read when they are taken.

    Raises    DataError, one line: another format, pickled objects, too few or too many bytes
    """
    _check_start(path, NPY_MAGIC, "NumPy's .npy format")
    _check_header_length(path)
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


def read_npz(path: Path, labels: str | None = None) -> Arrays:
    """The data in a .npz file: its only array, or the one named like data and the one named like held-out data.

    Names     TRAIN_KEYS and HELD_OUT_KEYS, upper case or lower case. Labels are the array `labels`, else those named
              like labels (LABEL_KEYS, HELD_OUT_LABEL_KEYS) that are a list or a column of numbers or words; other
              arrays are left alone
    Raises    DataError, one line: another format, a damaged archive, pickled objects, no or several arrays to choose,
              labels that are not one a row
    """
    _check_start(path, b"PK", "NumPy's .npz format, a zip archive")
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `read_npy`
            keys = [name[:-4] for name in dict.fromkeys(archive.namelist()) if _is_array(name)]
            train, held_out = _choose(path, keys, labels)
            if labels is not None and labels not in keys:
                raise NoLabelsError(f"{path}: no array {labels!r} among its {_listed(keys)}; expected the labels' name")
            given = _read_member(path, archive, f"{train}.npy")
            kept = None if held_out is None else _read_member(path, archive, f"{held_out}.npy")
            of_train: NDArray | None
            if labels is not None:
                of_train = as_labels(_read_member(path, archive, f"{labels}.npy"), _rows(given), f"{path}, {labels!r}")
            else:
                of_train = _found_labels(path, archive, given, _named_like(keys, LABEL_KEYS))
            of_kept = _found_labels(path, archive, kept, _named_like(keys, HELD_OUT_LABEL_KEYS))
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}); expected a complete .npz file of numbers"
        ) from None
    found = f"array '{train}'" + (f", held out '{held_out}'" if held_out else "")
    return Arrays(given, kept, found, of_train, of_kept)


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
    if info.file_size > (most := DEFLATE_LIMIT * path.stat().st_size):
        raise DataError(
            f"{path}: {name!r} is said to have {info.file_size} bytes; expected at most {most} in this file"
        )
    if promised != there:
        raise DataError(
            f"{path}: {name!r} has {there} bytes of values; its header, {shape} of {dtype}, expects {promised}"
        )
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _choose(path: Path, keys: list[str], labels: str | None) -> tuple[str, str | None]:
    """The names of the data and of the held-out data among the names in the file."""
    known_labels = (*LABEL_KEYS, *HELD_OUT_LABEL_KEYS)
    beside = [key for key in keys if key != labels]
    others = [key for key in beside if key.lower() not in known_labels] or beside
    if len(others) == 1:
        return others[0], None
    train = [key for key in others if key.lower() in TRAIN_KEYS]
    held_out = [key for key in others if key.lower() in HELD_OUT_KEYS]
    if len(train) != 1 or len(held_out) > 1:
        aside = "" if labels is None else f" beside {labels!r}"
        raise DataError(
            f"{path}: holds {_listed(keys)}; expected one array{aside}, or one named {' or '.join(TRAIN_KEYS)} "
            f"and at most one named {' or '.join(HELD_OUT_KEYS)}"
        )
    return train[0], held_out[0] if held_out else None


def _named_like(keys: list[str], names: tuple[str, ...]) -> str | None:
    found = [key for key in keys if key.lower() in names]
    return found[0] if len(found) == 1 else None


def _rows(data: NDArray) -> int:
    return len(data) if data.ndim else 0


def _found_labels(path: Path, archive: zipfile.ZipFile, data: NDArray | None, key: str | None) -> NDArray | None:
    """What is called like labels, if it can be read and is a list of numbers or words, which is then to be one a row.

    Nobody asked for it, so an array that cannot be labels is left alone.
    """
    if data is None or key is None:
        return None
    try:
        found = _read_member(path, archive, f"{key}.npy")
    except (*DAMAGE, DataError):
        return None
    return as_labels(found, _rows(data), f"{path}, {key!r}") if are_labels(found) else None


def _listed(keys: list[str]) -> str:
    shown = ", ".join(repr(key) for key in keys[:6])
    many = f"{len(keys)} arrays" if len(keys) != 1 else "1 array"
    return f"{many} ({shown}{', ...' if len(keys) > 6 else ''})" if keys else "no array"


def _check_start(path: Path, magic: bytes, expected: str) -> None:
    with open(path, "rb") as file:
        start = file.read(len(magic))
    if start != magic:
        found = f"starts with bytes '{start.hex(' ')}'" if start else "an empty file"
        raise DataError(f"{path}: {found}; expected {expected} ('{magic.hex(' ')}')")


def _check_header_length(path: Path) -> None:
    """NumPy takes memory for a header as long as the file says it is: four bytes from format version 2 on."""
    with open(path, "rb") as file:
        start = file.read(12)
    length = int.from_bytes(start[8:12], "little") if start[6:7] > b"\x01" else 0
    if length > path.stat().st_size:
        raise DataError(f"{path}: {path.stat().st_size} bytes; expected a header of {length}, as its start says")


def read_csv(path: Path) -> NDArray:
    """The numbers of a text file, one example a line, separated by comma, semicolon or tab: float64 (N, D).

    The first line is a header if none of its fields is a number, or if they are 0, 1, 2, 3, ..., with which pandas
    numbers columns without names, of at least four. A first line of 0, of 0, 1 or of 0, 1, 2 may well be an example
    and is taken for one: give such columns names. A first column without a name that numbers the rows, as pandas writes
    it, is left out. Lines that are empty or start with # are skipped.
    Raises    DataError, one line: a field that is no number, lines of different lengths, no line of numbers
    """
    return read_csv_with_labels(path, None).train


def read_csv_with_labels(path: Path, labels: str | None) -> Arrays:
    """As `read_csv`, and the column that the header calls `labels`, of numbers or of words, taken out of the data; the
    names of the others.

    What was found says whether the first line was taken for a header.

    Raises    DataError, one line: as `read_csv`; no such column, or two; below a header that begins with the labels,
              a line that starts with # and may be a comment or a row
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text in UTF-8; expected lines of comma-separated numbers") from None
    try:
        return _numbers_and_labels(path, text, labels)
    except csv.Error as error:
        raise DataError(f"{path}: {one_line(error)}; expected lines of comma-separated numbers") from None


def _numbers_and_labels(path: Path, text: str, labels: str | None) -> Arrays:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if _counts(line)]
    outside = QUOTED.sub("", lines[0][1]) if lines else ""
    delimiter = next((mark for mark in DELIMITERS if mark in outside), ",")
    names = [field.strip() for field in _fields(lines[0][1], delimiter)] if lines else []
    label = None if labels is None else _column_of_labels(path, names, labels)
    if label == 0:
        _check_comments(path, text, lines[0][0], delimiter, len(names))
    headed = label is not None or (bool(lines) and _is_header(names))
    header = lines.pop(0)[0] if headed else None
    if not lines:
        raise DataError(f"{path}: no line of numbers; expected lines of comma-separated numbers")
    width = len(_fields(lines[0][1], delimiter))
    if headed and width != len(names):
        raise DataError(f"{path}: line {lines[0][0]} has {width} fields; expected {len(names)} as in line {header}")
    columns = [column for column in range(width) if column != label]
    try:
        rows = (line for _, line in lines)
        used = None if label is None else columns
        data = np.loadtxt(rows, delimiter=delimiter, ndmin=2, comments=None, quotechar='"', usecols=used)
    except ValueError as error:
        reason = _first_bad_field(lines, delimiter, label) or _open_quote(lines) or one_line(error)
        raise DataError(f"{path}: {reason}") from None
    if len(data) < len(lines):
        raise DataError(f"{path}: {_open_quote(lines)}")
    if headed and names[0] == "" and label != 0:
        data = _without_row_numbers(data)
    found = f"csv table {'with' if headed else 'without'} a header"
    kept = tuple(names[column] for column in columns[-data.shape[1] :]) if headed else None  # row numbers come first
    if label is None:
        return Arrays(data, None, found, columns=kept)
    too_long = _first_bad_field(lines, delimiter, label)  # loadtxt lets such a line pass where columns are chosen
    if too_long:
        raise DataError(f"{path}: {too_long}")
    words = np.array([_fields(line, delimiter)[label] for _, line in lines])
    return Arrays(data, None, found, as_labels(words, len(data), f"{path}, column {labels!r}"), columns=kept)


def _column_of_labels(path: Path, names: list[str], labels: str) -> int:
    if labels not in names and names and not _is_header(names):
        raise NoLabelsError(f"{path}: no column {labels!r}; expected a first line that names the columns")
    if labels not in names:
        raise no_column(path, labels, names)
    if names.count(labels) > 1:
        raise DataError(f"{path}: {names.count(labels)} columns are called {labels!r}; expected one of labels")
    return names.index(labels)


def no_column(path: Path, name: str, names: list[str]) -> NoLabelsError:
    """That a table has no column of that name, and which it has; where there are many, those that are most like it."""
    shown = names if len(names) <= NAMED else difflib.get_close_matches(name, names, NAMED, 0.0)
    more = f", ... ({len(names)} in all)" if len(names) > NAMED else ""
    return NoLabelsError(f"{path}: no column {name!r}; expected one of {', '.join(map(repr, shown))}{more}")


def _check_comments(path: Path, text: str, header: int, delimiter: str, width: int) -> None:
    """Refuse to guess whether a line is a comment or a row whose label, its first field, starts with #.

    Takes     header: the number of the line with the names; width: how many there are
    """
    for number, line in enumerate(text.split("\n"), 1):
        if number > header and line.lstrip().startswith("#") and len(_fields(line, delimiter)) == width:
            raise DataError(
                f"{path}: line {number} starts with # as a comment does and has {width} fields as a row does; "
                "expected a label in quotes, or no comment below the header"
            )


def _is_header(names: list[str]) -> bool:
    """Whether these are names of columns; above its row numbers pandas leaves the name out."""
    named = names[1:] if names[0] == "" else names
    numbered = named == [str(column) for column in range(len(named))]
    return not any(_is_number(name) for name in named) or (numbered and (names[0] == "" or len(named) >= NUMBERED))


def _without_row_numbers(data: NDArray) -> NDArray:
    """The columns after a first one that is 0, 1, 2, ...; all of them where it is not, or stands alone."""
    numbered = data.shape[1] > 1 and np.array_equal(data[:, 0], np.arange(len(data)))
    return np.ascontiguousarray(data[:, 1:]) if numbered else data


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
    return field.isascii() and "_" not in field  # Python reads other digits, and 1_000; NumPy does not


def _first_bad_field(lines: Iterable[tuple[int, str]], delimiter: str, label: int | None) -> str | None:
    """Line and column, counted from 1 as an editor does, of the first thing that is not as expected."""
    width, first = None, 0
    for number, line in lines:
        fields = _fields(line, delimiter)
        if width is None:
            width, first = len(fields), number
        if len(fields) != width:
            return f"line {number} has {len(fields)} fields; expected {width} as in line {first}"
        for column, field in enumerate(fields, 1):
            if column - 1 != label and not _is_number(field):
                hint = " (one column of words can be the labels: --labels)" if label is None else ""
                return f"line {number}, column {column} is {field[:40]!r}; expected a number{hint}"
    return None


def _open_quote(lines: Iterable[tuple[int, str]]) -> str | None:
    """Which quote has taken the lines behind it into its field."""
    numbers = (number for number, line in lines if line.count('"') % 2)
    return next((f"line {n} has a quote that is not closed; expected every field on one line" for n in numbers), None)
