"""The training step in PyTorch: eager with fused Adam, or the same with the loss through torch.compile.

Minibatches are gathered from a resident float32 tensor by index_select. Measured and not better than what is here:
compiling the optimizer's step, compiling gather, noise, loss and backward as one.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.equality import record
from benchmarks.peers.protocol import ShuffledRows, serve
from benchmarks.peers.torch_model import Autoencoder
from benchmarks.workloads import BETA1, BETA2, EPSILON, Workload


def unit_interval(pixels: np.ndarray) -> torch.Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return torch.from_numpy(pixels).to(torch.float32).div_(255)


class TorchTraining:
    def __init__(self, mode: str, threads: int) -> None:
        self.mode = mode
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)  # as all others do

    def prepare(self, workload: dict, problem: str, data: str) -> dict:
        self.workload = Workload.from_json(workload)
        self.problem = dict(np.load(problem))
        self.data = unit_interval(np.load(data))
        self.rows = ShuffledRows(len(self.data), self.workload.batch_size)
        self.initialise()
        return {"version": torch.__version__, "generator": "mt19937 (torch.randn)", "dtype": str(self.data.dtype)}

    def initialise(self) -> None:
        self.model = Autoencoder(self.workload, self.problem)
        settings = {"lr": self.workload.learning_rate, "betas": (BETA1, BETA2), "eps": EPSILON}
        self.optimizer = torch.optim.Adam(self.model.parameters(), **settings, fused=True)
        self.loss = self.model if self.mode == "eager" else torch.compile(self.model, mode=self.mode)

    def prove(self, out: str) -> dict:
        """Trains on the problem, and writes the record. What is timed takes shuffled rows, draws the noise, and looks
        at no loss before the last update."""
        data, eps = unit_interval(self.problem["x"]), torch.from_numpy(self.problem["eps"])
        losses, moments = [], []
        for rows in torch.from_numpy(self.problem["rows"]):
            losses.append(float(self.update(data, rows, eps[rows])))
            moments.append(self.by_name(lambda parameter: self.optimizer.state[parameter]["exp_avg"]))
        np.savez(out, **record(losses, moments, self.by_name(torch.Tensor.detach)))
        self.initialise()
        return {}

    def by_name(self, of: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, np.ndarray]:
        """Copies of what belongs to each parameter, by our names and in our shapes."""
        arrays = {}
        for name, layer in self.model.named_layers.items():
            arrays[f"{name}.weight"] = of(layer.weight).numpy().T.copy()
            arrays[f"{name}.bias"] = of(layer.bias).numpy().copy()
        return arrays

    def update(self, data: torch.Tensor, rows: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """One update from the rows of a minibatch and its noise; gives the loss before it."""
        x = torch.index_select(data, 0, rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x, eps)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self, steps: int, warm: int) -> dict:
        if warm:
            self.train(warm)
        start = time.perf_counter()
        losses = self.train(steps)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "steps": len(losses), "last_loss": losses[-1]}

    def train(self, steps: int) -> list[float]:
        losses = []
        for rows in torch.from_numpy(self.rows.take(steps)):
            losses.append(self.update(self.data, rows, torch.randn(self.workload.noise_shape)))
        return torch.stack(losses).tolist()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("eager", "default", "max-autotune"), default="eager")
    parser.add_argument("--threads", type=int, default=2)
    serve(TorchTraining(**vars(parser.parse_args())))
