"""The linear-Gaussian model, where log p(x), the posterior and every gap have closed forms: the oracle for the rest.

    z ~ N(0, I)        x|z ~ N(z W + b, diag(s2))        so x ~ N(b, C), C = W^T W + diag(s2)

One variance s2 makes it probabilistic PCA, one per dimension factor analysis. A VAE with linear decoder and Gaussian
likelihood is this model, whatever its encoder.

Shapes: B examples, D data dimensions, Z latent dimensions; W is (Z, D), (in, out) as everywhere. All in float64, nats.

Sources: Tipping, Bishop 1999, "Probabilistic principal component analysis"; Lucas, Tucker, Grosse, Norouzi 2019,
"Don't blame the ELBO!"; Bishop 2006, "Pattern recognition and machine learning", section 12.2.4 (factor analysis).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchvae.arguments import whole_positive
from scratchvae.data.checks import as_data
from scratchvae.finite import is_whole_number
from scratchvae.reference.gaussian import LOG_2_PI, kl_to_prior_forward
from scratchvae.vae import VAE, Gaussian


class Posterior(NamedTuple):
    """p(z|x) = N(mean, covariance). The covariance is the same for every x."""

    mean: NDArray  # (B, Z)
    covariance: NDArray  # (Z, Z)


@dataclass(frozen=True)
class LinearGaussian:
    """z ~ N(0, I), x|z ~ N(z W + b, diag(s2)).

    Takes     weight W (Z, D); bias b (D,); variance s2: one number, or (D,)
    Raises    ValueError for shapes that do not fit or a variance that is not positive

    Everything goes through the precision of the posterior, which is small (Z, Z) and at least the identity:
    M = I + W diag(1/s2) W^T = U diag(1 + g^2) U^T, with the singular values g of W diag(s2)^-1/2 = U diag(g) V^T.
    With one variance, s2 M is the M of Tipping and Bishop. M itself would have lost 1 beside a large g^2.
    """

    weight: NDArray
    bias: NDArray
    variance: NDArray

    def __post_init__(self) -> None:
        weight, bias, variance = (np.asarray(array, np.float64) for array in (self.weight, self.bias, self.variance))
        if weight.ndim != 2 or bias.shape != weight.shape[1:] or variance.size not in (1, bias.size):
            raise ValueError(
                f"weight {weight.shape}, bias {bias.shape}, variance {variance.shape}; expected (Z, D), (D,), and one "
                "variance or (D,)"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all() and np.isfinite(variance).all()):
            raise ValueError("weight, bias and variance hold NaN or infinity; expected finite numbers")
        if not (variance > 0).all():
            raise ValueError(f"the smallest variance is {variance.min()}; expected a positive number")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "variance", np.broadcast_to(variance.reshape(-1), bias.shape))

    @classmethod
    def from_vae(cls, vae: VAE) -> "LinearGaussian":
        """The model that the decoder of `vae` is. Raises ValueError where it is not linear with Gaussian noise."""
        vae.check_one_layer()
        if vae.hidden and vae.activation != "identity":
            raise ValueError(f"{vae!r}: an exact answer needs a linear decoder: hidden=() or activation 'identity'")
        if vae.likelihood.name not in NOISE:
            raise ValueError(f"{vae!r}: an exact answer needs one of the likelihoods {', '.join(NOISE)}")
        parameters = vae.parameters.astype(np.float64)
        weight, bias = np.eye(vae.latent_dim), np.zeros(vae.latent_dim)
        for layer in parameters.network("decoder", vae.activation).layers:
            weight, bias = weight @ layer.weight, bias @ layer.weight + layer.bias
        logvar = parameters["likelihood.logvar"] if "likelihood.logvar" in parameters else np.zeros(1)
        return cls(weight, bias, np.exp(logvar))

    @cached_property
    def precision(self) -> NDArray:
        """M (Z, Z), the inverse covariance of the posterior."""
        scaled = self.weight / np.sqrt(self.variance)
        return np.eye(len(self.weight)) + scaled @ scaled.T

    @cached_property
    def gap(self) -> float:
        """log p(x) - ELBO of the best diagonal q: what any diagonal Gaussian has to lose, the same for every x.

        Formula   1/2 [sum_j log M_jj - log|M|]  >= 0, and 0 exactly where the rows of W diag(s2)^-1/2 are orthogonal
        Source    Lucas et al. 2019
        """
        return max(0.0, 0.5 * float(np.log(np.diag(self.precision)).sum() - self._log_determinant))  # Hadamard

    def log_evidence(self, x: ArrayLike) -> NDArray:
        """log p(x) = log N(x; b, C) of every example.

        Formula   -1/2 [D log 2 pi + sum_d log s2_d + log|M| + |(x - b - m W) / s|^2 + |m|^2],  m the posterior mean:
                  the matrix determinant lemma and Woodbury's identity, the latter as a sum of squares, where no two
                  large terms cancel. The rounding of x - b - m W remains, about 2^-52 |x| |x - b - m W| / s2 nats:
                  1e-10 for x of size 1 and noise of its own size where s2 = 1e-12, 1e-6 where s2 = 1e-20
        Takes     x (B, D)
        Returns   (B,), in nats
        Raises    ValueError for data that do not fit the model
        Source    Bishop 2006, equation 12.65; for one variance Tipping, Bishop 1999, section 3.1
        """
        x = self._data(x)
        mean = self._posterior_mean(x)
        distance = np.square(self._residual(x, mean)).sum(axis=1) + np.square(mean).sum(axis=1)
        return -0.5 * (x.shape[1] * LOG_2_PI + np.log(self.variance).sum() + self._log_determinant + distance)

    def posterior(self, x: ArrayLike) -> Posterior:
        """p(z|x) = N(M^-1 W diag(1/s2) (x - b), M^-1).

        Takes     x (B, D)
        Returns   Posterior: mean (B, Z), covariance (Z, Z)
        Raises    ValueError for data that do not fit the model
        Source    Bishop 2006, equations 12.66 and 12.68; for one variance Tipping, Bishop 1999, section 3.1
        """
        left, gains, _ = self._turned
        return Posterior(self._posterior_mean(self._data(x)), (left / (1 + np.square(gains))) @ left.T)

    def best_diagonal(self, x: ArrayLike) -> Gaussian:
        """The diagonal Gaussian with the largest ELBO: the posterior's mean, and variances 1 / M_jj.

        Takes     x (B, D)
        Returns   Gaussian(mu, logvar), each (B, Z). The variances are below the posterior's wherever M is not diagonal
        Source    Bishop 2006, equation 10.12
        """
        mean = self._posterior_mean(self._data(x))
        return Gaussian(mean, np.broadcast_to(-np.log(np.diag(self.precision)), mean.shape).copy())

    def elbo(self, x: ArrayLike, q: Gaussian) -> NDArray:
        """The ELBO of any diagonal Gaussian q, its expectation in closed form.

        Formula   E_q log p(x|z) - KL(q || p(z)),
                  E_q log p(x|z) = log N(x; mu W + b, diag(s2)) - 1/2 sum_j exp(logvar_j) (M_jj - 1)
        Takes     x (B, D); q: mu, logvar (B, Z)
        Returns   (B,), in nats
        Raises    ValueError for data or a q that do not fit the model
        """
        rows, mu, logvar = self._data_and_posterior(x, q)
        squares = np.square(self._residual(rows, mu)).sum(axis=1)
        spread = np.exp(logvar) @ (np.diag(self.precision) - 1)
        reconstruction = -0.5 * (self.bias.size * LOG_2_PI + np.log(self.variance).sum() + squares + spread)
        return reconstruction - kl_to_prior_forward(mu, logvar)[0]

    def kl_to_posterior(self, x: ArrayLike, q: Gaussian) -> NDArray:
        """KL(q || p(z|x)) of any diagonal Gaussian q: the gap log p(x) - ELBO, by another route.

        Formula   1/2 [sum_j (t_j - 1 - log t_j) + (mu - m)^T M (mu - m)] + gap,   t_j = M_jj exp(logvar_j):
                  what is wrong with the variances, with the mean, and what no diagonal Gaussian can mend
        Takes     x (B, D); q: mu, logvar (B, Z)
        Returns   (B,), in nats
        Raises    ValueError for data or a q that do not fit the model
        Source    Rasmussen, Williams 2006, "Gaussian processes for machine learning", equation A.23
        """
        rows, mu, logvar = self._data_and_posterior(x, q)
        log_ratio = np.log(np.diag(self.precision)) + logvar
        left, gains, _ = self._turned
        miss = (mu - self._posterior_mean(rows)) @ left * np.hypot(1, gains)
        return 0.5 * ((np.expm1(log_ratio) - log_ratio).sum(axis=1) + np.square(miss).sum(axis=1)) + self.gap

    @cached_property
    def _turned(self) -> tuple[NDArray, NDArray, NDArray]:
        """U (Z, Z), g (Z,), V^T (Z, D) of W diag(s2)^-1/2; where Z > D the last g are 0, and rows of V^T too."""
        latent_dim, data_dim = self.weight.shape
        left, gains, right = np.linalg.svd(self.weight / np.sqrt(self.variance), full_matrices=latent_dim > data_dim)
        missing = latent_dim - len(gains)
        return left, np.pad(gains, (0, missing)), np.pad(right, ((0, missing), (0, 0)))

    @cached_property
    def _log_determinant(self) -> float:
        return float(np.log1p(np.square(self._turned[1])).sum())

    def _posterior_mean(self, x: NDArray) -> NDArray:
        left, gains, right = self._turned
        along = ((x - self.bias) / np.sqrt(self.variance)) @ right.T
        return along * (gains / (1 + np.square(gains))) @ left.T

    def _residual(self, x: NDArray, z: NDArray) -> NDArray:
        return (x - self.bias - z @ self.weight) / np.sqrt(self.variance)

    def _data(self, x: ArrayLike) -> NDArray:
        return float_data(x, self.bias.size)

    def _data_and_posterior(self, x: ArrayLike, q: Gaussian) -> tuple[NDArray, NDArray, NDArray]:
        if not isinstance(q, Gaussian):
            raise ValueError(f"q is a {type(q).__name__}; expected a diagonal Gaussian")
        rows, mu, logvar = self._data(x), np.asarray(q.mu, np.float64), np.asarray(q.logvar, np.float64)
        expected = len(rows), len(self.weight)
        if not mu.shape == logvar.shape == expected:
            raise ValueError(f"q has mu {mu.shape} and logvar {logvar.shape}; expected {expected} for both")
        return rows, mu, logvar


NOISE = ("gaussian", "gaussian-learned", "gaussian-learned-diagonal")  # likelihoods whose variance does not depend on z


def principal_components(x: ArrayLike, latent_dim: int, variance: float | None = None) -> LinearGaussian:
    """The linear-Gaussian model with one variance that maximises the likelihood of x: probabilistic PCA.

    Formula   b = mean of x,  s2 = mean of the left-out eigenvalues of the covariance of x,
              row j of W = sqrt(max(l_j - s2, 0)) times the j-th eigenvector: orthogonal, so that the gap is 0
    Takes     x (N, D); latent_dim Z < D; variance: an s2 that is held, for which this W is the best
    Raises    ValueError for another Z, or where the left-out variance is zero and none is given: then the likelihood
              has no maximum
    Source    Tipping, Bishop 1999, equations 7 and 8; with s2 held Lucas et al. 2019
    """
    x = float_data(x)
    _check_latent_dim(latent_dim, x.shape[1])
    variance = left_out_variance(x, latent_dim) if variance is None else variance
    values, vectors = np.linalg.eigh(_covariance(x))
    leading, directions = values[::-1][:latent_dim], vectors[:, ::-1][:, :latent_dim]
    weight = np.sqrt(np.maximum(leading - variance, 0.0)) * directions
    return LinearGaussian(weight.T, x.mean(axis=0), np.array(variance))


def maximum_log_evidence(x: ArrayLike, latent_dim: int) -> float:
    """The largest mean log p(x) that a linear-Gaussian model with one variance reaches on x, in nats per example.

    Formula   -1/2 [D log 2 pi + sum_{i<=Z} log l_i + (D - Z) log s2 + D], l the eigenvalues of the covariance of x
    Takes     x (N, D); latent_dim Z < D
    Source    Tipping, Bishop 1999, section 3.2
    """
    x = float_data(x)
    variance = left_out_variance(x, latent_dim)
    leading, data_dim = covariance_eigenvalues(x)[:latent_dim], x.shape[1]
    left_out = (data_dim - latent_dim) * np.log(variance)
    return float(-0.5 * (data_dim * LOG_2_PI + np.log(leading).sum() + left_out + data_dim))


def left_out_variance(x: ArrayLike, latent_dim: int) -> float:
    """s2 of probabilistic PCA: the mean of the eigenvalues beyond the first `latent_dim`. Raises as
    `principal_components`."""
    values = covariance_eigenvalues(x)
    _check_latent_dim(latent_dim, values.size)
    variance = float(values[latent_dim:].mean())
    if variance <= values.size * np.finfo(np.float64).eps * values[0]:
        raise ValueError(f"x varies in no more than {latent_dim} directions: the likelihood has no maximum")
    return variance


def _check_latent_dim(latent_dim: int, data_dim: int) -> None:
    if not is_whole_number(latent_dim) or not 1 <= latent_dim < data_dim:
        raise ValueError(f"latent_dim is {latent_dim}; expected 1 to {data_dim - 1}, fewer than data dimensions")


def active_units_at(x: ArrayLike, variance: float, latent_dim: int) -> int:
    """How many latent units a linear VAE uses at its best with s2 held at `variance`: eigenvalues above s2, at most Z.

    Raises    ValueError for a variance that is not positive, or a Z that is no whole number of at least 1
    Source    Lucas et al. 2019; the others collapse to the prior
    """
    if not variance > 0:
        raise ValueError(f"variance is {variance}; expected a positive number")
    return min(whole_positive("latent_dim", latent_dim), int((covariance_eigenvalues(x) > variance).sum()))


def covariance_eigenvalues(x: ArrayLike) -> NDArray:
    """Eigenvalues of the covariance 1/N sum (x - mean)(x - mean)^T, largest first. Takes x (N, D); returns (D,)."""
    return np.linalg.eigvalsh(_covariance(float_data(x)))[::-1]


def float_data(x: ArrayLike, data_dim: int | None = None) -> NDArray:
    """Data as float64, checked; uint8 scaled by 1/255 as everywhere. Takes x (N, D)."""
    data = as_data(x, data_dim)
    return data / 255.0 if data.dtype == np.uint8 else data.astype(np.float64)


def _covariance(x: NDArray) -> NDArray:
    centred = x - x.mean(axis=0)
    return centred.T @ centred / len(x)
