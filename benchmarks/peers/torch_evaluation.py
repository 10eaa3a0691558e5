"""L_K in PyTorch, eager or with the log-weights through torch.compile, without gradients."""

import argparse
import time

import numpy as np
import torch

from benchmarks.peers.evaluation import BLOCK_ROWS, BLOCK_SAMPLES, estimates, read_pixels
from benchmarks.peers.protocol import serve
from benchmarks.peers.torch_model import Autoencoder
from benchmarks.workloads import Workload


class TorchEvaluation:
    def __init__(self, mode: str, threads: int) -> None:
        self.mode = mode
        torch.set_num_threads(threads)

    def prepare(self, workload: dict, parameters: str, data: str) -> dict:
        self.workload = Workload.from_json(workload)
        self.model = Autoencoder(self.workload, dict(np.load(parameters)))
        self.data = torch.from_numpy(read_pixels(data))
        self.weights = self.model.log_weights
        if self.mode != "eager":
            self.weights = torch.compile(self.model.log_weights, mode=self.mode)
        return {"version": torch.__version__, "generator": "mt19937 (torch.randn)"}

    @torch.inference_mode()
    def prove(self, noise: str, out: str) -> dict:
        """The bound of the first images with the noise given (B, K, Z), written to `out`."""
        eps = torch.from_numpy(np.load(noise))
        x = self.data[: len(eps)]
        weights = self.weights(x, *self.model.encode(x), eps)
        np.save(out, estimates(weights.numpy())[0])
        return {}

    @torch.inference_mode()
    def estimate(self, start: int, stop: int, samples: int) -> dict:
        began = time.perf_counter()
        weights = [self.rows(self.data[i : min(i + BLOCK_ROWS, stop)], samples) for i in range(start, stop, BLOCK_ROWS)]
        value, error = estimates(np.concatenate(weights))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "log_evidence": value.tolist(), "standard_error": error.tolist()}

    def rows(self, x: torch.Tensor, samples: int) -> np.ndarray:
        """Log-weights (B, K), a block of samples at a time."""
        mu, logvar = self.model.encode(x)
        weights = torch.empty(len(x), samples)
        for k in range(0, samples, BLOCK_SAMPLES):
            eps = torch.randn(len(x), min(BLOCK_SAMPLES, samples - k), self.workload.latent_dim)
            weights[:, k : k + BLOCK_SAMPLES] = self.weights(x, mu, logvar, eps)
        return weights.numpy()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("eager", "default"), default="eager")
    parser.add_argument("--threads", type=int, default=2)
    serve(TorchEvaluation(**vars(parser.parse_args())))
