"""`scratchvae train`: what it leaves, what it says, and that stopping it loses nothing."""

import json
import os
import shlex
import shutil
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import scratchvae as sv
from scratchvae.cli.job import Job
from scratchvae.cli.run_directory import RunDirectory, new_run
from scratchvae.cli.train import _how_to_go_on
from scratchvae.data import Dataset, load
from scratchvae.likelihoods import LIKELIHOODS
from scratchvae.report.summary import summarise
from tests.cli.conftest import FAST, Command, Result

FILES = [".lock", "config.json", "history.jsonl", "model.safetensors", "pictures.png", "report.html"]


def history(run: Path) -> list[dict]:
    """The epochs without the time they took."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, moments and history equal bit for bit: the files of the models are the same."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert history(one) == history(other)


@pytest.mark.parametrize("data", ["digits", "images"])
def test_config_json_says_where_it_was_called_only_where_that_says_where_the_data_are(
    command: Command, undrawn, images, tmp_path, monkeypatch, data
):
    contents = []
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        name = images if data == "images" else data
        assert command("train", name, *FAST, "--epochs", "1", "--out", "run").status == 0
        contents.append((tmp_path / place / "run" / "config.json").read_bytes())
    assert contents[0] == contents[1]


def test_a_run_goes_on_and_is_measured_from_wherever_it_is_called(command: Command, undrawn, tmp_path, monkeypatch):
    """Its data were named relative to the folder that train was called in, and its labels are a file beside them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    np.save("data/x.npy", (np.random.default_rng(0).random((40, 6)) < 0.5).astype(np.float32))
    np.save("data/kinds.npy", np.arange(40) % 3)
    train = ("train", *FAST, "--epochs")
    assert command(*train, "1", "data/x.npy", "--labels", "kinds.npy", "--out", "run").status == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    for epochs, name in (("2", ()), ("3", (tmp_path / "data" / "x.npy",)), ("4", ("../data/x.npy",))):
        result = command(*train, epochs, *name, "--out", "../run", "--resume")
        assert result.status == 0, result.err
    assert command("evaluate", "../run", "--samples", "5").status == 0
    refused = command(*train, "5", "x.npy", "--out", "../run", "--resume")
    assert f"was made with DATA {tmp_path / 'data' / 'x.npy'}, now asked x.npy" in refused.err
    (tmp_path / "data" / "x.npy").rename(tmp_path / "x.npy")
    assert "'data/x.npy': no such data set or file" in command("evaluate", "../run").err


def test_a_file_of_the_same_name_elsewhere_is_no_runs_data_and_no_labels(
    command: Command, undrawn, tmp_path, monkeypatch
):
    rng = np.random.default_rng(0)
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        np.save(tmp_path / place / "x.npy", (rng.random((40, 6)) < 0.5).astype(np.float32))
        np.save(tmp_path / place / "kinds.npy", rng.integers(0, 3, 40))
    monkeypatch.chdir(tmp_path / "here")
    assert command("train", "x.npy", "--labels", "kinds.npy", *FAST, "--epochs", "1", "--out", "run").status == 0
    monkeypatch.chdir(tmp_path / "there")
    assert command("evaluate", "../here/run", "--samples", "5").status == 0
    run = RunDirectory(Path("../here/run"))
    data = run.data(run.config())
    kinds = np.load("../here/kinds.npy")
    assert sorted([*data.train_labels, *data.held_out_labels]) == sorted(kinds)
    assert data.train_labels.tolist() == load("../here/x.npy", labels="../here/kinds.npy").train_labels.tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are not UTF-8")
