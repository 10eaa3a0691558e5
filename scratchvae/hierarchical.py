"""Two stochastic layers: a VAE whose prior over z1 is itself the decoder of a second, smaller z2.

    x --encoder.1--> q(z1|x) --draw--> z1 --encoder.2--> q(z2|z1) --draw--> z2
    p(z2) = N(0, I)          z2 --decoder.2--> p(z1|z2)          z1 --decoder.1--> p(x|z1)

    log w = log p(x|z1) + log p(z1|z2) + log p(z2) - log q(z1|x) - log q(z2|z1)

Its mean over samples is the ELBO, log 1/K sum w the importance-weighted bound: with the log-weights of the samples an
objective has all it needs. KL(q(z2|z1) || p(z2)) has a closed form at every z1, but its average over z1 has none, nor
has the average of log q(z1|x) - log p(z1|z2), in which z2 is drawn given z1. `kl` is the same samples' estimate of all
of it, so elbo = reconstruction - kl is the mean log-weight, and both are noisier than with one layer.

B examples, K samples, Z1 and Z2 latent dimensions. The noise, and z where both layers are meant, is (B, K, Z1 + Z2):
first z1, then z2. Sums over samples of z1 and z2 are always joint: sample k of z2 belongs to sample k of z1.

Source: Burda, Grosse, Salakhutdinov 2015, equations 1 (decoder) and 2 (encoder), sections 3 and 5.1
"""

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchvae.arguments import checked_seed, whole_positive
from scratchvae.finite import check_finite, named_parameters, quiet
from scratchvae.likelihoods import Likelihood
from scratchvae.objectives import Objective
from scratchvae.parameters import Network
from scratchvae.reference.random import Stream
from scratchvae.vae import VAE, Deltas, Gaussian

LAYERS = 2
BLOCK_ROWS = 100  # examples worked on together; results do not depend on it


class SampledLayers(NamedTuple):
    """What one forward pass computed."""

    log_weights: NDArray  # (B, K)
    reconstruction: NDArray  # (B,): the mean over K samples of log p(x|z1)
    kl: NDArray  # (B,): the mean over K samples of log q(z1|x) + log q(z2|z1) - log p(z1|z2) - log p(z2)


class LatentsCache(NamedTuple):
    posterior_1: "DrawCache"
    posterior_2: "DrawCache"
    prior_1: "DensityCache"
    prior_2: Any


class LayersCache(NamedTuple):
    latents: LatentsCache
    decoder: Any
    likelihood: Any


