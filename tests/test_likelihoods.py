"""What the decoder's output means: names, data, means, draws, the first output bias; training and files with each."""

import copy
import pickle

import numpy as np
import pytest
from scipy import integrate, stats

import scratchvae as sv
from scratchvae import reference
from scratchvae.data import DataError
from scratchvae.engine import get_engine
from scratchvae.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    Draws,
    Poisson,
    as_likelihood,
    data_for,
    data_set_for,
    likelihood_named,
)
from scratchvae.likelihoods.likelihood import open_uniforms
from scratchvae.reference.random import Stream
from tests.cases import LIKELIHOOD_NAMES, build

WITH_NUMBERS = ("categorical:2,1,3", "discretised-logistic:17", "discretised-logistic-diagonal:2")
NAMES = LIKELIHOOD_NAMES + WITH_NUMBERS
PARAMETERS = {"likelihood.logvar": np.full(1, -1.0), "likelihood.log_scale": np.full(1, np.log(0.1))}


def draw(likelihood, out, seed=1):
    return likelihood.draw(reference, out, PARAMETERS, Draws(seed, np.arange(len(out))))


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "discretised-logistic:257"])
def test_a_likelihood_is_made_again_by_its_name(name):
    likelihood = likelihood_named(name)
    assert likelihood.name == name
    assert as_likelihood(likelihood) == likelihood == as_likelihood(name)


def test_a_likelihood_may_be_a_record_instead_of_a_name():
    for record, name in (
        (Categorical([2, np.int64(3)]), "categorical:2,3"),
        (DiscretisedLogistic(levels=np.int64(17)), "discretised-logistic:17"),
        (DiscretisedLogistic(per_dimension=True), "discretised-logistic-diagonal"),
        (Poisson(), "poisson"),
    ):
        vae = sv.VAE(5, 2, (), record, engine="reference")
        assert vae.likelihood.name == vae.config["likelihood"] == name


@pytest.mark.parametrize(
    "wrong",
    [
        "beta", "", "poisson:3", "bernoulli:", "categorical:", "categorical:3,", "categorical:3,-4", "categorical:0",
        "categorical:3.5", "categorical:3,x", "categorical:²", "categorical:٣",
        "discretised-logistic:", "discretised-logistic:1", "discretised-logistic:2,3", "discretised-logistic:70000",
        "discretised-logistic:a", "gaussian-learned:2",
        3, None, [], {}, np.zeros((99, 5)), Bernoulli(unit_interval=False), Bernoulli,
    ],
)  # fmt: skip
def test_what_is_no_likelihood_is_refused_in_one_line(wrong):
    with pytest.raises(ValueError, match=r"likelihood is |discretised-logistic has|categorical has") as refusal:
        sv.VAE(7, 2, (), wrong, engine="reference")
    assert "expected" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_groups_must_cover_the_columns():
    assert sv.VAE(12, 2, (), "categorical:3,4,5", engine="reference").data_dim == 12
    with pytest.raises(
        ValueError, match="likelihood is 'categorical:3,4,5', 12 columns in all; expected data_dim = 10"
    ):
        sv.VAE(10, 2, (), "categorical:3,4,5", engine="reference")


@pytest.mark.parametrize("wrong", [(0,), (2.5,), (True,), ("3",), (3, -1)])
def test_groups_are_whole_numbers_of_columns(wrong):
    with pytest.raises(ValueError, match="expected whole numbers of at least 1"):
        Categorical(wrong)
    with pytest.raises(ValueError, match=r"categorical has sizes 3; expected one for each group, such as \(3,\)"):
        Categorical(3)


# --- data -----------------------------------------------------------------------------------------------------------


