"""What is a finite number and what a whole one, and what to say when a number is no longer finite: which array was the
first, in the order in which they are computed."""

import math
from collections.abc import Iterable, Iterator
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scratchvae.objectives import Objective
    from scratchvae.vae import VAE

Named = tuple[str, NDArray]


class NotFiniteError(ArithmeticError):
    """A result is NaN or infinite. The message names the first array that went bad."""


class DivergedError(NotFiniteError):
    """Training met a number that is not finite. The message names the update, and the first array that went bad."""


def is_finite_number(value: Any) -> bool:
    """Whether it is a real number, no bool, that a float can hold: a whole number may be too large."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_whole_number(value: Any) -> TypeGuard[int | np.integer]:
    """Whether it is an integer of Python or of NumPy, no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def first_not_finite(arrays: Iterable[Named]) -> str | None:
    """The name of the first array with a NaN or an infinity, or None. Later ones are not looked at, nor computed."""
    return next((name for name, array in arrays if not np.isfinite(array).all()), None)


def arrays_of_a_pass(vae: "VAE", x: NDArray, eps: NDArray, objective: "Objective | None" = None) -> Iterator[Named]:
    """Every array between the parameters and their gradient by name, in the order of a forward and a backward pass.

    Names     parameter <name>, then head, eps, z, kl, log_likelihood, ... of `Sampled`, objective, gradient of <name>
    Takes     x (B, D), eps (B, K, Z): checked, as `VAE.forward` takes them; objective: None for the forward pass alone
    """
    yield from named_parameters(vae)
    sampled, _ = vae.forward(x, eps)
    yield from ((name, array) for name, array in sampled._asdict().items() if isinstance(array, np.ndarray))
    if objective is None:
        return
    yield "objective", vae.evaluate(objective, sampled)[0]
    _, deltas = vae.terms_and_deltas(x, eps, objective)
    gradient = vae.parameters.zeros_like()
    vae.write_gradient(deltas, gradient)
    yield from ((f"gradient of {name}", array) for name, array in gradient.items())


def named_parameters(vae: "VAE") -> Iterator[Named]:
    """The parameters, called as messages call them."""
    return ((f"parameter {name}", array) for name, array in vae.parameters.items())


def quiet() -> Any:
    """Keep NumPy from warning of an overflow, once for every array it spreads to: `check_finite` says it in words."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


def check_finite(results: Iterable[NDArray], arrays: Iterable[Named]) -> None:
    """Raises NotFiniteError unless all results are finite; `arrays` are what they were computed from, named."""
    with quiet():
        if all(np.isfinite(result.sum()) or np.isfinite(result).all() for result in results):  # a sum is one fast pass
            return
        name = first_not_finite(arrays) or "the result"
    raise NotFiniteError(f"{name} is not finite; expected parameters and data whose results are, in this precision")
