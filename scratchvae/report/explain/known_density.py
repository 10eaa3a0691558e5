"""Points 6 and 7, on data in the plane whose density is known: p(x) as a mixture, and which p(x) is meant.

The data are drawn from a density that is written down, so that their entropy and KL(data || model) are integrals over
the plane, and nothing has to be estimated from a sample.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.evidence.quadrature import integrate
from scratchvae.progress import Advance
from scratchvae.reference.gaussian import LOG_2_PI
from scratchvae.reference.log_sum_exp import log_sum_exp_forward
from scratchvae.reference.random import Stream, normals, uniforms
from scratchvae.training import fit
from scratchvae.vae import VAE, Gaussian

from .identity import Identity
from .subject import Settings, Subject, next_seed

CENTRES = 60
RADIUS = 1.6
SPREAD = 0.16  # standard deviation of each component
PLANE = 3.0  # half-width of the square that is integrated over
NEGLIGIBLE = 1e-13  # density below which a node of the plane adds nothing
Z_BOX, Z_NODES = 8.5, 1001  # the integral over z that gives log p(x)
HERMITE_NODES, TRAPEZOID_NODES = 64, 89  # two rules under q that share no node
PICTURE_GRID = 150


# --- the data ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Horseshoe:
    """An equal mixture of round Gaussians along an open ring: a density that looks like a curve, known exactly."""

    centres: NDArray  # (C, 2)
    spread: float

    @classmethod
    def make(cls) -> "Horseshoe":
        angle = np.pi * np.linspace(-0.2, 1.2, CENTRES)
        return cls(RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1), SPREAD)

    def log_density(self, x: NDArray) -> NDArray:
        """log of 1/C sum_c N(x; centre_c, spread^2 I). Takes x (N, 2); returns (N,)."""
        squares = np.square(x[:, None] - self.centres).sum(axis=2) / self.spread**2
        return log_sum_exp_forward(-0.5 * squares - LOG_2_PI - 2 * np.log(self.spread))[0] - np.log(len(self.centres))

    def draw(self, n: int, seed: int) -> NDArray:
        """n draws (n, 2)."""
        rows = np.arange(n)
        which = (uniforms(seed, Stream.LATENT, 0, rows, 1)[:, 0] * len(self.centres)).astype(int)
        return self.centres[which] + self.spread * normals(seed, Stream.PIXELS, 0, rows, 2).astype(np.float64)


@dataclass(frozen=True)
class Plane:
    """Nodes of the plane where the data have density, and the weight density * area of each."""

    x: NDArray  # (G, 2)
    weight: NDArray  # (G,): sums to 1
    log_density: NDArray  # (G,)

    @classmethod
    def of(cls, density: Horseshoe, spacing: float) -> "Plane":
        axis = np.arange(-PLANE, PLANE + spacing / 2, spacing)
        x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        log_density = density.log_density(x)
        kept = np.exp(log_density) > NEGLIGIBLE
        return cls(x[kept], np.exp(log_density[kept]) * spacing**2, log_density[kept])

    def mean(self, values: NDArray) -> float:
        """The expectation under the data's density of values at the nodes (G,)."""
        return float(self.weight @ values)


# --- the model --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """p(x) as a finite mixture: one Gaussian around decoder(z_i) for each z_i of a grid weighted by the prior."""

    vae: VAE
    z: NDArray  # (n, Z)
    weight: NDArray  # (n,): sums to 1, so that the mixture is itself a density

    @classmethod
    def over_grid(cls, vae: VAE, per_axis: int, half: float = 6.5, shift: float = 0.0) -> "Mixture":
        """An even grid over the prior."""
        axis = np.linspace(-half, half, per_axis) + shift * 2 * half / per_axis
        z = np.stack(np.meshgrid(*[axis] * vae.latent_dim, indexing="ij"), axis=-1).reshape(-1, vae.latent_dim)
        weight = np.exp(-0.5 * np.square(z).sum(axis=1))
        return cls(vae, z, weight / weight.sum())

    def log_density(self, x: NDArray) -> NDArray:
        """log sum_i weight_i p(x | z_i). Takes x (N, D); returns (N,)."""
        log_likelihood = np.concatenate(
            [self._log_likelihood(block) for block in np.array_split(x, _blocks(x, self.z))]
        )
        return log_sum_exp_forward(np.log(self.weight) + log_likelihood)[0]

    def _log_likelihood(self, x: NDArray) -> NDArray:
        vae = self.vae
        out, _ = vae.ops.network_forward(self.z, vae._decoder)
        shared = np.broadcast_to(out[None], (len(x), *out.shape))
        return vae.likelihood.forward(vae.ops, x, shared, vae.parameters)[0]


