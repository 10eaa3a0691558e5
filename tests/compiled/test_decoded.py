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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_any_number_of_factors_stay_finite(dtype):
    """Every factor is 2 where all logits are 0, and so many of them would overflow a float32."""
    x, z, network = case(dtype, width=128 * 200, rows=2, samples=3, scale=0.0)
    network.layers[-1].bias[...] = 0
    got = compiled.decoded_bernoulli_log_likelihood(x, z, network)
    np.testing.assert_allclose(got, np.full((2, 3), -128 * 200 * np.log(2)), rtol=1e-6)


def head(dtype: str) -> np.ndarray:
    """Of five examples: mu, then logvar from -30 to 10."""
    rng = np.random.default_rng(4)
    return np.concatenate([rng.standard_normal((5, 4)), rng.uniform(-30, 10, (5, 4))], axis=1).astype(dtype)


@pytest.mark.parametrize("ops", [compiled, reference])
def test_log_weights_are_the_joint_density_over_the_posterior(ops):
    x, eps, network = case("float64")
    mu, logvar = np.split(head("float64"), 2, axis=1)
    z, _ = reference.reparameterize_forward(mu, logvar, eps)
    log_prior, _ = reference.standard_normal_log_density_forward(z)
    log_posterior, _ = reference.gaussian_log_density_forward(z, mu, logvar)
    want = reference.decoded_bernoulli_log_likelihood(x, z, network) + log_prior - log_posterior
    got = ops.decoded_bernoulli_log_weights(x, head("float64"), eps, network)
    np.testing.assert_allclose(got, want, rtol=1e-11)


def test_log_weights_of_float32_are_those_of_float64_to_its_rounding():
    results = []
    for dtype in ("float32", "float64"):
        x, eps, network = case(dtype)
        results.append(compiled.decoded_bernoulli_log_weights(x, head(dtype), eps, network))
    assert results[0].dtype == np.float32
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_pixels_may_be_bytes_and_no_array_need_be_contiguous():
    x, z, network = case("float32")
    for operation, of_model in (("likelihood", ()), ("weights", (head("float32"),))):
        function = getattr(compiled, f"decoded_bernoulli_log_{operation}")
        want = function(x, *of_model, z, network)
        scattered = (np.repeat(array, 2, axis=-1)[..., ::2] for array in (x.astype(np.uint8), *of_model, z))
        np.testing.assert_array_equal(function(*scattered, network), want)


def test_a_nan_is_seen_in_its_sample_alone():
    x, z, network = case("float32")
    z[2, 7, 1] = np.nan
    got = compiled.decoded_bernoulli_log_likelihood(x, z, network)
    want = reference.decoded_bernoulli_log_likelihood(x, z, network)
    assert np.isnan(got[2, 7])
    np.testing.assert_allclose(np.delete(got.ravel(), 2 * 41 + 7), np.delete(want.ravel(), 2 * 41 + 7), rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_seen_behind_a_unit_that_relu_has_switched_off(layer, value):
    """Zeros are skipped, and 0 x NaN is NaN: a layer's weights are looked at once for all samples."""
    vae = sv.VAE(90, 4, hidden=(100, 80), activation="relu", seed=3)
    biases, weights = (
        [vae.parameters[f"decoder.{name}.{kind}"] for name in ("0", "1", "head")] for kind in ("bias", "weight")
    )
    biases[layer - 1][7] = -1000
    x, z = np.zeros((5, 90), np.float32), np.random.default_rng(1).standard_normal((5, 41, 4)).astype(np.float32)
    assert np.isfinite(compiled.decoded_bernoulli_log_likelihood(x, z, vae.networks["decoder"])).all()
    weights[layer][7, 3] = value
    assert np.isnan(compiled.decoded_bernoulli_log_likelihood(x, z, vae.networks["decoder"])).all()


def decoded(x, z, network):
    return compiled.decoded_bernoulli_log_likelihood(x, z, network)


def weighed(x, eps, network):
    head = np.random.default_rng(5).standard_normal((30, 8)).astype("float32")
    return compiled.decoded_bernoulli_log_weights(x, head[: len(x)], eps, network)


@pytest.mark.parametrize("operation", [decoded, weighed])
def test_threads_change_no_bit(operation):
    if get_threads() < 2:
        pytest.skip("one processor")
    arguments = case("float32", width=784, rows=30)
    whole = operation(*arguments)
    set_threads(1)
    np.testing.assert_array_equal(operation(*arguments), whole)


@pytest.mark.parametrize("operation", [decoded, weighed])
def test_examples_that_come_after_change_no_bit(operation):
    """Nor where a sample stands among those that are decoded together."""
    x, z, network = case("float32", width=784, rows=30)
    np.testing.assert_array_equal(operation(x[:7], z[:7], network), operation(x, z, network)[:7])


def test_examples_that_come_before_change_no_bit():
    x, z, network = case("float32", width=784, rows=30)
    alone = np.concatenate([decoded(x[b : b + 1], z[b : b + 1], network) for b in range(30)])
    np.testing.assert_array_equal(alone, decoded(x, z, network))


@pytest.mark.parametrize(
    ("x", "z", "message"),
    [
        ((4, 11), (4, 2, 3), r"x has 11 columns, shape \(4, 11\); expected 12"),
        ((4, 12), (4, 2, 4), r"z has 4 columns, shape \(4, 2, 4\); expected 3"),
        ((3, 12), (4, 2, 3), "there are 3 rows of x and 4 of z; expected as many"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, z, message):
    """The kernels would read what stands beside an array, or score some of the pixels."""
    vae = sv.VAE(12, 3, hidden=(5,))
    with pytest.raises(ValueError, match=f"^{message}$"):
        vae.log_likelihood(np.zeros(x, np.float32), np.zeros(z, np.float32))
