"""The activations: what they are, and that nothing overflows or hides a NaN."""

import warnings

import numpy as np
import pytest
from scipy.special import expit

from scratchvae import reference

NAMES = ("identity", "tanh", "relu", "sigmoid", "softplus")
FORMULAS = {
    "identity": lambda a: a,
    "tanh": lambda a: (np.exp(a) - np.exp(-a)) / (np.exp(a) + np.exp(-a)),
    "relu": lambda a: (a + np.abs(a)) / 2,
    "sigmoid": expit,
    "softplus": lambda a: np.logaddexp(0, a),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_activation_is_its_formula(ops, name):
    a = np.linspace(-8, 8, 101).reshape(1, -1)
    h, cache = getattr(ops, f"{name}_forward")(a)
    np.testing.assert_allclose(h, FORMULAS[name](a), rtol=1e-12, atol=1e-15)
    assert cache is h, "the output is all that the backward pass needs"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_an_activation_stays_finite_and_keeps_its_dtype_at_huge_arguments(ops, name, dtype):
    a = np.array([[-1e4, -1e3, -100, 0, 100, 1e3, 1e4]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        h, cache = getattr(ops, f"{name}_forward")(a)
        da = getattr(ops, f"{name}_backward")(np.ones_like(h), cache)
    for array in (h, da):
        assert array.dtype == dtype
        assert np.isfinite(array).all()
    if name in ("sigmoid", "tanh"):
        np.testing.assert_allclose(h[0, [0, -1]], [0 if name == "sigmoid" else -1, 1])
    if name == "softplus":
        np.testing.assert_allclose(h[0, [0, -1]], [0, 1e4])
        np.testing.assert_allclose(da[0, [0, -1]], [0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_gives_nan_out(ops, name):
    a = np.array([[np.nan, 1.0]])
    h, _ = getattr(ops, f"{name}_forward")(a)
    np.testing.assert_array_equal(np.isnan(h), np.isnan(a))


def test_relu_has_derivative_zero_at_zero(ops):
    h, cache = ops.relu_forward(np.array([[-1.0, 0.0, 1.0]]))
    np.testing.assert_array_equal(ops.relu_backward(np.full((1, 3), 5.0), cache), [[0, 0, 5]])
    np.testing.assert_array_equal(h, [[0, 0, 1]])


def test_the_derivative_of_softplus_is_the_sigmoid(ops):
    a = np.linspace(-30, 30, 61).reshape(1, -1)
    derivative = ops.softplus_backward(np.ones_like(a), ops.softplus_forward(a)[1])
    np.testing.assert_allclose(derivative, expit(a), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", NAMES)
def test_the_complex_step_passes_through(name):
    a = np.array([[-1.3, 0.4, 2.0]])
    h, cache = getattr(reference, f"{name}_forward")(a + 1e-30j)
    np.testing.assert_allclose(h.imag / 1e-30, getattr(reference, f"{name}_backward")(np.ones_like(a), cache).real)
