"""One call for all data: a name or a path in, the training part and the held-out part out."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import in_short
from scratchvae.data import digits, mnist
from scratchvae.data.arrays import Arrays, read_csv_with_labels, read_npy, read_npz
from scratchvae.data.checks import DataError, as_data, check_pixels, is_grey, map_rows, one_line
from scratchvae.data.idx import read_idx
from scratchvae.data.images import check_size, read_images
from scratchvae.data.labels import labels_beside, read_label_file
from scratchvae.data.mapped import Data, MappedRows
from scratchvae.data.parquet import read_parquet
from scratchvae.data.split import check_split, split_rows

NAMES = ("digits", "mnist")  # data sets with a held-out part of their own
DIGITS_HELD_OUT = 0.2
OWN_HELD_OUT = 0.1
IDX = (".idx", "-ubyte", ".gz")
WITH_LABEL_FILE = (".npy", *IDX)  # others hold their labels themselves
STAYS_ON_DISK = 1 << 28  # bytes of a .npy from which on its rows are read as batches take them
Check = Callable[[Data, str], object]  # of rows and what messages call them; raises a DataError
EXPECTED = "digits, mnist, a .npy, .npz, .csv, .parquet, .idx, -ubyte or .gz (IDX) file, or a folder of images"


def any_rows(rows: Data, name: str) -> None:
    """The check that all rows pass."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data ready to be trained on: two arrays of the same columns, N examples (rows) by D values."""

    name: str  # "digits", "mnist", or the file's name
    train: Data  # (N, D), uint8 (meaning value / 255), float32 or float64; MappedRows where it stays on the disk
    held_out: Data  # (M, D), of the same type
    image_shape: tuple[int, int] | None  # (height, width) of a row, where the rows are images
    grey: bool  # whether any value is strictly between 0 and 1 (uint8: 0 and 255)
    found: str  # one line: what was read, and from where the held-out part comes
    train_labels: NDArray | None = None  # (N,), numbers or words, for pictures; nothing is trained on them
    held_out_labels: NDArray | None = None  # (M,)
    columns: tuple[str, ...] | None = None  # D names, where the file has them


def load(
    source: str | PathLike[str] = "digits",
    data_dir: str | PathLike[str] | None = None,
    seed: int = 0,
    held_out: float | None = None,
    resize: tuple[int, int] | None = None,
    labels: str | None = None,
    check: Check = any_rows,
) -> Dataset:
    """The data set of a name, or the user's own data from a path.

    Takes     source: "digits", "mnist", or a path: .npy, .npz, .csv, .parquet, IDX (.idx, -ubyte, or gzipped), a folder
              of images, or of subfolders of images named like their labels
              data_dir: where MNIST's files are (else SCRATCHVAE_DATA, else they are downloaded once)
              seed: which rows of the user's own data are held out. "digits" is split the same way whatever the seed,
              and "mnist" as published, so that results can be compared
              held_out: the fraction of the rows to hold out, if not 0.2 of digits and 0.1 of the user's own data; None
              for "mnist" and a .npz with a held-out part, which have their own
              resize: (width, height) that every image of a folder is resized to
              labels: where labels for pictures are, beyond those found by themselves: a column of a .csv or .parquet,
              an array of a .npz, or for .npy and IDX a file with one label a row
              check: is called with rows and their name, before any are held out: what it raises counts rows as the file
    Returns   Dataset; images are flattened. A .npy of 256 MB or more stays on the disk, read as batches take its rows
    Raises    DataError (a ValueError), one line that names the file, what was found and what is expected
    """
    check_split(OWN_HELD_OUT if held_out is None else held_out, seed)
    _check_reading(resize, labels)
    with _words_for_the_system():
        known = source if isinstance(source, str) else None  # an array compares value by value
        if known in NAMES:
            for name, value in {"resize": resize, "labels": labels}.items():
                if value is not None:
                    raise DataError(f"{known}: {name} is {value}; expected none: it has its own")
        if known == "digits":
            return _digits(DIGITS_HELD_OUT if held_out is None else held_out, check)
        if known == "mnist":
            if held_out is not None:
                raise DataError(f"mnist: held_out is {held_out}; expected None: its test set is what is held out")
            return _mnist(data_dir, check)
        return _own(_existing(source), seed, held_out, resize, labels, check)


