"""Labels beside the data: found where they lie, kept with their rows, and refused where they do not fit."""

import numpy as np
import pytest
from data_files import gzipped, idx_bytes, message_of

from scratchvae.data import load, load_rows
from scratchvae.data.arrays import read_csv_with_labels
from scratchvae.data.labels import as_labels, read_label_file

ROWS = np.arange(20 * 16, dtype=np.float32).reshape(20, 16)
NAMES = np.array([f"kind {row % 3}" for row in range(20)])
NUMBERS = np.arange(20) % 3


def assert_with_their_rows(data, labels):
    """Every row of ROWS is told by its first value."""
    for part, found in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        np.testing.assert_array_equal(found, labels[(part[:, 0] // 16).astype(int)])


@pytest.mark.parametrize("labels", [NUMBERS, NUMBERS / 2, NUMBERS == 1, NAMES], ids=lambda labels: labels.dtype.name)
@pytest.mark.parametrize("key", ["y", "labels", "Target", "y_train"])
def test_an_npz_has_labels_under_a_name_like_theirs(tmp_path, key, labels):
    np.savez(tmp_path / "a.npz", **{"whatever": ROWS, key: labels})
    assert_with_their_rows(load(tmp_path / "a.npz"), labels)


def test_an_npz_keeps_the_labels_of_its_held_out_part(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=ROWS[:15], y_train=NAMES[:15], x_test=ROWS[15:], y_test=NAMES[15:])
    assert_with_their_rows(load(tmp_path / "a.npz"), NAMES)


@pytest.mark.parametrize("asked", [None, "y"])
def test_labels_may_be_a_column(tmp_path, asked):
    np.savez(tmp_path / "a.npz", x=ROWS, y=NAMES[:, None])
    assert_with_their_rows(load(tmp_path / "a.npz", labels=asked), NAMES)


def test_an_npz_gives_the_array_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", x=ROWS, kinds=NAMES, y=NUMBERS)
    assert_with_their_rows(load(tmp_path / "a.npz", labels="kinds"), NAMES)
    np.savez(tmp_path / "b.npz", whatever=ROWS, kinds=NAMES)  # without them there is one array left
    assert_with_their_rows(load(tmp_path / "b.npz", labels="kinds"), NAMES)
    np.savez(tmp_path / "c.npz", x=NAMES, y=ROWS)
    assert_with_their_rows(load(tmp_path / "c.npz", labels="x"), NAMES)
    np.savez(tmp_path / "c.npz", x=NUMBERS)
    message_of(lambda: load(tmp_path / "c.npz", labels="x"), "c.npz: holds 1 array ('x')", "one array beside 'x'")
    message_of(lambda: load(tmp_path / "a.npz", labels="sort"), "a.npz", "no array 'sort'", "expected the labels")
    np.savez(tmp_path / "b.npz", x=ROWS, kinds=NAMES[:3])
    message_of(lambda: load(tmp_path / "b.npz", labels="kinds"), "b.npz", "shape (3,)", "each of 20 rows")


@pytest.mark.parametrize("array", [np.eye(20), np.array([{}] * 20)], ids=["2-D", "objects"])
def test_an_array_that_is_called_like_labels_and_is_none_is_left_alone(tmp_path, array):
    np.savez(tmp_path / "a.npz", x=ROWS, y=array)
    assert load(tmp_path / "a.npz").train_labels is None


def test_of_two_arrays_that_are_called_like_labels_none_is_taken_unasked(tmp_path):
    np.savez(tmp_path / "a.npz", x=ROWS, y=NUMBERS, labels=NAMES)
    assert load(tmp_path / "a.npz").train_labels is None
    assert_with_their_rows(load(tmp_path / "a.npz", labels="labels"), NAMES)


@pytest.mark.parametrize("key", ["y", "y_test"])
def test_labels_of_an_npz_are_one_a_row(tmp_path, key):
    arrays = {"x": ROWS[:15], "y": NAMES[:15], "x_test": ROWS[15:], "y_test": NAMES[15:]}
    np.savez(tmp_path / "a.npz", **arrays | {key: NUMBERS[:7]})
    expected = f"expected a number or a word for each of {15 if key == 'y' else 5} rows"
    message_of(lambda: load(tmp_path / "a.npz"), f"a.npz, {key!r}: int64 of shape (7,)", expected)


@pytest.mark.parametrize("pack", [bytes, gzipped])
def test_a_label_file_lies_beside_an_idx_file_of_images(tmp_path, pack):
    ending = ".gz" if pack is gzipped else ""
    images = (ROWS % 256).astype(np.uint8).reshape(20, 4, 4)
    images[:, 0, 0] = np.arange(20)
    (tmp_path / f"my-images-idx3-ubyte{ending}").write_bytes(pack(idx_bytes(images)))
    assert load(tmp_path / f"my-images-idx3-ubyte{ending}").train_labels is None
    (tmp_path / f"my-labels-idx1-ubyte{ending}").write_bytes(pack(idx_bytes(NUMBERS.astype(np.uint8))))
    data = load(tmp_path / f"my-images-idx3-ubyte{ending}")
    np.testing.assert_array_equal(data.train_labels, data.train[:, 0] % 3)
    message_of(lambda: load(tmp_path / f"my-images-idx3-ubyte{ending}", labels=""), "labels", "no such file")
    (tmp_path / f"my-labels-idx1-ubyte{ending}").write_bytes(pack(idx_bytes(NUMBERS[:4].astype(np.uint8))))
    message_of(lambda: load(tmp_path / f"my-images-idx3-ubyte{ending}"), "my-labels-idx1-ubyte", "each of 20 rows")


@pytest.mark.parametrize(
    ("name", "name_of_labels"),
    [
        ("my-images-idx3-ubyte", "my-labels-idx1-ubyte.gz"),
        ("my-images-idx3-ubyte.gz", "my-labels-idx1-ubyte"),
        ("my-images.idx3-ubyte", "my-labels.idx1-ubyte"),
    ],
)
def test_either_file_may_be_gzipped_and_both_may_have_a_dot(write, name, name_of_labels):
    images, labels = np.arange(80, dtype=np.uint8).reshape(20, 2, 2), np.arange(20, dtype=np.uint8)
    path = write(name, (gzipped if name.endswith("gz") else bytes)(idx_bytes(images)))
    write(name_of_labels, (gzipped if name_of_labels.endswith("gz") else bytes)(idx_bytes(labels)))
    data = load(path)
    np.testing.assert_array_equal(data.train_labels, data.train[:, 0] // 4)


def test_an_empty_line_among_labels_is_one_without_a_word(write):
    assert read_label_file(write("labels.txt", b"a\n\nb\n\n"), 3).tolist() == ["a", "", "b"]


@pytest.mark.parametrize("kind", ["npy", "idx", "txt"])
def test_a_npy_has_its_labels_in_a_file_of_their_own(tmp_path, kind):
    np.save(tmp_path / "x.npy", ROWS)
    path = tmp_path / f"labels.{kind}"
    content = {"idx": idx_bytes(NUMBERS.astype(np.uint8)), "txt": " \n".join(NAMES).encode() + b" \n\n", "npy": b""}
    path.write_bytes(content[kind])
    if kind == "npy":
        np.save(path, NUMBERS)
    assert_with_their_rows(load(tmp_path / "x.npy", labels=str(path)), NAMES if kind == "txt" else NUMBERS)


def test_a_byte_order_mark_before_the_labels_is_no_part_of_the_first(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    (tmp_path / "labels.txt").write_text("\n".join(map(str, NUMBERS)), encoding="utf-8-sig")
    data = load(tmp_path / "x.npy", labels=str(tmp_path / "labels.txt"))
    assert_with_their_rows(data, NUMBERS)
    assert data.train_labels.dtype.kind == data.held_out_labels.dtype.kind == "i"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\n", ["<U1 of shape (2,)", "each of 20 rows"]),
        (b"\xff\xfe", ["not text in UTF-8"]),
        (None, ["no such file"]),
    ],
)
def test_a_file_of_labels_that_does_not_fit_is_refused(tmp_path, content, words):
    np.save(tmp_path / "x.npy", ROWS)
    if content is not None:
        (tmp_path / "labels.txt").write_bytes(content)
    message_of(lambda: load(tmp_path / "x.npy", labels=str(tmp_path / "labels.txt")), "labels.txt", *words)


@pytest.mark.parametrize("labels", [NAMES, NUMBERS], ids=["words", "numbers"])
def test_a_column_of_a_csv_is_taken_out_of_the_data(tmp_path, labels):
    lines = ["a,kind," + ",".join(f"x{column}" for column in range(15))]
    lines += [",".join(map(str, (row[0], f'"{label}"', *row[1:]))) for row, label in zip(ROWS, labels, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    data = load(tmp_path / "a.csv", labels="kind")
    assert data.train.shape == (18, 16)
    assert_with_their_rows(data, labels)
    assert data.train_labels.dtype.kind == labels.dtype.kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3,4\n", ["no column 'kind'", "'a', 'b'"]),
        ("0.5,2\n3,4\n", ["no column 'kind'; expected a first line that names the columns"]),
        ("a,kind\n1,x\n3,y,z\n", ["line 3 has 3 fields", "expected 2"]),
        ("kind,a\n1,x,3\n2,y,4\n", ["line 2 has 3 fields", "expected 2 as in line 1"]),
        ("a,kind\n1,x\nq,y\n", ["line 3, column 1 is 'q'", "expected a number"]),
        ('a,kind\n1,x\n2,"y\n3,z\n', ["line 3 has a quote that is not closed", "expected every field on one line"]),
        ("", ["no column 'kind'"]),
        ("kind,kind,a\n1,2,3\n4,5,6\n", ["2 columns are called 'kind'"]),
    ],
)
def test_a_csv_without_its_labels_is_refused(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    message_of(lambda: load(tmp_path / "a.csv", labels="kind"), "a.csv", *words)


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_line_ends_where_an_editor_ends_it(write, mark):
    """Unicode has more ends of lines than a table, and some programs write them inside a field."""
    path = write("a.csv", f"a,kind\n1,x{mark}y\r\n2,z\r\n".encode())
    read = read_csv_with_labels(path, "kind")
    assert read.train.tolist() == [[1], [2]]
    assert read.labels.tolist() == [f"x{mark}y", "z"]
    path = write("a.csv", f"# one{mark}remark\n1\nx\n".encode())
    message_of(lambda: load(path), "line 3, column 1 is 'x'")


def test_a_label_that_starts_as_a_comment_does_is_never_skipped(tmp_path):
    head, rows = "# by hand, in May, at home\nkind,a,b\n", "green,5,6\n# the rest, later\nblue,7,8\n"
    (tmp_path / "a.csv").write_text(f"{head}{rows}#red,1,2\n")
    message_of(lambda: load(tmp_path / "a.csv", labels="kind"), "a.csv: line 6 starts with #", "has 3 fields as a row")
    (tmp_path / "a.csv").write_text(f'{head}{rows}"#red",1,2\n')
    assert load_rows(tmp_path / "a.csv", labels="kind").tolist() == [[5, 6], [7, 8], [1, 2]]
    (tmp_path / "a.csv").write_text("a,kind\n1,x\n#2,y\n3,z\n")  # no number: a row that was commented out
    assert load_rows(tmp_path / "a.csv", labels="kind").tolist() == [[1], [3]]


def test_a_column_without_a_name_that_is_the_labels_leaves_the_next_one_in_the_data(tmp_path):
    (tmp_path / "a.csv").write_text(",b,c\nx,0,5\ny,1,6\nz,2,7\n")
    assert load_rows(tmp_path / "a.csv", labels="").tolist() == [[0, 5], [1, 6], [2, 7]]


@pytest.mark.parametrize("option", [{"labels": "y"}, {"resize": (4, 4)}])
@pytest.mark.parametrize("source", ["digits", "mnist"])
def test_published_data_sets_have_their_own_labels_and_size(source, option):
    message_of(lambda: load(source, **option), source, next(iter(option)), "expected none")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["10", "-3", " 7"], [10, -3, 7]),
        (["1", "01", "1_0"], ["1", "01", "1_0"]),
        (["1", "2", "9" * 30], ["1", "2", "9" * 30]),  # more than 64 bits hold
        (["3", "\u0663", "4"], ["3", "\u0663", "4"]),
    ],
)
def test_words_become_numbers_where_each_is_written_as_one(words, kept):
    np.testing.assert_array_equal(as_labels(np.array(words), 3, "labels"), kept)


def test_a_column_that_is_not_there_is_answered_with_those_most_like_it(tmp_path):
    (tmp_path / "few.csv").write_text("b,a,kind\n1,2,x\n")
    message_of(lambda: load(tmp_path / "few.csv", labels="Kind"), "no column 'Kind'; expected one of 'b', 'a', 'kind'")
    (tmp_path / "many.csv").write_text("a,b,c,d,e,f,g,h,kind\n1,2,3,4,5,6,7,8,x\n")
    words = "expected one of 'kind', ", ", ... (9 in all)"
    message_of(lambda: load(tmp_path / "many.csv", labels="Kind"), *words)
