"""Which models can be exported: one layer of latent variables, and a diagonal Gaussian for q(z|x)."""

from scratchvae.posteriors import check_diagonal
from scratchvae.vae import VAE


def check_plain(vae: VAE) -> None:
    """Raises ValueError, one line, for two stochastic layers or a posterior that is not diagonal."""
    vae.check_one_layer()
    check_diagonal(vae.posterior, "export")
