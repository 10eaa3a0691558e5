"""The pictures everything is measured on, as uint8 files that every system reads."""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Workload
from scratchvae.data import DataError
from scratchvae.data.digits import read_digits
from scratchvae.data.mnist import read_mnist

STAND_IN_ZEROS = 0.81  # the share of MNIST's pixels that are zero


@dataclass(frozen=True)
class Images:
    """Pixels (N, D), uint8, and one line that says what they are."""

    pixels: NDArray[np.uint8]
    found: str


def mnist(data_dir: str | None, test: bool = False) -> Images:
    """MNIST's training or test images; where they are in no folder and cannot be downloaded, random pixels of the same
    shape and share of zeros, which is said and which is good for timing alone."""
    try:
        data = read_mnist(data_dir)
    except (DataError, OSError) as error:
        rng = np.random.default_rng(0)
        pixels = rng.integers(1, 256, (10_000 if test else 60_000, 784), dtype=np.uint8)
        pixels[rng.random(pixels.shape, np.float32) < STAND_IN_ZEROS] = 0
        print(f"MNIST is absent: {error}", file=sys.stderr)
        return Images(pixels, f"NOT MNIST but random stand-in pixels, {STAND_IN_ZEROS:.0%} zero")
    return Images(data.test, "MNIST test images") if test else Images(data.train, "MNIST training images")


def images_of(workload: Workload, data_dir: str | None) -> Images:
    """The workload's data set."""
    if workload.data_dim == 64:
        images = Images(np.round(255 * read_digits()[0]).astype(np.uint8), "scikit-learn's 8x8 digits")
    else:
        images = mnist(data_dir)
    return images if workload.pixels == "grey" else thresholded(images)


def thresholded(images: Images, count: int | None = None) -> Images:
    """All, or the first, with pixels of 0 and 255, so that value / 255 is right, as for grey ones."""
    first = "" if count is None else f", the first {count}"
    pixels = np.where(images.pixels[:count] >= 128, 255, 0).astype(np.uint8)
    return Images(pixels, f"{images.found}{first}, thresholded at 1/2")
