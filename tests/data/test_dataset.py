"""load: every source gives two parts that share no row, the same on every call."""

import builtins
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from data_files import gzipped, idx_bytes, message_of
from hypothesis import given
from hypothesis import strategies as st

from scratchvae.data import load, load_rows
from scratchvae.data.digits import read_digits
from scratchvae.data.split import split_rows

NUMBERED = np.arange(40 * 6, dtype=np.float32).reshape(40, 6)  # every row is different


def same(one, other):
    return np.array_equal(one.train, other.train) and np.array_equal(one.held_out, other.held_out)


def test_the_digits_are_float32_sixteenths_with_a_fifth_held_out():
    data = load()
    assert data.name == "digits"
    assert data.train.shape == (1438, 64)
    assert data.held_out.shape == (359, 64)
    assert data.train.dtype == np.float32
    assert data.image_shape == (8, 8)
    assert data.grey
    every = np.concatenate([data.train, data.held_out])
    np.testing.assert_array_equal(np.unique(every), np.arange(17, dtype=np.float32) / 16)
    assert every.astype(np.float64).mean() == pytest.approx(0.3052601, abs=1e-6)
    assert len(data.train_labels) == 1438
    assert len(data.held_out_labels) == 359


def test_the_digits_are_split_in_one_way_whatever_the_seed():
    assert same(load("digits", seed=0), load("digits", seed=5))
    assert len(load("digits", held_out=0.5).held_out) == 898


def test_labels_stay_with_their_images():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    label = {image.tobytes(): target for image, target in zip(bunch.data / 16, bunch.target, strict=True)}
    data = load()
    for images, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        assert [label[image.astype(np.float64).tobytes()] for image in images] == labels.tolist()


@given(st.integers(2, 200), st.floats(0.001, 0.999), st.integers(0, 2**32))
def test_a_split_takes_every_row_once_and_never_all_or_none(count, fraction, seed):
    train, held_out = split_rows(count, fraction, seed)
    assert len(train) >= 1
    assert len(held_out) == min(max(1, int(fraction * count)), count - 1)
    assert sorted([*train, *held_out]) == list(range(count))
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    again = split_rows(count, fraction, seed)
    np.testing.assert_array_equal(again[1], held_out)


def test_a_split_is_the_same_in_every_version_so_that_results_can_be_compared():
    held_out = split_rows(1797, 0.2, 0)[1]
    np.testing.assert_array_equal(load("digits").held_out, read_digits()[0][held_out])
    assert held_out[:6].tolist() == [4, 9, 11, 15, 29, 45]
    assert [len(split_rows(100, fraction, 0)[1]) for fraction in (0.29, 0.57, 0.58)] == [29, 57, 58]
    assert split_rows(40, 0.2, 2**40)[1].tolist() == [5, 19, 21, 22, 27, 30, 32, 39]


def test_the_seed_says_which_rows_of_own_data_are_held_out(tmp_path):
    np.save(tmp_path / "x.npy", NUMBERED)
    data = load(tmp_path / "x.npy", seed=3)
    assert data.held_out.shape == (4, 6)
    assert sorted([*data.train[:, 0], *data.held_out[:, 0]]) == NUMBERED[:, 0].tolist()
    assert same(data, load(str(tmp_path / "x.npy"), seed=3))
    assert not same(data, load(tmp_path / "x.npy", seed=4))
    assert len(load(tmp_path / "x.npy", held_out=0.25).held_out) == 10


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0, float("nan"), "x", [0.1]])
def test_a_held_out_fraction_is_between_nothing_and_all(tmp_path, fraction):
    np.save(tmp_path / "x.npy", NUMBERED)
    for source in ("digits", tmp_path / "x.npy"):
        message_of(
            lambda path=source: load(path, held_out=fraction), f"held_out is {fraction!r}", "expected a fraction"
        )


