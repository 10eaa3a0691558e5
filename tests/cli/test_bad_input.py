"""Bad input: one line that says what and where, status 2, no traceback, and nothing written."""

import json
from pathlib import Path

import numpy as np
import pytest

from scratchvae.cli import app
from scratchvae.data import load
from tests.cli.conftest import FAST, Command, Result


def assert_refused(result: Result, words: str) -> None:
    lines = result.err.splitlines()
    assert result.status == 2
    assert result.out == ""
    assert len(lines) == 1, result.err
    assert words in lines[0]


def files_of(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch",), "nosuch"),
        (("",), "'': no such data set or file"),
        (("--epochs", "-1"), "--epochs"),
        (("--epochs", "0"), "--epochs"),
        (("--epochs", "many"), "--epochs"),
        (("--hidden", "0"), "--hidden"),
        (("--hidden", "8", "--hidden", "-3"), "--hidden"),
        (("--latent-dim", "1" + 23 * "0"), "not enough memory"),
        (("--latent-dim", "0"), "--latent-dim"),
        (("--batch-size", "0"), "--batch-size"),
        (("--learning-rate", "0"), "learning"),
        (("--learning-rate", "-1"), "learning"),
        (("--learning-rate", "nan"), "learning"),
        (("--learning-rate", "inf"), "learning"),
        (("--samples", "0"), "--samples"),
        (("--patience", "0"), "--patience"),
        (("--beta", "nan"), "beta"),
        (("--beta", "2", "--objective", "iwae"), "beta"),
        (("--likelihood", "bernouli"), "bernouli"),
        (("--activation", "swish"), "swish"),
        (("--objective", "mse"), "mse"),
        (("--free-bits", "-1"), "--free-bits"),
        (("--free-bits", "0.1", "--objective", "dreg"), "free_bits"),
        (("--free-bits", "0.1", "--kl", "monte-carlo"), "free_bits"),
        (("--warm-up", "-1"), "--warm-up"),
        (("--warm-up", "10", "--objective", "stl"), "warm_up"),
        (("--kl", "sampled"), "sampled"),
        (("--posterior", "flow"), "flow"),
        (("--binarize", "often"), "often"),
        (("--binarize", ""), "binarize is ''"),
        (("--binarize", "none"), "expected binarize dynamic, fixed or threshold, or likelihood continuous-bernoulli"),
        (("--binarize", "none"), "--allow-grey"),
        (("--binarize", "dynamic", "--likelihood", "continuous-bernoulli"), "expected 'none'"),
        (("--likelihood", "categorical:3,4"), "64"),
        (("--likelihood", "categorical:32,32"), "expected 0 or 1"),
        (("--likelihood", "categorical:"), "categorical:3,4,5"),
        (("--likelihood", "poisson"), "counts"),
        (("--likelihood", "poisson:3"), "poisson:3"),
        (("--likelihood", "discretised-logistic"), "discretised-logistic:L"),
        (("--likelihood", "discretised-logistic:1"), "from 2 to 65536"),
        (("--binarize", "dynamic", "--likelihood", "gaussian"), "binarize"),
        (("--engine", "gpu"), "gpu"),
        (("--seed", "-1"), "--seed"),
        (("--seed", str(2**64)), "--seed"),
        (("--threads", "0"), "--threads"),
        (("--threads", "100000"), "threads"),
        (("--nosuch", "1"), "--nosuch"),
        (("--resume",), "--out"),
        (("--resume", "--out", "nosuch"), "nosuch"),
        (("mnist", "--data-dir", "nosuch"), "nosuch"),
        (("digits", "digits"), "digits"),
    ],
)
def test_train_refuses_an_option_that_cannot_be(command: Command, tmp_path, arguments, words):
    assert_refused(command("train", *arguments), words)
    assert files_of(tmp_path) == {}


def test_samples_beyond_all_memory_are_refused_and_leave_nothing(command: Command, tmp_path):
    assert_refused(command("train", *FAST, "--samples", "1" + 23 * "0", "--quiet"), "not enough memory")
    assert files_of(tmp_path / "runs") == {}


def write_truncated(path: Path) -> None:
    np.save(path, np.zeros((10, 4)))
    path.write_bytes(path.read_bytes()[:-7])


