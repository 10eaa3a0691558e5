"""Terms of the ELBO against the epoch."""

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scratchvae.training import History

from .drawing import HELD_OUT, TRAINING, axes_or_new, zoom

TERMS = {
    "elbo": "ELBO",
    "reconstruction": "Reconstruction  E_q log p(x|z)",
    "kl": "KL(q(z|x) || p(z))",
    "objective": "Objective",
}


def _entries(history: History | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return history.epochs if isinstance(history, History) else history


def _series(history: Sequence[Mapping[str, Any]], part: str, term: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Epochs and values of one term of one part ("train", "validation") of the history, where it was measured."""
    rows = [row for row in history if row.get(part)]
    return np.array([row["epoch"] for row in rows]), np.array([row[part][term] for row in rows], dtype=float)


def _terms(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """The terms worth a curve: the objective too where it is not the ELBO."""
    trained = [row["train"] for row in history]
    is_elbo = all(isclose(row.get("objective", row["elbo"]), row["elbo"], rel_tol=1e-5) for row in trained)
    return [term for term in TERMS if term != "objective" or not is_elbo]


def _draw_curves(axes: Axes, history: Sequence[Mapping[str, Any]], curves: Sequence[tuple[str, str, str, str]]) -> None:
    """Curves of (part, term, label, line style or colour), and limits that show their ends."""
    limits, shown = [], []
    for part, term, label, look in curves:
        epochs, values = _series(history, part, term)
        if len(epochs):
            drawn: dict[str, Any] = {"marker": "o" if len(epochs) == 1 else None, "linewidth": 1.4, "label": label}
            colour, _, line = look.partition(" ")
            axes.plot(epochs, values, color=colour, linestyle=line or "-", **drawn)
            limits.append(zoom(values))
            shown.append(values[np.isfinite(values)])
    zooms = [limit for limit in limits if limit]
    if zooms and len(zooms) == len(limits):
        axes.set_ylim(min(limit[0] for limit in zooms), max(limit[1] for limit in zooms))
    low, high = axes.get_ylim()
    axes.set_xlabel("epoch" + _what_is_cut([(values < low) | (values > high) for values in shown]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def _what_is_cut(outside: Sequence[NDArray[np.bool_]]) -> str:
    """What to say of curves, by which of their values lie outside the frame."""
    if not any(values.any() for values in outside):
        return ""
    return ", the first cut off" if all(values[: values.sum()].all() for values in outside) else ", some cut off"


def learning_curve(axes: Axes, history: Sequence[Mapping[str, Any]], term: str, title: str) -> Axes:
    """One term of the ELBO against the epoch, for training and held-out data, in nats per example."""
    _draw_curves(axes, history, [("train", term, "training", TRAINING), ("validation", term, "held out", HELD_OUT)])
    axes.set_title(title)
    return axes


def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Every term side by side against the epoch: elbo = reconstruction - kl."""
    terms = _terms(history)
    figure = Figure(figsize=(9.4, 2.3))
    places = {"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0.22 if len(terms) == 3 else 0.28}
    panels = figure.subplots(1, len(terms), gridspec_kw=places)
    for axes, term in zip(panels, terms, strict=True):
        learning_curve(axes, history, term, TERMS[term])
    panels[0].set_ylabel("nats per example")
    panels[0].legend(loc="best")
    return figure


def training_curves(history: History | Sequence[Mapping[str, Any]], axes: Axes | None = None) -> Axes:
    """Every term of training against the epoch in one picture: training data solid, held-out data dashed.

    Takes     history: what `fit` returned, or its entries (the lines of history.jsonl)
    Raises    ValueError for a history without epochs
    """
    entries, axes = _entries(history), axes_or_new(axes)
    if not entries:
        raise ValueError("the history has no epoch; expected at least one to draw")
    curves = []
    for index, term in enumerate(_terms(entries)):
        name = TERMS[term].split("  ")[0]
        curves.append(("train", term, f"{name}, training", f"C{index}"))
        curves.append(("validation", term, f"{name}, held out", f"C{index} --"))
    _draw_curves(axes, entries, curves)
    axes.set_ylabel("nats per example")
    axes.set_title("Training: ELBO = reconstruction - KL")
    axes.legend(loc="best", fontsize="small")
    return axes
