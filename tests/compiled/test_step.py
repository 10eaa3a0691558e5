"""Training steps in one call against the trainer's composition of operations, and several against single ones.

Those in float64 are slow tests: their kernels take as long to compile as those in float32.
"""

import numpy as np
import pytest
from numba import njit

import scratchvae as sv
from scratchvae import compiled, training
from scratchvae.compiled import step
from scratchvae.compiled.barrier import line_of, signals_for
from scratchvae.compiled.importance import importance_bound_forward
from scratchvae.compiled.network import call
from scratchvae.compiled.pace import Pace
from scratchvae.compiled.shares import SHORT
from scratchvae.compiled.step import FEW_SAMPLES
from scratchvae.compiled.step_by_examples import ROWS, keep, spread
from scratchvae.compiled.step_by_weights import FIRST, Layer, plan
from scratchvae.compiled.step_parts import LINE_FLOATS, laid_out
from scratchvae.engine import get_threads, set_threads
from scratchvae.training import Trainer

OBJECTIVES = {
    "elbo": sv.ELBO(),
    "beta that is rounded": sv.ELBO(beta=0.9),
    "beta, three samples": sv.ELBO(num_samples=3, beta=0.5),
    "iwae": sv.IWAE(num_samples=7),
    "iwae, more samples than a block": sv.IWAE(num_samples=300),
    "monte carlo": sv.ELBO(kl="monte-carlo"),
    "monte carlo, beta, three samples": sv.ELBO(num_samples=3, beta=0.5, kl="monte-carlo"),
}
OF_LOG_WEIGHTS = [name for name in OBJECTIVES if name.startswith(("iwae", "monte carlo"))]


class Composed(Trainer):
    """The trainer that all models have: operation by operation."""

    def _in_one_call(self) -> bool:
        return False


def pixels(rows: int = 90, columns: int = 37) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.integers(0, 256, (rows, columns)) * (rng.random((rows, columns)) < 0.3)).astype(np.uint8)


def batches(count: int, rows: int) -> list[np.ndarray]:
    return [(np.arange(rows) + rows * update) % 90 for update in range(count)]


MANY, SOME = 40, 10  # examples of a minibatch; with few samples of each, threads share out the weights of the second


def trained(
    kind: type[Trainer], objective, binarize: str = "dynamic", dtype: str = "float32", noise=None, updates=3, rows=MANY,
    latent=5, hidden=(150, 131), activation="tanh", **settings,
):  # fmt: skip
    """Terms of the last update, parameters and moments."""
    vae = sv.VAE(37, latent, hidden=hidden, activation=activation, dtype=dtype, seed=1)
    trainer = kind(vae, pixels(), 1e-2, objective, binarize=binarize, seed=5, noise=noise, **settings)
    for batch in batches(updates, rows):
        terms = trainer.step(batch)
    return [*terms, vae.parameters.flat, trainer.first.flat, trainer.second.flat]


