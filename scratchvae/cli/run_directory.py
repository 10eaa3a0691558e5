"""One run on disk: config.json, history.jsonl, model.safetensors, pictures.png, report.html.

Every file is there whole or not at all. The history grows by one line an epoch, and is rewritten from the checkpoint
when the run is resumed. One process trains in a run directory at a time.
"""

import json
import math
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scratchvae import VAE
from scratchvae.data import Dataset, load
from scratchvae.data.checks import one_line
from scratchvae.data.images import parse_size
from scratchvae.data.mapped import fingerprint
from scratchvae.files import LOCK, append_whole, held, make_folder, unfinished, write_whole

from .output import plain

FORMAT = 1
DEFAULT_PARENT = Path("runs")
NUMBER, OPTIONAL = (int, float), type(None)
ENTRIES: dict[str, dict[str, Any]] = {  # what config.json must hold, and of which type
    "data": {
        "name": str,
        "source": str,
        "folder": (str, OPTIONAL),
        "found": str,
        "examples": int,
        "data_dir": (str, OPTIONAL),
        "resize": (str, OPTIONAL),
        "labels": (str, OPTIONAL),
        "image_shape": (list, OPTIONAL),
        "columns": (list, OPTIONAL),
        "scale": (str, OPTIONAL),
        "sha256": str,
    },
    "model": {
        "data_dim": int,
        "latent_dim": int,
        "hidden": list,
        "likelihood": str,
        "activation": str,
        "engine": str,
        "posterior": str,
    },
    "training": {
        "objective": str,
        "samples": int,
        "beta": NUMBER,
        "free_bits": NUMBER,
        "warm_up": int,
        "kl": str,
        "epochs": int,
        "batch_size": int,
        "learning_rate": NUMBER,
        "binarize": str,
        "allow_grey": bool,
        "patience": (int, OPTIONAL),
        "seed": int,
    },
}


ADDED: dict[str, dict[str, Any]] = {
    "data": {"folder": None, "columns": None, "scale": None},
    "model": {"posterior": "diagonal"},
    "training": {"free_bits": 0.0, "warm_up": 0, "kl": "exact"},
}
"""What older runs do not say, and meant."""


