"""A folder of images of one size, as grey bytes. Needs Pillow."""

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import DataError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
# what a damaged or oversized image makes Pillow's decoders raise
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, MemoryError, struct.error)


def read_images(folder: Path) -> NDArray:
    """The images of a folder, in the order of their file names: uint8 (N, height, width). Subfolders are left alone.

    Errors    DataError, one line: no image, one that cannot be read, more than 8 bits a channel, different sizes
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise DataError(
            f"{folder}: a folder without images; expected {' '.join(SUFFIXES)} files "
            "(a folder with MNIST's IDX files is the data directory of 'mnist')"
        )
    first = _read_image(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)
    for number, path in enumerate(paths):
        image = _read_image(path)
        if image.shape != first.shape:
            raise DataError(f"{path}: {_size(image)} pixels; expected {_size(first)} as in {paths[0].name}")
        images[number] = image
    return images


def _read_image(path: Path) -> NDArray:
    """One image as grey values (height, width), uint8; transparent pixels count by their colour."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError(
            f"{path}: Pillow is not installed; expected it to read images (pip install 'scratchvae[images]')"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of notes inside the file, such as the camera's
            with Image.open(path) as image:
                return _grey(image, path)
    except DataError:
        raise
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); expected an image") from None


def _grey(image: "Image", path: Path) -> NDArray:
    if image.mode.startswith(("I", "F")):  # converting these would clip, not scale
        raise DataError(f"{path}: pixels of mode {image.mode}, more than 8 bits; expected 8 bits a channel")
    return np.asarray(image.convert("L"))


def _size(image: NDArray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
