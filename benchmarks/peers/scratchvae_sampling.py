"""Draws of scratchvae's compiled engine: addressed by (seed, stream, step, example, element), 784 of an example."""

import argparse
import itertools

import numpy as np
from numpy.typing import NDArray

import scratchvae as sv
from benchmarks.peers.protocol import serve
from benchmarks.peers.sampling import Sampling
from scratchvae.engine import get_engine, set_threads
from scratchvae.reference.random import Stream


class ScratchvaeSampling(Sampling):
    def __init__(self, threads: int) -> None:
        set_threads(threads)
        self.ops = get_engine("compiled")
        self.steps = itertools.count()

    def prepare(self, draws: int, pixels: str) -> dict:
        self.pixels = np.load(pixels)
        self.rows = np.arange(len(self.pixels))
        self.count = draws // len(self.rows)
        return {"version": sv.__version__, "generator": "Philox4x32-10, Box-Muller"}

    def normals(self) -> NDArray[np.float32]:
        return self.ops.normals(0, Stream.POSTERIOR, next(self.steps), self.rows, self.count)

    def uniforms(self) -> NDArray[np.float32]:
        return self.ops.uniforms(0, Stream.POSTERIOR, next(self.steps), self.rows, self.count)

    def binarized(self) -> NDArray[np.uint8]:
        """P(1) = pixel / 255 exactly."""
        return self.ops.bernoulli_bytes(self.pixels, self.rows, 0, Stream.BINARIZE, next(self.steps), self.rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    serve(ScratchvaeSampling(parser.parse_args().threads))
