"""log p(x), the ELBO and KL(q || p(z|x)) by numerical integration over z, for one to three latent dimensions.

    log p(x) = log of the integral of f(z) = p(x|z) p(z)          ELBO = integral of q (log f - log q)
    KL(q || p(z|x)) = integral of q (log q - log f + log p(x))    and so log p(x) = ELBO + KL, whatever q is

How an example is integrated:

1. Where. A lattice over the prior, shared by all examples, finds the mass of f. A frame, z = centre + axes u, is then
   moved and scaled until what the box |u_j| <= R holds has mean 0 and covariance I in u and ends inside it. That can be
   one mode of several: the box is widened to every peak that the lattice saw.
2. How. Smooth decoders: the trapezoidal rule, all weights equal, on a lattice in u. For a function that decays like a
   Gaussian and is analytic, its error falls faster than any power of the spacing. Decoders made of relus are smooth
   only between kinks: for Z = 1 the line, for Z = 2 the plane is cut exactly where the network has a kink, and each
   piece is integrated by Gauss's rule; for Z = 3 planes are, and the trapezoidal rule goes across them.
3. How well. Finer and finer rules, each with nodes of its own, until two in a row agree and the last has nodes as high
   as every peak of the lattice. Their difference, what lies in the box's outermost layer, and rounding make the error
   that is reported; `converged` says whether it is within the tolerance. What that cannot exclude is a mode that
   neither the lattice nor the rules come near: far from the others, or much narrower, and a small part of the spacing
   wide; the lattice's is 1/32 for Z = 1, 1/8 for Z = 2, 1/2 for Z = 3, and it ends at |z_j| = 8.

log p(x) and the ELBO come from the last rule; the KL from the one before it, nodes and normaliser both. No node is
shared, so that log p(x) - ELBO - KL = 0 is a check and not a tautology.

B examples, D data, Z latent dimensions, G nodes. Everything is float64, in log space, in nats.

Source: Trefethen, Weideman 2014, "The exponentially convergent trapezoidal rule".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchvae.arguments import in_short, whole_positive
from scratchvae.evidence.door import in_one_order
from scratchvae.evidence.triangles import affine_pieces, gauss_on_triangles
from scratchvae.finite import is_finite_number
from scratchvae.likelihoods import Bernoulli
from scratchvae.progress import Watch, counted
from scratchvae.reference.gaussian import LOG_2_PI
from scratchvae.vae import VAE

MAX_LATENT_DIM = 3
PRIOR_BOX = 8.0  # half-width of the lattice that looks for the mass
PRIOR_POINTS = (513, 129, 33)  # of it along an axis, for Z = 1, 2, 3
FRAME_BOX = 8.25  # half-width in posterior standard deviations: a Gaussian has 2e-16 of its mass outside
LARGEST_BOX = 2000.0  # half-width up to which a box is enlarged
LONGEST_AXIS = 1 << 26  # spacings from end to end of a box, up to which rules are refined: half a gigabyte an axis
FRAME_ATTEMPTS = 40
COARSEST = 0.75  # spacing in standard deviations: a Gaussian is integrated to 1e-15
SMOOTH_RATIO, KINKED_RATIO = 2 / 3, 0.6  # of the spacings of successive rules
NEGLIGIBLE = 34.0  # nats below the highest point
ROUNDING = 16 * 2.0**-52  # of a sum of log-densities, relative
GAUSS_ORDERS = (0.01, 2), (0.03, 3), (0.1, 4), (0.3, 6), (np.inf, 8)  # nodes on a piece, by its share of the widest
CHUNK = 1 << 18  # elements of an array of the decoder's held together: they stay in the cache
BLOCK_ROWS = 32  # examples that share a pass over the prior's lattice; results do not depend on it


class Quadrature(NamedTuple):
    """The terms of log p(x) = ELBO + KL(q || p(z|x)) for every example, in nats, q the encoder's Gaussian.

    All are (B,), but for the posterior's mean (B, Z) and covariance (B, Z, Z). `error` is that of the worst of the
    three terms, `converged` whether it is within the tolerance, `points` how often p(x|z) was evaluated; where no
    integral came of it, all that were allowed are counted.
    """

    log_evidence: NDArray  # (B,)
    elbo: NDArray  # (B,)
    kl_to_posterior: NDArray  # (B,)
    posterior_mean: NDArray  # (B, Z)
    posterior_covariance: NDArray  # (B, Z, Z)
    error: NDArray  # (B,): estimate for the worst of the three terms, infinite where there is none
    converged: NDArray  # (B,): whether error <= tolerance
    points: NDArray  # (B,): evaluations of p(x|z)

    @property
    def residual(self) -> NDArray:
        """log p(x) - ELBO - KL, 0 but for the errors of integration."""
        return self.log_evidence - self.elbo - self.kl_to_posterior


class PosteriorGrid(NamedTuple):
    """p(z|x) on a tensor grid: a picture of it, one array an example.

    `axes` are Z arrays of grid points; `log_density` is log p(z|x), (B, n_1, ..., n_Z), in nats; mean (B, Z),
    covariance (B, Z, Z) and log_evidence (B,) are those of `integrate`.
    """

    axes: tuple[NDArray, ...]  # Z arrays of grid points
    log_density: NDArray  # (B, n_1, ..., n_Z): log p(z|x)
    mean: NDArray  # (B, Z)
    covariance: NDArray  # (B, Z, Z)
    log_evidence: NDArray  # (B,)


@in_one_order
def integrate(
    vae: VAE, x: ArrayLike, tolerance: float = 1e-10, max_points: int = 1 << 21, watch: Watch | None = None
) -> Quadrature:
    """log p(x), the ELBO and KL(q(z|x) || p(z|x)) of every example by integration over z.

    Formula   with f(z) = p(x|z) p(z):  log p(x) = log of the integral of f
              ELBO = integral of q (log f - log q)        KL = integral of q (log q - log f) + log p(x)
    Takes     x (B, D); tolerance: nats; max_points: of each of an example's two integrals (under q, and of p(x, z));
              watch: told how many examples are done
    Returns   Quadrature. Where the tolerance was out of reach, `converged` is False and `error` says by how much;
              where there is no telling (a posterior too sharp or too wide for max_points), `error` is infinite
    Raises    ValueError for more than three latent dimensions, or bad input; NotFiniteError where the encoder gives NaN
    Source    Trefethen, Weideman 2014, "The exponentially convergent trapezoidal rule"
    """
    vae, x = _checked(vae, x, tolerance, max_points)
    q = vae.encode(x)
    around_q = [Frame.of(mean, covariance) for mean, covariance in zip(q.mu, q.covariance, strict=True)]

    def row(number: int, survey: Survey) -> tuple:
        return _integrate_one(vae, x[number], around_q[number], survey, tolerance, max_points)

    return Quadrature(*_columns(vae, x, row, watch))


def integrate_evidence(
    vae: VAE, x: ArrayLike, tolerance: float = 1e-10, max_points: int = 1 << 21, watch: Watch | None = None
) -> tuple[NDArray, NDArray]:
    """log p(x) of every example alone, by the integral over z that no encoder has a part in.

    Takes     as `integrate`
    Returns   log p(x) and its error, each (B,), in nats; where there is none NaN, and infinite
    Raises    as `integrate`
    Source    as `integrate`
    """
    vae, x = _checked(vae, x, tolerance, max_points)

    def row(number: int, survey: Survey) -> tuple:
        found, _, _ = _log_integral(vae, x[number], survey, tolerance, max_points)
        return found.last, found.error + ROUNDING * abs(found.last)

    log_evidence, error = _columns(vae, x, row, watch)
    return log_evidence, np.where(np.isnan(error), np.inf, error)


def _checked(vae: VAE, x: ArrayLike, tolerance: float, max_points: int) -> tuple[VAE, NDArray]:
    vae = _in_float64(vae)
    whole_positive("max_points", max_points)
    if not (is_finite_number(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance is {tolerance!r}; expected a positive number")
    return vae, vae._batch(x)


def _columns(vae: VAE, x: NDArray, row: Callable[[int, "Survey"], tuple], watch: Watch | None) -> list[NDArray]:
    """What `row` says of every example, by its number and its survey, as columns."""
    advance = counted(watch, len(x))
    rows: list[tuple] = []
    for start in range(0, len(x), BLOCK_ROWS):
        for survey in _surveys(vae, x[start : start + BLOCK_ROWS]):
            rows.append(row(len(rows), survey))
            advance()
    return [np.array(column) for column in zip(*rows, strict=True)]


@in_one_order
def posterior_on_grid(vae: VAE, x: ArrayLike, axes: tuple[ArrayLike, ...] | None = None) -> PosteriorGrid:
    """log p(z|x) of every example on one tensor grid, normalised by the integral over all of z and not of the grid.

    Takes     x (B, D); axes: Z arrays of grid points, by default 101 from -4 to 4 along each
    Returns   PosteriorGrid
    Raises    as `integrate`; ValueError where there are not Z axes
    Source    Bayes' rule: p(z|x) = p(x, z) / p(x)
    """
    vae = _in_float64(vae)
    axes = (np.linspace(-4, 4, 101),) * vae.latent_dim if axes is None else axes
    if not np.iterable(axes):
        raise ValueError(f"axes is {in_short(axes)}; expected {vae.latent_dim} 1-D arrays")
    grids = tuple(np.asarray(axis, np.float64) for axis in axes)
    if len(grids) != vae.latent_dim or any(axis.ndim != 1 for axis in grids):
        raise ValueError(f"axes has shapes {[axis.shape for axis in grids]}; expected {vae.latent_dim} 1-D arrays")
    whole = integrate(vae, x)
    table = _log_joint(vae, vae._batch(x), _tensor(grids))  # log p(x, z) at every point of the grid
    log_density = (table - whole.log_evidence[:, None]).reshape(len(table), *(axis.size for axis in grids))
    return PosteriorGrid(grids, log_density, whole.posterior_mean, whole.posterior_covariance, whole.log_evidence)


def _in_float64(vae: VAE) -> VAE:
    """The model in double precision on the engine that is read, whatever it was trained in."""
    if vae.latent_dim > MAX_LATENT_DIM:
        raise ValueError(f"latent_dim is {vae.latent_dim}; quadrature is for at most {MAX_LATENT_DIM}")
    return vae.with_parameters(vae.parameters.astype(np.float64), "reference")


# --- the integrand ----------------------------------------------------------------------------------------------------


def _log_joint(vae: VAE, x: NDArray, z: NDArray) -> NDArray:
    """log p(x, z) of every example at the same nodes. Takes x (B, D), z (G, Z); returns (B, G)."""
    table = np.empty((len(x), len(z)))
    step = max(1, CHUNK // max(vae.data_dim, *vae.hidden, 1))
    for start in range(0, len(z), step):
        nodes = z[start : start + step]
        out, _ = vae.ops.network_forward(nodes, vae._decoder)
        log_prior = -0.5 * (np.square(nodes).sum(axis=1) + vae.latent_dim * LOG_2_PI)
        table[:, start : start + step] = _log_likelihood(vae, x, out) + log_prior
    return table


def _log_likelihood(vae: VAE, x: NDArray, out: NDArray) -> NDArray:
    """log p(x|z) (B, G) of x (B, D) for decoder outputs (G, D).

    A Bernoulli's is linear in x, so two matrix products: -x max(-out, 0) - (1 - x) max(out, 0) - log(1 + exp(-|out|)).
    No term is above 0: where pixels are certain, large ones would cancel in x out - log(1 + exp(out)).
    """
    if isinstance(vae.likelihood, Bernoulli):
        wrong = x @ np.maximum(-out, 0).T + (1 - x) @ np.maximum(out, 0).T
        return -wrong - vae.ops.softplus_forward(-np.abs(out))[0].sum(axis=1)
    rows = [vae.likelihood.forward(vae.ops, row[None], out[None], vae.parameters)[0][0] for row in x]
    return np.stack(rows)


# --- where the mass is ------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """Coordinates u in which a posterior is about N(0, I): z = centre + axes u."""

    centre: NDArray  # (Z,)
    axes: NDArray  # (Z, Z)

    @classmethod
    def of(cls, mean: NDArray, covariance: NDArray) -> "Frame":
        values, vectors = np.linalg.eigh(covariance)
        # turned out of line with z: a latent unit that the decoder ignores would put kinks parallel to an axis
        return cls(mean, (vectors * np.sqrt(values)) @ vectors.T @ _generic_rotation(len(mean)))

    def points(self, u: NDArray) -> NDArray:
        return self.centre + u @ self.axes.T

    def coordinates(self, z: NDArray) -> NDArray:
        return np.linalg.solve(self.axes, (z - self.centre).T).T

    def moved(self, mean: NDArray, covariance: NDArray) -> "Frame":
        """The frame of a posterior with this mean and covariance in u."""
        return Frame.of(self.centre + self.axes @ mean, self.axes @ covariance @ self.axes.T)

    @property
    def log_volume(self) -> float:
        return float(np.linalg.slogdet(self.axes)[1])


def _generic_rotation(size: int) -> NDArray:
    index = np.arange(1.0, size + 1)
    return np.linalg.qr(np.cos(np.outer(index, index)))[0]


class Tempered(NamedTuple):
    """Weights f^t / sum f^t at lattice points: t = 1, or less where f is too sharp for the lattice to see its shape."""

    weights: NDArray  # (G,)
    temper: float


def _temper(log_f: NDArray, latent_dim: int) -> Tempered:
    """The largest t <= 1 whose weights are spread over at least 3 points along each axis.

    So a narrow mode between lattice points is not lost to its better placed neighbour before the frame has shrunk.
    """
    wanted = 3.0**latent_dim
    relative = log_f - log_f.max()

    def weights(temper: float) -> NDArray:
        powers = np.exp(temper * relative)
        return powers / powers.sum()

    if 1 / np.square(weights(1.0)).sum() >= wanted:
        return Tempered(weights(1.0), 1.0)
    low, high = -30.0, 0.0  # log t
    for _ in range(12):
        middle = 0.5 * (low + high)
        spread = 1 / np.square(weights(math.exp(middle))).sum()
        low, high = (middle, high) if spread >= wanted else (low, middle)
    return Tempered(weights(math.exp(low)), math.exp(low))


def _moments(u: NDArray, weights: NDArray) -> tuple[NDArray, NDArray]:
    mean = weights @ u
    centred = u - mean
    return mean, (weights[:, None] * centred).T @ centred


class Points(NamedTuple):
    """Some points of the lattice over the prior."""

    z: NDArray  # (n, Z)
    log_f: NDArray  # (n,)


@dataclass(frozen=True)
class Survey:
    """f of one example on the lattice over the prior."""

    axis: NDArray  # (n,): the lattice's points along each axis
    log_f: NDArray  # (n, ..., n)

    @property
    def spacing(self) -> float:
        return float(self.axis[1] - self.axis[0])

    @property
    def z(self) -> NDArray:
        return _tensor((self.axis,) * self.log_f.ndim)

    def frame(self) -> Frame:
        """A first guess at the posterior's."""
        mean, covariance = _moments(self.z, _temper(self.log_f.ravel(), self.log_f.ndim).weights)
        return Frame.of(mean, covariance + self.spacing**2 / 12 * np.eye(len(mean)))

    def matters(self, log_integral: float) -> NDArray:
        """bool (n, ..., n): where f times the volume of a cell is not negligible in an integral of f."""
        return self.log_f + self.log_f.ndim * math.log(self.spacing) > log_integral - NEGLIGIBLE

    def points(self, log_integral: float) -> Points:
        """All points that matter."""
        chosen = self.matters(log_integral)
        return Points(self.z[chosen.ravel()], self.log_f[chosen])

    def peaks(self, log_integral: float) -> Points:
        """Those that matter and have no higher neighbour along an axis."""
        chosen = self.matters(log_integral)
        for number in range(self.log_f.ndim):
            f, along = np.moveaxis(self.log_f, number, 0), np.moveaxis(chosen, number, 0)
            along[1:] &= f[1:] >= f[:-1]
            along[:-1] &= f[:-1] >= f[1:]
        return Points(self.z[chosen.ravel()], self.log_f[chosen])


