"""What the peers of the evaluation share: how many samples at a time, and the estimate from all log-weights."""

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 20  # images at a time
BLOCK_SAMPLES = 50  # samples of each: 1,000 rows of logits, three megabytes, stay in the last-level cache


def read_pixels(path: str) -> NDArray[np.float32]:
    """The images (N, D) as float32 in [0, 1], from the uint8 file that every system gets."""
    return np.load(path).astype(np.float32) / np.float32(255)


def estimates(log_weights: NDArray) -> tuple[NDArray, NDArray]:
    """log 1/K sum_k w_k and its standard error by the delta method, in float64; log_weights (B, K)."""
    log_weights = log_weights.astype(np.float64)
    largest = log_weights.max(axis=1, keepdims=True)
    weights = np.exp(log_weights - largest)
    samples, total = weights.shape[1], weights.sum(axis=1)
    size = total**2 / np.square(weights).sum(axis=1)
    return largest[:, 0] + np.log(total / samples), np.sqrt((samples / size - 1) / (samples - 1))
