"""`scratchvae explain` from the command line."""

import re

import pytest

from scratchvae.objectives import IWAE
from scratchvae.report import plots
from scratchvae.report.explain import Settings, train_on_digits
from scratchvae.report.explain.identity import forms, identity


@pytest.fixture
def tiny(monkeypatch):
    """Less than --quick, and no pictures: what is tested here is the command."""
    monkeypatch.setattr(plots, "light_and_dark", lambda draw, kind="svg": (b"", b""))
    least = Settings.quick()._replace(
        epochs=2, examples=2, form_samples=50, movement_steps=4, movement_looks=2, toy_epochs=2, toy_examples=400,
        toy_looks=(0, 2), mixture_sizes=(4, 8, 16, 32), latent_dims=(2,), evidence_points=400, bound_samples=(1, 5),
        bound_draws=50, gradient_samples=20, gradient_examples=1,
    )  # fmt: skip
    monkeypatch.setattr(Settings, "quick", classmethod(lambda cls: least))


@pytest.mark.slow
def test_explain_writes_a_page_and_prints_its_numbers(command, tiny, tmp_path):
    result = command("explain", "--quick", "--json", "--engine", "reference", "--seed", "3", "--out", "page.html")
    assert result.status == 0
    record = result.record
    assert record["identity"]["worst_residual"] <= 1e-10
    assert record["movement"]["phi"]["largest_change"] <= 1e-10
    assert record["seed"] == 3
    assert record["model"]["latent_dim"] == 2
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "scratchvae explain --quick --seed 3" in page
    begun = [line for line in result.err.splitlines() if line.endswith(" ...")]
    assert "the identity ..." in begun, "progress goes to standard error"
    assert len(begun) == len(set(begun)), "a line for each part as it begins"
    for name, value in (
        ("mean log p(x) of", "mean_log_evidence"),
        ("mean ELBO", "mean_elbo"),
        ("mean gap", "mean_gap"),
    ):
        (row,) = [line for line in result.err.splitlines() if name in line]
        assert f" {record['identity'][value]:.6f} nats" in row

    settings = Settings.quick()
    subject = train_on_digits(settings, 3, "reference", lambda epoch: None)
    one = identity(subject, settings)
    assert record["identity"]["mean_elbo"] == pytest.approx(one.mean_elbo, rel=1e-6), "the model is that of the seed"
    sampled = forms(subject, settings, one, 3).sampled_means
    assert record["forms"]["sampled_means"] == pytest.approx(sampled, rel=1e-6), "and so is what is drawn"


@pytest.mark.slow
def test_explain_takes_a_run_of_any_likelihood(command, tiny, tmp_path):
    """One latent dimension, relus, a Gaussian decoder, grey pixels, IWAE: unlike the page's own model."""
    options = ("--engine", "reference", "--hidden", "6", "--latent-dim", "1", "--epochs", "2", "--samples", "2")
    family = ("--likelihood", "gaussian-learned", "--objective", "iwae")
    assert command("train", "digits", *options, *family, "--out", "run").status == 0
    result = command("explain", "run", "--quick", "--json")
    assert result.status == 0, result.err
    assert result.record["identity"]["worst_residual"] <= 1e-9
    said = {"latent_dim": 1, "epochs": 2, "data": "digits", "binarize": "none", "objective": repr(IWAE(num_samples=2))}
    assert {name: result.record["model"][name] for name in said} == said
    page = (tmp_path / "run" / "explain.html").read_text(encoding="utf-8")
    assert "scratchvae explain run --quick --seed 0" in page
    assert "normal around the decoder" in page
    assert "trained by <code>IWAE(num_samples=2)</code>" in page
    assert "one standard normal number<" in page
    assert not re.search(r"\b1 (latent )?(dimensions|held-out images)|axis-parallel|correlation<", page), (
        "of one number"
    )
    assert "For the images of “digits” the grid has 1 dimension, and" in page
    assert (tmp_path / "run" / "report.html").exists(), "the run's own report is left alone"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "page.txt"), "ends in .html"),
        (("--out", "nowhere/page.html"), "folder that exists"),
        (("missing",), "does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(command, arguments, words):
    result = command("explain", *arguments)
    assert result.status == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_help_says_that_the_reference_engine_explains(command):
    said = " ".join(command("explain", "--help").out.replace("│", " ").split())
    assert "What trains a model where no run is given: reference or compiled. It is explained by reference." in said


def test_a_run_with_too_many_latent_dimensions_is_refused(command, undrawn, tiny):
    assert command("train", "--engine", "reference", "--hidden", "4", "--latent-dim", "5", "--epochs", "1",
                   "--out", "run").status == 0  # fmt: skip
    result = command("explain", "run", "--quick")
    assert result.status == 2
    assert "latent_dim is 5" in result.err
