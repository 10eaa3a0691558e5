"""Training: the textbook loop, addressed randomness, honest history, early stopping, divergence."""

import inspect
import re
import sys
import time
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import training
from scratchvae.objectives import ELBO
from scratchvae.training import Averages, Trainer
from scratchvae.vae import Terms
from tests.cases import build
from tests.proofs.checks import epoch_means_count_every_row_once, training_is_the_textbook_loop


def small(engine="reference", dtype="float32", likelihood="bernoulli", rows=23):
    vae, x, _ = build(data_dim=6, rows=rows, engine=engine, dtype=dtype, likelihood=likelihood)
    return vae, x.astype(dtype)


def fit(vae, x, **settings):
    return sv.fit(vae, x, **{"epochs": 3, "batch_size": 10, "learning_rate": 0.05, "progress": False, **settings})


def without_seconds(history):
    return [{**entry, "seconds": 0} for entry in history.epochs]


# --- the loop -------------------------------------------------------------------------------------------------------


def test_training_is_the_textbook_loop_on_both_engines(engine):
    training_is_the_textbook_loop(engine)


def test_a_short_last_batch_counts_by_its_rows():
    epoch_means_count_every_row_once(Averages.of)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian-learned", "gaussian-learned-diagonal"])
def test_training_raises_the_bound(engine, likelihood):
    vae, x = small(engine, likelihood=likelihood, rows=60)
    history = fit(vae, x, epochs=40, learning_rate=0.02)
    assert np.mean(history["elbo"][-5:]) > history["elbo"][0] + 0.5
    assert np.isfinite(vae.parameters.flat).all()


def test_a_learned_variance_finds_the_variance_of_the_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)) * np.array([0.1, 1.0, 3.0])
    vae = sv.VAE(3, 1, (), "gaussian-learned-diagonal", engine="reference", dtype="float64")
    vae.parameters["decoder.head.weight"][...] = 0
    fit(vae, x, epochs=150, batch_size=100, learning_rate=0.03)
    spread = np.exp(vae.parameters["likelihood.logvar"]) + vae.parameters["decoder.head.weight"][0] ** 2
    np.testing.assert_allclose(spread, x.var(axis=0), rtol=0.05)


def test_importance_weighted_training_uses_its_samples():
    vae, x = small()
    history = fit(vae, x, objective=sv.IWAE(5))
    assert all(objective > elbo for objective, elbo in zip(history["objective"], history["elbo"], strict=True))


# --- history --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_terms_add_up_exactly_in_every_entry_of_the_history(engine, dtype):
    vae, x = small(engine, dtype)
    history = fit(vae, x, validation=x[:9])
    for entry in history.epochs:
        for part in (entry["train"], entry["validation"]):
            assert part["elbo"] == part["reconstruction"] - part["kl"]
            assert part["kl"] >= 0
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert [entry["step"] for entry in history.epochs] == [3, 6, 9]
    assert len(history) == 3
    assert history["validation.kl"] == [entry["validation"]["kl"] for entry in history.epochs]
    assert history.stopped == "all epochs done"


@pytest.mark.parametrize("name", ["loss", "step", "validation", "test.elbo", "epoch.elbo", "train.standard_error", -1])
def test_a_column_that_the_history_has_not_is_named_beside_those_it_has(name):
    vae, x = small()
    history = fit(vae, x, epochs=1, validation=x)
    with pytest.raises(KeyError, match=f"{name}: no column; expected elbo, reconstruction, kl, objective, "):
        history[name]


def test_the_standard_error_is_that_of_a_mean_over_rows(engine):
    vae, x = small(engine, "float64")
    trainer = Trainer(vae, x, binarize="none")
    averages = trainer.validate(x)
    eps = trainer._noise(np.arange(len(x)), 4, 0)
    elbo = vae.elbo(x, eps).elbo
    assert averages.elbo == pytest.approx(elbo.mean(), rel=1e-12)
    assert averages.standard_error == pytest.approx(elbo.std(ddof=1) / np.sqrt(len(x)), rel=1e-12)


