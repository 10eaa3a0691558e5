"""The training step in JAX: one jitted step a call, or `lax.scan` over many steps with the data already on the device.

The state is donated, the data set is an argument (not a constant of the program), the noise comes from JAX's threefry.
Measured and not better than what is here: the rbg and unsafe_rbg generators, uint8 data, promise_in_bounds gathers,
jax.nn.softplus, one flat parameter vector, an unrolled scan.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.equality import record
from benchmarks.peers.jax_model import ACTIVATIONS, LOSSES
from benchmarks.peers.protocol import ShuffledRows, serve
from benchmarks.workloads import BETA1, BETA2, EPSILON, Workload

CALL_MULTIPLY_ADDS = 1e10  # of one scan, so that a call takes about 0.1 s and starting it costs nothing
LONGEST_SCAN = 500


def adam(parameters, gradients, first, second, step, learning_rate, beta1=BETA1, beta2=BETA2, epsilon=EPSILON):
    """Kingma, Ba 2015, algorithm 1; step counts from 1."""
    first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, second, gradients)
    scale1, scale2 = 1 / (1 - beta1**step), 1 / (1 - beta2**step)
    parameters = jax.tree.map(
        lambda p, m, v: p - learning_rate * (m * scale1) / (jnp.sqrt(v * scale2) + epsilon), parameters, first, second
    )
    return parameters, first, second


def update(workload, state, x, eps):
    """One update from a minibatch and its noise; gives the new state and the loss before it."""
    parameters, first, second, step = state
    loss = partial(LOSSES[workload.objective], activation=ACTIVATIONS[workload.activation], x=x, eps=eps)
    value, gradients = jax.value_and_grad(loss)(parameters)
    moments = adam(parameters, gradients, first, second, step + 1, workload.learning_rate)
    return (*moments, step + 1), value


def training_step(workload, state, key, data, rows):
    """Draws the noise, takes the rows from the resident data, updates."""
    key, noise_key = jax.random.split(key)
    eps = jax.random.normal(noise_key, workload.noise_shape)
    state, loss = update(workload, state, data[rows], eps)
    return state, key, loss


def training_scan(workload, state, key, data, rows):
    """One update a row of `rows` (steps, B). The noise of all of them is drawn in one call, which is faster."""
    key, noise_key = jax.random.split(key)
    eps = jax.random.normal(noise_key, (len(rows), *workload.noise_shape))
    state, losses = jax.lax.scan(lambda s, batch: update(workload, s, data[batch[0]], batch[1]), state, (rows, eps))
    return state, key, losses


@jax.jit
def unit_interval(pixels):
    """uint8 pixels as float32 in [0, 1], in one pass on the device."""
    return pixels.astype(jnp.float32) / 255


class JaxTraining:
    def __init__(self, mode: str) -> None:
        self.mode = mode

    def prepare(self, workload: dict, problem: str, data: str) -> dict:
        self.workload = Workload.from_json(workload)
        self.problem = dict(np.load(problem))
        self.data = unit_interval(np.load(data))
        self.rows = ShuffledRows(len(self.data), self.workload.batch_size)
        self.length = int(min(LONGEST_SCAN, max(1, CALL_MULTIPLY_ADDS // self.workload.multiply_adds())))
        self.state, self.key = self.initial_state(), jax.random.key(0)
        kind = training_scan if self.mode == "scan" else training_step
        self.call = jax.jit(partial(kind, self.workload), donate_argnums=(0, 1))
        return {"version": jax.__version__, "generator": "threefry2x32", "dtype": str(self.data.dtype)}

    def initial_state(self):
        parameters = {name: jnp.asarray(a) for name, a in self.problem.items() if name not in ("x", "eps")}
        zeros = partial(jax.tree.map, jnp.zeros_like)
        return parameters, zeros(parameters), zeros(parameters), jnp.float32(0)

    def prove(self, updates: int, out: str) -> dict:
        """Trains on the given minibatch and noise, and writes the record."""
        state, losses, moments = self.initial_state(), [], []
        step = jax.jit(partial(update, self.workload))
        for _ in range(updates):
            state, loss = step(state, self.problem["x"], self.problem["eps"])
            losses.append(float(loss))
            moments.append(state[1])
        np.savez(out, **record(losses, moments, state[0]))
        return {}

    def run(self, steps: int, warm: int) -> dict:
        if warm:
            self.train(warm)
        start = time.perf_counter()
        losses = self.train(steps)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "steps": len(losses), "last_loss": float(losses[-1])}

    def train(self, steps: int) -> np.ndarray:
        return self.scan(steps) if self.mode == "scan" else self.step_by_step(steps)

    def scan(self, steps: int) -> np.ndarray:
        """At least `steps` updates, in whole scans: another length would be another program to compile."""
        losses = []
        for _ in range(-(-steps // self.length)):
            self.state, self.key, some = self.call(self.state, self.key, self.data, self.rows.take(self.length))
            losses.append(some)
        return np.concatenate(jax.device_get(losses))

    def step_by_step(self, steps: int) -> np.ndarray:
        losses = []
        for rows in self.rows.take(steps):
            self.state, self.key, loss = self.call(self.state, self.key, self.data, rows)
            losses.append(loss)
        return np.array(jax.device_get(losses))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("jit", "scan"), default="scan")
    serve(JaxTraining(parser.parse_args().mode))
