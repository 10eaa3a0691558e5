"""The compiled stack of layers: the reference's results, whatever the threads, the split of the batch and the input."""

import numba
import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

import scratchvae as sv
from scratchvae import reference
from scratchvae.compiled import network as kernels
from scratchvae.compiled.adam import adam_update
from scratchvae.compiled.gemm import kernel
from scratchvae.compiled.network import (
    GRADIENT_BLOCK,
    LONG,
    bias_sums,
    network_adam,
    network_backward,
    network_forward,
    network_gradient,
    weight_sums,
    work_space,
)
from scratchvae.parameters import ACTIVATION_CODES, ALIGNMENT, Network, Parameters, aligned_empty
from tests.compiled.entries import entry_of

skips = entry_of(kernels.skips)

SIZES = (100, 65, 33, 20)  # with 130 rows more than one thread has work
DTYPES = ["float32", "float64"]


def model(sizes=SIZES, activation: str = "tanh", dtype: str = "float32", seed: int = 0) -> tuple[Parameters, Network]:
    """Random parameters of a network and of a stranger behind it, and the network."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        stem = "net.head" if index == len(sizes) - 2 else f"net.{index}"
        shapes |= {f"{stem}.weight": (inputs, outputs), f"{stem}.bias": (outputs,)}
    parameters = Parameters.zeros(shapes | {"stranger": (3,)}, dtype)
    rng = np.random.default_rng(seed)
    for array in parameters.values():
        array[...] = rng.normal(size=array.shape) / np.sqrt(array.shape[0])
    return parameters, parameters.network("net", activation)


def batch(
    rows: int, sizes=SIZES, dtype: str = "float32", density: float = 1.0, seed: int = 1
) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, sizes[0])) * (rng.random((rows, sizes[0])) < density)
    return x.astype(dtype), rng.normal(size=(rows, sizes[-1])).astype(dtype)


def everything(engine, x: NDArray, dout: NDArray, parameters: Parameters, activation: str) -> dict[str, NDArray]:
    """Output, input gradient, parameter gradient, and parameters and moments after two steps of Adam."""
    changed = parameters.copy()
    network, gradient = changed.network("net", activation), parameters.zeros_like()
    first, second = parameters.zeros_like(), parameters.zeros_like()
    out, cache = engine.network_forward(x, network)
    dx, deltas = engine.network_backward(dout, cache, network)
    engine.network_gradient(deltas, gradient.network("net", activation))
    for step in (1, 2):
        engine.network_adam(deltas, network, first.flat, second.flat, step, 1e-2, 0.9, 0.99, 1e-4)
    return {
        "out": out, "dx": dx, "gradient": gradient.flat,
        "parameters": changed.flat, "first": first.flat, "second": second.flat,
    }  # fmt: skip


class Compiled:
    network_forward = staticmethod(network_forward)
    network_backward = staticmethod(network_backward)
    network_gradient = staticmethod(network_gradient)
    network_adam = staticmethod(network_adam)


def close(got: NDArray, want: NDArray, tolerance: float) -> bool:
    return bool(np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATION_CODES)
@pytest.mark.parametrize(("rows", "sizes"), [(1, (5, 3)), (3, (7, 20, 3)), (130, SIZES), (101, (3, 40, 17, 79))])
def test_the_compiled_network_is_the_reference_network(rows, sizes, activation, dtype):
    parameters, _ = model(sizes, activation, dtype)
    x, dout = batch(rows, sizes, dtype)
    got = everything(Compiled, x, dout, parameters, activation)
    want = everything(reference, x, dout, parameters, activation)
    for name in want:
        assert got[name].dtype == dtype
        assert close(got[name], want[name], 1e-4 if dtype == "float32" else 1e-12), name


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_a_gradient_of_several_blocks_is_the_reference_gradient(density):
    """Adam has `GRADIENT_BLOCK` elements at a time."""
    sizes = 701, 100
    assert sizes[0] * sizes[1] > 2 * GRADIENT_BLOCK
    parameters, _ = model(sizes, dtype="float64")
    x, dout = batch(9, sizes, "float64", density)
    got, want = (everything(engine, x, dout, parameters, "tanh") for engine in (Compiled, reference))
    for name in want:
        assert close(got[name], want[name], 1e-12), name


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(dtype, density):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one processor")
    parameters, _ = model(dtype=dtype)
    x, dout = batch(130, dtype=dtype, density=density)
    before, results = numba.get_num_threads(), []
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            results.append(everything(Compiled, x, dout, parameters, "tanh"))
    finally:
        numba.set_num_threads(before)
    for name, value in results[0].items():
        assert (value == results[1][name]).all(), name


@pytest.mark.parametrize("sizes", [SIZES, (20, LONG, 10)])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_the_split_of_a_batch_changes_no_bit_of_a_row(density, sizes):
    """However few rows there are, a layer's gradient is made in the same one of the two ways."""
    _, network = model(sizes)
    x, dout = batch(113, sizes, density=density)
    out, cache = network_forward(x, network)
    dx, _ = network_backward(dout, cache, network)
    for low, high in ((0, 1), (1, 50), (50, 113)):
        part, part_cache = network_forward(x[low:high], network)
        assert (part == out[low:high]).all()
        part_dx, _ = network_backward(dout[low:high], part_cache, network)
        assert (part_dx == dx[low:high]).all()


