"""log p(x) by annealed importance sampling, from below, and for simulated data from above as well.

Importance sampling fails where q is far from the posterior. Annealing goes there in small steps: between a start whose
density is known and the joint p(x, z), whose integral over z is the wanted p(x), stands a chain of densities

    f_beta(z) = start(z)^(1 - beta) p(x, z)^beta        beta_0 = 0 < ... < beta_n = 1

and a sample is moved along it by Hamiltonian Monte Carlo, which leaves each f_beta as it is. The product of the ratios
f_beta_t / f_beta_{t-1} met on the way is an unbiased estimate of p(x), so its log is in expectation a lower bound.
Walked the other way, from a sample of the true posterior, the same product estimates 1 / p(x), and gives an upper
bound. A sample of the posterior is at hand for data that the model itself made: its z.

Shapes: B examples, K chains per example, Z latent dimensions. All logarithms are in nats.
Sources: Neal 2001 (annealing); Neal 2011 (Hamiltonian Monte Carlo; numbers as in arXiv:1206.1901); Grosse, Ghahramani,
Adams 2015 (both bounds); Wu, Burda, Salakhutdinov, Grosse 2016 (for decoders, and the schedule).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import checked_seed, one_of, whole_positive
from scratchvae.evidence.door import door, refuse_nan
from scratchvae.evidence.importance import Evidence, RunningWeights
from scratchvae.likelihoods import Draws
from scratchvae.posteriors import DiagonalPosterior, Posterior
from scratchvae.progress import Advance, Watch, counted
from scratchvae.reference.random import Stream
from scratchvae.vae import VAE

STARTS = ("prior", "encoder")
CHAINS = 16  # of an example, where nothing else is asked for
TARGET_ACCEPTANCE = 0.65  # where a trajectory of fixed length is worth most (Neal 2011, section 4.4)
SCHEDULE_RANGE = 4.0  # the sigmoid schedule runs over [-4, 4]
FIRST_STEP_SIZE = 0.5  # of the pilot run; the start has scales of about 1
GAIN = 0.5  # how far log step size moves per unit of acceptance missed
PILOT_TEMPERATURES = 200  # at most so many in the pilot run; step sizes between them are interpolated
PILOT_WARM_UP = 30  # pilot transitions at the first temperature, to come from FIRST_STEP_SIZE to the right size
JITTER = 0.5  # step sizes vary by half either way, so that no trajectory length is a period of the target
BLOCK_NUMBERS = 2**19  # decoder outputs worked on together; results do not depend on it
RUN_SHIFT = 24  # a step of an address is run * 2^24 + number of the transition


class Run(IntEnum):
    """Which walk a random number belongs to. 0 is left to the estimators without chains."""

    PILOT = 1
    UPWARDS = 2
    DOWNWARDS = 3


# --- the joint density and its gradient -------------------------------------------------------------------------------


def log_joint_and_gradient(vae: VAE, x: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
    """log p(x, z) and its gradient for z: backpropagation that ends at the decoder's input.

    Forward   out = decoder(z)        log p(x, z) = log p(x | out) + log N(z; 0, I)                        [nats]
    Gives     d log p(x, z)/dz = d log p(x | out)/d out * d out/dz - z
    Takes     x (B, D), z (B, K, Z) in the model's dtype, not checked
    Returns   (B, K), (B, K, Z)
    Source    Wu et al. 2016, section 3: the force of Hamiltonian Monte Carlo
    """
    ops = vae.ops
    rows, samples, latent = z.shape
    out, decoder = ops.network_forward(z.reshape(rows * samples, latent), vae._decoder)
    out = out.reshape(rows, samples, vae.data_dim)
    log_likelihood, likelihood = vae.likelihood.forward(ops, x, out, vae.parameters)
    log_prior, prior = ops.standard_normal_log_density_forward(z)

    one = np.ones((rows, samples), z.dtype)
    dz_prior = ops.standard_normal_log_density_backward(one, prior)
    dout, _ = vae.likelihood.backward(ops, one, likelihood)
    dz, _ = ops.network_backward(dout.reshape(rows * samples, vae.data_dim), decoder, vae._decoder)
    return log_likelihood + log_prior, dz.reshape(z.shape) + dz_prior  # z is used by the decoder and by the prior


# --- the path of densities --------------------------------------------------------------------------------------------


class Point(NamedTuple):
    """Where the chains are, and all that any f_beta needs to know there."""

    z: NDArray  # (B, K, Z)
    log_start: NDArray  # (B, K)
    log_ratio: NDArray  # (B, K): log p(x, z) - log start(z)
    dlog_start: NDArray  # (B, K, Z)
    dlog_ratio: NDArray  # (B, K, Z)

    def log_density(self, beta: float) -> NDArray:
        """log f_beta (B, K): at beta 0 that of the start, also where p(x, z) is 0."""
        return self.log_start + beta * self.log_ratio if beta else self.log_start

    def gradient(self, beta: float) -> NDArray:
        """d log f_beta / dz (B, K, Z)."""
        return self.dlog_start + beta * self.dlog_ratio if beta else self.dlog_start


@dataclass(frozen=True)
class Path:
    """log f_beta(z) = log start(z) + beta (log p(x, z) - log start(z)), start a Gaussian of each example."""

    vae: VAE
    x: NDArray  # (B, D)
    family: Posterior  # of the start
    head: NDArray  # (B, H): its parameters, as the family reads them

    @classmethod
    def of(cls, vae: VAE, x: NDArray, start: str) -> "Path":
        """From the prior, mu = logvar = 0, or from the encoder's q(z|x)."""
        if one_of("start", start, STARTS) == "encoder":
            return cls(vae, x, vae.posterior, vae.ops.network_forward(vae.likelihood.encoder_input(x), vae._encoder)[0])
        return cls(vae, x, DiagonalPosterior(vae.ops), np.zeros((len(x), 2 * vae.latent_dim), vae.dtype))

    def draw(self, eps: NDArray) -> NDArray:
        """Samples of the start from noise (B, K, Z)."""
        return self.family.forward(self.head, eps)[0]

    def at(self, z: NDArray) -> Point:
        """Both ends of the path and their gradients: one pass through the decoder and back."""
        log_joint, dlog_joint = log_joint_and_gradient(self.vae, self.x, z)
        log_start, cache = self.family.log_density_forward(z, self.head)
        dlog_start, _ = self.family.log_density_backward(np.ones_like(log_start), cache)
        return Point(z, log_start, log_joint - log_start, dlog_start, dlog_joint - dlog_start)


