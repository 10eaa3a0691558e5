"""An independent implementation: torch.float64, autograd and torch.distributions, same weights and same noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scratchvae as sv
from scratchvae.engine import ENGINES, get_engine
from scratchvae.reference.random import Stream
from tests.cases import LIKELIHOOD_NAMES, architectures, build, objectives

torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")

ACTIVATIONS = {
    "identity": lambda a: a,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),  # torch's own softplus gives up above a = 20
}


def tensors(parameters):
    return {name: torch.tensor(array, requires_grad=True) for name, array in parameters.items()}


def stack(weights, prefix, h, activation):
    """Dense layers by name, in order, the head last and linear."""
    for name in [
        name.removesuffix(".weight") for name in weights if name.startswith(prefix) and name.endswith("weight")
    ]:
        h = torch.nn.functional.linear(h, weights[f"{name}.weight"].T, weights[f"{name}.bias"])
        h = h if name.endswith(".head") else activation(h)
    return h


def likelihood(vae, weights, out):
    """p(x|z) as a torch distribution."""
    match vae.likelihood.name:
        case "bernoulli":
            return torch.distributions.Bernoulli(logits=out, validate_args=False)
        case "continuous-bernoulli":
            return torch.distributions.ContinuousBernoulli(logits=out)
        case "poisson":
            return torch.distributions.Poisson(torch.exp(out))
        case "categorical":
            return OneHot(out)
        case "discretised-logistic" | "discretised-logistic-diagonal":
            return Discretised(out, torch.exp(weights["likelihood.log_scale"]), vae.likelihood.levels)
    logvar = weights.get("likelihood.logvar", torch.zeros(1, dtype=torch.float64))
    return torch.distributions.Normal(out, torch.exp(logvar / 2).expand(out.shape))


class OneHot(torch.distributions.OneHotCategorical):
    """torch's, with a last axis to sum over: its log-density is already the row's."""

    def __init__(self, logits):
        super().__init__(logits=logits)

    def log_prob(self, x):
        return super().log_prob(x)[..., None]


class Discretised:
    """Differences of logistic distribution functions, as the papers write them, taken where they are small."""

    def __init__(self, location, scale, levels):
        self.location, self.scale, self.steps = location, scale, levels - 1

    def log_prob(self, x):
        below, above = ((x + side / self.steps - self.location) / self.scale for side in (-0.5, 0.5))
        tail = torch.where(x > self.location, -1.0, 1.0)
        mass = tail * (torch.sigmoid(tail * above) - torch.sigmoid(tail * below))
        mass = torch.where(x < 0.5 / self.steps, torch.sigmoid(above), mass)
        return torch.log(torch.where(x > 1 - 0.5 / self.steps, torch.sigmoid(-below), mass))

    @property
    def mean(self):
        levels = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        return sum(torch.exp(self.log_prob(level)) * level for level in levels)


def terms(vae, weights, x, eps, objective):
    """The terms of the bound as torch.distributions gives them."""
    normal, activation = torch.distributions.Normal, ACTIVATIONS[vae.activation]
    x, eps = torch.tensor(x), torch.tensor(eps)
    seen = torch.log1p(x) if vae.likelihood.name == "poisson" else x
    mu, logvar = stack(weights, "encoder", seen, activation).chunk(2, dim=1)
    posterior = normal(mu[:, None], torch.exp(logvar / 2)[:, None])
    prior = normal(torch.zeros(1, dtype=torch.float64), 1)
    z = posterior.loc + posterior.scale * eps
    log_likelihood = likelihood(vae, weights, stack(weights, "decoder", z, activation)).log_prob(x[:, None]).sum(-1)
    kl = torch.distributions.kl_divergence(posterior, prior).sum(dim=(1, 2))
    reconstruction = log_likelihood.mean(dim=1)
    if isinstance(objective, sv.IWAE):
        log_weights = log_likelihood + prior.log_prob(z).sum(-1) - posterior.log_prob(z).sum(-1)
        value = torch.logsumexp(log_weights, dim=1) - math.log(eps.shape[1])
    else:
        value = reconstruction - objective.beta * kl
    return reconstruction - kl, reconstruction, kl, value


def close(got, want, name=""):
    """Within 1e-10 of the norm; where torch's gradient is zero (dead relus), zero."""
    want = want.detach().numpy()
    assert np.linalg.norm(got - want) <= 1e-10 * np.linalg.norm(want), name


@pytest.mark.parametrize("engine", ENGINES)
@given(arguments=architectures(), data=st.data())
@settings(max_examples=60)
def test_terms_and_gradients_are_torchs_for_any_architecture(engine, arguments, data):
    vae, x, eps = build(**arguments, engine=engine)
    objective = data.draw(objectives(eps.shape[1]))
    got, gradients = vae.value_and_grad(x, eps, objective)
    weights = tensors(vae.parameters)
    want = terms(vae, weights, x, eps, objective)
    for name, mine, theirs in zip(got._fields, got, want, strict=True):
        close(mine, theirs, name)
    (-want[3].mean()).backward()
    for name, gradient in gradients.items():
        close(gradient, weights[name].grad, name)
    assert np.linalg.norm(gradients["decoder.head.bias"]) > 0


def test_means_and_densities_are_torchs(engine):
    for name in LIKELIHOOD_NAMES:
        vae, x, eps = build(likelihood=name, engine=engine)
        weights = tensors(vae.parameters)
        out = stack(weights, "decoder", torch.tensor(eps), torch.tanh)
        close(vae.decode(eps), likelihood(vae, weights, out).mean)
        prior = torch.distributions.Normal(torch.zeros(1, dtype=torch.float64), 1)
        log_joint = likelihood(vae, weights, out).log_prob(torch.tensor(x)[:, None]).sum(-1)
        close(vae.log_joint(x, eps), log_joint + prior.log_prob(torch.tensor(eps)).sum(-1))


@pytest.mark.parametrize(
    "likelihood_name",
    ["bernoulli", "gaussian-learned", "continuous-bernoulli", "discretised-logistic", "categorical", "poisson"],
)
def test_twenty_steps_of_training_are_torchs(engine, likelihood_name):
    vae, x, _ = build(data_dim=6, likelihood=likelihood_name, rows=40, engine=engine)
    weights = tensors(vae.parameters)
    ops = get_engine("reference")
    optimizer = torch.optim.Adam(weights.values(), lr=0.01)
    step, history = 0, []
    for epoch in range(1, 6):
        order, seen = ops.permutation(3, Stream.SHUFFLE, epoch, 40), []
        for rows in np.split(order, 4):
            step += 1
            eps = ops.normals(3, Stream.POSTERIOR, step, rows, vae.latent_dim).astype(float)[:, None]
            elbo, *_ = terms(vae, weights, x[rows], eps, sv.ELBO())
            seen.append(elbo.mean().item())
            optimizer.zero_grad()
            (-elbo.mean()).backward()
            optimizer.step()
        history.append(np.mean(seen))
    got = sv.fit(vae, x, epochs=5, batch_size=10, learning_rate=0.01, binarize="none", seed=3, progress=False)
    assert step == 20
    np.testing.assert_allclose(got["elbo"], history, rtol=1e-10)
    for name, array in vae.parameters.items():
        np.testing.assert_allclose(array, weights[name].detach().numpy(), rtol=1e-7, atol=1e-9, err_msg=name)
