"""Nobody is timed who has not shown the same numbers: losses and gradients from the same weights, pixels and noise.

Each system trains for a few updates on one minibatch with given noise, by the same functions as afterwards. Its losses
must be the reference engine's in float64, and so must, tensor by tensor, its gradients, read off Adam's first moment
after the first update, and how far the updates have moved the parameters, which shows Adam: losses alone are nearly
those of another epsilon, of other moments or of a decay of weights.

What is timed gathers its minibatches and draws its noise besides, and with XLA makes many updates a call. Without
noise, or of one minibatch again and again, it would learn more than there is: see `learns_too_much`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

UPDATES = 5
LOSS_TOLERANCE = 1e-5  # relative, float32 against float64, before the first update
TRAINED_TOLERANCE = 1e-4  # relative, of the losses after it: Adam divides by gradients that are nearly zero
GRADIENT_TOLERANCE = 1e-4  # of each tensor: norm of the difference over norm of the reference
CHANGE_TOLERANCE = 5e-4  # the same of how far it was moved, where its gradient is clear
CLEAR = 1e-3  # of a tensor's largest gradient
CHANGE = "change of "  # begins the names of such arrays
LEAST_LOSS = 2 / 3  # of scratchvae's after all rounds


@dataclass(frozen=True)
class Proof:
    """The largest differences that were found."""

    loss: float
    trained_loss: float
    gradient: float
    tensor: str  # the one with the largest gradient difference
    change: float

    @property
    def holds(self) -> bool:
        return (
            self.loss <= LOSS_TOLERANCE
            and self.trained_loss <= TRAINED_TOLERANCE
            and self.gradient <= GRADIENT_TOLERANCE
            and self.change <= CHANGE_TOLERANCE
        )

    def as_json(self) -> dict:
        return {
            "loss_difference": self.loss,
            "trained_loss_difference": self.trained_loss,
            "gradient_difference": self.gradient,
            "tensor": self.tensor,
            "change_difference": self.change,
            "holds": self.holds,
        }

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.1e} (at most {LOSS_TOLERANCE:.0e}), after training {self.trained_loss:.1e} "
            f"({TRAINED_TOLERANCE:.0e}), gradient of {self.tensor} {self.gradient:.1e} ({GRADIENT_TOLERANCE:.0e}), "
            f"change by Adam {self.change:.1e} ({CHANGE_TOLERANCE:.0e})"
        )


def compare(claimed: dict[str, NDArray], reference: dict[str, NDArray]) -> Proof:
    """Takes two records of `losses`, of gradients by name and of changes. A missing tensor, a NaN, a wrong shape is
    infinitely far."""
    expected = np.asarray(reference["losses"], np.float64)
    losses = np.asarray(claimed["losses"], np.float64)
    if losses.shape != expected.shape:
        losses = np.full_like(expected, np.nan)
    differences = np.abs(losses / expected - 1)
    differences = np.where(np.isnan(differences), np.inf, differences)
    names = [name for name in reference if name != "losses" and not name.startswith(CHANGE)]
    gradients = {name: norm_relative(claimed.get(name), reference[name]) for name in names}
    worst = max(gradients, key=lambda name: gradients[name])
    change = max(
        _change_relative(claimed.get(CHANGE + name), reference[CHANGE + name], reference[name]) for name in names
    )
    return Proof(float(differences[0]), float(differences[1:].max()), gradients[worst], worst, change)


def _change_relative(change: NDArray | None, reference: NDArray, gradient: NDArray) -> float:
    """`norm_relative` of where the gradient is not nearly zero: Adam divides by it, and rounding would decide."""
    if change is None or change.shape != reference.shape:
        return np.inf
    size = np.abs(gradient)
    clear = size >= CLEAR * size.max()
    return norm_relative(change[clear], reference[clear])


def changes(after: Mapping[str, ArrayLike], before: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """How far each tensor was moved, under its name in a record."""
    return {f"{CHANGE}{name}": np.asarray(tensor) - before[name] for name, tensor in after.items()}


def learns_too_much(loss: float, ours: float) -> bool:
    """Whether a system's last loss is lower than what is timed can reach, or NaN. Who makes fewer updates in the same
    time has a larger one than scratchvae; of the kept results the lowest is 0.78 times it."""
    return not loss >= LEAST_LOSS * ours


def norm_relative(array: NDArray | None, reference: NDArray) -> float:
    """Norm of the difference over norm of the reference."""
    if array is None or array.shape != reference.shape:
        return np.inf
    difference = np.linalg.norm(array.astype(np.float64) - reference) / np.linalg.norm(reference)
    return float(np.inf if np.isnan(difference) else difference)
