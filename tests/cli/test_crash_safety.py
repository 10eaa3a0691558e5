"""Nothing is lost: by a kill at any moment, a full disk, a folder that cannot be written, or a second process."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from scratchvae import fit
from scratchvae.checkpoint import trained_epochs
from scratchvae.cli.run_directory import RunDirectory
from scratchvae.files import append_whole
from tests.cli.conftest import FAST, REPOSITORY, Command
from tests.cli.test_train import assert_same_run

SMALLER = "expected fewer or smaller examples, samples or layers"


def kill_again_and_again(folder: Path, data: Path, epochs: int, kills: int, after: int) -> list[dict]:
    """What `tests.cli.killing` says of every kill."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.killing", *map(str, (folder, data, epochs, kills, after, 0))],
        cwd=REPOSITORY,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + (folder / "parts.log").read_text()
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("epochs", "kills", "after"), [(40, 4, 0), pytest.param(400, 46, 4, marks=pytest.mark.slow)], ids=["4", "50"]
)
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(tmp_path, images, epochs, kills, after):
    """SIGKILL at random moments, each run resumed from what the last one left: at the end the uninterrupted bits."""
    told = kill_again_and_again(tmp_path, images, epochs, kills, after)
    assert [kill["status"] for kill in told] == [-9] * (kills + after)
    assert [kill["wrong"] for kill in told] == [[]] * (kills + after)
    assert any(kill["epochs"] for kill in told)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    assert sorted(os.listdir(tmp_path / "parts")) == sorted(os.listdir(tmp_path / "whole"))


def test_kills_meet_every_step_of_an_epochs_files(tmp_path):
    """Five of a file that is written whole, and before and after a line of the history."""
    code = f"""
from pathlib import Path
from scratchvae.cli.run_directory import RunDirectory
from scratchvae.files import write_whole
from tests.cli.killing import STEPS_AN_EPOCH, Doom
run, doom = RunDirectory(Path({str(tmp_path)!r})), Doom(100)
run.append_epoch({{"epoch": 1}})
doom.left = 100
write_whole(run.model_file, b"1234")
run.append_epoch({{"epoch": 2}})
print(100 - doom.left, STEPS_AN_EPOCH)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "7 7\n"


# --- a disk that is full --------------------------------------------------------------------------------------------


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Writes that go beyond this size fail half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_last_checkpoint_and_says_so(command: Command, images, tmp_path):
    assert command("train", images, *FAST, "--epochs", "1", "--out", "run").status == 0
    model = tmp_path / "run" / "model.safetensors"
    with no_file_longer_than(model.stat().st_size + 1000):  # a checkpoint grows by its history
        result = command("train", "--out", "run", "--resume", "--epochs", "9")
    kept = len(trained_epochs(model))
    assert 1 < kept < 9
    assert result.status == 2
    assert "run/model.safetensors: cannot be written (File too large)" in result.err.splitlines()[-1]
    assert f"the checkpoint of epoch {kept} is kept; go on with: scratchvae train" in result.err.splitlines()[-1]
    assert not [file for file in os.listdir(tmp_path / "run") if file.startswith(".") and file != ".lock"]

    assert command("train", "--out", "run", "--resume", "--epochs", "9").status == 0
    assert command("train", images, *FAST, "--epochs", "9", "--out", "straight").status == 0
    assert_same_run(tmp_path / "run", tmp_path / "straight")


def test_a_full_disk_at_the_start_leaves_nothing(command: Command, images, tmp_path):
    with no_file_longer_than(500):
        result = command("train", images, *FAST, "--out", "run")
    assert result.status == 2
    assert "config.json: cannot be written" in result.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_does_not_fit_is_not_added_in_part(tmp_path):
    file = tmp_path / "history.jsonl"
    file.write_bytes(b"1234567\n")
    with no_file_longer_than(12), pytest.raises(ValueError, match="cannot be written"):
        append_whole(file, b"7654321\n")
    assert file.read_bytes() == b"1234567\n"
    append_whole(file, b"7654321\n")
    assert file.read_bytes() == b"1234567\n7654321\n"


# --- memory that runs out ---------------------------------------------------------------------------------------------


def memory_for(epochs: int, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Let `train` run out of memory after so many epochs."""

    def fit_until_memory_runs_out(**arguments):
        if epochs:
            fit(**arguments | {"epochs": epochs})
        raise MemoryError(words)

    monkeypatch.setattr(import_module("scratchvae.cli.train"), "fit", fit_until_memory_runs_out)