def _surveys(vae: VAE, x: NDArray) -> list[Survey]:
    """One for every example, by one pass of the decoder for all."""
    axis = np.linspace(-PRIOR_BOX, PRIOR_BOX, PRIOR_POINTS[vae.latent_dim - 1])
    table = _log_joint(vae, x, _tensor((axis,) * vae.latent_dim))
    table[~np.isfinite(table.max(axis=1))] = 0.0  # the integral will be no number either, and say so
    return [Survey(axis, log_f.reshape((len(axis),) * vae.latent_dim)) for log_f in table]


@dataclass(frozen=True)
class Region:
    """The part of the box |u_j| <= half where f matters: cells of a coarse grid, the ball in it, or all of it."""

    half: float
    ball: bool = False
    size: float = 0.0
    cells: NDArray | None = None  # bool (n, ..., n)

    @classmethod
    def around(cls, u: NDArray, half: float, size: float) -> "Region":
        """The cells with one of the points u (G, Z), and their neighbours."""
        count = math.ceil(2 * half / size)
        cells = np.zeros((count,) * u.shape[1], bool)
        cells[tuple(cls._index(u, half, size, count).T)] = True
        for axis in range(u.shape[1]):
            along = np.moveaxis(cells, axis, 0)
            grown = along.copy()
            grown[1:] |= along[:-1]
            grown[:-1] |= along[1:]
            along[...] = grown
        return cls(half, size=size, cells=cells)

    def contains(self, u: NDArray) -> NDArray:
        """bool (G,)."""
        if self.cells is None:
            return np.square(u).sum(axis=1) <= self.half**2 if self.ball else np.ones(len(u), bool)
        return self.cells[tuple(self._index(u, self.half, self.size, len(self.cells)).T)]

    @staticmethod
    def _index(u: NDArray, half: float, size: float, count: int) -> NDArray:
        return np.clip(((u + half) / size).astype(np.int64), 0, count - 1)


