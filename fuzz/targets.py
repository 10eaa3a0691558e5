"""The readers, and what each must do with any bytes at all: give its answer, or raise ValueError with one line.

A reader is called as the program calls it, on a file. Where a checksum or a length stands before the bytes that
matter (gzip, zip, safetensors), an input whose first byte is odd is put in a proper frame, so that it gets past them.
"""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from scratchvae import VAE
from scratchvae.checkpoint import TrainingState, load_model, load_state, save_model
from scratchvae.cli.run_directory import RunDirectory
from scratchvae.data.arrays import read_csv, read_npy, read_npz
from scratchvae.data.idx import read_idx
from scratchvae.data.labels import read_label_file
from scratchvae.export import load_torch
from scratchvae.export.torch_weights import torch_files

BARE, FRAMED = b"\0", b"\1"  # first byte of an input: the rest is the file, or what its frame is put around


class Target(NamedTuple):
    """A reader under test."""

    file: str  # what its file is called
    read: Callable[[Path], object]
    frame: Callable[[bytes], bytes]
    seeds: tuple[bytes, ...]  # inputs to start from: proper files, framed or not

    def content(self, data: bytes) -> bytes:
        """The file that an input stands for."""
        return self.frame(data[1:]) if data[:1] and data[0] % 2 else data[1:]

    def check(self, data: bytes, folder: Path) -> bool:
        """Read the input: True if it was taken, False if it was refused as it should be. Raises what else happens."""
        path = folder / self.file
        path.write_bytes(self.content(data))
        try:
            self.read(path)
        except ValueError as refusal:
            if isinstance(refusal.__context__, MemoryError):
                raise refusal.__context__ from None
            words = str(refusal)
            if not words or "\n" in words:
                raise AssertionError(f"refused in {words.count(chr(10)) + 1} lines: {words!r}") from refusal
            return False
        return True


# --- data -----------------------------------------------------------------------------------------------------------


def _saved(save: Callable[..., None], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def _zipped(member: bytes) -> bytes:
    """An archive around one member, its checksum and sizes true."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
    return buffer.getvalue()


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def _unframed(content: bytes) -> bytes:
    return content


FLOATS = np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2)
BYTES = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
IDX_BYTES = struct.pack(">BBBB3I", 0, 0, 8, 3, 3, 2, 2) + BYTES.tobytes()
IDX_DOUBLES = struct.pack(">BBBB1I", 0, 0, 14, 1, 3) + np.arange(3.0).astype(">f8").tobytes()
NPY = _saved(np.save, FLOATS), _saved(np.save, np.asfortranarray(BYTES)), _saved(np.save, np.ones((2, 2), ">i8"))
NPZ = _saved(np.savez, x_train=FLOATS, x_test=FLOATS), _saved(np.savez_compressed, BYTES)
CSV = (
    b"a,b\n1,2\n-3.5e-1,nan\n",
    b'# made by hand\n"x";"y"\n1;"2"\n',
    b"1\t2\n\xc3\xa9\t4\n",
    b"\xef\xbb\xbf1,inf\r\n2,\r\n",
)


LABELS = b"a\nb\nc\n", b"1\r\n2\r\n3\r\n", b"\xef\xbb\xbf0.5\n\xc3\xa9\n07\n"


def _read_labels(path: Path) -> np.ndarray:
    return read_label_file(path, 3)


# --- a model, a training state, a run -------------------------------------------------------------------------------


def _model() -> VAE:
    return VAE(2, 1, (), "gaussian-learned", engine="reference")


def _entry(epoch: int) -> dict:
    terms = {"elbo": -2.5, "reconstruction": -2.0, "kl": 0.5, "objective": -2.5}
    return {"epoch": epoch, "step": 2 * epoch, "train": terms, "validation": terms, "seconds": 0.1}


def _checkpoints() -> tuple[bytes, bytes]:
    """A model's file, and that of a training state with its best parameters."""
    import tempfile

    vae = _model()
    progress, history = {"settings": {"batch_size": 2}, "updates": 2, "best_epoch": 1}, [json.dumps(_entry(1))]
    moments, best = (vae.parameters.zeros_like(), vae.parameters.zeros_like()), vae.parameters.copy()
    state = TrainingState(*moments, best, progress, history)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        vae.save(path)
        plain = path.read_bytes()
        save_model(vae, path, state)
        return plain, path.read_bytes()


def _with_length(content: bytes) -> bytes:
    """A safetensors file whose header ends where its JSON does (at the first NUL byte), and so says."""
    header, _, values = content.partition(b"\0")
    return struct.pack("<Q", len(header)) + header + values


def _without_length(file: bytes) -> bytes:
    length = struct.unpack("<Q", file[:8])[0]
    return file[8 : 8 + length] + b"\0" + file[8 + length :]


def _read_checkpoint(path: Path) -> None:
    """As a model, and as a run to go on with: a file may be good as one and bad as the other."""
    try:
        load_model(path, "reference")
    finally:
        load_state(MODEL, path)


def _read_torch(path: Path) -> VAE:
    return load_torch(path, engine="reference")


def _config() -> bytes:
    model = _model().config
    names = ("data_dim", "latent_dim", "hidden", "likelihood", "activation")
    return json.dumps(
        {
            "format": 1,
            "data": {
                "name": "x", "source": "x.npy", "found": ".npy array", "examples": 3, "data_dir": None,
                "image_shape": [1, 2], "sha256": "0" * 64,
            },
            "model": {name: model[name] for name in names} | {"engine": "reference"},
            "training": {
                "objective": "elbo", "samples": 1, "beta": 1.0, "epochs": 3, "batch_size": 2, "learning_rate": 1e-3,
                "binarize": "none", "allow_grey": False, "patience": None, "seed": 0,
            },
        }
    ).encode()  # fmt: skip


def _read_config(path: Path) -> object:
    return RunDirectory(path.parent).config()


def _read_history(path: Path) -> object:
    return RunDirectory(path.parent).history()


def _history() -> bytes:
    return b"".join(json.dumps(_entry(epoch)).encode() + b"\n" for epoch in (1, 2))


MODEL = _model()
PLAIN, TRAINING = _checkpoints()
TORCH = torch_files(MODEL)["weights.safetensors"]

TARGETS = MappingProxyType(
    {
        "idx": Target("x.idx", read_idx, _gzipped, (BARE + IDX_BYTES, FRAMED + IDX_BYTES, BARE + IDX_DOUBLES,
                                                    BARE + _gzipped(IDX_BYTES))),
        "npy": Target("x.npy", read_npy, _unframed, tuple(BARE + file for file in NPY)),
        "npz": Target("x.npz", read_npz, _zipped, (*(BARE + file for file in NPZ), *(FRAMED + file for file in NPY))),
        "csv": Target("x.csv", read_csv, _unframed, tuple(BARE + file for file in CSV)),
        "labels": Target("labels.txt", _read_labels, _unframed, tuple(BARE + file for file in LABELS)),
        "checkpoint": Target("m.safetensors", _read_checkpoint, _with_length,
                             (BARE + PLAIN, BARE + TRAINING, FRAMED + _without_length(PLAIN),
                              FRAMED + _without_length(TRAINING))),
        "torch": Target("w.safetensors", _read_torch, _with_length, (BARE + TORCH, FRAMED + _without_length(TORCH))),
        "config": Target("config.json", _read_config, _unframed, (BARE + _config(),)),
        "history": Target("history.jsonl", _read_history, _unframed, (BARE + _history(),)),
    }
)  # fmt: skip
