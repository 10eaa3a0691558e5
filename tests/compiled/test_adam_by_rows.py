"""Adam row by row, on weights of inputs that are mostly zero: the bits of the dense product and Adam behind it."""

import numpy as np
import pytest
from numba import njit

from scratchvae.compiled import adam_by_estimates, adam_by_rows
from scratchvae.compiled.denormals import FLUSH, mode, set_mode
from scratchvae.compiled.gemm import kernel, product
from scratchvae.compiled.network import weight_sums
from scratchvae.compiled.simd import SIMD

pytestmark = pytest.mark.skipif(SIMD.name != "avx512", reason="the estimates are those of 512 bits")
CONSTANTS = np.array([0.1, 0.999, 0.001, 1e-3, 1e-8], np.float32)
GUARD = 20  # elements behind the arrays' ends


@njit(error_model="numpy")
def by_rows(p, m, v, h, da, shared, constants):
    before = mode()
    set_mode(before | FLUSH)
    flat, first, second = p.reshape(p.size), m.reshape(m.size), v.reshape(v.size)
    finite = adam_by_rows.update_by_rows(flat, 0, h, da, shared, first, second, constants)
    set_mode(before)
    return finite


@njit(error_model="numpy")
def dense(kernel, p, m, v, h, da, constants):
    before, gradient = mode(), np.empty(p.shape, p.dtype)
    set_mode(before | FLUSH)
    product(kernel, h.T, da, da[0, :0], gradient, 0)
    finite = adam_by_estimates.update(p.reshape(-1), gradient.reshape(-1), m.reshape(-1), v.reshape(-1), constants)
    set_mode(before)
    return finite


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


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.13, 1.0])
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 63, 64, 65, 200])
@pytest.mark.parametrize("examples", [1, 20, adam_by_rows.MOST])
def test_rows_have_the_bits_of_the_dense_gradients_step(examples, outputs, density, shared):
    weights, h, da = problem(examples, 9, outputs, density)
    want = [array.copy() for array in weights]
    assert dense(kernel(np.dtype("float32")), *want, h, da, CONSTANTS)
    got, whole = with_guards(weights)
    assert by_rows(*got, h, da, shared, CONSTANTS)
    for array, wanted, room in zip(got, want, whole, strict=True):
        np.testing.assert_array_equal(array, wanted)
        np.testing.assert_array_equal(room[array.size :], np.float32(7), "what lies behind the end is not touched")


@pytest.mark.parametrize("place", [0, 70, 199, 200, 1799])
def test_a_number_that_is_none_is_noticed(place):
    weights, h, da = problem(20, 9, 200)
    weights[0].reshape(-1)[place] = np.nan
    assert not by_rows(*weights, h, da, False, CONSTANTS)
    assert np.flatnonzero(np.isnan(weights[0])).tolist() == [place]


@njit
def sums(kernel, flat, h, da, first, second, constants):
    return weight_sums(kernel, flat, 0, h, da, ((0, len(h)),), True, False, first, second, constants)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_delta_that_is_no_number_reaches_the_weights_of_black_pixels_too(bad):
    """Zero times infinity is no number: nothing may be skipped."""
    (p, m, v), h, da = problem(20, 9, 30)
    h[:, 4], da[3, 7] = 0, bad
    flat, first, second = (array.reshape(-1).copy() for array in (p, m, v))
    assert not sums(kernel(np.dtype("float32")), flat, h, da, first, second, CONSTANTS)
    assert np.isnan(flat.reshape(p.shape)[4, 7])
    assert np.isfinite(np.delete(flat.reshape(p.shape), 7, axis=1)).all()


def test_without_constants_of_adam_the_gradient_is_left_as_it_is():
    (p, m, v), h, da = problem(20, 9, 30)
    want = np.empty((9, 30), np.float32)
    product(kernel(np.dtype("float32")), h.T, da, da[0, :0], want, 0)
    gradient = p.reshape(-1).copy()
    sums(kernel(np.dtype("float32")), gradient, h, da, m.reshape(-1), v.reshape(-1), CONSTANTS[:0])
    np.testing.assert_array_equal(gradient.reshape(want.shape), want)