DATA = {
    "truncated.npy": write_truncated,
    "strings.npy": lambda path: np.save(path, np.array([["a", "b"], ["c", "d"]])),
    "objects.npy": lambda path: np.save(path, np.array([[{}, 1]], dtype=object), allow_pickle=True),
    "nan.npy": lambda path: np.save(path, np.array([[0.0, 1.0], [np.nan, 1.0], [0.0, 1.0]])),
    "infinity.npy": lambda path: np.save(path, np.array([[0.0, 1.0], [np.inf, 1.0], [0.0, 1.0]])),
    "outside.npy": lambda path: np.save(path, np.array([[0.0, 1.5], [1.0, 1.0], [0.0, 1.0]])),
    "empty.npy": lambda path: np.save(path, np.zeros((0, 4))),
    "line.npy": lambda path: np.save(path, np.zeros(4)),
    "complex.npy": lambda path: np.save(path, np.ones((4, 4), complex)),
    "words.csv": lambda path: path.write_text("a,b\nc,d\n"),
    "ragged.csv": lambda path: path.write_text("1,0\n1,0,1\n"),
    "noise.npz": lambda path: path.write_bytes(b"PK\x03\x04 no archive"),
    "noise.idx": lambda path: path.write_bytes(b"\x00\x00\x08\x03\xff\xff\xff\xff"),
    "noise.gz": lambda path: path.write_bytes(b"\x1f\x8b\x08 cut"),
    "text.txt": lambda path: path.write_text("hello"),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", DATA)
def test_train_refuses_data_that_are_none_and_names_them(command: Command, tmp_path, name):
    DATA[name](tmp_path / name)
    before = files_of(tmp_path)
    assert_refused(command("train", name, *FAST), name)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_train_names_the_row_of_the_file_that_does_not_fit_in_whichever_part_it_is(command: Command, tmp_path, part):
    pixels = np.random.default_rng(0).random((20, 3))
    np.save("data.npy", pixels)
    row = int(np.isclose(pixels, getattr(load("data.npy"), part)[-1]).all(axis=1).argmax())
    pixels[row, 0] = 1.5
    np.save("data.npy", pixels)
    assert_refused(command("train", "data.npy", *FAST, "--out", "run"), f"data.npy: row {row}, column 0 ")
    assert not Path("run").exists()


@pytest.mark.parametrize(("likelihood", "words"), [("poisson", "row 11, column 2 "), ("categorical", "row 11 has 2 ")])
def test_train_names_the_row_of_the_file_that_a_likelihood_does_not_take(command: Command, likelihood, words):
    x = np.eye(3)[np.arange(20) % 3]
    x[11] = [0, 1, 1 if likelihood == "categorical" else 0.5]
    np.savetxt("data.csv", x, delimiter=",")
    assert_refused(command("train", "data.csv", *FAST, "--likelihood", likelihood), f"data.csv: {words}")


def test_train_names_the_part_of_a_file_that_has_two(command: Command):
    x = np.eye(3)[np.arange(20) % 3]
    np.savez("data.npz", x_train=x, x_test=2 * x)
    assert_refused(command("train", "data.npz", *FAST, "--likelihood", "categorical"), "data.npz, held out: row 0, ")


@pytest.mark.parametrize("place", ["file", "folder", "link"])
def test_train_refuses_a_place_that_is_taken(command: Command, tmp_path, place):
    taken = tmp_path / "taken"
    if place == "file":
        taken.write_text("mine")
    elif place == "link":
        taken.symlink_to("nothing")
    else:
        taken.mkdir()
        (taken / "notes.txt").write_text("mine")
    before = files_of(tmp_path)
    words = {"folder": "other files in it"}.get(place, "taken is there and no directory")
    assert_refused(command("train", *FAST, "--out", "taken"), words)
    assert files_of(tmp_path) == before


def make_no_run(folder: Path, trained: Path, kind: str) -> None:
    """A folder that looks like a run, or does not, and is none."""
    folder.mkdir()
    config = json.loads((trained / "config.json").read_text())
    if kind == "no configuration":
        return
    if kind == "not JSON":
        (folder / "config.json").write_text("{")
        return
    if kind == "not an object":
        (folder / "config.json").write_text("[1, 2]")
        return
    if kind == "another format":
        config["format"] = 99
    if kind == "a missing entry":
        del config["model"]["latent_dim"]
    if kind == "no word of the data":
        del config["data"]["found"]
    if kind == "an entry of another type":
        config["training"]["binarize"] = 3
    if kind == "a yes for a number":
        config["training"]["samples"] = True
    if kind == "images of another size":
        config["data"]["image_shape"] = [4, 5]
    if kind == "a model of another size":
        config["model"]["latent_dim"] += 1
    if kind == "a model of another likelihood":
        config["model"]["likelihood"] = "continuous-bernoulli"
    (folder / "config.json").write_text(json.dumps(config))
    if kind == "a truncated model":
        (folder / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:-9])
    elif kind != "no model":
        (folder / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())


