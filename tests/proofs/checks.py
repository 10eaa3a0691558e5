"""The checks, each a function that passes on what is right and raises AssertionError on what is wrong.

The ordinary tests call them on the project's own operations; `test_seeded_bugs.py` calls the same functions on bugs.
"""

import itertools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import scratchvae as sv
from scratchvae.reference.random import Stream
from scratchvae.vae import Terms
from tests.cases import build, linear_gaussian

STEP = 1e-30  # complex step: the derivative is the imaginary part over the step, with no cancellation
CENTRAL_STEP = 1e-5
GATES = {"complex": 1e-12, "central": 1e-7}


# --- derivative -----------------------------------------------------------------------------------------------------


def relative_error(got: NDArray, want: NDArray) -> float:
    """||got - want|| / ||want||; a gradient that is zero everywhere is refused, for it proves nothing."""
    assert got.shape == want.shape
    norm = np.linalg.norm(want)
    assert norm > 0, "the gradient is zero everywhere: this comparison proves nothing"
    return float(np.linalg.norm(got - want) / norm)


def complex_derivative(function: Callable[[NDArray], Any], array: NDArray) -> NDArray:
    """Gradient of a scalar function, by one complex evaluation a coordinate."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        shifted = array.astype(complex)
        shifted[index] += 1j * STEP
        gradient[index] = function(shifted).imag / STEP
    return gradient


def central_derivative(function: Callable[[NDArray], Any], array: NDArray) -> NDArray:
    """Gradient of a scalar function, by central differences."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        up, down = array.copy(), array.copy()
        up[index] += CENTRAL_STEP
        down[index] -= CENTRAL_STEP
        gradient[index] = (function(up) - function(down)) / (up[index] - down[index])
    return gradient


DERIVATIVES = {"complex": complex_derivative, "central": central_derivative}


def backward_is_the_derivative_of_forward(
    forward: Callable[..., tuple],
    backward: Callable[..., Any],
    arguments: Sequence[Any],
    differentiable: Sequence[int],
    rng: np.random.Generator,
    method: str = "complex",
) -> None:
    """The backward pass, fed random upstream gradients (never ones), equals the derivative of the forward pass."""
    *outputs, cache = forward(*arguments)
    upstream = [rng.normal(size=output.shape) for output in outputs]
    gradients = backward(*upstream, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert len(gradients) == len(differentiable)
    for position, gradient in zip(differentiable, gradients, strict=True):

        def weighted_sum(value: NDArray, position: int = position) -> Any:
            changed = [*arguments[:position], value, *arguments[position + 1 :]]
            return sum((du * output).sum() for du, output in zip(upstream, forward(*changed)[:-1], strict=True))

        numeric = DERIVATIVES[method](weighted_sum, arguments[position])
        assert relative_error(gradient, numeric) <= GATES[method]


def model_gradient_is_the_derivative_of_the_reported_objective(
    vae: sv.VAE, x: NDArray, eps: NDArray, objective: Any, of: Callable[[Any], NDArray] = lambda terms: terms.objective
) -> None:
    """`value_and_grad`'s gradient equals central differences of -mean of what it reports."""
    _, gradients = vae.value_and_grad(x, eps, objective)
    for name, gradient in gradients.items():
        place = vae.parameters[name]
        kept = place.copy()

        def loss(value: NDArray, place: NDArray = place) -> float:
            place[...] = value
            return -float(of(vae.value_and_grad(x, eps, objective)[0]).mean())

        numeric = central_derivative(loss, kept)
        place[...] = kept
        assert relative_error(gradient, numeric) <= GATES["central"], name


# --- meaning --------------------------------------------------------------------------------------------------------


def draws_have_the_standard_deviation_that_the_kl_charges_for(posterior_forward: Callable[..., tuple]) -> None:
    """Draws at mu = 3, logvar = -2 have mean 3 and standard deviation exp(-1)."""
    eps = np.random.default_rng(0).normal(size=(1, 200_000, 1))
    z, _, _ = posterior_forward(np.array([[3.0, -2.0]]), eps)
    assert abs(z.mean() - 3.0) < 0.01
    assert abs(z.std() / np.exp(-1.0) - 1) < 0.01


def kl_equals_monte_carlo(kl_to_prior_forward: Callable[..., tuple]) -> None:
    """KL = E_q[log q(z) - log p(z)], by 400,000 draws, within five of its standard errors."""
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(size=(2, 3, 4))
    z = mu[:, None] + np.exp(logvar / 2)[:, None] * rng.normal(size=(3, 400_000, 4))
    log_q = -0.5 * (np.log(2 * np.pi) + logvar[:, None] + (z - mu[:, None]) ** 2 / np.exp(logvar)[:, None]).sum(axis=2)
    log_p = -0.5 * (np.log(2 * np.pi) + z**2).sum(axis=2)
    ratio = log_q - log_p
    error = ratio.std(axis=1) / np.sqrt(ratio.shape[1])
    kl, _ = kl_to_prior_forward(mu, logvar)
    assert kl.shape == (3,)
    assert (np.abs(kl - ratio.mean(axis=1)) < 5 * error).all()


def objective_is_the_reported_elbo(vae: sv.VAE, x: NDArray, eps: NDArray, objective: Any = sv.ELBO()) -> None:
    """What ELBO() maximises is the elbo that is reported: the KL has weight 1 in both."""
    terms, _ = vae.value_and_grad(x, eps, objective)
    np.testing.assert_allclose(terms.objective, terms.elbo, rtol=1e-12)
    np.testing.assert_array_equal(terms.elbo, terms.reconstruction - terms.kl)


def rows_are_independent(vae: sv.VAE, x: NDArray, eps: NDArray) -> None:
    """Changing one row leaves the bound of every other row the same bits."""
    before = vae.elbo(x, eps)
    changed = x.copy()
    changed[1] = x[np.flatnonzero((x != x[1]).any(axis=1))[0]]
    after = vae.elbo(changed, eps)
    others = np.arange(len(x)) != 1
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[others], new[others])
    assert before.elbo[1] != after.elbo[1], "the row that was changed has to notice"


