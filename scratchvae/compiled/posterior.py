"""Twin of `reference.posterior`: the draw and the KL, and their gradients, in one pass each."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scratchvae.compiled.gaussian import standard_normal_log_density_backward
from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.vector_math import exp, expm1_and_excess, sum_row


class PosteriorCache(NamedTuple):
    head: NDArray  # (B, 2 Z): mu, logvar
    std: NDArray  # (B, Z)
    eps: NDArray  # (B, K, Z)


@njit(**KERNEL)
def _forward(head, eps, std, z, kl):
    """The exponentials run over all examples at once: a row of Z is often shorter than a vector."""
    half, latent = head.dtype.type(0.5), std.shape[1]
    terms = np.empty(latent, head.dtype)
    for b in range(std.shape[0]):
        for j in range(latent):
            std[b, j] = half * head[b, latent + j]
    flat_std = std.reshape(std.size)
    for i in range(flat_std.size):
        flat_std[i] = exp(flat_std[i])
    for b in range(std.shape[0]):
        for j in range(latent):
            mu, logvar, sigma = head[b, j], head[b, latent + j], std[b, j]
            _, excess = expm1_and_excess(logvar, sigma * sigma)
            terms[j] = mu * mu + excess
        kl[b] = half * sum_row(terms)
        for k in range(eps.shape[1]):
            for j in range(latent):
                z[b, k, j] = head[b, j] + std[b, j] * eps[b, k, j]


def posterior_forward(head: NDArray, eps: NDArray) -> tuple[NDArray, NDArray, PosteriorCache]:
    """See `reference.posterior.posterior_forward`."""
    head, eps = np.ascontiguousarray(head), np.ascontiguousarray(eps, head.dtype)
    std = np.empty((len(head), eps.shape[2]), head.dtype)
    z, kl = np.empty(eps.shape, head.dtype), np.empty(len(head), head.dtype)
    _forward(head, eps, std, z, kl)
    return z, kl, PosteriorCache(head, std, eps)


@njit(**KERNEL)
def _backward(dz, dkl, head, std, eps, dhead):
    """dhead first gathers d mu of the draw and d std; then both uses of mu and of logvar are summed."""
    half, latent = head.dtype.type(0.5), std.shape[1]
    for b in range(std.shape[0]):
        for j in range(2 * latent):
            dhead[b, j] = 0
        for k in range(eps.shape[1]):
            for j in range(latent):
                dhead[b, j] += dz[b, k, j]
                dhead[b, latent + j] += dz[b, k, j] * eps[b, k, j]
        for j in range(latent):
            sigma, dstd = std[b, j], dhead[b, latent + j]
            growth, _ = expm1_and_excess(head[b, latent + j], sigma * sigma)
            dhead[b, j] = dhead[b, j] + dkl[b] * head[b, j]
            dhead[b, latent + j] = half * sigma * dstd + dkl[b] * (half * growth)


def posterior_backward(dz: NDArray, dkl: NDArray, cache: PosteriorCache) -> NDArray:
    """See `reference.posterior.posterior_backward`."""
    head, std, eps = cache
    dhead = np.empty(head.shape, head.dtype)
    _backward(np.ascontiguousarray(dz, head.dtype), np.ascontiguousarray(dkl, head.dtype), head, std, eps, dhead)
    return dhead


@njit(**INNER)
def log_ratio(logvar, eps, z, terms):
    """log p(z) - log q(z|x) = 1/2 sum_j (logvar_j + eps_j^2 - z_j^2) of a sample z = mu + exp(logvar / 2) eps."""
    for j in range(z.size):
        terms[j] = logvar[j] + eps[j] * eps[j] - z[j] * z[j]
    return z.dtype.type(0.5) * sum_row(terms)


@njit(**KERNEL)
def _log_ratios(logvar, eps, z, ratios):
    terms = np.empty(z.shape[2], z.dtype)
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            ratios[b, k] = log_ratio(logvar[b], eps[b, k], z[b, k], terms)


def log_ratio_forward(logvar: NDArray, eps: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.posterior.log_ratio_forward`."""
    logvar, eps, z = (np.ascontiguousarray(a, z.dtype) for a in (logvar, eps, z))
    ratios = np.empty(z.shape[:2], z.dtype)
    _log_ratios(logvar, eps, z, ratios)
    return ratios, z


def log_ratio_backward(dlog_ratio: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.posterior.log_ratio_backward`."""
    dlogvar = np.repeat(0.5 * dlog_ratio.sum(axis=1)[:, None], z.shape[2], axis=1)
    return dlogvar, standard_normal_log_density_backward(dlog_ratio, z)
