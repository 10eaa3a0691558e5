"""The fused passes where the walk over all twins does not go: sizes split between threads, uint8 data, edges."""

import numpy as np
import pytest

from scratchvae import compiled, reference
from scratchvae.compiled import (
    bernoulli,
    categorical,
    continuous_bernoulli,
    discretised_logistic,
    gather,
    gaussian_likelihood,
)
from scratchvae.compiled import poisson as compiled_poisson
from scratchvae.engine import get_threads, set_threads
from scratchvae.reference.gaussian import LOG_2_PI

LARGE = (300, 2, 784)  # enough for every operation to be split


@pytest.fixture
def on_one_and_two_threads():
    """Calls a function on one thread and on two."""
    if get_threads() < 2:
        pytest.skip("one processor")

    def call(function):
        results = []
        for threads in (1, 2):
            set_threads(threads)
            results.append(function())
        return results

    return call


def case(dtype, shape=LARGE):
    rng = np.random.default_rng(0)
    b, k, d = shape
    x = (rng.random((b, d)) < 0.3).astype(dtype)
    return x, (4 * rng.normal(size=shape)).astype(dtype), rng.normal(size=(b, k)).astype(dtype)


LIKELIHOODS = {
    "bernoulli_log_likelihood": lambda dtype, d: (),
    "unit_gaussian_log_likelihood": lambda dtype, d: (),
    "gaussian_log_likelihood": lambda dtype, d: (np.linspace(-1, 1, d).astype(dtype),),
    "continuous_bernoulli_log_likelihood": lambda dtype, d: (),
    "discretised_logistic_log_likelihood": lambda dtype, d: (np.linspace(-3, 1, d).astype(dtype),),
    "categorical_log_likelihood": lambda dtype, d: (np.arange(0, d, 5),),
    "poisson_log_likelihood": lambda dtype, d: (),
}