class HierarchicalVAE(VAE):
    """A VAE with two stochastic layers, every conditional a diagonal Gaussian with parameters from a dense network.

    Takes     latent_dims (Z1, Z2); hidden: the sizes of the encoder's hidden layers, those from x to z1 and those from
              z1 to z2, mirrored by the decoder; the rest as `VAE`. The defaults are those of Burda et al. 2015
    Networks  encoder.1 x -> q(z1|x); encoder.2 z1 -> q(z2|z1); decoder.2 z2 -> p(z1|z2); decoder.1 z1 -> p(x|z1). A
              head that gives a Gaussian has mu in its first columns and logvar in its last
    Raises    ValueError for sizes that are not of two layers, and as `VAE`
    """

    NETWORKS = ("encoder.1", "encoder.2", "decoder.2", "decoder.1")

    def __init__(
        self,
        data_dim: int,
        latent_dims: Iterable[int] = (100, 50),
        hidden: Iterable[Iterable[int]] = ((200, 200), (100, 100)),
        likelihood: str | Likelihood = "bernoulli",
        activation: str = "tanh",
        dtype: str = "float32",
        engine: str = "compiled",
        seed: int = 0,
        parameters: Mapping[str, NDArray] | None = None,
    ) -> None:
        latent_dims, hidden = _of_two_layers("latent_dims", latent_dims), _of_two_layers("hidden", hidden)
        self.latent_dims = tuple(whole_positive("a latent size", size) for size in latent_dims)
        self.hidden_by_layer = tuple(tuple(whole_positive("a hidden size", size) for size in sizes) for sizes in hidden)
        in_all = sum(self.latent_dims), sum(self.hidden_by_layer, ())
        super().__init__(data_dim, *in_all, likelihood, activation, dtype, engine, seed, parameters=parameters)

    # --- the model as functions -------------------------------------------------------------------------------------

    def encode(self, x: ArrayLike) -> Gaussian:
        """q(z1|x) of every example. Takes x (B, D); returns mu, logvar (B, Z1)."""
        return super().encode(x)

    def decode(self, z: NDArray) -> NDArray:
        """Mean of p(x|z1), which does not depend on z2. Takes z1 (..., Z1); returns (..., D)."""
        return super().decode(z)

    def _log_joint(self, x: NDArray, z: NDArray) -> NDArray:
        """log p(x, z) = log p(x|z1) + log p(z1|z2) + log p(z2), in nats, (B, K). Takes x (B, D), z (B, K, Z1 + Z2)."""
        z1, z2 = self._by_layer(z)
        log_prior_1, _ = density_forward(self.ops, self.networks["decoder.2"], _rows(z1), _rows(z2))
        log_prior_2, _ = self.ops.standard_normal_log_density_forward(z2)
        return self.log_likelihood(x, z1) + log_prior_1.reshape(z.shape[:2]) + log_prior_2

    def prior_draws(self, eps: NDArray) -> NDArray:
        """z1 = mu(z2) + exp(logvar(z2) / 2) eps1 at z2 = eps2. Takes eps (..., Z1 + Z2); returns z1 (..., Z1)."""
        eps1, z2 = (_rows(layer) for layer in self._by_layer(eps))
        with quiet():
            z1, _, _ = draw_forward(self.ops, self.networks["decoder.2"], z2, eps1[:, None])
        return z1.reshape(*eps.shape[:-1], -1)

    def encoder_head(self, x: NDArray) -> NDArray:
        """What encoder.1 says of x (B, D): mu and logvar of q(z1|x) side by side, (B, 2 Z1)."""
        return self.ops.network_forward(self.likelihood.encoder_input(x), self.networks["encoder.1"])[0]

    def log_weights(self, x: NDArray, head: NDArray, eps: NDArray) -> NDArray:
        """log w = log p(x, z1, z2) - log q(z1|x) - log q(z2|z1) of each sample, in nats; the rest as `VAE`, but that
        `head` is not looked at."""
        z1, log_ratio, _ = self.latents(x, eps)
        return self.log_likelihood(x, z1) - log_ratio

    def mean_variances(self, x: ArrayLike, num_samples: int = 50, seed: int = 0) -> tuple[NDArray, NDArray]:
        """Variance over the data of the mean of q(z1|x) and of E[z2|x] = E_q(z1|x) mu2(z1), (Z1,) and (Z2,).

        The second mean is estimated from K = `num_samples` draws of z1, independent for each of the N examples: example
        b has an error of variance v_b = var_k(mu2) / K. In the variance over the data these errors are measured from
        their own mean, and add (1 - 1/N) mean_b(v_b): so much is taken off, and what is left is unbiased.

        Raises    ValueError for fewer than 2 samples; NotFiniteError where a mean is NaN or infinite
        """
        if whole_positive("num_samples", num_samples) < 2:
            raise ValueError(f"num_samples is {num_samples}; expected at least 2, to estimate the variance they add")
        x, seed = self._batch(x), checked_seed(seed)
        with quiet():
            parts = [self._means(x, start, num_samples, seed) for start in range(0, len(x), BLOCK_ROWS)]
        near, far, added = (np.concatenate(part) for part in zip(*parts, strict=True))
        check_finite([x, near, far], [*named_parameters(self), ("x", x), ("mean of q(z1|x)", near), ("E[z2|x]", far)])
        return near.var(axis=0), far.var(axis=0) - (1 - 1 / len(x)) * added.mean(axis=0)

    def _means(self, x: NDArray, start: int, num_samples: int, seed: int) -> tuple[NDArray, NDArray, NDArray]:
        """Of a block of rows of x: mu1 (B, Z1), and the mean of mu2 over draws of z1 and its variance (B, Z2)."""
        rows = np.arange(start, min(start + BLOCK_ROWS, len(x)))
        eps = self.ops.normals(seed, Stream.AGGREGATE, 0, rows, num_samples * self.latent_dims[0])
        eps = eps.reshape(len(rows), num_samples, -1).astype(self.dtype)
        seen = self.likelihood.encoder_input(x[rows])
        z1, _, cache = draw_forward(self.ops, self.networks["encoder.1"], seen, eps)
        head, _ = self.ops.network_forward(_rows(z1), self.networks["encoder.2"])
        means = head[:, : self.latent_dims[1]].reshape(len(rows), num_samples, -1).astype(np.float64)
        return cache.mu.astype(np.float64), means.mean(axis=1), means.var(axis=1, ddof=1) / num_samples

    # --- forward and backward ---------------------------------------------------------------------------------------

    def forward(self, x: NDArray, eps: NDArray) -> tuple[SampledLayers, LayersCache]:  # type: ignore[override]
        """One pass from x (B, D) and noise (B, K, Z1 + Z2) to the log-weights."""
        z1, log_ratio, latents = self.latents(x, eps)
        out, decoder = self.ops.network_forward(_rows(z1), self.networks["decoder.1"])
        out = out.reshape(*log_ratio.shape, -1)
        log_likelihood, likelihood = self.likelihood.forward(self.ops, x, out, self.parameters)
        samples = eps.shape[1]
        reconstruction, kl = (np.add.reduce(term, axis=1) / samples for term in (log_likelihood, log_ratio))
        sampled = SampledLayers(log_likelihood - log_ratio, reconstruction, kl)
        return sampled, LayersCache(latents, decoder, likelihood)

    def latents(self, x: NDArray, eps: NDArray) -> tuple[NDArray, NDArray, LatentsCache]:
        """Samples of both layers and their price, from x (B, D) and noise (B, K, Z1 + Z2).

        Returns   z1 (B, K, Z1); log q(z1|x) + log q(z2|z1) - log p(z1|z2) - log p(z2), (B, K); cache
        """
        ops, networks = self.ops, self.networks
        eps1, eps2 = self._by_layer(eps)
        z1, log_q1, posterior_1 = draw_forward(ops, networks["encoder.1"], self.likelihood.encoder_input(x), eps1)
        z2, log_q2, posterior_2 = draw_forward(ops, networks["encoder.2"], _rows(z1), _rows(eps2)[:, None])
        log_p1, prior_1 = density_forward(ops, networks["decoder.2"], _rows(z1), _rows(z2))
        log_p2, prior_2 = ops.standard_normal_log_density_forward(z2)
        log_ratio = log_q1 + (log_q2 - log_p1 - log_p2).reshape(log_q1.shape)
        return z1, log_ratio, LatentsCache(posterior_1, posterior_2, prior_1, prior_2)

    def evaluate(self, objective: Objective, sampled: SampledLayers) -> tuple[NDArray, NDArray]:  # type: ignore[override]
        """The objective's value (B,) and d loss / d log w (B, K).

        Raises    ValueError for an objective that asks for more than log-weights: a weighted KL, free bits, an
                  estimator with an encoder gradient of its own
        """
        return objective.of_log_weights(self.ops, sampled.log_weights)

    def backward(self, dlog_weights: NDArray, cache: LayersCache) -> Deltas:  # type: ignore[override]
        """Reverse of `forward`, statement by statement. z1 is used three times, z2 twice."""
        ops, networks, latents = self.ops, self.networks, cache.latents
        per_row = np.ascontiguousarray(dlog_weights.reshape(-1, 1))  # the inner networks see a row a sample
        dout, likelihood = self.likelihood.backward(ops, dlog_weights, cache.likelihood)
        dz1_decoder, decoder_1 = ops.network_backward(_rows(dout), cache.decoder, networks["decoder.1"])
        dz1_prior, dz2_prior_1, decoder_2 = density_backward(ops, networks["decoder.2"], per_row, latents.prior_1)
        dz2_prior_2 = ops.standard_normal_log_density_backward(per_row, latents.prior_2)
        dz2 = dz2_prior_1[:, None] + dz2_prior_2
        dz1_encoder, encoder_2 = draw_backward(ops, networks["encoder.2"], dz2, -per_row, latents.posterior_2)
        dz1 = (dz1_decoder + dz1_prior + dz1_encoder).reshape(*dlog_weights.shape, -1)
        _, encoder_1 = draw_backward(ops, networks["encoder.1"], dz1, -dlog_weights, latents.posterior_1, False)
        deltas = {"encoder.1": encoder_1, "encoder.2": encoder_2, "decoder.2": decoder_2, "decoder.1": decoder_1}
        return Deltas(deltas, likelihood)

    # --- construction -----------------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this architecture again."""
        shared = super().config
        return {
            "data_dim": self.data_dim,
            "latent_dims": list(self.latent_dims),
            "hidden": [list(sizes) for sizes in self.hidden_by_layer],
            **{name: shared[name] for name in ("likelihood", "activation", "dtype", "seed")},
        }

    @property
    def output_network(self) -> Network:
        """The network that gives p(x|z1)."""
        return self.networks["decoder.1"]

    def check_one_layer(self) -> NoReturn:
        raise ValueError(f"{self!r} has two stochastic layers; expected a VAE, which has one")

    @property
    def _encoder(self) -> Network:
        self.check_one_layer()

    @property
    def _decoder(self) -> Network:
        return self._encoder

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        (near, far), (z1, z2) = self.hidden_by_layer, self.latent_dims
        encoder = self._stack("encoder.1", (self.data_dim, *near, 2 * z1))
        encoder |= self._stack("encoder.2", (z1, *far, 2 * z2))
        decoder = self._stack("decoder.2", (z2, *reversed(far), 2 * z1))
        decoder |= self._stack("decoder.1", (z1, *reversed(near), self.data_dim))
        return encoder | decoder | self.likelihood.parameter_shapes(self.data_dim)

    def _check_objective(self, objective: Any) -> None:
        super()._check_objective(objective)
        objective.of_log_weights(self.ops, np.zeros((1, 1), self.dtype))  # refuses what log-weights do not tell

    def _by_layer(self, z: NDArray) -> tuple[NDArray, NDArray]:
        """(..., Z1 + Z2) as z1 and z2."""
        return np.ascontiguousarray(z[..., : self.latent_dims[0]]), np.ascontiguousarray(z[..., self.latent_dims[0] :])

    def __repr__(self) -> str:
        (near, far), (z1, z2) = self.hidden_by_layer, self.latent_dims
        sizes = " - ".join(str(size) for size in (self.data_dim, *near, z1, *far, z2))
        return f"HierarchicalVAE({sizes}, {self.activation}, {self.likelihood.name}, {self.dtype.name}, {self.engine})"


