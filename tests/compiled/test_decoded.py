"""The decoder and the Bernoulli likelihood in one operation, at the sizes and values where it could go wrong."""

import numpy as np
import pytest

import scratchvae as sv
from scratchvae.engine import get_engine, get_threads, set_threads

compiled, reference = get_engine("compiled"), get_engine("reference")


def case(dtype: str, width: int = 300, rows: int = 5, samples: int = 41, scale: float = 1.0):
    rng = np.random.default_rng(2)
    vae = sv.VAE(width, 4, hidden=(200,), activation="tanh", dtype=dtype, seed=3)
    vae.parameters["decoder.head.weight"][...] *= scale
    x = (rng.random((rows, width)) < 0.3).astype(dtype)
    return x, rng.standard_normal((rows, samples, 4)).astype(dtype), vae.networks["decoder"]


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 2e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("width", [1, 127, 128, 129, 784, 128 * 64 + 5])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_it_is_the_composition_for_any_width_and_saturated_logits(dtype, rtol, width, scale):
    arguments = case(dtype, width, samples=3, scale=scale)
    got, want = (ops.decoded_bernoulli_log_likelihood(*arguments) for ops in (compiled, reference))
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.abs(want).max())


def test_a_nan_is_seen_in_its_sample_alone():
    x, z, network = case("float32")
    z[2, 7, 1] = np.nan
    got = compiled.decoded_bernoulli_log_likelihood(x, z, network)
    want = reference.decoded_bernoulli_log_likelihood(x, z, network)
    assert np.isnan(got[2, 7])
    np.testing.assert_allclose(np.delete(got.ravel(), 2 * 41 + 7), np.delete(want.ravel(), 2 * 41 + 7), rtol=1e-5)


def test_threads_and_neighbours_change_no_bit():
    x, z, network = case("float32", width=784, rows=30)
    if get_threads() < 2:
        pytest.skip("one processor")
    whole = compiled.decoded_bernoulli_log_likelihood(x, z, network)
    before = get_threads()
    set_threads(1)
    np.testing.assert_array_equal(compiled.decoded_bernoulli_log_likelihood(x, z, network), whole)
    set_threads(before)
    alone = np.concatenate(
        [compiled.decoded_bernoulli_log_likelihood(x[b : b + 1], z[b : b + 1], network) for b in range(30)]
    )
    np.testing.assert_array_equal(alone, whole)
