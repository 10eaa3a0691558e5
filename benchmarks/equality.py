"""Nobody is timed who has not shown the same numbers: losses and gradients from the same weights, pixels and noise.

Each system trains for a few updates, each on a minibatch of its own, by the step that is timed afterwards: it gathers
the minibatch from bytes made ready as the timed data are, and takes noise that is given in place of drawn. Its losses
must be the reference engine's in float64, and so must, tensor by tensor, its first gradients. Of Adam it hands over
the first moments after every update, m_t = b1 m_{t-1} + (1 - b1) g_t, which give back every gradient that it used. From
these Adam is made again in float64, and must move every parameter as far: losses alone are nearly those of another
epsilon, of other moments or of a decay of weights.

What is timed shuffles the rows and draws the noise besides. Without noise, or of one minibatch again and again, it
would learn more than there is: see `learns_too_much`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.workloads import BETA1, BETA2, EPSILON

LOSS_TOLERANCE = 1e-5  # relative, float32 against float64, before the first update
TRAINED_TOLERANCE = 1e-4  # relative, of the losses after it: Adam divides by gradients that are nearly zero
GRADIENT_TOLERANCE = 1e-4  # of each tensor: norm of the difference over norm of the reference
ADAM_TOLERANCE = 3e-5  # the same of how far it was moved, beside Adam made again from the system's own gradients:
# in float32 1 - b2^t is off by up to 3e-5, and its root by half of that
TRAINED = "trained "  # begins the names of parameters after all updates
LEAST_LOSS = 2 / 3  # of scratchvae's after all rounds


@dataclass(frozen=True)
class Proof:
    """The largest differences that were found."""

    loss: float
    trained_loss: float
    gradient: float
    tensor: str  # the one with the largest gradient difference
    adam: float

    @property
    def holds(self) -> bool:
        return (
            self.loss <= LOSS_TOLERANCE
            and self.trained_loss <= TRAINED_TOLERANCE
            and self.gradient <= GRADIENT_TOLERANCE
            and self.adam <= ADAM_TOLERANCE
        )

    def as_json(self) -> dict:
        return {
            "loss_difference": self.loss,
            "trained_loss_difference": self.trained_loss,
            "gradient_difference": self.gradient,
            "tensor": self.tensor,
            "adam_difference": self.adam,
            "holds": self.holds,
        }

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.1e} (at most {LOSS_TOLERANCE:.0e}), after training {self.trained_loss:.1e} "
            f"({TRAINED_TOLERANCE:.0e}), gradient of {self.tensor} {self.gradient:.1e} ({GRADIENT_TOLERANCE:.0e}), "
            f"Adam {self.adam:.1e} ({ADAM_TOLERANCE:.0e})"
        )


def record(losses: ArrayLike, moments: list[Mapping], parameters: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    """What a system hands over: the loss before each of U updates, Adam's first moments after each, (U, ...) under a
    tensor's name, and the parameters in the end."""
    stacked = {name: np.stack([np.asarray(after[name]) for after in moments]) for name in moments[0]}
    trained = {f"{TRAINED}{name}": np.asarray(tensor) for name, tensor in parameters.items()}
    return {"losses": np.asarray(losses), **stacked, **trained}


def compare(
    claimed: dict[str, NDArray], reference: dict[str, NDArray], before: Mapping[str, NDArray], learning_rate: float
) -> Proof:
    """Takes two records and the parameters before all updates. A missing tensor, a NaN, a wrong shape is infinitely
    far."""
    expected = np.asarray(reference["losses"], np.float64)
    losses = np.asarray(claimed["losses"], np.float64)
    if losses.shape != expected.shape:
        losses = np.full_like(expected, np.nan)
    differences = np.abs(losses / expected - 1)
    differences = np.where(np.isnan(differences), np.inf, differences)
    names = [name for name in reference if name != "losses" and not name.startswith(TRAINED)]
    gradients, adam = dict.fromkeys(names, np.inf), dict.fromkeys(names, np.inf)
    for name in names:
        moments, trained = claimed.get(name), claimed.get(TRAINED + name)
        if moments is None or trained is None or moments.shape != reference[name].shape:
            continue
        with np.errstate(all="ignore"):  # what is not finite, or zero throughout, is infinitely far
            gradients[name] = norm_relative(moments[0], reference[name][0])
            if trained.shape == before[name].shape:
                adam[name] = norm_relative(trained - before[name], moved_by_adam(moments, learning_rate))
    worst = max(names, key=lambda name: gradients[name])
    return Proof(float(differences[0]), float(differences[1:].max()), gradients[worst], worst, max(adam.values()))


def moved_by_adam(moments: NDArray, learning_rate: float) -> NDArray[np.float64]:
    """How far Adam moves a tensor with the gradients that its first moments (U, ...) hold, in float64.

    Source    Kingma, Ba 2015, algorithm 1
    """
    moved, before, second = np.zeros(moments[0].shape), np.zeros(moments[0].shape), np.zeros(moments[0].shape)
    for update, first in enumerate(moments.astype(np.float64), 1):
        gradient = (first - BETA1 * before) / (1 - BETA1)
        second = BETA2 * second + (1 - BETA2) * gradient**2
        root = np.sqrt(second / (1 - BETA2**update))
        moved -= learning_rate * first / (1 - BETA1**update) / (root + EPSILON)
        before = first
    return moved


def learns_too_much(loss: float, ours: float) -> bool:
    """Whether a system's last loss is lower than what is timed can reach, or NaN. Who makes fewer updates in the same
    time has a larger one than scratchvae; of the kept results the lowest is 0.78 times it."""
    return not loss >= LEAST_LOSS * ours


def norm_relative(array: NDArray, reference: NDArray) -> float:
    """Norm of the difference over norm of the reference."""
    if array.shape != reference.shape:
        return np.inf
    difference = np.linalg.norm(array.astype(np.float64) - reference) / np.linalg.norm(reference)
    return float(np.inf if np.isnan(difference) else difference)