def refusal_of(name, x, columns=None):
    """The one line with which elbo and fit refuse x."""
    x = np.asarray(x)
    lines = []
    for call in (lambda vae: vae.elbo(x, np.zeros((len(x), 1))), lambda vae: sv.fit(vae, x, epochs=1, progress=False)):
        with pytest.raises(DataError) as refusal:
            call(sv.VAE(columns or x.shape[1], 1, (), name, engine="reference"))
        lines.append(str(refusal.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]
    return lines[0]


def test_counts_are_whole_and_not_negative():
    assert "row 1, column 0 (counted from 0) is -1; expected counts 0, 1, 2, ..." in refusal_of("poisson", [[3], [-1]])
    assert "row 0, column 1 (counted from 0) is 0.5; expected counts" in refusal_of("poisson", [[0.0, 0.5]])
    assert "inf; expected finite numbers" in refusal_of("poisson", [[np.inf]])


def test_rows_that_are_not_one_hot_are_refused():
    name = "categorical:2,3"
    good = np.array([[1.0, 0, 0, 1, 0], [0, 1, 0, 0, 1]])
    assert np.isfinite(sv.VAE(5, 1, (), name, engine="reference").elbo(good, np.zeros((2, 1))).elbo).all()
    for change, said in (
        ((1, 2, 1.0), "row 1 has 2 ones in columns 2 to 4 (counted from 0); expected exactly one"),
        ((0, 0, 0.0), "row 0 has 0 ones in columns 0 to 1 (counted from 0); expected exactly one"),
        ((1, 4, 0.5), "row 1, column 4 (counted from 0) is 0.5; expected 0 or 1, one-hot"),
        ((0, 3, 2.0), "row 0, column 3 (counted from 0) is 2; expected 0 or 1, one-hot"),
        ((0, 3, -1.0), "is -1; expected 0 or 1, one-hot"),
    ):
        bad = good.copy()
        bad[change[:2]] = change[2]
        assert said in refusal_of(name, bad)


def test_pixels_lie_on_the_levels():
    on = np.arange(256.0)[:, None] / 255
    for x in (on, on.astype(np.float32), np.arange(256, dtype=np.uint8)[:, None]):
        sv.VAE(1, 1, (), "discretised-logistic", engine="reference").elbo(x, np.zeros((256, 1)))
    assert "is 0.5; expected multiples of 1/255, 256 levels" in refusal_of("discretised-logistic", [[0.0], [0.5]])
    assert "discretised-logistic:L for L levels" in refusal_of("discretised-logistic", [[0.3]])
    assert "expected multiples of 1/16, 17 levels: 0 to 16 divided by 16 (" in refusal_of(
        "discretised-logistic:17", [[1 / 16 + 0.01]]
    )
    assert "pass uint8, or divide by 255" in refusal_of("discretised-logistic", [[7.0]])
    assert refusal_of("discretised-logistic:17", np.array([[128, 0]], np.uint8))


@pytest.mark.parametrize("name", ["poisson", "categorical", "discretised-logistic"])
def test_a_refusal_says_by_its_name_which_data_it_is_about(name):
    likelihood, x = LIKELIHOODS[name], np.array([[0.3, 0.5]])
    for refuse in (
        lambda: data_for(likelihood, x, 2, "held out"),
        lambda: data_set_for(likelihood, x, 2, "none", name="held out"),
    ):
        with pytest.raises(DataError, match=r"^held out: row 0, column 0 "):
            refuse()


@pytest.mark.parametrize("name", ["bernoulli", "continuous-bernoulli", "discretised-logistic"])
@pytest.mark.parametrize("value", [-1.0, 2.0])
def test_pixels_lie_between_0_and_1(name, value):
    assert "expected values in [0, 1]" in refusal_of(name, [[0.0], [value]])


@pytest.mark.parametrize("name", ["poisson", "categorical"])
def test_bytes_are_never_scaled_in_silence(name):
    """uint8 means value / 255 here: of counts and columns that is a mistake, unless they were True and False."""
    assert "uint8 means value / 255" in refusal_of(name, np.array([[0, 1]], np.uint8))
    assert "uint8 means value / 255" in refusal_of(name, np.array([[3, 0]], np.uint8))
    vae, eps = sv.VAE(2, 1, (), name, engine="reference"), np.zeros((2, 1))
    truth = np.array([[True, False], [False, True]])
    for same in (truth.astype(int), truth.astype(np.float32), truth.astype(np.uint8) * np.uint8(255)):
        np.testing.assert_array_equal(vae.elbo(same, eps).elbo, vae.elbo(truth, eps).elbo)


@pytest.mark.parametrize("name", ["bernoulli", "continuous-bernoulli", "discretised-logistic"])
def test_bytes_are_pixels_over_255_where_pixels_are_meant(engine, name):
    vae, _, eps = build(likelihood=name, engine=engine, rows=3)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5), dtype=np.uint8)
    for mine, theirs in zip(vae.elbo(pixels, eps), vae.elbo(pixels / 255, eps), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_only_a_bernoulli_binarizes():
    assert [name for name in LIKELIHOOD_NAMES if LIKELIHOODS[name].binary] == ["bernoulli"]
    for name in set(LIKELIHOOD_NAMES) - {"bernoulli"}:
        vae, x, _ = build(likelihood=name)
        for method in ("dynamic", "fixed", "threshold"):
            with pytest.raises(DataError, match=f"binarize is '{method}' under likelihood '{name}'; expected 'none'"):
                sv.fit(vae, x, binarize=method, progress=False)


def test_a_gaussian_takes_any_real_number():
    vae, _, eps = build(likelihood="gaussian")
    assert np.isfinite(vae.elbo(np.full((3, 5), -7.0), eps).elbo).all()


# --- the first output bias ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(NAMES) - {n for n in NAMES if n.startswith("discretised")}))
def test_the_output_bias_is_the_one_that_the_gradient_asks_for(name):
    vae, x, eps = build(data_dim=6, likelihood=name, rows=40, samples=1)
    vae.parameters["decoder.head.weight"][...] = 0
    vae.set_output_bias(x.mean(axis=0))
    _, gradients = vae.value_and_grad(x, eps)
    assert np.abs(gradients["decoder.head.bias"]).max() < 1e-12, "with a constant decoder the mean is the best constant"


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(":2")])
def test_the_output_bias_predicts_the_training_mean(name):
    """To rounding; and to 1/50 where the location of a density stands for the mean of its bins."""
    likelihood = likelihood_named(name)
    mean = np.array([0.3, 0.7, 1.0, 0.5, 0.2, 0.3])
    if name == "categorical":
        mean /= mean.sum()
    out = likelihood.output_bias(mean)[None]
    got = likelihood.mean(reference, out, PARAMETERS)[0]
    inside = np.abs(mean - 0.5) < 0.25 if name.startswith("discretised") else mean < 1
    np.testing.assert_allclose(got[inside], mean[inside], atol=0.02 if name.startswith("discretised") else 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_columns_that_never_vary_have_a_finite_output_bias(name):
    bias = likelihood_named(name).output_bias(np.array([0.0, 0.0, 1.0, 1.0, 0.0, 1.0]))
    assert np.isfinite(bias).all()


@pytest.mark.parametrize(
    ("name", "predicted"),
    [
        ("bernoulli", [0.001, 0.999]),
        ("continuous-bernoulli", [0.01, 0.99]),
        ("poisson", [0.001, 1.0]),
        ("categorical", [1 / 1001, 1000 / 1001]),
    ],
)
def test_a_column_that_never_varies_is_predicted_to_vary_a_little(name, predicted):
    """By so much that what was never seen stays possible, and by no more."""
    likelihood = likelihood_named(name)
    bias = likelihood.output_bias(np.array([0.0, 1.0]))
    np.testing.assert_allclose(likelihood.mean(reference, bias[None], PARAMETERS)[0], predicted, rtol=1e-9)


@pytest.mark.parametrize("name", ["discretised-logistic", "discretised-logistic-diagonal"])
def test_the_first_scale_of_a_discretised_logistic_is_a_tenth_of_the_range_of_pixels(name):
    vae = sv.VAE(2, 1, (), name, engine="reference")
    np.testing.assert_allclose(np.exp(vae.parameters["likelihood.log_scale"]), 0.1, rtol=1e-6)


# --- means and draws ------------------------------------------------------------------------------------------------


def test_the_mean_of_many_levels_is_right_to_a_hundredth_of_a_level_in_single_precision(engine):
    likelihood, out = DiscretisedLogistic(levels=2**13), np.array([[0.1, 0.5, 0.77, 0.98]])
    scale = {"likelihood.log_scale": np.full(1, np.log(0.02))}
    want = likelihood.mean(reference, out, scale)
    rounded = {name: value.astype(np.float32) for name, value in scale.items()}
    got = likelihood.mean(get_engine(engine), out.astype(np.float32), rounded)
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < 0.01 / (2**13 - 1), "a total in single precision is 0.03 off"


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_the_mean_of_the_draws(engine, name):
    vae, _, _ = build(data_dim=6, likelihood=name, engine=engine, dtype="float32")
    out = np.repeat(np.random.default_rng(0).normal(size=(1, 6)), 40_000, axis=0).astype(np.float32)
    draws = vae.likelihood.draw(vae.ops, out, vae.parameters, Draws(seed=1, examples=np.arange(40_000)))
    assert draws.dtype == out.dtype
    error = draws.std(axis=0) / 200
    mean = vae.likelihood.mean(vae.ops, out, vae.parameters)
    assert mean.dtype == out.dtype
    assert (np.abs(draws.mean(axis=0) - mean[0]) <= 4.5 * error + 1e-5).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_drawn_is_data(engine, name):
    vae, _, _ = build(data_dim=6, likelihood=name, engine=engine, rows=50)
    x = vae.sample(50, seed=3)
    assert np.isfinite(vae.elbo(x, np.zeros((50, 2))).elbo).all()


@pytest.mark.parametrize("name", NAMES)
def test_means_keep_the_shape_of_what_is_decoded(engine, name):
    vae, x, _ = build(data_dim=6, likelihood=name, engine=engine)
    z = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    np.testing.assert_allclose(vae.decode(z)[1, 2], vae.decode(z[1, 2]), rtol=1e-12)
    assert vae.reconstruct(x).shape == x.shape


@pytest.mark.parametrize("logit", [-200.0, -3.0, -1e-5, 0.0, 0.4, 30.0])
def test_continuous_bernoulli_draws_have_its_distribution(logit):
    x = draw(likelihood_named("continuous-bernoulli"), np.full((20_000, 1), logit))[:, 0]
    assert (x >= 0).all()
    assert (x <= 1).all()

    def distribution(x):
        return np.expm1(logit * x) / np.expm1(logit) if logit else x

    assert stats.kstest(x, distribution).pvalue > 0.01


@pytest.mark.parametrize("name", ["continuous-bernoulli", "poisson", "discretised-logistic"])
def test_a_draw_rises_with_the_output(name):
    """The same random number at a larger output: inverse distribution functions, without a jump where a case ends."""
    outputs = np.concatenate([np.linspace(-3, 3, 601), [10, 17, 18, 19, 40]])
    draws = np.array([draw(likelihood_named(name), np.full((20, 1), out))[:, 0] for out in outputs])
    assert (np.diff(draws, axis=0) >= -1e-9).all()


@pytest.mark.parametrize(("dtype", "log_scale"), [("float32", -89.0), ("float64", -720.0)])
def test_the_mean_is_finite_at_a_bins_edge_where_the_inverse_of_the_scale_is_infinite(dtype, log_scale):
    vae = sv.VAE(1, 1, (), "discretised-logistic:3", dtype=dtype, engine="reference")
    vae.parameters.flat[:] = 0
    vae.parameters["decoder.head.bias"][:] = 0.25
    vae.parameters["likelihood.log_scale"][:] = log_scale
    np.testing.assert_array_equal(vae.decode(np.zeros((1, 1))), [[0.25]])


@pytest.mark.parametrize("location", [-0.2, 0.0, 0.37, 1.1])
def test_discretised_logistic_draws_have_its_probabilities(location):
    likelihood = likelihood_named("discretised-logistic:9")
    x = draw(likelihood, np.full((20_000, 1), location))
    levels = np.arange(9.0)[:, None] / 8
    out = np.full((9, 1, 1), location)
    expected = 20_000 * np.exp(likelihood.forward(reference, levels, out, PARAMETERS)[0][:, 0])
    counted = np.bincount(np.rint(8 * x[:, 0]).astype(int), minlength=9)
    likely = expected > 5
    assert (
        stats.chisquare(counted[likely], expected[likely] * counted[likely].sum() / expected[likely].sum()).pvalue
        > 0.01
    )


@pytest.mark.parametrize("rate", [1e-4, 0.3, 5.0, 700.0, 0.99e8, 1.01e8, 1e12])
def test_poisson_draws_are_the_quantiles_of_their_uniform_numbers(rate):
    x = draw(Poisson(), np.full((4000, 1), np.log(rate)))[:, 0]
    np.testing.assert_array_equal(x, np.rint(x))
    u = reference.uniforms(1, Stream.PIXELS, 0, np.arange(4000), 1)[:, 0].astype(np.float64) + 2.0**-25
    if rate < 1e9:
        exact = np.exp(np.log(rate))
        slack = 0 if rate < 1e8 else 1e-7  # of a probability: the resolution of u is 6e-8
        assert (stats.poisson.cdf(x, exact) >= u - slack).all()
        assert (stats.poisson.cdf(x - 1, exact) < u + slack).all()
    assert abs(((x - rate) / np.sqrt(rate)).mean()) < 4 / np.sqrt(4000)


def test_the_largest_uniform_number_is_below_1_and_its_poisson_quantile_finite(engine):
    """1 - 2^-24 is drawn for example 3072; in float32 half a step more would round to 1."""
    vae = sv.VAE(6, 2, (3,), "poisson", engine=engine)
    u = open_uniforms(vae.ops, Draws(0, np.array([3072])), 6)
    assert u.dtype == np.float64
    assert u[0, 5] == 1 - 2.0**-25
    assert np.isfinite(vae.sample(3073, seed=0)).all()


def test_poisson_draws_of_an_impossible_rate_are_no_nan():
    for out in (-1e4, 1e3, 1e4):
        assert not np.isnan(draw(Poisson(), np.full((5, 1), out))).any()


def test_categorical_draws_have_their_probabilities_and_never_the_impossible():
    logits = np.array([0.0, 1.0, -1e4, 2.0, -1e4, -1e4])
    x = draw(likelihood_named("categorical:3,3"), np.repeat(logits[None], 20_000, axis=0))
    np.testing.assert_array_equal(x.reshape(-1, 2, 3).sum(axis=2), 1)
    assert not x[:, [2, 4, 5]].any()
    assert x[:, 3].all()
    assert x[:, 1].mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.01)


