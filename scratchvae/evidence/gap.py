"""The inference gap log p(x) - ELBO, and whose fault it is.

    log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q])        L[q] = E_q [log p(x, z) - log q(z)], the ELBO of any q
                      approximation gap     amortization gap

q is the encoder's Gaussian and q* the best Gaussian of its family, diagonal or full, for this one x, looked for by
moving the family's parameters uphill with the decoder frozen: the variational inference of the textbook, one
optimisation for each example. What q* cannot close is the price of the family, the rest is the price of having one
encoder for all examples. Both parts are at least 0.

The search is a local one, from the encoder's q. Where it ends below the best there is, the approximation gap that it
gives is too large and the amortization gap too small, by the same amount: an upper and a lower estimate.

Shapes: B examples, K samples per example, Z latent dimensions. All in nats.
Source: Cremer, Li, Duvenaud 2018, "Inference suboptimality in variational autoencoders".
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import checked_seed, whole_positive
from scratchvae.evidence.annealed import row_blocks
from scratchvae.evidence.door import door, refuse_nan
from scratchvae.evidence.estimate import check_options
from scratchvae.evidence.estimate import log_evidence as estimate_log_evidence
from scratchvae.evidence.importance import Evidence, checked_rows, importance_log_weights
from scratchvae.finite import is_finite_number
from scratchvae.reference.random import Stream
from scratchvae.vae import VAE

EVALUATION_SAMPLES = 64  # samples of an example drawn under one address, in pairs of opposite noise
SEARCH_STEP, CHOICE_STEP, EVALUATION_STEP = 1 << 30, 2 << 30, 3 << 30  # addresses in Stream.EVIDENCE of no one else


class GapErrors(NamedTuple):
    """Standard errors of the entries of `Gap` with the same names, each (B,)."""

    log_evidence: NDArray
    elbo: NDArray
    best_elbo: NDArray
    inference_gap: NDArray
    approximation_gap: NDArray
    amortization_gap: NDArray


@dataclass(frozen=True)
class Gap:
    """log p(x), both bounds and the differences between them, of every example, in nats. Higher is better.

    inference_gap = log_evidence - elbo = approximation_gap + amortization_gap.
    """

    log_evidence: NDArray  # (B,): log p(x)
    elbo: NDArray  # (B,): L[q], of the encoder's q
    best_elbo: NDArray  # (B,): L[q*]
    standard_error: GapErrors
    best: Any  # q*: a Gaussian or a FullGaussian

    @property
    def inference_gap(self) -> NDArray:
        """log p(x) - L[q], (B,)."""
        return self.log_evidence - self.elbo

    @property
    def approximation_gap(self) -> NDArray:
        """log p(x) - L[q*], (B,): what no Gaussian of q's family can do."""
        return self.log_evidence - self.best_elbo

    @property
    def amortization_gap(self) -> NDArray:
        """L[q*] - L[q], (B,): what the encoder does not do."""
        return self.best_elbo - self.elbo

    def __str__(self) -> str:
        lines = [f"means over {len(self.elbo)} examples, with the error of the estimates"]
        for name, error in self.standard_error._asdict().items():
            sampling = float(np.sqrt(np.square(error).sum()) / error.size)
            lines.append(f"{name.replace('_', ' '):18} {getattr(self, name).mean():12.4f} ± {sampling:.4f} nats")
        return "\n".join(lines)


