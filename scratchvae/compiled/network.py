"""Twin of `reference.network`: a stack of dense layers, each pass one compiled call and one parallel region.

Forward and backward split the rows between threads: a thread takes its rows through all layers, and never waits for
another. The sums over rows split the weights: a thread owns some rows of every weight, of their moments and of their
gradients. Every element is summed in one order, so the number of threads changes no bit (see `gemm`).

The kernels read all layers from two flat arrays, the parameters and the hidden layers' outputs, so that one compiled
signature serves every architecture.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from scratchvae.compiled.gemm import kernel, matrix, product, transpose
from scratchvae.parameters import Network

BLOCK = 96  # rows that go back through the layers together: their transposed deltas stay in the second-level cache
PARALLEL = 250_000  # multiply-adds below which a second thread does not pay for waking it


class NetworkCache(NamedTuple):
    x: NDArray  # (N, in)
    hidden: NDArray  # outputs of all layers but the last, one after the other, each (N, out)


class NetworkDeltas(NamedTuple):
    x: NDArray  # (N, in)
    hidden: NDArray  # as in the cache
    hidden_das: NDArray  # d loss / d pre-activation of the layers in `hidden`, in the same places
    dout: NDArray  # (N, out): the same of the last layer, which is linear


@njit(cache=True)
def _row(table, layer):
    return table[layer, 0], table[layer, 1], table[layer, 2], table[layer, 3], table[layer, 4]


@njit(cache=True)
def mostly_zero(x):
    """Whether fewer than a third of x's elements differ from zero, by the look of sixteen rows."""
    rows, found, seen = x.shape[0], 0, 0
    for sample in range(min(rows, 16)):
        row = x[sample * rows // min(rows, 16)]
        for value in row:
            found += value != 0
        seen += row.size
    return 3 * found < seen


# --- forward ----------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _activate(h, first_row, last_row, code):
    """h = activation(h) in place; `ACTIVATION_CODES` gives the codes."""
    for i in range(first_row, last_row):
        for j in range(h.shape[1]):
            a = h[i, j]
            if code == 1:
                h[i, j] = np.tanh(a)
            elif code == 2:
                h[i, j] = 0 if a < 0 else a
            elif code == 3:
                h[i, j] = 1 / (1 + np.exp(-a))
            elif code == 4:
                h[i, j] = max(a, 0) + np.log1p(np.exp(-abs(a)))


@njit(cache=True, error_model="numpy")
def _forward_rows(kernel, x, flat, table, hidden, out, first_row, last_row):
    rows, place, h = x.shape[0], 0, x
    for layer in range(table.shape[0]):
        inputs, outputs, weight, bias, code = _row(table, layer)
        target = out
        if layer < table.shape[0] - 1:
            target = matrix(hidden, place, rows, outputs)
            place += rows * outputs
        w, b = matrix(flat, weight, inputs, outputs), flat[bias : bias + outputs]
        product(kernel, h, w, b, target, w, w, flat[:0], first_row, last_row, layer == 0 and mostly_zero(x))
        _activate(target, first_row, last_row, code)
        h = target


@njit(cache=True, parallel=True)
def _forward_parallel(kernel, x, flat, table, hidden, out, threads):
    rows = x.shape[0]
    for t in prange(threads):
        _forward_rows(kernel, x, flat, table, hidden, out, rows * t // threads, rows * (t + 1) // threads)


def network_forward(x: NDArray, network: Network) -> tuple[NDArray, NetworkCache]:
    """See `reference.network.network_forward`."""
    flat, table, layers = network.flat, network.table, network.layers
    rows = len(x)
    x = np.ascontiguousarray(x, flat.dtype)
    hidden = np.empty(rows * _hidden_size(network), flat.dtype)
    out = np.empty((rows, len(layers[-1].bias)), flat.dtype)
    threads = _threads(rows, network)
    if threads > 1:
        _forward_parallel(kernel(flat.dtype), x, flat, table, hidden, out, threads)
    else:
        _forward_rows(kernel(flat.dtype), x, flat, table, hidden, out, 0, rows)
    return out, NetworkCache(x, hidden)


# --- backward, row by row ---------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _times_derivative(dh, h, code, first_row, last_row):
    """dh = dh * activation'(h) in place; the derivative is taken from the output h."""
    for i in range(first_row, last_row):
        for j in range(h.shape[1]):
            y = h[i, j]
            if code == 1:
                dh[i, j] *= 1 - y * y
            elif code == 2:
                dh[i, j] *= y > 0
            elif code == 3:
                dh[i, j] *= y * (1 - y)
            elif code == 4:
                dh[i, j] *= 1 - np.exp(-y)


@njit(cache=True, error_model="numpy")
def _backward_block(kernel, x, flat, table, hidden, hidden_das, dout, dx, first_row, last_row, scratch):
    rows, place, da, size = x.shape[0], hidden.size, dout, last_row - first_row
    for layer in range(table.shape[0] - 1, -1 if dx.shape[0] == rows else 0, -1):
        inputs, outputs, weight, _, _ = _row(table, layer)
        da_columns = matrix(scratch, 0, outputs, size)
        dh_columns = matrix(scratch, outputs * BLOCK, inputs, size)
        transpose(da, first_row, last_row, da_columns)
        w = matrix(flat, weight, inputs, outputs)
        product(kernel, w, da_columns, flat[:0], dh_columns, w, w, flat[:0], 0, inputs, False)
        place -= rows * inputs if layer > 0 else 0
        da = matrix(hidden_das, place, rows, inputs) if layer > 0 else dx
        transpose(dh_columns, 0, inputs, da[first_row:last_row])
        if layer > 0:
            _times_derivative(da, matrix(hidden, place, rows, inputs), table[layer - 1, 4], first_row, last_row)


@njit(cache=True, error_model="numpy")
def _backward_rows(kernel, x, flat, table, hidden, hidden_das, dout, dx, first_row, last_row):
    widest = 0
    for layer in range(table.shape[0]):
        widest = max(widest, table[layer, 0] + table[layer, 1])
    scratch = np.empty(widest * BLOCK, flat.dtype)
    for row in range(first_row, last_row, BLOCK):
        _backward_block(
            kernel, x, flat, table, hidden, hidden_das, dout, dx, row, min(row + BLOCK, last_row), scratch
        )


@njit(cache=True, parallel=True)
def _backward_parallel(kernel, x, flat, table, hidden, hidden_das, dout, dx, threads):
    rows = x.shape[0]
    for t in prange(threads):
        _backward_rows(
            kernel, x, flat, table, hidden, hidden_das, dout, dx, rows * t // threads, rows * (t + 1) // threads
        )


def network_backward(
    dout: NDArray, cache: NetworkCache, network: Network, input_gradient: bool = True
) -> tuple[NDArray | None, NetworkDeltas]:
    """See `reference.network.network_backward`."""
    x, hidden = cache
    flat, table = network.flat, network.table
    dout = np.ascontiguousarray(dout, flat.dtype)
    hidden_das = np.empty_like(hidden)
    dx = np.empty(x.shape if input_gradient else (0, x.shape[1]), flat.dtype)
    threads = _threads(len(x), network)
    if threads > 1:
        _backward_parallel(kernel(flat.dtype), x, flat, table, hidden, hidden_das, dout, dx, threads)
    else:
        _backward_rows(kernel(flat.dtype), x, flat, table, hidden, hidden_das, dout, dx, 0, len(x))
    return (dx if input_gradient else None), NetworkDeltas(x, hidden, hidden_das, dout)


# --- the sums over rows: gradient, or Adam at once --------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _gradient_part(kernel, x, hidden, hidden_das, dout, table, flat, first, second, constants, part, parts):
    """Part `part` of `parts` of every layer's dW = h^T da, db = sum da: written to `flat` if `constants` is empty, else
    used in Adam's step on `flat`."""
    rows, place, h = x.shape[0], 0, x
    ones = np.empty((1, rows), flat.dtype)
    ones[:] = 1
    for layer in range(table.shape[0]):
        inputs, outputs, weight, bias, _ = _row(table, layer)
        da, following = dout, dout
        if layer < table.shape[0] - 1:
            da, following = matrix(hidden_das, place, rows, outputs), matrix(hidden, place, rows, outputs)
            place += rows * outputs
        low, high = inputs * part // parts, inputs * (part + 1) // parts
        w, b = matrix(flat, weight, inputs, outputs), matrix(flat, bias, 1, outputs)
        own_bias = 1 if layer % parts == part else 0
        w1, b1, w2, b2 = w, b, w, b
        if constants.size > 0:
            w1, b1 = matrix(first, weight, inputs, outputs), matrix(first, bias, 1, outputs)
            w2, b2 = matrix(second, weight, inputs, outputs), matrix(second, bias, 1, outputs)
        product(kernel, h.T, da, flat[:0], w, w1, w2, constants, low, high, layer == 0 and mostly_zero(x))
        product(kernel, ones, da, flat[:0], b, b1, b2, constants, 0, own_bias, False)
        h = following


@njit(cache=True, parallel=True)
def _gradient_parallel(kernel, x, hidden, hidden_das, dout, table, flat, first, second, constants, threads):
    for t in prange(threads):
        _gradient_part(kernel, x, hidden, hidden_das, dout, table, flat, first, second, constants, t, threads)


def _gradient(deltas: NetworkDeltas, network: Network, first: NDArray, second: NDArray, constants: NDArray) -> None:
    threads = _threads(len(deltas.x), network)
    if threads > 1:
        _gradient_parallel(kernel(network.flat.dtype), *deltas, network.table, network.flat, first, second, constants, threads)
    else:
        _gradient_part(kernel(network.flat.dtype), *deltas, network.table, network.flat, first, second, constants, 0, 1)


def network_gradient(deltas: NetworkDeltas, gradient: Network) -> None:
    """See `reference.network.network_gradient`."""
    none = gradient.flat[:0]
    _gradient(deltas, gradient, none, none, none)


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
    """See `reference.network.network_adam`."""
    correction = (1 - beta2**step) ** 0.5
    rate = learning_rate * correction / (1 - beta1**step)
    constants = np.array((rate, epsilon * correction, 1 - beta1, 1 - beta2), network.flat.dtype)
    _gradient(deltas, network, first, second, constants)


# --- sizes ------------------------------------------------------------------------------------------------------------


def _hidden_size(network: Network) -> int:
    return sum(len(layer.bias) for layer in network.layers[:-1])


def _threads(rows: int, network: Network) -> int:
    """How many threads a pass over `rows` rows is worth: one for small work."""
    work = rows * sum(layer.weight.size for layer in network.layers)
    return 1 if work < PARALLEL else numba.get_num_threads()
