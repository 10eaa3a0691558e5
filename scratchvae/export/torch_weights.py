"""PyTorch's weights from a model, and a model from PyTorch's weights. None of this needs torch.

A torch Linear keeps its weight as (out, in), the transpose of ours; everything else is the same under the same name.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchvae.checkpoint import read_safetensors
from scratchvae.data.checks import one_line
from scratchvae.export.plain import check_plain
from scratchvae.files import write_whole
from scratchvae.finite import first_not_finite
from scratchvae.likelihoods import as_likelihood
from scratchvae.vae import VAE

METADATA = "scratchvae.torch"  # the key of the safetensors header under which a model's arguments stand
ARGUMENTS = ("likelihood", "activation")  # what the weights alone do not tell


def torch_state(vae: VAE) -> dict[str, NDArray]:
    """The state_dict of `torch_module.VAE`, as NumPy arrays in memory of their own: `torch.from_numpy` makes tensors.

    Returns   name -> array; every weight (out, in), the transpose of `vae.parameters`
    Raises    ValueError as `check_plain`
    """
    check_plain(vae)
    return {name: np.array(_transposed(name, array), order="C") for name, array in vae.parameters.items()}


def from_torch_state(
    state: Mapping[str, ArrayLike], likelihood: str, activation: str, engine: str = "compiled", seed: int = 0
) -> VAE:
    """The model of a state_dict: its sizes are read from the shapes of the weights.

    Takes     state: name -> tensor or array, as `torch_module.VAE` names them; likelihood, activation: as of `VAE`
    Returns   a VAE of the weights' dtype, float32 or float64
    Raises    ValueError for a name that is missing or too many, for a dtype or a shape that does not fit (the message
              has shapes as (in, out)), or for a weight that is NaN or infinite
    """
    arrays = {name: _transposed(name, _as_array(name, value)) for name, value in state.items()}
    vae = VAE(
        **_sizes(arrays), likelihood=likelihood, activation=activation, engine=engine, seed=seed, parameters=arrays
    )
    if name := first_not_finite(vae.parameters.items()):
        raise ValueError(f"{name} holds a NaN or an infinity; expected finite numbers")
    return vae


def _as_array(name: str, value: ArrayLike) -> NDArray:
    try:
        return np.asarray(value)
    except (TypeError, RuntimeError) as error:  # of PyTorch: a type that NumPy has not, a parameter of a live module
        raise ValueError(f"{name}: no array ({one_line(error)}); expected tensors of a state_dict") from None


def save_torch(vae: VAE, path: str | os.PathLike[str]) -> None:
    """Write `torch_state` as a safetensors file, complete or not at all; its header holds the model's arguments.

    Raises    ValueError where the folder does not exist or cannot be written
    """
    write_whole(path, _safetensors(vae))


def load_torch(
    path: str | os.PathLike[str], likelihood: str | None = None, activation: str | None = None, engine: str = "compiled"
) -> VAE:
    """The model of a safetensors file with a state_dict of `torch_module.VAE`.

    Takes     likelihood, activation: needed where the file was written from torch, whose header does not hold them
    Raises    ValueError for a file that is missing or damaged, or as `from_torch_state`
    """
    arrays, told = read_safetensors(path, METADATA, "a state_dict in a .safetensors file")
    told = {} if told is None else told
    if not isinstance(told, dict):
        raise ValueError(f"{path}: its header does not describe a model")
    likelihood = None if likelihood is None else as_likelihood(likelihood).name
    given = {"likelihood": likelihood, "activation": activation}
    arguments: dict[str, Any] = {name: told.get(name) if given[name] is None else given[name] for name in ARGUMENTS}
    for name, value in arguments.items():
        if value is None:
            raise ValueError(f"{path}: does not say its {name}; expected {name}= to be given")
        if told.get(name, value) != value:
            raise ValueError(f"{path}: was written with {name} {told[name]!r}; got {value!r}")
    try:
        return from_torch_state(arrays, **arguments, engine=engine, seed=told.get("seed", 0))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def torch_module_source() -> str:
    """The text of `torch_module.py`: the model as a PyTorch module, to be copied into a project of yours."""
    return Path(__file__).with_name("torch_module.py").read_text(encoding="utf-8")


def torch_files(vae: VAE) -> dict[str, bytes]:
    """The contents of weights.safetensors, as `save_torch` writes it, and vae.py, the module that these weights fit."""
    return {"weights.safetensors": _safetensors(vae), "vae.py": torch_module_source().encode()}


def torch_call(vae: VAE) -> str:
    """The call that makes the module of `torch_module.py` whose state_dict `torch_state` is."""
    given = ", ".join(f"{name}={vae.config[name]!r}" for name in ("data_dim", "latent_dim", "hidden", *ARGUMENTS))
    return f"VAE({given})" + (".double()" if vae.dtype == np.float64 else "")


def _safetensors(vae: VAE) -> bytes:
    from safetensors.numpy import save

    return save(torch_state(vae), {METADATA: json.dumps(vae.config)})


def _transposed(name: str, array: NDArray) -> NDArray:
    return array.T if name.endswith(".weight") and array.ndim == 2 else array


def _sizes(arrays: Mapping[str, NDArray]) -> dict[str, Any]:
    """data_dim, latent_dim, hidden and dtype, from weights (in, out): the decoder's rows, its columns, and between."""
    stack, index = [], 0
    while f"decoder.{index}.weight" in arrays:
        stack.append(arrays[f"decoder.{index}.weight"])
        index += 1
    if "decoder.head.weight" not in arrays:
        raise ValueError("has no tensor decoder.head.weight; expected the names of torch_module.VAE")
    stack.append(arrays["decoder.head.weight"])
    if any(weight.ndim != 2 for weight in stack):
        raise ValueError("a weight of the decoder is not two-dimensional; expected (out, in)")
    return {
        "data_dim": stack[-1].shape[1],
        "latent_dim": stack[0].shape[0],
        "hidden": tuple(weight.shape[1] for weight in stack[:-1])[::-1],
        "dtype": stack[-1].dtype.name,
    }
