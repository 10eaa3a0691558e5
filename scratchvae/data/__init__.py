"""Data: from a name or a path to rows of numbers that have been checked.

    dataset    load: one call for all of it; Dataset, the training part and the held-out part
    digits     scikit-learn's 8x8 digits           mnist    four IDX files, from a folder or downloaded once
    arrays     .npy, .npz, .csv                    idx      the IDX format, read strictly
    images     a folder of images                  split    which rows are held out
    binarize   binary batches from grey data       checks   what may be called data; DataError

Importing this needs NumPy alone: scikit-learn, pooch and Pillow are loaded by the call that uses them.
"""

from scratchvae.data.binarize import METHODS, binarize, check_method
from scratchvae.data.checks import DataError, as_data, check_pixels, is_grey
from scratchvae.data.dataset import Dataset, load
from scratchvae.data.idx import read_idx

__all__ = [
    "METHODS",
    "DataError",
    "Dataset",
    "as_data",
    "binarize",
    "check_method",
    "check_pixels",
    "is_grey",
    "load",
    "read_idx",
]
