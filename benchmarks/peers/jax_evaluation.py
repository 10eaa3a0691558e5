"""L_K in JAX: one jitted program for a block of images, a scan over blocks of samples inside it."""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.evaluation import BLOCK_ROWS, BLOCK_SAMPLES, estimates, read_pixels
from benchmarks.peers.jax_model import ACTIVATIONS, encode, log_weights
from benchmarks.peers.protocol import serve
from benchmarks.workloads import Workload


@partial(jax.jit, static_argnums=(0, 4))
def sampled_log_weights(workload, parameters, x, key, samples):
    """Log-weights (K, B), K rounded up to whole blocks, and the next key."""
    activation = ACTIVATIONS[workload.activation]
    mu, logvar = encode(parameters, activation, x)

    def block(key, _):
        key, noise_key = jax.random.split(key)
        eps = jax.random.normal(noise_key, (len(x), BLOCK_SAMPLES, workload.latent_dim))
        return key, log_weights(parameters, activation, x, mu, logvar, eps).T

    key, blocks = jax.lax.scan(block, key, length=-(-samples // BLOCK_SAMPLES))
    return blocks.reshape(-1, len(x)), key


@partial(jax.jit, static_argnums=0)
def given_log_weights(workload, parameters, x, eps):
    activation = ACTIVATIONS[workload.activation]
    return log_weights(parameters, activation, x, *encode(parameters, activation, x), eps)


class JaxEvaluation:
    def prepare(self, workload: dict, parameters: str, data: str) -> dict:
        self.workload = Workload.from_json(workload)
        self.parameters = {name: jnp.asarray(array) for name, array in np.load(parameters).items()}
        self.data = jnp.asarray(read_pixels(data))
        self.key = jax.random.key(0)
        return {"version": jax.__version__, "generator": "threefry2x32"}

    def prove(self, noise: str, out: str) -> dict:
        """The bound of the first images with the noise given (B, K, Z), written to `out`."""
        eps = np.load(noise)
        weights = given_log_weights(self.workload, self.parameters, self.data[: len(eps)], eps)
        np.save(out, estimates(np.asarray(weights))[0])
        return {}

    def estimate(self, start: int, stop: int, samples: int) -> dict:
        began = time.perf_counter()
        weights = []
        for i in range(start, stop, BLOCK_ROWS):
            x = self.data[i : min(i + BLOCK_ROWS, stop)]
            block, self.key = sampled_log_weights(self.workload, self.parameters, x, self.key, samples)
            weights.append(block[:samples].T)
        value, error = estimates(np.concatenate(jax.device_get(weights)))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "log_evidence": value.tolist(), "standard_error": error.tolist()}


if __name__ == "__main__":
    argparse.ArgumentParser().parse_args()
    serve(JaxEvaluation())
