"""Twin of `reference.dense`: one layer, by the kernels that `network` runs over many."""

import numpy as np
from numpy.typing import NDArray

from scratchvae.compiled import activations
from scratchvae.compiled.network import NetworkCache, _plain, network_backward, network_forward, network_gradient
from scratchvae.parameters import Network, Parameters
from scratchvae.reference.dense import DenseCache


def dense_forward(x: NDArray, weight: NDArray, bias: NDArray, activation: str) -> tuple[NDArray, DenseCache]:
    """See `reference.dense.dense_forward`."""
    a, _ = network_forward(x, _one_layer(weight, bias))
    h, _ = getattr(activations, f"{activation}_forward")(a)
    return h, DenseCache(x, weight, h, activation)


def dense_backward(dh: NDArray, cache: DenseCache) -> tuple[NDArray, NDArray, NDArray]:
    """See `reference.dense.dense_backward`."""
    network = _one_layer(cache.weight, np.zeros(cache.weight.shape[1], cache.weight.dtype))
    gradient = _one_layer(np.zeros_like(cache.weight), network.layers[0].bias)
    da = getattr(activations, f"{cache.activation}_backward")(dh, cache.h)
    linear = NetworkCache(_plain(cache.x, network.flat.dtype), np.empty(0, network.flat.dtype))
    dx, deltas = network_backward(da, linear, network)
    network_gradient(deltas, gradient)
    assert dx is not None  # it was asked for
    return dx, gradient.layers[0].weight, gradient.layers[0].bias


def _one_layer(weight: NDArray, bias: NDArray) -> Network:
    parameters = Parameters.zeros({"layer.head.weight": weight.shape, "layer.head.bias": bias.shape}, weight.dtype)
    parameters["layer.head.weight"][...] = weight
    parameters["layer.head.bias"][...] = bias
    return parameters.network("layer", "identity")