@pytest.mark.parametrize("count", [1, 2, 40])
def test_without_a_split_rows_are_in_the_order_of_the_file(tmp_path, count):
    np.save(tmp_path / "x.npy", NUMBERED[:count])
    np.testing.assert_array_equal(load_rows(tmp_path / "x.npy"), NUMBERED[:count])
    np.savez(tmp_path / "x.npz", train=NUMBERED[:count], test=NUMBERED[:3])
    np.testing.assert_array_equal(load_rows(tmp_path / "x.npz"), np.concatenate([NUMBERED[:count], NUMBERED[:3]]))
    message_of(lambda: load_rows(tmp_path / "none.npy"), "none.npy", "no such data set or file")


@pytest.mark.parametrize("seed", [1.5, -1, 2**64, "1", True])
def test_a_seed_is_a_whole_number(tmp_path, seed):
    np.save(tmp_path / "x.npy", NUMBERED)
    for source in ("digits", tmp_path / "x.npy"):
        message_of(lambda path=source: load(path, seed=seed), f"seed is {seed!r}", "expected a whole number")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *(({"resize": size}, "(width, height)") for size in (5, (0, 3), (3, 2**16), (2.5, 3), (3,), "3x3")),
        ({"labels": 5}, "a column, an array or a file by its name"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused_and_not_the_data(tmp_path, given, expected):
    np.save(tmp_path / "x.npy", NUMBERED)
    ((name, value),) = given.items()
    for read in (load, load_rows):
        for source in (tmp_path, tmp_path / "x.npy"):
            message_of(lambda f=read, path=source: f(path, **given), f"{name} is {value!r}; expected {expected}")


def test_bytes_stay_bytes_from_every_format(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 5)).astype(np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "a.npz", images)
    for name, content in (
        ("a.idx", idx_bytes(images)),
        ("a-images-idx3-ubyte", idx_bytes(images)),
        ("a-images-idx3-ubyte.gz", gzipped(idx_bytes(images))),
    ):
        (tmp_path / name).write_bytes(content)
    first = load(tmp_path / "a.npy")
    assert first.image_shape == (4, 5)
    for name in ("a.npy", "a.npz", "a.idx", "a-images-idx3-ubyte", "a-images-idx3-ubyte.gz"):
        data = load(tmp_path / name)
        assert data.name == name
        assert data.train.dtype == data.held_out.dtype == np.uint8
        assert data.train.flags.writeable
        assert data.train.flags.c_contiguous
        assert type(data.train) is np.ndarray
        assert data.image_shape == (4, 5)
        assert same(data, first)
        assert "2 of 20 rows held out" in data.found


@pytest.mark.parametrize(
    ("shape", "image_shape", "columns"),
    [((20, 4, 5, 1), (4, 5), 20), ((20, 4, 5, 3), None, 60), ((20, 7), None, 7)],
)
def test_images_are_flattened(tmp_path, shape, image_shape, columns):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random(shape))
    data = load(tmp_path / "a.npy")
    assert data.image_shape == image_shape
    assert data.train.shape == (18, columns)


@pytest.mark.parametrize(
    ("train", "held_out"), [((4, 5), (2, 10)), ((4, 5), (5, 4)), ((4, 5, 3), (3, 4, 5)), ((4, 5), (2, 3))]
)
def test_held_out_images_have_the_sides_of_the_training_images(tmp_path, train, held_out):
    np.savez(tmp_path / "a.npz", train=np.zeros((20, *train)), test=np.ones((3, *held_out)))
    expected = f"expected {train} as in the training data"
    message_of(lambda: load(tmp_path / "a.npz"), f"a.npz, held out: examples of shape {held_out}", expected)


@pytest.mark.parametrize(("train", "held_out"), [((4, 5), (4, 5, 1)), ((4, 5, 3), (60,)), ((20,), (4, 5))])
def test_flattened_images_may_be_held_out_beside_images(tmp_path, train, held_out):
    np.savez(tmp_path / "a.npz", train=np.zeros((20, *train)), test=np.ones((3, *held_out)))
    assert load(tmp_path / "a.npz").held_out.shape == (3, np.prod(train))