# --- a Gaussian whose parameters a network gives ----------------------------------------------------------------------


class DrawCache(NamedTuple):
    network: Any
    draw: Any
    mu: NDArray  # (N, Z)


def draw_forward(
    ops: ModuleType, network: Network, inputs: NDArray, eps: NDArray
) -> tuple[NDArray, NDArray, DrawCache]:
    """Draw z from N(mu, exp(logvar)), mu and logvar the halves of the network's output; and the density of the draw.

    Forward   mu, logvar = network(inputs)     z = mu + exp(logvar / 2) eps
              log q = log N(z; mu, exp(logvar)) = log N(eps; 0, I) - 1/2 sum_j logvar_j
    Takes     inputs (N, in); eps (N, K, Z)
    Returns   z (N, K, Z), log q (N, K), cache
    """
    head, cache = ops.network_forward(inputs, network)
    mu, logvar = np.split(head, 2, axis=1)
    z, draw = ops.reparameterize_forward(mu, logvar, eps)
    log_density, _ = ops.standard_normal_log_density_forward(eps)
    return z, log_density - 0.5 * logvar.sum(axis=1)[:, None], DrawCache(cache, draw, mu)


def draw_backward(
    ops: ModuleType,
    network: Network,
    dz: NDArray,
    dlog_density: NDArray,
    cache: DrawCache,
    input_gradient: bool = True,
) -> tuple[NDArray | None, Any]:
    """Gradient of `draw_forward`. Returns dinputs (N, in), or None where it is not wanted, and the network's deltas."""
    dmu, dlogvar = ops.reparameterize_backward(dz, cache.draw)
    dlogvar_density = -0.5 * dlog_density.sum(axis=1)[:, None]  # logvar is used twice
    dhead = np.concatenate([dmu, dlogvar + dlogvar_density], axis=1)
    return ops.network_backward(dhead, cache.network, network, input_gradient)


