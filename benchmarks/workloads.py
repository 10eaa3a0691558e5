"""The five training steps that are timed, their arithmetic, and the problem that every system proves first.

B examples, K samples an example, D pixels, H hidden units, Z latent dimensions. Weights are (in, out).
"""

import itertools
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam, everywhere
UPDATES = 5  # that every system proves


@dataclass(frozen=True)
class Workload:
    """What one training step does: the model, the batch, the objective and the kind of pixels."""

    name: str
    data_dim: int
    hidden: tuple[int, ...]
    latent_dim: int
    activation: str
    batch_size: int
    num_samples: int = 1
    objective: str = "ELBO"
    pixels: str = "threshold"
    learning_rate: float = 1e-3

    def as_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict) -> "Workload":
        return cls(**{**fields, "hidden": tuple(fields["hidden"])})

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(B, K, Z)."""
        return self.batch_size, self.num_samples, self.latent_dim

    def layer_sizes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of every layer by name, encoder first; the encoder's head gives mu and logvar side by side."""
        down = (self.data_dim, *self.hidden)
        up = (self.latent_dim, *reversed(self.hidden))
        sizes = {f"encoder.{i}": (down[i], down[i + 1]) for i in range(len(self.hidden))}
        sizes["encoder.head"] = (down[-1], 2 * self.latent_dim)
        sizes |= {f"decoder.{i}": (up[i], up[i + 1]) for i in range(len(self.hidden))}
        sizes["decoder.head"] = (up[-1], self.data_dim)
        return sizes

    def parameter_count(self) -> int:
        return sum(fan_in * fan_out + fan_out for fan_in, fan_out in self.layer_sizes().values())

    def least_memory_traffic(self) -> int:
        """Bytes a step cannot avoid moving when weights and moments are not in cache: Adam reads and writes the
        parameter and both moments (24 bytes a parameter), and the minibatch's pixels are read once, as bytes."""
        return 24 * self.parameter_count() + self.batch_size * self.data_dim

    def multiply_adds(self) -> int:
        """Multiply-adds of one step's matrix products as the algorithm states them.

        Every layer: forward and weight gradient; input gradient too, except for the layer that reads the pixels.
        Decoder layers see B K rows, encoder layers B.
        """
        total = 0
        for name, (fan_in, fan_out) in self.layer_sizes().items():
            rows = self.batch_size * (self.num_samples if name.startswith("decoder") else 1)
            products = 2 if name == "encoder.0" else 3
            total += products * rows * fan_in * fan_out
        return total


KINK = 1e-5  # ten times what sums of 784 numbers are off by in float32

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("pytorch-example", 784, (400,), 20, "relu", 128, pixels="grey"),
        Workload("kingma-welling", 784, (500,), 20, "tanh", 100),
        Workload("iwae-k1", 784, (200, 200), 50, "tanh", 20),
        Workload("iwae-k50", 784, (200, 200), 50, "tanh", 20, num_samples=50, objective="IWAE"),
        Workload("digits", 64, (128,), 8, "tanh", 64),
    )
}


def glorot_parameters(workload: Workload, seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights uniform in +-sqrt(6 / (in + out)) (Glorot, Bengio 2010), and small biases that are not zero."""
    rng = np.random.default_rng(seed)
    parameters = {}
    for name, (fan_in, fan_out) in workload.layer_sizes().items():
        limit = np.sqrt(6 / (fan_in + fan_out))
        parameters[f"{name}.weight"] = rng.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32)
        parameters[f"{name}.bias"] = rng.uniform(-0.05, 0.05, fan_out).astype(np.float32)
    return parameters


def write_problem(workload: Workload, images: NDArray[np.uint8], path: str, seed: int = 0) -> None:
    """Writes the .npz that every system proves itself on: weights, a small data set `x` (U B, D) of bytes, the `rows`
    (U, B) of every update, each row in one of them, and every row's noise `eps` (U B, K, Z).

    The seed, or the first after it with which no relu of the first update is within KINK of 0: there a system's
    rounding would decide whether the unit is on, and with it a gradient that another has not.
    """
    problems = (_problem(workload, images, seed) for seed in itertools.count(seed))
    np.savez(path, **next(problem for problem in problems if _distance_from_kinks(workload, problem) > KINK))


def parameters_of(problem: dict[str, NDArray]) -> dict[str, NDArray[np.float32]]:
    """The weights that a problem begins with."""
    return {name: array for name, array in problem.items() if name not in ("x", "rows", "eps")}


def _problem(workload: Workload, images: NDArray[np.uint8], seed: int) -> dict[str, NDArray]:
    rng = np.random.default_rng(seed + 1)
    examples, samples, latents = workload.noise_shape
    x = images[rng.choice(len(images), UPDATES * examples)]
    rows = rng.permutation(len(x)).astype(np.int32).reshape(UPDATES, examples)
    eps = rng.standard_normal((len(x), samples, latents)).astype(np.float32)
    return {"x": x, "rows": rows, "eps": eps, **glorot_parameters(workload, seed)}


def _distance_from_kinks(workload: Workload, problem: dict[str, NDArray]) -> float:
    """How near to 0 the nearest of all inputs of a relu is at the first update, over both networks."""
    if workload.activation != "relu":
        return np.inf
    exact, nearest = {name: array.astype(np.float64) for name, array in parameters_of(problem).items()}, np.inf
    first = problem["rows"][0]
    h = problem["x"][first] / 255
    for network in ("encoder", "decoder"):
        for layer in range(len(workload.hidden)):
            a = h @ exact[f"{network}.{layer}.weight"] + exact[f"{network}.{layer}.bias"]
            nearest, h = min(nearest, float(np.abs(a).min())), np.maximum(a, 0)
        if network == "encoder":
            mu, logvar = np.split(h @ exact["encoder.head.weight"] + exact["encoder.head.bias"], 2, axis=1)
            h = mu[:, None] + np.exp(logvar / 2)[:, None] * problem["eps"][first]
    return nearest
