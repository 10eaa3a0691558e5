"""All ten answers, in order, with a word about what is being worked on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.engine import one_thread
from scratchvae.evidence.surgery import Surgery, elbo_surgery, elbo_surgery_by_quadrature
from scratchvae.vae import VAE

from .estimators import Estimators, estimators
from .gradient_noise import GradientNoise, gradient_noise
from .identity import Forms, Identity, forms, identity
from .known_density import InfiniteMixture, WhichDensity, infinite_mixture, train_toy, which_density
from .movement import Movement, movement
from .posterior_shapes import Shapes, shapes
from .squared_error import SquaredError, squared_error
from .subject import Settings, Subject, Watch

SURGERY_EXAMPLES = 1000  # at most: its time grows with the square
PICTURES_ONLY = 2_000  # arrays of more numbers are what a picture is drawn from, and stay out of the JSON object


@dataclass(frozen=True)
class Answers:
    """One record a point of the page; `identity` serves the first and the fifth."""

    identity: Identity
    forms: Forms
    movement: Movement
    shapes: Shapes
    mixture: InfiniteMixture
    which: WhichDensity
    estimators: Estimators
    gradients: GradientNoise
    squared: SquaredError
    surgery: Surgery  # of the average KL to the prior, over all held-out examples
    surgery_is_integral: bool

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name: fields and what follows from them."""
        return {part.name: numbers(getattr(self, part.name)) for part in fields(self)}


def answer(subject: Subject, settings: Settings, seed: int, watch: Watch) -> Answers:
    """Everything the page says in numbers."""
    with one_thread():
        return _answer(subject, settings, seed, Steps(watch))


def _answer(subject: Subject, settings: Settings, seed: int, started: "Steps") -> Answers:
    with started("the identity", settings.examples) as step:
        one = identity(subject, settings, step)
    with started("the ELBO in four forms", one.examples) as step:
        two = forms(subject, settings, one, seed, step)
    with started("encoder and decoder move", 2 * settings.movement_looks) as step:
        three = movement(subject, settings, seed, step)
    with started("posteriors", settings.shown) as step:
        four = shapes(subject, settings, one, step)
    with started("a known density", len(settings.toy_looks) + 1) as step:
        toy = train_toy(settings, seed)
        step()
        seven = which_density(toy, settings, step)
    with started("the mixture", 2) as step:
        six = infinite_mixture(toy, subject, settings, one, seed, step)
    with started("estimators", 3 * len(settings.latent_dims) + 1) as step:
        eight = estimators(subject, settings, one, seed, step)
    with started("gradients", 1) as step:
        nine = gradient_noise(subject, settings, one, seed)
    with started("squared error", 1) as step:
        ten = squared_error(settings, seed)
    x = subject.held_out[subject.rows(SURGERY_EXAMPLES)]
    return Answers(one, two, three, four, six, seven, eight, nine, ten, *surgery(subject.vae, x, seed))


def surgery(vae: VAE, x: NDArray, seed: int) -> tuple[Surgery, bool]:
    """The parts of the average KL, and whether they are integrals; where a grid is out of reach, they are sampled."""
    try:
        return elbo_surgery_by_quadrature(vae, x), True
    except ValueError:  # too many latent dimensions, or Gaussians too narrow
        return elbo_surgery(vae, x, seed=seed), False


class Steps:
    """Tells `watch` how far each part is."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    @contextmanager
    def __call__(self, words: str, total: int) -> Iterator[Callable[[], None]]:
        done = 0
        self._watch(words, 0, total)

        def step() -> None:
            nonlocal done
            done += 1
            self._watch(words, min(done, total), total)

        yield step
        self._watch(words, total, total)


def numbers(record: Any) -> Any:
    """A record as JSON can hold it: its fields and its properties, without arrays that only a picture needs."""
    if is_dataclass(record) and not isinstance(record, type):
        values = {part.name: getattr(record, part.name) for part in fields(record)}
        for name in dir(type(record)):
            if isinstance(getattr(type(record), name), property):
                values[name] = getattr(record, name)
        return {name: numbers(value) for name, value in values.items() if not _is_picture(value)}
    if hasattr(record, "_asdict"):
        record = record._asdict()
    if isinstance(record, Mapping):
        return {str(key): numbers(value) for key, value in record.items()}
    if isinstance(record, tuple | list):
        return [numbers(value) for value in record]
    return record.tolist() if isinstance(record, np.ndarray | np.generic) else record


def _is_picture(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_is_picture(entry) for entry in value)
    return isinstance(value, np.ndarray) and value.size > PICTURES_ONLY
