""".npy, .npz and .csv: what was written is read, and damaged or foreign files are refused in one line."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import message_of, planted
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scratchvae.data import load
from scratchvae.data.arrays import read_csv, read_npy, read_npz

X = np.random.default_rng(0).random((10, 3)).astype(np.float32)


def saved(save, *arrays, **named) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


@settings(deadline=None, max_examples=40)
@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.float32, np.float64, np.dtype(">f4"), np.int64, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
    )
)
def test_an_npy_array_comes_back_as_written(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("npy") / "x.npy"
    np.save(path, array)
    np.testing.assert_array_equal(read_npy(path), array)


def test_a_fortran_ordered_npy_comes_back_as_written(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), X)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["an empty file", "expected NumPy's .npy format"]),
        (b"\x80\x04K\x01.", ["starts with bytes '80 04 4b 01 2e'", "expected NumPy's .npy format"]),
        (saved(np.save, X)[:50], ["cannot be read", "expected a complete .npy file"]),
        (saved(np.save, X).replace(b"}", b"{"), ["cannot be read", "expected a complete .npy file"]),
        (saved(np.save, X)[:-1], ["expected a complete .npy file"]),
        (saved(np.save, X) + b"\0", ["bytes; its header, (10, 3) of float32, expects"]),
        (saved(np.save, np.array([[1, "a"]], object)), ["cannot be read", "expected a complete .npy file of numbers"]),
        (saved(np.save, np.array([["a", "b"]])), ["array of <U1", "expected numbers"]),
        (saved(np.save, X.astype(complex)), ["array of complex128", "expected numbers"]),
        (saved(np.save, np.zeros((0, 3))), ["empty, shape (0, 3)", "expected at least one row"]),
        (saved(np.save, np.zeros((0, 8, 8))), ["empty, shape (0, 8, 8)", "expected at least one row"]),
        (saved(np.save, np.zeros(3)), ["1-D, shape (3,)", "expected 2-D"]),
        (saved(np.save, np.float32(3)), ["0-D, shape ()", "expected 2-D"]),
        (saved(np.save, np.zeros((1, 3))), ["1 row", "expected at least 2"]),
        (saved(np.save, planted(X, 7, 2, np.nan)), ["row 7, column 2", "is nan", "expected finite numbers"]),
        (saved(np.save, np.eye(4, dtype=np.uint8)), ["uint8 with no value above 1", "expected pixels 0..255"]),
    ],
)
def test_a_bad_npy_is_refused_naming_the_file(write, content, parts):
    path = write("x.npy", content)
    message_of(lambda: load(path), str(path), *parts)


def test_a_pickle_is_never_loaded(write):
    import pickle

    path = write("x.npy", pickle.dumps(print))
    message_of(lambda: load(path), "expected NumPy's .npy format")


@pytest.mark.parametrize("name", ["whatever", "labels"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_only_array_of_an_npz_is_the_data(write, save, name):
    arrays = read_npz(write("x.npz", saved(save, **{name: X})))
    np.testing.assert_array_equal(arrays.train, X)
    assert arrays.held_out is None
    assert arrays.found == f"array '{name}'"


def in_a_zip(member: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # of a fixed date: a test is named after these bytes
        archive.writestr(zipfile.ZipInfo("x.npy"), member, compression)
    return buffer.getvalue()


def bomb() -> bytes:
    """A member that is said to have, and whose header says that it has, a gigabyte; a few bytes are there."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 30,)})
    content = in_a_zip(header.getvalue() + bytes(999), zipfile.ZIP_DEFLATED)
    there, promised = (struct.pack("<I", len(header.getvalue()) + size) for size in (999, 1 << 30))
    assert content.count(there) == 2  # in the directory and before the member
    return content.replace(there, promised)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_npy_format_is_read(write, version):
    content = saved(np.lib.format.write_array, X, version=version)
    np.testing.assert_array_equal(read_npy(write("x.npy", content)), X)
    np.testing.assert_array_equal(read_npz(write("x.npz", in_a_zip(content))).train, X)


def test_zeros_that_deflate_makes_a_thousandth_of_are_read(write):
    np.testing.assert_array_equal(read_npz(write("x.npz", saved(np.savez_compressed, np.zeros((200, 500))))).train, 0)


