"""A parquet table: columns of numbers and of lists side by side, labels by name, one line for what is neither."""

import sys

import numpy as np
import pytest
from data_files import message_of

from scratchvae.data import load
from scratchvae.data.parquet import read_parquet

arrow = pytest.importorskip("pyarrow", reason="pyarrow (the extra 'parquet') is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

EMPTY_LISTS = arrow.array([[], []], arrow.list_(arrow.float64()))
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 6)).astype(np.uint8)


@pytest.fixture
def table(tmp_path):
    """Writes columns as a table, in several row groups."""

    def write(**columns):
        parquet.write_table(arrow.table(columns), tmp_path / "t.parquet", row_group_size=7)
        return tmp_path / "t.parquet"

    return write


def columns_of(values):
    return {f"p{column}": arrow.array(values[:, column]) for column in range(values.shape[1])}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64, np.bool_])
def test_columns_of_one_type_come_back_as_written(table, dtype):
    read = read_parquet(table(**columns_of(PIXELS.astype(dtype))))
    np.testing.assert_array_equal(read.train, PIXELS.astype(dtype))
    assert read.train.dtype == dtype
    assert read.labels is None


@pytest.mark.parametrize(
    "kind", [arrow.list_(arrow.uint8()), arrow.large_list(arrow.uint8()), arrow.list_(arrow.uint8(), 6)]
)
def test_a_column_of_lists_is_as_many_columns(table, kind):
    data = read_parquet(table(pixels=arrow.array(PIXELS.tolist(), kind), more=arrow.array(PIXELS[:, 0]))).train
    np.testing.assert_array_equal(data, np.concatenate([PIXELS, PIXELS[:, :1]], axis=1))
    assert data.dtype == np.uint8


def test_columns_of_several_types_take_the_type_that_holds_them_all(table):
    data = read_parquet(table(a=arrow.array(PIXELS[:, 0]), b=arrow.array(PIXELS[:, 1] / 7))).train
    np.testing.assert_array_equal(data, np.stack([PIXELS[:, 0], PIXELS[:, 1] / 7], axis=1))


@pytest.mark.parametrize(("dtype", "true"), [(np.uint8, 255), (np.bool_, 1), (np.int16, 1), (np.float32, 1)])
def test_a_truth_beside_bytes_is_a_whole_pixel_and_beside_other_numbers_1(table, dtype, true):
    truths, numbers = PIXELS[:, 0] > 99, PIXELS[:, 1].astype(dtype)
    path = table(a=arrow.array(truths), b=arrow.array(numbers), c=arrow.array([[truth] for truth in truths.tolist()]))
    data = read_parquet(path).train
    np.testing.assert_array_equal(data, np.stack([truths * true, numbers, truths * true], axis=1))
    assert data.dtype == dtype


def test_a_truth_does_not_hide_that_the_bytes_beside_it_are_0_and_1(table):
    path = table(a=arrow.array(PIXELS[:, 0] > 99), b=arrow.array(PIXELS[:, 1] % 2))
    message_of(lambda: load(path), "t.parquet: uint8 with no value above 1")


@pytest.mark.parametrize("encode", [False, True])
def test_a_column_of_labels_is_taken_out_of_the_data(table, encode):
    names = arrow.array(["cat" if row[0] > 99 else "dog" for row in PIXELS])
    data = load(table(**columns_of(PIXELS), kind=names.dictionary_encode() if encode else names), labels="kind")
    assert data.train.shape == (27, 6)
    np.testing.assert_array_equal(data.train_labels, np.where(data.train[:, 0] > 99, "cat", "dog"))
    assert "parquet table" in data.found


@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.bool_])
def test_labels_that_are_numbers_stay_numbers(table, dtype):
    marks = (np.arange(30) % 3 / 2).astype(dtype)
    labels = read_parquet(table(**columns_of(PIXELS), y=arrow.array(marks)), "y").labels
    np.testing.assert_array_equal(labels, marks)
    assert labels.dtype == dtype


