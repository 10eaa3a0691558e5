"""Draws in PyTorch, into tensors that are there. Of its ways to binarize, the faster one on a CPU: compare bytes."""

import argparse

import numpy as np
import torch

from benchmarks.peers.protocol import serve
from benchmarks.peers.sampling import Sampling


class TorchSampling(Sampling):
    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def prepare(self, draws: int, pixels: str) -> dict:
        self.pixels = torch.from_numpy(np.load(pixels))
        self.buffer = torch.empty(draws)
        self.bytes = torch.empty_like(self.pixels)
        return {"version": torch.__version__, "generator": "mt19937"}

    def normals(self) -> torch.Tensor:
        return torch.randn(self.buffer.shape, out=self.buffer)

    def uniforms(self) -> torch.Tensor:
        return torch.rand(self.buffer.shape, out=self.buffer)

    def binarized(self) -> torch.Tensor:
        """P(1) = pixel / 255 exactly: a byte uniform on 0..254 is below the pixel."""
        return self.bytes.random_(0, 255) < self.pixels


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    serve(TorchSampling(parser.parse_args().threads))
