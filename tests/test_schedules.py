"""Learning rates that change: what a schedule says is what Adam uses, and a resumed run goes on with it."""

import numpy as np
import pytest

import scratchvae as sv
from scratchvae.schedules import Stages, check_learning_rate, rate_at
from scratchvae.training import Trainer
from tests.cases import build


def test_stages_hold_each_rate_for_its_updates_and_the_last_for_ever():
    stages = Stages((0.3, 0.2, 0.1), (1, 0, 3))
    assert [stages(update) for update in range(1, 8)] == [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert [Stages((3.0, 2.0), (2, 2))(update) for update in range(1, 6)] == [3, 3, 2, 2, 2]


def test_every_update_is_made_at_the_rate_of_its_number(engine, monkeypatch):
    vae, x, _ = build(engine=engine)
    used, true = [], vae.ops.network_adam

    def adam(*place, learning_rate, epsilon):
        used.append((place[-1], learning_rate, epsilon))
        true(*place, learning_rate=learning_rate, epsilon=epsilon)

    monkeypatch.setattr(vae.ops, "network_adam", adam)
    fitted = {"epochs": 2, "batch_size": 2, "progress": False, "adam_epsilon": 1e-4}
    sv.fit(vae, x, learning_rate=lambda update: 0.1 / update, **fitted)
    networks = 2
    assert used[::networks] == [(update, 0.1 / update, 1e-4) for update in (1, 2, 3, 4)]
    assert used[1::networks] == used[::networks]


def test_one_stage_is_a_number_and_a_second_one_changes_the_bits(engine):
    bits = []
    for rate in (0.05, Stages((0.05,), (1,)), Stages((0.05, 0.01), (2, 1))):
        vae, x, _ = build(engine=engine, likelihood="gaussian-learned")
        sv.fit(vae, x, epochs=3, batch_size=2, learning_rate=rate, progress=False)
        bits.append(vae.parameters.flat.copy())
    np.testing.assert_array_equal(bits[0], bits[1])
    assert (bits[0] != bits[2]).any()


def test_adams_epsilon_is_the_one_given(engine):
    """With an epsilon far above the gradient's root mean square a first step is rate * gradient / epsilon."""
    vae, x, _ = build(engine=engine, likelihood="gaussian-learned")
    before = vae.parameters.copy()
    trainer = Trainer(vae, x, 0.5, binarize="none", adam_epsilon=1e6)
    eps = trainer._noise(np.arange(len(x)), 3, 1)
    _, gradients = vae.value_and_grad(x, eps)
    trainer.step(np.arange(len(x)))
    for name, gradient in gradients.items():
        np.testing.assert_allclose((before[name] - vae.parameters[name]) * 1e6 / 0.5, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_smallest_epsilon_leaves_a_parameter_without_a_gradient_alone(engine, dtype):
    """By itself 0 / 0; a pixel that is always 0 has such parameters."""
    vae, x, _ = build(engine=engine, dtype=dtype)
    x[:, 0] = 0
    smallest = float(np.finfo(dtype).tiny) / np.sqrt(1 - 0.999)
    for given in (0.0, 0.99 * smallest, np.nan, np.inf, True, "1e-8", 2 * float(np.finfo(dtype).max)):
        for make in (sv.fit, Trainer):
            with pytest.raises(ValueError, match=rf"adam_epsilon is .*; expected a number from .* \({dtype}\)"):
                make(vae, x, adam_epsilon=given)
    before = vae.parameters["encoder.0.weight"][0].copy()
    sv.fit(vae, x, epochs=3, batch_size=2, adam_epsilon=1.001 * smallest, progress=False)
    np.testing.assert_array_equal(vae.parameters["encoder.0.weight"][0], before)


def test_a_resumed_run_goes_on_with_its_schedule_and_refuses_another(tmp_path):
    path = tmp_path / "run.safetensors"
    settings = {"batch_size": 2, "progress": False, "learning_rate": Stages((0.05, 0.01), (3, 1))}
    whole, x, _ = build()
    sv.fit(whole, x, epochs=4, **settings)
    halves, _, _ = build()
    sv.fit(halves, x, epochs=2, checkpoint=path, **settings)
    sv.fit(halves, x, epochs=4, resume=path, **settings)
    np.testing.assert_array_equal(halves.parameters.flat, whole.parameters.flat)
    with pytest.raises(ValueError, match=r"was trained with learning_rate 'Stages\(rates=\(0.05, 0.01\)"):
        sv.fit(halves, x, epochs=5, resume=path, **(settings | {"learning_rate": 0.05}))


def test_a_checkpoint_is_written_as_often_as_asked_and_at_the_end(tmp_path, monkeypatch):
    from scratchvae import training

    written = []
    monkeypatch.setattr(training, "save_model", lambda vae, path, state: written.append(state.progress["updates"]))
    for seconds, expected in ((0.0, [1, 2, 3]), (3600.0, [3])):
        written.clear()
        vae, x, _ = build()
        path = tmp_path / "run.safetensors"
        sv.fit(vae, x, epochs=3, progress=False, checkpoint=path, checkpoint_seconds=seconds)
        assert written == expected


def test_a_checkpoint_is_as_old_as_asked_at_most(tmp_path, monkeypatch):
    from scratchvae import training

    clock, written = [0.0], []

    def passes(entry):
        clock[0] += 1.0

    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(training, "save_model", lambda vae, path, state: written.append(state.progress["updates"]))
    vae, x, _ = build()
    fitted = {"progress": False, "checkpoint": tmp_path / "run.safetensors", "on_epoch": passes}
    sv.fit(vae, x, epochs=8, checkpoint_seconds=3, **fitted)
    assert written == [4, 7, 8]  # before `on_epoch` is told, and an epoch takes a second


def test_a_run_that_patience_ends_writes_its_checkpoint(tmp_path, monkeypatch):
    """At a rate of zero, which a schedule may give, the first epoch stays the best."""
    from scratchvae import training

    written = []
    monkeypatch.setattr(training, "save_model", lambda vae, path, state: written.append(state.progress["updates"]))
    vae, x, _ = build()
    sv.fit(
        vae, x, epochs=9, learning_rate=lambda update: 0.0, validation=x, patience=2, progress=False,
        checkpoint=tmp_path / "run.safetensors", checkpoint_seconds=3600,
    )  # fmt: skip
    assert written == [3]


@pytest.mark.parametrize("number", [np.float32(0.5), np.float16(0.5), np.float64(0.5), 0.5])
def test_a_rate_may_be_of_any_type_of_real_numbers(number):
    check_learning_rate(number)
    assert rate_at(lambda update: number, 1) == 0.5
    assert rate_at(lambda update: np.int64(1), 1) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: check_learning_rate(np.inf), "learning_rate is inf"),
        (lambda: rate_at(lambda update: np.inf, 7), r"learning_rate\(7\) is inf"),
        (lambda: Stages((), ()), "0 rates and 0 updates"),
        (lambda: Stages((0.1,), (1, 2)), "1 rates and 2 updates"),
        (lambda: Stages((0.1, -0.1), (1, 2)), "learning_rate is -0.1"),
        (lambda: Stages((0.1, 0.1), (1, -2)), r"updates is \(1, -2\)"),
        (lambda: Stages((0.1, 0.1), (1.5, 2)), r"updates is \(1\.5, 2\); expected whole numbers"),
        (lambda: Stages((0.1, 0.1), (1, 2.0)), r"updates is \(1, 2\.0\); expected whole numbers"),
        (lambda: Stages((0.1, 0.1), (True, 2)), r"updates is \(True, 2\)"),
        (lambda: Stages((0.1, 0.1), ("1", 2)), r"updates is \('1', 2\)"),
        (lambda: Stages(0.1, 3), "rates is 0.1; expected a tuple"),
        (lambda: Stages((0.1,), 3), "updates is 3; expected a tuple"),
        (lambda: Stages(np.zeros((99, 5)), (1,)), r"rates is array\(.*expected a tuple"),
        (lambda: check_learning_rate(Stages), "learning_rate is <class"),
        (lambda: check_learning_rate(True), "learning_rate is True"),
        (lambda: check_learning_rate(10**400), "learning_rate is 1000"),
        (lambda: rate_at(lambda update: 10**400, 7), r"learning_rate\(7\) is 1000"),
        (lambda: rate_at(lambda update: True, 7), r"learning_rate\(7\) is True"),
        (lambda: rate_at(lambda update: np.complex128(1), 7), r"learning_rate\(7\) is np.complex128"),
        (lambda: check_learning_rate(lambda update: "fast"), r"learning_rate\(1\) is 'fast'"),
        (lambda: rate_at(lambda update: -update, 7), r"learning_rate\(7\) is -7"),
        (lambda: sv.fit(*build()[:2], adam_epsilon=-1.0, progress=False), "adam_epsilon is -1.0"),
        (lambda: sv.fit(*build()[:2], checkpoint_seconds="60", progress=False), "checkpoint_seconds is '60'"),
        (lambda: sv.fit(*build()[:2], checkpoint_seconds=np.complex128(1), progress=False), "checkpoint_seconds is np"),
        (lambda: sv.fit(*build()[:2], adam_epsilon=np.complex128(1), progress=False), "adam_epsilon is np"),
    ],
)
def test_what_is_no_rate_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as refusal:
        make()
    assert "\n" not in str(refusal.value)
