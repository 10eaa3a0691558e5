"""What every estimate goes through: the same bits for any number of threads, and no NaN that goes unseen."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import scratchvae as sv
from scratchvae.engine import processors
from scratchvae.evidence import (
    active_units_by_layer,
    annealed_importance,
    best_posterior,
    bidirectional,
    elbo_surgery,
    elbo_surgery_by_quadrature,
    inference_gap,
    integrate,
    log_evidence,
)

X = (np.random.default_rng(0).random((40, 784)) < 0.3).astype(np.float64)


def score_samples(bound):
    """The estimator's, of its own training data."""
    settings = {"hidden": (200,), "epochs": 1, "engine": "reference", "random_state": 0, "num_samples": 50}
    return sv.VariationalAutoencoder(2, **settings, bound=bound).fit(X).score_samples(X)


def of_reference():
    return sv.VAE(784, 8, (200,), engine="reference", dtype="float64")


def of_a_closed_form(engine):
    return log_evidence(sv.VAE(784, 300, (), "gaussian", engine=engine, dtype="float64"), X, "exact").log_evidence


ESTIMATES = {
    "log_evidence": lambda: log_evidence(of_reference(), X, num_samples=100).log_evidence,
    "annealed_importance": lambda: annealed_importance(of_reference(), X, 4, 5, 2).log_evidence,
    "bidirectional": lambda: bidirectional(of_reference(), 20, 4, 5, 2).lower,
    "best_posterior": lambda: best_posterior(of_reference(), X[:8], num_steps=3).mu,
    "inference_gap": lambda: inference_gap(of_reference(), X[:8], num_samples=64, num_steps=3).best_elbo,
    "elbo_surgery": lambda: elbo_surgery(of_reference(), X, 4).kl_per_dimension,
    "integrate": lambda: integrate(sv.VAE(784, 1, (200,), engine="reference", dtype="float64"), X[:8]).log_evidence,
    "score_samples, elbo": lambda: score_samples("elbo"),
    "score_samples, iwae": lambda: score_samples("iwae"),
    "exact": lambda: of_a_closed_form("reference"),
    "exact, of a compiled model": lambda: of_a_closed_form("compiled"),
}


@pytest.mark.skipif(processors() < 2, reason="one processor")
@pytest.mark.parametrize("name", ESTIMATES)
def test_threads_of_numpys_products_change_no_bit(name):
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            results.append(ESTIMATES[name]())
    np.testing.assert_array_equal(*results)


def diverging():
    """A model whose z is beyond float32 and decodes to infinity less infinity, though its parameters are numbers."""
    vae = sv.VAE(4, 2, (3,), engine="reference", activation="relu")
    vae.parameters["encoder.head.bias"][2:] = 200.0
    return vae


ROWS = (np.random.default_rng(0).random((6, 4)) < 0.5).astype(np.float32)


@pytest.mark.parametrize(
    ("estimate", "name"),
    [
        (lambda: log_evidence(diverging(), ROWS, num_samples=5), "log_evidence of row 0"),
        (lambda: annealed_importance(diverging(), ROWS, 2, 3, 2, start="encoder"), "log_evidence of row 0"),
        (lambda: bidirectional(diverging(), 2, 2, 3, 2, start="encoder"), "lower of row 0"),
        (lambda: best_posterior(diverging(), ROWS, num_steps=2), "best_head of row 0"),
        (lambda: inference_gap(diverging(), ROWS, num_samples=64, num_steps=2), "best_head of row 0"),
    ],
)
def test_an_estimate_that_is_no_number_is_refused_with_its_row(estimate, name):
    with pytest.raises(sv.NotFiniteError, match=f"^{name} is not finite"):
        estimate()


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_a_row_without_a_score_is_refused_by_either_bound(bound):
    x = np.random.default_rng(0).normal(size=(60, 3))
    settings = {"hidden": (8,), "likelihood": "gaussian-learned", "activation": "relu", "engine": "reference"}
    estimator = sv.VariationalAutoencoder(2, **settings, epochs=3, random_state=0, num_samples=5, bound=bound).fit(x)
    assert np.isfinite(estimator.score_samples(x[:2])).all()
    x[0] = 1e6
    with pytest.raises(sv.NotFiniteError):
        estimator.score_samples(x[:2])


@pytest.mark.parametrize(
    "estimate",
    [
        lambda vae: annealed_importance(vae, ROWS, 2, 3, 2),
        lambda vae: bidirectional(vae, 2, 2, 3, 2),
        lambda vae: best_posterior(vae, ROWS, num_steps=2),
        lambda vae: inference_gap(vae, ROWS, num_samples=5, num_steps=2),
        lambda vae: elbo_surgery(vae, ROWS),
        lambda vae: elbo_surgery_by_quadrature(vae, ROWS),
        lambda vae: active_units_by_layer(vae, ROWS),
    ],
)
def test_a_parameter_that_is_no_number_is_named(estimate):
    vae = sv.VAE(4, 2, (3,), engine="reference")
    vae.parameters["decoder.head.weight"][1, 2] = np.nan
    with pytest.raises(sv.NotFiniteError, match=r"parameter decoder\.head\.weight is not finite"):
        estimate(vae)