def test_a_categorical_draw_is_made_of_a_uniform_number_for_each_group_from_the_stream_of_pixels():
    x = draw(Categorical((2, 2)), np.zeros((20, 4)))
    np.testing.assert_array_equal(x[:, [0, 2]], reference.uniforms(1, Stream.PIXELS, 0, np.arange(20), 2) < 0.5)


def test_a_uniform_number_of_0_draws_nothing_that_is_impossible():
    """It is that of element 2 of example 7841672."""
    draws = Draws(0, np.array([7841672]))
    assert reference.uniforms(0, Stream.PIXELS, 0, draws.examples, 3)[0, 2] == 0
    assert not Bernoulli().draw(reference, np.full((1, 3), -1e4), {}, draws).any()
    x = Categorical((2, 2, 2)).draw(reference, np.array([[-1e4, 0.0] * 3]), {}, draws)
    np.testing.assert_array_equal(x, [[0, 1] * 3])


def test_the_largest_uniform_number_draws_nothing_that_is_impossible_though_probabilities_sum_to_less_than_1():
    """It is that of element 5 of example 3072; in single precision these 24 probabilities lack 2^-24 and more of 1."""
    logits = np.append(-0.1 * np.arange(24), -1e4).astype(np.float32)
    assert Categorical().mean(reference, logits[None], {}).sum(dtype=np.float64) <= 1 - 2.0**-24
    x = Categorical([25] * 6).draw(reference, np.tile(logits, 6)[None], {}, Draws(0, np.array([3072])))
    assert x[0, 125 + 23] == 1