def saturated_logits_keep_value_and_gradient(forward: Callable, backward: Callable, dtype: Any) -> None:
    """A logit l with target 0 costs l and has gradient -1, at 20 as at 1000; a right answer costs nothing."""
    logits = np.array([[[20.0, 1000.0, -1000.0]]], dtype)
    wrong, right = np.array([[0, 0, 1]], dtype), np.array([[1, 1, 0]], dtype)
    value, cache = forward(wrong, logits)
    np.testing.assert_allclose(value, [[-2020.0]], rtol=1e-6)
    np.testing.assert_allclose(backward(np.ones((1, 1), dtype), cache), [[[-1, -1, 1]]], rtol=1e-6)
    value, cache = forward(right, logits)
    assert np.isfinite(value).all()
    assert np.abs(value).max() < 1e-7
    assert np.abs(backward(np.ones((1, 1), dtype), cache)).max() < 1e-7


def the_best_sample_has_the_largest_weight(importance_bound_forward: Callable[..., tuple]) -> None:
    """The weights of the importance-weighted bound rise with the log-weights and sum to 1."""
    log_weights = np.array([[-90.0, -80.0, -85.0]])
    _, weights = importance_bound_forward(log_weights)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(weights.argsort(axis=1), log_weights.argsort(axis=1))


def all_signs(rows: int, latent_dim: int) -> NDArray:
    """Every vector of +1 and -1, as noise: averages over it of a quadratic in eps equal those over N(0, I) exactly."""
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=latent_dim)))
    return np.repeat(signs[None], rows, axis=0)


def bound_is_exact_where_q_is_the_posterior(engine: str = "reference") -> None:
    """Linear-Gaussian model, orthogonal W, best encoder: ELBO = L_K = log p(x) for every x, draw and K."""
    vae, x, log_evidence = linear_gaussian(engine)
    rng = np.random.default_rng(1)
    for samples in (1, 2, 50):
        eps = rng.normal(size=(len(x), samples, vae.latent_dim))
        terms, _ = vae.value_and_grad(x, eps, sv.IWAE(samples))
        np.testing.assert_allclose(terms.objective, log_evidence, rtol=1e-12)
    np.testing.assert_allclose(vae.elbo(x, all_signs(len(x), vae.latent_dim)).elbo, log_evidence, rtol=1e-12)


def bounds_do_not_exceed_the_evidence(engine: str = "reference") -> None:
    """E L_1 <= E L_K <= log p(x), with a posterior that q can only approximate."""
    vae, x, log_evidence = linear_gaussian(engine, orthogonal=False)
    rng = np.random.default_rng(1)
    means = []
    for samples in (1, 5, 50):
        repeated = np.repeat(x, 400, axis=0)
        eps = rng.normal(size=(len(repeated), samples, vae.latent_dim))
        value = vae.value_and_grad(repeated, eps, sv.IWAE(samples))[0].objective
        means.append(value.reshape(len(x), -1).mean())
    assert means[0] < means[1] < means[2] < log_evidence.mean()


