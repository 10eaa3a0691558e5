"""A second independent implementation: JAX in float64, written from the formulas, same weights and same noise."""

import numpy as np
import pytest

import scratchvae as sv
from scratchvae.engine import ENGINES
from tests.cases import build

jax = pytest.importorskip("jax", reason="jax, of the extra bench, is not installed")
jnp = pytest.importorskip("jax.numpy")

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "softplus": jax.nn.softplus}


@pytest.fixture(autouse=True)
def double_precision():
    """JAX in float64, for the time of one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def stack(weights, prefix, h, activation):
    names = [name.removesuffix(".weight") for name in weights if name.startswith(prefix) and name.endswith("weight")]
    for name in sorted(names):  # 0, 1, ..., head
        h = h @ weights[f"{name}.weight"] + weights[f"{name}.bias"]
        h = h if name.endswith(".head") else activation(h)
    return h


def loss(weights, vae, x, eps, objective):
    """-mean(objective) of the paper's formulas, on probabilities where the package has logits."""
    activation = ACTIVATIONS[vae.activation]
    mu, logvar = jnp.split(stack(weights, "encoder", x, activation), 2, axis=1)
    z = mu[:, None] + jnp.exp(logvar / 2)[:, None] * eps
    out = stack(weights, "decoder", z, activation)
    if vae.likelihood.name == "bernoulli":
        p = 1 / (1 + jnp.exp(-out))
        log_likelihood = jnp.log(jnp.where(x[:, None] == 1, p, 1 - p)).sum(axis=2)
    else:
        logvar_x = weights.get("likelihood.logvar", jnp.zeros(1))
        log_likelihood = jax.scipy.stats.norm.logpdf(x[:, None], out, jnp.exp(logvar_x / 2)).sum(axis=2)
    if isinstance(objective, sv.IWAE):
        log_prior = jax.scipy.stats.norm.logpdf(z).sum(axis=2)
        log_posterior = jax.scipy.stats.norm.logpdf(z, mu[:, None], jnp.exp(logvar / 2)[:, None]).sum(axis=2)
        value = jnp.log(jnp.exp(log_likelihood + log_prior - log_posterior).mean(axis=1))
    else:
        value = log_likelihood.mean(axis=1) - 0.5 * (mu**2 + jnp.exp(logvar) - 1 - logvar).sum(axis=1)
    return -value.mean()


@pytest.mark.parametrize(
    ("likelihood", "activation", "hidden", "objective"),
    [
        ("bernoulli", "tanh", (4,), sv.ELBO(3)),
        ("bernoulli", "relu", (5, 3), sv.IWAE(3)),
        ("gaussian", "softplus", (), sv.IWAE(3)),
        ("gaussian-learned", "tanh", (3, 4, 5), sv.ELBO(3)),
        ("gaussian-learned-diagonal", "tanh", (4,), sv.IWAE(3)),
    ],
)
def test_loss_and_gradients_are_jaxs(likelihood, activation, hidden, objective):
    case = build(6, 2, hidden, likelihood, activation, rows=5, samples=3, seed=3)
    weights = {name: jnp.asarray(array) for name, array in case.vae.parameters.items()}
    want_loss, want = jax.jit(jax.value_and_grad(lambda w: loss(w, *case, objective)))(weights)
    for engine in ENGINES:
        vae = case.vae.with_parameters(case.vae.parameters, engine=engine)
        terms, gradients = vae.value_and_grad(case.x, case.eps, objective)
        assert -terms.objective.mean() == pytest.approx(float(want_loss), rel=1e-10)
        for name, gradient in gradients.items():
            theirs = np.asarray(want[name])
            assert theirs.dtype == np.float64
            assert np.linalg.norm(theirs) > 0
            assert np.linalg.norm(gradient - theirs) <= 1e-10 * np.linalg.norm(theirs), f"{name}, {engine}"
