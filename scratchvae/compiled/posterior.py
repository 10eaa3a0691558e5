"""Twin of `reference.posterior`: the draw and the KL, and their gradients, in one pass each."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scratchvae.compiled.vector_math import exp, sum_row


class PosteriorCache(NamedTuple):
    head: NDArray  # (B, 2 Z): mu, logvar
    std: NDArray  # (B, Z)
    eps: NDArray  # (B, K, Z)


@njit(cache=True, error_model="numpy")
def _half_exponents(head, flat_std):
    latent = head.shape[1] // 2
    for b in range(head.shape[0]):
        logvar, target = head[b, latent:], flat_std[b * latent : (b + 1) * latent]
        for j in range(latent):
            target[j] = head.dtype.type(0.5) * logvar[j]


@njit(cache=True, error_model="numpy")
def _exp_in_place(a):
    for i in range(a.size):
        a[i] = exp(a[i])


@njit(cache=True, error_model="numpy")
def _draw(mu, std, eps, z):
    for j in range(mu.size):
        z[j] = mu[j] + std[j] * eps[j]


@njit(cache=True, error_model="numpy")
def _kl_terms(mu, logvar, std, terms):
    for j in range(mu.size):
        terms[j] = mu[j] * mu[j] + std[j] * std[j] - mu.dtype.type(1) - logvar[j]


@njit(cache=True, error_model="numpy")
def _forward(head, eps, std, z, kl):
    """The exponentials run over all examples at once: a row of Z is often shorter than a vector."""
    latent = std.shape[1]
    flat_std = std.reshape(std.size)
    _half_exponents(head, flat_std)
    _exp_in_place(flat_std)
    terms = np.empty(latent, head.dtype)
    for b in range(head.shape[0]):
        mu, logvar = head[b, :latent], head[b, latent:]
        _kl_terms(mu, logvar, std[b], terms)
        kl[b] = head.dtype.type(0.5) * sum_row(terms)
        for k in range(eps.shape[1]):
            _draw(mu, std[b], eps[b, k], z[b, k])


def posterior_forward(head: NDArray, eps: NDArray) -> tuple[NDArray, NDArray, PosteriorCache]:
    """See `reference.posterior.posterior_forward`."""
    head, eps = np.ascontiguousarray(head), np.ascontiguousarray(eps, head.dtype)
    std = np.empty((len(head), eps.shape[2]), head.dtype)
    z, kl = np.empty_like(eps), np.empty(len(head), head.dtype)
    _forward(head, eps, std, z, kl)
    return z, kl, PosteriorCache(head, std, eps)


@njit(cache=True, error_model="numpy")
def _add_draw(dz, eps, dmu, dstd):
    for j in range(dz.size):
        dmu[j] += dz[j]
        dstd[j] += dz[j] * eps[j]


@njit(cache=True, error_model="numpy")
def _finish(dkl, mu, std, dmu, dstd):
    """Both uses of mu and of logvar are summed here; dstd becomes dlogvar in place."""
    half, one = mu.dtype.type(0.5), mu.dtype.type(1)
    for j in range(mu.size):
        dmu[j] = dmu[j] + dkl * mu[j]
        dstd[j] = half * std[j] * dstd[j] + dkl * (half * (std[j] * std[j] - one))


@njit(cache=True, error_model="numpy")
def _backward(dz, dkl, head, std, eps, dhead):
    latent = std.shape[1]
    for b in range(dhead.shape[0]):
        dmu, dstd = dhead[b, :latent], dhead[b, latent:]
        for k in range(dz.shape[1]):
            _add_draw(dz[b, k], eps[b, k], dmu, dstd)
        _finish(dkl[b], head[b, :latent], std[b], dmu, dstd)


def posterior_backward(dz: NDArray, dkl: NDArray, cache: PosteriorCache) -> NDArray:
    """See `reference.posterior.posterior_backward`."""
    head, std, eps = cache
    dhead = np.zeros_like(head)
    _backward(np.ascontiguousarray(dz, head.dtype), np.ascontiguousarray(dkl, head.dtype), head, std, eps, dhead)
    return dhead