def evidence_is_exact_where_q_is_the_posterior(estimate: Callable[..., Any], engine: str = "reference") -> None:
    """Linear-Gaussian model, best encoder: the estimate is log p(x), sign and all, whatever K."""
    vae, x, log_evidence = linear_gaussian(engine)
    for samples in (1, 7, 50, 123):
        np.testing.assert_allclose(estimate(vae, x, num_samples=samples).log_evidence, log_evidence, rtol=1e-10)


def evidence_uses_every_sample(estimate: Callable[..., Any], engine: str = "reference") -> None:
    """Where all weights are equal the effective sample size is K exactly, also for a K that no block size divides."""
    vae, x, _ = linear_gaussian(engine)
    for samples in (1, 7, 50, 123):
        size = estimate(vae, x, num_samples=samples).effective_sample_size
        np.testing.assert_allclose(size, samples, rtol=1e-9)


# --- training -------------------------------------------------------------------------------------------------------


def textbook_adam(ops: ModuleType, vae: sv.VAE, x: NDArray, epochs: int, batch_size: int, rate: float, seed: int):
    """The training loop of the papers, written out on whole gradients: parameters after it and the terms it saw."""
    first = {name: np.zeros_like(array) for name, array in vae.parameters.items()}
    second = {name: np.zeros_like(array) for name, array in vae.parameters.items()}
    step, epoch_means = 0, []
    for epoch in range(1, epochs + 1):
        order = ops.permutation(seed, Stream.SHUFFLE, epoch, len(x))
        elbos = []
        for start in range(0, len(x), batch_size):
            step += 1
            rows = order[start : start + batch_size]
            eps = ops.normals(seed, Stream.POSTERIOR, step, rows, vae.latent_dim).astype(vae.dtype)
            terms, gradients = vae.value_and_grad(x[rows], eps, sv.ELBO())
            elbos.append(terms.elbo)
            for name, gradient in gradients.items():
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                m, v = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                vae.parameters[name][...] -= rate * m / (np.sqrt(v) + 1e-8)
        epoch_means.append(np.concatenate(elbos).mean())  # every example counts once
    return epoch_means


def training_is_the_textbook_loop(engine: str = "reference") -> None:
    """`fit` gives the parameters and the epoch means of the loop written out, over epochs with a short last batch."""
    vae, x, _ = build(data_dim=6, rows=23, engine=engine)
    other = vae.with_parameters(vae.parameters.copy())
    history = sv.fit(vae, x, epochs=3, batch_size=10, learning_rate=0.05, binarize="none", seed=3, progress=False)
    means = textbook_adam(other.ops, other, x, epochs=3, batch_size=10, rate=0.05, seed=3)
    np.testing.assert_allclose(history["elbo"], means, rtol=1e-9)
    for name, array in other.parameters.items():
        np.testing.assert_allclose(vae.parameters[name], array, rtol=1e-6, atol=1e-9, err_msg=name)


def resuming_continues_the_run(folder: Any, patience: int | None, engine: str = "reference", epochs: int = 6) -> None:
    """A run stopped after every epoch and resumed has the bits of the run that was not stopped."""

    def start() -> tuple[sv.VAE, NDArray]:
        vae, x, _ = build(data_dim=6, rows=23, engine=engine, dtype="float32")
        return vae, x.astype(np.float32)

    def run(vae: sv.VAE, x: NDArray, epochs: int, path: Any, resume: bool) -> sv.History:
        return sv.fit(
            vae, x[:17], epochs=epochs, batch_size=5, learning_rate=0.1, validation=x[17:], patience=patience,
            checkpoint=path, resume=resume, progress=False,
        )  # fmt: skip

    whole, x = start()
    history = run(whole, x, epochs, folder / "whole.safetensors", False)
    for epoch in range(1, epochs + 1):
        vae, _ = start()
        parts = run(vae, x, epoch, folder / "parts.safetensors", epoch > 1)
    np.testing.assert_array_equal(vae.parameters.flat, whole.parameters.flat)
    assert (folder / "whole.safetensors").read_bytes() == (folder / "parts.safetensors").read_bytes()
    for mine, theirs in zip(parts.epochs, history.epochs, strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}
    assert parts.stopped == history.stopped


def epoch_means_count_every_row_once(averages_of: Callable[..., Any]) -> None:
    """Batches of 10, 10 and 3 rows: the mean of an epoch is the mean over 23 rows, not over 3 batches."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(4, size)) for size in (10, 10, 3)]
    averages = averages_of([Terms(*row) for row in rows])
    everything = np.concatenate(rows, axis=1).mean(axis=1)
    np.testing.assert_allclose(averages.reconstruction, everything[1], rtol=1e-12)
    np.testing.assert_allclose(averages.kl, everything[2], rtol=1e-12)
    np.testing.assert_allclose(averages.objective, everything[3], rtol=1e-12)
