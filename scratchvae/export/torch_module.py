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

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
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
        seen = torch.log1p(x) if isinstance(self.likelihood, PoissonLikelihood) else x
        mu, logvar = self.encoder(seen).chunk(2, dim=-1)
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


class ContinuousBernoulliLikelihood(nn.Module):
    """The decoder gives logits l of exp(x l - A(l)) on [0, 1], exp(A) = (exp(l) - 1) / l = sum l^n / (n + 1)!."""

    TERMS = 15  # of the series, for |l| < 1/2

    def mean(self, out: Tensor) -> Tensor:
        small, a = self._parts(out)
        powers = [small**n / math.factorial(n + 1) for n in range(self.TERMS)]
        slopes = [n * small ** (n - 1) / math.factorial(n + 1) for n in range(1, self.TERMS)]
        below = 1 / a + torch.exp(-a) / torch.expm1(-a)
        return torch.where(out.abs() < 0.5, sum(slopes) / sum(powers), torch.where(out < 0, below, 1 - below))

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        small, a = self._parts(out)
        near = x * small - torch.log(torch.stack([small**n / math.factorial(n + 1) for n in range(self.TERMS)]).sum(0))
        far = -a * torch.where(out < 0, x, 1 - x) - torch.log(-torch.expm1(-a) / a)
        return torch.where(out.abs() < 0.5, near, far).sum(-1)

    @staticmethod
    def _parts(out: Tensor) -> tuple[Tensor, Tensor]:
        """The logits where they are small, else 0; their magnitude where it is not small, else 1: no NaN in either."""
        small = out.abs() < 0.5
        return torch.where(small, out, torch.zeros_like(out)), torch.where(small, torch.ones_like(out), out.abs())


class DiscretisedLogisticLikelihood(nn.Module):
    """The decoder gives locations of a logistic density, whose mass in the bin of each level is a probability."""

    def __init__(self, values: int, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"discretised-logistic has {levels} levels; expected at least 2")
        self.log_scale = nn.Parameter(torch.full((values,), math.log(0.1)))
        self.steps = levels - 1

    def mean(self, out: Tensor) -> Tensor:
        edges = (torch.arange(self.steps, dtype=out.dtype, device=out.device) + 0.5) / self.steps
        return torch.sigmoid((out[..., None] - edges) * torch.exp(-self.log_scale)[:, None]).mean(-1)

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        half, scale = 0.5 / self.steps, torch.exp(self.log_scale)
        above = functional.logsigmoid((x + half - out) / scale)
        below = functional.logsigmoid((out + half - x) / scale)
        inside = torch.log(-torch.expm1(-2 * half / scale)) + above + below
        return torch.where(x < half, above, torch.where(x > 1 - half, below, inside)).sum(-1)


class PoissonLikelihood(nn.Module):
    """The decoder gives log-rates."""

    def mean(self, out: Tensor) -> Tensor:
        return torch.exp(out)

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        return (x * out - torch.exp(out) - torch.lgamma(x + 1)).sum(-1)


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
    """The likelihood of a name: "bernoulli", "discretised-logistic:17" (levels), "categorical:3,4,5" (groups).

    Raises    ValueError for a name that is none of them
    """
    plain: dict[str, Callable[[], nn.Module]] = {
        "bernoulli": BernoulliLikelihood,
        "gaussian": lambda: GaussianLikelihood(0),
        "gaussian-learned": lambda: GaussianLikelihood(1),
        "gaussian-learned-diagonal": lambda: GaussianLikelihood(data_dim),
        "continuous-bernoulli": ContinuousBernoulliLikelihood,
        "poisson": PoissonLikelihood,
    }
    counted: dict[str, Callable[..., nn.Module]] = {
        "categorical": lambda *sizes: CategoricalLikelihood(sizes or (data_dim,)),
        "discretised-logistic": lambda levels=256: DiscretisedLogisticLikelihood(1, levels),
        "discretised-logistic-diagonal": lambda levels=256: DiscretisedLogisticLikelihood(data_dim, levels),
    }
    stem, _, text = name.partition(":")
    numbers = re.fullmatch(r"\d+(,\d+)*" if stem == "categorical" else r"\d+", text, re.ASCII)
    if name in plain or name in counted:
        return (plain | counted)[name]()
    if stem in counted and numbers:
        return counted[stem](*map(int, text.split(",")))
    raise ValueError(f"likelihood is {name!r}; expected one of {', '.join((*plain, *counted))}")
