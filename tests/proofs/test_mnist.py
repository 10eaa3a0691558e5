"""Long proofs on real data: what the published numbers promise."""

import numpy as np
import pytest

import scratchvae as sv

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(mnist_files):
    """784-400-20, five epochs, dynamic binarization."""
    from scratchvae.data import load

    mnist = load("mnist", data_dir=mnist_files)
    vae = sv.VAE(784, 20, (400,))
    history = sv.fit(
        vae, mnist.train, epochs=5, batch_size=100, learning_rate=1e-3, binarize="dynamic", validation=mnist.held_out,
        progress=False,
    )  # fmt: skip
    return vae, mnist, history


def test_five_epochs_of_mnist_reach_a_held_out_elbo_above_minus_110_nats(trained):
    _, _, history = trained
    held_out = history.epochs[-1]["validation"]
    assert held_out["elbo"] > -110
    assert held_out["standard_error"] < 0.5
    assert history["validation.elbo"] == sorted(history["validation.elbo"])


def test_the_evidence_of_mnist_lies_above_its_elbo_and_rises_with_the_samples(trained):
    vae, mnist, _ = trained
    x = (mnist.held_out[:200] > 127).astype(np.float32)
    few, many = (sv.log_evidence(vae, x, num_samples=k).log_evidence.mean() for k in (1, 1000))
    eps = np.random.default_rng(0).normal(size=(200, 20, 20))
    assert vae.elbo(x, eps).elbo.mean() < many
    assert few < many


def test_the_reference_engine_gives_the_same_held_out_elbo(trained):
    vae, mnist, _ = trained
    twin = vae.with_parameters(vae.parameters.copy(), engine="reference")
    x, eps = mnist.held_out[:500], np.random.default_rng(0).normal(size=(500, 1, 20))
    np.testing.assert_allclose(vae.elbo(x, eps).elbo, twin.elbo(x, eps).elbo, rtol=1e-4)