def sigmoid_schedule(num_temperatures: int) -> NDArray:
    """Temperatures from 0 to 1, dense at both ends, where the density changes fastest.

    Formula   beta_t = (s(r_t) - s(-4)) / (s(4) - s(-4)), r_t = -4 + 8 t / (T - 1), s the logistic sigmoid
    Returns   (T,)
    Raises    ValueError for fewer than 2 temperatures
    Source    Wu et al. 2016
    """
    if whole_positive("num_temperatures", num_temperatures) < 2 or num_temperatures >= 2**RUN_SHIFT:
        raise ValueError(f"num_temperatures is {num_temperatures}; expected at least 2 and fewer than 2^{RUN_SHIFT}")
    s = 1 / (1 + np.exp(-np.linspace(-SCHEDULE_RANGE, SCHEDULE_RANGE, num_temperatures)))
    return (s - s[0]) / (s[-1] - s[0])


# --- Hamiltonian Monte Carlo ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """The random numbers of a run: a function of seed, run, transition, example and chain, of nothing else."""

    vae: VAE
    seed: int
    rows: NDArray  # (B,): numbers of the examples
    num_chains: int

    def start(self, run: int) -> NDArray:
        """Standard normal (B, K, Z), for the first z."""
        return self._normals(Stream.EVIDENCE, run, 0)

    def momentum(self, run: int, transition: int) -> NDArray:
        """Standard normal (B, K, Z)."""
        return self._normals(Stream.MOMENTUM, run, transition)

    def uniforms(self, run: int, transition: int) -> tuple[NDArray, NDArray]:
        """Two uniform numbers in [0, 1) a chain, each (B, K): for acceptance and for the step size."""
        step = (run << RUN_SHIFT) + transition
        both = self.vae.ops.uniforms(self.seed, Stream.ACCEPTANCE, step, self.rows, 2 * self.num_chains)
        return both[:, 0::2], both[:, 1::2]

    def _normals(self, stream: Stream, run: int, transition: int) -> NDArray:
        return self.vae.noise(self.seed, stream, (run << RUN_SHIFT) + transition, self.rows, self.num_chains)


