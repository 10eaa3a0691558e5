"""log p(x|z) from z in one operation: the decoder, then the Bernoulli likelihood, where no gradient is wanted."""

import numpy as np
from numpy.typing import NDArray

from scratchvae.parameters import Network
from scratchvae.reference.bernoulli import bernoulli_log_likelihood_forward
from scratchvae.reference.network import network_forward

TOGETHER = 1000  # samples decoded together, so that memory is bounded; results do not depend on it


def decoded_bernoulli_log_likelihood(x: NDArray, z: NDArray, network: Network) -> NDArray:
    """log p(x|z) of each sample under independent Bernoullis with the decoder's logits, in nats.

    Forward   log p_bk = sum_d (x_bd l_bkd - softplus(l_bkd)), l = network(z)
    Takes     x (B, D) in [0, 1]; z (B, K, Z); network: the decoder
    Returns   log p (B, K)
    """
    (_, samples, latent), step = z.shape, max(1, TOGETHER // z.shape[1])
    log_likelihood = np.empty(z.shape[:2], network.flat.dtype)
    for rows in (slice(start, start + step) for start in range(0, len(x), step)):
        logits, _ = network_forward(z[rows].reshape(-1, latent), network)
        logits = logits.reshape(len(x[rows]), samples, x.shape[1])
        log_likelihood[rows], _ = bernoulli_log_likelihood_forward(x[rows], logits)
    return log_likelihood
