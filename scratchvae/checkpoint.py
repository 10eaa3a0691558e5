"""Models and training states as safetensors files: arrays by name, and a header of JSON. No pickle anywhere.

A file holds the parameters under their names; of a training state also Adam's moments ("adam.first.<name>",
"adam.second.<name>") and, with early stopping, the best parameters so far ("best.<name>"). Current parameters always
stand beside current moments: that pair continues the run bit for bit, while `load_model` returns the best ones.
The header holds the format version, the model's configuration and, of a training state, where the run stands.
"""

import json
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.checks import one_line
from scratchvae.engine import check_engine
from scratchvae.files import write_whole
from scratchvae.finite import first_not_finite, is_whole_number
from scratchvae.parameters import Parameters

if TYPE_CHECKING:
    from scratchvae.vae import VAE

FORMAT = "scratchvae"
FORMAT_VERSION = 1
PROGRESS = {"settings": dict, "updates": int, "best_epoch": int, "history": list}  # what the header says of a run
TERMS = ("elbo", "reconstruction", "kl", "objective")  # of an entry of the history
MOST_UPDATES = 1 << 32  # the number of an update is one word of a random draw's address
# what safetensors and json raise for a damaged file, and for one with types that NumPy does not have
DAMAGE = (OSError, ValueError, TypeError, AttributeError, RecursionError)


@dataclass
class TrainingState:
    """Everything that a run needs to go on: moments, the best parameters so far, and the header's training entry. Of
    that the history is kept as JSON, an entry a text: to write all of a long one anew takes longer than an epoch."""

    first: Parameters
    second: Parameters
    best: Parameters | None = None
    progress: dict[str, Any] = field(default_factory=dict)  # all but the history
    history: list[str] = field(default_factory=list)


def save_model(vae: "VAE", path: str | os.PathLike[str], state: TrainingState | None = None) -> None:
    """Write the model, and the training state if given.

    Raises    ValueError where the folder does not exist or cannot be written
    """
    from safetensors.numpy import save

    arrays = dict(vae.parameters)
    header = {"format": FORMAT, "version": FORMAT_VERSION, "model": vae.config}
    if state is not None:
        arrays |= _prefixed("adam.first.", state.first) | _prefixed("adam.second.", state.second)
        if state.best is not None:
            arrays |= _prefixed("best.", state.best)
        header["training"] = state.progress | {"history": []}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(header)
    if state is not None:
        text = f"{text.removesuffix(']}}')}{', '.join(state.history)}]}}}}"
    write_whole(path, save(contiguous, {FORMAT: text}))


def load_model(path: str | os.PathLike[str], engine: str = "compiled") -> "VAE":
    """The model of a file: its best parameters where it has them, else its parameters.

    Raises    ValueError for an unknown engine, a file that is missing, damaged, not one of ours, or does not fit its
              own header
    """
    from scratchvae.hierarchical import HierarchicalVAE
    from scratchvae.vae import VAE

    check_engine(engine)
    arrays, header = _read(path)
    best = _without_prefix("best.", arrays)
    try:  # nothing is allocated before the tensors have been seen to be what the header says
        model = HierarchicalVAE if "latent_dims" in header["model"] else VAE
        return model(**header["model"], engine=engine, parameters=best or _of_the_model(arrays))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: does not describe a model ({one_line(error)})") from None


def load_state(vae: "VAE", path: str | os.PathLike[str]) -> tuple[Parameters, TrainingState]:
    """The parameters of a checkpoint and the state of its run. `vae` says what they must look like and is left alone.

    Raises    ValueError as `load_model`, and where the file is of another architecture or holds no training state
    """
    arrays, header = _read(path)
    theirs = header.get("model")
    # a file from before there was a choice says nothing of the posterior
    if not isinstance(theirs, dict) or vae.config not in (theirs, {"posterior": "diagonal"} | theirs):
        raise ValueError(f"{path}: holds {theirs}; expected the model being trained, {vae.config}")
    training: Any = header.get("training")
    best = _without_prefix("best.", arrays)
    _check_progress(training, bool(best), path)

    def held(tensors: Mapping[str, NDArray]) -> Parameters:
        try:
            return Parameters.holding(tensors, vae.parameters.shapes, vae.dtype)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    first, second = (held(_without_prefix(f"adam.{moment}.", arrays)) for moment in ("first", "second"))
    history = [json.dumps(entry) for entry in training.pop("history")]
    state = TrainingState(first, second, held(best) if best else None, training, history)
    return held(_of_the_model(arrays)), state


