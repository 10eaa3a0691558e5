"""Draws in JAX: jitted, by the generator given; `rbg` is XLA's own, `threefry2x32` the default."""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.protocol import serve
from benchmarks.peers.sampling import Sampling


class JaxSampling(Sampling):
    def __init__(self, generator: str) -> None:
        self.generator = generator

    def prepare(self, draws: int, pixels: str) -> dict:
        self.pixels = jnp.asarray(np.load(pixels))
        self.key = jax.random.key(0, impl=self.generator)
        self.draw_normals = jax.jit(partial(next_draw, lambda key: jax.random.normal(key, (draws,))))
        self.draw_uniforms = jax.jit(partial(next_draw, lambda key: jax.random.uniform(key, (draws,))))
        self.draw_binary = jax.jit(lambda key, pixels: next_draw(partial(binarize, pixels=pixels), key))
        return {"version": jax.__version__, "generator": self.generator}

    def normals(self) -> jax.Array:
        self.key, drawn = self.draw_normals(self.key)
        return drawn

    def uniforms(self) -> jax.Array:
        self.key, drawn = self.draw_uniforms(self.key)
        return drawn

    def binarized(self) -> jax.Array:
        self.key, drawn = self.draw_binary(self.key, self.pixels)
        return drawn

    def finish(self, drawn: jax.Array) -> jax.Array:
        return drawn.block_until_ready()


def next_draw(draw, key):
    """The next key, and a draw."""
    key, other = jax.random.split(key)
    return key, draw(other)


def binarize(key, pixels):
    """P(1) = pixel / 255, to the 2^-23 of a float32 uniform."""
    return jax.random.bernoulli(key, pixels.astype(jnp.float32) / 255)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--generator", default="threefry2x32")
    serve(JaxSampling(parser.parse_args().generator))