def assert_equal_to_rounding(one, other):
    for got, want in zip(one, other, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize("binarize", ["none", "dynamic", "fixed"])
@pytest.mark.parametrize("name", ["elbo", "beta that is rounded", "beta, three samples"])
def test_elbo_has_the_bits_of_the_composition(name, binarize):
    for one, other in zip(*(trained(kind, OBJECTIVES[name], binarize) for kind in (Trainer, Composed)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_samples_of_more_rows_than_go_back_together_have_the_bits_of_the_composition():
    """Of one thread, which takes a block of examples after another."""
    set_threads(1)
    both = (trained(kind, OBJECTIVES["beta, three samples"], rows=90) for kind in (Trainer, Composed))
    assert 90 * 3 > ROWS
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)


def test_adams_epsilon_is_the_one_given():
    usual, larger, composed = (
        trained(kind, sv.ELBO(), adam_epsilon=epsilon)[-3]
        for kind, epsilon in ((Trainer, 1e-8), (Trainer, 1e-2), (Composed, 1e-2))
    )
    np.testing.assert_array_equal(larger, composed)
    assert (larger != usual).mean() > 0.9


def test_data_of_any_strides_give_the_bits_of_their_copy():
    results = []
    for x in (pixels(180)[::2], pixels(180)[::2].copy()):
        trainer = Trainer(sv.VAE(37, 5, hidden=(12,), seed=1), x, seed=5)
        results.append([*trainer.step(np.arange(MANY)), trainer.vae.parameters.flat])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows", [SOME, MANY])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pixels_may_be_numbers_of_any_type(dtype, rows):
    """A step finds them by their bytes."""
    results = []
    for x in (pixels(), (pixels() / 255).astype(dtype)):
        trainer = Trainer(sv.VAE(37, 5, hidden=(150, 131), seed=1), x, binarize="none", seed=5)
        results.append([*list(trainer.steps(batches(2, rows)))[-1], trainer.vae.parameters.flat])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_LOG_WEIGHTS)
def test_a_bound_of_log_weights_is_the_composition_to_rounding(name):
    """The one call cancels log p(z) - log q(z|x) by hand, so the order of its sums is another."""
    assert_equal_to_rounding(*(trained(kind, OBJECTIVES[name], dtype="float64") for kind in (Trainer, Composed)))


@pytest.mark.parametrize("objective", [OBJECTIVES["monte carlo, beta, three samples"], sv.IWAE(num_samples=3)])
def test_a_small_batch_weighs_its_samples_as_the_composition_does(objective):
    """d loss / d log p(x|z) and d loss / d [log p(z) - log q(z|x)], which beta makes different; first moments hold the
    gradient."""
    one, other = (trained(kind, objective, updates=1, rows=SOME)[-2] for kind in (Trainer, Composed))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6 * np.abs(other).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_small_batch_is_the_composition_to_rounding(name):
    """Its threads share out the weights, and every sum has two halves."""
    both = (trained(kind, OBJECTIVES[name], dtype="float64", rows=SOME) for kind in (Trainer, Composed))
    assert_equal_to_rounding(*both)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latent", "hidden", "activation"),
    [(1, (150, 131), "relu"), (2, (250, 131, 73), "sigmoid"), (3, (1000,), "softplus"), (6, (900,), "relu")],
)
def test_halves_of_a_few_units_and_of_any_depth(latent, hidden, activation):
    model = {"latent": latent, "hidden": hidden, "activation": activation, "dtype": "float64", "rows": 20}
    assert_equal_to_rounding(*(trained(kind, sv.ELBO(), **model) for kind in (Trainer, Composed)))


@pytest.mark.slow
@pytest.mark.parametrize("columns", [3, 16, 20])
@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_pixels_too_few_to_share_are_the_first_half_or_the_second(columns, binarize):
    results = []
    for kind in (Trainer, Composed):
        vae = sv.VAE(columns, 2, hidden=(1200, 60), dtype="float64", seed=1)
        trainer = kind(vae, pixels(columns=columns), 1e-2, binarize=binarize, seed=5)
        terms = list(trainer.steps(batches(2, 20)))[-1]
        results.append([*terms, trainer.first.flat])
    assert_equal_to_rounding(*results)


@pytest.mark.parametrize(
    ("rows", "samples", "expected"),
    [(10, 3, True), (10, 4, False), (FEW_SAMPLES, 1, True), (FEW_SAMPLES + 1, 1, False)],
)
def test_weights_are_shared_out_where_all_examples_together_have_few_samples(rows, samples, expected):
    """As many as `adam_by_rows` has bits for."""
    trainer = Trainer(sv.VAE(37, 5, hidden=(150, 131)), pixels(), objective=sv.ELBO(samples))
    assert trainer._minibatches(batches(1, rows)[0][None], 1).shares_weights() is expected


def test_a_layer_begins_with_the_part_that_the_one_before_ends_with():
    """The processor fetches weights beyond the end of a half: they are of the part that reads it."""
    vae = sv.VAE(9, 2, (8, 7), seed=0)
    tables = [vae.networks[name].table.tobytes() for name in ("encoder", "decoder")]
    layers = plan(5, 1, *tables)[FIRST:]
    assert [Layer(*layer).first for layer in layers] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("rows", [SOME, MANY])
def test_a_thread_that_is_alone_does_all_parts(rows, monkeypatch):
    """A parallel loop may run its parts one after the other; the second has nothing left to do."""
    want = trained(Trainer, sv.ELBO(), rows=rows)

    @njit
    def one_after_the_other(task, parts, *arguments):
        for part in range(parts - 1, -1, -1):
            call(task, *(*arguments, part, parts))

    monkeypatch.setattr(step, "_steps", one_after_the_other)
    for one, other in zip(trained(Trainer, sv.ELBO(), rows=rows), want, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seconds", [(1, 3), (5, 1)])
@pytest.mark.parametrize("name", ["elbo", "iwae"])
def test_shares_of_any_size_give_the_same_bits(name, seconds, monkeypatch):
    """Two threads say before the first step that they took unequal times for equal shares."""
    want = trained(Trainer, OBJECTIVES[name], updates=2)

    def unequal(parts):
        signals = signals_for(parts)
        for part in range(parts):
            place = line_of.py_func(part) + 1
            signals[place : place + 2] = seconds[part % 2] * SHORT
        return signals

    monkeypatch.setattr(step, "signals_for", unequal)
    for one, other in zip(trained(Trainer, OBJECTIVES[name], updates=2), want, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 31, 32, 33])
