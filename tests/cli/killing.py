"""Trains one run whole and one that is killed again and again, and prints what became of each kill, as JSON.

    python -m tests.cli.killing FOLDER DATA EPOCHS KILLS KILLS_AFTER_TRAINING SEED

Each attempt is a fork of this process, so that it starts at once. Half are killed a random time after they begin, half
at a random step of writing a file: half way through the bytes, before and after the sync, before and after the rename.
The last KILLS_AFTER_TRAINING meet a run that is trained and is drawing its pictures and its page.
"""

import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from scratchvae import VAE, files
from scratchvae.cli import main, run_directory
from scratchvae.cli.run_directory import RunDirectory

SIZES = ("--engine", "reference", "--hidden", "8", "--latent-dim", "2", "--batch-size", "10")
STEPS_AN_EPOCH = 7
train = importlib.import_module("scratchvae.cli.train")
train.FINAL_SAMPLES, train.FINAL_EXAMPLES = 5, 5  # what is measured at the end is not what is tested here


class Doom:
    """SIGKILL to this process at the given step of writing files."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        for name in ("fsync", "replace"):
            setattr(files.os, name, self.surrounding(getattr(os, name)))
        files.open = self.opening  # type: ignore[attr-defined]
        run_directory.append_whole = self.surrounding(run_directory.append_whole)

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def surrounding(self, function: Any) -> Any:
        def stepping(*arguments: Any) -> Any:
            self.step()
            result = function(*arguments)
            self.step()
            return result

        return stepping

    def opening(self, path: Any, mode: str, **more: Any) -> Any:
        """The file; where it is one that `write_whole` writes, its writes pause half way."""
        return self.halting(open(path, mode)) if mode == "xb" else open(path, mode, **more)

    def halting(self, file: Any) -> Any:
        doom = self

        class Halting:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: Any) -> None:
                file.close()

            def write(self, content: bytes) -> None:
                file.write(content[: len(content) // 2])
                file.flush()
                doom.step()
                file.write(content[len(content) // 2 :])

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Halting()


def attempt(out: Path, data: str, epochs: int, seconds: float | None, steps: int | None) -> int:
    """Train in a fork; the status it ends with, or minus the signal that ended it."""
    go_on = ("--resume",) if (out / "config.json").exists() else (data, *SIZES)
    log = out.with_suffix(".log")
    log.touch()
    said = log.stat().st_size
    child = os.fork()
    if child == 0:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if steps is not None:
            Doom(steps)
        os._exit(main(["train", *go_on, "--epochs", str(epochs), "--out", str(out)]))
    if seconds is not None:
        while log.stat().st_size == said:  # it says a line when it has taken the directory and begins
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def unreadable(out: Path) -> list[str]:
    """What is wrong with the files that are there: each must be whole."""
    run, wrong = RunDirectory(out), []
    for file, read in (
        (run.config_file, run.config),
        (run.history_file, lambda: [json.loads(line) for line in run.history_file.read_text().splitlines()]),
        (run.model_file, lambda: VAE.load(run.model_file, engine="reference")),
        (run.report_file, lambda: run.report_file.read_text().index("</html>")),
        (run.pictures_file, lambda: run.pictures_file.read_bytes().index(b"IEND")),
    ):
        try:
            if file.exists():
                read()
        except ValueError as error:
            wrong.append(f"{file.name}: {error}")
    return wrong


def kill_again_and_again(folder: Path, data: str, epochs: int, kills: int, after: int, seed: int) -> list[dict]:
    """The parts run, killed and resumed; at the end it is let finish."""
    out, rng, told = folder / "parts", random.Random(seed), []
    an_epoch = min(entry["seconds"] for entry in RunDirectory(folder / "whole").history())
    for number in range(kills + after):
        if number == kills:
            assert attempt(out, data, epochs, None, None) == 0
        how: dict[str, Any] = {"seconds": None, "steps": None}
        if number >= kills:
            how["steps"] = rng.randrange(20)  # configuration, history, pictures, page: five steps each
        elif number % 2:
            how["steps"] = rng.randrange(8 * STEPS_AN_EPOCH)
        else:
            how["seconds"] = rng.uniform(0.0, 8 * an_epoch)  # as far as the steps go: none may reach the end
        status = attempt(out, data, epochs, **how)
        told.append({**how, "status": status, "epochs": len(RunDirectory(out).history()), "wrong": unreadable(out)})
    assert attempt(out, data, epochs, None, None) == 0
    return told


if __name__ == "__main__":
    place, source, *counts = sys.argv[1:]
    number_of_epochs, *rest = (int(count) for count in counts)
    if rest[1] == 0:  # pictures take longer than all the rest: without them where no kill is to meet them
        train._draw = lambda *_: None
    whole = main(["train", source, *SIZES, "--epochs", str(number_of_epochs), "--out", str(Path(place) / "whole")])
    assert whole == 0
    print(json.dumps(kill_again_and_again(Path(place), source, number_of_epochs, *rest)))