@pytest.mark.parametrize("together", [{"VALIDATION_ROWS": 7}, {"VALIDATION_VALUES": 20}])
def test_how_many_held_out_rows_are_handled_together_does_not_matter(engine, monkeypatch, together):
    vae, x = small(engine, "float64")
    trainer = Trainer(vae, 0.5 * x)
    whole = trainer.validate(0.5 * x)
    for name, number in together.items():
        monkeypatch.setattr(training, name, number)
    np.testing.assert_allclose(trainer.validate(0.5 * x), whole, rtol=1e-12)


def test_held_out_rows_with_many_samples_take_no_more_memory(monkeypatch, plant):
    """What one pass decodes is `VALIDATION_VALUES` at most, or a row, however many samples there are."""
    vae, x = small(rows=60)
    true, decoded = vae.ops.bernoulli_log_likelihood_forward, []
    plant("bernoulli_log_likelihood_forward", lambda x, out: (decoded.append(out.size), true(x, out))[1])
    monkeypatch.setattr(training, "VALIDATION_VALUES", 1000)
    for samples in (1, 20, 500):
        Trainer(vae, x, objective=sv.IWAE(samples)).validate(x)
        assert sum(decoded) == 60 * samples * 6
        assert max(decoded) <= max(1000, samples * 6)
        decoded.clear()


def test_one_row_of_validation_has_no_standard_error():
    vae, x = small()
    assert "standard_error" not in fit(vae, x, epochs=1, validation=x[:1]).epochs[0]["validation"]


def test_averages_are_in_double_precision():
    big = np.full(1000, 1e8, np.float32)
    one = np.ones(1000, np.float32)
    averages = Averages.of([Terms(big, big, one, big), Terms(one, one, one, one)])
    assert averages.reconstruction == (1e8 + 1) / 2  # which float32 does not have


# --- randomness -----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(engine):
    results = []
    for seed in (1, 1, 2):
        vae, x = small(engine)
        history = fit(vae, x, seed=seed)
        results.append((vae.parameters.flat.copy(), without_seconds(history)))
    (first, first_history), (same, same_history), (other, other_history) = results
    np.testing.assert_array_equal(first, same)
    assert first_history == same_history
    assert (first != other).any()
    assert first_history != other_history


def test_validating_logging_or_evaluating_in_between_changes_nothing(engine, tmp_path):
    plain, x = small(engine)
    watched = plain.with_parameters(plain.parameters.copy())

    def look(entry):
        watched.sample(3)
        watched.elbo(x, np.random.default_rng(0).normal(size=(len(x), 2)))
        sv.log_evidence(watched, x[:2], num_samples=3)
        np.random.random()  # a shared random state would notice

    history = fit(plain, x)
    seen = fit(watched, x, validation=x[:7], checkpoint=tmp_path / "c.safetensors", on_epoch=look, progress=True)
    np.testing.assert_array_equal(plain.parameters.flat, watched.parameters.flat)
    assert history["elbo"] == seen["elbo"]


def test_what_on_epoch_does_to_an_entry_leaves_the_run_as_it_is(tmp_path):
    """Or `fit` refuses to go on from what it wrote itself."""

    def spoil(entry):
        entry["train"].clear()
        entry |= {"validation": None, "picture": np.zeros(3)}

    settings = {"validation": small()[1][:7], "checkpoint": tmp_path / "run.safetensors"}
    fit(*small(), epochs=2, on_epoch=spoil, **settings)
    resumed, plain = fit(*small(), resume=True, **settings), fit(*small(), validation=settings["validation"])
    assert without_seconds(resumed) == without_seconds(plain)


def test_numbers_of_epochs_nest(engine):
    long, x = small(engine)
    short = long.with_parameters(long.parameters.copy())
    assert fit(long, x, epochs=3)["elbo"][:2] == fit(short, x, epochs=2)["elbo"]


def test_grey_pixels_are_drawn_afresh_at_every_use_or_once(engine):
    vae, _ = small(engine, rows=40)
    pixels = np.full((40, 6), 128, np.uint8)

    def seen(method):
        trainer = Trainer(vae, pixels, binarize=method, seed=0)
        return [trainer._draw(pixels, np.arange(40), 2, step) for step in (1, 2)]

    first, second = seen("dynamic")
    assert set(np.unique(first)) == {0, 1}
    assert (first != second).any()
    assert abs(first.mean() - 128 / 255) < 0.15
    np.testing.assert_array_equal(*seen("fixed"))
    assert (seen("threshold")[0] == 1).all()


