"""The Gaussian posterior with a full covariance, q(z|x) = N(mu, L L^T), L its lower triangular Cholesky factor.

The encoder's head has Z + Z (Z + 1) / 2 columns: mu (Z), logvar (Z) and the strict lower triangle of L row by row,
L_10, L_20, L_21, ... The diagonal is L_jj = exp(logvar_j / 2), so that L L^T is positive definite for every head.
Where the triangle is zero, this is the diagonal posterior with the same mu and logvar.

By the chain rule q(z) = prod_j q(z_j | z_0 ... z_j-1), and exp(logvar_j) is the variance of z_j given those before it.

Shapes: B examples, K samples per example, Z latent dimensions, H the head's columns.
Source: Kingma, Welling 2019, "An introduction to variational autoencoders", section 2.5.1
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.reference.gaussian import LOG_2_PI


def full_head_size(latent_dim: int) -> int:
    """H = Z + Z (Z + 1) / 2: mu, logvar and the strict lower triangle of L."""
    return latent_dim + latent_dim * (latent_dim + 1) // 2


def full_latent_dim(head: NDArray) -> int:
    """Z of a head (B, H): `full_head_size` solved for Z."""
    return (math.isqrt(9 + 8 * head.shape[1]) - 3) // 2


def cholesky_factor(head: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """The three parts of a head (B, H). Returns mu (B, Z), logvar (B, Z), L (B, Z, Z)."""
    latent = full_latent_dim(head)
    mu, logvar, triangle = np.split(head, [latent, 2 * latent], axis=1)
    cholesky = np.zeros((len(head), latent, latent), head.dtype)
    below, diagonal = np.tril_indices(latent, -1), np.arange(latent)
    cholesky[:, *below] = triangle
    cholesky[:, diagonal, diagonal] = np.exp(0.5 * logvar)
    return mu, logvar, cholesky


def _head_gradient(dmu: NDArray, dlogvar: NDArray, dcholesky: NDArray, cholesky: NDArray) -> NDArray:
    """Reverse of `cholesky_factor`, dlogvar being what does not go through L. Returns dhead (B, H)."""
    latent = dmu.shape[1]
    below, diagonal = np.tril_indices(latent, -1), np.arange(latent)
    dtriangle = dcholesky[:, *below]
    dstd = dcholesky[:, diagonal, diagonal]
    dlogvar = dlogvar + 0.5 * cholesky[:, diagonal, diagonal] * dstd  # reverse of: L_jj = exp(logvar_j / 2)
    return np.concatenate([dmu, dlogvar, dtriangle], axis=1)


# --- the KL to the prior ----------------------------------------------------------------------------------------------


class FullKLCache(NamedTuple):
    mu: NDArray  # (B, Z)
    cholesky: NDArray  # (B, Z, Z)


def full_kl_per_dimension_forward(head: NDArray) -> tuple[NDArray, FullKLCache]:
    """KL(N(mu, L L^T) || N(0, I)) of each example, a latent dimension at a time, in nats.

    Forward   kl_bj = 1/2 (mu_j^2 + sum_i L_ji^2 - 1 - logvar_j) = E_q KL(q(z_j | z_<j) || p(z_j))  >= 0
              Their sum is 1/2 (|mu|^2 + tr(L L^T) - Z - log|L L^T|), the KL: log|L L^T| = sum_j logvar_j
    Takes     head (B, H)
    Returns   kl (B, Z), cache
    Source    Rasmussen, Williams 2006, "Gaussian processes for machine learning", equation A.23, for the sum
    """
    mu, logvar, cholesky = cholesky_factor(head)
    below = np.tril(cholesky, -1)
    kl = 0.5 * (mu * mu + (below * below).sum(axis=2) + (np.expm1(logvar) - logvar))  # L_jj^2 = exp(logvar_j)
    return kl, FullKLCache(mu, cholesky)


def full_kl_per_dimension_backward(dkl: NDArray, cache: FullKLCache) -> NDArray:
    """Gradient of `full_kl_per_dimension_forward`.

    Gives     d kl_j/d mu_j = mu_j        d kl_j/d L_ji = L_ji        d kl_j/d logvar_j = (exp(logvar_j) - 1) / 2
    Takes     dkl (B, Z): d loss / d kl; cache
    Returns   dhead (B, H)
    """
    mu, cholesky = cache
    dmu = dkl * mu
    dcholesky = dkl[:, :, None] * cholesky  # reverse of: sum_i L_ji^2
    return _head_gradient(dmu, -0.5 * dkl, dcholesky, cholesky)


# --- the draw and the KL side by side, as in `posterior` --------------------------------------------------------------


class FullPosteriorCache(NamedTuple):
    kl: FullKLCache
    eps: NDArray  # (B, K, Z)


def full_posterior_forward(head: NDArray, eps: NDArray) -> tuple[NDArray, NDArray, FullPosteriorCache]:
    """Samples of q(z|x) and KL(q(z|x) || p(z)), the latter in nats.

    Forward   z_bk = mu_b + L_b eps_bk        kl_b = KL(N(mu_b, L_b L_b^T) || N(0, I))
    Takes     head (B, H); eps (B, K, Z)
    Returns   z (B, K, Z), kl (B,), cache
    """
    per_dimension, cache = full_kl_per_dimension_forward(head)
    z = cache.mu[:, None, :] + eps @ cache.cholesky.transpose(0, 2, 1)
    return z, per_dimension.sum(axis=1), FullPosteriorCache(cache, eps)


def full_posterior_backward(dz: NDArray, dkl: NDArray, cache: FullPosteriorCache) -> NDArray:
    """Gradient of `full_posterior_forward`.

    Gives     d z_j/d mu_j = 1        d z_j/d L_ji = eps_i, i <= j        and the KL's gradients
    Takes     dz (B, K, Z); dkl (B,); cache
    Returns   dhead (B, H): mu and L are used twice, by the draw and by the KL
    """
    mu, cholesky = cache.kl
    dmu = dz.sum(axis=1)
    dcholesky = dz.transpose(0, 2, 1) @ cache.eps  # reverse of: L eps; what lies above the diagonal is not read
    from_draw = _head_gradient(dmu, np.zeros_like(dmu), dcholesky, cholesky)
    from_kl = full_kl_per_dimension_backward(np.broadcast_to(dkl[:, None], mu.shape), cache.kl)
    return from_draw + from_kl


# --- the density ------------------------------------------------------------------------------------------------------


class FullLogDensityCache(NamedTuple):
    u: NDArray  # (B, K, Z): L^-1 (z - mu)
    cholesky: NDArray  # (B, Z, Z)


def full_gaussian_log_density_forward(z: NDArray, head: NDArray) -> tuple[NDArray, FullLogDensityCache]:
    """log N(z; mu, L L^T) of each sample, in nats.

    Forward   L u = z - mu, solved from the top: u_j = (z_j - mu_j - sum_{i<j} L_ji u_i) / L_jj
              log q_bk = -1/2 sum_j (log 2 pi + logvar_j + u_j^2)
    Takes     z (B, K, Z); head (B, H)
    Returns   log q (B, K), cache
    Source    Bishop 2006, "Pattern recognition and machine learning", equation 2.43
    """
    mu, logvar, cholesky = cholesky_factor(head)
    u = z - mu[:, None, :]
    for j in range(u.shape[2]):
        before = (u[:, :, :j] * cholesky[:, None, j, :j]).sum(axis=2)
        u[:, :, j] = (u[:, :, j] - before) / cholesky[:, None, j, j]
    log_density = -0.5 * (LOG_2_PI + logvar[:, None, :] + u * u).sum(axis=2)
    return log_density, FullLogDensityCache(u, cholesky)


def full_gaussian_log_density_backward(dlog_density: NDArray, cache: FullLogDensityCache) -> tuple[NDArray, NDArray]:
    """Gradient of `full_gaussian_log_density_forward`.

    Gives     d log q/d u = -u        du = -g u, g the upstream gradient
              u = L^-1 (z - mu):  dz = L^-T du, solved from the bottom;  dmu = -sum_k dz;  dL = -sum_k dz u^T
              and -g / 2 for each logvar directly
    Takes     dlog_density (B, K); cache
    Returns   dz (B, K, Z), dhead (B, H)
    """
    u, cholesky = cache
    dz = -dlog_density[:, :, None] * u  # reverse of: u^2
    for j in reversed(range(u.shape[2])):  # reverse of: L u = z - mu
        after = (dz[:, :, j + 1 :] * cholesky[:, None, j + 1 :, j]).sum(axis=2)
        dz[:, :, j] = (dz[:, :, j] - after) / cholesky[:, None, j, j]
    dmu = -dz.sum(axis=1)
    dcholesky = -dz.transpose(0, 2, 1) @ u
    dlogvar = np.broadcast_to(-0.5 * dlog_density.sum(axis=1)[:, None], dmu.shape)  # reverse of: logvar
    return dz, _head_gradient(dmu, dlogvar, dcholesky, cholesky)


def full_gaussian_draw_scores(dlog_density: NDArray, eps: NDArray, head: NDArray) -> tuple[NDArray, NDArray]:
    """Gradient of log q of q's own samples z = mu + L eps: by z with q held, and by the head with z held.

    Gives     that of `full_gaussian_log_density_backward`, with eps for u, which is not solved for
    Takes     dlog_density (B, K); eps (B, K, Z); head (B, H)
    Returns   dz (B, K, Z), dhead (B, H)
    """
    return full_gaussian_log_density_backward(dlog_density, FullLogDensityCache(eps, cholesky_factor(head)[2]))
