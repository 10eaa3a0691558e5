"""The variational autoencoder: wiring only. `forward` and `backward` are the page that shows the ELBO.

    x --encoder--> mu, logvar --draw--> z --decoder--> p(x|z)        elbo = E_q log p(x|z) - KL(q(z|x) || p(z))

B examples, K samples per example, D data dimensions, Z latent dimensions. All terms are in nats per example and higher
is better; the one scalar that is differentiated is loss = -mean(objective).
"""

import os
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchvae import checkpoint
from scratchvae.arguments import checked_seed, one_of, whole_positive
from scratchvae.engine import get_engine
from scratchvae.finite import arrays_of_a_pass, check_finite, is_whole_number, named_parameters, quiet
from scratchvae.likelihoods import Draws, Likelihood, as_likelihood, data_for
from scratchvae.objectives import ELBO, Objective, Sampled, Upstream, check_objective
from scratchvae.parameters import ACTIVATION_CODES, Network, Parameters
from scratchvae.posteriors import POSTERIORS, Gaussian, Posterior
from scratchvae.reference.decoded import pieces
from scratchvae.reference.random import Stream, uniforms

__all__ = ["VAE", "Deltas", "Elbo", "ForwardCache", "Gaussian", "Terms"]

DTYPES = ("float32", "float64")
DECODED_TOGETHER = 1000  # samples at most: results depend on it by the rounding of the reference engine alone
DECODED_ELEMENTS = 2_000_000  # of their outputs at most, so that wide data take no more memory


class Elbo(NamedTuple):
    """The evidence lower bound of every example and its two terms, elbo = reconstruction - kl: all (B,), in nats.

    `reconstruction` is the mean over K samples of log p(x|z), `kl` the exact KL(q(z|x) || p(z)); of two
    stochastic layers it is a mean over the samples too.
    """

    elbo: NDArray  # (B,)
    reconstruction: NDArray  # (B,): the mean over K samples of log p(x|z)
    kl: NDArray  # (B,): KL(q(z|x) || p(z))


class Terms(NamedTuple):
    """The terms of `Elbo` and the objective that was differentiated (for `ELBO()` the elbo itself): (B,), in nats."""

    elbo: NDArray  # (B,)
    reconstruction: NDArray  # (B,)
    kl: NDArray  # (B,)
    objective: NDArray  # (B,)


class ForwardCache(NamedTuple):
    encoder: Any
    posterior: Any
    decoder: Any
    likelihood: Any


class Deltas(NamedTuple):
    """What the backward pass leaves: every network's deltas and the likelihood's own gradients, by name."""

    networks: dict[str, Any]
    likelihood: dict[str, NDArray]


