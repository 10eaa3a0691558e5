"""Twins of `reference.activations`, on arrays of any shape."""

import numpy as np
from numpy.typing import NDArray

from scratchvae.compiled.vector_math import activate_row, activation_backward_row
from scratchvae.parameters import ACTIVATION_CODES


def identity_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.activations.identity_forward`."""
    return a, a


def identity_backward(dh: NDArray, h: NDArray) -> NDArray:
    """See `reference.activations.identity_backward`."""
    return dh


def _forward(a: NDArray, name: str) -> tuple[NDArray, NDArray]:
    h = np.array(a, order="C")
    activate_row(h.reshape(-1), ACTIVATION_CODES[name])
    return h, h


def _backward(dh: NDArray, h: NDArray, name: str) -> NDArray:
    da = np.array(dh, h.dtype, order="C")
    activation_backward_row(da.reshape(-1), np.ascontiguousarray(h).reshape(-1), ACTIVATION_CODES[name])
    return da


def tanh_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.activations.tanh_forward`."""
    return _forward(a, "tanh")


def tanh_backward(dh: NDArray, h: NDArray) -> NDArray:
    """See `reference.activations.tanh_backward`."""
    return _backward(dh, h, "tanh")


def relu_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.activations.relu_forward`."""
    return _forward(a, "relu")


def relu_backward(dh: NDArray, h: NDArray) -> NDArray:
    """See `reference.activations.relu_backward`."""
    return _backward(dh, h, "relu")


def sigmoid_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.activations.sigmoid_forward`."""
    return _forward(a, "sigmoid")


def sigmoid_backward(dh: NDArray, h: NDArray) -> NDArray:
    """See `reference.activations.sigmoid_backward`."""
    return _backward(dh, h, "sigmoid")


def softplus_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.activations.softplus_forward`."""
    return _forward(a, "softplus")


def softplus_backward(dh: NDArray, h: NDArray) -> NDArray:
    """See `reference.activations.softplus_backward`."""
    return _backward(dh, h, "softplus")
