"""The dense layer: an affine map followed by an activation. N rows, `weight` is (in, out)."""

from typing import NamedTuple

from numpy.typing import NDArray

from scratchvae.reference.activations import ACTIVATIONS


class DenseCache(NamedTuple):
    x: NDArray  # (N, in)
    weight: NDArray  # (in, out)
    h: NDArray  # (N, out)
    activation: str


def dense_forward(x: NDArray, weight: NDArray, bias: NDArray, activation: str) -> tuple[NDArray, DenseCache]:
    """One dense layer.

    Forward   a = x W + b        h = activation(a)
    Takes     x (N, in); weight (in, out); bias (out,); activation: a name in `ACTIVATIONS`
    Returns   h (N, out), cache
    """
    a = x @ weight + bias
    h, _ = ACTIVATIONS[activation].forward(a)
    return h, DenseCache(x, weight, h, activation)


def dense_backward(dh: NDArray, cache: DenseCache) -> tuple[NDArray, NDArray, NDArray]:
    """Gradient of `dense_forward`.

    Gives     da = dh activation'(a)     dx = da W^T     dW = x^T da     db = sum_n da_n
    Takes     dh (N, out): d loss / d h; cache
    Returns   dx (N, in), dweight (in, out), dbias (out,)
    Source    Rumelhart, Hinton, Williams 1986, "Learning representations by back-propagating errors"
    """
    da = ACTIVATIONS[cache.activation].backward(dh, cache.h)  # reverse of: h = activation(a)
    dx = da @ cache.weight.T  # reverse of: a = x W, for x
    dweight = cache.x.T @ da  # reverse of: a = x W, for W: an outer product summed over the rows
    dbias = da.sum(axis=0)  # reverse of: a = ... + b, which every row shares
    return dx, dweight, dbias