def load_rows(
    source: str | PathLike[str],
    resize: tuple[int, int] | None = None,
    labels: str | None = None,
    image_shape: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> Data:
    """The user's own data from a path, one row or more, in the file's order; what a .npz holds out comes last.

    Takes     source, resize, labels: as `load`; labels are taken out of a table, and not returned;
              image_shape: (height, width) that rows must have which are known to be images
              columns: names that columns must have, in that order, where a table names them
    Returns   (N, D); images are flattened. A .npy of 256 MB or more stays on the disk
    Raises    as `load`, for images of other sides, and for columns of other names
    """
    _check_reading(resize, labels)
    with _words_for_the_system():
        rows = _read_rows(_existing(source), resize, labels)
    shape, names, held_out = rows.image_shape, rows.columns, rows.held_out
    if shape and image_shape and shape != tuple(image_shape):  # as many values, it may be, in another order
        given, wanted = (f"{height} x {width}" for height, width in (shape, image_shape))
        raise DataError(f"{source}: images of {given} pixels (height x width); expected {wanted}")
    if names and columns and len(names) == len(columns):  # of another number, what takes them says so
        for number, (name, expected) in enumerate(zip(names, columns, strict=True), 1):
            if name != expected:
                raise DataError(f"{source}: column {number} is {name!r}; expected {expected!r} in its place")
    return rows.train if held_out is None else np.concatenate([rows.train, held_out])


def _check_reading(resize: tuple[int, int] | None, labels: str | None) -> None:
    """Raises DataError, one line, for what no data could be read by."""
    check_size(resize)
    if labels is not None and not isinstance(labels, (str, os.PathLike)):
        raise DataError(f"labels is {in_short(labels)}; expected a column, an array or a file by its name, or None")


@contextmanager
def _words_for_the_system() -> Iterator[None]:
    """A file that cannot be opened or read, in one line."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise DataError(f"{where}{error.strerror or one_line(error)}; expected {EXPECTED}") from None


def _digits(held_out: float, check: Check) -> Dataset:
    data, labels = digits.read_digits()
    check(data, "digits")
    train, held = split_rows(len(data), held_out, seed=0)
    found = f"scikit-learn's 8x8 digits, {len(held)} of {len(data)} rows held out"
    return Dataset("digits", data[train], data[held], digits.IMAGE_SHAPE, True, found, labels[train], labels[held])


def _mnist(data_dir: str | PathLike[str] | None, check: Check) -> Dataset:
    train, train_labels, test, test_labels = mnist.read_mnist(data_dir)
    check(train, "mnist")
    check(test, "mnist, held out")
    found = "MNIST as published, its test set held out"
    return Dataset("mnist", train, test, mnist.IMAGE_SHAPE, True, found, train_labels, test_labels)


def _existing(source: str | PathLike[str]) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise DataError(f"data of type {type(source).__name__}; expected {EXPECTED}")
    path = Path(source)
    if not os.fspath(source) or not path.exists():
        raise DataError(f"{os.fspath(source)!r}: no such data set or file; expected {EXPECTED}")
    return path


def _own(
    path: Path,
    seed: int,
    held_out: float | None,
    resize: tuple[int, int] | None,
    labels: str | None,
    check: Check,
) -> Dataset:
    rows, shape, kept, found, marks, held_out_marks, columns = _read_rows(path, resize, labels)
    check(rows, str(path))
    if kept is not None:
        check(kept, f"{path}, held out")
    parts: tuple[Data, Data]
    if kept is None:
        train, held = split_rows(len(rows), OWN_HELD_OUT if held_out is None else held_out, seed, str(path))
        found = f"{found}, {len(held)} of {len(rows)} rows held out"
        parts = (rows.subset(train), rows.subset(held)) if isinstance(rows, MappedRows) else (rows[train], rows[held])
        if marks is not None:
            marks, held_out_marks = marks[train], marks[held]
    elif held_out is not None:
        raise DataError(f"{path}: held_out is {held_out}; expected None: it has a held-out part of its own")
    else:
        parts = rows, kept
    name = Path(os.path.abspath(path)).name  # that of "." too
    return Dataset(name, *parts, shape, is_grey(parts[0]) or is_grey(parts[1]), found, marks, held_out_marks, columns)


class Rows(NamedTuple):
    """`Arrays` as data, and the shape of the images that rows are."""

    train: Data
    image_shape: tuple[int, int] | None
    held_out: Data | None
    found: str
    labels: NDArray | None
    held_out_labels: NDArray | None
    columns: tuple[str, ...] | None


def _read_rows(path: Path, resize: tuple[int, int] | None, labels: str | None) -> Rows:
    arrays = _read_own(path, resize, labels)
    array, given, found, others = arrays.train, arrays.held_out, arrays.found, arrays[3:]
    rows, shape = _as_rows(array, str(path))
    check_pixels(rows, str(path))
    if given is None:
        return Rows(rows, shape, None, f"{found} {array.shape} of {array.dtype}", *others)
    if array.ndim > 2 and given.ndim > 2 and _sides(given) != _sides(array):  # as many values, in another order
        raise DataError(
            f"{path}, held out: examples of shape {_sides(given)}; expected {_sides(array)} as in the training data"
        )
    kept = _as_rows(given, f"{path}, held out", rows)[0]
    check_pixels(kept, f"{path}, held out")
    return Rows(rows, shape, kept, f"{found}, {array.shape} and {given.shape} of {array.dtype}", *others)


def _read_own(path: Path, resize: tuple[int, int] | None, labels: str | None) -> Arrays:
    """The array in a file or folder, the held-out one where the file has its own, what it was, and labels."""
    name = path.name.lower()
    if path.is_dir():
        if labels is not None:
            raise DataError(f"{path}: labels is {labels!r}; expected none: in a folder of images, subfolders name them")
        images = read_images(path, resize)
        return Arrays(images.pixels, None, "folder of images", images.labels)
    if resize is not None:
        raise DataError(f"{path}: resize is {resize[0]}x{resize[1]}; expected a folder of images to resize")
    if name.endswith(".npy"):
        return _with_label_file(path, read_npy(path), ".npy array", labels)
    if name.endswith(".npz"):
        return read_npz(path, labels)
    if name.endswith(".csv"):
        return read_csv_with_labels(path, labels)
    if name.endswith(".parquet"):
        return read_parquet(path, labels)
    if name.endswith(IDX):
        return _with_label_file(path, read_idx(path), "IDX array", labels_beside(path) if labels is None else labels)
    raise DataError(f"{path}: a file of another kind; expected {EXPECTED}")


def _with_label_file(path: Path, array: NDArray, found: str, labels: str | PathLike[str] | None) -> Arrays:
    if labels is None:
        return Arrays(array, None, found, None)
    return Arrays(array, None, found, read_label_file(_label_file(path, labels), len(array) if array.ndim else 0))


def _label_file(path: Path, labels: str | PathLike[str]) -> Path:
    """The labels are looked for as they are named, and then beside the data, with which they may have been moved."""
    places = Path(labels), path.parent / labels, path.parent / Path(labels).name
    return next((place for place in places if place.is_file()), places[0])


def whole_path_of_labels(source: str, labels: str | None) -> str | None:
    """Labels so that they are found from any folder: a file by its whole path, others, which the data hold, by name."""
    if not labels or not source.lower().endswith(WITH_LABEL_FILE):
        return labels
    return os.path.abspath(_label_file(Path(source), labels))


def _as_rows(array: NDArray, name: str, like: Data | None = None) -> tuple[Data, tuple[int, int] | None]:
    """The array as data, one row an example, and the shape of the images where each example is one.

    Takes     array (N, D), images (N, height, width), or of a higher rank, which is flattened; like: data whose columns
              and type it must share
    """
    shape = _sides(array)
    if isinstance(array, np.memmap) and array.nbytes >= STAYS_ON_DISK:
        return map_rows(array, name), (shape[0], shape[1]) if len(shape) == 2 else None
    if array.ndim > 2 and array.size > 0:
        array = array.reshape(len(array), -1)
    data = as_data(array, None if like is None else like.shape[1], name=name)
    if like is not None and data.dtype != like.dtype:
        raise DataError(f"{name}: of {data.dtype}; expected {like.dtype} as the training data")
    return data, (shape[0], shape[1]) if len(shape) == 2 else None


def _sides(array: NDArray) -> tuple[int, ...]:
    """The sizes of one example; the last of a grey image may be a 1, which is left out."""
    sides = tuple(int(size) for size in array.shape[1:])
    return sides[:2] if len(sides) == 3 and sides[2] == 1 else sides