@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "an empty folder"])
def test_memory_that_runs_out_at_the_start_leaves_nothing(
    command: Command, undrawn, images, tmp_path, monkeypatch, there
):
    if there:
        (tmp_path / "run").mkdir()
    before = list(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        memory_for(0, patch, "Unable to allocate 3.64 TiB")
        failed = command("train", images, *FAST, "--epochs", "2", "--out", "run")
    assert failed.status == 2
    assert failed.err.splitlines()[-1] == f"scratchvae: not enough memory: Unable to allocate 3.64 TiB; {SMALLER}"
    assert list(tmp_path.rglob("*")) == before
    assert command("train", images, *FAST, "--epochs", "1", "--out", "run").status == 0


def test_what_leaves_nothing_leaves_no_folder_of_runs_either_but_keeps_the_other_runs(
    command: Command, images, tmp_path, monkeypatch
):
    memory_for(0, monkeypatch, "")
    failed = command("train", images, *FAST)
    assert failed.err.splitlines()[-1] == f"scratchvae: not enough memory; {SMALLER}"
    assert list(tmp_path.iterdir()) == []
    assert command("train", images, *FAST, "--out", "a/b/c").status == 2
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs" / "others").mkdir(parents=True)
    assert command("train", images, *FAST).status == 2
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "others"]


def test_a_run_stopped_before_its_first_checkpoint_is_kept_where_it_cannot_go_on(
    command: Command, undrawn, trained, tmp_path, monkeypatch
):
    (tmp_path / "run").mkdir()
    shutil.copy(trained / "config.json", tmp_path / "run")
    with monkeypatch.context() as patch:
        memory_for(0, patch, "Unable to allocate")
        assert command("train", "--out", "run", "--resume").status == 2
    assert command("train", "--out", "run", "--resume").status == 0
    assert_same_run(tmp_path / "run", trained)


@pytest.mark.parametrize(("words", "said"), [("Unable to allocate", "Unable to allocate"), ("", "out of memory")])
def test_memory_that_runs_out_later_keeps_the_checkpoint(
    command: Command, undrawn, images, tmp_path, monkeypatch, words, said
):
    with monkeypatch.context() as patch:
        memory_for(1, patch, words)
        failed = command("train", images, *FAST, "--epochs", "2", "--out", "run")
    assert failed.status == 2
    assert failed.err.splitlines()[-1] == (
        f"scratchvae: {said}; the checkpoint of epoch 1 is kept; go on with: scratchvae train --out run --resume"
    )
    assert command("train", "--out", "run", "--resume").status == 0
    assert len(trained_epochs(tmp_path / "run" / "model.safetensors")) == 2


# --- what is taken away ---------------------------------------------------------------------------------------------


NOT_MADE = "cannot be made (Permission denied); expected a folder, or a place for a new one"


