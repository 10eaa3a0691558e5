"""Gradient checks: the hand-derived gradient against numbers that come from evaluating the loss alone.

    method       derivative of f along one coordinate                                error        gate
    complex      Im f(t + ih) / h, h = 1e-30: no subtraction, so no cancellation     h^2          1e-12
    richardson   (4 D(h/2) - D(h)) / 3 with D central, h = 5e-4 max(1, |t|)          h^4 + u|f|/h 1e-9
    central      D(h) = (f(t + h) - f(t - h)) / 2h, h = 1e-5 max(1, |t|)             h^2 + u|f|/h 1e-7

u is the float64 rounding 1e-16. The error of a tensor is ||analytic - numeric|| / ||numeric||: relative to the norm, so
that small tensors count as much as large ones. A tensor whose gradient is zero everywhere proves nothing and fails. The
gates of differences leave room for the rounding of a loss of about 10. That of a loss of hundreds may exceed them where
the gradient is right, and the complex step remains.
Sources: Squire, Trapp 1998 (complex step); Richardson 1911.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import checked_seed, one_of, whole_positive
from scratchvae.objectives import ELBO, Objective
from scratchvae.parameters import Parameters
from scratchvae.reference.random import Stream, permutation
from scratchvae.vae import VAE

COMPLEX_STEP = 1e-30
RICHARDSON_STEP = 5e-4
KINK = 1e-5  # relative disagreement of D(h) and D(h/2) that only a kink between t - h and t + h explains
CENTRAL_STEP = 1e-5
GATES = MappingProxyType({"complex": 1e-12, "richardson": 1e-9, "central": 1e-7})


class GradientRow(NamedTuple):
    """One parameter's verdict: passed where error <= gate.

    `error` is ||analytic - numeric|| / ||numeric|| over the coordinates that were checked, infinite where `norm`, the
    length of the numeric gradient, is 0.
    """

    parameter: str
    method: str
    error: float  # ||analytic - numeric|| / ||numeric||; infinite where that is 0
    gate: float
    norm: float  # ||numeric||
    coordinates: int  # how many were checked
    passed: bool
    has_gradient: bool  # whether the analytic one is not zero everywhere

    @property
    def is_idle(self) -> bool:
        """Whether the gradient is zero everywhere, by both: it is not wrong, and proves nothing."""
        return self.norm == 0 and not self.has_gradient


@dataclass(frozen=True)
class GradientTable:
    """One `GradientRow` a parameter; its text is a table of them."""

    rows: tuple[GradientRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every parameter's error is within its gate."""
        return all(row.passed for row in self.rows)

    @property
    def worst(self) -> GradientRow:
        """The row whose error is the largest part of its gate, or exceeds it most."""
        return max(self.rows, key=lambda row: row.error / row.gate)

    def __iter__(self) -> Iterator[GradientRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        width = max(len(row.parameter) for row in self.rows)
        lines = [f"{'parameter':{width}}  method      error     gate     |gradient|"]
        for row in self.rows:
            verdict = "ok" if row.passed else "FAILED: zero everywhere, proves nothing" if row.is_idle else "FAILED"
            lines.append(
                f"{row.parameter:{width}}  {row.method:10}  {row.error:.1e}  {row.gate:.0e}  {row.norm:.3e}  {verdict}"
            )
        return "\n".join(lines)


def check_gradients(
    vae: VAE,
    x: NDArray,
    eps: NDArray,
    objective: Objective = ELBO(),
    method: str = "complex",
    coordinates: int | None = None,
    seed: int = 0,
) -> GradientTable:
    """Check the gradient of loss = -mean(objective) for every parameter, in float64.

    The analytic gradient comes from the model's own engine. The numbers it is held against come from its losses, by the
    reference engine where they are complex. An estimator (`STL`, `DReG`, `ScoreFunction`) has an encoder gradient that
    is not the derivative of the bound it reports: its encoder's rows are held against the derivative of the surrogate
    that defines it, the others against the bound. That its mean is the bound's gradient takes many samples to show, and
    is no part of this.

    Takes     x (B, D); eps (B, Z) or (B, K, Z): its K counts, and not the objective's num_samples; method: "complex",
              or "richardson" and "central", whose gates are for a loss of about 10 (see the module's text);
              coordinates: check at most so many of each tensor, chosen by `seed` (default: all, each a pass through the
              model or more)
    Returns   GradientTable; `passed` says whether every tensor is at or below its gate
    Raises    ValueError for an unknown method or bad input
    """
    one_of("method", method, GATES)
    if coordinates is not None:
        whole_positive("coordinates", coordinates)
    double = vae.with_parameters(vae.parameters.astype(np.float64))
    _, analytic = double.value_and_grad(x, eps, objective)
    loss = _complex_loss(double, x, eps, objective) if method == "complex" else _loss(double, x, eps, objective)
    derivative = DERIVATIVES[method]
    rows = []
    for index, name in enumerate(analytic):
        chosen = _chosen(analytic[name].reshape(-1), coordinates, checked_seed(seed), index)
        numeric = np.array([derivative(loss, name, place) for place in chosen])
        rows.append(_row(name, method, analytic[name].reshape(-1)[chosen], numeric))
    return GradientTable(tuple(rows))


class _Loss:
    """-mean(objective), or of what defines an estimator, as a function of one parameter's displacement."""

    def __init__(self, evaluate: Callable[[str], complex | float], parameters: Parameters) -> None:
        self.evaluate = evaluate
        self.parameters = parameters

    def value(self, name: str, place: int) -> float:
        return float(self.parameters[name].reshape(-1)[place].real)

    def at(self, name: str, place: int, displacement: complex | float) -> complex | float:
        """The loss with one coordinate moved, and moved back."""
        flat = self.parameters[name].reshape(-1)
        kept = flat[place]
        flat[place] = kept + displacement
        try:
            return self.evaluate(name)
        finally:
            flat[place] = kept


def _loss(vae: VAE, x: NDArray, eps: NDArray, objective: Objective) -> _Loss:
    x, eps = vae._batch(x), vae._samples("eps", eps, len(x))
    surrogate = getattr(objective, "encoder_surrogate", None)
    fixed, _ = vae.forward(x, eps)

    def evaluate(name: str) -> complex | float:
        sampled, _ = vae.forward(x, eps)
        if surrogate is not None and name.startswith("encoder."):
            return -surrogate(vae.ops, sampled, fixed).mean()
        return -vae.evaluate(objective, sampled)[0].mean()

    return _Loss(evaluate, vae.parameters)


def _complex_loss(vae: VAE, x: NDArray, eps: NDArray, objective: Objective) -> _Loss:
    return _loss(vae.with_parameters(vae.parameters.astype(np.complex128), engine="reference"), x, eps, objective)


def complex_derivative(loss: _Loss, name: str, place: int) -> float:
    """Im f(t + ih) / h: without a subtraction there is no cancellation (Squire, Trapp 1998)."""
    return complex(loss.at(name, place, 1j * COMPLEX_STEP)).imag / COMPLEX_STEP


def central_derivative(loss: _Loss, name: str, place: int, step: float = CENTRAL_STEP) -> float:
    """(f(t + h) - f(t - h)) / 2h, with h scaled to |t| and rounded so that t + h - t is h exactly."""
    value = loss.value(name, place)
    step = step * max(1.0, abs(value))
    step = (value + step) - value
    return float((loss.at(name, place, step).real - loss.at(name, place, -step).real) / (2 * step))


def richardson_derivative(loss: _Loss, name: str, place: int) -> float:
    """(4 D(h/2) - D(h)) / 3: two central differences whose h^2 errors cancel. A step across a kink is shortened."""
    for step in (RICHARDSON_STEP, RICHARDSON_STEP / 8, RICHARDSON_STEP / 64):
        coarse = central_derivative(loss, name, place, step)
        fine = central_derivative(loss, name, place, step / 2)
        if abs(fine - coarse) <= KINK * abs(fine):
            break
    return (4 * fine - coarse) / 3


DERIVATIVES = MappingProxyType(
    {"complex": complex_derivative, "richardson": richardson_derivative, "central": central_derivative}
)


def _chosen(analytic: NDArray, coordinates: int | None, seed: int, tensor: int) -> NDArray:
    """Elements of a tensor, one of them with a gradient where any has: zeros alone would prove nothing."""
    if coordinates is None or coordinates >= analytic.size:
        return np.arange(analytic.size)
    order = permutation(seed, Stream.COORDINATES, tensor, analytic.size)
    chosen = order[:coordinates]
    if analytic.any() and not analytic[chosen].any():
        chosen[-1] = order[analytic[order] != 0][0]
    return np.sort(chosen)


def _row(name: str, method: str, analytic: NDArray, numeric: NDArray) -> GradientRow:
    norm = float(np.linalg.norm(numeric))
    error = float(np.linalg.norm(analytic - numeric)) / norm if norm > 0 else float("inf")
    gate = GATES[method]
    return GradientRow(name, method, error, gate, norm, numeric.size, bool(error <= gate), bool(analytic.any()))
