"""Every operation exists twice: the same name, the same arguments, the same results to rounding."""

import copy
import inspect
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings

import scratchvae as sv
from scratchvae.engine import get_engine, get_threads, set_threads
from tests.cases import ACTIVATION_NAMES, LIKELIHOOD_NAMES, build
from tests.proofs.pairs import IN_PLACE, PAIRS, VALUES, generators, sizes

reference, compiled = get_engine("reference"), get_engine("compiled")
NAMES = tuple(reference.__all__)


def narrowed(values, dtype):
    """The same arguments with float arrays in another dtype."""
    return tuple(v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v for v in values)


def scattered(values):
    """The same arguments in arrays that are not contiguous: every other element of a larger one, last axis first."""

    def scatter(array):
        larger = np.full(tuple(2 * size for size in array.shape), 9, array.dtype, order="F")
        view = larger[tuple(slice(None, None, 2) for _ in array.shape)]
        view[...] = array
        return view

    return tuple(scatter(v) if isinstance(v, np.ndarray) else v for v in values)


def both(name, values):
    """Outputs of name_forward on both engines, and gradients of the same random upstream."""
    results = []
    for ops in (reference, compiled):
        *outputs, cache = getattr(ops, f"{name}_forward")(*values)
        rng = np.random.default_rng(0)
        upstream = [rng.normal(size=output.shape).astype(output.dtype) for output in outputs]
        gradients = getattr(ops, f"{name}_backward")(*upstream, cache)
        results.append([*outputs, *(gradients if isinstance(gradients, tuple) else (gradients,))])
    return results


def agree(got, want, rtol):
    """Equal to rounding, relative to the largest value of the array (a small one may be a difference of large ones)."""
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        finite = np.abs(theirs[np.isfinite(theirs)])
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * finite.max() if finite.size else 0)


def test_both_engines_offer_the_same_names():
    assert set(compiled.__all__) == set(NAMES)
    assert set(NAMES) == (
        {f"{name}_{way}" for name in (*PAIRS, "network") for way in ("forward", "backward")} | {*VALUES, *IN_PLACE}
    ), "an operation without arguments in pairs.py would not be compared"


@pytest.mark.parametrize("name", NAMES)
def test_twins_take_the_same_arguments(name):
    want = inspect.signature(getattr(reference, name)).parameters
    function = getattr(compiled, name)
    got = inspect.signature(getattr(function, "py_func", function)).parameters
    assert list(got) == list(want)
    assert [p.default for p in got.values()] == [p.default for p in want.values()]


@pytest.mark.parametrize("name", PAIRS)
@given(rng=generators, n=sizes)
@settings(max_examples=12)
def test_twins_agree_to_rounding_forward_and_backward(name, rng, n):
    values = PAIRS[name](rng, n).values
    agree(*reversed(both(name, values)), rtol=1e-12)
    agree(*reversed(both(name, narrowed(values, np.float32))), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 17), (33, 1, 9), (5, 7, 130)])