# --- the rules --------------------------------------------------------------------------------------------------------


class Nodes(NamedTuple):
    """Nodes u and weights of a rule on the box, sum exp(log_weight) g(u) ~ integral of g du."""

    u: NDArray  # (G, Z)
    log_weight: NDArray  # (G,)


def _axis(half: float, spacing: float, level: int, which: int = 0) -> NDArray:
    """Points -half + spacing (k + offset) inside the box; the offset differs from rule to rule and axis to axis."""
    offset = ((level + 1) * (math.sqrt(5) - 1) / 2 + which * math.sqrt(2)) % 1.0
    return -half + spacing * (np.arange(math.floor(2 * half / spacing - offset) + 1) + offset)


def _tensor(axes: tuple[NDArray, ...]) -> NDArray:
    """All points of a tensor grid, the last axis fastest. Returns (G, Z)."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


@dataclass(frozen=True)
class Trapezoid:
    """Rule `level`: the trapezoidal rule on a lattice of spacing COARSEST SMOOTH_RATIO^level."""

    latent_dim: int

    def spacing(self, level: int) -> float:
        return COARSEST * SMOOTH_RATIO**level

    def cell(self, level: int) -> float:
        """Cells of this size hold at least one node each."""
        return self.spacing(level)

    def nodes(self, level: int, frame: Frame, region: Region, limit: int) -> Nodes | None:
        """Nodes inside the region; None where they are more than `limit`."""
        spacing = self.spacing(level)
        first, *others = (_axis(region.half, spacing, level, which) for which in range(self.latent_dim))
        plane = math.prod(map(len, others))
        if plane > limit:
            return None
        kept, count = [], 0
        step = max(1, CHUNK // plane)
        for start in range(0, len(first), step):  # some planes at a time: the box may be far larger than the region
            u = _tensor((first[start : start + step], *others))
            kept.append(u[region.contains(u)])
            count += len(kept[-1])
            if count > limit:
                return None
        u = np.concatenate(kept)
        return Nodes(u, np.full(len(u), self.latent_dim * math.log(spacing)))


@dataclass(frozen=True)
class BetweenKinks:
    """Rule `level` for relus: Gauss's rule on every smooth piece.

    Z = 1: pieces of the line end at kinks. Z = 2: triangles end there, see `triangles`. Z = 3: planes of triangles, and
    the trapezoidal rule across them. In rule 0, which is only to look, and where there are too many pieces, lines cut
    at their kinks, and the trapezoidal rule across them.
    """

    vae: VAE

    def spacing(self, level: int) -> float:
        return COARSEST * KINKED_RATIO**level

    def cell(self, level: int) -> float:
        return 2 * self.spacing(level)  # no piece is wider

    def nodes(self, level: int, frame: Frame, region: Region, limit: int) -> Nodes | None:
        """Nodes inside the region; None where they are more than `limit`."""
        nodes = None
        if level > 0 and self.vae.latent_dim > 1:
            nodes = self._on_triangles(level, frame, region, limit)
        if nodes is None:  # or there are too many: singularities stay, and convergence is slow
            nodes = self._on(self._even_lines(level, region, limit), level, frame, region, limit)
        return nodes

    def _on(self, lines: Nodes | None, level: int, frame: Frame, region: Region, limit: int) -> Nodes | None:
        """Nodes on lines along the last axis that cross the others at u (L, Z - 1)."""
        if lines is None:
            return None
        kept: list[Nodes] = []
        count, widest = 0, max(self.vae.hidden)
        step = max(1, CHUNK // (widest * (widest + 30)))
        for start in range(0, len(lines.u), step):
            some = Nodes(lines.u[start : start + step], lines.log_weight[start : start + step])
            kept.append(self._along(frame, some, level, region))
            count += len(kept[-1].u)
            if count > limit:
                return None
        return Nodes(*(np.concatenate(column) for column in zip(*kept, strict=True)))

    def _even_lines(self, level: int, region: Region, limit: int) -> Nodes | None:
        across, spacing = self.vae.latent_dim - 1, self.spacing(level)
        if across == 0:
            return Nodes(np.zeros((1, 0)), np.zeros(1))
        axes = tuple(_axis(region.half, spacing, level, which) for which in range(across))
        if math.prod(map(len, axes)) > limit:
            return None
        u = _tensor(axes)
        return Nodes(u, np.full(len(u), across * math.log(spacing)))

    def _on_triangles(self, level: int, frame: Frame, region: Region, limit: int) -> Nodes | None:
        """Nodes on triangles across the last two axes, on which the network is affine; planes of them where Z = 3."""
        planes = np.zeros((1, 0))
        if self.vae.latent_dim == 3:
            planes = _axis(region.half, self.spacing(level), level)[:, None]
        hidden, kept, count = self.vae._decoder.layers[:-1], [], 0
        together = max(1, int(2000 / sum(self.vae.hidden) ** 1.5))  # squares; more kinks each, fewer at a time
        log_width = (self.vae.latent_dim - 2) * math.log(self.spacing(level))
        for plane in planes:
            squares = self._squares(plane, level, region)
            for start in range(0, len(squares), together):
                triangles = squares[start : start + together].reshape(-1, 3, 2)
                pieces = affine_pieces(triangles, partial(_latent, frame, plane), hidden)
                u, log_weight = gauss_on_triangles(pieces, math.sqrt(2) * self.cell(level))
                kept.append(Nodes(_on_plane(plane, u), log_weight + log_width))
                count += len(u)
                if count > limit:
                    return None
        return Nodes(*(np.concatenate(column) for column in zip(*kept, strict=True)))

    def _squares(self, plane: NDArray, level: int, region: Region) -> NDArray:
        """The squares of an even grid that touch the region, each as two triangles (n, 2, 3, 2)."""
        first, second = (self._even(region.half, level, self.vae.latent_dim - 2 + which) for which in (0, 1))
        kept, step = [], max(1, CHUNK // len(second))
        for start in range(0, len(first) - 1, step):  # some rows at a time: the box may be far larger than the region
            grid = np.stack(np.meshgrid(first[start : start + step + 1], second, indexing="ij"), axis=-1)
            corners = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=2).reshape(-1, 4, 2)
            inside = region.contains(_on_plane(plane, corners.reshape(-1, 2))).reshape(-1, 4).any(axis=1)
            kept.append(corners[inside])
        return np.concatenate(kept)[:, [[0, 1, 2], [0, 2, 3]]]

    def _even(self, half: float, level: int, which: int) -> NDArray:
        """Cuts at even distances, so that no piece is wide."""
        return np.concatenate([[-half], _axis(half, self.cell(level), level, which), [half]])

    def _along(self, frame: Frame, lines: Nodes, level: int, region: Region) -> Nodes:
        """Nodes on some lines, each cut at its kinks and at even distances."""
        even = self._even(region.half, level, self.vae.latent_dim - 1)
        origins = frame.centre + lines.u @ frame.axes[:, :-1].T
        kinks = line_kinks(self.vae, origins, frame.axes[:, -1], region.half)
        cuts = np.sort(np.concatenate([kinks, np.broadcast_to(even, (len(kinks), len(even)))], axis=1), axis=1)
        kept, step = [], max(1, CHUNK // len(cuts))
        for start in range(0, cuts.shape[1] - 1, step):  # some pieces at a time, as in `_squares`
            line, along, log_weight = gauss_between(cuts[:, start : start + step + 1], self.cell(level))
            u = np.column_stack([lines.u[line], along])
            inside = region.contains(u)
            kept.append(Nodes(u[inside], (lines.log_weight[line] + log_weight)[inside]))
        return Nodes(*(np.concatenate(column) for column in zip(*kept, strict=True)))


def _latent(frame: Frame, plane: NDArray, u: NDArray) -> NDArray:
    """z (..., Z) of points (..., 2) of the plane."""
    return frame.points(_on_plane(plane, u))


def _on_plane(plane: NDArray, u: NDArray) -> NDArray:
    """Points (..., Z) of the plane where the first axes are at `plane` (Z - 2,). Takes u (..., 2)."""
    return np.concatenate([np.broadcast_to(plane, (*u.shape[:-1], len(plane))), u], axis=-1)


def gauss_between(cuts: NDArray, unit: float) -> tuple[NDArray, NDArray, NDArray]:
    """Gauss's rule on every piece between neighbouring cuts, of lower order on shorter pieces.

    Takes     cuts (L, m), sorted along a line; unit: the width of the widest
    Returns   line, node, log weight: each (G,)
    """
    widths = np.diff(cuts, axis=1)
    parts: list[tuple[NDArray, NDArray, NDArray]] = []
    for shortest, (widest, order) in zip((0.0, *(width for width, _ in GAUSS_ORDERS)), GAUSS_ORDERS, strict=False):
        line, piece = np.nonzero((widths > shortest * unit) & (widths <= widest * unit))
        middle, radius = (cuts[line, piece] + cuts[line, piece + 1]) / 2, widths[line, piece] / 2
        abscissas, weights = np.polynomial.legendre.leggauss(order)
        node = middle[:, None] + radius[:, None] * abscissas
        parts.append((np.repeat(line, order), node.ravel(), np.log(radius[:, None] * weights).ravel()))
    lines, nodes, log_weights = zip(*parts, strict=True)
    return np.concatenate(lines), np.concatenate(nodes), np.concatenate(log_weights)


def line_kinks(vae: VAE, origins: NDArray, direction: NDArray, half: float) -> NDArray:
    """Where the decoder has a kink along the lines origins + t direction, |t| <= half: a relu's input changes sign.

    Between two neighbouring kinks of the layers below, the input of a relu is affine in t: its root is exact.

    Takes     origins (L, Z), direction (Z,)
    Returns   t (L, m), sorted along a line, from -half to half and filled up with half
    """
    cuts = np.broadcast_to([-half, half], (len(origins), 2))
    hidden = vae._decoder.layers[:-1]
    for depth, layer in enumerate(hidden):
        h = origins[:, None, :] + cuts[:, :, None] * direction
        for below in hidden[:depth]:
            h = np.maximum(h @ below.weight + below.bias, 0.0)
        a = h @ layer.weight + layer.bias  # (L, m, H)
        line, piece, unit = np.nonzero(np.signbit(a[:, :-1]) != np.signbit(a[:, 1:]))
        before, after = a[line, piece, unit], a[line, piece + 1, unit]
        left, right = cuts[line, piece], cuts[line, piece + 1]
        counts = np.bincount(line, minlength=len(origins))
        column = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = np.full((len(origins), int(counts.max(initial=0))), half)
        found[line, column] = left + (right - left) * (before / (before - after))
        cuts = np.sort(np.concatenate([cuts, found], axis=1), axis=1)
    return cuts


Rule = Trapezoid | BetweenKinks


def _rule(vae: VAE) -> Rule:
    return BetweenKinks(vae) if vae.hidden and vae.activation == "relu" else Trapezoid(vae.latent_dim)


# --- the two integrals of an example ----------------------------------------------------------------------------------


class Refined(NamedTuple):
    """Values of the last rule and of the one before, and an error for either.

    Four times their difference: the one before is off by that difference and by the last one's error, which is less
    where rules converge; two rules that happen to agree are allowed for.
    """

    last: float
    before: float
    error: float
    points: int


def _integrate_one(vae: VAE, x: NDArray, q: Frame, survey: Survey, tolerance: float, max_points: int) -> tuple:
    """A row of `Quadrature`. Takes x (D,); q: its mean and axes; survey: where the mass of p(x, z) is."""
    evidence, mean, covariance = _log_integral(vae, x, survey, tolerance / 4, max_points)
    elbo = _elbo_integral(vae, x, q, tolerance / 4, max_points)
    # KL(q || p(z|x)) = log p(x) - E_q [log p(x, z) - log q],
    # each by the rule before its last: no node is shared
    kl = evidence.before - elbo.before
    error = evidence.error + elbo.error + ROUNDING * (abs(evidence.last) + abs(elbo.last))
    error = math.inf if math.isnan(error) else error
    points = evidence.points + elbo.points
    return evidence.last, elbo.last, kl, mean, covariance, error, bool(error <= tolerance), points


def _log_integral(
    vae: VAE, x: NDArray, survey: Survey, tolerance: float, max_points: int
) -> tuple[Refined, NDArray, NDArray]:
    """log of the integral of p(x, z), and the posterior's mean (Z,) and covariance (Z, Z)."""
    rule = _rule(vae)
    settled = _settle(vae, x, survey.frame(), rule, max_points)
    if settled is not None:
        settled = _widened(vae, x, settled, survey, rule, max_points)
    if settled is None:
        nothing = np.full((vae.latent_dim, vae.latent_dim), np.nan)
        return Refined(np.nan, np.nan, np.inf, max_points), nothing[0], nothing
    frame, half, nodes, log_f, points = settled
    last, error = settled.log_integral, np.inf
    before, level, peaks = last, 0, survey.peaks(last)
    u_peaks = frame.coordinates(peaks.z)
    while error > max(tolerance, ROUNDING * abs(last)) and 2 * half <= LONGEST_AXIS * rule.spacing(level + 1):
        temper = _temper(log_f, vae.latent_dim).temper
        matters = log_f >= log_f.max() - NEGLIGIBLE / temper
        region = Region.around(np.concatenate([nodes.u[matters], u_peaks]), half, rule.cell(level))
        finer = rule.nodes(level + 1, frame, region, max_points - points)
        if finer is None:
            break
        nodes, level = finer, level + 1
        log_f = _log_joint(vae, x[None], frame.points(nodes.u))[0]
        points += len(nodes.u)
        before, last = last, _log_sum(nodes, log_f) + frame.log_volume
        seen = temper == 1.0 and _reaches(nodes, log_f, u_peaks, peaks.log_f, rule.cell(level))
        error = 4 * abs(last - before) + _outermost(nodes, log_f, half) if seen else np.inf
    weights = np.exp(nodes.log_weight + log_f - _log_sum(nodes, log_f))
    mean, covariance = _moments(nodes.u, weights)
    moved = frame.axes @ covariance @ frame.axes.T
    return Refined(last, before, float(error), points), frame.points(mean), moved