def test_noise_that_is_given_is_the_training_rows_and_no_held_out_rows(engine):
    vae, x = small(engine)
    noise = np.zeros((len(x), 1, 2))
    held_out = np.tile(x, (2, 1))
    given, drawn = (Trainer(vae, x, 0.1, noise=array).validate(held_out) for array in (noise, None))
    np.testing.assert_array_equal(given.elbo, drawn.elbo)


def test_thresholded_uint8_pixels_train_as_their_255ths_do(engine):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 6), dtype=np.uint8)
    bits = []
    for x in (pixels, (pixels / 255.0).astype(np.float32)):
        vae, _ = small(engine)
        fit(vae, x, binarize="threshold")
        bits.append(vae.parameters.flat.copy())
    np.testing.assert_array_equal(*bits)


# --- the first output bias ------------------------------------------------------------------------------------------


def test_an_untrained_model_starts_from_the_training_mean(engine):
    x = (np.random.default_rng(0).random((50, 6)) < [0, 0.1, 0.3, 0.6, 0.9, 1]).astype(np.float32)
    vae = sv.VAE(6, 2, (3,), engine=engine)
    fit(vae, x, epochs=1, learning_rate=1e-12)
    mean = x.mean(axis=0).clip(0.001, 0.999)
    np.testing.assert_allclose(vae.parameters["decoder.head.bias"], np.log(mean / (1 - mean)), rtol=1e-5)


def test_the_output_bias_fits_what_is_shown_of_grey_pixels():
    """Thresholded at 1/2 a pixel of 100 is never on, one of 128 always."""
    x = np.full((40, 3), 100, np.uint8)
    x[:20, 1], x[:, 2] = 200, 128
    for data in (x, x / 255):
        for method, mean in (("threshold", [0.001, 0.5, 0.999]), ("dynamic", x.mean(axis=0) / 255)):
            vae = sv.VAE(3, 1, (2,), engine="reference")
            fit(vae, data, epochs=1, learning_rate=1e-12, binarize=method)
            np.testing.assert_allclose(1 / (1 + np.exp(-vae.output_bias)), mean, rtol=1e-5)


def test_a_trained_model_keeps_its_output_bias():
    vae, x = small()
    before = vae.parameters["decoder.head.bias"].copy()
    fit(vae, x, epochs=1, learning_rate=1e-12)
    np.testing.assert_allclose(vae.parameters["decoder.head.bias"], before, rtol=1e-6)


# --- early stopping -------------------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_parameters(engine):
    vae, x = small(engine)
    history = fit(vae, x[:6], validation=x[6:], epochs=200, batch_size=3, patience=4)
    held_out = history["validation.elbo"]
    best = int(np.argmax(held_out))
    assert len(history) == best + 1 + 4 < 200
    assert f"best epoch {best + 1}" in history.stopped
    again = Trainer(vae, x[:6], binarize="dynamic").validate(x[6:])
    assert again.elbo == held_out[best]


def test_a_run_that_ends_before_its_patience_keeps_the_best_parameters_too():
    vae, x = small()
    history = fit(vae, x[:6], validation=x[6:], epochs=9, batch_size=3, patience=100, learning_rate=0.3)
    assert Trainer(vae, x[:6]).validate(x[6:]).elbo == max(history["validation.elbo"])
    assert np.argmax(history["validation.elbo"]) < 8, "the last epochs were no better"
    assert history.stopped == "all epochs done"


def test_an_epoch_that_is_merely_as_good_is_not_waited_for():
    vae, x = small()
    history = fit(vae, x, validation=x[:7], epochs=9, patience=2, learning_rate=1e-30)
    assert len(set(history["validation.elbo"])) == 1, "nothing moved"
    assert len(history) == 3
    assert history.stopped.endswith("best epoch 1")


def test_the_best_epoch_is_that_of_the_bound_and_not_of_another_objective():
    vae, x = small()
    objective = ELBO(beta=30.0)
    history = fit(vae, x[:6], validation=x[6:], epochs=30, batch_size=3, patience=3, objective=objective)
    best = int(np.argmax(history["validation.elbo"]))
    assert len(history) == best + 1 + 3 < 30
    assert best < np.argmax(history["validation.objective"])


# --- threads ----------------------------------------------------------------------------------------------------------