def test_batches_of_any_size(rows):
    """The last of an epoch may be smaller, down to one example."""
    both = (trained(kind, sv.ELBO(), "none", "float64", updates=1, rows=rows) for kind in (Trainer, Composed))
    assert_equal_to_rounding(*both)


@pytest.mark.parametrize("name", OF_LOG_WEIGHTS)
def test_an_update_by_one_is_the_composition_in_single_precision_too(name):
    terms, moments = slice(0, 4), 5  # the first moment is a tenth of the gradient
    one, other = (trained(kind, OBJECTIVES[name], updates=1) for kind in (Trainer, Composed))
    for got, want in zip(one[terms], other[terms], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(one[moments], other[moments], rtol=1e-3, atol=1e-5 * np.abs(other[moments]).max())


@pytest.mark.parametrize("rows", [SOME, MANY])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_and_two_threads_give_the_same_bits(name, rows, made_by):
    if get_threads() < 2:
        pytest.skip("one processor")
    results = []
    for threads in (1, 2):
        set_threads(threads)
        results.append(trained(Trainer, OBJECTIVES[name], rows=rows))
    assert made_by == [1, 1, 1, 2, 2, 2]
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_samples_that_weigh_nothing_need_not_go_back(threads, monkeypatch):
    """Noise far from what the decoder expects: of most examples a few samples have all the weight."""
    if threads > get_threads():
        pytest.skip("one processor")
    noise, weights = 9 * np.random.default_rng(0).standard_normal((90, 20, 5)), []

    def bound(log_weights):
        value, cache = importance_bound_forward(log_weights)
        weights.append(cache)
        return value, cache

    monkeypatch.setattr(compiled, "importance_bound_forward", bound)
    set_threads(threads)
    assert_equal_to_rounding(
        *(trained(kind, sv.IWAE(num_samples=20), "none", "float64", noise) for kind in (Trainer, Composed))
    )
    of_each = (np.concatenate(weights) > 0).sum(axis=1)
    assert of_each.mean() < 10
    assert of_each.min() < 5 < of_each.max()


@njit
def kept_and_spread(weights, log_weights, decoder, z, hidden, out, kept_z, dz):
    kept = np.zeros(1, np.int64)
    for first, last in ((0, 3), (3, len(out))):  # block by block
        keep(weights, log_weights, decoder, z, hidden, out, kept_z, first, last, kept)
    for row in range(kept[0]):
        for j in range(dz.shape[1]):
            dz[row, j] = kept_z[row, j]
    spread(weights, log_weights, dz, 0, len(out), kept)
    return kept[0]


def test_what_weighs_nothing_is_left_out_and_its_gradient_is_zero():
    """But not where a density is infinite: 0 times infinity is no number."""
    rng, decoder = np.random.default_rng(0), np.array([[2, 3, 0, 0, 0], [3, 4, 0, 0, 0], [4, 5, 0, 0, 0]])
    weights, log_weights = np.array([0.0, -0.5, 0, 0, -0.25]), np.array([-90.0, -2, -np.inf, -80, -3])
    z, out, kept_z, rows = rng.normal(size=(5, 2)), rng.normal(size=(5, 5)), np.zeros((5, 2)), [1, 2, 4]
    layers = [rng.normal(size=(5, units)) for units in (3, 4)]
    hidden, want = np.concatenate([layer.ravel() for layer in layers]), out.copy()
    dz = np.full_like(z, np.nan)
    assert kept_and_spread(weights, log_weights, decoder, z, hidden, out, kept_z, dz) == 3
    np.testing.assert_array_equal(kept_z[:3], z[rows])
    np.testing.assert_array_equal(out[:3], weights[rows, None] * want[rows])
    np.testing.assert_array_equal(hidden[:15].reshape(5, 3)[:3], layers[0][rows])
    np.testing.assert_array_equal(hidden[15:].reshape(5, 4)[:3], layers[1][rows])
    np.testing.assert_array_equal(dz, z * np.isin(np.arange(5), rows)[:, None])


@pytest.mark.parametrize("kind", [Trainer, Composed])
def test_noise_that_is_given_is_used(kind):
    noise = np.random.default_rng(0).standard_normal((90, 1, 5)).astype(np.float32)
    given = trained(kind, sv.ELBO(), noise=noise)
    np.testing.assert_array_equal(given[0], trained(Composed, sv.ELBO(), noise=noise)[0])
    assert not np.array_equal(given[0], trained(kind, sv.ELBO(), noise=2 * noise)[0])


def test_noise_may_be_given_in_another_precision_than_the_models():
    noise = np.random.default_rng(0).standard_normal((90, 1, 5)).astype(np.float32)
    one, other = (trained(Trainer, sv.ELBO(), noise=noise.astype(dtype)) for dtype in ("float32", "float64"))
    for got, want in zip(other, one, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("likelihood", "binarize", "expected"),
    [("bernoulli", "dynamic", True), ("bernoulli", "threshold", False), ("gaussian", "none", False)],
)
def test_other_models_are_composed(likelihood, binarize, expected):
    vae = sv.VAE(37, 5, hidden=(12,), likelihood=likelihood)
    assert Trainer(vae, pixels(), binarize=binarize)._in_one_call() is expected


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (sv.ELBO(2, beta=0.5), True),
        (sv.IWAE(3), True),
        (sv.ELBO(free_bits=0.1), False),
        (sv.ELBO(2, kl="monte-carlo"), True),
        (sv.STL(), False),
        (sv.DReG(3), False),
        (sv.ScoreFunction(), False),
    ],
)
def test_other_objectives_are_composed(objective, expected):
    assert Trainer(sv.VAE(37, 5, hidden=(12,)), pixels(), objective=objective)._in_one_call() is expected


