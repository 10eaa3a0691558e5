"""What every sampling peer answers: the time of some draws, and the moments that show what was drawn."""

import time
from abc import ABC, abstractmethod

import numpy as np


class Sampling(ABC):
    """`normals` and `uniforms` give `draws` float32 numbers, `binarized` as many 0s and 1s as there are pixels."""

    @abstractmethod
    def prepare(self, draws: int, pixels: str) -> dict: ...

    @abstractmethod
    def normals(self): ...

    @abstractmethod
    def uniforms(self): ...

    @abstractmethod
    def binarized(self): ...

    def finish(self, drawn):
        """Waits until the draw is there, where a framework only promises it."""
        return drawn

    def run(self, kind: str, repeats: int) -> dict:
        draw = getattr(self, kind)
        self.finish(draw())
        start = time.perf_counter()
        for _ in range(repeats):
            drawn = self.finish(draw())
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "draws": repeats * int(np.prod(drawn.shape))}

    def moments(self, kind: str) -> dict:
        """Mean of the draws and of their squares; of binarized pixels, the mean of draw - p and of its square."""
        drawn = np.asarray(self.finish(getattr(self, kind)())).astype(np.float64)
        if kind == "binarized":
            drawn = drawn - self.pixels_as_numpy() / 255
        return {"mean": float(drawn.mean()), "square": float(np.square(drawn).mean())}

    def pixels_as_numpy(self) -> np.ndarray:
        return np.asarray(self.pixels)
