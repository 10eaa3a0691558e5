"""What is known about the importance-weighted gradient: more samples help the decoder and drown the encoder."""

import numpy as np
import pytest

import scratchvae as sv

pytestmark = pytest.mark.slow

DIM = 4
ROWS = 20_000


def signal_to_noise(samples, repeats=5):
    """|mean| / standard deviation over draws of one example's gradient, averaged over coordinates, for both networks.

    The model: z ~ N(0, I), x|z ~ N(z, I), so that p(z|x) = N(x/2, I/2); the encoder is N(x/2 + 0.3, 2/3 I)
    """
    vae = sv.VAE(DIM, DIM, (), "gaussian", "identity", "float64", "reference")
    vae.parameters["encoder.head.weight"][...] = np.concatenate([np.eye(DIM) / 2, np.zeros((DIM, DIM))], axis=1)
    vae.parameters["encoder.head.bias"][:] = np.repeat([0.3, np.log(2 / 3)], DIM)
    vae.parameters["decoder.head.weight"][...] = np.eye(DIM)
    x = np.repeat(np.linspace(-1, 1, DIM)[None], ROWS // samples, axis=0)
    rng, encoder, decoder = np.random.default_rng(samples), [], []
    for _ in range(repeats * samples):
        eps = rng.normal(size=(len(x), samples, DIM))
        _, deltas = vae.terms_and_deltas(x, eps, sv.IWAE(samples))
        encoder.append(deltas.networks["encoder"].das[-1][:, :DIM])  # d loss / d mu of a row, as of the bias
        decoder.append(deltas.networks["decoder"].das[-1].reshape(len(x), samples, DIM).sum(axis=1))
    return [np.mean(abs(g.mean(axis=0)) / g.std(axis=0)) for g in (np.concatenate(encoder), np.concatenate(decoder))]


def test_signal_to_noise_falls_with_samples_for_the_encoder_and_rises_for_the_decoder():
    """As 1/sqrt(K) and sqrt(K): Rainforth et al. 2018, theorem 1."""
    (encoder_few, decoder_few), (encoder_many, decoder_many) = signal_to_noise(8), signal_to_noise(128)
    assert encoder_few / encoder_many == pytest.approx(4, rel=0.35)
    assert decoder_many / decoder_few == pytest.approx(4, rel=0.15)
