"""Draws in NumPy: PCG64, float32 into an array that is there, the way its documentation recommends. One thread."""

import numpy as np

from benchmarks.peers.protocol import serve
from benchmarks.peers.sampling import Sampling


class NumpySampling(Sampling):
    generator = "PCG64"

    def normals(self) -> np.ndarray:
        return self.rng.standard_normal(dtype=np.float32, out=self.buffer)

    def uniforms(self) -> np.ndarray:
        return self.rng.random(dtype=np.float32, out=self.buffer)

    def binarized(self) -> np.ndarray:
        """P(1) = pixel / 255 exactly: a byte uniform on 0..254 is below the pixel. Faster than comparing floats."""
        return self.rng.integers(0, 255, self.pixels.shape, dtype=np.uint8) < self.pixels

    def prepare(self, draws: int, pixels: str) -> dict:
        self.rng = np.random.default_rng(0)
        self.pixels = np.load(pixels)
        self.buffer = np.empty(draws, np.float32)
        return {"version": np.__version__, "generator": self.generator}


if __name__ == "__main__":
    serve(NumpySampling())