class Settled(NamedTuple):
    frame: Frame
    half: float  # of the box
    nodes: Nodes  # of the coarsest rule
    log_f: NDArray  # at these nodes
    points: int

    @property
    def log_integral(self) -> float:
        return _log_sum(self.nodes, self.log_f) + self.frame.log_volume


def _settle(vae: VAE, x: NDArray, frame: Frame, rule: Rule, max_points: int) -> Settled | None:
    """Move, scale and enlarge until the coarsest rule sees a posterior of mean 0 and covariance I inside its box."""
    half, points = FRAME_BOX, 0
    for _ in range(FRAME_ATTEMPTS):
        nodes = rule.nodes(0, frame, Region(half), max_points - points)
        if nodes is None or half > LARGEST_BOX:
            return None
        log_f = _log_joint(vae, x[None], frame.points(nodes.u))[0]
        points += len(nodes.u)
        if not np.isfinite(log_f.max()):  # a NaN, an infinite density, or none that is not 0
            return None
        weights = _temper(log_f + nodes.log_weight, vae.latent_dim).weights
        mean, covariance = _moments(nodes.u, weights)
        covariance += COARSEST**2 / 12 * np.eye(vae.latent_dim)
        if np.abs(nodes.u[log_f.argmax()]).max() > half - COARSEST:
            covariance = 2 * np.eye(vae.latent_dim)  # the mass is further out: go there, and do not shrink on the way
        scales = np.linalg.eigvalsh(covariance)
        if np.abs(mean).max() > 0.3 or scales[0] < 0.6 or scales[-1] > 1.7:
            frame = frame.moved(mean, covariance)
        elif _outermost(nodes, log_f, half) > 1e-12:
            half *= 4 / 3
        else:
            return Settled(frame, half, nodes, log_f, points)
    return None