class VAE:
    """A VAE with dense layers, a Gaussian posterior and the prior N(0, I).

    Takes     data_dim D; latent_dim Z; hidden: sizes of the encoder's hidden layers, mirrored by the decoder, () for a
              linear encoder and decoder; likelihood: a name (`likelihoods.LIKELIHOODS`) or a record such
              as Categorical((3, 4, 5)); activation of the hidden layers: tanh, relu, sigmoid, softplus, identity;
              dtype: float32 or float64; engine: compiled or reference; seed of the
              weights; posterior: diagonal, N(mu, diag(exp(logvar))), or full, N(mu, L L^T), whose encoder head has
              Z + Z (Z + 1) / 2 columns: mu, logvar with L_jj = exp(logvar_j / 2), the strict lower triangle of L;
              parameters: arrays by name, to be copied in place of random weights
    Weights   Glorot-uniform, U(-a, a) with a = sqrt(6 / (in + out)) (Glorot, Bengio 2010, equation 16); biases zero;
              what the likelihood learns itself where it says
    Raises    ValueError for a size below 1, an unknown name, a likelihood of another number of columns, a parameter
              that is missing or too many, or of another shape or dtype
    Source    Kingma, Welling 2013, section 3; full: Kingma, Welling 2019, section 2.5.1
    """

    NETWORKS: tuple[str, ...] = ("encoder", "decoder")

    def __init__(
        self,
        data_dim: int = 784,
        latent_dim: int = 20,
        hidden: Iterable[int] = (400,),
        likelihood: str | Likelihood = "bernoulli",
        activation: str = "relu",
        dtype: str = "float32",
        engine: str = "compiled",
        seed: int = 0,
        parameters: Mapping[str, NDArray] | None = None,
        posterior: str = "diagonal",
    ) -> None:
        self.data_dim = whole_positive("data_dim", data_dim)
        self.latent_dim = whole_positive("latent_dim", latent_dim)
        if not isinstance(hidden, Iterable):
            size = hidden if is_whole_number(hidden) else 400
            raise ValueError(f"hidden is {hidden!r}; expected a sequence of sizes, such as ({size!r},)")
        self.hidden = tuple(whole_positive("a hidden size", size) for size in hidden)
        self.likelihood = as_likelihood(likelihood)
        self.activation = one_of("activation", activation, ACTIVATION_CODES)
        self.dtype = np.dtype(one_of("dtype", getattr(dtype, "__name__", str(dtype)), DTYPES))
        self.seed = checked_seed(seed)
        self.engine = engine
        self.ops: ModuleType = get_engine(engine)
        self.posterior: Posterior = POSTERIORS[one_of("posterior", posterior, POSTERIORS)](self.ops)
        if parameters is not None:
            self._use(Parameters.holding(parameters, self._shapes(), self.dtype))
        else:
            self._use(Parameters.zeros(self._shapes(), self.dtype))
            self._draw_weights()

    # --- the model as functions -------------------------------------------------------------------------------------

    def encode(self, x: ArrayLike) -> Any:
        """q(z|x) of every example.

        Takes     x (B, D)
        Returns   Gaussian: mu, logvar (B, Z); of a full posterior FullGaussian: mu (B, Z), cholesky (B, Z, Z)
        Raises    ValueError as `elbo`; NotFiniteError where what is returned is NaN or infinite, or x in this precision
        """
        x = self._batch(x)
        with quiet():
            head = self.encoder_head(x)
        check_finite([x, head], [*named_parameters(self), ("x", x), ("head", head)])
        return self.posterior.gaussian(head)

    def decode(self, z: NDArray) -> NDArray:
        """Mean of p(x|z).

        Takes     z (..., Z)
        Returns   (..., D)
        Raises    ValueError for a wrong shape; NotFiniteError where z or the mean is NaN or infinite in this precision
        """
        return self._mean(self._decoder_output(z))

    def reconstruct(self, x: NDArray) -> NDArray:
        """Mean of p(x|z) at z = mu(x). Takes x (B, D); returns (B, D). Raises as `encode` and `decode`."""
        return self.decode(self.encode(x).mu)

    def log_joint(self, x: NDArray, z: NDArray) -> NDArray:
        """log p(x, z) = log p(x|z) + log p(z), in nats.

        Takes     x (B, D); z (B, Z), or (B, K, Z) for K points per example
        Returns   (B,), or (B, K)
        Raises    ValueError and NotFiniteError as `elbo`
        """
        x = self._batch(x)
        samples = self._samples("z", z, len(x))
        with quiet():
            log_joint = self._log_joint(x, samples)
        check_finite([log_joint], [*named_parameters(self), ("log_joint", log_joint)])
        return log_joint if np.ndim(z) == 3 else log_joint[:, 0]

    def _log_joint(self, x: NDArray, z: NDArray) -> NDArray:
        """`log_joint` (B, K) of input that has been checked: x (B, D), z (B, K, Z)."""
        log_prior, _ = self.ops.standard_normal_log_density_forward(z)
        return self.log_likelihood(x, z) + log_prior

    def mean_variances(self, x: ArrayLike) -> tuple[NDArray, ...]:
        """Variance over the data of the mean of q(z_j|x), for each stochastic layer: one array (Z,).

        Takes     x (N, D)
        Raises    ValueError for data that do not fit the model; NotFiniteError where a mean is NaN or infinite
        """
        return (self.encode(x).mu.astype(np.float64).var(axis=0),)

    def sample(self, n: int, seed: int = 0, mean: bool = False) -> NDArray:
        """n draws from the model: z ~ N(0, I), then x ~ p(x|z), or its mean. Returns (n, D).

        Draw i is the same whatever n is, on the reference engine to rounding.

        Raises    ValueError for n below 1 or a seed outside its range; NotFiniteError for a draw, or a mean, beyond
                  this precision
        """
        n, seed = whole_positive("n", n), checked_seed(seed)
        x = np.empty((n, self.data_dim), self.dtype)
        for start in range(0, n, self._decoded_together):
            examples = np.arange(start, min(start + self._decoded_together, n))
            eps = self.noise(seed, Stream.LATENT, 0, examples, 1)[:, 0]
            out = self._decoder_output(self.prior_draws(eps))
            x[examples] = self._mean(out) if mean else self._draw(out, Draws(seed, examples))
        return x

    def elbo(self, x: NDArray, eps: NDArray) -> Elbo:
        """The ELBO of every example with the noise given, in nats.

        Forward   elbo_b = 1/K sum_k log p(x_b | mu_b + exp(logvar_b / 2) eps_bk) - KL(q(z|x_b) || p(z))
        Takes     x (B, D), grey values under a Bernoulli as they are: see `log_evidence`; eps (B, Z), or (B, K, Z) for
                  K samples
        Returns   Elbo(elbo, reconstruction, kl), each (B,)
        Raises    ValueError for a wrong shape, a value that is not finite, or one that the likelihood cannot explain;
                  NotFiniteError where a term is NaN or infinite, with the first array that was
        Source    Kingma, Welling 2013, equation 10
        """
        x = self._batch(x)
        eps = self._samples("eps", eps, len(x))
        with quiet():
            terms = _elbo(self.forward(x, eps)[0])
            check_finite(terms, arrays_of_a_pass(self, x, eps))
        return terms

    def value_and_grad(self, x: NDArray, eps: NDArray, objective: Objective = ELBO()) -> tuple[Terms, Parameters]:
        """The terms, and the gradient of loss = -mean(objective) for every parameter, or the estimator's of it.

        Takes     x (B, D); eps (B, Z) or (B, K, Z): its K counts, and not the objective's num_samples; objective:
                  `ELBO(...)`, `IWAE(...)`, ..., its warm-up over
        Returns   Terms, each (B,); gradients: a mapping with the names and shapes of `parameters`
        Raises    ValueError for what is not an objective; ValueError and NotFiniteError as `elbo`
        """
        self._check_objective(objective)
        x = self._batch(x)
        eps = self._samples("eps", eps, len(x))
        gradient = self.parameters.zeros_like()
        with quiet():
            terms, deltas = self.terms_and_deltas(x, eps, objective)
            self.write_gradient(deltas, gradient)
            check_finite((*terms, gradient.flat), arrays_of_a_pass(self, x, eps, objective))
        return terms, gradient

    def noise(self, seed: int, stream: Stream, step: int, examples: NDArray, num_samples: int) -> NDArray:
        """Standard normal noise of z, (B, K, Z) in the model's dtype: a function of seed, stream, step and numbers of
        examples (B,)."""
        eps = self.ops.normals(seed, stream, step, examples, num_samples * self.latent_dim)
        return eps.reshape(len(examples), num_samples, self.latent_dim).astype(self.dtype, copy=False)

    def prior_draws(self, eps: NDArray) -> NDArray:
        """What the decoder takes, drawn from the prior by standard normal noise: here the noise itself, (..., Z)."""
        return eps

    def encoder_head(self, x: NDArray) -> NDArray:
        """What the encoder says of x (B, D), as `log_weights` takes it: the parameters of q(z|x), (B, H)."""
        return self.ops.network_forward(self.likelihood.encoder_input(x), self._encoder)[0]

    def log_weights(self, x: NDArray, head: NDArray, eps: NDArray) -> NDArray:
        """log w = log p(x, z) - log q(z|x) of each sample, z ~ q(z|x), in nats.

        Forward   log w = log p(x|z) + 1/2 sum_j (logvar_j + eps_j^2 - z_j^2), z = mu + L eps: see `log_ratio_forward`
        Takes     x (B, D); head: `encoder_head` of x, computed once for all samples; eps (B, K, Z)
        Returns   (B, K)
        Source    Burda, Grosse, Salakhutdinov 2015, equation 8
        """
        if (self.likelihood.name, self.posterior.name) == ("bernoulli", "diagonal"):
            # one operation: what evaluation spends its time on
            return self.ops.decoded_bernoulli_log_weights(x, head, eps, self.output_network)
        z, _, _ = self.posterior.forward(head, eps)
        logvar = head[:, self.latent_dim : 2 * self.latent_dim]
        log_ratio, _ = self.ops.log_ratio_forward(logvar, eps, z)
        return self.log_likelihood(x, z) + log_ratio

    def log_likelihood(self, x: NDArray, z: NDArray) -> NDArray:
        """log p(x|z) of each sample, in nats. Takes x (B, D) and z (B, K, Z), as `forward` does; returns (B, K).

        The decoder's output is worked on a piece at a time, so that memory is bounded and a piece stays in the cache.
        """
        if self.likelihood.name == "bernoulli":  # one operation here too
            return self.ops.decoded_bernoulli_log_likelihood(x, z, self.output_network)
        log_likelihood = np.empty(z.shape[:2], z.dtype)
        for rows, samples in pieces(z, self._decoded_together):
            part = z[rows, samples]
            out, _ = self.ops.network_forward(part.reshape(-1, z.shape[2]), self.output_network)
            out = out.reshape(*part.shape[:2], -1)
            log_likelihood[rows, samples] = self.likelihood.forward(self.ops, x[rows], out, self.parameters)[0]
        return log_likelihood

    @property
    def _decoded_together(self) -> int:
        return min(DECODED_TOGETHER, max(1, DECODED_ELEMENTS // self.data_dim))

    # --- forward and backward ---------------------------------------------------------------------------------------

    def forward(self, x: NDArray, eps: NDArray) -> tuple[Sampled, ForwardCache]:
        """One pass from x (B, D) and noise (B, K, Z) to the terms of the objective."""
        rows, samples, _ = eps.shape
        head, encoder = self.ops.network_forward(self.likelihood.encoder_input(x), self._encoder)
        z, kl, posterior = self.posterior.forward(head, eps)
        out, decoder = self.ops.network_forward(z.reshape(rows * samples, self.latent_dim), self._decoder)
        log_likelihood, likelihood = self.likelihood.forward(
            self.ops, x, out.reshape(rows, samples, self.data_dim), self.parameters
        )
        reconstruction = np.add.reduce(log_likelihood, axis=1) / samples
        sampled = Sampled(head, eps, z, kl, log_likelihood, reconstruction, self.posterior)
        return sampled, ForwardCache(encoder, posterior, decoder, likelihood)

    def backward(self, upstream: Upstream, cache: ForwardCache) -> Deltas:
        """Reverse of `forward`, statement by statement."""
        dout, likelihood = self.likelihood.backward(self.ops, upstream.dlog_likelihood, cache.likelihood)
        rows, samples, _ = dout.shape
        dz, decoder = self.ops.network_backward(
            dout.reshape(rows * samples, self.data_dim), cache.decoder, self._decoder
        )
        dz = dz.reshape(rows, samples, self.latent_dim)
        if upstream.dz is not None:
            dz = dz + upstream.dz  # z is used by the decoder and by the objective
        if upstream.path is not None:
            dz = upstream.path[:, :, None] * dz  # an estimator of its own for the encoder
        dhead = self.posterior.backward(dz, upstream.dkl, cache.posterior)
        if upstream.dhead is not None:
            dhead = dhead + upstream.dhead  # and so is the head
        _, encoder = self.ops.network_backward(dhead, cache.encoder, self._encoder, input_gradient=False)
        return Deltas({"encoder": encoder, "decoder": decoder}, likelihood)

    def evaluate(self, objective: Objective, sampled: Sampled) -> tuple[NDArray, Upstream]:
        """The objective's value (B,) on the terms of a forward pass, and the upstream that `backward` takes."""
        return objective.evaluate(self.ops, sampled)

    def terms_and_deltas(self, x: NDArray, eps: NDArray, objective: Objective) -> tuple[Terms, Deltas]:
        """Forward, objective, backward, on input that has been checked. The sums over rows are left to the caller."""
        sampled, cache = self.forward(x, eps)
        value, upstream = self.evaluate(objective, sampled)
        return Terms(*_elbo(sampled), value), self.backward(upstream, cache)

    def write_gradient(self, deltas: Deltas, gradient: Parameters) -> None:
        """The sums over rows that `terms_and_deltas` left: the gradient of every parameter, into `gradient`."""
        for name, network in deltas.networks.items():
            self.ops.network_gradient(network, gradient.network(name, self.activation))
        for name, value in deltas.likelihood.items():
            gradient[name][...] = value

    # --- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file: complete or not at all.

        Raises    ValueError, one line, where it cannot be written
        """
        checkpoint.save_model(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], engine: str = "compiled") -> Self:
        """Read a model that `save` or `fit` wrote; of a run with early stopping, its best parameters.

        Raises    ValueError for a file that is not one of ours, is damaged, or has tensors of the wrong shape
        """
        model = checkpoint.load_model(path, engine)
        if not isinstance(model, cls):
            raise ValueError(f"{path}: holds {model!r}; expected a {cls.__name__}")
        return model

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this architecture again."""
        return {
            "data_dim": self.data_dim,
            "latent_dim": self.latent_dim,
            "hidden": list(self.hidden),
            "likelihood": self.likelihood.name,
            "activation": self.activation,
            "dtype": self.dtype.name,
            "seed": self.seed,
            "posterior": self.posterior.name,
        }

    def with_parameters(self, parameters: Parameters, engine: str | None = None) -> "VAE":
        """The same architecture around other parameters, in whatever dtype they have (complex for the complex step)."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.engine = engine or self.engine
        other.ops = get_engine(other.engine)
        other.posterior = POSTERIORS[self.posterior.name](other.ops)
        other.dtype = parameters.flat.dtype
        other._use(parameters)
        return other

    @property
    def output_network(self) -> Network:
        """The network that gives p(x|z)."""
        return self.networks["decoder"]

    @property
    def output_bias(self) -> NDArray:
        """The bias of the last layer before x."""
        return self.output_network.layers[-1].bias

    def set_output_bias(self, mean: NDArray) -> None:
        """Let the untrained decoder predict `mean` (D,), the mean of the training data."""
        self.output_bias[...] = self.likelihood.output_bias(mean)

    def __reduce__(self) -> Any:
        """Copies and pickles carry the configuration and the parameters."""
        return _rebuild, (type(self), self.config, self.engine, self.parameters)

    def __repr__(self) -> str:
        sizes = " - ".join(str(size) for size in (self.data_dim, *self.hidden, self.latent_dim))
        full = "" if self.posterior.name == "diagonal" else f", {self.posterior.name} posterior"
        return f"VAE({sizes}, {self.activation}, {self.likelihood.name}{full}, {self.dtype.name}, {self.engine})"

    def check_one_layer(self) -> None:
        """Raises ValueError for a model of two stochastic layers, where only one with a single layer has an answer."""

    @property
    def _encoder(self) -> Network:
        return self.networks["encoder"]

    @property
    def _decoder(self) -> Network:
        return self.networks["decoder"]

    # --- construction and checks ------------------------------------------------------------------------------------

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        encoder = self._stack("encoder", (self.data_dim, *self.hidden, self.posterior.head_size(self.latent_dim)))
        decoder = self._stack("decoder", (self.latent_dim, *reversed(self.hidden), self.data_dim))
        return encoder | decoder | self.likelihood.parameter_shapes(self.data_dim)

    @staticmethod
    def _stack(prefix: str, sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for index, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            stem = f"{prefix}.head" if index == len(sizes) - 2 else f"{prefix}.{index}"
            shapes |= {f"{stem}.weight": (inputs, outputs), f"{stem}.bias": (outputs,)}
        return shapes

    def _use(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.networks = {name: parameters.network(name, self.activation) for name in self.NETWORKS}

    def _draw_weights(self) -> None:
        for index, (name, array) in enumerate(self.parameters.items()):
            if name.endswith(".weight"):
                inputs, outputs = array.shape
                unit = uniforms(self.seed, Stream.WEIGHTS, index, np.arange(inputs), outputs)
                array[...] = np.sqrt(6.0 / (inputs + outputs)) * (2.0 * unit - 1.0)
        for name, value in self.likelihood.parameter_start().items():
            self.parameters[name][...] = value

    def _check_objective(self, objective: object) -> None:
        """Raises ValueError for what is not an objective, or none that this model can be trained on."""
        check_objective(objective)

    def _batch(self, x: ArrayLike) -> NDArray:
        x = data_for(self.likelihood, x, self.data_dim)
        dtype = self.dtype if self.dtype.kind == "f" else np.dtype("float64")
        with quiet():  # what is beyond this precision is found by `encode`, or in its log-likelihood
            return self.ops.gather_rows(x, np.arange(len(x)), dtype)

    def _samples(self, name: str, array: NDArray, rows: int) -> NDArray:
        """Noise or latent points (B, Z) or (B, K, Z), as (B, K, Z) in the model's dtype."""
        array = _array(name, array)
        shape_fits = array.ndim in (2, 3) and array.shape[0] == rows and array.shape[-1] == self.latent_dim
        if not shape_fits or array.size == 0 or array.dtype.kind not in "fiu":
            raise ValueError(
                f"{name} is {array.dtype} of shape {array.shape}; expected real numbers of shape "
                f"({rows}, {self.latent_dim}) or ({rows}, K, {self.latent_dim})"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; expected finite numbers")
        dtype = self.dtype if self.dtype.kind == "f" else np.dtype("float64")
        with quiet():
            return np.ascontiguousarray(array.reshape(rows, -1, self.latent_dim), dtype)

    def _decoder_output(self, z: NDArray) -> NDArray:
        z = _array("z", z)
        latent = len(self.output_network.layers[0].weight)
        if z.ndim == 0 or z.shape[-1] != latent or z.dtype.kind not in "fiu":
            raise ValueError(f"z is {z.dtype} {z.shape}; expected real numbers of shape (..., {latent})")
        with quiet():
            rows = np.ascontiguousarray(z.reshape(-1, latent), self.dtype)
            out, _ = self.ops.network_forward(rows, self.output_network)
        check_finite([rows, out], [*named_parameters(self), ("z", rows), ("the decoder's output", out)])
        return out.reshape(*z.shape[:-1], self.data_dim)

    def _mean(self, out: NDArray) -> NDArray:
        """E[x|z] from the decoder's output, finite: that of log rates may not be."""
        with quiet():
            mean = self.likelihood.mean(self.ops, out, self.parameters)
        check_finite([mean], [*named_parameters(self), ("the mean of p(x|z)", mean)])
        return mean

    def _draw(self, out: NDArray, draws: Draws) -> NDArray:
        """x ~ p(x|z) from the decoder's output (N, D), finite."""
        with quiet():
            x = self.likelihood.draw(self.ops, out, self.parameters, draws)
        check_finite([x], [*named_parameters(self), ("a draw from p(x|z)", x)])
        return x


def _rebuild(model: type[VAE], config: dict[str, Any], engine: str, parameters: Parameters) -> VAE:
    return model(**config, engine=engine).with_parameters(parameters)


def _elbo(sampled: Sampled) -> Elbo:
    return Elbo(sampled.reconstruction - sampled.kl, sampled.reconstruction, sampled.kl)


def _array(name: str, value: Any) -> NDArray:
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} has rows of unequal length; expected an array of real numbers") from None
