"""Denormal numbers are zero within a training step, and numbers again after it."""

import platform

import numpy as np
import pytest
from numba import njit, prange

import scratchvae as sv
from scratchvae.compiled import adam_update, network_backward, network_forward, network_gradient
from scratchvae.engine import get_threads, set_threads
from scratchvae.parameters import Parameters
from scratchvae.training import Trainer
from tests.compiled.test_step import Composed

on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors need no mode")
SMALL, LESS = {"float32": 1.2e-38, "float64": 2.3e-308}, 0.9  # the second of the first: below the smallest normal
EXAMPLES = {"few": 10, "many": 40, "many, in parallel": 400}  # whose threads share out weights, examples, or nothing


@njit(parallel=True)
def products(one, other, out):
    """In every thread."""
    for i in prange(out.size):
        out[i] = one[i] * other[i]


def products_are_numbers(dtype: str) -> bool:
    one, other = np.full(1000, SMALL[dtype], dtype), np.full(1000, LESS, dtype)
    out = np.zeros(1000, dtype)
    products(one, other, out)
    return bool((out > 0).all() and (one * other > 0).all())


@on_x86
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (Trainer, "float32"),
        pytest.param(Trainer, "float64", marks=pytest.mark.slow),  # whole steps take long to compile
        (Composed, "float32"),
        (Composed, "float64"),
    ],
)
def test_moments_of_a_black_pixel_do_not_linger_as_denormals(kind, dtype, examples, threads, made_by):
    if threads > get_threads():
        pytest.skip("one processor")
    set_threads(threads)
    rows = EXAMPLES[examples]
    vae = sv.VAE(37, 5, (150, 131), dtype=dtype)
    x = np.full((rows, 37), 255, np.uint8)
    x[:, 20:] = 0
    trainer = kind(vae, x, binarize="none")
    for moments in (trainer.first, trainer.second):
        moments.flat[...] = SMALL[dtype]
    trainer.step(np.arange(rows))
    assert made_by == ([threads] if kind is Trainer else [])
    assert (trainer.first["encoder.0.weight"][20:] == 0).all()
    assert (trainer.first["encoder.0.weight"][:20] != 0).any()
    assert products_are_numbers(dtype)


@pytest.mark.parametrize("rows", [3, 3000])
@pytest.mark.parametrize("dtype", SMALL)
def test_a_forward_pass_by_itself_computes_with_denormals(dtype, rows):
    """It may be that of an evaluation, whose numbers are what they are."""
    parameters = Parameters.zeros({"net.head.weight": (20, 30), "net.head.bias": (30,)}, dtype)
    parameters["net.head.weight"][...] = LESS
    out, _ = network_forward(np.full((rows, 20), SMALL[dtype] / 20, dtype), parameters.network("net", "tanh"))
    assert (out > 0).all()


PRODUCTS = {  # pixel and d loss / d output: normal numbers with a denormal product, a denormal with a normal one
    "float32": {"small": (1e-20, 5e-19), "of a small": (1e3, 5e-39)},
    "float64": {"small": (1e-160, 5e-149), "of a small": (1e3, 5e-309)},
}


@on_x86
@pytest.mark.parametrize("rows", [3, 3000])
@pytest.mark.parametrize("name", ["small", "of a small"])
@pytest.mark.parametrize("dtype", SMALL)
def test_a_gradient_takes_denormals_for_zero_whether_they_come_or_go(dtype, name, rows):
    parameters = Parameters.zeros({"net.head.weight": (20, 30), "net.head.bias": (30,)}, dtype)
    gradient, network = parameters.zeros_like(), parameters.network("net", "tanh")
    pixel, slope = PRODUCTS[dtype][name]
    assert np.array(pixel, dtype) * np.array(slope, dtype) > 0, "a number without the mode"
    _, cache = network_forward(np.full((rows, 20), pixel, dtype), network)
    _, deltas = network_backward(np.full((rows, 30), slope, dtype), cache, network)
    gradient["net.head.weight"][...] = 1
    network_gradient(deltas, gradient.network("net", "tanh"))
    assert (gradient["net.head.weight"] == 0).all()
    assert products_are_numbers(dtype)


@on_x86
@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.parametrize("dtype", SMALL)
def test_adam_leaves_no_denormals(dtype, size):
    parameters, first, second = np.ones((3, size), dtype)
    first[...] = SMALL[dtype]
    adam_update(parameters, np.zeros(size, dtype), first, second, 1, 1e-3)
    assert (first == 0).all()
    assert (second > 0).all()
    assert products_are_numbers(dtype)