def test_pixels_that_are_impossible_under_the_model_are_never_drawn():
    vae, _, _ = build()
    vae.parameters["decoder.head.weight"][...] = 0
    vae.parameters["decoder.head.bias"][:] = [1e3, -1e3, 1e3, -1e3, 1e3]
    np.testing.assert_array_equal(vae.sample(1000), np.repeat([[1, 0, 1, 0, 1]], 1000, axis=0))


def test_a_grey_bernoulli_is_not_normalised_and_a_continuous_one_is():
    """Why grey pixels are refused: the integral of the Bernoulli's formula over [0, 1] is 1/2 at most."""
    for logit in (-2.0, 0.0, 3.0):

        def density(x, name, logit=logit):
            likelihood = LIKELIHOODS[name]
            return np.exp(likelihood.forward(reference, np.array([[x]]), np.array([[[logit]]]), {})[0][0, 0])

        assert integrate.quad(density, 0, 1, ("bernoulli",))[0] < 0.5 + 1e-12
        assert integrate.quad(density, 0, 1, ("continuous-bernoulli",))[0] == pytest.approx(1, rel=1e-10)


# --- in a model -----------------------------------------------------------------------------------------------------


def test_unit_variance_is_the_learned_variance_at_its_start():
    fixed, x, eps = build(likelihood="gaussian")
    learned = sv.VAE(5, 2, (4,), "gaussian-learned", "tanh", "float64", "reference")
    for name, array in fixed.parameters.items():
        learned.parameters[name][...] = array
    np.testing.assert_allclose(learned.elbo(x, eps).elbo, fixed.elbo(x, eps).elbo, rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_every_likelihood_trains_and_resumes_and_survives_files_and_copies(engine, name, tmp_path):
    """Data drawn from a model are learned by another one; a stopped run goes on to the same bits."""
    x = build(data_dim=6, likelihood=name, rows=90, dtype="float32").vae.sample(90, seed=1)

    def fresh():
        return sv.VAE(6, 2, (8,), name, "tanh", engine=engine)

    def train(vae, epochs, path, resume):
        return sv.fit(
            vae, x[:70], epochs, 10, 0.01, validation=x[70:], checkpoint=path, resume=resume, progress=False
        )  # fmt: skip

    whole, parts = fresh(), fresh()
    history = train(whole, 8, tmp_path / "whole.safetensors", False)
    assert history["elbo"][-1] > history["elbo"][0]
    train(parts, 3, tmp_path / "parts.safetensors", False)
    train(parts, 8, tmp_path / "parts.safetensors", True)
    np.testing.assert_array_equal(parts.parameters.flat, whole.parameters.flat)
    loaded = sv.VAE.load(tmp_path / "whole.safetensors", engine)
    for other in (loaded, copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert other.likelihood == whole.likelihood
        np.testing.assert_array_equal(other.sample(7), whole.sample(7))
    evidence = sv.log_evidence(loaded, x[:5], num_samples=20).log_evidence
    assert np.isfinite(evidence).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_checker_passes_every_likelihood(engine, name):
    case = build(data_dim=6, likelihood=name, engine=engine, rows=4, seed=1)
    assert (table := sv.check_gradients(*case)).passed, str(table)