@pytest.mark.parametrize("known", [sv.ELBO, sv.IWAE])
def test_an_objective_that_is_made_from_a_known_one_is_asked_for_its_values(known):
    class Halved(known):
        def evaluate(self, *arguments):
            value, upstream = super().evaluate(*arguments)
            return value / 2, upstream

    whole, half = (
        sv.fit(sv.VAE(37, 5, hidden=(12,)), pixels(), epochs=1, objective=of(2)).epochs[0]["train"]["objective"]
        for of in (known, Halved)
    )
    assert half == pytest.approx(whole / 2, rel=1e-6)


@pytest.mark.parametrize("rows", [np.arange(50)[::-2], np.arange(25, dtype=np.int32), np.arange(25, dtype=np.uint8)])
def test_rows_may_be_of_any_whole_numbers_and_strides(rows):
    both = [Trainer(sv.VAE(37, 5, hidden=(12,), seed=1), pixels(), seed=5) for _ in range(2)]
    for one, other in zip(both[0].step(rows), both[1].step(rows.astype(np.intp)), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(both[0].vae.parameters.flat, both[1].vae.parameters.flat)


@pytest.mark.parametrize("binarize", ["dynamic", "fixed"])
@pytest.mark.parametrize("rows", [SOME, MANY])
def test_updates_made_in_one_call_have_the_bits_of_single_ones(rows, binarize, monkeypatch):
    """Learning rate and beta change from one to the next; batches of another size are a call of their own, and a call
    may be made in pieces."""
    results = []
    for together in (1, 4):
        monkeypatch.setattr(training, "UPDATES_TOGETHER", together)
        monkeypatch.setattr(Pace, "pieces", lambda self, steps: [(0, 1, False), (1, steps, False)][:steps])
        vae = sv.VAE(37, 5, hidden=(150, 131), seed=1)
        rate, objective = (lambda update: 1e-2 / update), sv.ELBO(warm_up=9)
        trainer = Trainer(vae, pixels(), rate, objective, binarize, seed=5)
        terms = list(trainer.steps([*batches(6, rows), *batches(1, 7), *batches(2, rows)]))
        assert [len(part.elbo) for part in terms] == [rows] * 6 + [7] + [rows] * 2
        assert trainer.updates == 9
        results.append([*np.concatenate(terms, axis=1), vae.parameters.flat, trainer.first.flat, trainer.second.flat])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 2])