def leapfrog(
    path: Path, point: Point, momentum: NDArray, beta: float, step_size: NDArray, num_leapfrog: int
) -> tuple[Point, NDArray]:
    """Hamilton's equations for H(z, p) = -log f_beta(z) + ||p||^2 / 2, in steps that keep volume and can be reversed.

    Formula   p += e/2 grad log f(z)        then L times: z += e p,  p += e grad log f(z); the last p only by e/2
    Takes     point, momentum p (B, K, Z), step_size e (B, K, 1), num_leapfrog L >= 1
    Returns   point, momentum at the end of the trajectory
    Source    Neal 2011, equations 2.28 to 2.30
    """
    momentum = momentum + 0.5 * step_size * point.gradient(beta)
    for remaining in reversed(range(num_leapfrog)):
        point = path.at(point.z + step_size * momentum)
        momentum = momentum + (step_size if remaining else 0.5 * step_size) * point.gradient(beta)
    return point, momentum


def transition(
    path: Path,
    point: Point,
    beta: float,
    step_size: NDArray,
    num_leapfrog: int,
    momentum: NDArray,
    uniforms: tuple[NDArray, NDArray],
) -> tuple[Point, NDArray]:
    """One step of Hamiltonian Monte Carlo, which leaves f_beta invariant and is its own reversal.

    Formula   accept the end of the trajectory with probability min(1, exp(H before - H after)), else stay
    Takes     step_size (B,), the same whatever the chains have seen; momentum (B, K, Z); uniforms: two of (B, K), for
              acceptance and for the jitter of the step size
    Returns   point, probability of acceptance (B, K); a trajectory that leaves the finite numbers has probability 0
    Source    Neal 2011, section 3.2
    """
    log_kinetic = path.vae.ops.standard_normal_log_density_forward  # -||p||^2 / 2 and a constant that cancels
    jittered = step_size[:, None] * (1 + JITTER * (2 * uniforms[1] - 1))
    jittered = jittered[:, :, None].astype(momentum.dtype)
    proposed, end = leapfrog(path, point, momentum, beta, jittered, num_leapfrog)
    before = point.log_density(beta) + log_kinetic(momentum)[0]
    after = proposed.log_density(beta) + log_kinetic(end)[0]
    probability = np.nan_to_num(np.exp(np.minimum(after - before, 0)), nan=0.0)
    accepted = uniforms[0] < probability
    return _choose(accepted, proposed, point), probability


def _choose(accepted: NDArray, proposed: Point, point: Point) -> Point:
    """The proposed point where accepted (B, K), else the old one."""
    wide = accepted[:, :, None]
    return Point(
        *(np.where(wide if new.ndim == 3 else accepted, new, old) for new, old in zip(proposed, point, strict=True))
    )


# --- annealing --------------------------------------------------------------------------------------------------------


class Settings(NamedTuple):
    """How to anneal."""

    num_chains: int
    num_temperatures: int
    num_leapfrog: int
    start: str


class Walk(NamedTuple):
    """What a walk along the path leaves."""

    log_weights: NDArray  # (B, K), float64
    acceptance: NDArray  # (B,): mean probability of acceptance; NaN where there was no transition


