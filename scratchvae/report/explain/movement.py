"""Point 3: what log p(x), the ELBO and the gap do when only the encoder moves, and when only the decoder moves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchvae.evidence.quadrature import Quadrature, integrate
from scratchvae.objectives import ELBO
from scratchvae.parameters import Parameters
from scratchvae.progress import Advance
from scratchvae.reference.random import Stream, normals, permutation
from scratchvae.training import fit
from scratchvae.vae import VAE

from .identity import MAX_POINTS, TOLERANCE
from .subject import Settings, Subject, next_seed

BATCH_SIZE = 100
LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Phase:
    """What was seen while one set of parameters moved and the other was frozen; S looks at n examples, in nats."""

    moving: str  # "phi" (encoder) or "theta" (decoder)
    steps: NDArray  # (S,)
    log_evidence: NDArray  # (S, n): the integral of p(x, z) over z
    elbo: NDArray  # (S, n)
    gap: NDArray  # (S, n): KL(q || p(z|x)), an integral under q
    by_q: NDArray  # (S, n): ELBO + KL: log p(x) by integrals under q alone, whose nodes move with phi

    @property
    def largest_change(self) -> float:
        """How far log p(x) of any example moves from the first look to any other, by either route."""
        both = np.stack([self.log_evidence, self.by_q])
        return float(np.abs(both - self.log_evidence[0]).max())

    def means(self, look: int) -> list[float]:
        """Mean log p(x), ELBO and gap at one look."""
        return [float(values[look].mean()) for values in (self.log_evidence, self.elbo, self.gap)]


@dataclass(frozen=True)
class Movement:
    """First phi moves, then, from where it came to, theta."""

    phi: Phase
    theta: Phase
    examples: int


def movement(subject: Subject, settings: Settings, seed: int, watch: Advance = lambda: None) -> Movement:
    """From a young decoder with an untrained encoder: train the encoder alone, then the decoder alone.

    The decoder has had `young_epochs` epochs, so that log p(x) has room to rise when it is its turn. The data are as
    the run saw them: binarized, or grey where that was allowed.
    """
    vae = subject.fresh(next_seed(seed))
    untrained = vae.parameters.copy()
    fit(vae, subject.train, settings.young_epochs, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE,
        binarize="none", allow_grey=True, seed=seed, progress=False)  # fmt: skip
    for name, array in vae.parameters.items():
        if name.startswith("encoder"):
            array[...] = untrained[name]
    x = subject.held_out[subject.rows(settings.movement_examples)]
    phi = move_only("phi", vae, subject.train, x, settings, seed, watch)
    theta = move_only("theta", vae, subject.train, x, settings, seed, watch)
    return Movement(phi, theta, len(x))


def move_only(
    moving: str, vae: VAE, train: NDArray, x: NDArray, settings: Settings, seed: int, watch: Advance = lambda: None
) -> Phase:
    """Train the parameters of one network and look at log p(x), ELBO and gap of x (n, D) on the way."""
    looks = np.unique(np.rint(np.linspace(0, 1, settings.movement_looks) ** 2 * settings.movement_steps).astype(int))
    seen: list[Quadrature] = []
    first, second = vae.parameters.zeros_like(), vae.parameters.zeros_like()
    for step in range(settings.movement_steps + 1):
        if step in looks:
            seen.append(integrate(vae, x, TOLERANCE, MAX_POINTS))
            watch()
        if step == settings.movement_steps:
            break  # the next phase begins where this one ends
        rows = permutation(seed, Stream.SHUFFLE, step, len(train))[:BATCH_SIZE]
        eps = normals(seed, Stream.POSTERIOR, step, rows, vae.latent_dim).astype(np.float64)
        _, gradient = vae.value_and_grad(train[rows], eps, ELBO())
        freeze(gradient, moving)
        vae.ops.adam_update(
            vae.parameters.flat, gradient.flat, first.flat, second.flat, step + 1, learning_rate=LEARNING_RATE
        )
    line, bound, gap = (
        np.array([getattr(one, name) for one in seen]) for name in ("log_evidence", "elbo", "kl_to_posterior")
    )
    return Phase(moving, looks, line, bound, gap, bound + gap)


def freeze(gradient: Parameters, moving: str) -> None:
    """Set the gradient of all but the encoder ("phi") or all but the decoder and its likelihood ("theta") to zero.

    Adam leaves a parameter whose gradient has always been zero where it is, to the bit.
    """
    for name, array in gradient.items():
        if name.startswith("encoder") != (moving == "phi"):
            array[...] = 0.0
