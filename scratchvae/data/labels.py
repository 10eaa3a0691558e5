"""Labels beside the data: one value a row, for pictures. Nothing is trained on them.

They come from where the data come from: the folders that images are in, the label file beside an IDX file of images,
an array of a .npz, a column of a .csv or .parquet, or a file of their own. Numbers stay numbers, words stay words.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import DataError
from scratchvae.data.idx import read_idx

KINDS = "biufU"  # numbers and words
BY_NAME = (".csv", ".parquet", ".npz")  # files that hold their labels themselves, under a name


class NoLabelsError(DataError):
    """A file without a column or an array of the name that labels were said to have."""


def are_labels(array: NDArray) -> bool:
    """Whether these are numbers or words, a list or a column of them (N, 1), of whatever length."""
    return array.dtype.kind in KINDS and (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1))


def as_labels(labels: NDArray, rows: int, name: str) -> NDArray:
    """Labels as they are kept: (N,), words that are all whole numbers as numbers; "01" is a word, and not the "1".

    Raises    DataError, one line: not one value for each of the rows
    """
    if not are_labels(labels) or len(labels) != rows:
        raise DataError(
            f"{name}: {labels.dtype} of shape {labels.shape}; expected a number or a word for each of {rows} rows"
        )
    labels = labels.reshape(rows)
    if labels.dtype.kind == "U":
        try:
            numbers = labels.astype(np.int64)
        except (ValueError, OverflowError):
            return labels
        return numbers if (numbers.astype(str) == np.strings.strip(labels)).all() else labels
    return labels


def labels_beside(path: Path) -> Path | None:
    """The IDX file with the labels of an IDX file of images, where both are called as MNIST calls them."""
    for images, labels in (("images-idx3", "labels-idx1"), ("images.idx3", "labels.idx1")):
        if images in path.name:
            stem = path.name.replace(images, labels).removesuffix(".gz")
            return next((path.with_name(name) for name in (stem, stem + ".gz") if path.with_name(name).is_file()), None)
    return None


def read_label_file(path: Path, rows: int) -> NDArray:
    """Labels in a file of their own: .npy, IDX, or text with one label a line.

    Raises    DataError, one line: no such file, another format, not one value for each of the rows
    """
    from scratchvae.data.arrays import read_npy  # it reads labels too

    if not path.is_file():
        raise DataError(f"labels {str(path)!r}: no such file; expected a .npy, IDX or text file with a label a row")
    name = path.name.lower()
    if name.endswith(".npy"):
        return as_labels(np.array(read_npy(path)), rows, str(path))
    if name.endswith((".idx", "-ubyte", ".gz")):
        return as_labels(read_idx(path), rows, str(path))
    try:
        words = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text in UTF-8; expected a label a line") from None
    while words and not words[-1].strip():
        words.pop()
    return as_labels(np.array([word.strip() for word in words], dtype=str), rows, str(path))