@dataclass(frozen=True)
class Annealing:
    """The walks of some examples: one to tune the step sizes, one upwards, one downwards."""

    path: Path
    noise: Noise
    settings: Settings
    advance: Advance

    def tune(self) -> NDArray:
        """Step sizes for every temperature and example from a pilot run, which is then thrown away.

        A step size that adapted to the chain it moves would make the transition depend on the chain's past, and the
        bound would be void: so it adapts here, on chains of its own, and is frozen in the runs that count.

        Formula   log e += 0.5 (mean acceptance of the example's chains - 0.65) after every transition
        Returns   (T, B)
        Source    Robbins, Monro 1951; the acceptance: Neal 2011, section 4.4, as Wu et al. 2016, section 5.3.1
        """
        temperatures = min(self.settings.num_temperatures, PILOT_TEMPERATURES)
        betas = sigmoid_schedule(temperatures)
        places = [0] * PILOT_WARM_UP + list(range(temperatures)) if self.settings.num_temperatures > 2 else []
        log_step = np.full(len(self.path.x), np.log(FIRST_STEP_SIZE))
        log_steps = np.zeros((temperatures, len(self.path.x)))
        point = self.path.at(self.path.draw(self.noise.start(Run.PILOT)))
        for number, place in enumerate(places):
            point, probability = self._move(point, float(betas[place]), np.exp(log_step), Run.PILOT, number)
            log_step = log_step + GAIN * (probability - TARGET_ACCEPTANCE)
            log_steps[place] = log_step
        return np.exp(_interpolate(log_steps, self.settings.num_temperatures))

    def upwards(self, step_sizes: NDArray) -> Walk:
        """From the start to the joint: E w = p(x). Takes step_sizes (T, B)."""
        betas = sigmoid_schedule(self.settings.num_temperatures)
        return self.walk(betas, step_sizes, self.path.draw(self.noise.start(Run.UPWARDS)), Run.UPWARDS)

    def downwards(self, step_sizes: NDArray, z: NDArray) -> Walk:
        """From one posterior sample z (B, Z) of each example, shared by its chains, to the start: E w = 1 / p(x)."""
        betas = sigmoid_schedule(self.settings.num_temperatures)[::-1]
        chains = np.repeat(z[:, None, :], self.settings.num_chains, axis=1)
        return self.walk(betas, step_sizes[::-1], chains, Run.DOWNWARDS)

    def walk(self, betas: NDArray, step_sizes: NDArray, z: NDArray, run: Run) -> Walk:
        """Move the chains along the temperatures, in the order given, and weigh them.

        Formula   log w = sum_{t=1}^{n} (log f_{beta_t} - log f_{beta_{t-1}})(z_{t-1}),  z_t from z_{t-1} by a
                  transition that leaves f_{beta_t} invariant; none at the last temperature: it would change no weight
        Takes     betas (T,), rising from 0 to 1 or falling from 1 to 0; step_sizes (T, B), in that order; z (B, K, Z)
        Source    Neal 2001; Grosse, Ghahramani, Adams 2015
        """
        point = self.path.at(z)
        log_weights = np.zeros(z.shape[:2])
        acceptance = []
        for t in range(1, len(betas)):
            # log f_beta = log start + beta (log p(x, z) - log start): its slope in beta
            log_weights += (betas[t] - betas[t - 1]) * point.log_ratio.astype(np.float64)
            if t < len(betas) - 1:
                point, probability = self._move(point, float(betas[t]), step_sizes[t], run, t)
                acceptance.append(probability)
        return Walk(log_weights, np.mean(acceptance, axis=0) if acceptance else np.full(len(z), np.nan))

    def _move(self, point: Point, beta: float, step_size: NDArray, run: Run, number: int) -> tuple[Point, NDArray]:
        """A transition with the noise of its number, and the mean probability of acceptance of each example (B,)."""
        draws = self.noise.momentum(run, number), self.noise.uniforms(run, number)
        with np.errstate(over="ignore", invalid="ignore"):  # a trajectory that overflows is rejected
            point, probability = transition(self.path, point, beta, step_size, self.settings.num_leapfrog, *draws)
        self.advance()
        return point, probability.astype(np.float64).mean(axis=1)


def _interpolate(columns: NDArray, count: int) -> NDArray:
    """Columns (P, B) at `count` evenly spread places from the first row to the last, linearly in between."""
    place = np.linspace(0, len(columns) - 1, count)
    below = np.minimum(place.astype(int), len(columns) - 2)
    weight = (place - below)[:, None]
    return (1 - weight) * columns[below] + weight * columns[below + 1]


def _evidence(walk: Walk) -> Evidence:
    """log mean w of each example with its error."""
    running = RunningWeights.empty(len(walk.log_weights))
    running.add(walk.log_weights)
    return running.evidence(walk.log_weights.shape[1])


