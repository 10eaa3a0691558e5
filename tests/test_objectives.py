"""Objectives: what is maximised, and that it is the bound it is called."""

import numpy as np
import pytest
from hypothesis import given

import scratchvae as sv
from scratchvae import reference
from scratchvae.engine import get_engine
from scratchvae.objectives import OBJECTIVES
from tests.cases import architectures, build
from tests.proofs.checks import (
    complex_derivative,
    model_gradient_is_the_derivative_of_the_reported_objective,
    relative_error,
)


@given(arguments=architectures())
def test_with_one_sample_the_importance_weighted_bound_is_log_p_minus_log_q(arguments):
    vae, x, eps = build(**{**arguments, "samples": 1})
    terms, _ = vae.value_and_grad(x, eps, sv.IWAE(1))
    mu, logvar = vae.encode(x)
    z = mu + np.exp(logvar / 2) * eps[:, 0]
    log_q = -0.5 * (np.log(2 * np.pi) + logvar + eps[:, 0] ** 2).sum(axis=1)
    np.testing.assert_allclose(terms.objective, vae.log_joint(x, z) - log_q, rtol=1e-9, atol=1e-9)


def test_the_importance_weighted_bound_is_the_log_of_a_mean(engine):
    vae, x, eps = build(samples=6, engine=engine)
    single = np.array([vae.value_and_grad(x, eps[:, k], sv.IWAE(1))[0].objective for k in range(6)])
    terms, _ = vae.value_and_grad(x, eps, sv.IWAE(6))
    np.testing.assert_allclose(terms.objective, np.log(np.exp(single).mean(axis=0)), rtol=1e-12)
    assert (terms.objective > single.mean(axis=0)).all(), "Jensen"


def test_the_reported_elbo_does_not_depend_on_the_objective(engine):
    vae, x, eps = build(engine=engine)
    want = vae.elbo(x, eps)
    for objective in (sv.ELBO(2), sv.ELBO(2, beta=0.00025), sv.IWAE(2)):
        terms, _ = vae.value_and_grad(x, eps, objective)
        for mine, theirs in zip(terms[:3], want, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_beta_weighs_the_kl(engine):
    vae, x, eps = build(engine=engine)
    terms, gradients = vae.value_and_grad(x, eps, sv.ELBO(2, beta=0.3))
    np.testing.assert_allclose(terms.objective, terms.reconstruction - 0.3 * terms.kl, rtol=1e-12)
    zero, one = (vae.value_and_grad(x, eps, sv.ELBO(2, beta=beta))[1] for beta in (0.0, 1.0))
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, 0.7 * zero[name] + 0.3 * one[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("objective", [sv.ELBO(3), sv.ELBO(3, beta=2.5), sv.IWAE(3)])
def test_the_gradient_is_that_of_the_objective_that_is_reported(engine, objective):
    case = build(samples=3, engine=engine, activation="softplus")
    model_gradient_is_the_derivative_of_the_reported_objective(*case, objective)


def test_loss_is_minus_the_mean_and_says_so_once():
    sampled, _ = build().vae.forward(*build()[1:])
    value, upstream = sv.ELBO(2).evaluate(reference, sampled)
    assert upstream.dkl.sum() == pytest.approx(1.0)
    assert upstream.dlog_likelihood.sum() == pytest.approx(-1.0)
    assert value.shape == (3,)


@pytest.mark.parametrize("objective", [sv.ELBO(4), sv.IWAE(4)])
def test_what_sees_only_log_weights_is_the_bound_and_its_derivative(engine, objective):
    ops, rng = get_engine(engine), np.random.default_rng(0)
    log_weights = 3 * rng.normal(size=(3, 4))
    value, dlog_weights = objective.of_log_weights(ops, log_weights)
    want = np.log(np.exp(log_weights).mean(axis=1)) if objective.name == "iwae" else log_weights.mean(axis=1)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    numeric = complex_derivative(lambda a: -objective.of_log_weights(reference, a)[0].mean(), log_weights)
    assert relative_error(dlog_weights, numeric) <= 1e-12


def test_log_weights_do_not_tell_the_kl_from_the_rest():
    with pytest.raises(ValueError, match=r"beta=0.5.*expected beta 1"):
        sv.ELBO(beta=0.5).of_log_weights(reference, np.zeros((1, 1)))


def test_an_objective_is_called_what_it_is_asked_for_by():
    assert {name: kind().name for name, kind in OBJECTIVES.items()} == {name: name for name in OBJECTIVES}


def test_the_samples_and_weights_that_are_taken_unless_others_are_asked_for():
    assert sv.ELBO() == sv.ELBO(num_samples=1, beta=1.0, warm_up=0, free_bits=0.0, kl="exact")
    samples = {
        objective.__name__: objective().num_samples for objective in (sv.IWAE, sv.DReG, sv.STL, sv.ScoreFunction)
    }
    assert samples == {"IWAE": 50, "DReG": 50, "STL": 1, "ScoreFunction": 1}


@pytest.mark.parametrize("objective", [sv.ELBO, sv.IWAE, sv.STL, sv.DReG, sv.ScoreFunction])
@pytest.mark.parametrize("samples", [0, -1, 1.5, True, "5"])
def test_a_number_of_samples_that_cannot_be_is_refused(objective, samples):
    with pytest.raises(ValueError, match=r"num_samples is .*expected a whole number of at least 1"):
        objective(num_samples=samples)


def test_numbers_of_numpy_are_those_of_python_of_the_same_value(engine):
    """In the terms, whose dtype a float64 would widen, and in a checkpoint, which keeps the objective as written."""
    vae, x, eps = build(dtype="float32", engine=engine)
    for objective in (sv.ELBO, sv.IWAE, sv.STL, sv.DReG, sv.ScoreFunction):
        assert repr(objective(num_samples=np.int64(2))) == repr(objective(num_samples=2))
    half, five = np.float64(0.5), np.int32(5)
    for settings, same in (
        ({"beta": half}, {"beta": 0.5}),
        ({"beta": five, "free_bits": half, "warm_up": five}, {"beta": 5, "free_bits": 0.5, "warm_up": 5}),
        ({"beta": np.float32(0.5), "kl": np.str_("monte-carlo")}, {"beta": 0.5, "kl": "monte-carlo"}),
    ):
        objective, plain = sv.ELBO(2, **settings), sv.ELBO(2, **same)
        assert repr(objective) == repr(plain)
        assert repr(objective.at(np.int64(1))) == repr(plain.at(1))
        for mine, theirs in zip(*(vae.value_and_grad(x, eps, one)[0] for one in (objective, plain)), strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == np.float32


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf"), "1"])
def test_a_beta_that_cannot_be_is_refused(beta):
    with pytest.raises(ValueError, match="beta is"):
        sv.ELBO(beta=beta)


@pytest.mark.parametrize("objective", ["elbo", sv.IWAE, None])
def test_what_is_not_an_objective_is_refused(objective):
    with pytest.raises(ValueError, match=r"objective is .*expected one of ELBO"):
        build().vae.value_and_grad(*build()[1:], objective)