@pytest.mark.parametrize(("train", "held_out"), [("x_train", "x_test"), ("train", "held_out"), ("X", "test")])
def test_an_npz_with_its_own_held_out_part_is_not_split_again(write, train, held_out):
    data_file = write("x.npz", saved(np.savez, **{train: X[:7], held_out: X[7:], "y_train": np.arange(7)}))
    data = load(data_file)
    np.testing.assert_array_equal(data.train, X[:7])
    np.testing.assert_array_equal(data.held_out, X[7:])
    assert repr(train) in data.found
    assert repr(held_out) in data.found
    message_of(lambda: load(data_file, held_out=0.5), "x.npz: held_out is 0.5", "expected None")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["an empty file", "expected NumPy's .npz format"]),
        (saved(np.save, X), ["starts with bytes '93 4e'", "expected NumPy's .npz format"]),
        (saved(np.savez, x=X)[:-30], ["cannot be read", "expected a complete .npz file"]),
        (saved(np.savez, x=X).replace(X.tobytes(), X[::-1].tobytes()), ["cannot be read", "CRC"]),
        (saved(np.savez, x=np.array([[None]])), ["cannot be read", "expected a complete .npz file of numbers"]),
        (saved(np.savez), ["holds no array", "expected one array"]),
        (saved(np.savez, a=X, b=X), ["holds 2 arrays ('a', 'b')", "expected one array, or one named train"]),
        (saved(np.savez, x=X, train=X), ["holds 2 arrays ('x', 'train')", "expected one array"]),
        (saved(np.savez, x=X, test=X, x_test=X), ["holds 3 arrays", "at most one named held_out or test or x_test"]),
        (in_a_zip(saved(np.save, X) + b"\0"), ["'x.npy' has 121 bytes of values", "(10, 3) of float32, expects 120"]),
        (bomb(), ["'x.npy' is said to have 1073741952 bytes", "expected at most"]),
        (saved(np.savez, x=X, test=X[:, :2]), ["held out: 2 columns", "expected data_dim = 3"]),
        (saved(np.savez, x=X, test=X.astype(np.uint8)), ["held out: of uint8", "expected float32"]),
        (saved(np.savez, x=X > 0.5, test=np.eye(3, dtype=np.uint8)), ["held out: uint8 with no value above 1"]),
        (saved(np.savez, x=X, test=X[:0]), ["held out: empty", "expected at least one row"]),
    ],
)
def test_a_bad_npz_is_refused_naming_the_file(write, content, parts):
    path = write("x.npz", content)
    message_of(lambda: load(path), str(path), *parts)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["", "a{0}b{0}c\n", '"x 1"{0}"x{0}2"{0}"x 3"\n', "# made by hand\n", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_csv_is_read_with_a_header_or_without(write, delimiter, header, ending):
    rows = ending.join(delimiter.join(repr(float(value)) for value in row) for row in X)
    text = header.format(delimiter).replace("\n", ending) + rows + ending + ending
    np.testing.assert_array_equal(read_csv(write("x.csv", text.encode())), X.astype(np.float64))


@settings(deadline=None, max_examples=30)
@given(array=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_every_number_survives_a_csv(tmp_path_factory, array):
    path: Path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text("\n".join(",".join(repr(float(value)) for value in row) for row in array))
    np.testing.assert_array_equal(read_csv(path), array)


NUMBERS = [[5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("0,1,2,3\n5,6,7,8\n1,2,3,4\n", NUMBERS),  # pandas' columns without names
        (",0,1,2,3\n0,5,6,7,8\n1,1,2,3,4\n", NUMBERS),  # and its row numbers
        (",a,b\n0,5,6\n1,7,8\n", [[5, 6], [7, 8]]),
        (",0\n0,5\n1,7\n", [[5], [7]]),
        (",a,b\n3,5,6\n1,7,8\n", [[3, 5, 6], [1, 7, 8]]),  # no row numbers: data, whatever they are called
        ("0,1,2\n5,6,7\n", [[0, 1, 2], [5, 6, 7]]),  # so few may be an example
        ("0,1,3,2\n5,6,7,8\n", [[0, 1, 3, 2], [5, 6, 7, 8]]),
        ("0\n1\n2\n", [[0], [1], [2]]),
        ('""\n0\n1\n', [[0], [1]]),  # the only column is data, with or without a name
        ('"x, left";"x, right"\n1;2\n3;4\n', [[1, 2], [3, 4]]),  # a comma inside a name is none between columns
    ],
)
def test_a_header_of_numbers_and_row_numbers_are_no_data(write, text, rows):
    found = read_csv(write("x.csv", text.encode()))
    np.testing.assert_array_equal(found, np.array(rows, float))
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"0,1,2\n5,6,7\n", "csv table without a header (2, 3) of float64"),
        (b"0,1,2,3\n5,6,7,8\n1,2,3,4\n", "csv table with a header (2, 4) of float64"),
        (b"a,b\n5,6\n1,2\n", "csv table with a header (2, 2) of float64"),
    ],
)
def test_whether_a_csv_was_taken_to_have_a_header_is_said(write, text, found):
    assert load(write("x.csv", text)).found.startswith(found)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"", ["no line of numbers", "expected lines of comma-separated numbers"]),
        (b"a,b,c\n", ["no line of numbers"]),
        (b"a,b\n1,2\n3,x\n", ["line 3, column 2 is 'x'", "expected a number"]),
        (b"1,2\n\n3,\n", ["line 3, column 2 is ''", "expected a number"]),
        (
            b"1,x\n3,4\n",
            ["line 1, column 2 is 'x'; expected a number (one column of words can be the labels: --labels)"],
        ),
        (b"1_0,2\n3,4\n", ["line 1, column 1 is '1_0'", "expected a number"]),  # Python reads a 10
        (b"1,2\n3,4,5\n", ["line 2 has 3 fields", "expected 2 as in line 1"]),
        (b"1,2\n3\n", ["line 2 has 1 fields", "expected 2 as in line 1"]),
        (b'"a","b"\n"1",5,6\n"2",7,8\n', ["line 2 has 3 fields", "expected 2 as in line 1"]),  # R's names of rows
        (b"# made by hand\na,b,c\n1,2\n", ["line 3 has 2 fields", "expected 3 as in line 2"]),
        (b'1,2\n3,"4\n5,6\n', ["line 2 has a quote that is not closed", "expected every field on one line"]),
        (b'"1\n2"\n3\n', ["line 1 has a quote that is not closed"]),  # else one row of 12
        (b"a,b\n0,1\n1,nan\n", ["row 1, column 1 (counted from 0) is nan", "expected finite numbers"]),
        (b"0,1\n1e999,0\n", ["row 1, column 0 (counted from 0) is inf", "expected finite numbers"]),
        (b"\xff\xfe1\x00,\x00", ["not text in UTF-8", "expected lines of comma-separated numbers"]),
        (b'1,2\n"' + b"3" * 200_000, ["expected"]),
    ],
)
def test_a_bad_csv_is_refused_naming_file_and_line(write, text, parts):
    path = write("x.csv", text)
    message_of(lambda: load(path), str(path), *parts)
