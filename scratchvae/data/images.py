"""A folder of images, of one size or resized to one, as grey bytes. Needs Pillow."""

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import in_short
from scratchvae.data.checks import DataError, one_line
from scratchvae.finite import is_whole_number

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 65_535  # pixels along a side
# formats that Pillow knows by name but reads only with another program or on another system
NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
# what a damaged or oversized image makes Pillow's decoders raise
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, MemoryError, struct.error)


class Images(NamedTuple):
    pixels: NDArray  # uint8 (N, height, width)
    labels: NDArray | None  # (N,): the names of the subfolders the images are in, where there are subfolders


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(width, height) written as 28x28, or as 28 for a square. Raises DataError, one line, for anything else."""
    if text is None:
        return None
    sizes = text.lower().split("x")
    if len(sizes) > 2 or not all(size.isascii() and size.isdigit() and 0 < int(size) <= LARGEST for size in sizes):
        raise DataError(f"resize is {text!r}; expected WIDTHxHEIGHT in pixels, such as 28x28")
    return int(sizes[0]), int(sizes[-1])


def check_size(size: Any) -> None:
    """Raises DataError, one line, for what is no (width, height) to resize to, and not None."""
    two = isinstance(size, (tuple, list)) and len(size) == 2
    if size is not None and not (two and all(is_whole_number(side) and 0 < side <= LARGEST for side in size)):
        raise DataError(f"resize is {in_short(size)}; expected (width, height) in pixels, such as (28, 28)")


def read_images(folder: Path, size: tuple[int, int] | None = None) -> Images:
    """The images of a folder in the order of their names; or of its subfolders, whose names are then their labels.

    Formats   all that Pillow reads by itself, known by the file's ending; other files are left alone
    Takes     size: (width, height) to resize every image to, by averaging areas; None: all must be of one size
    Raises    DataError, one line: no image, one that cannot be read, more than 8 bits a channel, different sizes,
              images both in the folder and in its subfolders
    """
    formats = _formats(folder)
    paths = _image_files(folder, formats)
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    labelled = [(path, one.name) for one in inside for path in _image_files(one, formats)]
    if paths and labelled:
        raise DataError(
            f"{folder}: images such as {paths[0].name} beside folders of images such as {labelled[0][1]}; expected all "
            "in it, or all in subfolders named like their labels"
        )
    paths, labels = paths or [path for path, _ in labelled], [name for _, name in labelled]
    if not paths:
        raise DataError(
            f"{folder}: a folder without images; expected .png .jpg .tif .webp or other files that Pillow reads, in it "
            "or in subfolders named like their labels (MNIST's four IDX files: --data-dir of 'mnist')"
        )
    first = _read_image(paths[0], formats, size)
    pixels = np.empty((len(paths), *first.shape), np.uint8)
    for number, path in enumerate(paths):
        image = _read_image(path, formats, size)
        if image.shape != first.shape:
            raise DataError(
                f"{path}: {_size(image)} pixels; expected {_size(first)} as in {paths[0].name}, or a size to resize to "
                "(--resize)"
            )
        pixels[number] = image
    return Images(pixels, np.array(labels) if labels else None)


def _formats(folder: Path) -> dict[str, str]:
    """Endings of files, and the format that Pillow takes each for."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError(
            f"{folder}: Pillow is not installed; expected it to read images (pip install 'scratchvae[images]')"
        ) from None
    known = Image.registered_extensions()
    return {ending: name for ending, name in known.items() if name in Image.OPEN and name not in NOT_READ}


def _image_files(folder: Path, formats: Mapping[str, str]) -> list[Path]:
    """Those that are not hidden: some systems write a file of notes, ._NAME, beside each."""
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in shown if path.suffix.lower() in formats and path.is_file())


def _read_image(path: Path, formats: Mapping[str, str], size: tuple[int, int] | None) -> NDArray:
    """One image as grey values (height, width), uint8; transparent pixels count by their colour."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of notes inside the file, such as the camera's
            with Image.open(path, formats=sorted(set(formats.values()))) as image:
                grey = _grey(image, path)
                return np.asarray(grey if size is None else grey.resize(size, Image.Resampling.BOX))
    except DataError:
        raise
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); expected an image") from None


def _grey(image: "Image", path: Path) -> "Image":
    from PIL import ImageOps

    tiles = getattr(image, "tile", None) or ()  # of an icon Pillow 10 has None
    deep = any(";16" in str(tile[3]) for tile in tiles)  # Pillow drops the lower bytes of colours
    if deep or image.mode.startswith(("I", "F")):  # converting these would clip, not scale
        raise DataError(f"{path}: pixels of mode {image.mode}, more than 8 bits; expected 8 bits a channel")
    return ImageOps.exif_transpose(image).convert("L")  # a camera writes how it was held beside the pixels


def _size(image: NDArray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
