"""The progress bar: live on a terminal, silent elsewhere."""

import re
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from numba.core import event

import scratchvae as sv
from scratchvae import progress
from scratchvae.progress import Quiet, RichBar, counting_bar, progress_bar
from scratchvae.vae import Terms
from tests.cases import build


def as_on_a_terminal(monkeypatch):
    """Makes standard error look like a terminal."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")


def test_training_prints_nothing_where_standard_error_is_no_terminal(capfd):
    vae, x, _ = build()
    sv.fit(vae, x, epochs=2, validation=x, progress=True)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_bar_that_is_not_wanted_is_silent(monkeypatch, capsys):
    as_on_a_terminal(monkeypatch)
    with progress_bar(1, 1, enabled=False) as bar, counting_bar("work", enabled=False) as watch:
        assert isinstance(bar, Quiet)
        assert watch is None
    vae, x, _ = build()
    sv.fit(vae, x, epochs=2, validation=x, progress=False)
    assert capsys.readouterr() == ("", "")


def test_bars_are_silent_where_standard_error_is_closed(monkeypatch):
    """Python then has None for it."""
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar(1, 1) as bar, counting_bar("work") as watch:
        assert isinstance(bar, Quiet)
        assert watch is None


def test_steps_are_counted_on_standard_error_alone(monkeypatch, capsys):
    as_on_a_terminal(monkeypatch)
    with counting_bar("work") as watch:
        for done in (1, 2, 3):
            watch(done, 4)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"work .* 75%", err)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_terminal_sees_the_terms_live(monkeypatch, capsys, held_out):
    as_on_a_terminal(monkeypatch)
    vae, x, _ = build()
    plain = vae.with_parameters(vae.parameters.copy())
    settings = {"epochs": 2, "validation": x if held_out else None}
    sv.fit(vae, x, progress=True, **settings)
    shown = capsys.readouterr()
    for word in ("epoch 2/2", "ELBO", "KL", *(["held out"] if held_out else [])):
        assert word in shown.err
    assert shown.out == ""
    sv.fit(plain, x, progress=False, **settings)
    np.testing.assert_array_equal(plain.parameters.flat, vae.parameters.flat)


def test_a_bar_counts_every_update_of_every_call():
    told = []
    bar = RichBar(SimpleNamespace(update=lambda task, advance, description: told.append(advance)), 0, 1)
    for updates in (1, 7, 256):
        bar.advance(1, Terms(*np.zeros((4, updates, 10))))
    averages = {"elbo": 0.0, "reconstruction": 0.0, "kl": 0.0}
    bar.epoch({"epoch": 1, "train": averages, "validation": None})
    assert sum(told) == 1 + 7 + 256


def test_a_bar_shows_the_means_of_the_latest_call_and_then_of_the_epoch(monkeypatch):
    clock, told = [100.0], []
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    bar = RichBar(SimpleNamespace(update=lambda task, advance, description: told.append((advance, description))), 0, 7)
    reconstruction, kl = np.array([[-4.0, -2.0], [-5.0, -1.0]]), np.array([[1.0, 3.0], [2.0, 2.0]])
    terms = Terms(reconstruction - kl, reconstruction, kl, np.zeros((2, 2)))
    means = {"elbo": -6.0, "reconstruction": -4.5, "kl": 1.5}
    bar.advance(3, terms)
    bar.advance(3, terms)  # too soon after the one before to be shown
    clock[0] += 1.0
    bar.advance(3, terms)
    bar.epoch({"epoch": 3, "train": means, "validation": means | {"elbo": -9.5}})
    clock[0] += 1.0
    bar.advance(4, terms)
    assert told == [
        (2, "epoch 3/7  ELBO -5.00 = -3.00 - KL 2.00"),
        (4, "epoch 3/7  ELBO -5.00 = -3.00 - KL 2.00"),
        (0, "epoch 3/7  ELBO -6.00 = -4.50 - KL 1.50  held out -9.50"),
        (2, "epoch 4/7  ELBO -5.00 = -3.00 - KL 2.00  held out -9.50"),
    ]


def test_the_bar_of_a_resumed_run_begins_where_the_run_stands(monkeypatch):
    as_on_a_terminal(monkeypatch)
    with progress_bar(10, 3, done=4) as bar:
        (task,) = bar._bar.tasks
        assert (task.completed, task.total) == (12, 30)
        bar.advance(5, Terms(*np.zeros((4, 3, 2))))
        assert task.completed == 15


def test_a_bar_says_so_while_kernels_are_compiled(monkeypatch, capsys):
    as_on_a_terminal(monkeypatch)
    compiling = partial(event.trigger_event, "numba:compile")
    with progress_bar(10, 3) as bar:
        (task,) = bar._bar.tasks
        with compiling():
            with compiling():
                assert task.description == "compiling, once"
            assert task.description == "compiling, once", "the kernel that waited for the other"
        assert task.description == "training"
    with compiling():
        assert task.description == "training", "the bar is gone"
    with counting_bar("work"):
        event.start_event("numba:compile")  # and the bar is drawn once more at its end
    assert "compiling, once" in capsys.readouterr().err
