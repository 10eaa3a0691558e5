"""Commands run in this process or in one of their own, each in an empty folder, and small data to train on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from scratchvae.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
FAST = ("--engine", "reference", "--hidden", "8", "--latent-dim", "2")  # starts at once, and trains in no time


class Result(NamedTuple):
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The one JSON object on standard output; anything beside it fails to parse."""
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs one command in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have no pictures and no page, and few samples measure them: most of the time, where neither is looked at."""
    train = import_module("scratchvae.cli.train")
    monkeypatch.setattr(train, "_draw", lambda *_: None)
    monkeypatch.setattr(train, "FINAL_SAMPLES", 5)


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `python -m scratchvae` in a process of its own, in the same empty folder."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "scratchvae", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .npy of 60 grey images of 4 x 4 bytes."""
    path = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8))
    return path


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .npy of 60 vectors of five real numbers: no images, and not in [0, 1]."""
    path = tmp_path_factory.mktemp("data") / "vectors.npy"
    np.save(path, np.random.default_rng(1).normal(2.0, 3.0, (60, 5)).astype(np.float32))
    return path


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `images`. Tests only read it."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["train", str(images), *FAST, "--epochs", "3", "--out", str(run)]) == 0
    return run
