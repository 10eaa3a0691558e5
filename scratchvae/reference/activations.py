"""Activations of a dense layer. Each derivative is in terms of the output h, which is all a backward pass keeps.

    name       h(a)                    dh/da
    identity   a                       1
    tanh       tanh(a)                 1 - h^2
    relu       max(a, 0)               1 where h > 0, else 0 (0 at a = 0)
    sigmoid    1 / (1 + exp(-a))       h (1 - h)
    softplus   log(1 + exp(a))         1 - exp(-h) = sigmoid(a)

Every `name_forward(a) -> (h, h)` takes and returns arrays of one shape; every `name_backward(dh, h) -> da` gives the
gradient with respect to a. Comparisons are on real parts, so that a complex step passes through; NaN gives NaN.

Sources: Bishop 2006, "Pattern recognition and machine learning", equations 4.59 (sigmoid), 4.88 (its derivative) and
5.59, 5.60 (tanh and its derivative); Glorot, Bordes, Bengio 2011, "Deep sparse rectifier neural networks" (relu,
softplus).
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


def identity_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """h = a."""
    return a, a


def identity_backward(dh: NDArray, h: NDArray) -> NDArray:
    """dh/da = 1."""
    return dh


def tanh_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """h = tanh(a)."""
    h = np.tanh(a)
    return h, h


def tanh_backward(dh: NDArray, h: NDArray) -> NDArray:
    """dh/da = 1 - h^2."""
    return dh * (1 - h * h)


def relu_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """h = max(a, 0)."""
    h = np.where(a.real <= 0, np.zeros_like(a), a)  # written so that NaN, which compares false, stays NaN
    return h, h


def relu_backward(dh: NDArray, h: NDArray) -> NDArray:
    """dh/da = 1 where h > 0, else 0: the kink at a = 0 takes the derivative from the left."""
    return np.where(h.real <= 0, np.zeros_like(dh), dh)


def sigmoid_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """h = 1 / (1 + exp(-a)), with an exponential that never overflows: exp(-|a|) <= 1."""
    decay = np.exp(-absolute(a))
    h = np.where(a.real < 0, decay, np.ones_like(decay)) / (1 + decay)
    return h, h


def sigmoid_backward(dh: NDArray, h: NDArray) -> NDArray:
    """dh/da = h (1 - h)."""
    return dh * (h * (1 - h))


def softplus_forward(a: NDArray) -> tuple[NDArray, NDArray]:
    """h = log(1 + exp(a)) = max(a, 0) + log1p(exp(-|a|))."""
    h = relu_forward(a)[0] + np.log1p(np.exp(-absolute(a)))
    return h, h


def softplus_backward(dh: NDArray, h: NDArray) -> NDArray:
    """dh/da = 1 - exp(-h), which is sigmoid(a)."""
    return dh * -np.expm1(-h)


def absolute(a: NDArray) -> NDArray:
    """|a| with a derivative: np.abs of a complex number is its modulus and would drop the complex step."""
    return np.where(a.real < 0, -a, a)


class Activation(NamedTuple):
    """A forward and its backward."""

    forward: Callable[[NDArray], tuple[NDArray, NDArray]]
    backward: Callable[[NDArray, NDArray], NDArray]


ACTIVATIONS = MappingProxyType(
    {
        "identity": Activation(identity_forward, identity_backward),
        "tanh": Activation(tanh_forward, tanh_backward),
        "relu": Activation(relu_forward, relu_backward),
        "sigmoid": Activation(sigmoid_forward, sigmoid_backward),
        "softplus": Activation(softplus_forward, softplus_backward),
    }
)