def trained_epochs(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The history of the run whose checkpoint a file is; no epoch where there is no file. Raises as `load_state`."""
    if not Path(path).exists():
        return []
    arrays, header = _read(path)
    training: Any = header.get("training")
    _check_progress(training, any(name.startswith("best.") for name in arrays), path)
    return training["history"]


def _check_progress(training: Any, has_best: bool, path: str | os.PathLike[str]) -> None:
    """Refuse a training entry that fit did not write: every part is there, of its type, and fits the others."""
    if not (isinstance(training, dict) and training.keys() >= PROGRESS.keys()):
        raise ValueError(f"{path}: holds a model without a training state; expected a checkpoint written by fit")
    for name, kind in PROGRESS.items():
        if not isinstance(training[name], kind) or isinstance(training[name], bool):
            raise ValueError(
                f"{path}: training.{name} is {reprlib.repr(training[name])}; expected what fit wrote there"
            )
    history, best = training["history"], training["best_epoch"]
    if not (0 <= training["updates"] < MOST_UPDATES and _is_history(history, training["updates"])):
        raise ValueError(f"{path}: training.history is not one that fit wrote")
    if not (0 < best <= len(history) and history[best - 1]["validation"] if has_best else best == 0):
        raise ValueError(f"{path}: best_epoch {reprlib.repr(best)} does not fit a history of {len(history)} epochs")


def _is_history(rows: list[Any], updates: int) -> bool:
    """Whether rows are the entries of all epochs, each with more updates than the one before, the last with all."""
    if not all(map(_is_entry, rows)):
        return False
    steps = [0, *(row["step"] for row in rows)]
    return (
        [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        and all(before < after for before, after in pairwise(steps))
        and steps[-1] == updates
    )


def _is_entry(row: Any) -> bool:
    """Whether a row of a history is one: averages of the training data, and of the validation data or null."""

    def are_averages(part: Any) -> bool:
        return isinstance(part, dict) and all(isinstance(part.get(name), float) for name in TERMS)

    return (
        isinstance(row, dict)
        and all(is_whole_number(row.get(name)) for name in ("epoch", "step"))
        and are_averages(row.get("train"))
        and "validation" in row
        and (row["validation"] is None or are_averages(row["validation"]))
    )


def _prefixed(prefix: str, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    return {prefix + name: array for name, array in arrays.items()}


def _without_prefix(prefix: str, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _of_the_model(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Those without a prefix: no moments and no best parameters."""
    return {name: array for name, array in arrays.items() if not name.startswith(("adam.", "best."))}


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], dict[str, Any]]:
    arrays, header = read_safetensors(path, FORMAT, "a model written by save or fit (.safetensors)")
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path}: a safetensors file of something else; expected a model written by save or fit")
    if header.get("version") != FORMAT_VERSION:
        raise ValueError(f"{path}: format version {reprlib.repr(header.get('version'))}; expected {FORMAT_VERSION}")
    if name := first_not_finite(arrays.items()):
        raise ValueError(f"{path}: {name} holds a NaN or an infinity; expected finite numbers")
    return arrays, header


def read_safetensors(path: str | os.PathLike[str], key: str, expected: str) -> tuple[dict[str, NDArray], Any]:
    """The tensors of a file by name, and what its header holds under a key, in JSON: None where it holds nothing.

    Raises    ValueError, one line, for a file that is missing or damaged; where it is missing it says what is expected
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not Path(path).is_file():
            what = "is a folder" if Path(path).is_dir() else "no such file"
            raise ValueError(f"{path}: {what}; expected {expected}")
        open(path, "rb").close()  # safetensors says of a file that may not be read that there is none
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; expected {expected}") from None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return arrays, json.loads(metadata.get(key, "null"))
    except (*DAMAGE, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({one_line(error)})") from None
