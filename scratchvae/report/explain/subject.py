"""What everything is computed on: a trained model with few latent dimensions, its data, and how much to compute."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.data import Dataset, binarize, load
from scratchvae.evidence.quadrature import MAX_LATENT_DIM
from scratchvae.objectives import ELBO, Objective
from scratchvae.posteriors import check_diagonal
from scratchvae.reference.random import Stream
from scratchvae.training import fit
from scratchvae.vae import VAE

from ..plots import image_shape_of
from ..summary import spread_rows

Watch = Callable[[str, int, int], None]  # what is being worked on, steps done, steps to do


class Settings(NamedTuple):
    """How much is computed. The defaults take 70 seconds of a processor; tests take less of everything."""

    hidden: tuple[int, ...] = (64, 32)
    epochs: int = 150
    learning_rate: float = 2e-3
    examples: int = 24  # integrated to 1e-10
    shown: int = 4  # drawn one by one
    form_samples: int = 4000  # draws of z for the noise of each form of the ELBO
    movement_examples: int = 4
    movement_steps: int = 400  # of each of the two phases
    movement_looks: int = 8
    young_epochs: int = 6
    toy_epochs: int = 120
    toy_examples: int = 4000
    toy_hidden: tuple[int, ...] = (32, 32)
    toy_spacing: float = 0.1  # of the plane's grid; below a standard deviation, the trapezoidal rule is exact
    toy_looks: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64, 120)
    mixture_sizes: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512)
    latent_dims: tuple[int, ...] = (2, 4, 8, 16, 32, 48)
    evidence_examples: int = 8
    evidence_points: int = 20_000  # decoder evaluations each estimator may use on an example
    bound_samples: tuple[int, ...] = (1, 5, 50, 500, 5000)
    bound_draws: int = 40_000
    gradient_samples: int = 4000
    gradient_examples: int = 8

    @classmethod
    def quick(cls) -> "Settings":
        """Everything once and little of it: for tests, and to see what the page is like."""
        return cls(
            hidden=(16,),
            epochs=20,
            examples=5,
            shown=2,
            form_samples=300,
            movement_examples=1,
            movement_steps=60,
            movement_looks=3,
            young_epochs=2,
            toy_epochs=24,
            toy_examples=2000,
            toy_hidden=(16,),
            toy_spacing=0.14,
            toy_looks=(0, 8, 24),
            mixture_sizes=(4, 8, 16, 32, 64),
            latent_dims=(2, 8),
            evidence_examples=4,
            evidence_points=2000,
            bound_samples=(1, 5, 50, 500),
            bound_draws=5000,
            gradient_samples=500,
            gradient_examples=3,
        )


@dataclass(frozen=True)
class Subject:
    """A trained model in float64 on the engine that is read, and the data it is explained on."""

    vae: VAE
    name: str
    train: NDArray  # (N, D), as the model sees them
    held_out: NDArray  # (M, D)
    labels: NDArray | None  # (M,)
    image_shape: tuple[int, int] | None
    epochs: int
    binarize: str
    origin: str  # "trained for this page", or the run
    objective: Objective

    def rows(self, count: int) -> NDArray:
        """Numbers of at most `count` held-out examples, evenly spread."""
        return spread_rows(len(self.held_out), count)

    def fresh(self, seed: int) -> VAE:
        """An untrained model of the same architecture, its output bias set as training sets it."""
        config = self.vae.config | {"seed": seed, "dtype": "float64", "engine": "reference"}
        vae = VAE(**config)
        vae.set_output_bias(self.train.mean(axis=0))
        return vae


def next_seed(seed: int) -> int:
    """The seed after this one; after the last, 2^64 - 1, the first."""
    return (seed + 1) % 2**64


def train_on_digits(settings: Settings, seed: int, engine: str, on_epoch: Callable[[int], None]) -> Subject:
    """A model with two latent dimensions, trained on the 8x8 digits, their pixels black or white at one half.

    tanh and not relu: the decoder is then smooth, and integrals over z converge fast.
    """
    data = load("digits")
    vae = VAE(data.train.shape[1], 2, settings.hidden, "bernoulli", "tanh", "float32", engine, seed)
    fit(
        vae,
        data.train,
        settings.epochs,
        batch_size=64,
        learning_rate=settings.learning_rate,
        binarize="threshold",
        seed=seed,
        progress=False,
        on_epoch=lambda entry: on_epoch(entry["epoch"]),
    )
    return subject_of(vae, data, "threshold", seed, settings.epochs, "trained for this page")


def subject_of(
    vae: VAE, data: Dataset, method: str, seed: int, epochs: int, origin: str, objective: Objective = ELBO()
) -> Subject:
    """A trained model with its data.

    Raises    ValueError for more latent dimensions than can be integrated over, a posterior that is not diagonal, or a
              single example held out, which there is nothing to compare with
    """
    if len(data.held_out) < 2:
        raise ValueError(f"{origin}: 1 example is held out; explain compares examples, at least 2")
    if vae.latent_dim > MAX_LATENT_DIM:
        raise ValueError(
            f"{origin}: latent_dim is {vae.latent_dim}; explain integrates over z, which takes at most {MAX_LATENT_DIM}"
        )
    check_diagonal(vae.posterior, "explain")
    exact = vae.with_parameters(vae.parameters.astype(np.float64), "reference")
    parts = [
        binarize(exact.ops, part, np.arange(len(part)), method, seed, stream, 0, np.float64)
        for part, stream in ((data.train, Stream.FIXED_BINARIZE), (data.held_out, Stream.EVIDENCE_BINARIZE))
    ]
    shape = image_shape_of(vae.data_dim, data.image_shape)
    train, held_out = parts
    return Subject(exact, data.name, train, held_out, data.held_out_labels, shape, epochs, method, origin, objective)