class RunDirectory:
    """The paths of a run's files, and how they are written and read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.history_file = path / "history.jsonl"
        self.model_file = path / "model.safetensors"
        self.pictures_file = path / "pictures.png"
        self.report_file = path / "report.html"
        self._lines: list[bytes] = []  # of history.jsonl, as this process left it

    def exists(self) -> bool:
        """Whether there is a run here."""
        return self.config_file.is_file()

    @contextmanager
    def held(self) -> Iterator[list[Path]]:
        """Hold the directory, made if it is not there, so that no other process trains in it. Gives the folders that
        were made for it, the innermost first.

        Raises    ValueError, one line, where another does, or where it cannot be made or written
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        make_folder(self.path, parents=True)
        with held(self.path):
            for file in self._unfinished():
                file.unlink()
            yield made

    def is_free(self) -> bool:
        """Whether a new run may be made here: nothing is there, or what a run leaves that is killed as it starts."""
        left = {LOCK, *(file.name for file in self._unfinished())}
        return not self.path.is_dir() or {file.name for file in self.path.iterdir()} <= left

    def _unfinished(self) -> list[Path]:
        files = self.config_file, self.history_file, self.model_file, self.pictures_file, self.report_file
        return [beside for file in files for beside in unfinished(file)]

    def create(self, config: Mapping[str, Any]) -> None:
        """Write config.json. Called once the input is checked and the directory is held."""
        write_whole(self.config_file, json.dumps(plain(config), indent=2) + "\n")

    def remove(self, made: list[Path]) -> None:
        """Take away a run in which nothing was trained, and the folders that were made for it."""
        for file in (self.config_file, self.history_file, self.path / LOCK):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # one that is gone, or has another run in it by now
            for folder in made:
                folder.rmdir()

    def config(self) -> dict[str, Any]:
        """What config.json says. Raises ValueError if this is no run of ours."""
        if not self.path.exists():
            raise ValueError(f"{self.path} does not exist; expected a run directory made by `scratchvae train`")
        if not self.exists():
            raise ValueError(
                f"{self.path} is no run: it has no config.json; expected a directory made by `scratchvae train`"
            )
        try:
            config = json.loads(self.config_file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.config_file} is not JSON: {one_line(error)}") from None
        if not isinstance(config, dict):
            raise ValueError(f"{self.config_file} is not the configuration of a run: expected a JSON object")
        if config.get("format") != FORMAT:
            raise ValueError(f"{self.config_file} is of format {reprlib.repr(config.get('format'))}; expected {FORMAT}")
        for part, entries in ADDED.items():
            if isinstance(config.get(part), dict):
                config[part] |= {name: value for name, value in entries.items() if name not in config[part]}
        self._check_entries(config)
        return config

    def _check_entries(self, config: Mapping[str, Any]) -> None:
        for part, entries in ENTRIES.items():
            for name, kinds in entries.items():
                value = config[part].get(name) if isinstance(config.get(part), dict) else None
                if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
                    raise self._unexpected(f"{part}.{name}", value)
        shape = config["data"].get("image_shape")
        if shape is not None and not _is_image_shape(shape, config["model"]["data_dim"]):
            raise self._unexpected("data.image_shape", shape)

    def data(self, config: Mapping[str, Any], data_dir: Path | None = None) -> Dataset:
        """The data that it was trained on, read again as its configuration says; `data_dir`: where MNIST is now.

        Raises    ValueError, one line, where they cannot be read, or are others by now
        """
        data = config["data"]
        dataset = load(
            self.source(config),
            data_dir=data_dir or data.get("data_dir"),
            seed=config["training"]["seed"],
            resize=parse_size(data.get("resize")),
            labels=data.get("labels"),
        )
        if fingerprint(dataset.train, dataset.held_out) != data["sha256"]:
            raise ValueError(
                f"{data['source']} no longer holds the data that {self.path} was trained on; expected the same values"
            )
        return dataset

    def source(self, config: Mapping[str, Any]) -> str:
        """Its data from the folder it was named in, or, where there are none any more, as they were named."""
        named, folder = config["data"]["source"], config["data"]["folder"]
        there = os.path.join(folder or "", named)
        if not (folder and os.path.exists(there)):
            return named
        return named if os.path.exists(named) and os.path.samefile(named, there) else there

    def _unexpected(self, name: str, value: Any) -> ValueError:
        return ValueError(f"{self.config_file}: {name} is {reprlib.repr(value)}; expected what train wrote there")

    def trained_model(self) -> Path:
        """The path of the last complete checkpoint. Raises ValueError if there is none."""
        self.config()
        if not self.model_file.exists():
            raise ValueError(f"{self.path} has no model.safetensors: training stopped before its first checkpoint")
        return self.model_file

    def trained(self, engine: str) -> tuple[VAE, dict[str, Any]]:
        """The model of the last complete checkpoint, on that engine, and what config.json says.

        Raises    ValueError if there is none, or if it is no model of this run
        """
        config, path = self.config(), self.trained_model()
        vae = VAE.load(path, engine=engine)
        for name, value in vae.config.items():
            said = config["model"].get(name, value)
            if said != value:
                raise ValueError(f"{path}: {name} is {value!r}; expected {said!r} as in {self.config_file}")
        return vae, config

    def history(self) -> list[dict[str, Any]]:
        """The epochs in history.jsonl, up to the first line that was cut short."""
        epochs: list[dict[str, Any]] = []
        lines = (
            self.history_file.read_text(encoding="utf-8", errors="replace").splitlines()
            if self.history_file.is_file()
            else []
        )
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(row, dict):
                break
            epochs.append(row)
        return epochs

    def rewrite_history(self, epochs: list[dict[str, Any]]) -> None:
        """Keep these epochs and no others, with the seconds that the file has of them."""
        known = [row for row in self.history() if isinstance(row.get("epoch"), int) and "seconds" in row]
        seconds = {row["epoch"]: {"seconds": row["seconds"]} for row in known}
        self._lines = [_line(row | seconds.get(row["epoch"], {})) for row in epochs]
        write_whole(self.history_file, b"".join(self._lines))

    def append_epoch(self, row: Mapping[str, Any]) -> None:
        """Add one epoch to the history. A file that was removed or changed under it is written anew."""
        there = self.history_file.stat().st_size if self.history_file.is_file() else -1
        whole = there == sum(map(len, self._lines))
        self._lines.append(_line(row))
        if whole:
            append_whole(self.history_file, self._lines[-1])
        else:
            write_whole(self.history_file, b"".join(self._lines))


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(plain(row)).encode() + b"\n"


def _is_image_shape(shape: list[Any], values: int) -> bool:
    return len(shape) == 2 and all(isinstance(size, int) and size > 0 for size in shape) and math.prod(shape) == values


def new_run(out: Path | None, data_name: str) -> RunDirectory:
    """Where a new run goes: `out` if nothing is there yet, else the next free runs/NAME-1, runs/NAME-2, ...

    Raises ValueError if `out` is taken. Writes nothing.
    """
    if out is None:
        name = re.sub(r"[^A-Za-z0-9._]+", "-", data_name).strip("-.") or "data"
        number = 1
        while (DEFAULT_PARENT / f"{name}-{number}").exists():
            number += 1
        return RunDirectory(DEFAULT_PARENT / f"{name}-{number}")
    run = RunDirectory(out)
    if run.exists():
        raise ValueError(f"{out} is a run already; continue it with --resume or give another --out")
    if os.path.lexists(out) and not out.is_dir():  # a file, or a link to nothing
        raise ValueError(f"{out} is there and no directory; --out takes a directory for the run, or a new one")
    if not run.is_free():
        raise ValueError(f"{out} is a directory with other files in it; give another --out")
    return run