def test_small_updates_made_operation_by_operation_are_timed_for_the_pace(monkeypatch):
    """Large ones, and those of one thread, have no choice."""
    told = []

    class Pace:
        def pieces(self, updates):
            return [(0, 1, True), (1, updates, False)]

        def took(self, alone, seconds):
            told.append((alone, seconds))

    vae, x = small("compiled")
    trainer, batches = Trainer(vae, x, objective=ELBO(free_bits=0.1)), [np.arange(3)] * 4
    trainer._pace = Pace()
    monkeypatch.setattr(training, "get_threads", lambda: 2)
    monkeypatch.setattr(training, "SMALL", trainer._work(3) + 1)
    list(trainer.steps(batches))
    assert [alone for alone, _ in told] == [True, False]
    assert all(0 < seconds < 60 for _, seconds in told)
    monkeypatch.setattr(training, "SMALL", trainer._work(3))
    list(trainer.steps(batches))
    monkeypatch.setattr(training, "SMALL", trainer._work(3) + 1)
    monkeypatch.setattr(training, "get_threads", lambda: 1)
    list(trainer.steps(batches))
    assert len(told) == 2
    assert trainer.updates == 12


# --- divergence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_loss_that_is_no_longer_finite_ends_training_and_names_the_update(engine, likelihood):
    vae, x = small(engine, likelihood=likelihood)
    with pytest.raises(
        sv.DivergedError, match=r"update [23]: the loss is (nan|inf|-inf).* to go bad: [\w .]+ at update [123]$"
    ):
        fit(vae, x, learning_rate=1e30)


@pytest.mark.parametrize("late", [1e38, np.nan, "fast"])
def test_what_ends_an_epoch_leaves_the_model_as_it_was_before_that_epoch(engine, late):
    vae, x = small(engine)
    kept = {}
    with pytest.raises(sv.DivergedError if late == 1e38 else ValueError):
        fit(
            vae,
            x,
            epochs=9,
            batch_size=10,
            learning_rate=lambda update: 0.01 if update <= 7 else float(late),
            on_epoch=lambda entry: kept.update({entry["epoch"]: vae.parameters.flat.copy()}),
        )
    assert len(kept) == 2, "three updates an epoch"
    np.testing.assert_array_equal(vae.parameters.flat, kept[2])


def test_divergence_keeps_the_last_good_checkpoint(engine, tmp_path):
    vae, x = small(engine)
    path, kept = tmp_path / "run.safetensors", {}

    def poison(entry):
        kept[entry["epoch"]] = path.read_bytes()
        if entry["epoch"] == 2:
            vae.parameters["encoder.head.bias"][:] = np.nan

    words = (
        r"update 7: .* to go bad: parameter encoder\.head\.bias at update 7; "
        r"the last good checkpoint is .*run\.safetensors"
    )
    with pytest.raises(sv.DivergedError, match=words):
        fit(vae, x, epochs=5, checkpoint=path, on_epoch=poison)
    assert path.read_bytes() == kept[2]
    assert np.isfinite(sv.VAE.load(path, engine="reference").parameters.flat).all()


def test_an_epoch_whose_last_update_gives_nan_is_not_written(tmp_path, plant):
    vae, x = small()
    path, kept = tmp_path / "run.safetensors", {}
    true = vae.ops.network_adam

    def adam(deltas, network, first, second, step, **rest):
        true(deltas, network, first, second, step, **rest)
        if step == 6:  # the last of the second epoch: its loss is fine, what it leaves is not
            network.flat[:] = np.nan

    plant("network_adam", adam)
    with pytest.raises(
        sv.DivergedError,
        match=r"update 6: gave parameters or .*: parameter encoder.0.weight at update 6; the last good",
    ):
        fit(vae, x, checkpoint=path, on_epoch=lambda entry: kept.update({entry["epoch"]: path.read_bytes()}))
    assert list(kept) == [1]
    assert path.read_bytes() == kept[1]


@pytest.mark.parametrize("bad", [5, 63, 64, 70])
def test_the_first_bad_update_is_named_though_the_loss_is_looked_at_in_bunches(plant, bad):
    vae, x = small(rows=200)
    true = vae.ops.network_adam

    def adam(deltas, network, first, second, step, **rest):
        true(deltas, network, first, second, step, **rest)
        if step == bad:
            network.flat[:] = np.nan

    plant("network_adam", adam)
    with pytest.raises(sv.DivergedError, match=rf"update {bad + 1}: .*: parameter encoder.0.weight at update {bad}"):
        fit(vae, x, batch_size=1, epochs=1)


