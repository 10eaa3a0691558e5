"""A variational autoencoder as a PyTorch module, under scratchvae's names of parameters. Needs torch alone: copy it.

    from safetensors.torch import load_file, save_file

    model = VAE(data_dim=784, latent_dim=20, hidden=(400,), likelihood="bernoulli", activation="relu")
    model.load_state_dict(load_file("weights.safetensors"))     written by scratchvae.export.save_torch
    mu, logvar = model.encode(x)
    save_file(model.state_dict(), "weights.safetensors")        read by scratchvae.export.load_torch

The state_dict has encoder.0.weight, encoder.0.bias, ..., encoder.head.weight, encoder.head.bias, the same of decoder,
and what the likelihood learns itself. A Linear's weight is (out, in), the transpose of scratchvae's (in, out).
B examples, D data dimensions, Z latent dimensions. Terms are in nats per example.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, Poisson
from torch.nn import functional


class Softplus(nn.Module):
    """log(1 + exp(a)) at every a: nn.Softplus is the identity above 20."""

    def forward(self, a: Tensor) -> Tensor:
        return torch.logaddexp(a, torch.zeros_like(a))


ACTIVATIONS = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "softplus": Softplus,
}


def dense_layers(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Dense layers "0", "1", ... with the activation, and a linear "head"."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        if index == len(sizes) - 2:
            layers["head"] = nn.Linear(inputs, outputs)
        else:
            layers[str(index)] = nn.Linear(inputs, outputs)
            layers[f"{activation}{index}"] = ACTIVATIONS[activation]()
    return nn.Sequential(layers)


class VAE(nn.Module):
    """q(z|x) = N(mu, exp(logvar)), p(z) = N(0, I), and p(x|z) by the likelihood's name."""

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        hidden: Sequence[int] = (400,),
        likelihood: str = "bernoulli",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.encoder = dense_layers((data_dim, *hidden, 2 * latent_dim), activation)
        self.decoder = dense_layers((latent_dim, *reversed(hidden), data_dim), activation)
        self.likelihood = likelihood_named(likelihood, data_dim)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) to mu and logvar, each (B, Z)."""
        mu, logvar = self.encoder(x).chunk(2, dim=-1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """z (..., Z) to the mean of p(x|z), (..., D)."""
        return self.likelihood.mean(self.decoder(z))

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """The ELBO of every example (B,), for x (B, D) and noise eps (B, Z). Its negative mean is the loss."""
        mu, logvar = self.encode(x)
        z = mu + torch.exp(logvar / 2) * eps
        kl = (mu**2 + torch.exp(logvar) - 1 - logvar).sum(-1) / 2
        return self.likelihood.log_likelihood(x, self.decoder(z)) - kl


class BernoulliLikelihood(nn.Module):
    """The decoder gives logits."""

    def mean(self, out: Tensor) -> Tensor:
        return torch.sigmoid(out)

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        return -functional.binary_cross_entropy_with_logits(out, x, reduction="none").sum(-1)


class GaussianLikelihood(nn.Module):
    """The decoder gives the mean. The log-variance is learned, one value or one per dimension, or is 0."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.logvar = nn.Parameter(torch.zeros(values)) if values else None

    def mean(self, out: Tensor) -> Tensor:
        return out

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        std = torch.ones_like(out[..., :1]) if self.logvar is None else torch.exp(self.logvar / 2)
        return Independent(Normal(out, std), 1).log_prob(x)


class PoissonLikelihood(nn.Module):
    """The decoder gives log-rates."""

    def mean(self, out: Tensor) -> Tensor:
        return torch.exp(out)

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        return Independent(Poisson(torch.exp(out)), 1).log_prob(x)


class CategoricalLikelihood(nn.Module):
    """The decoder gives logits of one-hot columns, in groups of the sizes given."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)

    def log_probabilities(self, out: Tensor) -> Tensor:
        return torch.cat([functional.log_softmax(group, -1) for group in out.split(self.sizes, -1)], -1)

    def mean(self, out: Tensor) -> Tensor:
        return torch.exp(self.log_probabilities(out))

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        return (x * self.log_probabilities(out)).sum(-1)


def likelihood_named(name: str, data_dim: int) -> nn.Module:
    """The likelihood of a name, such as "bernoulli" or "categorical:3,4,5"."""
    stem, _, numbers = name.partition(":")
    if stem == "categorical":
        return CategoricalLikelihood([int(size) for size in numbers.split(",")] if numbers else [data_dim])
    made: dict[str, Callable[[], nn.Module]] = {
        "bernoulli": BernoulliLikelihood,
        "gaussian": lambda: GaussianLikelihood(0),
        "gaussian-learned": lambda: GaussianLikelihood(1),
        "gaussian-learned-diagonal": lambda: GaussianLikelihood(data_dim),
        "poisson": PoissonLikelihood,
    }
    if stem not in made:
        raise ValueError(f"likelihood is {name!r}; expected one of {', '.join((*made, 'categorical'))}")
    return made[stem]()
