"""The model in PyTorch: the usual module of nn.Linear layers, filled from scratchvae's names and shapes."""

import math

import torch
from torch import nn
from torch.nn import functional

from benchmarks.workloads import Workload

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class Autoencoder(nn.Module):
    """Its forward pass is the loss. A Linear's weight is stored (out, in), the transpose of ours."""

    def __init__(self, workload: Workload, parameters: dict) -> None:
        super().__init__()
        self.workload, self.activation = workload, ACTIVATIONS[workload.activation]
        layers = {name: nn.Linear(*size) for name, size in workload.layer_sizes().items()}
        self.named_layers = layers
        self.encoder = nn.ModuleList(layer for name, layer in layers.items() if name.startswith("encoder"))
        self.decoder = nn.ModuleList(layer for name, layer in layers.items() if name.startswith("decoder"))
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight.copy_(torch.from_numpy(parameters[f"{name}.weight"]).T)
                layer.bias.copy_(torch.from_numpy(parameters[f"{name}.bias"]))

    def network(self, layers: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        for layer in layers[:-1]:
            x = self.activation(layer(x))
        return layers[-1](x)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mu and logvar, each (B, Z)."""
        mu, logvar = self.network(self.encoder, x).chunk(2, dim=1)
        return mu, logvar

    def forward(self, x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """-mean of the objective; x (B, D), eps (B, K, Z)."""
        return self.negative_elbo(x, eps) if self.workload.objective == "ELBO" else self.negative_iwae(x, eps)

    def negative_elbo(self, x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """-mean ELBO of one sample, as the PyTorch example writes it."""
        mu, logvar = self.encode(x)
        logits = self.network(self.decoder, mu + torch.exp(0.5 * logvar) * eps[:, 0])
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl) / len(x)

    def negative_iwae(self, x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """-mean of the K-sample bound (Burda, Grosse, Salakhutdinov 2015, equation 8)."""
        weights = self.log_weights(x, *self.encode(x), eps)
        return math.log(eps.shape[1]) - torch.logsumexp(weights, dim=1).mean()

    def log_weights(self, x, mu, logvar, eps) -> torch.Tensor:
        """log p(x|z) + log p(z) - log q(z|x), (B, K); (z - mu) / sigma is eps, so log q needs no division."""
        z = mu[:, None] + torch.exp(0.5 * logvar)[:, None] * eps
        logits = self.network(self.decoder, z)
        log_likelihood = torch.sum(x[:, None] * logits - functional.softplus(logits), dim=2)
        return log_likelihood + 0.5 * torch.sum(eps * eps - z * z + logvar[:, None], dim=2)