def _widened(vae: VAE, x: NDArray, settled: Settled, survey: Survey, rule: Rule, max_points: int) -> Settled | None:
    """The box, widened to what matters on the lattice where a peak of it is outside. None where that is out of reach.

    A mode of mass m at a distance of d standard deviations of the others goes by unseen while a frame settles:
    without m d^2 the covariance is as good as I, and nothing of it need be in the box's outermost layer.
    """
    total = settled.log_integral
    outside = np.abs(settled.frame.coordinates(survey.peaks(total).z)).max(axis=1) > settled.half - COARSEST
    if not outside.any():
        return settled
    furthest = np.abs(settled.frame.coordinates(survey.points(total).z)).max()
    half = float(furthest) + FRAME_BOX
    if half > LARGEST_BOX:  # asked first: a rule's nodes are made before they are counted
        return None
    nodes = rule.nodes(0, settled.frame, Region(half), max_points - settled.points)
    if nodes is None:
        return None
    log_f = _log_joint(vae, x[None], settled.frame.points(nodes.u))[0]
    return Settled(settled.frame, half, nodes, log_f, settled.points + len(nodes.u))


def _reaches(nodes: Nodes, log_f: NDArray, u: NDArray, log_peaks: NDArray, size: float) -> bool:
    """Whether within `size` of every peak u (n, Z) some node is as high, or less than a nat lower."""
    for peak, height in zip(u, log_peaks, strict=True):
        near = (np.abs(nodes.u - peak) <= size).all(axis=1)
        if log_f[near].max(initial=-np.inf) < height - 1:
            return False
    return True