def test_a_csv_is_a_data_set(tmp_path):
    np.savetxt(tmp_path / "a.csv", NUMBERED / 240, delimiter=",", header="a,b,c,d,e,f", comments="")
    data = load(tmp_path / "a.csv")
    assert data.train.shape == (36, 6)
    assert data.grey


def test_whether_data_are_grey_is_said(tmp_path):
    binary = NUMBERED % 2
    np.save(tmp_path / "a.npy", binary)
    assert not load(tmp_path / "a.npy").grey
    np.save(tmp_path / "a.npy", binary == 1)
    data = load(tmp_path / "a.npy")
    assert not data.grey
    assert set(np.unique(data.train)) == {0, 255}
    for grey in ("train", "test"):
        np.savez(tmp_path / "a.npz", **{"train": binary, "test": binary} | {grey: binary / 2})
        assert load(tmp_path / "a.npz").grey


def test_a_dataset_is_frozen():
    with pytest.raises(FrozenInstanceError):
        load().name = "other"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("fashion", ["'fashion': no such data set or file", "expected digits, mnist, a .npy"]),
        ("nowhere/x.npy", ["'nowhere/x.npy': no such data set or file"]),
        ("", ["no such data set or file"]),
        (3, ["data of type int", "expected digits, mnist"]),
        (None, ["data of type NoneType"]),
        (NUMBERED, ["data of type ndarray", "expected digits, mnist"]),
        ("bad\0name.npy", ["expected"]),
        ("two\nlines.npy", ["no such data set or file"]),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path, monkeypatch, source, parts):
    monkeypatch.chdir(tmp_path)
    message_of(lambda: load(source), *parts)


@pytest.mark.parametrize("name", ["X.NPY", "X.Csv"])
def test_the_end_of_a_name_may_be_written_large(write, tmp_path, name):
    np.save(tmp_path / "x.npy", np.eye(4))
    content = (tmp_path / "x.npy").read_bytes() if name == "X.NPY" else b"1,2\n3,4\n"
    assert load(write(name, content)).train.ndim == 2


def test_a_file_of_another_kind_is_refused(write):
    path = write("x.txt", b"1 2 3")
    message_of(lambda: load(path), str(path), "a file of another kind", "expected digits, mnist, a .npy")


def test_labels_are_no_images(write):
    path = write("train-labels-idx1-ubyte", idx_bytes(np.arange(9, dtype=np.uint8)))
    message_of(lambda: load(path), str(path), "1-D, shape (9,)", "expected 2-D")


def test_a_file_that_may_not_be_read_is_one_line(write, monkeypatch):
    path = write("x.npy", b"")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(builtins, "open", refuse)
    message_of(lambda: load(path), str(path), "Permission denied", "expected")


def test_without_scikit_learn_the_digits_say_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    message_of(load, "digits: scikit-learn is not installed")


def test_importing_the_package_loads_no_library_it_may_not_need():
    program = (
        "import sys, scratchvae.data; "
        "print([name for name in ('sklearn', 'pooch', 'PIL', 'matplotlib', 'requests') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "labels", "columns"),
    [
        ("a,b,c\n1,2,3\n4,5,6\n", None, ("a", "b", "c")),
        ("a,b,c\n1,2,3\n4,5,6\n", "b", ("a", "c")),
        (",a,b\n0,2,3\n1,5,6\n", None, ("a", "b")),  # pandas' row numbers
        (",a,b\n0,2,3\n1,5,6\n", "a", ("b",)),
        ("1,2,3\n4,5,6\n", None, None),
    ],
)
def test_columns_have_the_names_of_a_table(tmp_path, text, labels, columns):
    (tmp_path / "t.csv").write_text(text)
    data = load(tmp_path / "t.csv", labels=labels)
    assert data.columns == columns
    if columns:
        assert load_rows(tmp_path / "t.csv", labels=labels, columns=columns).shape == (2, len(columns))
        wrong = [*columns[:-1], "z"]
        message_of(
            lambda: load_rows(tmp_path / "t.csv", labels=labels, columns=wrong),
            f"column {len(columns)} is {columns[-1]!r}; expected 'z'",
        )