def test_work_that_takes_long_is_not_put_together(monkeypatch, threads):
    """So that Ctrl-C is heard, and a bar moves."""
    calls = []
    monkeypatch.setattr(training, "WORK_TOGETHER", 300_000 // threads)
    monkeypatch.setattr(training, "get_threads", lambda: threads)
    monkeypatch.setattr(Trainer, "_steps_in_one_call", lambda self, rows: calls.append(rows.shape))
    trainer = Trainer(sv.VAE(37, 5, hidden=(12,)), pixels())  # 1,184 parameters
    list(trainer.calls(batches(5, 90)))
    list(trainer.calls([np.arange(90_000)] * 2))
    assert calls == [(2, 90), (2, 90), (1, 90), (1, 90_000), (1, 90_000)]


@pytest.mark.parametrize("rows", [SOME, MANY])
def test_a_nan_in_the_weights_of_a_dark_pixel_is_seen(rows):
    """Zeros are skipped, but nothing is hidden by it, in the first step of a call and in those after it."""
    x = pixels()
    x[:, 7] = 0
    vae = sv.VAE(37, 5, hidden=(150, 131), seed=1)
    trainer = Trainer(vae, x, seed=5)
    assert all(np.isfinite(terms.elbo).all() for terms in trainer.steps(batches(2, rows)))
    vae.parameters["encoder.0.weight"][7, 3] = np.nan
    for terms in trainer.steps(batches(2, rows)):
        assert np.isnan(terms.elbo).all()


@pytest.mark.parametrize("pixel", [7, 30])  # of either thread's share of the weights
@pytest.mark.parametrize("rows", [SOME, MANY])
def test_a_weight_that_a_step_makes_nan_is_seen_in_the_next_of_its_call(rows, pixel):
    x = pixels()
    x[:, pixel] = 0
    trainer = Trainer(sv.VAE(37, 5, hidden=(150, 131), seed=1), x, seed=5)
    trainer.first["encoder.0.weight"][pixel, 3] = np.nan
    before, after = trainer.steps(batches(2, rows))
    assert np.isfinite(before.elbo).all()
    assert np.isnan(after.elbo).all()


@pytest.mark.parametrize("rows", [SOME, MANY])
def test_a_delta_that_is_no_number_reaches_the_weights_of_a_dark_pixel(rows):
    """Zero times NaN is no number."""
    x = pixels()
    x[:, 7] = 0
    vae = sv.VAE(37, 5, hidden=(150, 131), activation="tanh", seed=1)
    vae.parameters["encoder.1.weight"][...] = np.nan
    Trainer(vae, x, seed=5).step(batches(1, rows)[0])
    assert np.isnan(vae.parameters["encoder.0.weight"][7]).all()


@pytest.mark.parametrize("rows", [SOME, MANY])
def test_a_gradient_without_a_step_is_the_one_that_adam_takes(rows):
    trainer, batch = Trainer(sv.VAE(37, 5, hidden=(150, 131), seed=1), pixels(), seed=5), batches(1, rows)[0]
    parameters, gradient = trainer.vae.parameters.flat.copy(), np.zeros_like(trainer.first.flat)
    trainer.vae.ops.step_gradient(trainer._minibatches(batch[None], 1), rows, gradient)
    np.testing.assert_array_equal(trainer.vae.parameters.flat, parameters)
    trainer.step(batch)
    np.testing.assert_allclose(trainer.first.flat, 0.1 * gradient, rtol=1e-5, atol=1e-9)


def test_a_rate_that_is_no_number_is_refused_before_the_updates_of_its_call():
    trainer = Trainer(sv.VAE(37, 5, hidden=(12,)), pixels(), lambda update: 1e-3 if update < 3 else float("nan"))
    with pytest.raises(ValueError, match=r"learning_rate\(3\) is nan"):
        list(trainer.steps(batches(4, 10)))
    assert trainer.updates == 0


def test_rows_outside_the_data_are_refused():
    trainer = Trainer(sv.VAE(37, 5, hidden=(12,)), pixels())
    with pytest.raises(IndexError, match="0 to 89"):
        trainer.step(np.array([3, 90]))


def test_arrays_of_a_step_stand_further_apart_than_a_processor_looks_ahead():
    """Some fifty rows: what stands there may be another thread's, who then waits for every line."""
    places = np.array(laid_out([(20, 784), (1, 5), (0, 3)]))
    ends = places[:-1, 0] + places[:-1, 1] * places[:-1, 2]
    assert (places[1:, 0] - ends >= 50 * 784).all()
    assert (places[:, 0] % LINE_FLOATS == 0).all()
