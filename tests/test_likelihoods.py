"""What the decoder's output means."""

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import reference
from scratchvae.likelihoods import LIKELIHOODS, Draws
from tests.cases import LIKELIHOOD_NAMES, build


@pytest.mark.parametrize("name", LIKELIHOOD_NAMES)
def test_the_output_bias_is_the_one_that_the_gradient_asks_for(name):
    vae, x, eps = build(likelihood=name, rows=40, samples=1)
    vae.parameters["decoder.head.weight"][...] = 0
    vae.set_output_bias(x.mean(axis=0))
    _, gradients = vae.value_and_grad(x, eps)
    assert np.abs(gradients["decoder.head.bias"]).max() < 1e-12, "with a constant decoder the mean is the best constant"


@pytest.mark.parametrize("name", LIKELIHOOD_NAMES)
def test_the_mean_is_the_mean_of_the_draws(name):
    likelihood = LIKELIHOODS[name]
    out = np.repeat(np.random.default_rng(0).normal(size=(1, 6)), 40_000, axis=0)
    parameters = {"likelihood.logvar": np.full(1, -1.0)}
    draws = likelihood.draw(reference, out, parameters, Draws(seed=1, examples=np.arange(40_000)))
    assert draws.dtype == out.dtype
    np.testing.assert_allclose(draws.mean(axis=0), likelihood.mean(reference, out)[0], atol=0.03)


def test_unit_variance_is_the_learned_variance_at_its_start():
    fixed, x, eps = build(likelihood="gaussian")
    learned = sv.VAE(5, 2, (4,), "gaussian-learned", "tanh", "float64", "reference")
    for name, array in fixed.parameters.items():
        learned.parameters[name][...] = array
    np.testing.assert_allclose(learned.elbo(x, eps).elbo, fixed.elbo(x, eps).elbo, rtol=1e-13)


def test_only_a_bernoulli_asks_for_values_between_0_and_1():
    assert [name for name in LIKELIHOOD_NAMES if LIKELIHOODS[name].unit_interval] == ["bernoulli"]
    vae, _, eps = build(likelihood="gaussian")
    assert np.isfinite(vae.elbo(np.full((3, 5), -7.0), eps).elbo).all()


def test_pixels_that_are_impossible_under_the_model_are_never_drawn():
    vae, _, _ = build()
    vae.parameters["decoder.head.weight"][...] = 0
    vae.parameters["decoder.head.bias"][:] = [1e3, -1e3, 1e3, -1e3, 1e3]
    np.testing.assert_array_equal(vae.sample(1000), np.repeat([[1, 0, 1, 0, 1]], 1000, axis=0))
