"""Rows of a data set as a batch of floats."""

import numpy as np
from numpy.typing import DTypeLike, NDArray


def gather_rows(data: NDArray, rows: NDArray, dtype: DTypeLike) -> NDArray:
    """The chosen rows in `dtype`; uint8 pixels 0..255 become 0..1, other numbers stay as they are.

    Takes     data (N, D), uint8 or any other real numbers; rows (B,) row numbers
    Returns   (B, D)
    """
    batch = data[rows].astype(dtype)
    if data.dtype == np.uint8:
        batch /= 255
    return batch
