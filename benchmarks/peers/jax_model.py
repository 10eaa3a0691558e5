"""The model in JAX: parameters are a dictionary with scratchvae's names and shapes, weights (in, out)."""

import math

import jax
import jax.numpy as jnp

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}


def network(parameters, half, activation, x):
    """The encoder or the decoder: hidden layers, then a linear head."""
    depth = sum(1 for name in parameters if name.startswith(half)) // 2 - 1
    for i in range(depth):
        x = activation(x @ parameters[f"{half}.{i}.weight"] + parameters[f"{half}.{i}.bias"])
    return x @ parameters[f"{half}.head.weight"] + parameters[f"{half}.head.bias"]


def encode(parameters, activation, x):
    """mu and logvar, each (B, Z)."""
    return jnp.split(network(parameters, "encoder", activation, x), 2, axis=1)


def softplus(a):
    """log(1 + exp(a)) without overflow; a little faster here than jax.nn.softplus."""
    return jnp.maximum(a, 0) + jnp.log1p(jnp.exp(-jnp.abs(a)))


def negative_elbo(parameters, activation, x, eps):
    """-mean ELBO of one sample; x (B, D), eps (B, 1, Z)."""
    mu, logvar = encode(parameters, activation, x)
    z = mu + jnp.exp(0.5 * logvar) * eps[:, 0]
    logits = network(parameters, "decoder", activation, z)
    kl = 0.5 * jnp.sum(mu * mu + jnp.exp(logvar) - 1 - logvar)
    return (jnp.sum(softplus(logits) - x * logits) + kl) / len(x)


def log_weights(parameters, activation, x, mu, logvar, eps):
    """log p(x|z) + log p(z) - log q(z|x), (B, K); (z - mu) / sigma is eps, so log q needs no division."""
    z = mu[:, None] + jnp.exp(0.5 * logvar)[:, None] * eps
    logits = network(parameters, "decoder", activation, z)
    log_likelihood = jnp.sum(x[:, None] * logits - softplus(logits), axis=2)
    return log_likelihood + 0.5 * jnp.sum(eps * eps - z * z + logvar[:, None], axis=2)


def negative_iwae(parameters, activation, x, eps):
    """-mean of the K-sample bound (Burda, Grosse, Salakhutdinov 2015, equation 8); x (B, D), eps (B, K, Z)."""
    mu, logvar = encode(parameters, activation, x)
    weights = log_weights(parameters, activation, x, mu, logvar, eps)
    return math.log(eps.shape[1]) - jnp.mean(jax.scipy.special.logsumexp(weights, axis=1))


LOSSES = {"ELBO": negative_elbo, "IWAE": negative_iwae}
