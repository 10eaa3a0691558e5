"""Twin of `reference.full_posterior`, example by example.

L is kept transposed, so that every inner loop runs along a row.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.vector_math import exp, expm1_and_excess, sum_row
from scratchvae.reference.full_posterior import full_head_size, full_latent_dim
from scratchvae.reference.gaussian import LOG_2_PI


class FullKLCache(NamedTuple):
    head: NDArray  # (B, H)
    transposed: NDArray  # (B, Z, Z): L^T, upper triangular


class FullPosteriorCache(NamedTuple):
    head: NDArray
    transposed: NDArray
    eps: NDArray  # (B, K, Z)


class FullLogDensityCache(NamedTuple):
    u: NDArray  # (B, K, Z)
    transposed: NDArray


@njit(**INNER)
def _factor(head, transposed):
    """L^T from the head of one example."""
    latent, place = len(transposed), 2 * len(transposed)
    half = head.dtype.type(0.5)
    for j in range(latent):
        for i in range(j):
            transposed[i, j] = head[place]
            transposed[j, i] = 0
            place += 1
        transposed[j, j] = exp(half * head[latent + j])


@njit(**INNER)
def _head_gradient(dtransposed, transposed, dhead):
    """Add the gradient of one example's L^T, of which only what is not below the diagonal counts, to dhead."""
    latent, place = len(transposed), 2 * len(transposed)
    half = dhead.dtype.type(0.5)
    for j in range(latent):
        for i in range(j):
            dhead[place] += dtransposed[i, j]
            place += 1
        dhead[latent + j] += half * transposed[j, j] * dtransposed[j, j]


# --- the KL to the prior ----------------------------------------------------------------------------------------------


@njit(**INNER)
def _kl_row(head, transposed, kl):
    latent = len(transposed)
    half = head.dtype.type(0.5)
    for j in range(latent):
        kl[j] = 0
    for i in range(latent):
        for j in range(i + 1, latent):
            kl[j] += transposed[i, j] * transposed[i, j]
    for j in range(latent):
        _, excess = expm1_and_excess(head[latent + j], transposed[j, j] * transposed[j, j])
        kl[j] = half * (head[j] * head[j] + kl[j] + excess)


@njit(**KERNEL)
def _kl_forward(head, transposed, kl):
    for b in range(len(head)):
        _factor(head[b], transposed[b])
        _kl_row(head[b], transposed[b], kl[b])


def full_kl_per_dimension_forward(head: NDArray) -> tuple[NDArray, FullKLCache]:
    """See `reference.full_posterior.full_kl_per_dimension_forward`."""
    head, latent = np.ascontiguousarray(head), full_latent_dim(head)
    transposed, kl = np.empty((len(head), latent, latent), head.dtype), np.empty((len(head), latent), head.dtype)
    _kl_forward(head, transposed, kl)
    return kl, FullKLCache(head, transposed)


@njit(**INNER)
def _kl_row_gradient(dkl, head, transposed, dtransposed, dhead):
    """Add one example's gradient of the KL to dL^T and to dhead."""
    latent, half = len(transposed), head.dtype.type(0.5)
    for i in range(latent):
        for j in range(i, latent):
            dtransposed[i, j] += dkl[j] * transposed[i, j]
    for j in range(latent):
        dhead[j] += dkl[j] * head[j]
        dhead[latent + j] -= half * dkl[j]


@njit(**KERNEL)
def _kl_backward(dkl, head, transposed, dhead):
    dtransposed = np.empty(transposed.shape[1:], head.dtype)
    for b in range(len(head)):
        dtransposed[:] = 0
        _kl_row_gradient(dkl[b], head[b], transposed[b], dtransposed, dhead[b])
        _head_gradient(dtransposed, transposed[b], dhead[b])


def full_kl_per_dimension_backward(dkl: NDArray, cache: FullKLCache) -> NDArray:
    """See `reference.full_posterior.full_kl_per_dimension_backward`."""
    head, transposed = cache
    dhead = np.zeros_like(head)
    _kl_backward(np.ascontiguousarray(dkl, head.dtype), head, transposed, dhead)
    return dhead


# --- the draw and the KL side by side ---------------------------------------------------------------------------------


@njit(**KERNEL)
def _forward(head, eps, transposed, z, kl):
    latent = eps.shape[2]
    terms = np.empty(latent, head.dtype)
    for b in range(len(head)):
        _factor(head[b], transposed[b])
        _kl_row(head[b], transposed[b], terms)
        kl[b] = sum_row(terms)
        for k in range(eps.shape[1]):
            for j in range(latent):
                z[b, k, j] = head[b, j]
            for i in range(latent):
                noise = eps[b, k, i]
                for j in range(i, latent):
                    z[b, k, j] += transposed[b, i, j] * noise


def full_posterior_forward(head: NDArray, eps: NDArray) -> tuple[NDArray, NDArray, FullPosteriorCache]:
    """See `reference.full_posterior.full_posterior_forward`."""
    head, eps = np.ascontiguousarray(head), np.ascontiguousarray(eps, head.dtype)
    latent = eps.shape[2]
    transposed = np.empty((len(head), latent, latent), head.dtype)
    z, kl = np.empty(eps.shape, head.dtype), np.empty(len(head), head.dtype)
    _forward(head, eps, transposed, z, kl)
    return z, kl, FullPosteriorCache(head, transposed, eps)


