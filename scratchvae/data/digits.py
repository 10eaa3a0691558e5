"""The 8x8 handwritten digits that come with scikit-learn: always at hand, no download.

Source: Alpaydin, Kaynak 1998, "Optical recognition of handwritten digits", UCI Machine Learning Repository.
"""

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import DataError

LEVELS = 16  # a pixel counts the ink in a 4x4 block: 0..16
IMAGE_SHAPE = (8, 8)


def read_digits() -> tuple[NDArray, NDArray]:
    """The 1,797 images as float32 (1797, 64) with values k/16 in [0, 1], and their labels, uint8 (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("digits: scikit-learn is not installed; expected it for this data set") from None
    bunch = load_digits()
    return (bunch.data / LEVELS).astype(np.float32), bunch.target.astype(np.uint8)