@pytest.mark.parametrize("name", PAIRS)
def test_twins_agree_at_odd_sizes(name, shape):
    values = PAIRS[name](np.random.default_rng(1), type("Sizes", (), dict(zip("bkd", shape, strict=True)))).values
    agree(*reversed(both(name, values)), rtol=1e-11)
    agree(*reversed(both(name, narrowed(values, np.float32))), rtol=2e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_twins_take_arrays_that_are_not_contiguous(name):
    values = PAIRS[name](np.random.default_rng(2), type("Sizes", (), {"b": 5, "k": 3, "d": 9})).values
    agree(both(name, scattered(values))[1], both(name, values)[0], rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_what_an_operation_is_given_stays_as_it_was_and_its_gradient_may_be_taken_twice(ops, name):
    values = PAIRS[name](np.random.default_rng(4), type("Sizes", (), {"b": 3, "k": 2, "d": 5})).values
    before = copy.deepcopy(values)
    *outputs, cache = getattr(ops, f"{name}_forward")(*values)
    upstream = [np.random.default_rng(5).normal(size=output.shape) for output in outputs]
    given = copy.deepcopy(upstream)
    first, second = (copy.deepcopy(getattr(ops, f"{name}_backward")(*upstream, cache)) for _ in range(2))
    gradients = [found if isinstance(found, tuple) else (found,) for found in (first, second)]
    for now, then in zip((*values, *upstream, *gradients[1]), (*before, *given, *gradients[0]), strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_nan_in_gives_nan_out_at_the_same_places(name, dtype):
    arguments = PAIRS[name](np.random.default_rng(3), type("Sizes", (), {"b": 4, "k": 3, "d": 5}))
    for position in arguments.differentiable:
        values = list(narrowed(arguments.values, dtype))
        values[position] = values[position].copy()
        values[position].flat[0] = np.nan
        want, got = both(name, values)
        assert any(np.isnan(array).any() for array in want)
        for mine, theirs in zip(got, want, strict=True):
            np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))


@pytest.mark.parametrize("name", VALUES)
@given(rng=generators, n=sizes)
@settings(max_examples=12)
def test_twins_without_a_derivative_agree(name, rng, n):
    values = VALUES[name](rng, n)
    want, got = getattr(reference, name)(*values), getattr(compiled, name)(*values)
    if name == "effective_sample_size" or name.startswith("decoded"):
        agree([got], [want], rtol=1e-12)
    elif name.endswith("draw_scores"):
        agree(got, want, rtol=1e-10)
    else:
        for mine, theirs in zip(np.atleast_1d(got), np.atleast_1d(want), strict=True):
            assert np.asarray(mine).dtype == np.asarray(theirs).dtype
            np.testing.assert_array_equal(mine, theirs, err_msg="draws and rows are the same bits")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adam_agrees_over_many_steps(dtype):
    rng = np.random.default_rng(0)
    states = [[np.ones(301, dtype), np.zeros(301, dtype), np.zeros(301, dtype)] for _ in range(2)]
    for step in range(1, 50):
        gradient = rng.normal(size=301).astype(dtype)
        for ops, (parameters, first, second) in zip((reference, compiled), states, strict=True):
            ops.adam_update(parameters, gradient, first, second, step, 0.01)
    agree(states[1], states[0], rtol=1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
def test_models_give_the_same_terms_and_gradients_on_both_engines(likelihood, activation):
    case = build(37, 5, (19, 33), likelihood, activation, rows=21, samples=3)
    twin = case.vae.with_parameters(case.vae.parameters.copy(), engine="compiled")
    for objective in (sv.ELBO(3), sv.IWAE(3)):
        want_terms, want = case.vae.value_and_grad(case.x, case.eps, objective)
        terms, gradients = twin.value_and_grad(case.x, case.eps, objective)
        agree(terms, want_terms, rtol=1e-11)
        agree(list(gradients.values()), list(want.values()), rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_models_start_from_the_same_bits(dtype):
    mine, theirs = (sv.VAE(37, 5, (19,), dtype=dtype, engine=engine, seed=4) for engine in ("reference", "compiled"))
    np.testing.assert_array_equal(mine.parameters.flat, theirs.parameters.flat)
    agree([theirs.sample(50, mean=True)], [mine.sample(50, mean=True)], rtol=1e-5)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-3), ("float64", 1e-9)])
def test_training_has_the_same_history_to_rounding(digits, dtype, rtol):
    train, held_out = digits
    histories = []
    for engine in ("reference", "compiled"):
        vae = sv.VAE(64, 4, (32,), activation="tanh", dtype=dtype, engine=engine)
        histories.append(sv.fit(vae, train[:500], epochs=3, batch_size=64, validation=held_out[:100], progress=False))
    for column in ("elbo", "reconstruction", "kl", "objective", "validation.elbo", "validation.standard_error"):
        np.testing.assert_allclose(histories[1][column], histories[0][column], rtol=rtol, err_msg=column)


@pytest.mark.parametrize(("hidden", "batch_size"), [((32,), 64), ((200, 130), 100)])
def test_a_run_has_the_same_bits_on_one_thread_and_on_two(digits, hidden, batch_size):
    train, _ = digits
    if get_threads() < 2:
        pytest.skip("this machine has one processor")
    bits, histories = [], []
    for threads in (1, 2):
        set_threads(threads)
        vae = sv.VAE(64, 7, hidden, engine="compiled")
        settings = {"epochs": 2, "batch_size": batch_size, "validation": train[:77], "progress": False}
        histories.append(sv.fit(vae, train[:777], **settings)["validation.elbo"])
        evidence = sv.log_evidence(vae, (train[:25] > 0.5).astype(np.float32), num_samples=60).log_evidence
        bits.append(np.concatenate([vae.parameters.flat, evidence]))
    np.testing.assert_array_equal(*bits)
    assert histories[0] == histories[1]


MIXED = """
import numpy as np
import scratchvae as sv

for dtype, rows in (("float64", 3), ("float32", 3), ("float64", 5000), ("float32", 5000), ("float64", 5000)):
    rng = np.random.default_rng(0)
    x, eps = (rng.random((rows, 64)) < 0.5).astype(dtype), rng.normal(size=(rows, 4))
    both = [sv.VAE(64, 4, (128,), dtype=dtype, engine=engine) for engine in ("reference", "compiled")]
    (want, _), (got, _) = (vae.value_and_grad(x, eps) for vae in both)
    np.testing.assert_allclose(got.elbo, want.elbo, rtol=1e-11 if dtype == "float64" else 1e-4)
"""


@pytest.mark.slow
def test_both_precisions_may_be_used_in_turn_for_small_work_and_large():
    """In a process of its own: which kernels are compiled already is part of what is tested."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", MIXED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
