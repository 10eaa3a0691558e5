"""Binary data from grey: the one place that training, validation and evaluation call for a batch.

    none        the values as they are
    threshold   1 where the value is at least 1/2 (uint8: at least 128)
    fixed       one draw per pixel, P(1) = value, for the whole data set: the same every time a row is met
    dynamic     a fresh draw per pixel for every (stream, step)

Every draw is a function of (seed, stream, step, row, column) alone, so none depends on the batch that a row is in.
Source: Salakhutdinov, Murray 2008 (drawing pixels); Burda, Grosse, Salakhutdinov 2015, section 5.1 (drawn in training)
and appendix D (fixed).
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scratchvae.arguments import in_short
from scratchvae.data.checks import DataError, is_grey
from scratchvae.data.mapped import Data, MappedRows, blocks, column_mean
from scratchvae.reference.random import Stream

METHODS = ("none", "dynamic", "fixed", "threshold")


def check_method(method: str, data: Data | None = None, allow_grey: bool = False, name: str = "x") -> None:
    """Refuse an unknown method; and, given the data of a Bernoulli, which messages call `name`, grey values left as
    they are.

    Raises    DataError, one line
    """
    if not isinstance(method, str) or method not in METHODS:
        raise DataError(f"binarize is {in_short(method)}; expected one of {', '.join(METHODS)}")
    if method == "none" and data is not None and not allow_grey and is_grey(data):
        raise DataError(
            f"{name}: binarize is 'none' and there are values between 0 and 1, of which a Bernoulli is no normalised "
            "likelihood; expected binarize dynamic, fixed or threshold, or likelihood continuous-bernoulli "
            "(allow_grey, --allow-grey: go on all the same)"
        )


def binarize(
    engine: Any,
    data: Data,
    rows: NDArray,
    method: str,
    seed: int,
    stream: int,
    step: int,
    dtype: DTypeLike = np.float32,
) -> NDArray:
    """The batch made of some rows of the data.

    Takes     engine: with gather_rows, bernoulli_bytes and bernoulli_probabilities (scratchvae.reference or .compiled);
              data (N, D), in memory or on the disk, uint8 or float in [0, 1] (any float for "none");
              rows (B,): numbers of rows;
              seed, stream, step: what the dynamic draw is a function of, with the row's number; the fixed draw is one
              of seed and number alone, so that row i of two data sets has the same random numbers
    Returns   (B, D) of dtype: 0 and 1, or the values themselves (uint8 / 255) for "none"
    """
    check_method(method)
    places = rows
    if isinstance(data, MappedRows) or not data.flags.c_contiguous:  # kernels would have a copy of all data
        data, places = data[rows], np.arange(len(rows))  # what is read is in memory; draws go by the rows' own numbers
    if method == "none":
        return engine.gather_rows(data, places, dtype)
    if method == "threshold":
        return _is_on(data[places]).astype(dtype)
    if method == "fixed":
        stream, step = Stream.FIXED_BINARIZE, 0
    if data.dtype == np.uint8:
        return engine.bernoulli_bytes(data, places, seed, stream, step, rows, dtype=dtype)
    return engine.bernoulli_probabilities(data[places], seed, stream, step, rows, dtype=dtype)


def mean_shown(data: Data, method: str) -> NDArray:
    """The mean of every column of what a model is shown, (D,), float64; over all draws where pixels are drawn."""
    if method != "threshold":
        return column_mean(data)
    return sum((_is_on(block).sum(axis=0) for _, block in blocks(data)), np.zeros(data.shape[1])) / data.shape[0]


def _is_on(values: NDArray) -> NDArray:
    return values >= (128 if values.dtype == np.uint8 else 0.5)