def _blocks(x: NDArray, z: NDArray) -> int:
    """How many pieces keep each below about two million numbers."""
    return max(1, len(x) * len(z) * x.shape[1] // (1 << 21))


def terms_on(vae: VAE, plane: Plane) -> tuple[NDArray, NDArray, NDArray]:
    """log p(x), ELBO and gap at every node of the plane, each by a rule of its own. One latent dimension.

    Formula   log p(x) = log integral p(x|z) p(z) dz, an even grid over the prior
              ELBO = E_q [log p(x, z) - log q], Gauss-Hermite; gap = E_q [log q - log p(z|x)], trapezoidal rule, with
              p(z|x) normalised by a log p(x) on a grid shifted by half a step: no node is used twice
    """
    log_evidence = Mixture.over_grid(vae, Z_NODES, Z_BOX).log_density(plane.x)
    normaliser = Mixture.over_grid(vae, Z_NODES - 1, Z_BOX, 0.5).log_density(plane.x)
    q = vae.encode(plane.x)
    u, weight = np.polynomial.hermite_e.hermegauss(HERMITE_NODES)
    elbo = -_expected_log_ratio(vae, plane.x, q, u, weight)
    u = np.linspace(-8.25, 8.25, TRAPEZOID_NODES)
    gap = _expected_log_ratio(vae, plane.x, q, u, np.exp(-0.5 * u**2)) + normaliser
    return log_evidence, elbo, gap


def _expected_log_ratio(vae: VAE, x: NDArray, q: Gaussian, u: NDArray, weight: NDArray) -> NDArray:
    """E_q [log q(z|x) - log p(x, z)] by nodes u, in standard deviations of q, and weights. Returns (N,)."""
    parts = []
    for rows in np.array_split(np.arange(len(x)), max(1, len(x) * len(u) // (1 << 16))):
        eps = np.broadcast_to(u[None, :, None], (len(rows), len(u), 1))
        z, _ = vae.ops.reparameterize_forward(q.mu[rows], q.logvar[rows], eps)
        log_q, _ = vae.ops.gaussian_log_density_forward(z, q.mu[rows], q.logvar[rows])
        parts.append((log_q - vae.log_joint(x[rows], z)) @ (weight / weight.sum()))
    return np.concatenate(parts)


# --- point 7 ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WhichDensity:
    """mean ELBO = -entropy - KL(data || model) - mean gap, at some epochs of training. In nats; S looks."""

    epochs: NDArray  # (S,)
    entropy: float  # of the data: -E log p_data(x)
    kl: NDArray  # (S,): KL(data || model)
    gap: NDArray  # (S,): E of the posterior gap
    elbo: NDArray  # (S,): E of the ELBO
    log_evidence: NDArray  # (S,): E log p_theta(x)
    deviation: float  # the decoder's standard deviation at the end
    grid: NDArray  # (g,): the axis of the pictures
    data_density: NDArray  # (g, g)
    early_density: NDArray  # (g, g): the model's
    late_density: NDArray
    early_epoch: int
    examples: int

    @property
    def residual(self) -> NDArray:
        """mean ELBO + entropy + KL(data || model) + mean gap: 0 but for rounding."""
        return self.elbo + self.entropy + self.kl + self.gap

    @property
    def worst_residual(self) -> float:
        return float(np.abs(self.residual).max())


@dataclass(frozen=True)
class Toy:
    """The density, the trained model, and its parameters at the epochs that are looked at."""

    density: Horseshoe
    vae: VAE
    looks: dict[int, VAE]


def train_toy(settings: Settings, seed: int) -> Toy:
    """One latent dimension, a decoder with a learned variance, data from the horseshoe."""
    density = Horseshoe.make()
    x = density.draw(settings.toy_examples, seed)
    vae = VAE(2, 1, settings.toy_hidden, "gaussian-learned", "tanh", "float64", "reference", seed)
    vae.set_output_bias(x.mean(axis=0))
    looks = {0: vae.with_parameters(vae.parameters.copy())}

    def remember(entry: dict[str, Any]) -> None:
        if entry["epoch"] in settings.toy_looks:
            looks[entry["epoch"]] = vae.with_parameters(vae.parameters.copy())

    fit(vae, x, settings.toy_epochs, batch_size=200, learning_rate=1e-2, seed=seed, progress=False, on_epoch=remember)
    looks[settings.toy_epochs] = vae.with_parameters(vae.parameters.copy())
    return Toy(density, vae, looks)


def which_density(toy: Toy, settings: Settings, watch: Advance = lambda: None) -> WhichDensity:
    """All four numbers at every look, by integrals over the plane."""
    plane = Plane.of(toy.density, settings.toy_spacing)
    rows = []
    for vae in toy.looks.values():
        log_evidence, elbo, gap = terms_on(vae, plane)
        kl = plane.log_density - log_evidence  # in expectation
        rows.append([plane.mean(values) for values in (kl, gap, elbo, log_evidence)])
        watch()
    axis = np.linspace(-PLANE, PLANE, PICTURE_GRID)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    epochs = list(toy.looks)
    early = epochs[min(len(epochs) - 1, len(epochs) // 3)]
    pictures = [toy.density.log_density(x)] + [
        Mixture.over_grid(toy.looks[epoch], 801).log_density(x) for epoch in (early, epochs[-1])
    ]
    data_density, early_density, late_density = (np.exp(values).reshape(len(axis), -1) for values in pictures)
    deviation = float(np.exp(0.5 * toy.vae.parameters["likelihood.logvar"][0]))
    kl, gap, elbo, log_evidence = (np.array(column) for column in zip(*rows, strict=True))
    return WhichDensity(
        np.array(epochs),
        plane.mean(-plane.log_density),
        kl,
        gap,
        elbo,
        log_evidence,
        deviation,
        axis,
        data_density,
        early_density,
        late_density,
        early,
        settings.toy_examples,
    )


# --- point 6 ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InfiniteMixture:
    """How far log of the mixture over a grid of z is from log p(x) by quadrature, as the grid becomes finer."""

    sizes: NDArray  # (S,): components on the line, for the data in the plane
    errors: NDArray  # (S,): mean |log mixture - log p(x)|, nats
    per_axis: NDArray  # (T,): grid points along each axis of the digits' latent space
    digit_errors: NDArray  # (T,)
    latent_dim: int
    shown: tuple[int, ...]
    pictures: tuple[NDArray, ...]  # densities (g, g)
    centres: tuple[NDArray, ...]  # decoder(z_i), (n, 2)
    weights: tuple[NDArray, ...]  # (n,)
    grid: NDArray

    @property
    def components(self) -> NDArray:
        """How many components the digits' mixtures have."""
        return self.per_axis**self.latent_dim


def infinite_mixture(
    toy: Toy, subject: Subject, settings: Settings, found: Identity, seed: int, watch: Advance = lambda: None
) -> InfiniteMixture:
    """Mixtures over finer and finer grids, on the plane and on the digits."""
    x = toy.density.draw(64, next_seed(seed))
    exact = integrate(toy.vae, x).log_evidence
    watch()
    errors = [
        float(np.abs(Mixture.over_grid(toy.vae, size).log_density(x) - exact).mean()) for size in settings.mixture_sizes
    ]
    per_axis = np.array([size for size in settings.mixture_sizes if size**subject.vae.latent_dim <= 1 << 14])
    digits = subject.held_out[found.rows]
    digit_errors = []
    for size in per_axis:
        values = Mixture.over_grid(subject.vae, int(size)).log_density(digits)
        digit_errors.append(float(np.abs(values - found.log_evidence).mean()))
    watch()
    shown = tuple(settings.mixture_sizes[index] for index in (1, 2, 3, -1))
    axis = np.linspace(-PLANE, PLANE, PICTURE_GRID)
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mixtures = [Mixture.over_grid(toy.vae, size) for size in shown]
    pictures = tuple(np.exp(one.log_density(plane)).reshape(len(axis), -1) for one in mixtures)
    return InfiniteMixture(
        np.array(settings.mixture_sizes),
        np.array(errors),
        per_axis,
        np.array(digit_errors),
        subject.vae.latent_dim,
        shown,
        pictures,
        tuple(toy.vae.decode(one.z) for one in mixtures),
        tuple(one.weight for one in mixtures),
        axis,
    )
