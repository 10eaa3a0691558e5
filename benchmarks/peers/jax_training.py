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
from benchmarks.workloads import BETA1, BETA2, EPSILON, Workload, parameters_of

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


def update(workload, state, data, rows, eps):
    """One update from the rows of a minibatch and its noise; gives the new state and the loss before it."""
    parameters, first, second, step = state
    loss = partial(LOSSES[workload.objective], activation=ACTIVATIONS[workload.activation], x=data[rows], eps=eps)
    value, gradients = jax.value_and_grad(loss)(parameters)
    moments = adam(parameters, gradients, first, second, step + 1, workload.learning_rate)
    return (*moments, step + 1), value


def update_and_moments(workload, state, data, rows, eps):
    """The same with the first moments after it, for the proof."""
    state, loss = update(workload, state, data, rows, eps)
    return state, (loss, state[1])


def scan(one, workload, state, data, rows, eps):
    """`one` a row of `rows` (steps, B) and of `eps` (steps, B, K, Z)."""
    return jax.lax.scan(lambda state, batch: one(workload, state, data, *batch), state, (rows, eps))


def drawing(updates, workload, state, key, data, rows):
    """`updates` with noise for all rows (..., B) drawn in one call, which is faster than step by step."""
    key, noise_key = jax.random.split(key)
    eps = jax.random.normal(noise_key, (*rows.shape[:-1], *workload.noise_shape))
    state, losses = updates(workload, state, data, rows, eps)
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
        updates = partial(scan, update) if self.mode == "scan" else update
        self.call = jax.jit(partial(drawing, updates, self.workload), donate_argnums=(0, 1))
        return {"version": jax.__version__, "generator": "threefry2x32", "dtype": str(self.data.dtype)}

    def initial_state(self):
        parameters = {name: jnp.asarray(array) for name, array in parameters_of(self.problem).items()}
        zeros = partial(jax.tree.map, jnp.zeros_like)
        return parameters, zeros(parameters), zeros(parameters), jnp.float32(0)

    def prove(self, out: str) -> dict:
        """Trains on the problem, and writes the record. What is timed is compiled with the drawing of noise in the same
        program, and gives no moments; a scan has more updates."""
        data, rows = unit_interval(self.problem["x"]), self.problem["rows"]
        prove = self.prove_scan if self.mode == "scan" else self.prove_step_by_step
        np.savez(out, **record(*prove(data, rows, self.problem["eps"][rows])))
        return {}

    def prove_scan(self, data, rows, eps):
        call = jax.jit(partial(scan, update_and_moments, self.workload), donate_argnums=0)
        state, (losses, stacked) = call(self.initial_state(), data, rows, eps)
        moments = [{name: array[i] for name, array in stacked.items()} for i in range(len(rows))]
        return losses, moments, state[0]

    def prove_step_by_step(self, data, rows, eps):
        call = jax.jit(partial(update, self.workload), donate_argnums=0)
        state, losses, moments = self.initial_state(), [], []
        for batch in zip(rows, eps, strict=True):
            state, loss = call(state, data, *batch)
            losses.append(float(loss))
            moments.append(
                {name: np.array(array) for name, array in state[1].items()}
            )  # the next call takes its memory
        return losses, moments, state[0]

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
