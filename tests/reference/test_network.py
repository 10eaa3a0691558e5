"""A stack of layers: its gradient in two halves, and the half that Adam uses at once."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchvae import reference
from scratchvae.engine import ENGINES, get_engine
from scratchvae.parameters import Parameters
from tests.cases import ACTIVATION_NAMES
from tests.proofs.checks import DERIVATIVES, GATES, relative_error

METHODS = {"reference": "complex", "compiled": "central"}


def stack(sizes: list[int], rng: np.random.Generator, dtype=np.float64) -> Parameters:
    """Random parameters of a stack of layers, the first unit of each alive whatever the activation."""
    shapes = {}
    for index, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        stem = "net.head" if index == len(sizes) - 2 else f"net.{index}"
        shapes |= {f"{stem}.weight": (inputs, outputs), f"{stem}.bias": (outputs,)}
    parameters = Parameters.zeros(shapes, dtype)
    for name, array in parameters.items():
        array[...] = rng.uniform(-1, 1, size=array.shape) / sizes[0]
        if name.endswith("bias"):
            array[0] += 1.5
    return parameters


def gradients(ops: ModuleType, x, dout, parameters: Parameters, activation: str):
    network = parameters.network("net", activation)
    _, cache = ops.network_forward(x, network)
    dx, deltas = ops.network_backward(dout, cache, network)
    gradient = parameters.zeros_like()
    ops.network_gradient(deltas, gradient.network("net", activation))
    return dx, deltas, gradient


@pytest.mark.parametrize("name", ENGINES)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    activation=st.sampled_from(ACTIVATION_NAMES),
    rows=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=15)
def test_both_halves_together_are_the_derivative_of_the_network(name, sizes, activation, rows, seed):
    ops, rng = get_engine(name), np.random.default_rng(seed)
    parameters, x = stack(sizes, rng), rng.uniform(-1, 1, size=(rows, sizes[0]))
    dout = rng.normal(size=(rows, sizes[-1]))
    dx, _, gradient = gradients(ops, x, dout, parameters, activation)
    derivative, gate = DERIVATIVES[METHODS[name]], GATES[METHODS[name]]

    def loss(changed: Parameters, x=x):
        return (dout * ops.network_forward(x, changed.network("net", activation))[0]).sum()

    assert relative_error(dx, derivative(lambda value: loss(parameters.astype(value.dtype), value), x)) <= gate
    for tensor, array in parameters.items():

        def with_tensor(value, tensor=tensor):
            changed = parameters.astype(value.dtype)
            changed[tensor][...] = value
            return loss(changed)

        assert relative_error(gradient[tensor], derivative(with_tensor, array.copy())) <= gate, tensor


def test_a_network_is_its_layers_in_order(ops):
    rng = np.random.default_rng(0)
    parameters, x = stack([3, 4, 5, 2], rng), rng.normal(size=(6, 3))
    h = x
    for stem in ("net.0", "net.1"):
        h = np.tanh(h @ parameters[f"{stem}.weight"] + parameters[f"{stem}.bias"])
    want = h @ parameters["net.head.weight"] + parameters["net.head.bias"]
    np.testing.assert_allclose(ops.network_forward(x, parameters.network("net", "tanh"))[0], want, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adam_at_once_equals_the_gradient_followed_by_adam(ops, dtype):
    rng = np.random.default_rng(0)
    parameters, x = stack([5, 7, 3], rng, dtype), rng.normal(size=(9, 5)).astype(dtype)
    dout = rng.normal(size=(9, 3)).astype(dtype)
    other = parameters.copy()
    state = [parameters.zeros_like().flat for _ in range(4)]
    for step in (1, 2, 3):
        _, deltas, _ = gradients(ops, x, dout, parameters, "relu")
        ops.network_adam(deltas, parameters.network("net", "relu"), state[0], state[1], step, 0.01, 0.8, 0.99, 1e-6)
        _, _, gradient = gradients(reference, x, dout, other, "relu")
        reference.adam_update(other.flat, gradient.flat, state[2], state[3], step, 0.01, 0.8, 0.99, 1e-6)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == np.float64 else {"rtol": 1e-4, "atol": 1e-6}
    np.testing.assert_allclose(parameters.flat, other.flat, **tolerance)
    np.testing.assert_allclose(state[0], state[2], **tolerance)
    np.testing.assert_allclose(state[1], state[3], **tolerance)


def test_what_lies_between_tensors_stays_zero(ops):
    rng = np.random.default_rng(0)
    parameters, x = stack([5, 7, 3], rng), rng.normal(size=(9, 5))
    _, deltas, gradient = gradients(ops, x, rng.normal(size=(9, 3)), parameters, "tanh")
    first, second = parameters.zeros_like().flat, parameters.zeros_like().flat
    ops.network_adam(deltas, parameters.network("net", "tanh"), first, second, 1, 0.1)
    padding = np.ones(parameters.flat.size, bool)
    for entry in parameters.layout:
        padding[entry.offset : entry.offset + entry.size] = False
    assert padding.any()
    for flat in (gradient.flat, parameters.flat, first, second):
        assert not flat[padding].any()


def test_the_gradient_of_the_input_is_not_computed_where_it_is_not_wanted(ops):
    rng = np.random.default_rng(0)
    parameters, x = stack([3, 4, 2], rng), rng.normal(size=(5, 3))
    network = parameters.network("net", "tanh")
    _, cache = ops.network_forward(x, network)
    dx, _ = ops.network_backward(rng.normal(size=(5, 2)), cache, network, input_gradient=False)
    assert dx is None