NO_RUNS = (
    "no configuration",
    "not JSON",
    "not an object",
    "another format",
    "no word of the data",
    "a missing entry",
    "an entry of another type",
    "a yes for a number",
    "images of another size",
    "a model of another size",
    "a model of another likelihood",
    "no model",
    "a truncated model",
)
REFUSALS = [(name, kind) for name in ("evaluate", "sample", "export", "train") for kind in NO_RUNS]
REFUSALS.remove(("train", "no model"))  # stopped before its first checkpoint: it starts again


@pytest.mark.parametrize(("name", "kind"), REFUSALS)
def test_a_folder_that_is_no_run_is_refused(command: Command, tmp_path, trained, name, kind):
    make_no_run(tmp_path / "folder", trained, kind)
    before = files_of(tmp_path)
    arguments = ("train", "--resume", "--out", "folder") if name == "train" else (name, "folder")
    assert_refused(command(*arguments), "folder")
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["evaluate", "sample", "train"])
def test_a_folder_in_the_place_of_the_model_is_said_to_be_one(command: Command, tmp_path, trained, name):
    make_no_run(tmp_path / "run", trained, "no model")
    (tmp_path / "run" / "model.safetensors").mkdir()
    arguments = ("train", "--resume", "--out", "run") if name == "train" else (name, "run")
    assert_refused(command(*arguments), "run/model.safetensors: is a folder")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "nosuch"), "nosuch"),
        (("evaluate",), "argument"),
        (("evaluate", "RUN", "nosuch"), "nosuch"),
        (("evaluate", "RUN", ""), "'': no such data set or file"),
        (("evaluate", "RUN", "digits"), "64"),
        (("evaluate", "RUN", "--samples", "0"), "--samples"),
        (("evaluate", "RUN", "--limit", "-1"), "--limit"),
        (("evaluate", "RUN", "--method", "guess"), "guess"),
        (("sample", "RUN", "--count", "0"), "--count"),
        (("sample", "RUN", "--out", "a.jpg"), "a.jpg"),
        (("sample", "RUN", "--out", "nosuch/a.npy"), "nosuch"),
        (("sample", "RUN", "--out", "."), "--out is ."),
        (("gradcheck", "--method", "guess"), "guess"),
        (("nosuch",), "nosuch"),
    ],
)
def test_other_commands_refuse_what_cannot_be(command: Command, tmp_path, trained, arguments, words):
    assert_refused(command(*(trained if argument == "RUN" else argument for argument in arguments)), words)
    assert files_of(tmp_path) == {}


def test_a_file_is_not_written_in_the_place_of_a_folder(command: Command, trained, tmp_path):
    (tmp_path / "a.npy").mkdir()
    assert_refused(command("sample", trained, "--out", "a.npy"), "--out is a.npy, a folder; expected a file")


def test_evaluate_refuses_data_that_training_would(command: Command, undrawn, images):
    """Grey pixels under a Bernoulli, where the run binarizes nothing and does not say that it allows them."""
    np.save("binary.npy", np.random.default_rng(0).integers(0, 2, (20, 16)))
    assert command("train", "binary.npy", *FAST, "--binarize", "none", "--epochs", 1, "--out", "run").status == 0
    assert_refused(command("evaluate", "run", images, "--engine", "reference"), "--allow-grey")
    assert command("evaluate", "run", "binary.npy", "--engine", "reference", "--samples", 2).status == 0


def test_where_a_line_about_bad_input_comes_from_is_shown_to_who_asks(command: Command, monkeypatch):
    monkeypatch.setenv("SCRATCHVAE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="nosuch"):
        command("train", "nosuch.npy")


@pytest.mark.parametrize("engine", ["gpu", ""])
@pytest.mark.parametrize("name", [known.callback.__name__ for known in app.registered_commands if known.callback])
def test_every_command_refuses_an_engine_that_is_none(command: Command, tmp_path, trained, name, engine):
    run = [trained] if name in ("evaluate", "explain", "export", "sample") else []
    assert_refused(
        command(name, *run, "--engine", engine), f"engine is {engine!r}; expected one of reference, compiled"
    )
    assert files_of(tmp_path) == {}


def test_a_process_says_one_line_and_exits_with_status_2(process):
    started = process("train", "nosuch.npy")
    out, err = started.communicate(timeout=60)
    assert_refused(Result(started.returncode, out, err), "nosuch.npy")