class DensityCache(NamedTuple):
    network: Any
    density: Any


def density_forward(ops: ModuleType, network: Network, z: NDArray, inputs: NDArray) -> tuple[NDArray, DensityCache]:
    """The density of a z that is given.

    Forward   mu, logvar = network(inputs)     log p = log N(z; mu, exp(logvar))
    Takes     z (N, Z); inputs (N, in)
    Returns   log p (N, 1), cache
    """
    head, cache = ops.network_forward(inputs, network)
    log_density, density = ops.gaussian_log_density_forward(z[:, None], *np.split(head, 2, axis=1))
    return log_density, DensityCache(cache, density)


def density_backward(
    ops: ModuleType, network: Network, dlog_density: NDArray, cache: DensityCache
) -> tuple[NDArray, NDArray, Any]:
    """Gradient of `density_forward`. Takes dlog_density (N, 1); returns dz (N, Z), dinputs (N, in), deltas."""
    dz, dmu, dlogvar = ops.gaussian_log_density_backward(dlog_density, cache.density)
    dinputs, deltas = ops.network_backward(np.concatenate([dmu, dlogvar], axis=1), cache.network, network)
    return dz[:, 0], dinputs, deltas


def _rows(a: NDArray) -> NDArray:
    """(B, K, ...) as (B K, ...): a row a sample."""
    return a.reshape(-1, a.shape[-1])


def _of_two_layers(name: str, sizes: Any) -> tuple[Any, ...]:
    if not isinstance(sizes, Iterable) or len(found := tuple(sizes)) != LAYERS:
        raise ValueError(f"{name} is {sizes!r}; expected an entry for each of the {LAYERS} stochastic layers")
    if name == "hidden" and not all(isinstance(part, Iterable) for part in found):
        raise ValueError(f"hidden is {sizes!r}; expected sizes for each layer, such as ((200, 200), (100, 100))")
    return found
