"""The progress bar: live on a terminal, silent elsewhere."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import scratchvae as sv
from scratchvae.progress import Quiet, RichBar, progress_bar
from scratchvae.vae import Terms
from tests.cases import build


def test_training_prints_nothing_where_standard_error_is_no_terminal(capfd):
    vae, x, _ = build()
    sv.fit(vae, x, epochs=2, validation=x, progress=True)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_bar_that_is_not_wanted_is_silent():
    with progress_bar(1, 1, enabled=False) as bar:
        assert isinstance(bar, Quiet)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_terminal_sees_the_terms_live(monkeypatch, capsys, held_out):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
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