@njit(**KERNEL)
def _backward(dz, dkl, head, transposed, eps, dhead):
    latent = eps.shape[2]
    dtransposed, dkl_row = np.empty((latent, latent), head.dtype), np.empty(latent, head.dtype)
    for b in range(len(head)):
        dtransposed[:] = 0
        for k in range(eps.shape[1]):
            for i in range(latent):
                noise = eps[b, k, i]
                for j in range(i, latent):
                    dtransposed[i, j] += dz[b, k, j] * noise
            for j in range(latent):
                dhead[b, j] += dz[b, k, j]
        dkl_row[:] = dkl[b]
        _kl_row_gradient(dkl_row, head[b], transposed[b], dtransposed, dhead[b])
        _head_gradient(dtransposed, transposed[b], dhead[b])


def full_posterior_backward(dz: NDArray, dkl: NDArray, cache: FullPosteriorCache) -> NDArray:
    """See `reference.full_posterior.full_posterior_backward`."""
    head, transposed, eps = cache
    dhead = np.zeros_like(head)
    dz, dkl = np.ascontiguousarray(dz, head.dtype), np.ascontiguousarray(dkl, head.dtype)
    _backward(dz, dkl, head, transposed, eps, dhead)
    return dhead


# --- the density ------------------------------------------------------------------------------------------------------


@njit(**KERNEL)
def _density(z, head, transposed, u, log_density):
    latent = z.shape[2]
    constant, half = z.dtype.type(LOG_2_PI), z.dtype.type(0.5)
    terms = np.empty(latent, z.dtype)
    for b in range(len(head)):
        _factor(head[b], transposed[b])
        for k in range(z.shape[1]):
            for j in range(latent):
                u[b, k, j] = z[b, k, j] - head[b, j]
            for i in range(latent):
                u[b, k, i] /= transposed[b, i, i]
                known = u[b, k, i]
                for j in range(i + 1, latent):
                    u[b, k, j] -= transposed[b, i, j] * known
            for j in range(latent):
                terms[j] = constant + head[b, latent + j] + u[b, k, j] * u[b, k, j]
            log_density[b, k] = -half * sum_row(terms)


def full_gaussian_log_density_forward(z: NDArray, head: NDArray) -> tuple[NDArray, FullLogDensityCache]:
    """See `reference.full_posterior.full_gaussian_log_density_forward`."""
    z, latent = np.ascontiguousarray(z), z.shape[2]
    head = np.ascontiguousarray(head, z.dtype)
    transposed, u = np.empty((len(z), latent, latent), z.dtype), np.empty_like(z)
    log_density = np.empty(z.shape[:2], z.dtype)
    _density(z, head, transposed, u, log_density)
    return log_density, FullLogDensityCache(u, transposed)


@njit(**KERNEL)
def _density_gradient(dlog_density, u, transposed, dz, dhead):
    latent, half = u.shape[2], u.dtype.type(0.5)
    dtransposed, products = np.empty((latent, latent), u.dtype), np.empty(latent, u.dtype)
    for b in range(len(u)):
        dtransposed[:] = 0
        for k in range(u.shape[1]):
            upstream = dlog_density[b, k]
            for i in range(latent - 1, -1, -1):
                for j in range(i + 1, latent):
                    products[j] = dz[b, k, j] * transposed[b, i, j]
                after = sum_row(products[i + 1 :])
                dz[b, k, i] = (-upstream * u[b, k, i] - after) / transposed[b, i, i]
            for i in range(latent):
                known = u[b, k, i]
                for j in range(i, latent):
                    dtransposed[i, j] -= dz[b, k, j] * known
            for j in range(latent):
                dhead[b, j] -= dz[b, k, j]
                dhead[b, latent + j] -= half * upstream
        _head_gradient(dtransposed, transposed[b], dhead[b])


def full_gaussian_log_density_backward(dlog_density: NDArray, cache: FullLogDensityCache) -> tuple[NDArray, NDArray]:
    """See `reference.full_posterior.full_gaussian_log_density_backward`."""
    u, transposed = cache
    latent = u.shape[2]
    dz, dhead = np.empty_like(u), np.zeros((len(u), full_head_size(latent)), u.dtype)
    _density_gradient(np.ascontiguousarray(dlog_density, u.dtype), u, transposed, dz, dhead)
    return dz, dhead


@njit(**KERNEL)
def _factors(head, transposed):
    for b in range(len(head)):
        _factor(head[b], transposed[b])


def full_gaussian_draw_scores(dlog_density: NDArray, eps: NDArray, head: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.full_posterior.full_gaussian_draw_scores`."""
    head, latent = np.ascontiguousarray(head), full_latent_dim(head)
    transposed = np.empty((len(head), latent, latent), head.dtype)
    _factors(head, transposed)
    cache = FullLogDensityCache(np.ascontiguousarray(eps, head.dtype), transposed)
    return full_gaussian_log_density_backward(dlog_density, cache)
