"""The training step in TensorFlow: many steps in one tf.function compiled by XLA, data and variables on the device.

Adam is written out on tf.Variables: within one XLA program it fuses as well as Keras's, without its bookkeeping.
"""

import argparse
import math
import time

import numpy as np
import tensorflow as tf

from benchmarks.equality import record
from benchmarks.peers.protocol import ShuffledRows, serve
from benchmarks.workloads import BETA1, BETA2, EPSILON, Workload, parameters_of

ACTIVATIONS = {"relu": tf.nn.relu, "tanh": tf.tanh}
CALL_MULTIPLY_ADDS = 1e10  # of one call, so that it takes about 0.1 s and starting it costs nothing
LONGEST_CALL = 500


def network(parameters, half, activation, x):
    """The encoder or the decoder: hidden layers, then a linear head."""
    depth = sum(1 for name in parameters if name.startswith(half)) // 2 - 1
    for i in range(depth):
        x = activation(x @ parameters[f"{half}.{i}.weight"] + parameters[f"{half}.{i}.bias"])
    return x @ parameters[f"{half}.head.weight"] + parameters[f"{half}.head.bias"]


def negative_elbo(parameters, activation, x, eps):
    """-mean ELBO of one sample; x (B, D), eps (B, 1, Z)."""
    mu, logvar = tf.split(network(parameters, "encoder", activation, x), 2, axis=1)
    logits = network(parameters, "decoder", activation, mu + tf.exp(0.5 * logvar) * eps[:, 0])
    cross_entropy = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(x, logits))
    kl = 0.5 * tf.reduce_sum(mu * mu + tf.exp(logvar) - 1 - logvar)
    return (cross_entropy + kl) / x.shape[0]


def negative_iwae(parameters, activation, x, eps):
    """-mean of the K-sample bound; x (B, D), eps (B, K, Z)."""
    mu, logvar = tf.split(network(parameters, "encoder", activation, x), 2, axis=1)
    z = mu[:, None] + tf.exp(0.5 * logvar)[:, None] * eps
    rows, samples, latent = eps.shape
    logits = network(parameters, "decoder", activation, tf.reshape(z, (rows * samples, latent)))
    logits = tf.reshape(logits, (rows, samples, x.shape[1]))
    log_likelihood = tf.reduce_sum(x[:, None] * logits - tf.nn.softplus(logits), axis=2)
    weights = log_likelihood + 0.5 * tf.reduce_sum(eps * eps - z * z + logvar[:, None], axis=2)
    return math.log(samples) - tf.reduce_mean(tf.reduce_logsumexp(weights, axis=1))


LOSSES = {"ELBO": negative_elbo, "IWAE": negative_iwae}


@tf.function(jit_compile=True)
def unit_interval(pixels):
    """uint8 pixels as float32 in [0, 1], in one pass on the device."""
    return tf.cast(pixels, tf.float32) / 255


class TensorflowTraining:
    def __init__(self, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def prepare(self, workload: dict, problem: str, data: str) -> dict:
        self.workload = Workload.from_json(workload)
        self.problem = dict(np.load(problem))
        self.data = unit_interval(np.load(data))
        self.rows = ShuffledRows(self.data.shape[0], self.workload.batch_size)
        self.length = int(min(LONGEST_CALL, max(1, CALL_MULTIPLY_ADDS // self.workload.multiply_adds())))
        arrays = parameters_of(self.problem)
        self.parameters = {name: tf.Variable(array) for name, array in arrays.items()}
        self.first = {name: tf.Variable(np.zeros_like(array)) for name, array in arrays.items()}
        self.second = {name: tf.Variable(np.zeros_like(array)) for name, array in arrays.items()}
        self.step = tf.Variable(0.0)
        self.compiled_steps = tf.function(self.steps_with_drawn_noise, jit_compile=True)
        self.compiled_steps_to_prove = tf.function(self.steps_with_given_noise, jit_compile=True)
        return {"version": tf.__version__, "generator": "tf.random.stateless_normal", "dtype": self.data.dtype.name}

    def update(self, x, eps):
        """One update from a minibatch and its noise; gives the loss before it."""
        with tf.GradientTape() as tape:
            loss = LOSSES[self.workload.objective](self.parameters, ACTIVATIONS[self.workload.activation], x, eps)
        gradients = tape.gradient(loss, self.parameters)
        self.step.assign_add(1.0)
        scale1, scale2 = 1 / (1 - BETA1**self.step), 1 / (1 - BETA2**self.step)
        for name, gradient in gradients.items():
            first = self.first[name].assign(BETA1 * self.first[name] + (1 - BETA1) * gradient)
            second = self.second[name].assign(BETA2 * self.second[name] + (1 - BETA2) * gradient * gradient)
            change = first * scale1 / (tf.sqrt(second * scale2) + EPSILON)
            self.parameters[name].assign_sub(self.workload.learning_rate * change)
        return loss

    def steps(self, data, rows, noise):
        """One update a row of `rows` (steps, B), with the `noise` (B, K, Z) of each."""
        losses = tf.TensorArray(tf.float32, size=rows.shape[0])
        for i in tf.range(rows.shape[0]):
            losses = losses.write(i, self.update(tf.gather(data, rows[i]), noise(i)))
        return losses.stack()

    def steps_with_drawn_noise(self, data, rows):
        def noise(_):
            seed = tf.stack([0, tf.cast(self.step, tf.int32)])
            return tf.random.stateless_normal(self.workload.noise_shape, seed=seed)

        return self.steps(data, rows, noise)

    def steps_with_given_noise(self, data, rows, eps):
        return self.steps(data, rows, lambda i: eps[i])

    def prove(self, out: str) -> dict:
        """Trains on the problem, and writes the record. What is timed makes many updates in a call, here one, between
        which moments are seen; and draws the noise."""
        data, eps = unit_interval(self.problem["x"]), self.problem["eps"]
        losses, moments = [], []
        for rows in self.problem["rows"]:
            given = tf.constant(rows[np.newaxis]), tf.constant(eps[rows][np.newaxis])
            losses.append(float(self.compiled_steps_to_prove(data, *given)[0]))
            moments.append({name: first.numpy().copy() for name, first in self.first.items()})
        np.savez(out, **record(losses, moments, self.parameters))
        return {}

    def run(self, steps: int, warm: int) -> dict:
        if warm:
            self.train(warm)
        start = time.perf_counter()
        losses = self.train(steps)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "steps": len(losses), "last_loss": float(losses[-1])}

    def train(self, steps: int) -> np.ndarray:
        """At least `steps` updates, in whole calls: another length would be another program to compile."""
        losses = []
        for _ in range(-(-steps // self.length)):
            losses.append(self.compiled_steps(self.data, tf.constant(self.rows.take(self.length))))
        return np.concatenate([some.numpy() for some in losses])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    serve(TensorflowTraining(**vars(parser.parse_args())))
