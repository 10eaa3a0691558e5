"""The scikit-learn estimator: its conventions, and that its numbers are the model's own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scratchvae as sv
from scratchvae import DivergedError, VariationalAutoencoder
from scratchvae.evidence.importance import BLOCK_ROWS

X = StandardScaler().fit_transform(load_iris().data)
STEP = "variationalautoencoder"  # the name that make_pipeline gives it
QUICK = {"engine": "reference", "epochs": 3, "hidden": (5,), "num_samples": 10, "random_state": 0}


def quick(**changes):
    return VariationalAutoencoder(**(QUICK | changes))


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(X)


CHECKS = """
import json, sys
from sklearn.utils.estimator_checks import check_estimator
from scratchvae import VariationalAutoencoder
found = check_estimator(VariationalAutoencoder(**json.loads(sys.argv[1])), on_skip=None, on_fail=None)
print(json.dumps([(one["check_name"], one["status"], one["expected_to_fail"], str(one["exception"])) for one in found]))
"""


def run_checks(**arguments):
    """scikit-learn's own checks, in a process of its own: one of them is skipped without SciPy's array interface."""
    done = subprocess.run(
        [sys.executable, "-c", CHECKS, json.dumps(arguments)],
        env=os.environ | {"SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        {"engine": "reference", "epochs": 3},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"engine": "reference", "epochs": 3, "bound": "elbo"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_scikit_learns_own_checks_all_pass_and_none_is_skipped(arguments):
    found = run_checks(**arguments)
    assert len(found) > 40
    assert [one for one in found if one[1] != "passed" or one[2]] == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_gives_the_bits_of_the_model_and_of_fit(dtype):
    x = X.astype(dtype)
    vae = sv.VAE(4, 2, (5,), "gaussian-learned", "tanh", dtype, "reference", seed=7)
    history = sv.fit(vae, x, epochs=3, batch_size=40, learning_rate=1e-2, seed=7, progress=False)
    estimator = quick(random_state=7, batch_size=40, learning_rate=1e-2).fit(x)
    assert np.array_equal(estimator.vae_.parameters.flat, vae.parameters.flat)
    assert estimator.history_["elbo"] == history["elbo"]
    assert estimator.n_iter_ == len(estimator.history_) == 3
    assert np.array_equal(estimator.transform(x), vae.encode(x).mu)
    assert estimator.transform(x).dtype == dtype
    z = estimator.transform(x)
    assert np.array_equal(estimator.inverse_transform(z), vae.decode(z))
    assert np.array_equal(estimator.sample(5), vae.sample(5, seed=7))


@pytest.mark.parametrize("binarize", [None, "dynamic", "threshold"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_fit_gives_the_bits_of_fit_however_pixels_are_binarized(dtype, binarize):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6), dtype=np.uint8)
    x = pixels if dtype == np.uint8 else pixels / 255
    vae = sv.VAE(6, 2, (5,), "bernoulli", "tanh", "float32" if dtype == np.uint8 else "float64", "reference", seed=7)
    sv.fit(vae, x, epochs=3, batch_size=50, learning_rate=5e-3, binarize=binarize, seed=7, progress=False)
    estimator = quick(likelihood="bernoulli", binarize=binarize, random_state=7).fit(x)
    assert np.array_equal(estimator.vae_.parameters.flat, vae.parameters.flat)


def test_n_calls_of_partial_fit_are_fit_with_n_epochs_to_the_bit(fitted):
    parts = quick()
    for _ in range(3):
        parts.partial_fit(X)
    assert np.array_equal(parts.vae_.parameters.flat, fitted.vae_.parameters.flat)
    assert parts.n_iter_ == 3
    more, longer = quick().fit(X).partial_fit(X), quick(epochs=4).fit(X)
    assert np.array_equal(more.vae_.parameters.flat, longer.vae_.parameters.flat)


def test_fit_starts_over_and_partial_fit_goes_on_with_another_part(fitted):
    again = quick().partial_fit(X[:50]).partial_fit(X[50:])
    assert again.n_iter_ == 2
    assert np.array_equal(again.fit(X).vae_.parameters.flat, fitted.vae_.parameters.flat)


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_a_score_is_the_bound_that_its_name_says(bound):
    """Against the exact log p(x) of a linear model, and the ELBO of that model in expectation."""
    estimator = quick(hidden=(), bound=bound, num_samples=200, epochs=150).fit(X[:40])
    evidence = sv.log_evidence(estimator.vae_, X[:40], method="exact").log_evidence
    scores = estimator.score_samples(X[:40])
    eps = np.random.default_rng(0).normal(size=(40, 5_000, 2))
    elbo = estimator.vae_.elbo(X[:40], eps).elbo
    gap = (evidence - elbo).mean()
    assert gap > 0.05
    want = elbo if bound == "elbo" else evidence
    assert abs((scores - want).mean()) < 0.2 * gap
    assert estimator.score(X[:40]) == scores.mean()


def test_the_elbo_of_a_row_is_a_mean_of_independent_samples_however_many_blocks_they_fill():
    """Its error has mean 0 and a variance of 1/K, against the expectation: four points give that of a linear model,
    quadratic in z, without error."""
    x = np.random.default_rng(0).normal(size=(2000, 4))
    estimator = quick(hidden=(), bound="elbo").fit(x)
    points = np.sqrt(2) * np.vstack([np.eye(2), -np.eye(2)])
    exact = estimator.vae_.elbo(x, np.tile(points, (2000, 1, 1))).elbo
    variances = []
    for k in (10, 70, 200):
        errors = estimator.set_params(num_samples=k).score_samples(x) - exact
        assert abs(errors.mean()) < 5 * errors.std() / np.sqrt(2000)
        variances.append(k * errors.var())
    np.testing.assert_allclose(variances, variances[0], rtol=0.25)


def test_more_samples_tighten_the_importance_weighted_bound(fitted):
    scores = [clone(fitted).set_params(num_samples=k, epochs=1).fit(X).score(X) for k in (1, 10, 100)]
    assert scores[0] < scores[1] < scores[2]


def test_the_bound_can_be_changed_after_fitting(fitted):
    estimator = quick().fit(X)
    assert estimator.score(X) == fitted.score(X)
    assert estimator.set_params(bound="elbo").score(X) < fitted.score(X)


@pytest.mark.parametrize("likelihood", ["gaussian-learned", "bernoulli"])
@pytest.mark.parametrize("engine", ["reference", "compiled"])
def test_a_rows_score_depends_on_neither_its_place_nor_the_other_rows(likelihood, engine):
    x = (X - X.min(0)) / np.ptp(X, axis=0)
    estimator = quick(likelihood=likelihood, engine=engine).fit(x)
    scores = estimator.score_samples(x)
    order = np.random.default_rng(0).permutation(len(x))
    np.testing.assert_allclose(estimator.score_samples(x[order]), scores[order], rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([estimator.score_samples(row[None]) for row in x]), scores, rtol=1e-12)
    zeros = np.zeros((2, 4))
    zeros[1] = -0.0
    assert np.ptp(estimator.score_samples(zeros)) == 0


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_a_score_does_not_depend_on_the_block_of_rows_it_is_in(bound):
    estimator = quick(bound=bound).fit(X)
    scores = estimator.score_samples(X)
    assert len(X) > BLOCK_ROWS
    np.testing.assert_allclose(estimator.score_samples(X[::-1]), scores[::-1], rtol=1e-12)


def test_the_noise_of_different_rows_is_independent():
    from scratchvae.estimator import _row_keys

    keys = _row_keys(np.random.default_rng(0).normal(size=(2000, 3)))
    assert len(set(keys)) == 2000
    noise = sv.engine.get_engine("reference").normals(0, 5, 0, keys, 2)
    assert np.abs(np.corrcoef(noise[:-1].T, noise[1:].T) - np.eye(4)).max() < 4 / np.sqrt(2000)


def test_a_generator_or_none_as_random_state():
    a, b = (quick(random_state=np.random.RandomState(3)).fit(X) for _ in range(2))
    assert np.array_equal(a.transform(X), b.transform(X))
    assert quick(random_state=np.int64(7)).fit(X).seed_ == 7
    free = quick(random_state=None).fit(X)
    assert free.seed_ != quick(random_state=None).fit(X).seed_
    assert np.array_equal(free.score_samples(X), free.score_samples(X))
    assert not np.array_equal(free.sample(3), free.sample(3))
    assert np.array_equal(free.sample(3, random_state=1), free.sample(3, random_state=1))


def test_an_integer_given_to_sample_goes_before_that_of_the_constructor():
    estimator = quick(random_state=7).fit(X)
    for seed in (0, 7, 8):
        assert np.array_equal(estimator.sample(3, random_state=seed), estimator.vae_.sample(3, seed=seed))


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_the_noise_of_scores_and_of_pixels_is_that_of_the_estimators_seed(bound):
    x = np.random.default_rng(0).random((40, 5))
    for changes, given in (({}, X), ({"likelihood": "bernoulli"}, x)):
        one, other = (quick(**changes, bound=bound, random_state=seed).fit(given) for seed in (0, 1))
        other.vae_.parameters.flat[:] = one.vae_.parameters.flat
        assert not np.any(one.score_samples(given) == other.score_samples(given))
        assert one.score(given) == pytest.approx(other.score(given), abs=0.5)
    assert not np.array_equal(one._binarized(x), other._binarized(x))


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli", "discretised-logistic"])
def test_bytes_are_pixels_under_a_likelihood_of_values_from_0_to_1(likelihood):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6), dtype=np.uint8)
    estimator = quick(likelihood=likelihood).fit(pixels)
    assert estimator.vae_.dtype == np.float32
    np.testing.assert_array_equal(estimator.transform(pixels), estimator.transform(np.float32(pixels / 255)))
    assert np.isfinite(estimator.score(pixels))


def test_bytes_are_numbers_under_a_gaussian():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6), dtype=np.uint8)
    assert quick(epochs=1).fit(pixels).inverse_transform([[0, 0]]).max() > 2


def test_bytes_of_0_and_1_are_refused_unless_it_was_fitted_on_pixels():
    """A row of pixels may be that dark; where it was fitted on 0 and 1 as numbers, they would be read as 1 / 255."""
    binary = np.random.default_rng(0).integers(0, 2, (60, 6))
    slip, pixels = binary.astype(np.uint8), np.uint8(255 * binary)
    for given in (binary, binary.astype(float), binary == 1):
        estimator = quick(likelihood="bernoulli").fit(given)
        for method in (estimator.transform, estimator.score, estimator.score_samples):
            with pytest.raises(ValueError, match="X: uint8 with no value above 1; expected pixels"):
                method(slip)
        np.testing.assert_allclose(estimator.transform(pixels), estimator.transform(binary))
    assert np.isfinite(quick(likelihood="bernoulli").fit(pixels).score(slip))


def test_scores_see_the_pixels_as_training_did():
    x = np.random.default_rng(0).random((40, 5))
    estimator = quick(likelihood="bernoulli", binarize="threshold").fit(x)
    scores = estimator.score_samples(x)
    drawn = estimator.set_params(binarize="dynamic").score_samples(x)
    binary = estimator.set_params(binarize="none").score_samples((x >= 0.5).astype(float))
    assert np.array_equal(scores, binary)
    assert not np.array_equal(scores, drawn)
    assert np.array_equal(drawn, estimator.set_params(binarize=None).score_samples(x))


@pytest.mark.parametrize(
    ("likelihood", "binarize", "words"),
    [
        ("bernoulli", "Threshold", "binarize is 'Threshold'; expected one of"),
        ("bernoulli", "none", "values between 0 and 1"),
        ("gaussian", "dynamic", "binarize is 'dynamic' under likelihood 'gaussian'"),
    ],
)
def test_a_score_refuses_to_binarize_as_fit_does(likelihood, binarize, words):
    x = np.random.default_rng(0).random((40, 5))
    estimator = quick(likelihood=likelihood).fit(x).set_params(binarize=binarize)
    for method in (estimator.score, estimator.fit):
        with pytest.raises(ValueError, match=words):
            method(x)


@pytest.mark.parametrize("engine", ["reference", "compiled"])
def test_pixels_drawn_once_are_scored_as_they_were_trained_on(engine):
    x = np.random.default_rng(0).random((40, 5))
    estimator = quick(likelihood="bernoulli", binarize="fixed", engine=engine).fit(x)
    same = quick(likelihood="bernoulli", binarize="none", engine=engine).fit(estimator._binarized(x))
    np.testing.assert_array_equal(estimator.vae_.parameters.flat, same.vae_.parameters.flat)
    assert np.array_equal(np.unique(estimator._binarized(x)), [0, 1])


@pytest.mark.parametrize("binarize", ["threshold", "fixed", "dynamic", None])
def test_rows_are_encoded_as_the_model_saw_them_where_that_is_one_way(binarize):
    x = np.random.default_rng(0).random((40, 5))
    estimator = quick(likelihood="bernoulli", binarize=binarize).fit(x)
    seen = estimator._binarized(x) if binarize in ("threshold", "fixed") else x
    assert np.array_equal(estimator.transform(x), estimator.vae_.encode(seen).mu)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was():
    first = quick(learning_rate=-1.0)
    with pytest.raises(ValueError, match="learning_rate"):
        first.fit(X)
    with pytest.raises(NotFittedError):
        first.transform(X)

    estimator = quick().fit(X)
    score, epochs = estimator.score(X), estimator.n_iter_
    for method, settings in (
        ("fit", {"bound": "none"}), ("partial_fit", {"learning_rate": stop_at(3)}), ("fit", {"learning_rate": 1e300}),
    ):  # fmt: skip
        asked = estimator.get_params()
        with pytest.raises((ValueError, KeyboardInterrupt, DivergedError)):
            getattr(estimator.set_params(**settings), method)(X)
        estimator.set_params(**asked)
        assert (estimator.score(X), estimator.n_iter_) == (score, epochs)
    again = quick().fit(X)
    for one in (estimator, again):
        one.partial_fit(X)
    assert estimator.score(X) == again.score(X)
    assert estimator.history_["elbo"] == again.history_["elbo"]


def stop_at(update):
    start = []

    def rate(number):
        start.append(number)
        if len(start) > update:
            raise KeyboardInterrupt
        return 0.01

    return rate


def test_a_bar_is_shown_on_a_terminal_where_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    quick().fit(X)
    assert capsys.readouterr() == ("", "")
    quick(verbose=True).fit(X)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch" in err


def test_it_works_in_a_pipeline_and_a_grid_search():
    pipeline = make_pipeline(StandardScaler(), quick())
    search = GridSearchCV(
        pipeline,
        {
            "variationalautoencoder__latent_dim": [1, 2],
            "variationalautoencoder__objective": [sv.ELBO(), sv.ELBO(beta=4)],
        },
        cv=2,
        error_score="raise",
    ).fit(load_iris().data)
    assert search.transform(load_iris().data).shape[1] == search.best_params_[f"{STEP}__latent_dim"]
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert len(set(scores)) == 4
    assert search.score(load_iris().data) == search.best_estimator_.score(load_iris().data)


def test_pandas_in_and_out():
    pandas = pytest.importorskip("pandas", reason="pandas, of the extra dev, is not installed")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"], index=range(100, 250))
    estimator = quick().set_output(transform="pandas")
    out = estimator.fit_transform(frame)
    assert list(out.columns) == list(estimator.get_feature_names_out())
    assert list(out.columns) == ["variationalautoencoder0", "variationalautoencoder1"]
    assert (out.index == frame.index).all()
    assert list(estimator.feature_names_in_) == ["a", "b", "c", "d"]
    np.testing.assert_allclose(out, quick().fit_transform(X), rtol=1e-9)
    np.testing.assert_array_equal(estimator.inverse_transform(out), estimator.inverse_transform(out.to_numpy()))
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(frame.rename(columns={"a": "z"}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"hidden": (0,)}, "a hidden size is 0"),
        ({"hidden": 5}, "hidden is 5"),
        ({"likelihood": "normal"}, "likelihood is 'normal'"),
        ({"activation": "swish"}, "activation is 'swish'"),
        ({"objective": "elbo"}, "objective is 'elbo'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"binarize": "dynamic"}, "binarize is 'dynamic'"),
        ({"bound": "evidence"}, "bound is 'evidence'; expected one of elbo, iwae"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"engine": "gpu"}, "engine is 'gpu'"),
        ({"random_state": -1}, "Seed must be between 0 and"),
        ({"likelihood": "bernoulli"}, "expected values in \\[0, 1\\]"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused_when_fitted_in_one_line(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        quick(**changes).fit(X)
    assert "\n" not in str(caught.value)


def test_before_fitting_nothing_else_is_possible():
    for method, argument in (("transform", X), ("inverse_transform", X), ("score", X), ("sample", 1)):
        with pytest.raises(NotFittedError):
            getattr(quick(), method)(argument)


def test_a_loss_that_is_no_longer_finite_is_said():
    with pytest.raises(DivergedError):
        quick(learning_rate=1e300).fit(X)


def test_a_wrong_number_of_latent_columns_is_refused(fitted):
    with pytest.raises(ValueError, match=r"expected real numbers of shape \(\.\.\., 2\)"):
        fitted.inverse_transform(X)


def test_without_scikit_learn_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['sklearn.base'] = None\n"
        "import scratchvae\n"
        "try: scratchvae.VariationalAutoencoder\n"
        "except ImportError as error: print(error)\n"
        "try: scratchvae.Variational\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    first, second = done.stdout.splitlines()
    assert first.startswith("VariationalAutoencoder needs scikit-learn 1.6 or newer")
    assert first.endswith("pip install -U scikit-learn")
    assert second == "module 'scratchvae' has no attribute 'Variational'"
