"""Extreme numbers: a finite answer or an error that names the first array that went bad, never a silent NaN."""

import math

import numpy as np
import pytest

import scratchvae as sv
from tests.cases import build

LIKELIHOODS = ("bernoulli", "gaussian", "gaussian-learned", "gaussian-learned-diagonal")
OBJECTIVES = (sv.ELBO(2), sv.IWAE(2))
DTYPES = ("float32", "float64")


def with_head(vae: sv.VAE, network: str, value: float, columns: slice = slice(None)) -> None:
    """Let a network answer `value` whatever it is given."""
    vae.parameters[f"{network}.head.weight"][:, columns] = 0
    vae.parameters[f"{network}.head.bias"][columns] = value


def all_finite(*arrays) -> bool:
    return all(np.isfinite(array).all() for array in arrays)


# --- logits of 1e4 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_logits_of_ten_thousand_have_their_exact_value_and_a_finite_gradient(engine, dtype, logit, objective):
    vae, x, eps = build(engine=engine, dtype=dtype)
    with_head(vae, "decoder", logit)
    terms, gradient = vae.value_and_grad(x, eps, objective)
    misses = (x == (logit < 0)).sum(axis=1)  # each costs softplus(1e4), which is 1e4 to the last bit
    np.testing.assert_array_equal(terms.reconstruction, -1e4 * misses)
    assert all_finite(*terms, gradient.flat)
    assert set(np.unique(vae.decode(eps))) <= {0.0, 1.0}


# --- logvar of +-100 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_posterior_of_logvar_minus_100_is_finite(engine, dtype, likelihood, objective):
    vae, x, eps = build(engine=engine, dtype=dtype, likelihood=likelihood)
    with_head(vae, "encoder", -100.0, slice(2, 4))
    terms, gradient = vae.value_and_grad(x, eps, objective)
    assert all_finite(*terms, gradient.flat)
    mu = vae.encode(x).mu
    np.testing.assert_allclose(terms.kl, 0.5 * (mu**2 - 1.0 + 100.0).sum(axis=1), rtol=1e-6)
    assert all_finite(sv.log_evidence(vae, x, num_samples=20).log_evidence)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_a_posterior_of_logvar_100_is_finite_in_double_precision(engine, objective):
    vae, x, eps = build(engine=engine, likelihood="gaussian")
    with_head(vae, "encoder", 100.0, slice(2, 4))
    terms, gradient = vae.value_and_grad(x, eps, objective)
    assert all_finite(*terms, gradient.flat)
    assert (terms.kl > math.exp(99)).all()
    assert all_finite(sv.log_evidence(vae, x, num_samples=20).log_evidence)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_a_posterior_of_logvar_100_is_beyond_single_precision_and_says_where(engine, objective):
    vae, x, eps = build(engine=engine, dtype="float32")
    with_head(vae, "encoder", 100.0, slice(2, 4))
    for call in (lambda: vae.elbo(x, eps), lambda: vae.value_and_grad(x, eps, objective)):
        with pytest.raises(sv.NotFiniteError, match=r"^kl is not finite"):  # exp(100) is no float32, exp(50) is
            call()


