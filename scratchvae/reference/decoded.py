"""The decoder and the Bernoulli likelihood in one operation, where no gradient is wanted: log p(x|z) of given z, and
log-weights of samples of q(z|x)."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scratchvae.parameters import Network
from scratchvae.reference.bernoulli import bernoulli_log_likelihood_forward
from scratchvae.reference.gaussian import reparameterize_forward
from scratchvae.reference.network import network_forward
from scratchvae.reference.posterior import log_ratio_forward

TOGETHER = 1000  # samples decoded together at most, so that memory is bounded; results depend on it by rounding alone


def decoded_bernoulli_log_likelihood(x: NDArray, z: NDArray, network: Network) -> NDArray:
    """log p(x|z) of each sample under independent Bernoullis with the decoder's logits, in nats.

    Forward   log p_bk = sum_d (x_bd l_bkd - max(l_bkd, 0) - log(1 + exp(-|l_bkd|))), l = network(z)
    Takes     x (B, D) in [0, 1]; z (B, K, Z); network: the decoder
    Returns   log p (B, K)
    Source    Kingma, Welling 2013, appendix C.1, equation 11
    """
    log_likelihood = np.empty(z.shape[:2], network.flat.dtype)
    for rows, samples in pieces(z, TOGETHER):
        part = z[rows, samples]
        logits, _ = network_forward(part.reshape(-1, z.shape[2]), network)
        logits = logits.reshape(*part.shape[:2], x.shape[1])
        log_likelihood[rows, samples], _ = bernoulli_log_likelihood_forward(x[rows], logits)
    return log_likelihood


def decoded_bernoulli_log_weights(x: NDArray, head: NDArray, eps: NDArray, network: Network) -> NDArray:
    """log w = log p(x, z) - log q(z|x) of each sample z of a diagonal posterior, in nats.

    Forward   mu, logvar = head        z_bk = mu_b + exp(logvar_b / 2) eps_bk
              log w_bk = log p(x_b|z_bk) + 1/2 sum_j (logvar_bj + eps_bkj^2 - z_bkj^2): see `log_ratio_forward`
    Takes     x (B, D) in [0, 1]; head (B, 2 Z); eps (B, K, Z): standard normal noise; network: the decoder
    Returns   log w (B, K)
    Source    Burda, Grosse, Salakhutdinov 2015, equation 8
    """
    mu, logvar = np.split(head, 2, axis=1)
    z, _ = reparameterize_forward(mu, logvar, eps)
    log_ratio, _ = log_ratio_forward(logvar, eps, z)
    return decoded_bernoulli_log_likelihood(x, z, network) + log_ratio


def pieces(z: NDArray, together: int) -> Iterator[tuple[slice, slice]]:
    """Examples and samples of each part of z (B, K, Z): whole rows or a piece of one, at most `together` samples."""
    rows, samples, _ = z.shape
    width = min(samples, together)
    height = together // width
    for row in range(0, rows, height):
        for sample in range(0, samples, width):
            yield slice(row, row + height), slice(sample, sample + width)