@contextmanager
def that_cannot_be_written() -> Iterator[Path]:
    """A folder that anyone may read and this process, be it root's, may not write once `yield` comes back."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def without_the_right_to_write(folder: Path) -> Iterator[None]:
    if os.geteuid() == 0:
        os.seteuid(65534)
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        else:
            folder.chmod(0o755)


@pytest.mark.slow
def test_a_run_that_cannot_be_written_is_one_line_and_left_alone(command: Command, images):
    with that_cannot_be_written() as folder:
        shutil.copy(images, folder / "images.npy")
        assert command("train", folder / "images.npy", *FAST, "--epochs", "1", "--out", folder / "run").status == 0
        before = {file: file.read_bytes() for file in (folder / "run").iterdir()}
        for file in before:
            file.chmod(0o444)
        with without_the_right_to_write(folder / "run"):
            resumed = command("train", "--out", folder / "run", "--resume", "--epochs", "2")
        with without_the_right_to_write(folder):
            new = command("train", folder / "images.npy", *FAST, "--out", folder / "new")
        assert (resumed.status, new.status) == (2, 2)
        assert resumed.err == f"scratchvae: {folder}/run: cannot be written (Permission denied)\n"
        assert new.err == f"scratchvae: {folder}/new: {NOT_MADE}\n"
        assert {file: file.read_bytes() for file in (folder / "run").iterdir()} == before


def test_what_may_not_be_written_is_refused_in_one_line(command: Command, trained):
    engine = ("--engine", "reference")  # whose operations are not cached on the disk
    with that_cannot_be_written() as folder:
        run = shutil.copytree(trained, folder / "run")

        def refused(of: Path) -> list[str]:
            results = (
                command("export", run, "--format", "torch", "--out", of / "theirs", *engine),
                command("sample", run, "--out", of / "some.npy", *engine),
                command("explain", "--out", of / "page.html", *engine),
            )
            assert [result.status for result in results] == [2, 2, 2]
            return [result.err for result in results]

        assert all("folder that exists" in said for said in refused(folder / "no")), (
            "and all that is needed is imported"
        )
        with without_the_right_to_write(folder):
            exported, *others = refused(folder)
        may = "that may be written"
        assert (
            exported
            == f"scratchvae: --out is {folder}/theirs; expected a folder {may}, or a new one in such a folder\n"
        )
        for said, name in zip(others, ("some.npy", "page.html"), strict=True):
            assert said == f"scratchvae: --out is {folder}/{name}; expected a file in a folder {may}\n"


def at_epoch_2(monkeypatch: pytest.MonkeyPatch, act) -> None:
    """Do something to a run just before its second epoch enters the history."""
    append = RunDirectory.append_epoch

    def acting(run: RunDirectory, row: dict) -> None:
        if row["epoch"] == 2:
            act(run)
        append(run, row)

    monkeypatch.setattr(RunDirectory, "append_epoch", acting)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [b"", b"{}", b'{"epoch": 1, "step": 1, "train": null, "validation": null, "seconds": 1}\n' * 9]
)
def test_a_history_that_is_changed_under_a_run_is_written_anew(
    command: Command, images, trained, tmp_path, monkeypatch, text
):
    at_epoch_2(monkeypatch, lambda run: run.history_file.write_bytes(text))
    assert command("train", images, *FAST, "--epochs", "3", "--out", "run").status == 0
    assert_same_run(tmp_path / "run", trained)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["history.jsonl", "model.safetensors"])
def test_a_file_that_is_removed_under_a_run_is_there_again_and_whole(
    command: Command, images, trained, tmp_path, monkeypatch, name
):
    at_epoch_2(monkeypatch, lambda run: (run.path / name).unlink())
    assert command("train", images, *FAST, "--epochs", "3", "--out", "run").status == 0
    assert_same_run(tmp_path / "run", trained)


def test_a_directory_that_is_removed_under_a_run_is_one_line(command: Command, images, tmp_path, monkeypatch):
    at_epoch_2(monkeypatch, lambda run: shutil.rmtree(run.path))
    result = command("train", images, *FAST, "--epochs", "3", "--out", "run")
    assert result.status == 2
    assert "run/history.jsonl: cannot be written (No such file or directory)" in result.err.splitlines()[-1]
    assert "kept" not in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [[".lock", ".config.json.abc123.unfinished"], [".config.json.abc123.unfinished"]])
def test_what_a_run_leaves_that_is_killed_as_it_starts_is_in_nobodys_way(
    command: Command, undrawn, images, tmp_path, left
):
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).touch()
    result = command("train", images, *FAST, "--epochs", "1", "--out", "run")
    assert result.status == 0, result.err
    assert not (tmp_path / "run" / ".config.json.abc123.unfinished").exists()


# --- two processes --------------------------------------------------------------------------------------------------


def test_a_second_process_is_told_that_a_run_is_taken_and_a_killed_one_leaves_it_free(
    command: Command, process, images, tmp_path
):
    first = process("train", images, *FAST, "--epochs", "1000000", "--out", "run")
    deadline = time.monotonic() + 120
    while len(RunDirectory(tmp_path / "run").history()) < 2:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second = command("train", "--out", "run", "--resume", "--epochs", "3")
    assert second.status == 2
    assert second.err == "scratchvae: run: another process is at work on it; expected to be the only one\n"
    assert first.poll() is None, "the first goes on"
    first.kill()
    first.communicate()
    more = len(trained_epochs(tmp_path / "run" / "model.safetensors")) + 1
    assert command("train", "--out", "run", "--resume", "--epochs", more).status == 0
    assert len(RunDirectory(tmp_path / "run").history()) == more


def test_a_run_that_another_process_made_in_the_meantime_is_left_alone(command: Command, images, trained, monkeypatch):
    train = import_module("scratchvae.cli.train")
    begin = train._train

    def late(output, job, processes):
        shutil.copytree(trained, job.run.path)
        begin(output, job, processes)

    monkeypatch.setattr(train, "_train", late)
    result = command("train", images, *FAST, "--out", "run")
    assert result.status == 2
    assert "run was made into a run by another process; continue it with --resume" in result.err
    assert_same_run(Path("run"), trained)