def test_zeros_in_the_input_change_no_bit_of_a_gradient():
    """The rows that are not zero come first, so the dense way's sum over rows has the same terms and then zeros."""
    parameters, network = model()
    x, dout = batch(40)
    padded, dpadded = np.zeros((400, 100), np.float32), np.zeros((400, 20), np.float32)
    padded[:40], dpadded[:40] = x, dout
    gradients = []
    for rows, drows in ((x, dout), (padded, dpadded)):
        gradient = parameters.zeros_like()
        _, cache = network_forward(rows, network)
        _, deltas = network_backward(drows, cache, network, input_gradient=False)
        network_gradient(deltas, gradient.network("net", "tanh"))
        gradients.append(gradient.flat)
    assert (gradients[0] == gradients[1]).all()


def test_adam_joined_to_the_gradient_is_adam_after_the_gradient():
    parameters, _ = model()
    x, dout = batch(130)
    got = everything(Compiled, x, dout, parameters, "tanh")
    changed, gradient = parameters.copy(), Parameters(parameters.layout, got["gradient"])
    gradient["stranger"][...] = 0
    first, second = parameters.zeros_like(), parameters.zeros_like()
    network = changed.network("net", "tanh")
    deltas = network_backward(dout, network_forward(x, network)[1], network)[1]
    for step in (1, 2):  # everything() takes both steps with the deltas of the first parameters
        network_gradient(deltas, gradient.network("net", "tanh"))
        adam_update(changed.flat, gradient.flat, first.flat, second.flat, step, 1e-2, 0.9, 0.99, 1e-4)
    assert (got["parameters"] == changed.flat).all()
    assert (got["first"] == first.flat).all()
    assert (got["second"] == second.flat).all()


def test_adam_touches_its_network_alone():
    parameters, _ = model()
    x, dout = batch(130)
    got = everything(Compiled, x, dout, parameters, "tanh")
    own = np.zeros(parameters.flat.size, bool)
    for entry in parameters.layout:
        own[entry.offset : entry.offset + entry.size] = entry.name != "stranger"
    assert (got["parameters"][~own] == parameters.flat[~own]).all()
    assert (got["first"][~own] == 0).all()
    assert (got["parameters"][own] != parameters.flat[own]).mean() > 0.99


def test_input_of_any_layout_and_type_is_taken():
    _, network = model()
    x, dout = batch(130)
    want, cache = network_forward(x, network)
    want_dx, _ = network_backward(dout, cache, network)
    frozen = x.copy()
    frozen.setflags(write=False)
    wide = np.zeros((130, 200), np.float32)
    wide[:, ::2] = x
    for other in (x.astype(float), np.asfortranarray(x), frozen, wide[:, ::2]):
        assert (network_forward(other, network)[0] == want).all()
    assert (network_backward(np.asfortranarray(dout), cache, network)[0] == want_dx).all()


def test_no_rows_give_no_rows_and_a_zero_gradient():
    parameters, network = model()
    x, dout = batch(0)
    out, cache = network_forward(x, network)
    dx, deltas = network_backward(dout, cache, network)
    gradient = parameters.copy()
    network_gradient(deltas, gradient.network("net", "tanh"))
    assert out.shape == (0, 20)
    assert dx is not None
    assert dx.shape == (0, 100)
    assert all((array == 0).all() for name, array in gradient.items() if name != "stranger")


@pytest.mark.parametrize("activation", ACTIVATION_CODES)
def test_a_nan_in_an_example_stays_in_that_example_and_reaches_every_gradient(activation):
    parameters, network = model(activation=activation)
    x, dout = batch(130)
    x[4, 7] = np.nan
    out, cache = network_forward(x, network)
    assert np.isnan(out[4]).all()
    assert np.isfinite(np.delete(out, 4, axis=0)).all()
    _, deltas = network_backward(dout, cache, network)
    gradient = parameters.zeros_like()
    network_gradient(deltas, gradient.network("net", activation))
    assert np.isnan(gradient["net.head.weight"]).all()


def test_a_nan_in_a_weight_is_seen_where_every_input_is_zero():
    parameters, network = model()
    x, _ = batch(130, density=0.1)
    x[:, 13] = 0
    parameters["net.0.weight"][13, 2] = np.nan
    out, _ = network_forward(x, network)
    assert np.isnan(out).all()


@njit
def starts_of_work_spaces(sizes, like):
    """All at once, so that they have different places."""
    held = [work_space(size, like) for size in sizes]
    return [array.ctypes.data for array in held], [array.size for array in held]


