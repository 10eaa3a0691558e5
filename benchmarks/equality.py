"""Nobody is timed who has not shown the same numbers: losses and gradients from the same weights, pixels and noise.

Each system trains for a few updates on one minibatch with given noise, through the kernels that are timed afterwards:
what is timed gathers its minibatches, draws its noise and, in scratchvae and `jax scan`, makes many updates a call. Its
losses must be the reference engine's in float64, and so must its gradients, tensor by tensor, read off Adam's first
moment after the first update. A later loss is right only if Adam is right too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UPDATES = 5
LOSS_TOLERANCE = 1e-5  # relative, float32 against float64, before the first update
TRAINED_TOLERANCE = 1e-4  # relative, of the losses after it: Adam divides by gradients that are nearly zero
GRADIENT_TOLERANCE = 1e-4  # of each tensor: norm of the difference over norm of the reference


@dataclass(frozen=True)
class Proof:
    """The largest differences that were found."""

    loss: float
    trained_loss: float
    gradient: float
    tensor: str  # the one with the largest gradient difference

    @property
    def holds(self) -> bool:
        return (
            self.loss <= LOSS_TOLERANCE
            and self.trained_loss <= TRAINED_TOLERANCE
            and self.gradient <= GRADIENT_TOLERANCE
        )

    def as_json(self) -> dict:
        return {
            "loss_difference": self.loss,
            "trained_loss_difference": self.trained_loss,
            "gradient_difference": self.gradient,
            "tensor": self.tensor,
            "holds": self.holds,
        }

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.1e} (at most {LOSS_TOLERANCE:.0e}), after training {self.trained_loss:.1e} "
            f"({TRAINED_TOLERANCE:.0e}), gradient of {self.tensor} {self.gradient:.1e} ({GRADIENT_TOLERANCE:.0e})"
        )


def compare(claimed: dict[str, NDArray], reference: dict[str, NDArray]) -> Proof:
    """Takes two records of `losses` and gradients by name. A missing tensor, a NaN, a wrong shape is infinitely far."""
    expected = np.asarray(reference["losses"], np.float64)
    losses = np.asarray(claimed["losses"], np.float64)
    if losses.shape != expected.shape:
        losses = np.full_like(expected, np.nan)
    differences = np.abs(losses / expected - 1)
    differences = np.where(np.isnan(differences), np.inf, differences)
    gradients = {name: norm_relative(claimed.get(name), reference[name]) for name in reference if name != "losses"}
    worst = max(gradients, key=lambda name: gradients[name])
    return Proof(float(differences[0]), float(differences[1:].max()), gradients[worst], worst)


def norm_relative(array: NDArray | None, reference: NDArray) -> float:
    """Norm of the difference over norm of the reference."""
    if array is None or array.shape != reference.shape:
        return np.inf
    difference = np.linalg.norm(array.astype(np.float64) - reference) / np.linalg.norm(reference)
    return float(np.inf if np.isnan(difference) else difference)
