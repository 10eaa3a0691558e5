"""Twins of `reference.gaussian`: densities in one pass over the samples.

Draw and KL in one are in `posterior`; what stands here under their own names is for objectives that need one alone.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scratchvae.compiled.bernoulli import scale_rows
from scratchvae.compiled.kernel_cache import KERNEL
from scratchvae.compiled.vector_math import exp, expm1_and_excess, sum_row
from scratchvae.reference.gaussian import (
    LOG_2_PI,
    GaussianLogDensityCache,
    KLCache,
    ReparameterizeCache,
    kl_per_dimension_backward,
    kl_to_prior_backward,
    reparameterize_backward,
)

__all__ = [
    "gaussian_draw_scores",
    "gaussian_log_density_backward",
    "gaussian_log_density_forward",
    "kl_per_dimension_backward",
    "kl_per_dimension_forward",
    "kl_to_prior_backward",
    "kl_to_prior_forward",
    "reparameterize_backward",
    "reparameterize_forward",
    "standard_normal_log_density_backward",
    "standard_normal_log_density_forward",
]


@njit(**KERNEL)
def _exp_of_multiple(factor, a, out):
    for i in range(a.size):
        out[i] = exp(factor * a[i])


def _exp(factor: float, a: NDArray) -> NDArray:
    """exp(factor a)."""
    a = np.ascontiguousarray(a)
    out = np.empty_like(a)
    _exp_of_multiple(a.dtype.type(factor), a.reshape(-1), out.reshape(-1))
    return out


def reparameterize_forward(mu: NDArray, logvar: NDArray, eps: NDArray) -> tuple[NDArray, ReparameterizeCache]:
    """See `reference.gaussian.reparameterize_forward`."""
    std = _exp(0.5, logvar)
    return mu[:, None, :] + std[:, None, :] * eps, ReparameterizeCache(std, eps)


@njit(**KERNEL)
def _growth_and_excess(logvar, growth, excess):
    for i in range(logvar.size):
        growth[i], excess[i] = expm1_and_excess(logvar[i], exp(logvar[i]))


def kl_to_prior_forward(mu: NDArray, logvar: NDArray) -> tuple[NDArray, KLCache]:
    """See `reference.gaussian.kl_to_prior_forward`."""
    kl, cache = kl_per_dimension_forward(mu, logvar)
    return kl.sum(axis=1), cache


def kl_per_dimension_forward(mu: NDArray, logvar: NDArray) -> tuple[NDArray, KLCache]:
    """See `reference.gaussian.kl_per_dimension_forward`."""
    logvar = np.ascontiguousarray(logvar)
    growth, excess = np.empty_like(logvar), np.empty_like(logvar)
    _growth_and_excess(logvar.reshape(-1), growth.reshape(-1), excess.reshape(-1))
    return 0.5 * (mu * mu + excess), KLCache(mu, growth)


@njit(**KERNEL)
def _density(z, mu, logvar, inverse_std, scaled, log_density):
    constant, half = z.dtype.type(LOG_2_PI), z.dtype.type(0.5)
    terms = np.empty(z.shape[2], z.dtype)
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            for j in range(z.shape[2]):
                ratio = (z[b, k, j] - mu[b, j]) * inverse_std[b, j]
                scaled[b, k, j] = ratio
                terms[j] = constant + logvar[b, j] + ratio * ratio
            log_density[b, k] = -half * sum_row(terms)


def gaussian_log_density_forward(z: NDArray, mu: NDArray, logvar: NDArray) -> tuple[NDArray, GaussianLogDensityCache]:
    """See `reference.gaussian.gaussian_log_density_forward`."""
    z, mu, logvar = (np.ascontiguousarray(a, z.dtype) for a in (z, mu, logvar))
    inverse_std, scaled, log_density = _exp(-0.5, logvar), np.empty_like(z), np.empty(z.shape[:2], z.dtype)
    _density(z, mu, logvar, inverse_std, scaled, log_density)
    return log_density, GaussianLogDensityCache(scaled, inverse_std)


@njit(**KERNEL)
def _density_gradient(dlog_density, scaled, inverse_std, dz, dmu, dlogvar):
    half, one = dz.dtype.type(0.5), dz.dtype.type(1)
    for b in range(dz.shape[0]):
        for k in range(dz.shape[1]):
            upstream = dlog_density[b, k]
            for j in range(dz.shape[2]):
                ratio = scaled[b, k, j]
                dz[b, k, j] = -upstream * ratio * inverse_std[b, j]
                dmu[b, j] += upstream * ratio * inverse_std[b, j]
                dlogvar[b, j] += half * upstream * (ratio * ratio - one)


def gaussian_log_density_backward(
    dlog_density: NDArray, cache: GaussianLogDensityCache
) -> tuple[NDArray, NDArray, NDArray]:
    """See `reference.gaussian.gaussian_log_density_backward`."""
    scaled, inverse_std = cache
    dz, dmu, dlogvar = np.empty_like(scaled), np.zeros_like(inverse_std), np.zeros_like(inverse_std)
    dlog_density = np.ascontiguousarray(dlog_density, scaled.dtype)
    _density_gradient(dlog_density, scaled, inverse_std, dz, dmu, dlogvar)
    return dz, dmu, dlogvar


def gaussian_draw_scores(dlog_density: NDArray, eps: NDArray, logvar: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """See `reference.gaussian.gaussian_draw_scores`."""
    logvar = np.ascontiguousarray(logvar)
    cache = GaussianLogDensityCache(np.ascontiguousarray(eps, logvar.dtype), _exp(-0.5, logvar))
    return gaussian_log_density_backward(dlog_density, cache)


@njit(**KERNEL)
def _standard_density(z, log_density):
    constant, half = z.dtype.type(LOG_2_PI), z.dtype.type(0.5)
    terms = np.empty(z.shape[2], z.dtype)
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            for j in range(z.shape[2]):
                terms[j] = constant + z[b, k, j] * z[b, k, j]
            log_density[b, k] = -half * sum_row(terms)


def standard_normal_log_density_forward(z: NDArray) -> tuple[NDArray, NDArray]:
    """See `reference.gaussian.standard_normal_log_density_forward`."""
    z = np.ascontiguousarray(z)
    log_density = np.empty(z.shape[:2], z.dtype)
    _standard_density(z, log_density)
    return log_density, z


def standard_normal_log_density_backward(dlog_density: NDArray, z: NDArray) -> NDArray:
    """See `reference.gaussian.standard_normal_log_density_backward`."""
    return scale_rows(-dlog_density, np.ascontiguousarray(z))