@door
def inference_gap(
    vae: VAE,
    x: NDArray,
    method: str = "importance",
    num_samples: int = 5000,
    seed: int = 0,
    num_steps: int = 800,
    **options: Any,
) -> Gap:
    """Split log p(x) - ELBO of every example into approximation and amortization gap.

    Formula   L[q] ~ 1/K sum_k [log p(x, z_k) - log q(z_k)], z_k ~ q, on noise of its own and the same noise for q and
              q*. Its variance vanishes as q becomes the posterior, unlike that of log p(x|z) minus the exact KL.
              q itself is a candidate for q*: where the search found nothing better it is kept, and the amortization
              gap is 0. Which is better is decided on noise of its own, because the larger of two noisy numbers is too
              large on average. So L of both q is unbiased, and with it the amortization gap of the q* that was found.
              "importance" draws from q*, not from the encoder's q: a bad encoder must not make log p(x) low
    Takes     x (B, D); method and options: where log p(x) comes from, as `log_evidence`. Estimates from samples are
              below log p(x) in expectation, and by more than their error where few samples have the weight: the
              approximation gap is then too small and can be negative; "exact" and "quadrature" have no such bias.
              num_samples: for log p(x), and for L[q] rounded up to a multiple of 64; seed; num_steps: of
              `best_posterior`
    Returns   Gap, each (B,). Errors of a difference between log p(x) and L count them as independent
    Raises    ValueError for bad input, or a method that the model cannot take; NotFiniteError where a bound is NaN
    Source    Cremer, Li, Duvenaud 2018
    """
    whole_positive("num_samples", num_samples)
    check_options(method, options.keys() - {"watch"})
    if method == "importance":  # its estimate comes after the search
        checked_rows(vae, vae._batch(x), options.get("examples"), options.get("head"))
    else:
        evidence = estimate_log_evidence(vae, x, method, num_samples, seed, **options)
    found = best_heads(vae, x, num_steps=num_steps, seed=seed)
    x = vae._batch(x)
    parts = [
        _compare(vae, x[rows], found[rows], rows, num_samples, seed)
        for rows in row_blocks(vae, len(x), EVALUATION_SAMPLES)
    ]
    compared = Comparison(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    refuse_nan(elbo=compared.elbo, best_elbo=compared.best_elbo)
    if method == "importance":
        options = {"head": compared.best_head} | options
        evidence = estimate_log_evidence(vae, x, method, num_samples, seed, **options)
    return _gap(vae, evidence, compared)


# --- the best q of one example ----------------------------------------------------------------------------------------


@door
def best_posterior(
    vae: VAE,
    x: NDArray,
    num_samples: int = 32,
    num_steps: int = 800,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> Any:
    """The Gaussian of q's family with the largest ELBO for each x, the decoder frozen: inference without an encoder.

    Formula   maximise 1/K sum_k log p(x | z(eps_k)) - KL(q || N(0, I)), z = mu + exp(logvar / 2) eps, or mu + L eps, by
              Adam, from the encoder's own head, with new noise at every step and a rate that falls linearly to 0. The
              answer is the mean of the second half of the path, where the noise of its steps averages out: with one
              noise for all steps q* would fit that noise. Noise comes in pairs eps, -eps: what is linear in it cancels
    Takes     x (B, D); num_samples K (an odd one is rounded up); num_steps; learning_rate of the first step; seed
    Returns   Gaussian, or FullGaussian, as `encode`. A row depends on its number, not on its neighbours
    Raises    ValueError for bad input; NotFiniteError where the search meets a NaN
    Source    Cremer, Li, Duvenaud 2018; the mean of a path: Polyak, Juditsky 1992
    """
    return vae.posterior.gaussian(best_heads(vae, x, num_samples, num_steps, learning_rate, seed))


def best_heads(
    vae: VAE,
    x: NDArray,
    num_samples: int = 32,
    num_steps: int = 800,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> NDArray:
    """`best_posterior` as the encoder's head would say it, (B, H)."""
    whole_positive("num_samples", num_samples)
    whole_positive("num_steps", num_steps)
    if not (is_finite_number(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate is {learning_rate!r}; expected a positive number")
    search = Search(vae, -(-num_samples // 2), num_steps, learning_rate, checked_seed(seed))
    x = vae._batch(x)
    heads = [search.best_head(x[rows], rows) for rows in row_blocks(vae, len(x), 2 * search.num_pairs)]
    found = np.concatenate(heads)
    refuse_nan(best_head=found)
    return found


@dataclass(frozen=True)
class Search:
    """How q* is looked for."""

    vae: VAE
    num_pairs: int
    num_steps: int
    learning_rate: float
    seed: int

    def best_head(self, x: NDArray, rows: NDArray) -> NDArray:
        """The head (B, H) that is the mean of the second half of Adam's path on loss = -L."""
        head = _head(self.vae, x).copy()
        flat = head.reshape(-1)  # one vector for all examples: no sum of Adam's goes over its elements
        first, second = np.zeros_like(flat), np.zeros_like(flat)
        total = np.zeros(head.shape)
        for step in range(1, self.num_steps + 1):
            eps = opposite_normals(self.vae, self.seed, SEARCH_STEP + step, rows, self.num_pairs)
            _, dhead = elbo_and_gradient(self.vae, x, head, eps)
            rate = self.learning_rate * (1 - (step - 1) / self.num_steps)
            self.vae.ops.adam_update(flat, -dhead.reshape(-1), first, second, step, rate)
            if step > self.num_steps // 2:
                total += head
        return (total / (self.num_steps - self.num_steps // 2)).astype(head.dtype)


def elbo_and_gradient(vae: VAE, x: NDArray, head: NDArray, eps: NDArray) -> tuple[NDArray, NDArray]:
    """The ELBO of each example and its gradient for q's parameters, the encoder left out.

    Forward   z, kl = posterior(head, eps)        L_b = 1/K sum_k log p(x_b | decoder(z_bk)) - kl_b
    Gives     d L_b / d head_b, through the draw and through the KL
    Takes     x (B, D); head (B, H): of a diagonal q mu and logvar side by side; eps (B, K, Z)
    Returns   L (B,), dhead (B, H)
    """
    ops = vae.ops
    rows, samples, latent = eps.shape
    z, kl, posterior = vae.posterior.forward(head, eps)
    out, decoder = ops.network_forward(z.reshape(rows * samples, latent), vae._decoder)
    out = out.reshape(rows, samples, vae.data_dim)
    log_likelihood, likelihood = vae.likelihood.forward(ops, x, out, vae.parameters)

    dlog_likelihood = np.full((rows, samples), 1 / samples, head.dtype)  # L is a mean over samples
    dout, _ = vae.likelihood.backward(ops, dlog_likelihood, likelihood)
    dz, _ = ops.network_backward(dout.reshape(rows * samples, vae.data_dim), decoder, vae._decoder)
    dhead = vae.posterior.backward(dz.reshape(eps.shape), np.full(rows, -1, head.dtype), posterior)
    return log_likelihood.mean(axis=1) - kl, dhead


def opposite_normals(vae: VAE, seed: int, step: int, rows: NDArray, pairs: int) -> NDArray:
    """Standard normal noise and its opposite (B, 2 pairs, Z)."""
    eps = vae.noise(seed, Stream.EVIDENCE, step, rows, pairs)
    return np.concatenate([eps, -eps], axis=1)


# --- both bounds, on the same noise -----------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """L[q] and L[q*] of each example with their errors, and the q* that was chosen."""

    elbo: NDArray  # (B,)
    best_elbo: NDArray  # (B,)
    elbo_error: NDArray  # (B,)
    best_elbo_error: NDArray  # (B,)
    difference_error: NDArray  # (B,): of best_elbo - elbo, smaller than either, for both see the same noise
    best_head: NDArray  # (B, H): its parameters


def _head(vae: VAE, x: NDArray) -> NDArray:
    """mu and logvar of the encoder. Raises ValueError for a model with more than one stochastic layer."""
    return vae.ops.network_forward(vae.likelihood.encoder_input(x), vae._encoder)[0]


def _compare(vae: VAE, x: NDArray, found: NDArray, rows: NDArray, num_samples: int, seed: int) -> Comparison:
    """Choose between the encoder's head and the one found (B, H), then evaluate the encoder's and the chosen one."""
    head = _head(vae, x)
    of_q, of_found = _log_weights(vae, x, (head, found), rows, CHOICE_STEP, num_samples, seed)
    better = of_found.mean(axis=1) > of_q.mean(axis=1)
    best = np.where(better[:, None], found, head)
    of_q, of_best = _log_weights(vae, x, (head, best), rows, EVALUATION_STEP, num_samples, seed)
    return Comparison(
        elbo=of_q.mean(axis=1),
        best_elbo=of_best.mean(axis=1),
        elbo_error=_error(of_q),
        best_elbo_error=_error(of_best),
        difference_error=_error(of_best - of_q),
        best_head=best,
    )


def _log_weights(
    vae: VAE, x: NDArray, heads: tuple[NDArray, NDArray], rows: NDArray, step: int, num_samples: int, seed: int
) -> tuple[NDArray, NDArray]:
    """log p(x, z) - log q(z) under two heads with the same noise, each (B, at least num_samples / 2), float64.

    A column is the mean over a pair of opposite noise: one observation, for its halves are not independent.
    """
    pairs = EVALUATION_SAMPLES // 2
    columns: tuple[list[NDArray], list[NDArray]] = ([], [])
    for block in range(-(-num_samples // EVALUATION_SAMPLES)):
        eps = opposite_normals(vae, seed, step + block, rows, pairs)
        for column, head in zip(columns, heads, strict=True):
            weights = importance_log_weights(vae, x, head, eps).astype(np.float64)
            column.append(0.5 * (weights[:, :pairs] + weights[:, pairs:]))
    return np.concatenate(columns[0], axis=1), np.concatenate(columns[1], axis=1)


def _error(values: NDArray) -> NDArray:
    """Standard error of the mean over the last axis."""
    return values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])


def _gap(vae: VAE, evidence: Evidence, compared: Comparison) -> Gap:
    errors = GapErrors(
        log_evidence=evidence.standard_error,
        elbo=compared.elbo_error,
        best_elbo=compared.best_elbo_error,
        inference_gap=np.hypot(evidence.standard_error, compared.elbo_error),
        approximation_gap=np.hypot(evidence.standard_error, compared.best_elbo_error),
        amortization_gap=compared.difference_error,
    )
    best = vae.posterior.gaussian(compared.best_head)
    return Gap(evidence.log_evidence, compared.elbo, compared.best_elbo, errors, best)