def test_an_array_that_goes_bad_inside_an_update_is_named_with_that_updates_number():
    vae, x = small(dtype="float64", likelihood="gaussian", rows=30)
    x[17] = 1e200  # finite, and its square is not
    update = 1 + next(
        number for number, rows in enumerate(Trainer(vae, x, binarize="none", seed=3).batches(1, 5)) if 17 in rows
    )
    assert 1 < update < 6
    with pytest.raises(
        sv.DivergedError, match=rf"update {update}: the loss is inf.*: log_likelihood at update {update}$"
    ):
        fit(vae, x, batch_size=5, seed=3)


def test_the_cause_is_looked_for_with_the_noise_of_its_update(plant):
    vae, x = small()
    true = vae.ops.normals

    def normals(seed, stream, step, rows, count):
        return true(seed, stream, step, rows, count) * (np.nan if step == 5 else 1)

    plant("normals", normals)
    with pytest.raises(sv.DivergedError, match=r"update 5: the loss is nan.*: eps at update 5$") as error:
        fit(vae, x)
    assert "(a smaller learning rate may help)" in str(error.value)


def test_a_loss_that_is_merely_large_is_not_the_one_that_is_named():
    vae, x = small(likelihood="gaussian", rows=100)
    x[:] = 3e17
    _, second = Trainer(vae, x, binarize="none").batches(1, 50)
    x[second[7]] = 1e30
    with pytest.raises(sv.DivergedError, match=r"update 2: the loss is inf"):
        fit(vae, x, batch_size=50)


def test_a_loss_whose_sum_over_a_batch_is_too_large_for_its_precision_ends_no_training():
    vae, x = small(likelihood="gaussian", rows=40)
    x[::2], x[1::2] = 2e18, -2e18
    (elbo,) = fit(vae, x, epochs=1, batch_size=40)["elbo"]
    assert elbo == pytest.approx(-6 / 2 * 4e36, rel=0.01)
    assert -40 * elbo > float(np.finfo(np.float32).max)


