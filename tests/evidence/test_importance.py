"""Estimates of log p(x): exact where they can be, honest about their error where they cannot."""

import re
import tracemalloc

import numpy as np
import pytest
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

import scratchvae as sv
from scratchvae import vae as model
from scratchvae.engine import get_threads, processors, set_threads
from scratchvae.evidence import importance
from scratchvae.reference.random import Stream
from tests.cases import build, linear_gaussian
from tests.proofs.checks import evidence_is_exact_where_q_is_the_posterior, evidence_uses_every_sample


def test_the_estimate_is_exact_where_q_is_the_posterior(engine):
    evidence_is_exact_where_q_is_the_posterior(sv.log_evidence, engine)


def test_every_sample_counts_whatever_their_number(engine):
    evidence_uses_every_sample(sv.log_evidence, engine)


@pytest.mark.parametrize("method", ["importance", "prior"])
def test_the_estimate_is_within_its_error_bars_of_the_exact_answer(method):
    vae, x, log_evidence = linear_gaussian(orthogonal=False, rows=40, scale=0.5)
    got = sv.log_evidence(vae, x, method=method, num_samples=3000)
    trusted = got.effective_sample_size > 30
    assert trusted.sum() >= 20
    error = (got.log_evidence - log_evidence)[trusted] / got.standard_error[trusted]
    assert np.abs(error).max() < 5
    assert 0.5 < np.sqrt(np.mean(error**2)) < 1.6, "error bars of the right size"


def test_the_encoders_samples_are_worth_more_than_the_priors():
    vae, x, _ = linear_gaussian(orthogonal=False)
    sizes = [sv.log_evidence(vae, x, method=method, num_samples=500)[2].mean() for method in ("prior", "importance")]
    assert sizes[1] > 2 * sizes[0]


def test_running_sums_are_the_log_sum_exp_of_all_samples_together():
    rng = np.random.default_rng(0)
    log_weights = 200 * rng.normal(size=(4, 90)) - 3000
    running = importance.RunningWeights.empty(4)
    for start in range(0, 90, 40):
        running.add(log_weights[:, start : start + 40])
    got = running.evidence(90)
    np.testing.assert_allclose(got.log_evidence, logsumexp(log_weights, axis=1) - np.log(90), rtol=1e-13)
    weights = np.exp(log_weights - logsumexp(log_weights, axis=1, keepdims=True))
    np.testing.assert_allclose(got.effective_sample_size, 1 / np.square(weights).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("num_samples", [2, 3, 50])
def test_the_error_is_that_of_the_mean_weight(num_samples):
    weights = np.random.default_rng(0).random((4, num_samples))
    running = importance.RunningWeights.empty(4)
    running.add(np.log(weights))
    want = weights.std(axis=1, ddof=1) / np.sqrt(num_samples) / weights.mean(axis=1)  # of the logarithm: delta method
    np.testing.assert_allclose(running.evidence(num_samples).standard_error, want, rtol=1e-12)


def test_where_every_weight_is_zero_the_answer_is_minus_infinity_with_an_infinite_error():
    running = importance.RunningWeights.empty(1)
    running.add(np.full((1, 3), -np.inf))
    got = running.evidence(3)
    assert got.log_evidence == -np.inf
    assert got.standard_error == np.inf
    assert got.effective_sample_size == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_estimated_alike_in_any_number_of_rows(engine, dtype):
    vae, x, _ = build(rows=30, engine=engine, dtype=dtype)
    whole, part = (sv.log_evidence(vae, rows, num_samples=60) for rows in (x, x[:7]))
    np.testing.assert_allclose(whole.log_evidence[:7], part.log_evidence, rtol=1e-6 if dtype == "float32" else 1e-12)


def test_another_q_and_other_addresses_are_those_of_their_rows_in_any_number_of_blocks(monkeypatch):
    vae, x, _ = build(rows=7)
    options = {"head": vae.encoder_head(x) + 0.1, "examples": np.arange(7)[::-1]}
    whole = sv.log_evidence(vae, x, num_samples=60, **options).log_evidence
    monkeypatch.setattr(importance, "BLOCK_ROWS", 3)
    blocks = sv.log_evidence(vae, x, num_samples=60, **options).log_evidence
    np.testing.assert_allclose(blocks, whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("examples", (2,), "(3,)"),
        ("examples", (4,), "(3,)"),
        ("examples", (3, 1), "(3,)"),
        ("head", (1, 4), "(3, 4)"),
        ("head", (4, 4), "(3, 4)"),
        ("head", (3, 2), "(3, 4)"),
    ],
)
def test_addresses_and_heads_that_are_not_one_a_row_are_refused(engine, name, shape, expected):
    vae, x, _ = build(engine=engine)
    with pytest.raises(ValueError, match=re.escape(f"{name} has shape {shape}; expected {expected}")):
        sv.log_evidence(vae, x, num_samples=3, **{name: np.ones(shape)})