def run(ops, name, dtype, shape=LARGE, rows=slice(None)):
    x, out, upstream = (array[rows] for array in case(dtype, shape))
    value, cache = getattr(ops, f"{name}_forward")(x, out, *LIKELIHOODS[name](dtype, shape[2]))
    gradients = getattr(ops, f"{name}_backward")(upstream, cache)
    return value, *(gradients if isinstance(gradients, tuple) else (gradients,))


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_large_batch_agrees_with_the_reference(name):
    for got, want in zip(run(compiled, name, np.float32), run(reference, name, np.float32), strict=True):
        np.testing.assert_allclose(got, want, rtol=3e-5, atol=3e-5 * np.abs(want).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_threads_change_no_bit_of_a_likelihood(name, on_one_and_two_threads):
    for one, two in zip(*on_one_and_two_threads(lambda: run(compiled, name, np.float32)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("d", [1, 15, 64, 77])
def test_a_row_has_the_same_bits_alone_as_in_a_batch(name, d):
    shape = (40, 3, d)
    value, dout, *_ = run(compiled, name, np.float32, shape)
    for b in (0, 17, 39):
        alone_value, alone_dout, *_ = run(compiled, name, np.float32, shape, slice(b, b + 1))
        np.testing.assert_array_equal(alone_value[0], value[b])
        np.testing.assert_array_equal(alone_dout[0], dout[b])


def test_binary_pixels_may_stay_uint8():
    x, logits, _ = case(np.float32, (5, 2, 33))
    want, want_cache = compiled.bernoulli_log_likelihood_forward(x, logits)
    got, cache = compiled.bernoulli_log_likelihood_forward(x.astype(np.uint8), logits)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(cache.derivative, want_cache.derivative)


def test_a_saturated_logit_costs_itself_and_nothing_where_it_is_right():
    logits = np.array([20, 1e3, 1e3, -1e3, -1e3], np.float32)[:, None, None]
    x = np.array([0, 0, 1, 0, 1], np.float32)[:, None]
    value, cache = compiled.bernoulli_log_likelihood_forward(x, logits)
    np.testing.assert_array_equal(value[:, 0], np.array([-20, -1e3, 0, 0, -1e3], np.float32))
    np.testing.assert_array_equal(cache.derivative[:, 0, 0], np.array([-1, -1, 0, 0, 1], np.float32))


def test_a_backward_pass_can_be_taken_twice():
    x, logits, upstream = case(np.float32, (5, 2, 33))
    _, cache = compiled.bernoulli_log_likelihood_forward(x, logits)
    first = compiled.bernoulli_log_likelihood_backward(upstream, cache)
    np.testing.assert_array_equal(compiled.bernoulli_log_likelihood_backward(upstream, cache), first)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [3, 500])
def test_gathered_rows_have_the_references_bits(dtype, batch):
    rng = np.random.default_rng(0)
    pixels = np.tile(np.arange(256, dtype=np.uint8), (70, 3))
    rows = rng.integers(0, 70, batch)
    np.testing.assert_array_equal(compiled.gather_rows(pixels, rows, dtype), reference.gather_rows(pixels, rows, dtype))
    floats = rng.normal(size=(70, 33))
    np.testing.assert_array_equal(compiled.gather_rows(floats, rows, dtype), reference.gather_rows(floats, rows, dtype))


def test_rows_outside_the_data_are_not_gathered():
    for row in (-4, 3):
        with pytest.raises(IndexError):
            compiled.gather_rows(np.zeros((3, 2), np.uint8), np.array([row]), np.float32)


def test_threads_change_no_bit_of_adam(on_one_and_two_threads):
    def update():
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=300_001).astype(np.float32) for _ in range(3)]
        arrays.append(np.square(arrays[0]))
        compiled.adam_update(*arrays, 3, 0.01)
        return arrays

    for one, two in zip(*on_one_and_two_threads(update), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_fused_posterior_is_the_draw_and_the_kl_of_their_own_functions():
    rng = np.random.default_rng(0)
    head, eps = rng.normal(size=(9, 14)), rng.normal(size=(9, 3, 7))
    mu, logvar = head[:, :7], head[:, 7:]
    z, kl, cache = compiled.posterior_forward(head, eps)
    draw, draw_cache = compiled.reparameterize_forward(mu, logvar, eps)
    cost, cost_cache = compiled.kl_to_prior_forward(mu, logvar)
    np.testing.assert_allclose(z, draw, rtol=1e-14)
    np.testing.assert_allclose(kl, cost, rtol=1e-14)
    dz, dkl = rng.normal(size=z.shape), rng.normal(size=kl.shape)
    gradients = zip(
        compiled.reparameterize_backward(dz, draw_cache), compiled.kl_to_prior_backward(dkl, cost_cache), strict=True
    )
    want = np.concatenate([of_draw + of_kl for of_draw, of_kl in gradients], axis=1)
    np.testing.assert_allclose(compiled.posterior_backward(dz, dkl, cache), want, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_sum_exp_at_its_edges(dtype):
    impossible, nan = -np.inf, np.nan
    a = [[impossible] * 3, [0, impossible, impossible], [1e4, 1e4, -1e4], [nan, 0, 1], [0, nan, 1]]
    a = np.array([*a, [impossible, nan, impossible]], dtype)
    for got, want in zip(compiled.log_sum_exp_forward(a), reference.log_sum_exp_forward(a), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_thread_may_start_at_any_example():
    rng = np.random.default_rng(0)
    x, log_rate = rng.poisson(3.0, (5, 7)).astype(float), rng.normal(size=(5, 2, 7))
    want, _ = compiled.poisson_log_likelihood_forward(x, log_rate)
    for first in range(10):
        value, derivative = np.zeros((5, 2)), np.empty(log_rate.shape)
        compiled_poisson._rows(x, log_rate, value, derivative, first, first + 1)
        np.testing.assert_allclose(value.reshape(-1)[first], want.reshape(-1)[first], rtol=1e-12)


def with_room(array, rows=3):
    """The array as the beginning of a larger one that goes on with `rows` more, and the larger one."""
    larger = np.zeros((len(array) + rows, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger[: len(array)], larger


RNG = np.random.default_rng(0)
X, OUT = (RNG.random((5, 9)) < 0.4).astype(np.float32), RNG.normal(size=(5, 2, 9)).astype(np.float32)
PER_DIMENSION, SCALE, UPSTREAM = np.linspace(1, 2, 9, dtype=np.float32), np.float32(255), OUT[:, :, 0].copy()
VALUE, LIKE = np.empty((5, 2), np.float32), np.empty_like(OUT)
SPLIT = {  # operation -> its arguments, and those of its parallel loop: inputs, then arrays to be filled
    "bernoulli_log_likelihood_forward": (bernoulli._rows_parallel, (X, OUT), (X, OUT), (VALUE, LIKE)),
    "categorical_log_likelihood_forward": (
        categorical._rows_parallel, (X, OUT, np.array([0, 4])), (X, OUT, np.array([0, 4, 9])), (VALUE, LIKE),
    ),
    "continuous_bernoulli_log_likelihood_forward": (
        continuous_bernoulli._rows_parallel,
        (X, OUT), (X, OUT, continuous_bernoulli.SERIES[np.dtype("float32")]), (VALUE, LIKE),
    ),
    "poisson_log_likelihood_forward": (compiled_poisson._rows_parallel, (X, OUT), (X, OUT), (VALUE, LIKE)),
    "unit_gaussian_log_likelihood_forward": (
        gaussian_likelihood._rows_parallel,
        (X, OUT), (X, OUT, np.ones(9, np.float32), np.float32(9 * LOG_2_PI)), (LIKE, VALUE),
    ),
    "discretised_logistic_log_likelihood_forward": (
        discretised_logistic._rows_parallel,
        (X, OUT, PER_DIMENSION),
        (X, OUT, 0.5 / 255, discretised_logistic._of_scale(PER_DIMENSION, 0.5 / 255, 9, np.dtype("float32"))),
        (VALUE, LIKE, LIKE),
    ),
    "standard_normal_log_density_backward": (
        bernoulli._scale_rows_parallel, (UPSTREAM, OUT), (-UPSTREAM, OUT), (LIKE,),
    ),
    "gather_rows": (
        gather._gather_parallel,
        (np.arange(256, dtype=np.uint8).reshape(32, 8), np.arange(5, 0, -1), np.float32),
        (np.arange(256, dtype=np.uint8).reshape(32, 8), np.arange(5, 0, -1), SCALE), (np.empty((5, 8), np.float32),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_slices_fill_every_row_and_nothing_behind_the_last(name, slices):
    loop, arguments, inputs, outputs = SPLIT[name]
    got = getattr(compiled, name)(*arguments)
    value, cache = got if isinstance(got, tuple) else (got, ())
    wants = {array.shape: array for array in (value, *cache) if isinstance(array, np.ndarray)}
    filled = [with_room(array) for array in outputs]
    loop(*inputs, *(array for array, _ in filled), slices)
    np.testing.assert_array_equal(filled[-1 if name.startswith("unit") else 0][0], wants[value.shape])
    for array, larger in filled:
        assert not larger[len(array) :].any()
        assert array.any(axis=tuple(range(1, array.ndim))).all()
