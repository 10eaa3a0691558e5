"""IDX files: what was written is read, and what is not IDX is refused in one line."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from data_files import gzipped, idx_bytes, message_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scratchvae.data import read_idx
from scratchvae.data.idx import STEP

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = idx_bytes(IMAGES)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), kind=st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]), gzip_it=st.booleans())
def test_every_type_and_shape_comes_back_as_written(data, kind, gzip_it):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4))
    array = data.draw(hnp.arrays(np.dtype(kind), shape))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.idx.gz" if gzip_it else "a.idx")
        path.write_bytes(gzipped(idx_bytes(array)) if gzip_it else idx_bytes(array))
        back = read_idx(path)
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    assert back.flags.writeable
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, array)


def test_bytes_of_mnist_stay_bytes(write):
    assert read_idx(write("a-ubyte", CONTENT)).dtype == np.uint8


def test_gzip_is_recognised_by_its_bytes_not_by_the_name(write):
    np.testing.assert_array_equal(read_idx(write("plain-name.idx", gzipped(CONTENT))), IMAGES)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["starts with bytes ''", "expected IDX's magic number"]),
        (b"\0\0", ["'00 00'", "expected IDX's magic number"]),
        (b"\x01" + CONTENT[1:], ["'01 00 08 03'", "expected IDX's magic number"]),
        (b"\0\0\x0a" + CONTENT[3:], ["'00 00 0a 03'", "a type (08, 09, 0b to 0e)"]),
        (b"\0\0\x08\0", ["'00 00 08 00'", "a rank of 1 or more"]),
        (CONTENT[:9], ["5 bytes of sizes", "expected 12 for rank 3"]),
        (CONTENT[:-1], ["23 bytes of values", "(2, 3, 4) of uint8, expects 24"]),
        (CONTENT + b"\0", ["more bytes of values", "expects 24"]),
        (b"\0\0\x08\x03" + b"\xff" * 12, ["0 bytes of values", "(4294967295, 4294967295, 4294967295) of uint8"]),
        (b"<html>not here</html>", ["'3c 68 74 6d'", "expected IDX's magic number"]),
    ],
)
@pytest.mark.parametrize("gzip_it", [False, True])
def test_what_is_not_the_format_is_refused_naming_the_file(write, content, parts, gzip_it):
    path = write("images.gz" if gzip_it else "images.idx", gzipped(content) if gzip_it else content)
    if gzip_it and "0 bytes of values" in parts:
        parts = ["bytes of values", *parts[1:]]  # how much a gzip may hold is bounded, not known
    message_of(lambda: read_idx(path), str(path), "expect", *parts)


def test_a_gz_that_is_not_gzip_says_so(write):
    path = write("images.gz", CONTENT)
    message_of(lambda: read_idx(path), str(path), "not gzip", "'00 00'", "expected '1f 8b'")


@pytest.mark.parametrize("keep", [3, 11, 20, -9, -4, -1])
def test_a_truncated_gzip_is_refused_wherever_it_ends(write, keep):
    noise = np.random.default_rng(0).integers(0, 256, (20, 50), np.uint8)
    path = write("images.gz", gzipped(idx_bytes(noise))[:keep])
    message_of(lambda: read_idx(path), str(path), "damaged gzip", "expected a complete gzipped IDX file")


def test_any_flipped_byte_in_a_gzip_is_noticed(write):
    whole = gzipped(idx_bytes(np.random.default_rng(0).integers(0, 256, (5, 9), np.uint8)))
    # from the deflated data to the end; the bytes before hold the name, the time and the system, which mean nothing
    for place in range(10, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path = write("images.gz", bytes(damaged))
        message_of(lambda path=path: read_idx(path), str(path), "expect")


def test_garbage_after_a_gzip_is_refused(write):
    path = write("images.gz", gzipped(CONTENT) + b"garbage")
    message_of(lambda: read_idx(path), str(path), "damaged gzip")


def test_more_values_than_are_read_at_once_come_back_as_written(write):
    array = np.random.default_rng(0).integers(0, 256, STEP + 7).astype(np.uint8)
    np.testing.assert_array_equal(read_idx(write("a.idx", idx_bytes(array))), array)


def test_zeros_that_gzip_makes_a_thousandth_of_are_read(write):
    assert read_idx(write("images.gz", gzipped(idx_bytes(np.zeros((500, 200), np.uint8))))).shape == (500, 200)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    message_of(lambda: read_idx(tmp_path / "none.idx"), "none.idx", "No such file", "expected an IDX file")


@pytest.mark.parametrize("gzip_it", [False, True])
def test_the_checksum_is_of_the_uncompressed_content(write, gzip_it):
    path = write("a.idx", gzipped(CONTENT) if gzip_it else CONTENT)
    np.testing.assert_array_equal(read_idx(path, hashlib.sha256(CONTENT).hexdigest()), IMAGES)


def test_one_changed_pixel_changes_the_checksum(write):
    path = write("a.idx", CONTENT[:-1] + b"\xff")
    read_idx(path)  # the control: a proper IDX file, only not this one
    expected = hashlib.sha256(CONTENT).hexdigest()
    message_of(lambda: read_idx(path, expected), str(path), "SHA-256 of the content is", f"expected {expected}")


def test_the_checksum_of_wider_types_is_of_the_bytes_in_the_file(write):
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    content = idx_bytes(array)
    np.testing.assert_array_equal(read_idx(write("a.idx", content), hashlib.sha256(content).hexdigest()), array)