def _log_sum(nodes: Nodes, log_f: NDArray) -> float:
    """log sum exp(log_weight + log_f)."""
    terms = nodes.log_weight + log_f
    largest = terms.max()
    return float(largest + np.log(np.exp(terms - largest).sum()))


def _outermost(nodes: Nodes, log_f: NDArray, half: float) -> float:
    """The share of the integral in the outermost layer of the box: about what lies outside, or more."""
    edge = np.abs(nodes.u).max(axis=1) > half - COARSEST
    return float(np.exp(nodes.log_weight[edge] + log_f[edge] - _log_sum(nodes, log_f)).sum())


def _elbo_integral(vae: VAE, x: NDArray, q: Frame, tolerance: float, max_points: int) -> Refined:
    """E_q [log p(x, z) - log q(z)], q the Gaussian of this frame."""

    def integrand(u: NDArray) -> NDArray:
        # nodes u in standard deviations of q: z = mu + axes u, and log_volume is log |det axes|
        log_q = -0.5 * (np.square(u).sum(axis=1) + vae.latent_dim * LOG_2_PI) - q.log_volume
        log_f = _log_joint(vae, x[None], q.points(u))[0]
        return log_f - log_q

    return expectation(vae, q, integrand, tolerance, max_points)


def expectation(
    vae: VAE, q: Frame, integrand: Callable[[NDArray], NDArray], tolerance: float, max_points: int
) -> Refined:
    """E_q of an integrand that decodes z, over a ball that is enlarged until what lies outside is negligible: where
    log p(x|z) falls fast, as a Poisson's, q's own mass does not tell.

    Takes     q: the Gaussian of this frame; integrand: from nodes u (G, Z), z = q.points(u), to values (G,)
    Returns   Refined: those of the finest rule where none of at most max_points is good enough, NaN where there is none
    Source    as `integrate`
    """
    rule, half, points = _rule(vae), FRAME_BOX, 0
    while True:
        allowed = tolerance if half < LARGEST_BOX else np.inf  # outside
        found, outside = _over_ball(rule, q, integrand, half, tolerance, allowed, max_points - points)
        points += found.points
        if outside <= allowed:
            return found._replace(points=points)
        half *= 4 / 3