def test_addresses_that_are_no_whole_numbers_are_refused(engine):
    """Their noise would be that of the numbers below them."""
    vae, x, _ = build(engine=engine)
    with pytest.raises(ValueError, match="examples has type float64; expected whole numbers"):
        sv.log_evidence(vae, x, num_samples=3, examples=[0.5, 1, 2])


@pytest.mark.parametrize("dtype", ["int64", "float16", "float64"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_another_q_is_taken_in_the_precision_of_the_model(engine, precision, dtype):
    vae, x, _ = build(engine=engine, dtype=precision)
    head = np.array([[1, 0, -1, 2], [0, 2, 1, -1], [-2, 1, 0, 0]])
    want = sv.log_evidence(vae, x, num_samples=60, head=head.astype(precision)).log_evidence
    found = sv.log_evidence(vae, x, num_samples=60, head=head.astype(dtype)).log_evidence
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("dtype", ["bool", "complex128", "str"])
def test_another_q_that_is_no_real_numbers_is_refused(engine, dtype):
    vae, x, _ = build(engine=engine)
    head = np.ones((3, 4), dtype)
    with pytest.raises(ValueError, match=re.escape(f"head has type {head.dtype}; expected real numbers")):
        sv.log_evidence(vae, x, num_samples=3, head=head)


def test_an_estimate_that_is_not_a_number_is_refused_by_the_name_of_its_row(engine):
    vae, x, _ = build(rows=4, engine=engine)
    head = vae.encoder_head(x)
    head[2] = np.nan
    with pytest.raises(sv.NotFiniteError, match="log_evidence of row 2 is not finite"):
        sv.log_evidence(vae, x, num_samples=3, head=head)


@pytest.mark.parametrize("method", ["importance", "prior", "ais"])
def test_data_that_no_sample_explains_have_no_evidence_and_no_warning(engine, method):
    vae, x, _ = build(likelihood="gaussian", hidden=(), engine=engine)
    vae.parameters["encoder.head.weight"][...] = 0
    x[1] = 1e200  # whose square is no number
    got = sv.log_evidence(vae, x, method, num_samples=32)
    np.testing.assert_array_equal(np.isneginf(got.log_evidence), [False, True, False])
    np.testing.assert_array_equal(np.isinf(got.standard_error), [False, True, False])


def test_samples_are_those_of_their_addresses():
    """Fifty to a block, and so results of other machines and of earlier versions can be had again."""
    vae, x, _ = build(rows=2)
    eps = [vae.ops.normals(9, Stream.EVIDENCE, block, np.arange(2), count * 2) for block, count in ((0, 50), (1, 7))]
    eps = np.concatenate([part.reshape(2, -1, 2) for part in eps], axis=1).astype(float)
    want = logsumexp(vae.log_weights(x, vae.encoder_head(x), eps), axis=1) - np.log(57)
    np.testing.assert_allclose(sv.log_evidence(vae, x, num_samples=57, seed=9).log_evidence, want, rtol=1e-12)


def test_one_sample_has_no_error_bar():
    vae, x, _ = build()
    got = sv.log_evidence(vae, x, num_samples=1)
    assert np.isinf(got.standard_error).all()
    np.testing.assert_array_equal(got.effective_sample_size, 1)


def test_weights_that_are_equal_to_rounding_have_an_error_of_zero_and_not_of_nan():
    running = importance.RunningWeights.empty(50)
    running.add(np.linspace(-3, 3, 50)[:, None] + np.array([-1e-16, 0.0, 1e-16]))
    assert (running.evidence(3).standard_error < 1e-7).all()


def test_the_estimate_is_a_function_of_the_seed():
    vae, x, _ = build(rows=3)
    first, same, other = (sv.log_evidence(vae, x, num_samples=60, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.log_evidence, same.log_evidence)
    assert (first.log_evidence != other.log_evidence).all()


def test_the_evidence_bounds_the_elbo_in_the_mean():
    vae, x, _ = build(rows=50, samples=1)
    eps = np.random.default_rng(0).normal(size=(50, 200, 2))
    assert sv.log_evidence(vae, x, num_samples=500).log_evidence.mean() > vae.elbo(x, eps).elbo.mean()


def test_both_methods_agree_for_a_bernoulli():
    vae, x, _ = build(rows=5)
    first, second = (sv.log_evidence(vae, x, method=method, num_samples=20_000) for method in ("prior", "importance"))
    distance = np.abs(first.log_evidence - second.log_evidence)
    assert (distance < 5 * np.hypot(first.standard_error, second.standard_error)).all()


def test_probabilities_of_all_binary_vectors_sum_to_one():
    vae, _, _ = build(data_dim=4)
    x = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T
    got = sv.log_evidence(vae, x, num_samples=4000)
    probability = np.exp(got.log_evidence)
    error = np.sqrt(np.square(probability * got.standard_error).sum())
    assert abs(probability.sum() - 1) < 5 * error
    assert error < 0.02


@pytest.mark.parametrize("method", ["importance", "prior", "ais", "quadrature"])
def test_progress_is_told_step_by_step_to_its_end_and_changes_nothing(method, monkeypatch):
    monkeypatch.setattr(importance, "BLOCK_ROWS", 20)
    vae, x, _ = build(rows=25, latent_dim=1)
    seen: list[tuple[int, int]] = []
    got = sv.log_evidence(vae, x, method, num_samples=120, watch=lambda done, total: seen.append((done, total)))
    steps = {"importance": 2 * 3, "prior": 2 * 3, "quadrature": 25}.get(
        method, seen[-1][1]
    )  # blocks of 20 rows, 50 draws
    assert seen == [(done, steps) for done in range(1, steps + 1)]
    for value, quiet in zip(got, sv.log_evidence(vae, x, method, num_samples=120), strict=True):
        np.testing.assert_array_equal(value, quiet)


@pytest.mark.skipif(processors() < 2, reason="one processor")
@pytest.mark.parametrize("method", ["importance", "prior"])
def test_the_number_of_threads_changes_no_bit(method):
    vae, x, _ = build(rows=30, engine="compiled", dtype="float32", data_dim=100, hidden=(64,), latent_dim=3)
    kept, answers = get_threads(), []
    try:
        for threads in (1, 2):
            set_threads(threads)
            answers.append(sv.log_evidence(vae, x, method, num_samples=200))
    finally:
        set_threads(kept)
    for one, two in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.skipif(processors() < 2, reason="one processor")
def test_the_number_of_threads_of_numpys_products_changes_no_bit():
    vae, x, _ = build(rows=20, dtype="float32", data_dim=784, hidden=(400,), latent_dim=3)
    answers = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            answers.append(sv.log_evidence(vae, x, num_samples=20).log_evidence)
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("method", ["importance", "prior"])
def test_how_much_is_worked_on_together_changes_no_bit(engine, method, monkeypatch):
    vae, x, _ = build(rows=30, engine=engine, dtype="float32", data_dim=9)
    kept = sv.log_evidence(vae, x, method, num_samples=120)
    monkeypatch.setattr(importance, "BLOCK_ROWS", 7)
    monkeypatch.setattr(model, "DECODED_TOGETHER", 110)
    for one, two in zip(kept, sv.log_evidence(vae, x, method, num_samples=120), strict=True):
        np.testing.assert_allclose(one, two, rtol=0 if engine == "compiled" else 1e-5)  # NumPy's products may differ


def test_memory_grows_with_neither_the_number_of_examples_nor_that_of_samples():
    vae, x, _ = build(rows=400, data_dim=200, dtype="float32")
    tracemalloc.start()
    sv.log_evidence(vae, x, num_samples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * 400 * 100 * 200 * x.itemsize, "a quarter of the decoder's output for all samples"


def test_memory_does_not_grow_with_the_number_of_samples():
    vae, x, _ = build(rows=5, data_dim=60)
    peaks = []
    for num_samples in (1000, 20_000):
        tracemalloc.start()
        sv.log_evidence(vae, x, num_samples=num_samples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "magic"}, "method is 'magic'; expected one of"),
        ({"method": ["ais"]}, r"method is \['ais'\]; expected one of"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"num_samples": 2.5}, "num_samples is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"num_chains": 3}, "'num_chains' is no option of method 'importance'; expected examples, head"),
        ({"method": "ais", "head": 3}, "'head' is no option of method 'ais'; expected num_chains, num_temperatures,"),
        ({"method": "prior", "examples": [1, 2, 3]}, "'examples' is no option of method 'prior'; expected none"),
        ({"method": "quadrature", "max_points": 3}, "'max_points' is no option of method 'quadrature'; expected none"),
    ],
)
def test_an_estimate_that_cannot_be_made_is_refused(asked, message):
    vae, x, _ = build()
    with pytest.raises(ValueError, match=message):
        sv.log_evidence(vae, x, **asked)


def test_options_are_the_addresses_of_the_noise_and_another_q():
    vae, x, _ = build(rows=6)
    whole = sv.log_evidence(vae, x, num_samples=60).log_evidence
    part = sv.log_evidence(vae, x[4:], num_samples=60, examples=np.array([4, 5])).log_evidence
    np.testing.assert_array_equal(part, whole[4:])
    head = vae.encoder_head(x)
    np.testing.assert_array_equal(sv.log_evidence(vae, x, num_samples=60, head=head).log_evidence, whole)
    moved = sv.log_evidence(vae, x, num_samples=60, head=head + 0.1).log_evidence
    assert (moved != whole).all()
    np.testing.assert_allclose(moved, whole, atol=1.0)
