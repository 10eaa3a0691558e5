"""The families of q(z|x): what the encoder's head means, how it is drawn from, its density and its KL to the prior.

A family knows which operations serve it and how they share the head's columns; the mathematics is in the operations. It
takes them from one engine, "reference" or "compiled".

    diagonal   N(mu, diag(exp(logvar)))      2 Z columns: mu, logvar
    full       N(mu, L L^T)                  Z + Z (Z + 1) / 2 columns: mu, log L_jj^2, the strict lower triangle of L

B examples, K samples per example, Z latent dimensions, H columns of the head.
"""

from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scratchvae.finite import check_finite, quiet
from scratchvae.reference.full_posterior import cholesky_factor, full_head_size


class Gaussian(NamedTuple):
    """A diagonal Gaussian N(mu, exp(logvar)) for every example: q(z|x) (Kingma, Welling 2013, equation 9)."""

    mu: NDArray  # (B, Z)
    logvar: NDArray  # (B, Z)

    @property
    def covariance(self) -> NDArray:
        """diag(exp(logvar)) (B, Z, Z)."""
        covariance = np.zeros((*self.logvar.shape, self.logvar.shape[1]))
        np.einsum("bjj->bj", covariance)[...] = np.exp(self.logvar)
        return covariance


@dataclass(frozen=True)
class FullGaussian:
    """A Gaussian N(mu, L L^T) for every example (Kingma, Welling 2019, section 2.5.1).

    Not a tuple, so that nobody takes L for a log-variance.
    """

    mu: NDArray  # (B, Z)
    cholesky: NDArray  # (B, Z, Z): L, lower triangular

    @property
    def covariance(self) -> NDArray:
        """L L^T (B, Z, Z)."""
        return self.cholesky @ self.cholesky.transpose(0, 2, 1)


class Posterior(Protocol):
    """A family of q(z|x) on one engine. Of each pair, backward is the gradient of forward."""

    @property
    def name(self) -> str: ...

    @property
    def forward(self) -> Any: ...  # head (B, H), eps (B, K, Z) -> z (B, K, Z), KL to the prior (B,), cache

    @property
    def backward(self) -> Any: ...  # dz, dkl, cache -> dhead (B, H)

    def __init__(self, ops: ModuleType) -> None: ...

    @staticmethod
    def head_size(latent_dim: int) -> int: ...  # H

    @staticmethod
    def gaussian(head: NDArray) -> Any: ...  # head (B, H) -> what `encode` returns

    def log_density_forward(self, z: NDArray, head: NDArray) -> tuple[NDArray, Any]:
        """log q(z|x) (B, K), in nats, of z (B, K, Z) under the heads (B, H); and cache."""
        ...

    def log_density_backward(self, dlog_density: NDArray, cache: Any) -> tuple[NDArray, NDArray]:
        """dz (B, K, Z), dhead (B, H) from dlog_density (B, K)."""
        ...

    def draw_scores(self, dlog_density: NDArray, eps: NDArray, head: NDArray) -> tuple[NDArray, NDArray]:
        """dz (B, K, Z), dhead (B, H) of log q of the samples that eps (B, K, Z) draws, each with the other held."""
        ...

    def kl_per_dimension_forward(self, head: NDArray) -> tuple[NDArray, Any]:
        """The KL to the prior, in nats, a latent dimension at a time: (B, Z), and cache."""
        ...

    def kl_per_dimension_backward(self, dkl: NDArray, cache: Any) -> NDArray:
        """dhead (B, H) from dkl (B, Z)."""
        ...


def check_diagonal(posterior: Posterior, what: str) -> None:
    """Raises ValueError where `what` is to be done with a posterior that is not diagonal."""
    if posterior.name != "diagonal":
        raise ValueError(f"{what} is for a diagonal posterior; got a model whose posterior is {posterior.name!r}")


class DiagonalPosterior:
    """q(z|x) = N(mu, diag(exp(logvar))); head: mu, logvar."""

    name = "diagonal"

    def __init__(self, ops: ModuleType) -> None:
        self.ops = ops
        self.forward = ops.posterior_forward
        self.backward = ops.posterior_backward

    @staticmethod
    def head_size(latent_dim: int) -> int:
        """H = 2 Z."""
        return 2 * latent_dim

    @staticmethod
    def gaussian(head: NDArray) -> Gaussian:
        """The Gaussian that a head (B, 2 Z) stands for."""
        mu, logvar = np.split(head, 2, axis=1)
        return Gaussian(mu.copy(), logvar.copy())

    def log_density_forward(self, z: NDArray, head: NDArray) -> tuple[NDArray, Any]:
        """log q(z|x) (B, K) of z (B, K, Z), and cache."""
        latent = z.shape[2]
        return self.ops.gaussian_log_density_forward(z, head[:, :latent], head[:, latent:])

    def log_density_backward(self, dlog_density: NDArray, cache: Any) -> tuple[NDArray, NDArray]:
        """dz (B, K, Z), dhead (B, 2 Z)."""
        dz, dmu, dlogvar = self.ops.gaussian_log_density_backward(dlog_density, cache)
        return dz, np.concatenate([dmu, dlogvar], axis=1)

    def draw_scores(self, dlog_density: NDArray, eps: NDArray, head: NDArray) -> tuple[NDArray, NDArray]:
        """dz (B, K, Z), dhead (B, 2 Z) of log q of the samples that eps (B, K, Z) draws, each with the other held."""
        dz, dmu, dlogvar = self.ops.gaussian_draw_scores(dlog_density, eps, head[:, eps.shape[2] :])
        return dz, np.concatenate([dmu, dlogvar], axis=1)

    def kl_per_dimension_forward(self, head: NDArray) -> tuple[NDArray, Any]:
        """The KL to the prior, a latent dimension at a time: (B, Z), and cache."""
        return self.ops.kl_per_dimension_forward(*np.split(head, 2, axis=1))

    def kl_per_dimension_backward(self, dkl: NDArray, cache: Any) -> NDArray:
        """dhead (B, 2 Z) from dkl (B, Z)."""
        return np.concatenate(self.ops.kl_per_dimension_backward(dkl, cache), axis=1)


class FullPosterior:
    """q(z|x) = N(mu, L L^T); head: mu, logvar with L_jj = exp(logvar_j / 2), the strict lower triangle of L by rows."""

    name = "full"

    def __init__(self, ops: ModuleType) -> None:
        self.forward = ops.full_posterior_forward
        self.backward = ops.full_posterior_backward
        self.log_density_forward = ops.full_gaussian_log_density_forward
        self.log_density_backward = ops.full_gaussian_log_density_backward
        self.draw_scores = ops.full_gaussian_draw_scores
        self.kl_per_dimension_forward = ops.full_kl_per_dimension_forward
        self.kl_per_dimension_backward = ops.full_kl_per_dimension_backward

    @staticmethod
    def head_size(latent_dim: int) -> int:
        """H = Z + Z (Z + 1) / 2."""
        return full_head_size(latent_dim)

    @staticmethod
    def gaussian(head: NDArray) -> FullGaussian:
        """The Gaussian that a head (B, H) stands for. Raises NotFiniteError where exp(logvar / 2) overflows."""
        with quiet():
            mu, _, cholesky = cholesky_factor(head)
        check_finite([cholesky], [("head", head), ("L of q(z|x)", cholesky)])
        return FullGaussian(mu.copy(), cholesky)


POSTERIORS = MappingProxyType({family.name: family for family in (DiagonalPosterior, FullPosterior)})