@pytest.mark.parametrize("logvar", [-100.0, 100.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_learned_variance_of_logvar_100_is_finite_or_names_what_is_not(engine, dtype, logvar):
    vae, x, eps = build(engine=engine, dtype=dtype, likelihood="gaussian-learned")
    vae.parameters["likelihood.logvar"][:] = logvar
    if logvar < 0 and dtype == "float32":  # a density of exp(100) at its mean
        with pytest.raises(sv.NotFiniteError, match=r"^log_likelihood is not finite"):
            vae.elbo(x, eps)
    else:
        terms, gradient = vae.value_and_grad(x, eps)
        assert all_finite(*terms, gradient.flat)


# --- answers beyond the precision -----------------------------------------------------------------------------------


def test_a_mean_and_a_draw_beyond_single_precision_are_named(engine):
    """Rates of exp(100), about 2.7e43."""
    vae, x, eps = build(engine=engine, dtype="float32", likelihood="poisson")
    with_head(vae, "decoder", 100.0)
    for call, name in (
        (lambda: vae.decode(eps), "the mean of p"),
        (lambda: vae.reconstruct(x), "the mean of p"),
        (lambda: vae.sample(2, mean=True), "the mean of p"),
        (lambda: vae.sample(2), "a draw from p"),
    ):
        with pytest.raises(sv.NotFiniteError, match=rf"^{name}\(x\|z\) is not finite"):
            call()
    with_head(vae, "decoder", 80.0)  # exp(80) is a float32
    assert all_finite(vae.decode(eps), vae.reconstruct(x), vae.sample(2, mean=True), vae.sample(2))


def test_a_full_posterior_beyond_single_precision_is_named(engine):
    vae, x, _ = build(engine=engine, dtype="float32", posterior="full")
    with_head(vae, "encoder", 200.0, slice(2, 4))
    with pytest.raises(sv.NotFiniteError, match=r"^L of q\(z\|x\) is not finite"):
        vae.encode(x)
    with_head(vae, "encoder", 100.0, slice(2, 4))  # exp(50) is a float32
    assert all_finite(vae.encode(x).cholesky)


# --- parameters that are not finite ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_every_answer_of_a_model_with_a_bad_parameter_names_it(engine, bad):
    vae, x, eps = build(engine=engine)
    vae.parameters["decoder.head.bias"][1] = bad
    for call in (
        lambda: vae.elbo(x, eps),
        lambda: vae.value_and_grad(x, eps),
        lambda: vae.log_joint(x, eps),
        lambda: vae.decode(eps),
        lambda: vae.reconstruct(x),
        lambda: vae.sample(2),
        lambda: sv.log_evidence(vae, x, num_samples=3),
    ):
        with pytest.raises(sv.NotFiniteError, match=r"^parameter decoder\.head\.bias is not finite"):
            call()
    assert all_finite(*vae.encode(x))


# --- numbers beyond single precision --------------------------------------------------------------------------------


def test_data_noise_and_points_that_are_no_float32_are_named_without_a_warning(engine):
    vae, x, eps = build(engine=engine, dtype="float32", likelihood="gaussian")
    large = np.full_like(eps, 1e39)
    for name, call in {
        "x": lambda: vae.encode(np.full_like(x, 1e39)),
        "eps": lambda: vae.elbo(x, large),
        "log_joint": lambda: vae.log_joint(x, large),
        "z": lambda: vae.decode(large),
    }.items():
        with pytest.raises(sv.NotFiniteError, match=f"^{name} is not finite"):
            call()


def test_a_gradient_that_is_no_float32_is_named_where_every_term_is_one(engine):
    vae = sv.VAE(2, 1, (), "gaussian", "identity", "float32", engine)
    vae.parameters["encoder.head.weight"][...] = 0
    vae.parameters["decoder.head.weight"][...] = 1e18  # its square times x is the gradient of the encoder's weight
    with pytest.raises(sv.NotFiniteError, match=r"^gradient of encoder\.head\.weight is not finite"):
        vae.value_and_grad(np.full((4, 2), 1e4), np.ones((4, 1)))


# --- training -------------------------------------------------------------------------------------------------------


def trained_or_diverged(vae: sv.VAE, x, **settings) -> sv.History | None:
    """The history of a training that stayed finite, or None for one that ended with an error that names an array."""
    try:
        history = sv.fit(vae, x, **{"epochs": 5, "batch_size": 4, "progress": False, **settings})
    except sv.DivergedError as error:
        if "array to go bad: " not in str(error) and " of the train data is " not in str(error):
            raise
        return None
    assert all_finite(vae.parameters.flat, *(history[name] for name in ("elbo", "reconstruction", "kl", "objective")))
    return history


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_learning_rate_of_1000_trains_or_says_what_went_bad(engine, dtype, likelihood):
    for objective in OBJECTIVES:
        vae, _, _ = build(engine=engine, dtype=dtype, likelihood=likelihood)
        x = np.random.default_rng(0).integers(0, 2, (12, 5)).astype(float)
        trained_or_diverged(vae, x, learning_rate=1e3, objective=objective, epochs=20)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_constant_columns_one_example_and_more_latent_dimensions_than_data_train(engine, likelihood):
    for x, latent_dim in ((np.ones((12, 3)), 2), (np.zeros((12, 3)), 2), (np.eye(3)[:1], 2), (np.eye(3), 7)):
        vae = sv.VAE(3, latent_dim, (4,), likelihood, "tanh", engine=engine)
        assert trained_or_diverged(vae, x, validation=x) is not None


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_variance_that_shrinks_for_ever_ends_with_its_name(engine, dtype):
    vae = sv.VAE(2, 1, (), "gaussian-learned-diagonal", "identity", dtype, engine)
    vae.parameters["decoder.head.weight"][...] = 0
    x = np.zeros((8, 2))
    with pytest.raises(sv.DivergedError, match=r"array to go bad: [\w .']+ at update \d+"):
        sv.fit(vae, x, epochs=4000, batch_size=8, learning_rate=1.0, progress=False)


def test_a_moment_that_overflows_is_named_though_the_loss_is_finite(engine):
    """It would freeze its parameter for good: the square of a gradient of 1e36 is no float32, and first / inf is 0."""
    vae = sv.VAE(2, 1, (), "gaussian", "identity", "float32", engine)
    vae.parameters["encoder.head.weight"][...] = 0
    vae.parameters["decoder.head.weight"][...] = 1e18
    with pytest.raises(sv.DivergedError, match=r"bad: Adam's second moment of encoder.head.weight at update 1"):
        sv.fit(vae, np.ones((4, 2)), epochs=1, batch_size=4, progress=False)


def test_data_that_overflow_are_named_by_what_they_make_of_the_forward_pass(engine):
    vae = sv.VAE(2, 1, (), "gaussian", "identity", "float32", engine)
    with pytest.raises(sv.DivergedError, match=r"array to go bad: (z|kl|log_likelihood) at update 1"):
        sv.fit(vae, np.full((4, 2), 1e30), epochs=1, batch_size=4, progress=False)


@pytest.mark.parametrize("value", [1e39, 1.7e308])
def test_a_mean_of_the_data_that_overflows_ends_training_without_a_warning(engine, value):
    """1e39 is no float32; a sum of eight 1.7e308 is no float64 either."""
    x = np.full((8, 2), value)
    with pytest.raises(sv.DivergedError, match=r"bad: parameter decoder.head.bias at update 1"):
        sv.fit(sv.VAE(2, 1, (), "gaussian", "identity", "float32", engine), x, epochs=1, progress=False)
    if value > 1e300:
        with pytest.raises(sv.DivergedError, match=r"bad: parameter decoder.head.bias at update 1"):
            sv.VariationalAutoencoder(1, hidden=(), engine=engine, epochs=1).fit(x)


def test_held_out_data_whose_bound_overflows_end_training_by_name(engine):
    vae = sv.VAE(2, 1, (), "gaussian", "identity", "float32", engine)
    with pytest.raises(sv.DivergedError, match=r"epoch 1, update 1: \w+ of the validation data is -?(inf|nan)"):
        sv.fit(vae, np.eye(2), validation=np.full((2, 2), 1e30), epochs=1, progress=False)


# --- denormal numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormal_numbers_are_numbers(engine, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    vae, x, eps = build(engine=engine, dtype=dtype, likelihood="gaussian")
    for array in vae.parameters.values():
        array[...] = tiny
    x = np.full_like(x, 3 * tiny, dtype)
    terms, gradient = vae.value_and_grad(x, eps)
    assert all_finite(*terms, gradient.flat)
    assert vae.decode(eps * 0)[0, 0, 0] != 0, "denormal numbers are not flushed to zero"
    assert trained_or_diverged(vae, x) is not None