@pytest.mark.parametrize("dtype", DTYPES)
def test_work_space_begins_with_a_cache_line(dtype):
    sizes = [1, 7, 16, 50, 333, 100_000]
    starts, found = starts_of_work_spaces(tuple(sizes), np.empty(0, dtype))
    assert found == sizes
    assert not any(start % ALIGNMENT for start in starts)
    arrays = [aligned_empty(size, dtype) for size in sizes]
    assert [(array.size, array.dtype, array.ctypes.data % ALIGNMENT) for array in arrays] == [
        (size, np.dtype(dtype), 0) for size in sizes
    ]


@njit
def summed(kernel, flat, h, da, spans, zeros, first, second, constants):
    bias_sums(flat, h.shape[1] * da.shape[1], da, spans, first, second, constants)
    return weight_sums(kernel, flat, 0, h, da, spans, zeros, False, first, second, constants)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("spans", [[[0, 0], [0, 5]], [[0, 2], [4, 4], [5, 9]], [[1, 8], [11, 12]]])
def test_sums_over_spans_of_rows_are_those_over_their_rows(spans, zeros):
    """What stands in other rows is not looked at."""
    rng, address = np.random.default_rng(0), kernel(np.dtype("float32"))
    h, da = (rng.normal(size=(12, columns)).astype(np.float32) for columns in (9, 20))
    h *= rng.random(h.shape) < 0.3
    own = np.concatenate([np.arange(*span) for span in spans])
    others = np.setdiff1d(np.arange(12), own)
    want, got = np.zeros((2, 10 * 20), np.float32)
    none = want[:0]
    summed(address, want, h[own], da[own], np.array([[0, len(own)]]), zeros, none, none, none)
    h[others], da[others] = np.nan, np.inf
    summed(address, got, h, da, np.array(spans), zeros, none, none, none)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("largest", "known"), [(1.0, True), (3e38, False)])
def test_sums_say_whether_their_weights_are_finite_after_adam(largest, known):
    """With these constants the update of a weight is its gradient: 3e38 and 3e38 are more than a number."""
    rng, flat, all_rows = np.random.default_rng(0), np.zeros(13 * 7, np.float32), np.array([[0, 9]])
    h, da = (rng.random((9, 12)) < 0.2).astype(np.float32), rng.normal(size=(9, 7)).astype(np.float32)
    h[:, 5], da[:, 3], flat[5 * 7 + 3] = [1, *[0] * 8], [1, *[0] * 8], -largest
    constants = np.array([1, 0, 0, largest, 1], np.float32)
    moments = np.zeros((2, flat.size), np.float32)
    address = kernel(np.dtype("float32"))
    assert summed(address, flat.copy(), h, da, all_rows, True, *moments, constants) is known
    assert summed(address, flat.copy(), h, da, all_rows, False, *moments, constants) is known
    assert summed(address, flat.copy(), h, da, all_rows, True, *moments, constants[:0]) is False, "there was no step"


@pytest.mark.parametrize("row", [0, 700])
@pytest.mark.parametrize("zeros", [True, False])
def test_a_weight_that_is_no_number_is_noticed_in_whichever_block_it_is(zeros, row):
    flat, moments = np.zeros(702 * 100, np.float32), np.zeros((2, 702 * 100), np.float32)
    flat[row * 100 + 3] = np.nan
    h, da = np.zeros((9, 701), np.float32), np.ones((9, 100), np.float32)
    assert h.shape[1] * da.shape[1] > 2 * GRADIENT_BLOCK
    constants, all_rows = np.array([0.1, 0.999, 0.001, 1e-3, 1e-8], np.float32), np.array([[0, 9]])
    assert summed(kernel(np.dtype("float32")), flat, h, da, all_rows, zeros, *moments, constants) is False


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_zeros_that_relu_leaves_change_no_bit_of_a_gradient(share):
    """Whether they are skipped depends on their share."""
    parameters, network = model((40, 64, 48), "relu")
    network.layers[0].bias[...] = {0.0: 9, 0.5: 0, 0.9: -1.3}[share]
    x, dout = batch(90, (40, 48))
    _, deltas = network_backward(dout, network_forward(x, network)[1], network)
    gradients = []
    for activation in ("relu", "identity"):
        gradient = parameters.zeros_like()
        network_gradient(deltas, gradient.network("net", activation))
        gradients.append(gradient.flat)
    assert not skips(deltas.hidden.reshape(90, 64), 1, False)
    if share != 0.5:  # the more rows share a list, the more zeros there must be
        assert skips(deltas.hidden.reshape(90, 64), 1, True) == (share == 0.9)
    np.testing.assert_array_equal(*gradients)


def test_input_of_another_width_is_refused():
    """The kernels would read what stands beside it."""
    vae = sv.VAE(12, 3, hidden=(5,))
    for columns in (11, 13):
        with pytest.raises(ValueError, match=rf"^x has {columns} columns, shape \(4, {columns}\); expected 12$"):
            vae.encoder_head(np.zeros((4, columns), np.float32))
