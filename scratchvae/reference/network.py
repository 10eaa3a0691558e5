"""A stack of dense layers, and the two halves of its backward pass.

The first half works row by row: it carries d loss / d out back to every layer's pre-activation. The second half sums
over rows: the gradient of a weight is x^T da. They are apart because the second can end in two ways, written down as
a gradient (`network_gradient`) or used at once by Adam (`network_adam`).

Source: Rumelhart, Hinton, Williams 1986, "Learning representations by back-propagating errors".
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.parameters import Network
from scratchvae.reference.activations import ACTIVATIONS
from scratchvae.reference.adam import adam_update
from scratchvae.reference.dense import DenseCache, dense_forward


class NetworkCache(NamedTuple):
    layers: tuple[DenseCache, ...]


class NetworkDeltas(NamedTuple):
    inputs: tuple[NDArray, ...]  # of each layer, (N, in)
    das: tuple[NDArray, ...]  # d loss / d pre-activation of each layer, (N, out)


def network_forward(x: NDArray, network: Network) -> tuple[NDArray, NetworkCache]:
    """Run x through every layer.

    Forward   h_0 = x        h_l = activation_l(h_{l-1} W_l + b_l)
    Takes     x (N, in); network: its layers W_l (in, out), b_l (out,)
    Returns   h_L (N, out), cache: one `DenseCache` a layer
    """
    caches = []
    h = x
    for layer in network.layers:
        h, cache = dense_forward(h, layer.weight, layer.bias, layer.activation)
        caches.append(cache)
    return h, NetworkCache(tuple(caches))


def network_backward(
    dout: NDArray, cache: NetworkCache, network: Network, input_gradient: bool = True
) -> tuple[NDArray | None, NetworkDeltas]:
    """Row-by-row half of the gradient of `network_forward`.

    Gives     da_l = dh_l activation_l'(a_l)        dh_{l-1} = da_l W_l^T
    Takes     dout (N, out): d loss / d out; cache; the same network; input_gradient: whether dx is wanted
    Returns   dx (N, in) or None, deltas
    """
    das: list[NDArray] = []
    dh = dout
    for index in reversed(range(len(cache.layers))):
        layer = cache.layers[index]
        da = ACTIVATIONS[layer.activation].backward(dh, layer.h)  # reverse of: h = activation(a)
        das.insert(0, da)
        if index > 0 or input_gradient:
            dh = da @ layer.weight.T  # reverse of: a = x W + b, for x
    return (dh if input_gradient else None), NetworkDeltas(tuple(layer.x for layer in cache.layers), tuple(das))


def network_gradient(deltas: NetworkDeltas, gradient: Network) -> None:
    """Sum-over-rows half of the gradient, written into `gradient`, which has the network's structure.

    Gives     dW_l = h_{l-1}^T da_l        db_l = sum_n da_ln
    Takes     deltas of `network_backward`; gradient: overwritten, W_l (in, out) and b_l (out,) of every layer
    """
    for x, da, layer in zip(deltas.inputs, deltas.das, gradient.layers, strict=True):
        layer.weight[...] = x.T @ da  # reverse of: a = x W, for W
        layer.bias[...] = da.sum(axis=0)  # reverse of: a = ... + b


def network_adam(
    deltas: NetworkDeltas,
    network: Network,
    first: NDArray,
    second: NDArray,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """The same sum over rows, used at once: one Adam step on the network's parameters, in place.

    Takes     deltas; network; first, second: flat moments with the layout of `network.flat`; the rest as `adam_update`
    Source    Kingma, Ba 2015, algorithm 1
    """
    for x, da, (rows, columns, weight, bias, _) in zip(deltas.inputs, deltas.das, network.table.tolist(), strict=True):
        for offset, gradient in ((weight, (x.T @ da).reshape(rows * columns)), (bias, da.sum(axis=0))):
            place = slice(offset, offset + gradient.size)
            adam_update(
                network.flat[place], np.ascontiguousarray(gradient), first[place], second[place],
                step, learning_rate, beta1, beta2, epsilon,
            )  # fmt: skip
