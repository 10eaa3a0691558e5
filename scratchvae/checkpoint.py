"""Models and training states as safetensors files: arrays by name, and a header of JSON. No pickle anywhere.

A file holds the parameters under their names; of a training state also Adam's moments ("adam.first.<name>",
"adam.second.<name>") and, with early stopping, the best parameters so far ("best.<name>"). Current parameters always
stand beside current moments: that pair continues the run bit for bit, while `load_model` returns the best ones.
The header holds the format version, the model's configuration and, of a training state, where the run stands.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.parameters import Parameters

if TYPE_CHECKING:
    from scratchvae.vae import VAE

FORMAT = "scratchvae"
FORMAT_VERSION = 1
PROGRESS = {"settings", "updates", "best_epoch", "history"}  # what the header says of a run


@dataclass
class TrainingState:
    """Everything that a run needs to go on: moments, the best parameters so far, and the header's training entry."""

    first: Parameters
    second: Parameters
    best: Parameters | None = None
    progress: dict[str, Any] = field(default_factory=dict)


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
        header["training"] = state.progress
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_whole(path, save(contiguous, {FORMAT: json.dumps(header)}))


def load_model(path: str | os.PathLike[str], engine: str = "compiled") -> "VAE":
    """The model of a file: its best parameters where it has them, else its parameters.

    Raises    ValueError for a file that is missing, damaged, not one of ours, or does not fit its own header
    """
    arrays, header = _read(path)
    vae = _build(header, engine, path)
    prefix = "best." if any(name.startswith("best.") for name in arrays) else ""
    _fill(vae.parameters, arrays, prefix, path)
    return vae


def load_state(vae: "VAE", path: str | os.PathLike[str]) -> tuple[Parameters, TrainingState]:
    """The parameters of a checkpoint and the state of its run. `vae` says what they must look like and is left alone.

    Raises    ValueError as `load_model`, and where the file is of another architecture or holds no training state
    """
    arrays, header = _read(path)
    theirs = header.get("model")
    if theirs != vae.config:
        raise ValueError(f"{path}: holds {theirs}; expected the model being trained, {vae.config}")
    training = header.get("training")
    if not (isinstance(training, dict) and training.keys() >= PROGRESS):
        raise ValueError(f"{path}: holds a model without a training state; expected a checkpoint written by fit")
    parameters = vae.parameters.zeros_like()
    _fill(parameters, arrays, "", path)
    state = TrainingState(vae.parameters.zeros_like(), vae.parameters.zeros_like(), progress=training)
    _fill(state.first, arrays, "adam.first.", path)
    _fill(state.second, arrays, "adam.second.", path)
    if any(name.startswith("best.") for name in arrays):
        state.best = vae.parameters.zeros_like()
        _fill(state.best, arrays, "best.", path)
    return parameters, state


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one, never a part.

    Raises    ValueError where the folder does not exist or cannot be written
    """
    target = Path(path)
    try:
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise ValueError(f"{target}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, target)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _prefixed(prefix: str, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    return {prefix + name: array for name, array in arrays.items()}


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; expected a model written by save or fit (.safetensors)")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        header = json.loads(metadata.get(FORMAT, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({' '.join(str(error).split())})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path}: a safetensors file of something else; expected a model written by save or fit")
    if header.get("version") != FORMAT_VERSION:
        raise ValueError(f"{path}: format version {header.get('version')!r}; expected {FORMAT_VERSION}")
    return arrays, header


def _build(header: dict[str, Any], engine: str, path: str | os.PathLike[str]) -> "VAE":
    from scratchvae.vae import VAE

    try:
        return VAE(**header["model"], engine=engine)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its header does not describe a model ({error})") from None


def _fill(parameters: Parameters, arrays: Mapping[str, NDArray], prefix: str, path: str | os.PathLike[str]) -> None:
    for name, place in parameters.items():
        stored = arrays.get(prefix + name)
        if stored is None:
            raise ValueError(f"{path}: has no tensor {prefix + name}")
        if stored.shape != place.shape or stored.dtype != place.dtype:
            raise ValueError(
                f"{path}: tensor {prefix + name} is {stored.dtype} {stored.shape}; expected {place.dtype} {place.shape}"
            )
        place[...] = stored
