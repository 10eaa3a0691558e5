"""Data: from a name or a path to rows of numbers that have been checked.

    dataset    load: one call for all of it; Dataset, the training part and the held-out part
    digits     scikit-learn's 8x8 digits           mnist    four IDX files, from a folder or downloaded once
    arrays     .npy, .npz, .csv                    idx      the IDX format, read strictly
    parquet    .parquet                            images   a folder of images
    labels     a value a row, for pictures         mapped   rows that stay on the disk
    binarize   binary batches from grey data       split    which rows are held out
    checks     what may be called data; DataError

Importing this needs NumPy alone: scikit-learn, pooch, Pillow and pyarrow are loaded by the call that uses them.
"""

from scratchvae.data.binarize import METHODS, binarize, check_method
from scratchvae.data.checks import DataError, as_data, as_data_set, check_pixels, is_grey
from scratchvae.data.dataset import Dataset, load, load_rows
from scratchvae.data.idx import read_idx
from scratchvae.data.mapped import Data, MappedRows

__all__ = [
    "METHODS",
    "Data",
    "DataError",
    "Dataset",
    "MappedRows",
    "as_data",
    "as_data_set",
    "binarize",
    "check_method",
    "check_pixels",
    "is_grey",
    "load",
    "load_rows",
    "read_idx",
]
