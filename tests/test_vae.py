"""The model: its names and shapes, its terms, its exact answers, and what it refuses."""

import copy
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given

import scratchvae as sv
from scratchvae import vae as model
from scratchvae.engine import get_engine
from scratchvae.reference import decoded
from scratchvae.reference.random import Stream
from tests.cases import LIKELIHOOD_NAMES, architectures, build, linear_gaussian
from tests.proofs.checks import (
    all_signs,
    bound_is_exact_where_q_is_the_posterior,
    bounds_do_not_exceed_the_evidence,
    objective_is_the_reported_elbo,
    rows_are_independent,
)

# --- names, shapes, first weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("hidden", "such_as"), [(400, r"\(400,\)"), (None, r"\(400,\)"), (7, r"\(7,\)")])
def test_hidden_sizes_that_are_none_are_refused_with_an_example_of_some(hidden, such_as):
    with pytest.raises(ValueError, match=f"hidden is {hidden}; expected a sequence of sizes, such as {such_as}"):
        sv.VAE(6, 2, hidden=hidden, engine="reference")


def test_parameters_have_the_names_and_shapes_that_others_rely_on():
    vae = sv.VAE(7, 2, (5, 3), engine="reference")
    assert {name: array.shape for name, array in vae.parameters.items()} == {
        "encoder.0.weight": (7, 5),
        "encoder.0.bias": (5,),
        "encoder.1.weight": (5, 3),
        "encoder.1.bias": (3,),
        "encoder.head.weight": (3, 4),
        "encoder.head.bias": (4,),
        "decoder.0.weight": (2, 3),
        "decoder.0.bias": (3,),
        "decoder.1.weight": (3, 5),
        "decoder.1.bias": (5,),
        "decoder.head.weight": (5, 7),
        "decoder.head.bias": (7,),
    }


@pytest.mark.parametrize(("likelihood", "size"), [("gaussian-learned", 1), ("gaussian-learned-diagonal", 7)])
def test_a_likelihood_names_what_it_learns(likelihood, size):
    vae = sv.VAE(7, 2, (), likelihood, engine="reference")
    assert list(vae.parameters) == [
        "encoder.head.weight", "encoder.head.bias", "decoder.head.weight", "decoder.head.bias", "likelihood.logvar",
    ]  # fmt: skip
    assert vae.parameters["likelihood.logvar"].shape == (size,)


def test_the_model_of_the_paper_has_its_number_of_parameters():
    vae = sv.VAE(784, 50, (200, 200), activation="tanh", engine="reference")
    assert sum(array.size for array in vae.parameters.values()) == 425_284


