"""A folder of images: grey bytes in the order of the names, one size, one line for what cannot be read."""

import struct
import sys
import zlib

import numpy as np
import pytest
from data_files import idx_bytes, message_of

from scratchvae.data import load
from scratchvae.data.images import parse_size, read_images

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
    np.testing.assert_array_equal(read_images(folder).pixels, PICTURES)


@pytest.mark.parametrize("suffix", ["bmp", "pgm", "tif", "PNG"])
def test_lossless_formats_come_back_as_saved(tmp_path, suffix):
    Image.fromarray(PICTURES[0]).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_images(tmp_path).pixels[0], PICTURES[0])


def test_a_folder_of_images_is_a_data_set(folder):
    data = load(folder)
    assert data.train.shape == (11, 24)
    assert data.train.dtype == np.uint8
    assert data.image_shape == (4, 6)
    assert data.grey


@pytest.mark.parametrize("word", [".", "../{}", "{}/"])
def test_a_folder_has_its_own_name_however_it_is_named(folder, word, monkeypatch):
    monkeypatch.chdir(folder if "{" not in word or "/{" in word else folder.parent)
    assert load(word.format(folder.name)).name == folder.name


def test_colour_becomes_grey(tmp_path):
    Image.new("RGB", (3, 2), (255, 255, 255)).save(tmp_path / "a.png")
    Image.new("RGBA", (3, 2), (0, 0, 0, 255)).save(tmp_path / "b.png")
    images = read_images(tmp_path).pixels
    assert images[0].min() == 255
    assert images[1].max() == 0


def test_an_image_is_turned_as_its_camera_was_held(tmp_path):
    picture, turned = np.arange(24, dtype=np.uint8).reshape(4, 6), Image.Exif()
    turned[0x0112] = 6  # to be shown, turn it a quarter to the right
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(np.rot90(picture)).save(tmp_path / "b.png", exif=turned)
    (tmp_path / "._a.png").write_text("notes of a system, in a file that is hidden")
    np.testing.assert_array_equal(read_images(tmp_path).pixels, [picture, picture])


@pytest.mark.parametrize("size", [(5, 4), (4, 6)])  # (width, height)
def test_images_of_two_sizes_are_refused(folder, size):
    Image.new("L", size).save(folder / "99.png")
    message_of(lambda: load(folder), "99.png", f"{size[0]}x{size[1]} pixels", "expected 6x4 as in 00.png")


def test_images_beside_folders_of_images_are_refused(folder):
    (folder / "notes").mkdir()
    assert len(load(folder).train) + len(load(folder).held_out) == len(PICTURES)
    (folder / "seven").mkdir()
    Image.new("L", (6, 4)).save(folder / "seven" / "1.png")
    message_of(
        lambda: load(folder), "images such as 00.png beside folders of images such as seven", "expected all in it"
    )


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


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_images_of_more_than_eight_bits_are_refused_rather_than_clipped(folder, dtype):
    Image.fromarray(np.full((4, 6), 40000, dtype)).save(folder / "99.tif")
    message_of(lambda: load(folder), "99.tif", "more than 8 bits", "expected 8 bits a channel")


def test_colours_of_sixteen_bits_are_refused_as_greys_of_sixteen_are(folder):
    """Pillow would take the upper byte of each and leave the lower out."""
    rows = b"".join(b"\0" + struct.pack(">18H", *range(0, 18 * 3000, 3000)) for _ in range(4))  # 6 x 4, three channels
    parts = (b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    ]
    (folder / "99.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with Image.open(folder / "99.png") as image:
        assert image.mode == "RGB"
    message_of(lambda: load(folder), "99.png", "more than 8 bits", "expected 8 bits a channel")


def test_what_is_hidden_or_a_folder_or_read_by_another_program_alone_is_no_image(folder):
    (folder / ".thumbnails").mkdir()
    Image.new("L", (6, 4)).save(folder / ".thumbnails" / "00.png")
    (folder / "more.png").mkdir()
    (folder / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n")
    np.testing.assert_array_equal(read_images(folder).pixels, PICTURES)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(PICTURES))
    message_of(lambda: load(tmp_path), str(tmp_path), "a folder without images", "expected .png", "'mnist'")


def test_without_pillow_it_says_what_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    message_of(lambda: load(folder), "Pillow is not installed", "scratchvae[images]")


@pytest.fixture
def labelled(tmp_path):
    """Two subfolders of images of two sizes, and one of something else."""
    for name, number, size in (("cat", 5, (6, 4)), ("dog", 7, (9, 9))):
        (tmp_path / name).mkdir()
        for image in range(number):
            Image.new("L", size, 100 if name == "cat" else 200).save(tmp_path / name / f"{image}.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("left alone")
    return tmp_path


def test_the_names_of_subfolders_are_labels(labelled):
    images = read_images(labelled, (3, 2))
    assert images.pixels.shape == (12, 2, 3)
    assert images.labels.tolist() == ["cat"] * 5 + ["dog"] * 7
    data = load(labelled, resize=(3, 2))
    for part, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        assert labels.tolist() == ["cat" if row[0] == 100 else "dog" for row in part]
    assert data.image_shape == (2, 3)


def test_images_of_two_sizes_say_that_they_can_be_resized(labelled):
    message_of(lambda: load(labelled), "9x9 pixels; expected 6x4", "or a size to resize to (--resize)")


def test_images_are_resized_by_averaging_areas(tmp_path):
    small = PICTURES[0]
    for name, large in (("a", np.kron(small, np.ones((3, 2), np.uint8))), ("b", small)):
        Image.fromarray(large).save(tmp_path / f"{name}.png")
    images = read_images(tmp_path, (6, 4)).pixels
    np.testing.assert_array_equal(images[0], small)
    np.testing.assert_array_equal(images[1], small)
    halves = read_images(tmp_path, (3, 4)).pixels[1].astype(int)
    assert np.abs(halves - small.reshape(4, 3, 2).mean(2)).max() <= 0.5


@pytest.mark.parametrize("suffix", ["webp", "tga", "pcx", "ico", "jp2", "gif", "sgi"])
def test_any_format_that_pillow_reads_is_read(tmp_path, suffix):
    grey = Image.fromarray(np.full((16, 16), 128, np.uint8))
    (grey.convert("RGBA") if suffix == "ico" else grey).save(tmp_path / f"a.{suffix}")
    assert np.abs(read_images(tmp_path).pixels[0].astype(int) - 128).max() <= 2


def test_an_image_is_not_run_as_a_program(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    message_of(lambda: load(tmp_path), "a.png", "cannot be read")


@pytest.mark.parametrize(("text", "size"), [("28x20", (28, 20)), ("28", (28, 28)), ("8X9", (8, 9)), (None, None)])
def test_a_size_is_written_as_width_x_height(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0x3", "28x", "x28", "-2x3", "3x4x5", "a", "99999x2", "\u0662x2", "1.5x2"])
def test_what_is_no_size_is_refused(text):
    message_of(lambda: parse_size(text), "resize is", "expected WIDTHxHEIGHT")


def test_only_a_folder_of_images_is_resized_and_only_its_subfolders_name_labels(folder):
    np.save(folder / "x.npy", PICTURES)
    message_of(lambda: load(folder / "x.npy", resize=(2, 2)), "x.npy", "resize is 2x2", "expected a folder of images")
    message_of(lambda: load(folder, labels="y"), "labels is 'y'", "subfolders name them")
