"""A .parquet table: its columns of numbers, or of lists of numbers of one length, side by side. Needs pyarrow."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.arrays import Arrays, no_column
from scratchvae.data.checks import DataError, check_pixels, one_line
from scratchvae.data.labels import as_labels

if TYPE_CHECKING:
    from pyarrow import Array
    from pyarrow.parquet import ParquetFile

FOUND = "parquet table"
INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls an index that has no name


def read_parquet(path: Path, labels: str | None = None) -> Arrays:
    """The table as an array (N, D), one row an example, and the column called `labels`, taken out of the data.

    Columns   of numbers or bool, each one value of a row; of lists, all of one length, as many values. The array has
              the type that holds them all: columns of uint8 stay uint8, and bool beside them becomes 0 and 255, which
              mean exactly 0 and 1. The numbers that pandas writes for rows without names are left out
    Raises    DataError, one line: pyarrow not installed, a damaged file, no column of that name, two columns of one
              name, a column of another kind, a missing value, empty lists or lists of different lengths,
              bytes of 0 and 1 beside bool
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"{path}: pyarrow is not installed; expected it to read .parquet (pip install 'scratchvae[parquet]')"
        ) from None
    try:
        with ParquetFile(path) as file:
            return _columns(path, file, labels)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DataError(f"{path}: cannot be read ({one_line(error)}); expected a complete .parquet table") from None


def _columns(path: Path, file: "ParquetFile", labels: str | None) -> Arrays:
    names = [name for name in file.schema_arrow.names if not INDEX.fullmatch(name)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path}: {names.count(twice[0])} columns are called {twice[0]!r}; expected a name for each")
    if labels is not None and labels not in names:
        raise no_column(path, labels, names)
    columns = tuple(name for name in names if name != labels)
    parts = [_values(path, name, file.read([name]).column(name)) for name in columns]
    if not parts:
        raise DataError(f"{path}: no column of numbers; expected at least one")
    truths = np.repeat([part.dtype.kind == "b" for part in parts], [part.shape[1] for part in parts])
    data = np.empty((file.metadata.num_rows, len(truths)), np.result_type(*parts))
    np.concatenate(parts, axis=1, out=data)
    if data.dtype == np.uint8 and truths.any():
        check_pixels(data, str(path))  # now, for a 255 of a bool would hide that the bytes are 0 and 1
        data[:, truths] *= 255
    kept = columns if len(columns) == data.shape[1] else None  # a list's values have no names
    if labels is None:
        return Arrays(data, None, FOUND, columns=kept)
    marks = _marks(path, labels, file.read([labels]).column(labels))
    return Arrays(data, None, FOUND, as_labels(marks, len(data), f"{path}, column {labels!r}"), columns=kept)


def _marks(path: Path, name: str, column: Any) -> NDArray:
    """A column of labels (N,): numbers as they are, all that NumPy has no type for as words."""
    from pyarrow import large_string, types

    values = _whole(path, name, column)
    if types.is_nested(values.type):
        raise DataError(f"{path}: column {name!r} is of {values.type}; expected a number or a word in every row")
    marks = values.to_numpy(zero_copy_only=False)
    if marks.dtype != object:
        return marks
    return values.cast(large_string()).to_numpy(zero_copy_only=False).astype(str)


def _whole(path: Path, name: str, column: Any, lists: int = 1) -> "Array":
    """The column in one piece, without dictionary encoding. Refuses one with missing values."""
    import pyarrow

    if column.null_count:
        row = column.is_null().to_pylist().index(True) // lists
        raise DataError(f"{path}: column {name!r} has no value in row {row}; expected every value present")
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pyarrow.concat_arrays(column.chunks) if isinstance(column, pyarrow.ChunkedArray) else column


def _values(path: Path, name: str, column: Any) -> NDArray:
    """One column as an array (N, 1), or (N, L) for lists of length L."""
    from pyarrow import types

    values, lists = _whole(path, name, column), 1
    kind = values.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        lengths = set(values.value_lengths().to_numpy()) if not types.is_fixed_size_list(kind) else {kind.list_size}
        if len(lengths) > 1:
            raise DataError(
                f"{path}: column {name!r} has lists of {min(lengths)} to {max(lengths)} values; expected one length"
            )
        lists = int(next(iter(lengths), 1))
        if lists == 0:
            raise DataError(f"{path}: column {name!r} has lists of no values; expected at least one in each")
        values = _whole(path, name, values.flatten(), lists)
        kind = values.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise DataError(
            f"{path}: column {name!r} is of {kind}; expected numbers, or lists of them (labels: name their column)"
        )
    return values.to_numpy(zero_copy_only=False).reshape(-1, lists)