def test_data_whose_name_is_not_utf_8_have_their_report(command: Command, tmp_path):
    name = os.fsdecode(b"caf\xe9.npy")
    np.save(name, (np.random.default_rng(0).random((40, 6)) < 0.5).astype(np.float32))
    result = command("train", name, *FAST, "--epochs", "1", "--out", "run")
    assert result.status == 0, result.err
    assert r"caf\udce9.npy" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_labels_are_found_where_they_were_moved_with_their_data(command: Command, undrawn, tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    monkeypatch.chdir("old")
    np.save("x.npy", (np.random.default_rng(0).random((40, 6)) < 0.5).astype(np.float32))
    np.save("kinds.npy", np.arange(40) % 3)
    assert command("train", "x.npy", "--labels", "kinds.npy", *FAST, "--epochs", "1", "--out", "run").status == 0
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    evaluated = command("evaluate", "run", "--samples", "5")
    assert evaluated.status == 0, evaluated.err


def test_going_on_takes_the_same_line_again_whatever_short_name_the_likelihood_has(command: Command, undrawn, tmp_path):
    np.save("x.npy", np.random.default_rng(0).integers(0, 256, (40, 6)) / 255)
    line = ("train", "x.npy", *FAST, "--epochs", "1", "--likelihood", "discretised-logistic:256", "--out", "run")
    assert command(*line).status == 0
    again = command(*line, "--resume")
    assert again.status == 0, again.err


def test_a_run_holds_its_configuration_history_model_pictures_and_page_and_nothing_else(trained):
    assert sorted(path.name for path in trained.iterdir()) == FILES


def test_history_has_one_line_an_epoch_whose_terms_add_up(trained):
    rows = history(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        for part in ("train", "validation"):
            assert row[part]["elbo"] == row[part]["reconstruction"] - row[part]["kl"]


def test_the_configuration_says_what_was_trained_on_what_and_how(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["data"]["examples"] + config["data"]["held_out"] == 60
    assert config["data"]["image_shape"] == [4, 4]
    assert config["model"]["hidden"] == [8]
    assert config["training"]["binarize"] == "dynamic"


def test_the_model_of_a_run_loads_in_python(trained):
    vae = sv.VAE.load(trained / "model.safetensors")
    assert (vae.data_dim, vae.hidden, vae.latent_dim) == (16, (8,), 2)


@pytest.fixture(scope="module")
def reported(images: Path, tmp_path_factory: pytest.TempPathFactory):
    """The result of one training with --json."""
    import contextlib
    import io

    from scratchvae.cli import main

    out, err = io.StringIO(), io.StringIO()
    run = tmp_path_factory.mktemp("runs") / "reported"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["train", str(images), *FAST, "--epochs", "2", "--out", str(run), "--json"])
    return Result(status, out.getvalue(), err.getvalue())


def test_json_is_one_object_and_the_table_goes_to_standard_error(reported):
    assert reported.status == 0
    assert reported.record["command"] == "train"
    assert "reconstruction" in reported.err


def test_json_says_what_was_trained_how_it_ended_and_where_the_files_are(reported):
    record, run = reported.record, Path(reported.record["run"])
    assert record["config"] == json.loads((run / "config.json").read_text())
    assert record["epochs"] == 2
    assert record["last_epoch"].items() >= history(run)[-1].items()
    names = {
        "model": "model.safetensors",
        "history": "history.jsonl",
        "pictures": "pictures.png",
        "report": "report.html",
    }
    assert record["files"] == {kind: str(run / name) for kind, name in names.items()}


@pytest.mark.parametrize("part", ["training", "held_out"])
def test_the_final_numbers_add_up(reported, part):
    summary = reported.record[part]
    assert summary["elbo"] == pytest.approx(summary["reconstruction"] - summary["kl"], abs=1e-9)
    assert summary["log_evidence"] == pytest.approx(summary["elbo"] + summary["gap"], abs=1e-9)
    assert summary["bits_per_dimension"] == pytest.approx(-summary["log_evidence"] / (16 * np.log(2)))
    assert summary["standard_error"] > 0
    assert summary["sampling_error"] > 0
    assert 0 <= summary["active_units"] <= 2


class Stopped(NamedTuple):
    """A training that ended by itself: what it said, its data and model, and the seed and labels of its pictures."""

    record: dict[str, Any]
    data: Dataset
    vae: sv.VAE
    drawn: tuple[int, NDArray]


@pytest.fixture(scope="module")
def stopped(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """A training on labelled images, with a seed of its own and patience for one epoch."""
    import contextlib
    import io

    from scratchvae.cli import main
    from scratchvae.report import run_report as report

    folder, out, drawn, true = tmp_path_factory.mktemp("runs"), io.StringIO(), [], report.run_report
    data, run = str(folder / "images.npz"), folder / "stopped"
    np.savez(data, data=np.load(images), y=np.arange(60))

    def run_report(*arguments):
        drawn.append(arguments[-2:])
        return true(*arguments)

    words = ["train", data, *FAST, "--epochs", "300", "--patience", "1", "--seed", "3", "--out", str(run), "--json"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(report, "run_report", run_report)
        assert main(words) == 0
    vae = sv.VAE.load(run / "model.safetensors", "reference")
    return Stopped(json.loads(out.getvalue()), load(data, seed=3), vae, drawn[0])


def test_training_stops_when_its_patience_is_at_an_end(stopped):
    assert stopped.record["stopped"].startswith("no better")
    assert stopped.record["epochs"] < 300


def test_the_final_numbers_are_those_of_the_model_on_each_part_of_its_data(stopped):
    for part, x in (("training", stopped.data.train), ("held_out", stopped.data.held_out)):
        want = summarise(stopped.vae, x, "", "dynamic", 1000, 500, seed=3)
        assert stopped.record[part]["log_evidence"] == pytest.approx(want.log_evidence, rel=1e-5)
        assert stopped.record[part]["examples_in_all"] == len(x)


def test_the_pictures_have_the_labels_of_the_examples_held_out_and_the_seed_of_the_run(stopped):
    seed, labels = stopped.drawn
    np.testing.assert_array_equal(labels, stopped.data.held_out_labels)
    assert seed == 3


@pytest.mark.parametrize(
    ("columns", "model", "training"),
    [
        (128, {"hidden": [128], "latent_dim": 8, "engine": "reference"},
         {"epochs": 150, "batch_size": 64, "learning_rate": 0.003}),
        (129, {"hidden": [400], "latent_dim": 20, "engine": "compiled"},
         {"epochs": 20, "batch_size": 128, "learning_rate": 0.001}),
        (4096, {"hidden": [400]}, {"learning_rate": 0.001}),
        (256 * 256, {"hidden": [400]}, {"learning_rate": 6.25e-05}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("objective", "samples"), [("elbo", 1), ("iwae", 50), ("dreg", 50)])
def test_what_is_not_asked_for_is_what_the_help_says(
    command: Command, monkeypatch, columns, model, training, objective, samples
):
    jobs = []
    monkeypatch.setattr(import_module("scratchvae.cli.train"), "_train", lambda output, job, others: jobs.append(job))
    np.save("x.npy", np.random.default_rng(0).integers(0, 256, (20, columns), dtype=np.uint8))
    assert command("train", "x.npy", "--objective", objective).status == 0
    config = jobs[0].config
    assert config["model"].items() >= model.items()
    assert config["training"].items() >= (training | {"samples": samples}).items()
    assert jobs[0].objective.num_samples == samples


@pytest.mark.slow
def test_training_needs_no_argument_and_names_runs_after_their_data(command: Command, tmp_path):
    for number in (1, 2):
        result = command("train", *FAST, "--epochs", "1")
        assert result.status == 0, result.err
        assert sorted(path.name for path in (tmp_path / "runs" / f"digits-{number}").iterdir()) == FILES
        assert f"runs/digits-{number}" in result.err
    assert "active units" in result.out


@pytest.mark.slow
def test_real_numbers_train_under_a_learned_variance(command: Command, vectors, tmp_path):
    options = ("--likelihood", "gaussian-learned", "--activation", "tanh", "--hidden", "4", "--epochs", "2")
    result = command("train", vectors, *FAST, *options, "--out", "run", "--json")
    assert result.status == 0, result.err
    assert result.record["config"]["model"]["hidden"] == [8, 4]
    assert result.record["config"]["training"]["binarize"] == "none"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--objective", "elbo", "--beta", "0.5", "--free-bits", "0.1", "--warm-up", "5", "--posterior", "full"),
        ("--objective", "elbo", "--kl", "monte-carlo"),
        ("--objective", "stl"),
        ("--objective", "dreg", "--samples", "3", "--posterior", "full"),
        ("--objective", "score-function", "--samples", "2"),
    ],
    ids=" ".join,
)
def test_every_objective_and_posterior_trains_and_its_run_goes_on(command: Command, undrawn, images, options):
    result = command("train", images, *FAST, *options, "--epochs", "1", "--out", "run", "--json")
    assert result.status == 0, result.err
    for name, value in zip(options[::2], options[1::2], strict=True):
        said = result.record["config"]["model"] | result.record["config"]["training"]
        assert str(said[name[2:].replace("-", "_")]) == value
    assert command("train", "--out", "run", "--resume", "--epochs", "2", "--json").record["epochs"] == 2
    assert command("evaluate", "run", "--engine", "reference", "--samples", "5").status == 0


@pytest.mark.slow
def test_what_is_for_a_diagonal_posterior_refuses_a_run_with_a_full_one(command: Command, images):
    assert command("train", images, *FAST, "--posterior", "full", "--epochs", "1", "--out", "run").status == 0
    for arguments in (("explain", "run"), ("export", "run", "--format", "torch", "--out", "weights")):
        result = command(*arguments)
        assert result.status == 2
        assert result.err.splitlines()[-1].endswith(
            "is for a diagonal posterior; got a model whose posterior is 'full'"
        )
    assert sorted(path.name for path in Path().iterdir()) == ["run"]
    assert sorted(path.name for path in Path("run").iterdir()) == FILES


@pytest.mark.slow
def test_a_run_from_before_there_was_a_choice_of_posterior_goes_on(command: Command, undrawn, images):
    assert command("train", images, *FAST, "--epochs", "1", "--out", "run").status == 0
    config = json.loads(Path("run/config.json").read_text())
    del config["model"]["posterior"]
    for name in ("free_bits", "warm_up", "kl"):
        del config["training"][name]
    Path("run/config.json").write_text(json.dumps(config))
    result = command("train", "--out", "run", "--resume", "--epochs", "2", "--json")
    assert result.status == 0, result.err
    assert result.record["config"]["model"]["posterior"] == "diagonal"


DATA_OF = {
    "continuous-bernoulli": lambda rng: rng.random((60, 4, 4)),
    "discretised-logistic": lambda rng: rng.integers(0, 256, (60, 4, 4), dtype=np.uint8),
    "discretised-logistic-diagonal:17": lambda rng: rng.integers(0, 17, (60, 4, 4)) / 16,
    "categorical:3,2": lambda rng: np.hstack([np.eye(size)[rng.integers(0, size, 60)] for size in (3, 2)]),
    "poisson": lambda rng: rng.poisson(3.0, (60, 5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", DATA_OF)
def test_each_kind_of_data_trains_evaluates_and_samples_under_its_likelihood(command: Command, tmp_path, likelihood):
    np.save(tmp_path / "data.npy", DATA_OF[likelihood](np.random.default_rng(0)))
    result = command("train", "data.npy", *FAST, "--likelihood", likelihood, "--epochs", "2", "--out", "run", "--json")
    assert result.status == 0, result.err
    assert result.record["config"]["model"]["likelihood"] == likelihood
    assert result.record["config"]["training"]["binarize"] == "none"
    result = command("evaluate", "run", "--samples", "20", "--engine", "reference", "--json")
    assert result.status == 0, result.err
    assert np.isfinite(result.record["held_out"]["log_evidence"])
    result = command("sample", "run", "--count", "3", "--out", "drawn.npy", "--engine", "reference")
    assert result.status == 0, result.err
    vae = sv.VAE.load(tmp_path / "run" / "model.safetensors", "reference")
    assert vae.likelihood.name == likelihood
    assert np.isfinite(vae.elbo(np.load(tmp_path / "drawn.npy"), np.zeros((3, vae.latent_dim))).elbo).all()
    assert command("train", "--out", "run", "--resume", "--epochs", "3").status == 0


def test_help_says_which_data_each_likelihood_is_for(command: Command):
    said = "".join(command("train", "--help").out.replace("│", " ").split())
    for name, likelihood in LIKELIHOODS.items():
        assert f"{name.removesuffix('-diagonal')} ({likelihood.data})".replace(" ", "") in said


@pytest.mark.slow
def test_points_of_a_plane_train_under_the_importance_weighted_bound(command: Command, tmp_path):
    np.savetxt(tmp_path / "points.csv", np.random.default_rng(0).normal(size=(40, 2)), delimiter=",")
    options = ("--objective", "iwae", "--samples", "3", "--likelihood", "gaussian", "--epochs", "1")
    result = command("train", "points.csv", *FAST, *options, "--json")
    assert result.status == 0, result.err
    assert result.record["run"] == "runs/points-1"


@pytest.mark.slow
def test_grey_pixels_train_where_they_are_allowed(command: Command, images):
    result = command("train", images, *FAST, "--epochs", "1", "--binarize", "none", "--allow-grey", "--out", "run")
    assert result.status == 0, result.err


def test_an_existing_run_is_refused_and_left_alone(command: Command, images, trained):
    before = {path: path.read_bytes() for path in trained.iterdir()}
    result = command("train", images, *FAST, "--out", trained)
    assert result.status == 2
    assert "--resume" in result.err
    assert {path: path.read_bytes() for path in trained.iterdir()} == before


@pytest.mark.slow
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(command: Command, undrawn, images, trained, tmp_path):
    assert command("train", images, *FAST, "--epochs", "1", "--out", "halves").status == 0
    with (tmp_path / "halves" / "history.jsonl").open("a") as file:
        file.write('{"epoch": [2], "seconds": 1}\n')  # one that nobody wrote
        file.write('{"epoch": 2, "tra')  # and one that a kill cut short
    result = command("train", "--out", "halves", "--resume", "--epochs", "3")
    assert result.status == 0, result.err
    assert_same_run(tmp_path / "halves", trained)
    assert (tmp_path / "halves/config.json").read_bytes() == (trained / "config.json").read_bytes(), "in the same order"
    assert all("seconds" in json.loads(line) for line in (tmp_path / "halves/history.jsonl").read_text().splitlines())


def test_fewer_epochs_than_there_are_is_refused_and_the_run_left_alone(command: Command, trained):
    before = {path: path.read_bytes() for path in trained.iterdir()}
    result = command("train", "--out", trained, "--resume", "--epochs", "2")
    assert result.status == 2
    assert result.err.startswith("scratchvae: --epochs is 2; expected at least the 3"), "and no word of resuming"
    assert {path: path.read_bytes() for path in trained.iterdir()} == before


def test_what_cannot_go_on_is_not_said_to_go_on_by_the_same_command(command: Command, trained, tmp_path):
    shutil.copytree(trained, "run")
    config = json.loads(Path("run/config.json").read_text())
    config["training"]["batch_size"] += 1
    Path("run/config.json").write_text(json.dumps(config))
    result = command("train", "--out", "run", "--resume", "--epochs", "4")
    assert result.status == 2
    assert "was trained with batch_size" in result.err
    assert "go on with" not in result.err


def test_a_run_that_is_done_may_be_resumed_and_stays_as_it_is(command: Command, undrawn, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    result = command("train", "--out", "run", "--resume", "--epochs", "3")
    assert result.status == 0, result.err
    assert result.err.startswith("resuming VAE(")
    assert_same_run(tmp_path / "run", trained)


@pytest.mark.parametrize(
    ("name", "run"),
    [("digits", "digits-1"), ("my data (2)", "my-data-2-1"), ("...", "data-1"), ("-x", "x-1"), ("taken", "taken-3")],
)
def test_a_run_is_named_after_its_data_in_letters_that_need_no_quotes(tmp_path, monkeypatch, name, run):
    monkeypatch.chdir(tmp_path)
    for taken in ("taken-1", "taken-2"):
        (tmp_path / "runs" / taken).mkdir(parents=True)
    assert new_run(None, name).path == Path("runs") / run


@pytest.mark.parametrize(("batch", "samples", "small"), [(19, 2, True), (13, 3, False), (38, 1, True), (39, 1, False)])
def test_a_job_is_small_by_all_that_an_update_multiplies(batch, samples, small):
    vae = sv.VAE(500, 10, (100,), engine="reference")  # 103,776 parameters
    job = Job(None, {"training": {"batch_size": batch, "samples": samples}}, None, vae, None, resumed=False)
    assert job.is_small is small


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (("--latent-dim", "3"), "--latent-dim 2"),
        (("--seed", "1"), "--seed 0"),
        (("--hidden", "8", "--hidden", "8"), "--hidden [8]"),
        (("--objective", "iwae"), "--objective elbo"),
        (("--batch-size", "7"), "--batch-size 64"),
        (("--learning-rate", "0.1"), "--learning-rate 0.003"),
        (("--patience", "2"), "--patience None"),
        (("--allow-grey",), "--allow-grey False"),
        (("--labels", "kind"), "--labels None"),
        (("--resize", "4x4"), "--resize None"),
        (("digits",), "DATA "),
    ],
)
def test_resuming_refuses_what_the_run_was_not_made_with(command: Command, trained, asked, named):
    result = command("train", "--out", trained, "--resume", *asked)
    assert result.status == 2
    assert named in result.err


@pytest.mark.slow
def test_a_run_does_not_take_data_that_have_changed_for_its_own(command: Command, images, tmp_path):
    data = tmp_path / "images.npy"
    data.write_bytes(images.read_bytes())
    assert command("train", data, *FAST, "--epochs", "1", "--out", "run").status == 0
    pixels = np.load(data)
    pixels[0, 0, 0] ^= 1
    np.save(data, pixels)
    for words in (("train", "--out", "run", "--resume", "--epochs", "2"), ("evaluate", "run"), ("explain", "run")):
        result = command(*words)
        assert result.status == 2
        assert "no longer holds the data" in result.err


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_pixel_of_either_part_that_has_changed_is_noticed(images, trained, tmp_path, part):
    run, pixels = RunDirectory(trained), np.load(images)
    config = run.config()
    config["data"]["source"] = str(tmp_path / "copy.npy")
    np.save(tmp_path / "copy.npy", pixels)
    first = getattr(run.data(config), part)[0]  # what is copied is accepted
    pixels[(pixels.reshape(60, 16) == first).all(axis=1), 0, 0] ^= 1
    np.save(tmp_path / "copy.npy", pixels)
    with pytest.raises(ValueError, match="no longer holds the data"):
        run.data(config)


def test_divergence_ends_with_status_1_and_names_the_update(command: Command, vectors, tmp_path):
    options = ("--likelihood", "gaussian", "--learning-rate", "1e30", "--epochs", "5", "--out", "run", "--json")
    result = command("train", vectors, *FAST, *options)
    assert result.status == 1
    assert "update" in result.err.splitlines()[-1]
    assert result.record["status"] == "diverged"


def test_what_diverges_in_its_first_epoch_leaves_nothing_in_the_way_of_the_next_try(
    command: Command, undrawn, tmp_path
):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((60, 5)))  # of one batch: an epoch an update
    options = (*FAST, "--likelihood", "gaussian", "--epochs", "9", "--out", "run", "--json")
    diverged = command("train", "x.npy", *options, "--learning-rate", "1e30")
    assert (diverged.status, diverged.record["run"]) == (1, None)
    assert not (tmp_path / "run").exists()

    diverged = command("train", "x.npy", *options, "--learning-rate", "1e3")
    assert (diverged.status, diverged.record["run"]) == (1, "run")
    assert len(history_lines(tmp_path / "run")) == 1
    sv.VAE.load(tmp_path / "run" / "model.safetensors")


def test_how_to_go_on_can_be_pasted():
    words = shlex.split(_how_to_go_on(RunDirectory(Path("my runs/it's one"))))
    assert words[-3:] == ["--out", "my runs/it's one", "--resume"]


def test_control_c_keeps_a_checkpoint_that_resumes_to_the_same_bits(command: Command, process, images, tmp_path):
    started = process("train", images, *FAST, "--epochs", "1000000", "--out", "stopped")
    deadline = time.monotonic() + 60
    while not (tmp_path / "stopped" / "history.jsonl").exists() or len(history_lines(tmp_path / "stopped")) < 2:
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 130, err
    assert "Traceback" not in err
    assert "--resume" in err.splitlines()[-1]

    sv.VAE.load(tmp_path / "stopped" / "model.safetensors")
    more = len(history_lines(tmp_path / "stopped")) + 2
    assert command("train", "--out", "stopped", "--resume", "--epochs", more).status == 0
    assert command("train", images, *FAST, "--epochs", more, "--out", "straight").status == 0
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")


def history_lines(run: Path) -> list[str]:
    return (run / "history.jsonl").read_text().splitlines()
