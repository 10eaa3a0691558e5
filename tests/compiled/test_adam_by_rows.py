"""Adam row by row, on weights of inputs that are mostly zero: the bits of the dense product and Adam behind it."""

import numpy as np
import pytest
from numba import njit

from scratchvae.compiled import adam_by_estimates, adam_by_rows, gemm
from scratchvae.compiled.gemm import kernel
from scratchvae.compiled.step import FEW_SAMPLES
from tests.compiled.entries import entry_of
from tests.compiled.flushing import flushed

pytestmark = pytest.mark.slow  # its loops are compiled for it alone; `test_step` holds whole steps to the composition

product = entry_of(gemm.product)

CONSTANTS = np.array([0.1, 0.999, 0.001, 1e-3, 1e-8], np.float32)
GUARD = 20  # elements behind the arrays' ends


@flushed
@njit(error_model="numpy")
def by_rows(p, m, v, h, da, constants):
    flat, first, second = p.reshape(p.size), m.reshape(m.size), v.reshape(v.size)
    return adam_by_rows.update_by_rows(flat, 0, h, da, first, second, constants)


@flushed
@njit(error_model="numpy")
def dense(kernel, p, m, v, h, da, constants):
    gradient = np.empty(p.shape, p.dtype)
    product(kernel, h.T, da, da[0, :0], gradient, 0)
    flat = p.reshape(-1), gradient.reshape(-1), m.reshape(-1), v.reshape(-1)
    return adam_by_estimates.update(*flat, constants, p.size)


def problem(examples, inputs, outputs, density=0.13):
    """p, m, v; h and da."""
    rng = np.random.default_rng(examples + 100 * inputs + 10_000 * outputs)
    weights = [rng.normal(size=(inputs, outputs)) for _ in range(2)] + [10.0 ** rng.uniform(-9, 1, (inputs, outputs))]
    h = rng.normal(size=(examples, inputs)) * (rng.random((examples, inputs)) < density)
    da = rng.normal(size=(examples, outputs)).astype(np.float32)
    return [array.astype(np.float32) for array in weights], h.astype(np.float32), da


def with_guards(arrays):
    """Copies, and what they are the beginnings of."""
    whole = [np.full(array.size + GUARD, 7, np.float32) for array in arrays]
    for room, array in zip(whole, arrays, strict=True):
        room[: array.size] = array.reshape(-1)
    return [room[: array.size].reshape(array.shape) for room, array in zip(whole, arrays, strict=True)], whole


@pytest.mark.parametrize("density", [0.0, 0.13, 1.0])
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 63, 64, 65, 200])
@pytest.mark.parametrize("examples", [1, 20, adam_by_rows.MOST])
def test_rows_have_the_bits_of_the_dense_gradients_step(examples, outputs, density):
    weights, h, da = problem(examples, 9, outputs, density)
    want = [array.copy() for array in weights]
    assert dense(kernel(np.dtype("float32")), *want, h, da, CONSTANTS)
    got, whole = with_guards(weights)
    assert by_rows(*got, h, da, CONSTANTS)
    for array, wanted, room in zip(got, want, whole, strict=True):
        np.testing.assert_array_equal(array, wanted)
        np.testing.assert_array_equal(room[array.size :], np.float32(7), "what lies behind the end is not touched")


@pytest.mark.parametrize("place", [0, 70, 199, 200, 1799])
def test_a_number_that_is_none_is_noticed(place):
    weights, h, da = problem(20, 9, 200)
    weights[0].reshape(-1)[place] = np.nan
    assert not by_rows(*weights, h, da, CONSTANTS)
    assert np.flatnonzero(np.isnan(weights[0])).tolist() == [place]


def test_a_step_that_shares_out_its_weights_has_no_more_examples():
    assert FEW_SAMPLES <= adam_by_rows.MOST