def _over_ball(
    rule: Rule, q: Frame, integrand: Callable[[NDArray], NDArray], half: float, tolerance: float, allowed: float,
    max_points: int,
) -> tuple[Refined, float]:  # fmt: skip
    """What lies inside a ball, by finer and finer rules, and about what lies outside; where that is more than allowed,
    by the first rule that says so."""
    region, outside = Region(half, ball=True), 0.0
    last, before, error, points, level = np.nan, np.nan, np.inf, 0, 0
    while error > max(tolerance, ROUNDING * abs(last)) and outside <= allowed:
        nodes = rule.nodes(level, q, region, max_points - points)
        if nodes is None:
            break
        values = integrand(nodes.u)
        weights = np.exp(nodes.log_weight - 0.5 * np.square(nodes.u).sum(axis=1))
        weights /= weights.sum()
        points += len(nodes.u)
        before, last, level = last, float(weights @ values), level + 1
        if not np.isfinite(last):
            return Refined(last, last, np.inf, points), 0.0
        outside = _outside(nodes.u, weights * np.abs(values), half)
        error = 4 * abs(last - before) + outside if level > 1 else np.inf
    return Refined(last, before if level > 1 else last, float(error), points), outside


def _outside(u: NDArray, terms: NDArray, half: float) -> float:
    """What lies outside the ball, if terms fall off from layer to layer as in its two outermost; infinite if they do
    not fall."""
    distance = np.sqrt(np.square(u).sum(axis=1))
    outer = float(terms[distance > half - COARSEST].sum())
    inner = float(terms[(distance > half - 2 * COARSEST) & (distance <= half - COARSEST)].sum())
    if outer == 0:
        return 0.0
    return outer * outer / (inner - outer) if outer < inner else np.inf
