"""Estimators of a bound's gradient: their mean is the gradient, and their variance is what they are for."""

import numpy as np
import pytest

import scratchvae as sv
from tests.cases import build, linear_gaussian, with_posterior

ROWS = 1000
SIGMAS = 3.0  # standard errors
COORDINATES = "encoder.head.weight", "encoder.head.bias", "encoder.0.weight", "encoder.0.bias"


def encoder_gradients(objective, posterior="diagonal", batches=60, seed=0):
    """Encoder gradients of one example's objective on the same noise for whoever asks: (batches, coordinates)."""
    vae, x, _ = build(4, 2, (3,), engine="reference", rows=1, seed=5, posterior=posterior)
    rng, found = np.random.default_rng(seed), []
    rows = np.repeat(x, ROWS // objective.num_samples, axis=0)
    for _ in range(batches):
        eps = rng.normal(size=(len(rows), objective.num_samples, 2))
        _, gradients = vae.value_and_grad(rows, eps, objective)
        found.append(np.concatenate([gradients[name].reshape(-1) for name in COORDINATES]))
    return np.array(found)


def deviation(objective, of, **case):
    """Mean paired difference over its standard error, each coordinate; the largest, and the root of the mean square."""
    difference = encoder_gradients(objective, **case) - encoder_gradients(of, **case)
    moves = difference.std(axis=0) > 0
    error = difference.std(axis=0, ddof=1)[moves] / np.sqrt(len(difference))
    ratio = difference.mean(axis=0)[moves] / error
    return np.abs(ratio).max(), np.sqrt(np.square(ratio).mean())


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize(
    ("estimator", "bound"),
    [
        (sv.STL(1), sv.IWAE(1)),
        (sv.DReG(1), sv.IWAE(1)),
        (sv.DReG(8), sv.IWAE(8)),
        (sv.ScoreFunction(1), sv.ELBO(1)),
        (sv.ScoreFunction(4), sv.ELBO(4)),
        (sv.ELBO(1, kl="monte-carlo"), sv.ELBO(1)),
    ],
    ids=str,
)
def test_the_mean_of_an_estimator_is_the_gradient_of_its_bound(estimator, bound, posterior):
    largest, typical = deviation(estimator, bound, posterior=posterior)
    assert typical < 1.6, "of a standard error"
    assert largest < SIGMAS


def test_control_the_pathwise_gradient_of_several_samples_is_biased():
    largest, _ = deviation(sv.STL(8), sv.IWAE(8))
    assert largest > 2 * SIGMAS


@pytest.mark.parametrize("estimator", [sv.STL(1), sv.STL(4), sv.DReG(1), sv.DReG(4)], ids=str)
@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_the_encoder_gradient_is_exactly_zero_where_q_is_the_posterior(engine, estimator, posterior):
    """For every example by itself, not on average."""
    model = linear_gaussian(engine, orthogonal=posterior == "diagonal", scale=0.3, posterior=posterior)
    for row in range(len(model.x)):
        eps = np.random.default_rng(row).normal(size=(1, estimator.num_samples, 3))
        terms, gradients = model.vae.value_and_grad(model.x[row : row + 1], eps, estimator)
        np.testing.assert_allclose(terms.objective, model.log_evidence[row : row + 1], rtol=1e-12)
        for name in ("encoder.head.weight", "encoder.head.bias"):
            assert np.abs(gradients[name]).max() < 1e-14
        _, of_bound = model.vae.value_and_grad(model.x[row : row + 1], eps, sv.IWAE(estimator.num_samples))
        if estimator.num_samples == 1:
            assert np.abs(of_bound["encoder.head.bias"]).max() > 1e-2, "the score is noise"


def test_the_score_function_is_the_noisiest():
    spread = [encoder_gradients(e, batches=20).std(axis=0).mean() for e in (sv.ScoreFunction(1), sv.ELBO(1), sv.STL(1))]
    assert spread[0] > 2 * max(spread[1:])


@pytest.mark.parametrize("estimator", [sv.STL(3), sv.DReG(3), sv.ScoreFunction(3)], ids=str)
def test_an_estimator_reports_its_bound_and_has_the_bounds_decoder_gradient(engine, estimator):
    vae, x, eps = build(samples=3, engine=engine)
    bound = sv.ELBO(3, kl="monte-carlo") if estimator.name == "score-function" else sv.IWAE(3)
    terms, gradients = vae.value_and_grad(x, eps, estimator)
    want_terms, want = vae.value_and_grad(x, eps, bound)
    np.testing.assert_allclose(terms.objective, want_terms.objective, rtol=1e-13)
    for name in vae.parameters:
        if name.startswith("decoder"):
            np.testing.assert_allclose(gradients[name], want[name], rtol=1e-12, atol=1e-15)
        else:
            assert np.abs(gradients[name] - want[name]).max() > 1e-3


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize("estimator", [sv.STL(3), sv.DReG(3), sv.ScoreFunction(3)], ids=str)
def test_the_encoder_gradient_is_the_derivative_of_what_defines_it(engine, estimator, posterior):
    case = build(4, 2, (3,), engine=engine, rows=4, samples=3, seed=1, posterior=posterior)
    for method in ("complex", "central"):
        table = sv.check_gradients(*case, estimator, method)
        assert table.passed, f"{estimator}\n{table}"


def test_control_an_estimator_held_against_its_bound_would_fail():
    case = build(4, 2, (3,), rows=4, samples=3, seed=1)

    class OfItsValue(sv.STL):
        encoder_surrogate = None

    table = sv.check_gradients(*case, OfItsValue(3))
    assert {row.parameter.split(".")[0] for row in table if not row.passed} == {"encoder"}
    assert {row.parameter.split(".")[0] for row in table if row.passed} == {"decoder"}


def test_log_weights_alone_are_refused(ops):
    for estimator in (sv.STL(2), sv.DReG(2), sv.ScoreFunction(2)):
        with pytest.raises(ValueError, match=r"needs log q itself; expected ELBO"):
            estimator.of_log_weights(ops, np.zeros((1, 2)))


def test_training_by_an_estimator_raises_the_bound(engine):
    """A few updates of each raise the ELBO of a small model, on either posterior."""
    for objective in (sv.STL(1), sv.DReG(4), sv.ScoreFunction(8), sv.ELBO(2, kl="monte-carlo")):
        for posterior in ("diagonal", "full"):
            case = with_posterior(posterior, engine)
            history = sv.fit(case.vae, case.x, 25, 20, 0.02, objective, progress=False)
            assert history["elbo"][-1] > history["elbo"][0] + 0.5, objective