@pytest.mark.parametrize("wrong", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_noise_of_another_shape_is_refused(wrong):
    """A step in one call would read what stands beside it."""
    vae, x = small(rows=40)
    shape, expected = tuple(np.subtract((40, 2, vae.latent_dim), wrong).tolist()), (40, 2, vae.latent_dim)
    with pytest.raises(
        ValueError, match=re.escape(f"noise has shape {shape}; expected {expected}: (examples, samples")
    ):
        Trainer(vae, x, 0.01, ELBO(num_samples=2), "none", noise=np.zeros(shape))


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_data_of_any_layout_are_trained_on_as_their_copy_is(engine, monkeypatch):
    """As a table's columns, or what pandas gives; on the compiled engine in one call too."""
    rng, flats = np.random.default_rng(0), []
    pixels = rng.integers(0, 256, (60, 12), np.uint8)
    if engine == "compiled":
        monkeypatch.setattr(Trainer, "_composed_step", None)
    for x in (pixels, np.asfortranarray(pixels), np.hstack([pixels, pixels])[:, 12:]):
        vae = sv.VAE(12, 2, hidden=(5,), engine=engine)
        fit(vae, x, epochs=2, batch_size=20)
        flats.append(vae.parameters.flat)
    np.testing.assert_array_equal(flats[1], flats[0])
    np.testing.assert_array_equal(flats[2], flats[0])


def test_noise_that_is_given_is_that_of_the_rows():
    vae, x = small(dtype="float64")
    noise, rows = np.random.default_rng(0).standard_normal((len(x), 2, vae.latent_dim)), np.array([5, 2, 9])
    expected = vae.elbo(x[rows], noise[rows])
    terms = Trainer(vae, x, 0.01, ELBO(num_samples=2), "none", noise=noise).step(rows)
    np.testing.assert_allclose(terms.elbo, expected.elbo, rtol=1e-12)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_resumed_run_that_diverges_at_once_names_the_checkpoint_if_it_is_its_own(tmp_path, plant, elsewhere):
    vae, x = small()
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    fit(vae, x, epochs=1, checkpoint=first)
    plant("network_adam", lambda deltas, network, *rest, **more: network.flat.fill(np.nan))
    with pytest.raises(sv.DivergedError) as diverged:
        fit(vae, x, epochs=2, resume=first, checkpoint=second if elsewhere else first)
    assert ("the last good checkpoint is" in str(diverged.value)) is not elsewhere


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"binarize": "sometimes"}, "'sometimes'.*dynamic"),
        ({"patience": 3}, "patience needs validation"),
        ({"patience": 0, "validation": np.eye(6)}, "patience is 0"),
        ({"resume": True}, "resume is True but checkpoint is None"),
        ({"seed": -5}, "seed is -5"),
        ({"resume": "/nowhere/at/all.safetensors"}, "no such file"),
        ({"resume": "/" + "a" * 300}, "File name too long; expected"),
        ({"resume": ""}, "is a folder"),
        ({"resume": 1}, "resume is 1; expected the path of a checkpoint"),
        ({"checkpoint": 3}, "checkpoint is 3; expected the path of a checkpoint"),
        ({"checkpoint": np.zeros((99, 5))}, r"checkpoint is array\(.*expected the path of a checkpoint"),
        pytest.param(
            {"checkpoint": "/proc/run.safetensors"},
            r"cannot be written \(.*\); expected a file in a folder that may be written",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="a folder in which nobody may make files"),
        ),
        ({"checkpoint": "/" + "a" * 300 + "/run.safetensors"}, r"cannot be written \(File name too long\)"),
        ({"checkpoint": "/nowhere/at/all.safetensors"}, "cannot be written; expected a folder /nowhere/at"),
        ({"checkpoint": "/"}, "/: cannot be written; expected a file, not a folder"),
        ({"objective": "elbo"}, "objective is 'elbo'"),
        ({"objective": sv.ELBO}, "objective is <class"),
        ({"objective": np.zeros((99, 5))}, r"objective is array\("),
        ({"objective": sv.VAE(6, 2, (3,), engine="reference")}, r"objective is VAE\(.*expected one of ELBO\(...\)"),
        ({"binarize": np.zeros((99, 5))}, r"binarize is array\(.*dynamic"),
        ({"learning_rate": sv.Stages}, r"learning_rate is <class.*expected .* a schedule such as Stages\(...\)"),
        ({"on_epoch": 3}, "on_epoch is 3; expected a function"),
        ({"allow_grey": "no"}, "allow_grey is 'no'; expected True or False"),
        ({"processes": 3}, "processes is 3; expected what `launched_processes` gives"),
        ({"on_epoch": np.eye(3)}, r"on_epoch is array\(.*expected a function"),
        ({"validation": np.eye(6, dtype=np.uint8)}, "validation: uint8 with no value above 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_done(settings, message):
    vae, x = small()
    before = vae.parameters.copy()
    with pytest.raises(ValueError, match=message) as refusal:
        fit(vae, x, **settings)
    assert "\n" not in str(refusal.value)
    np.testing.assert_array_equal(vae.parameters.flat, before.flat)


def test_fewer_epochs_than_a_checkpoint_has_are_refused_before_anything_is_done(tmp_path):
    path, (trained, x) = tmp_path / "run.safetensors", small()
    fit(trained, x, epochs=3, checkpoint=path)
    vae, _ = small()
    before, file = vae.parameters.copy(), path.read_bytes()
    with pytest.raises(ValueError, match=r"epochs is 2; expected at least the 3 that .* has already"):
        fit(vae, x, epochs=2, checkpoint=path, resume=True)
    np.testing.assert_array_equal(vae.parameters.flat, before.flat)
    assert path.read_bytes() == file
    assert len(fit(vae, x, epochs=3, checkpoint=path, resume=True)) == 3


def test_settings_may_be_numpys_numbers(tmp_path):
    vae, x = small()
    plain = vae.with_parameters(vae.parameters.copy())
    settings = {
        "epochs": np.int64(3),
        "batch_size": np.int32(10),
        "learning_rate": np.float64(0.05),
        "seed": np.uint8(1),
    }
    fit(vae, x, patience=np.int16(5), validation=x, checkpoint=tmp_path / "run.safetensors", **settings)
    again = fit(vae, x, patience=5, validation=x, resume=tmp_path / "run.safetensors", seed=1)
    assert len(again) == 3
    fit(plain, x, patience=5, validation=x, seed=1)
    np.testing.assert_array_equal(vae.parameters.flat, plain.parameters.flat)


def test_seeds_use_all_of_their_64_bits(engine):
    results = []
    for seed in (5, 5 + 2**32, 2**64 - 1):
        vae, x = small(engine)
        fit(vae, x, seed=seed, epochs=1)
        results.append(vae.parameters.flat.copy())
    assert (results[0] != results[1]).any()
    assert (results[1] != results[2]).any()


def test_grey_pixels_without_binarization_need_to_be_asked_for():
    vae, _ = small()
    grey = np.full((5, 6), 0.5)
    with pytest.raises(
        ValueError, match=r"^x: binarize is 'none'.*expected binarize dynamic.*or likelihood continuous-bernoulli"
    ):
        fit(vae, grey, binarize="none")
    with pytest.raises(ValueError, match=r"^validation: binarize is 'none'"):
        fit(vae, np.eye(6), binarize="none", validation=grey)
    assert len(fit(vae, grey, binarize="none", allow_grey=True, validation=grey)) == 3
    assert len(fit(vae, np.eye(6), binarize="none")) == 3


def test_real_numbers_are_not_binarized():
    vae, x = small(likelihood="gaussian")
    with pytest.raises(ValueError, match="binarize is 'dynamic' under likelihood 'gaussian'"):
        fit(vae, x, binarize="dynamic")


def test_the_objective_may_be_left_out():
    assert Trainer(*small()).objective == ELBO()


def test_the_settings_that_hold_unless_others_are_asked_for():
    trainer, settings = Trainer(*small()), inspect.signature(sv.fit).parameters
    assert (trainer.learning_rate, trainer.adam_epsilon, trainer.binarize, trainer.seed) == (1e-3, 1e-8, "dynamic", 0)
    names = (
        "epochs",
        "batch_size",
        "learning_rate",
        "adam_epsilon",
        "seed",
        "checkpoint_seconds",
        "resume",
        "progress",
    )
    assert [settings[name].default for name in names] == [10, 100, 1e-3, 1e-8, 0, 0.0, False, True]


def test_the_bar_is_told_how_many_updates_there_are(monkeypatch, tmp_path):
    told = []
    true = training.progress_bar
    monkeypatch.setattr(
        training, "progress_bar", lambda *settings, **more: (told.append((*settings, more["done"])), true(*settings))[1]
    )
    vae, x = small(rows=23)
    fit(vae, x, batch_size=10, epochs=2, checkpoint=tmp_path / "run.safetensors")
    fit(vae, x, batch_size=10, epochs=5, resume=tmp_path / "run.safetensors")
    assert told == [(2, 3, 0), (5, 3, 2)]


def test_the_bar_is_told_of_every_update_and_every_epoch(monkeypatch):
    class Bar:
        updates: ClassVar[list] = []
        epochs: ClassVar[list] = []

        def advance(self, epoch, terms):
            self.updates += [(epoch, len(examples)) for examples in terms.elbo]

        def epoch(self, entry):
            self.epochs.append(entry)

    monkeypatch.setattr(training, "progress_bar", lambda *settings, **more: nullcontext(Bar()))
    vae, x = small(rows=23)
    history = fit(vae, x, batch_size=10, epochs=2)
    assert Bar.updates == [(1, 10), (1, 10), (1, 3), (2, 10), (2, 10), (2, 3)]
    assert Bar.epochs == history.epochs


def test_only_held_out_means_have_a_standard_error():
    vae, x = small()
    entry = fit(vae, x, epochs=1, validation=x[:9]).epochs[0]
    assert "standard_error" not in entry["train"]
    assert entry["validation"]["standard_error"] > 0
    two = np.array([1.0, 4.0])
    assert Averages.of([Terms(two, two, two, two)]).standard_error is None
    assert Averages.of([Terms(two, two, two, two)], with_error=True).standard_error == pytest.approx(1.5)


def test_an_epoch_says_how_many_seconds_it_took():
    vae, x = small()
    started = time.perf_counter()
    seconds = [entry["seconds"] for entry in fit(vae, x).epochs]
    assert min(seconds) > 0
    assert sum(seconds) < time.perf_counter() - started