def test_weights_are_glorot_uniform_and_biases_zero():
    vae = sv.VAE(300, 20, (200,), dtype="float64", engine="reference")
    for name, array in vae.parameters.items():
        if name.endswith(".bias"):
            assert not array.any()
            continue
        bound = np.sqrt(6 / sum(array.shape))
        assert np.abs(array).max() <= bound
        assert np.abs(array).max() > 0.98 * bound
        assert abs(array.mean()) < 5 * bound / np.sqrt(3 * array.size)
        assert array.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_weights_are_a_function_of_the_seed_alone(engine):
    first, same, other = (sv.VAE(9, 2, (4,), engine=engine, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.parameters.flat, same.parameters.flat)
    assert (first.parameters["encoder.0.weight"] != other.parameters["encoder.0.weight"]).all()


def test_float32_weights_are_the_float64_ones_rounded():
    narrow, wide = (sv.VAE(9, 2, (4,), dtype=dtype, engine="reference") for dtype in ("float32", "float64"))
    np.testing.assert_allclose(narrow.parameters.flat[:36], wide.parameters.flat[:36], rtol=2e-7)


def test_the_output_bias_makes_the_untrained_decoder_predict_the_training_mean(engine):
    mean = np.array([0.0, 0.2, 0.5, 1.0])
    vae = sv.VAE(4, 2, (), engine=engine, dtype="float64")
    vae.set_output_bias(mean)
    np.testing.assert_allclose(vae.decode(np.zeros((1, 2)))[0], [0.001, 0.2, 0.5, 0.999], rtol=1e-12)
    gaussian = sv.VAE(4, 2, (), "gaussian", engine=engine, dtype="float64")
    gaussian.set_output_bias(mean)
    np.testing.assert_allclose(gaussian.decode(np.zeros((1, 2)))[0], mean)


# --- the terms ------------------------------------------------------------------------------------------------------


@given(arguments=architectures())
def test_elbo_is_reconstruction_minus_kl_to_the_last_bit(arguments):
    vae, x, eps = build(**arguments)
    terms = vae.elbo(x, eps)
    np.testing.assert_array_equal(terms.elbo, terms.reconstruction - terms.kl)
    assert terms.elbo.shape == terms.kl.shape == (len(x),)
    assert (terms.kl >= 0).all()
    objective_is_the_reported_elbo(vae, x, eps)


@given(arguments=architectures())
def test_the_elbo_is_made_of_encode_and_log_joint(arguments):
    vae, x, eps = build(**arguments)
    mu, logvar = vae.encode(x)
    z = mu[:, None] + np.exp(logvar / 2)[:, None] * eps
    log_prior = -0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=2)
    terms = vae.elbo(x, eps)
    log_likelihood = vae.log_joint(x, z) - log_prior
    np.testing.assert_allclose(terms.reconstruction, log_likelihood.mean(axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(terms.kl, 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1), rtol=1e-9, atol=1e-12)


def test_the_reconstruction_of_several_samples_is_their_mean(engine):
    vae, x, eps = build(samples=4, engine=engine)
    single = [vae.elbo(x, eps[:, k]).reconstruction for k in range(4)]
    np.testing.assert_allclose(vae.elbo(x, eps).reconstruction, np.mean(single, axis=0), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
def test_a_row_does_not_notice_its_neighbours(engine, likelihood, dtype):
    rows_are_independent(*build(19, 3, (17,), likelihood, "relu", dtype, engine, rows=5))


@pytest.mark.parametrize(("data_dim", "hidden", "rows"), [(33, (21, 8), 37), (784, (400,), 100), (64, (128,), 333)])
def test_a_bound_does_not_depend_on_how_the_rows_are_split(engine, data_dim, hidden, rows):
    vae, x, eps = build(data_dim, 5, hidden, dtype="float32", engine=engine, rows=rows)
    whole = vae.elbo(x, eps)
    parts = [vae.elbo(x[part], eps[part]) for part in (slice(0, 1), slice(1, 20), slice(20, rows))]
    for index, term in enumerate(whole):
        together = np.concatenate([part[index] for part in parts])
        if engine == "compiled":
            np.testing.assert_array_equal(together, term)  # the same bits
        else:
            np.testing.assert_allclose(together, term, rtol=1e-4)


def test_noise_for_one_sample_may_leave_out_the_axis_of_samples(engine):
    vae, x, eps = build(engine=engine, samples=1)
    np.testing.assert_array_equal(vae.elbo(x, eps[:, 0]).elbo, vae.elbo(x, eps).elbo)


def test_arrays_that_are_not_contiguous_are_as_good(engine):
    vae, x, eps = build(engine=engine, rows=4)
    wide, tall = np.zeros((4, 10)), np.asfortranarray(eps)
    wide[:, ::2] = x
    np.testing.assert_array_equal(vae.elbo(wide[:, ::2], tall).elbo, vae.elbo(x, eps).elbo)


def test_logits_of_a_thousand_leave_terms_and_gradients_finite(engine):
    vae, x, eps = build(engine=engine, dtype="float32")
    vae.parameters["decoder.head.bias"][:] = [1e3, -1e3, 1e3, -1e3, 0]
    terms, gradients = vae.value_and_grad(x, eps)
    assert all(np.isfinite(term).all() for term in terms)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    want = (np.array([1, 0, 1, 0, 0.5]) - x).mean(axis=0)[:4]
    np.testing.assert_allclose(gradients["decoder.head.bias"][:4], want, atol=1e-6)


@given(arguments=architectures())
def test_the_gradient_is_the_mean_over_rows(arguments):
    vae, x, eps = build(**arguments)
    _, together = vae.value_and_grad(x, eps)
    alone = [vae.value_and_grad(x[row : row + 1], eps[row : row + 1])[1] for row in range(len(x))]
    for name, gradient in together.items():
        want = np.mean([one[name] for one in alone], axis=0)
        np.testing.assert_allclose(gradient, want, rtol=1e-9, atol=1e-11, err_msg=name)


# --- exact answers --------------------------------------------------------------------------------------------------


def test_bounds_are_exact_where_q_is_the_posterior_on_both_engines(engine):
    bound_is_exact_where_q_is_the_posterior(engine)


def test_bounds_rise_with_the_samples_and_stay_below_the_evidence_on_both_engines(engine):
    bounds_do_not_exceed_the_evidence(engine)


def test_the_gap_of_the_best_diagonal_q_is_the_same_for_every_x(engine):
    vae, x, log_evidence = linear_gaussian(engine, orthogonal=False)
    w = vae.parameters["decoder.head.weight"].T
    m = w.T @ w + np.eye(vae.latent_dim)
    gap = 0.5 * (np.log(np.diag(m)).sum() - np.linalg.slogdet(m)[1])
    elbo = vae.elbo(x, all_signs(len(x), vae.latent_dim)).elbo
    assert gap > 0.1
    np.testing.assert_allclose(log_evidence - elbo, gap, rtol=1e-10)


def test_at_the_exact_posterior_the_gradient_of_the_encoder_is_zero(engine):
    vae, x, _ = linear_gaussian(engine)
    _, gradients = vae.value_and_grad(x, all_signs(len(x), vae.latent_dim))
    for name, gradient in gradients.items():
        if name.startswith("encoder"):
            assert np.abs(gradient).max() < 1e-12


def test_log_joint_is_the_density_of_x_and_z_together(engine):
    vae, x, log_evidence = linear_gaussian(engine)
    mu, logvar = vae.encode(x)
    z = np.random.default_rng(0).normal(size=(len(x), 4, vae.latent_dim))
    log_posterior = -0.5 * (np.log(2 * np.pi) + logvar[:, None] + (z - mu[:, None]) ** 2 / np.exp(logvar)[:, None]).sum(
        2
    )
    np.testing.assert_allclose(vae.log_joint(x, z) - log_posterior, np.repeat(log_evidence[:, None], 4, 1), rtol=1e-11)
    np.testing.assert_allclose(vae.log_joint(x, z[:, 0]), vae.log_joint(x, z)[:, 0], rtol=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
def test_the_joint_density_does_not_depend_on_how_many_points_are_decoded_together(engine, likelihood, monkeypatch):
    vae, x, z = build(9, likelihood=likelihood, engine=engine, rows=5, samples=8)
    whole = vae.log_joint(x, z)
    for together in (1, 3, 8, 20, 39):
        monkeypatch.setattr(decoded, "TOGETHER", together)
        monkeypatch.setattr(model, "DECODED_TOGETHER", together)
        np.testing.assert_allclose(vae.log_joint(x, z), whole, rtol=0 if engine == "compiled" else 1e-13)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_memory_does_not_grow_with_the_points_of_an_example(engine, likelihood):
    vae, x, _ = build(data_dim=200, likelihood=likelihood, engine=engine, rows=1)
    peaks = []
    for points in (1000, 10_000):
        z = np.zeros((1, points, 2))
        vae.log_joint(x, z)  # compiled before it is measured
        tracemalloc.start()
        vae.log_joint(x, z)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.05 * points * 200 * 8, "a twentieth of the decoder's output: z and the answer"


def test_memory_does_not_grow_with_the_points_of_wide_data_either():
    vae, x, _ = build(data_dim=20_000, likelihood="gaussian", rows=1)
    z = np.zeros((1, 1000, 2))
    tracemalloc.start()
    vae.log_joint(x, z)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 1000 * 20_000 * 8, "half of the decoder's output"


# --- decoding and sampling ------------------------------------------------------------------------------------------


def test_decode_takes_any_leading_shape(engine):
    vae, _, _ = build(engine=engine)
    z = np.random.default_rng(0).normal(size=(2, 3, 4, vae.latent_dim))
    means = vae.decode(z)
    assert means.shape == (2, 3, 4, vae.data_dim)
    np.testing.assert_allclose(means[1, 2, 3], vae.decode(z[1, 2, 3]), rtol=1e-12)
    assert ((means > 0) & (means < 1)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_answers_have_the_models_precision_whatever_that_of_the_question(dtype):
    vae, x, eps = build(dtype=dtype)
    for asked in (np.float32, np.float64):
        answers = vae.decode(eps.astype(asked)), vae.reconstruct(x.astype(asked)), vae.log_joint(x, eps.astype(asked))
        assert {answer.dtype for answer in (*answers, vae.sample(2), *vae.encode(x))} == {np.dtype(dtype)}


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_reconstruct_decodes_the_posterior_mean(engine, posterior):
    vae, x, _ = build(engine=engine, posterior=posterior)
    np.testing.assert_array_equal(vae.reconstruct(x), vae.decode(vae.encode(x).mu))


@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
def test_a_draw_is_the_same_however_many_are_drawn(engine, likelihood):
    vae, _, _ = build(likelihood=likelihood, engine=engine)
    many, few = vae.sample(20, seed=3), vae.sample(7, seed=3)
    np.testing.assert_array_equal(many[:7], few)
    np.testing.assert_allclose(vae.sample(20, seed=3, mean=True)[:7], vae.sample(7, seed=3, mean=True), rtol=1e-12)
    assert (vae.sample(20, seed=4) != many).any()


@pytest.mark.parametrize("mean", [False, True])
def test_draws_are_the_same_whichever_are_decoded_together(engine, mean, monkeypatch):
    vae, _, _ = build(engine=engine)
    together = vae.sample(20, seed=3, mean=mean)
    monkeypatch.setattr(model, "DECODED_TOGETHER", 6)
    np.testing.assert_array_equal(vae.sample(20, seed=3, mean=mean), together)


@pytest.mark.parametrize("mean", [False, True])
def test_many_draws_take_little_more_memory_than_they_are(mean):
    vae = sv.VAE(500, 2, hidden=(300,), engine="reference")
    vae.sample(1)
    tracemalloc.start()
    x = vae.sample(10_000, mean=mean)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * x.nbytes


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian-learned", "gaussian-learned-diagonal"])
def test_draws_scatter_around_their_means_as_the_likelihood_says(likelihood):
    vae, _, _ = build(likelihood=likelihood)
    draws, means = vae.sample(40_000, seed=1), vae.sample(40_000, seed=1, mean=True)
    if likelihood == "bernoulli":
        assert set(np.unique(draws)) == {0.0, 1.0}
        variance = means * (1 - means)
    elif likelihood == "gaussian":
        variance = np.ones_like(means)
    else:
        variance = np.exp(vae.parameters["likelihood.logvar"]) * np.ones_like(means)
    np.testing.assert_allclose((draws - means).mean(axis=0), 0, atol=5 * np.sqrt(variance.mean() / 40_000))
    np.testing.assert_allclose(((draws - means) ** 2).mean(axis=0), variance.mean(axis=0), rtol=0.05)


def test_draws_of_a_linear_gaussian_model_have_its_mean_and_covariance():
    vae, _, _ = linear_gaussian()
    draws = vae.sample(100_000)
    w, b = vae.parameters["decoder.head.weight"].T, vae.parameters["decoder.head.bias"]
    np.testing.assert_allclose(draws.mean(axis=0), b, atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), w @ w.T + np.eye(len(b)), atol=0.08)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "given", "expected"),
    [
        ({"data_dim": 0}, "data_dim is 0", "at least 1"),
        ({"data_dim": 3.5}, "data_dim is 3.5", "whole number"),
        ({"data_dim": np.zeros((99, 5))}, r"data_dim is array\(", "whole number"),
        ({"latent_dim": np.arange(3)[:, None]}, r"latent_dim is array\(", "whole number"),
        ({"latent_dim": -1}, "latent_dim is -1", "at least 1"),
        ({"hidden": (4, 0)}, "hidden size is 0", "at least 1"),
        ({"hidden": (True,)}, "hidden size is True", "whole number"),
        ({"hidden": 400}, "hidden is 400", r"(400,)"),
        ({"likelihood": ["bernoulli"]}, r"\['bernoulli'\]", "expected one of"),
        ({"dtype": 7}, "dtype is '7'", "float32"),
        ({"likelihood": "beta"}, "'beta'", "bernoulli"),
        ({"activation": "gelu"}, "'gelu'", "tanh"),
        ({"dtype": "float16"}, "'float16'", "float32"),
        ({"engine": "cuda"}, "'cuda'", "compiled"),
        ({"engine": np.zeros((99, 5))}, r"engine is array\(", "compiled"),
        ({"seed": -1}, "seed is -1", "0"),
        ({"seed": np.zeros((99, 5))}, r"seed is array\(", "0"),
        ({"activation": np.zeros((99, 5))}, r"activation is array\(", "tanh"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_in_one_line(arguments, given, expected):
    with pytest.raises(ValueError, match=given) as refusal:
        sv.VAE(**{"data_dim": 5, "latent_dim": 2, **arguments})
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_parameters_that_are_given_are_copied_and_refused_where_they_do_not_fit():
    vae, _, _ = build(4, 2, (4,), dtype="float32")
    given, name = dict(vae.parameters), "decoder.0.weight"
    other = sv.VAE(**vae.config, engine="reference", parameters=given)
    np.testing.assert_array_equal(other.parameters.flat, vae.parameters.flat)
    assert not np.shares_memory(other.parameters.flat, vae.parameters.flat)
    for change, message in (
        ({name: None}, "has no tensor decoder.0.weight"),
        ({name: given[name].T}, r"decoder.0.weight is float32 \(4, 2\); expected float32 \(2, 4\)"),
        ({name: given[name][None]}, r"decoder.0.weight is float32 \(1, 2, 4\); expected float32 \(2, 4\)"),
        ({name: given[name].astype(float)}, r"decoder.0.weight is float64 \(2, 4\); expected float32 \(2, 4\)"),
        ({name: given[name].tolist()}, r"decoder.0.weight is float64 \(2, 4\); expected float32 \(2, 4\)"),
        ({"decoder.1.weight": np.eye(4)}, "has a tensor decoder.1.weight; expected encoder.0.weight, "),
    ):
        with pytest.raises(ValueError, match=message):
            sv.VAE(**vae.config, engine="reference", parameters=given | change)


BAD_X = {
    "one dimension": (np.zeros(5), "1-D", "2-D"),
    "three dimensions": (np.zeros((2, 1, 5)), "3-D", "2-D"),
    "the wrong width": (np.zeros((2, 4)), "4 columns", "5"),
    "no rows": (np.zeros((0, 5)), "empty", "at least one row"),
    "NaN": (np.full((2, 5), np.nan), "nan", "finite"),
    "infinity": (np.full((2, 5), np.inf), "inf", "finite"),
    "below 0": (np.full((2, 5), -0.1), "-0.1", r"\[0, 1\]"),
    "above 1": (np.full((2, 5), 1.1), "1.1", r"\[0, 1\]"),
    "text": (np.full((2, 5), "a"), "<U1", "numbers"),
    "objects": (np.full((2, 5), None), "object", "numbers"),
    "complex numbers": (np.zeros((2, 5), complex), "complex128", "numbers"),
    "rows of unequal length": ([[1.0] * 5, [1.0] * 4], "not an array", "2-D"),
}


@pytest.mark.parametrize("what", BAD_X)
def test_data_that_cannot_be_are_refused_in_one_line_everywhere(what):
    x, given, expected = BAD_X[what]
    vae, eps = sv.VAE(5, 2, (3,), engine="reference"), np.zeros((2, 2))
    calls = [
        lambda: vae.encode(x),
        lambda: vae.reconstruct(x),
        lambda: vae.elbo(x, eps),
        lambda: vae.value_and_grad(x, eps),
        lambda: vae.log_joint(x, eps),
        lambda: sv.fit(vae, x, epochs=1, progress=False),
        lambda: sv.fit(vae, np.eye(5), epochs=1, validation=x, progress=False),
        lambda: sv.log_evidence(vae, x),
        lambda: sv.check_gradients(vae, x, eps),
    ]
    before = vae.parameters.copy()
    for call in calls:
        with pytest.raises(ValueError, match=expected) as refusal:
            call()
        assert given in str(refusal.value)
        assert "\n" not in str(refusal.value)
    np.testing.assert_array_equal(vae.parameters.flat, before.flat)


@pytest.mark.parametrize(
    ("eps", "given"),
    [
        (np.zeros((3, 2)), r"\(3, 2\)"),
        (np.zeros((2, 3)), r"\(2, 3\)"),
        (np.zeros((2, 0, 2)), r"\(2, 0, 2\)"),
        (np.zeros(2), r"\(2,\)"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.full((2, 2), "a"), "<U1"),
        (np.zeros((2, 2), complex), "complex"),
    ],
)
def test_noise_that_does_not_fit_is_refused(eps, given):
    vae, x = sv.VAE(5, 2, (3,), engine="reference"), np.zeros((2, 5))
    for call in (vae.elbo, vae.value_and_grad, vae.log_joint):
        with pytest.raises(ValueError, match=given):
            call(x, eps)


def test_noise_and_points_in_rows_of_unequal_length_are_refused_by_name():
    vae, x, ragged = sv.VAE(5, 2, (3,), engine="reference"), np.zeros((2, 5)), [[0.0, 0.0], [0.0]]
    calls = (
        ("eps", lambda: vae.elbo(x, ragged)),
        ("z", lambda: vae.log_joint(x, ragged)),
        ("z", lambda: vae.decode(ragged)),
    )
    for name, call in calls:
        with pytest.raises(ValueError, match=f"^{name} has rows of unequal length; expected an array of real numbers$"):
            call()


@pytest.mark.parametrize("z", [np.zeros((2, 3)), np.float64(1.0), np.full((2, 2), "a")])
def test_points_of_the_wrong_width_are_refused(z):
    with pytest.raises(ValueError, match=r"expected real numbers of shape \(\.\.\., 2\)"):
        sv.VAE(5, 2, (3,), engine="reference").decode(z)


def test_numbers_of_draws_and_seeds_are_checked():
    vae = sv.VAE(5, 2, (3,), engine="reference")
    with pytest.raises(ValueError, match="n is 0"):
        vae.sample(0)
    with pytest.raises(ValueError, match="seed is -1"):
        vae.sample(1, seed=-1)


def test_sizes_and_seeds_may_be_numpys_numbers():
    vae = sv.VAE(np.int64(5), np.int32(2), (np.int64(3),), engine="reference", seed=np.uint64(4))
    assert json.loads(json.dumps(vae.config)) == sv.VAE(5, 2, (3,), engine="reference", seed=4).config
    np.testing.assert_array_equal(vae.sample(np.int64(3), seed=np.int32(1)), vae.sample(3, seed=1))


def test_a_model_says_what_it_is():
    assert repr(sv.VAE(784, engine="reference")) == "VAE(784 - 400 - 20, relu, bernoulli, float32, reference)"


def test_copies_and_pickles_of_a_model_are_whole_models_of_their_own():
    vae = sv.VAE(6, 2, (4,), engine="reference", seed=3)
    for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        assert (other.engine, other.config) == (vae.engine, vae.config)
        assert (other.parameters.flat == vae.parameters.flat).all()
        other.parameters["encoder.0.weight"][...] = 0
        assert not other.parameters.flat[: other.parameters["encoder.0.weight"].size].any(), "views and flat are one"
        assert vae.parameters["encoder.0.weight"].all()


def test_the_configuration_builds_the_untrained_model_again():
    told = {
        "data_dim": 6, "latent_dim": 3, "hidden": [5, 4], "likelihood": "gaussian", "activation": "tanh",
        "dtype": "float64", "seed": 9, "posterior": "full",
    }  # fmt: skip
    vae = sv.VAE(**told, engine="reference")
    assert vae.config == told
    np.testing.assert_array_equal(sv.VAE(**vae.config, engine="reference").parameters.flat, vae.parameters.flat)


@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
def test_of_one_and_the_same_distribution_another_seed_draws_other_values(likelihood):
    vae, _, _ = build(likelihood=likelihood)
    vae.parameters["decoder.head.weight"][...] = 0  # p(x|z) does not depend on z, whose draws differ too
    assert (vae.sample(20, seed=3) != vae.sample(20, seed=4)).any()


def test_draws_of_the_model_are_decoded_from_the_latent_stream(engine):
    vae, _, _ = build(engine=engine)
    z = vae.ops.normals(3, Stream.LATENT, 0, np.arange(4), vae.latent_dim)
    np.testing.assert_array_equal(vae.sample(4, seed=3, mean=True), vae.decode(z.astype(vae.dtype)))


def test_a_model_around_other_parameters_is_of_their_type():
    vae, x, eps = build(dtype="float32")
    wide = vae.with_parameters(vae.parameters.astype("float64"))
    assert wide.dtype == np.float64
    assert wide.elbo(x, eps).elbo.dtype == np.float64


@pytest.mark.parametrize("seed", [2**64, 2**64 + 1, -1])
def test_a_seed_is_at_most_64_bits(seed):
    with pytest.raises(ValueError, match=r"seed is .*expected a whole number from 0 to 2\^64 - 1"):
        sv.VAE(2, seed=seed)
    assert sv.VAE(2, seed=2**64 - 1).seed == 2**64 - 1


def test_a_model_around_other_parameters_may_be_of_the_other_engine():
    vae, x, eps = build(engine="reference")
    other = vae.with_parameters(vae.parameters, engine="compiled")
    assert other.engine == "compiled"
    assert other.ops is other.posterior.ops is get_engine("compiled")
    np.testing.assert_allclose(other.elbo(x, eps).elbo, vae.elbo(x, eps).elbo, rtol=1e-12)
    assert vae.with_parameters(vae.parameters).engine == "reference"


@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
def test_what_a_likelihood_learns_starts_where_it_says(likelihood):
    vae = sv.VAE(3, 2, (), likelihood, "identity", engine="reference")
    start = vae.likelihood.parameter_start()
    for name in vae.likelihood.parameter_shapes(3):
        np.testing.assert_array_equal(vae.parameters[name], np.float32(start.get(name, 0.0)))


def test_encode_names_the_array_that_is_not_finite(engine):
    vae = sv.VAE(6, 2, hidden=(5,), engine=engine)
    vae.parameters["encoder.head.bias"][0] = np.nan
    with pytest.raises(sv.NotFiniteError, match=r"encoder\.head\.bias is not finite"):
        vae.encode(np.zeros((3, 6)))


@pytest.mark.parametrize(("dtype", "beyond"), [("float32", 1e300), ("float64", np.inf)])
def test_points_beyond_the_precision_are_not_decoded(engine, dtype, beyond):
    """A tanh and a sigmoid would make finite numbers of them."""
    vae = sv.VAE(6, 2, (5,), activation="tanh", dtype=dtype, engine=engine)
    with pytest.raises(sv.NotFiniteError, match=r"^z is not finite"):
        vae.decode(np.array([[0.0, 0.1], [0.1, -beyond]]))


@pytest.mark.parametrize(("kind", "sizes"), [(sv.VAE, (2, 2, (5,))), (sv.HierarchicalVAE, (2, (2, 2), ((5,), (5,))))])
def test_data_beyond_the_precision_are_not_encoded(engine, kind, sizes):
    vae = kind(*sizes, likelihood="gaussian", activation="tanh", engine=engine)
    for call in (vae.encode, vae.reconstruct, vae.mean_variances):
        with pytest.raises(sv.NotFiniteError, match=r"^x is not finite"):
            call(np.array([[1e300, 0.1]]))