@pytest.mark.parametrize(
    ("columns", "labels", "words"),
    [
        ({"a": ["x", "y"]}, None, ["column 'a' is of string", "expected numbers"]),
        ({"a": [1, None]}, None, ["column 'a' has no value in row 1"]),
        ({"a": [[1, 2], [3, None]]}, None, ["column 'a' has no value in row 1"]),
        ({"a": [[1, 2], [3]]}, None, ["lists of 1 to 2 values", "expected one length"]),
        ({"a": [1, 2], "b": EMPTY_LISTS}, None, ["column 'b' has lists of no values", "expected at least one"]),
        ({"a": EMPTY_LISTS}, None, ["column 'a' has lists of no values"]),
        ({"a": [1, 2], "b": [[1], [2]]}, "b", ["column 'b' is of list<", "expected a number or a word"]),
        ({"a": [1, 2], "b": EMPTY_LISTS}, "b", ["column 'b' is of list<"]),
        ({"a": [1, 2], "b": [{"c": 1}, {"c": 2}]}, "b", ["column 'b' is of struct<"]),
        ({"a": [1, 2], "b": [b"x", b"\xff"]}, "b", ["cannot be read", "UTF8"]),
        ({"a": [1, 2]}, "b", ["no column 'b'", "expected one of 'a'"]),
        ({"a": [1, 2]}, "a", ["no column of numbers"]),
        ({"a": [1, 2], "b": ["x", None]}, "b", ["column 'b' has no value in row 1"]),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(table, columns, labels, words):
    path = table(**{name: arrow.array(values) for name, values in columns.items()})
    message_of(lambda: load(path, labels=labels), "t.parquet", *words)


def test_a_name_stands_for_one_column(table, tmp_path):
    columns = [arrow.array([1.0, 2.0]), arrow.array([7.0, 8.0])]
    twice = arrow.Table.from_arrays([*columns, *columns], names=["k", "k", "m", "m"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    message_of(lambda: load(tmp_path / "twice.parquet"), "2 columns are called 'k'; expected a name for each")
    path = table(**{"l": arrow.array([[1, 2], [3, 4]]), "l.list": arrow.array([7, 8])})
    np.testing.assert_array_equal(read_parquet(path).train, [[1, 2, 7], [3, 4, 8]])


def test_a_column_called_as_pandas_calls_row_numbers_is_none(table):
    path = table(a=arrow.array([1.0, 3.0]), __index_level_0__=arrow.array([0, 2]), index_level=arrow.array([5.0, 6.0]))
    np.testing.assert_array_equal(read_parquet(path).train, [[1, 5], [3, 6]])


def test_row_numbers_that_pandas_keeps_are_no_column(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.1, 0.2, 0.3, 0.4]})
    frame[frame.a != 2].to_parquet(tmp_path / "t.parquet")  # 0, 2, 3: it keeps what is no range
    assert len(parquet.read_schema(tmp_path / "t.parquet").names) == 3
    np.testing.assert_array_equal(read_parquet(tmp_path / "t.parquet").train, [[1, 0.1], [3, 0.3], [4, 0.4]])


def test_columns_of_one_value_a_row_have_names(table):
    assert load(table(a=arrow.array([1.0, 3.0]), b=arrow.array([5.0, 6.0]))).columns == ("a", "b")
    assert load(table(a=arrow.array([1.0, 3.0]), b=arrow.array([5.0, 6.0])), labels="a").columns == ("b",)
    assert load(table(a=arrow.array([[1, 2], [3, 4]]), b=arrow.array([5, 6]))).columns is None


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_damaged_table_is_refused(table, keep):
    path = table(**columns_of(PIXELS))
    path.write_bytes(path.read_bytes()[:keep])
    message_of(lambda: load(path), "t.parquet", "cannot be read", "expected a complete .parquet table")


def test_without_pyarrow_it_says_what_is_missing(table, monkeypatch):
    path = table(**columns_of(PIXELS))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message_of(lambda: load(path), "pyarrow is not installed", "scratchvae[parquet]")
