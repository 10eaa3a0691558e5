"""A folder of images: grey bytes in the order of the names, one size, one line for what cannot be read."""

import sys

import numpy as np
import pytest
from data_files import idx_bytes, message_of

from scratchvae.data import load
from scratchvae.data.images import read_images

Image = pytest.importorskip("PIL.Image", reason="Pillow (the extra 'images') is not installed")

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 4, 6)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "notes.txt").write_text("left alone")
    (tmp_path / "more").mkdir()
    return tmp_path


def test_grey_images_come_back_as_saved(folder):
    np.testing.assert_array_equal(read_images(folder), PICTURES)


@pytest.mark.parametrize("suffix", ["bmp", "pgm", "tif", "PNG"])
def test_lossless_formats_come_back_as_saved(tmp_path, suffix):
    Image.fromarray(PICTURES[0]).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_images(tmp_path)[0], PICTURES[0])


def test_a_folder_of_images_is_a_data_set(folder):
    data = load(folder)
    assert data.train.shape == (11, 24)
    assert data.train.dtype == np.uint8
    assert data.image_shape == (4, 6)
    assert data.grey


def test_colour_becomes_grey(tmp_path):
    Image.new("RGB", (3, 2), (255, 255, 255)).save(tmp_path / "a.png")
    Image.new("RGBA", (3, 2), (0, 0, 0, 255)).save(tmp_path / "b.png")
    images = read_images(tmp_path)
    assert images[0].min() == 255
    assert images[1].max() == 0


def test_images_of_two_sizes_are_refused(folder):
    Image.new("L", (5, 4)).save(folder / "99.png")
    message_of(lambda: load(folder), "99.png", "5x4 pixels", "expected 6x4 as in 00.png")


def test_what_is_no_image_is_refused(folder):
    (folder / "05.png").write_bytes(b"not an image")
    message_of(lambda: load(folder), "05.png", "cannot be read", "expected an image")


@pytest.mark.parametrize("keep", [0, 10, 40, 60])
def test_a_truncated_image_is_refused(folder, keep):
    path = folder / "05.png"
    path.write_bytes(path.read_bytes()[:keep])
    message_of(lambda: load(folder), "05.png", "expected an image")


def test_an_image_that_claims_to_be_enormous_is_refused(tmp_path):
    Image.new("L", (6, 4)).save(tmp_path / "a.gif")
    content = bytearray((tmp_path / "a.gif").read_bytes())
    content[6:10] = b"\xff\xff\xff\xff"  # the width and the height of the screen
    (tmp_path / "a.gif").write_bytes(content)
    message_of(lambda: load(tmp_path), "a.gif", "cannot be read", "expected an image")


def test_sixteen_bit_images_are_refused_rather_than_clipped(folder):
    Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(folder / "99.png")
    message_of(lambda: load(folder), "99.png", "more than 8 bits", "expected 8 bits a channel")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(PICTURES))
    message_of(lambda: load(tmp_path), str(tmp_path), "a folder without images", "expected .png", "'mnist'")


def test_without_pillow_it_says_what_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    message_of(lambda: load(folder), "Pillow is not installed", "scratchvae[images]")