# --- the two estimators -----------------------------------------------------------------------------------------------


@door
def annealed_importance(
    vae: VAE,
    x: NDArray,
    num_chains: int = CHAINS,
    num_temperatures: int = 1000,
    num_leapfrog: int = 10,
    start: str = "prior",
    seed: int = 0,
    watch: Watch | None = None,
) -> Evidence:
    """Estimate log p(x) of every example by annealing: in expectation a lower bound, tight for slow annealing.

    Formula   log p(x) ~ log 1/K sum_k w_k, w_k of `Annealing.walk`, upwards
    Takes     x (B, D); num_chains K; num_temperatures T (with T = 2 this is importance sampling from the start);
              num_leapfrog steps of a trajectory; start: "prior", or "encoder" for q(z|x); seed; watch: called with the
              number of transitions done and to do. The cost is K (T + 228) num_leapfrog passes through the decoder and
              back, for 2 < T < 200 K (2 T + 28) num_leapfrog, for T = 2 none: a pilot, which sets the step sizes, makes
              30 transitions and one at each of up to 200 temperatures. The estimate of a row depends on the row's
              number, not on its neighbours
    Returns   Evidence, each (B,), in nats; its effective sample size is out of K
    Raises    ValueError for bad input; NotFiniteError where an estimate is NaN
    Source    Neal 2001; for decoders Wu et al. 2016, sections 2.2 and 3
    """
    settings = _settings(num_chains, num_temperatures, num_leapfrog, start)
    x, seed = vae._batch(x), checked_seed(seed)
    blocks = row_blocks(vae, len(x), num_chains)
    advance = counted(watch, len(blocks) * _transitions(settings, walks=1))
    parts = []
    for rows in blocks:
        annealing = _annealing(vae, x[rows], rows, settings, seed, advance)
        parts.append(_evidence(annealing.upwards(annealing.tune())))
    found = Evidence(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    refuse_nan(log_evidence=found.log_evidence)
    return found


def ais_evidence(
    vae: VAE, x: NDArray, num_samples: int, seed: int, num_chains: int = CHAINS, **options: Any
) -> Evidence:
    """`annealed_importance` with num_samples = chains * temperatures: 5000 is 16 chains at 312 temperatures.

    So, as for every other method, more samples cost more and give a tighter bound. A chain is weighed by T - 1 ratios.
    The cost grows less than num_samples, for the pilot's share falls: 5 times as many, 312 temperatures in place of 62,
    are 3.6 times the transitions. The options num_temperatures (which wins over num_samples), num_leapfrog, start
    and watch are those of `annealed_importance`.
    """
    options = {"num_temperatures": temperatures_for(num_samples, whole_positive("num_chains", num_chains))} | options
    return annealed_importance(vae, x, num_chains, seed=seed, **options)


def temperatures_for(num_samples: int, num_chains: int = CHAINS) -> int:
    """Temperatures of a chain so that all chains together pass about num_samples points."""
    return max(2, num_samples // num_chains)


@dataclass(frozen=True)
class Bounds:
    """A lower and an upper bound on log p(x) of every simulated example, each in expectation, in nats.

    All are (n,), but for `acceptance` (n, 2): the mean probability of acceptance on the way up and on the way down.
    `upper_error` does not know that an example's chains share their first sample. The errors of the means do.
    """

    lower: NDArray  # (n,)
    upper: NDArray  # (n,)
    lower_error: NDArray  # (n,)
    upper_error: NDArray  # (n,)
    acceptance: NDArray  # (n, 2): mean probability of acceptance on the way up and down

    @property
    def gap(self) -> tuple[float, float]:
        """Mean of upper - lower and its standard error over the examples: in expectation, no bound is further off."""
        return _mean_and_error(self.upper - self.lower)

    def __str__(self) -> str:
        columns = {"lower bound": self.lower, "upper bound": self.upper, "upper - lower": self.upper - self.lower}
        lines = [f"mean log p(x) of {len(self.lower)} simulated examples"]
        for name, column in columns.items():
            mean, error = _mean_and_error(column)
            lines.append(f"{name:14} {mean:12.4f} ± {error:.4f} nats")
        return "\n".join(lines)


def _mean_and_error(values: NDArray) -> tuple[float, float]:
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.inf
    return float(values.mean()), float(error)


@door
def bidirectional(
    vae: VAE,
    n: int = 16,
    num_chains: int = CHAINS,
    num_temperatures: int = 1000,
    num_leapfrog: int = 10,
    start: str = "prior",
    seed: int = 0,
    watch: Watch | None = None,
) -> Bounds:
    """Bracket log p(x) of n examples that the model made itself, `vae.sample(n, seed)`, between two annealing runs.

    Formula   lower = log 1/K sum_k w_k, upwards        upper = -log 1/K sum_k v_k, downwards from the z that made x
              E lower <= log p(x) <= E upper by Jensen's inequality, because E w = p(x) and E v = 1 / p(x)
    Takes     n examples; the rest as `annealed_importance`. Both directions use the step sizes of one pilot run
    Returns   Bounds, each (n,); print it for the means
    Raises    ValueError for bad input; NotFiniteError where a bound is NaN
    Source    Grosse, Ghahramani, Adams 2015; Wu et al. 2016, section 2.3
    """
    vae.check_one_layer()
    settings = _settings(num_chains, num_temperatures, num_leapfrog, start)
    x, z = draw_joint(vae, whole_positive("n", n), checked_seed(seed))
    blocks = row_blocks(vae, n, num_chains)
    advance = counted(watch, len(blocks) * _transitions(settings, walks=2))
    parts = [_bracket(_annealing(vae, x[rows], rows, settings, seed, advance), z[rows]) for rows in blocks]
    bounds = Bounds(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    refuse_nan(lower=bounds.lower, upper=bounds.upper)
    return bounds


def _bracket(annealing: Annealing, z: NDArray) -> tuple[NDArray, ...]:
    step_sizes = annealing.tune()
    up, down = annealing.upwards(step_sizes), annealing.downwards(step_sizes, z)
    lower, upper = _evidence(up), _evidence(down)
    acceptance = np.stack([up.acceptance, down.acceptance], axis=1)
    return lower.log_evidence, -upper.log_evidence, lower.standard_error, upper.standard_error, acceptance


def draw_joint(vae: VAE, n: int, seed: int) -> tuple[NDArray, NDArray]:
    """n draws from the model: x (n, D), as `vae.sample(n, seed)`, and the z (n, Z) that made it: a sample of p(z|x)."""
    examples = np.arange(n)
    z = vae.noise(seed, Stream.LATENT, 0, examples, 1)[:, 0]
    x = vae._draw(vae._decoder_output(z), Draws(seed, examples))
    return vae._batch(x), z


# --- arguments, blocks and progress -----------------------------------------------------------------------------------


def _settings(num_chains: int, num_temperatures: int, num_leapfrog: int, start: str) -> Settings:
    sigmoid_schedule(num_temperatures)
    return Settings(
        whole_positive("num_chains", num_chains),
        num_temperatures,
        whole_positive("num_leapfrog", num_leapfrog),
        one_of("start", start, STARTS),
    )


def _annealing(vae: VAE, x: NDArray, rows: NDArray, settings: Settings, seed: int, advance: Advance) -> Annealing:
    noise = Noise(vae, seed, rows, settings.num_chains)
    return Annealing(Path.of(vae, x, settings.start), noise, settings, advance)


def row_blocks(vae: VAE, rows: int, num_samples: int) -> list[NDArray]:
    """The numbers of all rows, in blocks whose decoder outputs stay in the processor's caches."""
    widest = max(vae.data_dim, *vae.hidden, 1)
    size = max(1, BLOCK_NUMBERS // (num_samples * widest))
    return [np.arange(start, min(start + size, rows)) for start in range(0, rows, size)]


def _transitions(settings: Settings, walks: int) -> int:
    """Transitions of a block: the pilot's and those of each walk."""
    if settings.num_temperatures == 2:
        return 0
    pilot = PILOT_WARM_UP + min(settings.num_temperatures, PILOT_TEMPERATURES)
    return pilot + walks * (settings.num_temperatures - 2)
