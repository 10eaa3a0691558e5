"""The decoder and the likelihood in one operation are the two in turn, however many samples are decoded together."""

import numpy as np
import pytest

from scratchvae.parameters import Parameters
from scratchvae.reference import decoded

EXAMPLES, SAMPLES, LATENT, PIXELS = 5, 7, 3, 4


@pytest.fixture
def decoder():
    rng, shapes = np.random.default_rng(0), {}
    for name, inputs, outputs in (("0", LATENT, 6), ("head", 6, PIXELS)):
        shapes |= {f"decoder.{name}.weight": (inputs, outputs), f"decoder.{name}.bias": (outputs,)}
    parameters = Parameters.zeros(shapes, np.float64)
    for array in parameters.values():
        array[...] = rng.normal(size=array.shape)
    return parameters.network("decoder", "tanh")


@pytest.fixture
def rows():
    rng = np.random.default_rng(1)
    return (rng.random((EXAMPLES, PIXELS)) < 0.4).astype(float), rng.normal(size=(EXAMPLES, SAMPLES, LATENT))


def log_likelihood(ops, x, z, decoder):
    """The two operations on every sample."""
    logits, _ = ops.network_forward(z.reshape(-1, LATENT), decoder)
    return ops.bernoulli_log_likelihood_forward(x, logits.reshape(EXAMPLES, SAMPLES, PIXELS))[0]


@pytest.mark.parametrize("together", [1, 3, SAMPLES, 2 * SAMPLES + 1, 1000])
def test_a_likelihood_is_that_of_the_decoders_logits(ops, decoder, rows, together, monkeypatch):
    monkeypatch.setattr(decoded, "TOGETHER", together)
    want = log_likelihood(ops, *rows, decoder)
    np.testing.assert_allclose(ops.decoded_bernoulli_log_likelihood(*rows, decoder), want, rtol=1e-12)


def test_log_weights_are_those_of_samples_of_the_posterior(ops, decoder, rows):
    x, eps = rows
    head = np.random.default_rng(2).normal(size=(EXAMPLES, 2 * LATENT))
    mu, logvar = head[:, None, :LATENT], head[:, None, LATENT:]
    z = mu + np.exp(logvar / 2) * eps
    log_prior, log_q = -0.5 * (z**2).sum(2), -0.5 * (logvar + eps**2).sum(2)  # both less Z/2 log(2 pi)
    want = log_likelihood(ops, x, z, decoder) + log_prior - log_q
    np.testing.assert_allclose(ops.decoded_bernoulli_log_weights(x, head, eps, decoder), want, rtol=1e-12)
