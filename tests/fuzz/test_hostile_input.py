"""Hostile bytes: every reader reads them, or refuses them in one line of ValueError and takes no memory before."""

import ast
import io
import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scratchvae as sv
from fuzz.__main__ import READERS, main
from fuzz.targets import TARGETS
from scratchvae.checkpoint import load_model
from scratchvae.data.arrays import read_npy, read_npz
from scratchvae.data.idx import read_idx
from scratchvae.engine import get_engine
from tests.cli.conftest import REPOSITORY

MB = 1 << 20


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A proper file after a few edits: bytes changed, cut out, put in, the end cut off."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(1, len(data)))
        cut = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 4, 8, len(data)]))
        data[at : at + cut] = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 8, b"9" * 12, b"[" * 50]))
        )
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name, tmp_path_factory):
    target, folder = TARGETS[name], tmp_path_factory.mktemp(name)

    @settings(max_examples=150)
    @given(data=st.one_of(damaged(target.seeds), st.binary(max_size=200)))
    def holds(data: bytes) -> None:
        target.check(data, folder)

    holds()


@pytest.mark.parametrize("name", TARGETS)
def test_the_check_itself_fails_for_a_reader_that_raises_something_else(name, tmp_path):
    def careless(path: Path) -> None:
        raise KeyError(path.read_bytes()[0])

    def talkative(path: Path) -> None:
        raise ValueError("two\nlines")

    target = TARGETS[name]
    with pytest.raises(KeyError):
        target._replace(read=careless).check(target.seeds[0], tmp_path)
    with pytest.raises(AssertionError, match="2 lines"):
        target._replace(read=talkative).check(target.seeds[0], tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_there_are_proper_files_among_the_seeds(name, tmp_path):
    target = TARGETS[name]
    assert any(target.check(seed, tmp_path) for seed in target.seeds)


# --- a few bytes that promise much ----------------------------------------------------------------------------------


def npy_header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def zipped(content: bytes, **entry: int) -> bytes:
    """An archive around one member, with what its directory says of it changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
        for name, value in entry.items():
            setattr(archive.infolist()[0], name, value)
    return buffer.getvalue()


def safetensors(header: dict, values: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def described(model: dict) -> dict:
    return {"__metadata__": {"scratchvae": json.dumps({"format": "scratchvae", "version": 1, "model": model})}}


BILLION = 10**9
MODEL = sv.VAE(2, 1, (), engine="reference").config
PROMISES = {
    "npy, a shape": (read_npy, npy_header((BILLION,))),
    "npy, a shape beyond 64 bits": (read_npy, npy_header((BILLION,) * 9)),
    "npy, a long header": (read_npy, b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"),
    "npy, nested brackets": (read_npy, b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000),
    "npy, nested signs": (read_npy, npy_header((1,)).replace(b"(1,)", b"(" + b"-" * 40 + b"1,)")),
    "npz, a shape": (read_npz, zipped(npy_header((BILLION,)))),
    "npz, a long header": (read_npz, zipped(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{")),
    "npz, a directory that lies": (read_npz, zipped(npy_header((BILLION,)), file_size=8 * BILLION + 75)),
    "idx, a shape": (read_idx, b"\0\0\x0e\x02" + struct.pack(">2I", BILLION, BILLION)),
    "idx, 255 sizes": (read_idx, b"\0\0\x08\xff" + b"\0" * 4 * 255),
    "idx, sizes beside a zero": (read_idx, b"\0\0\x08\x04" + b"\0" * 4 + b"\xff" * 12),
    "safetensors, a long header": (load_model, struct.pack("<Q", BILLION)),
    "safetensors, a tensor": (
        load_model,
        safetensors({"a": {"dtype": "F64", "shape": [BILLION], "data_offsets": [0, 8 * BILLION]}}),
    ),
    "safetensors, a wide model": (load_model, safetensors(described(MODEL | {"data_dim": BILLION}))),
    "safetensors, a deep model": (load_model, safetensors(described(MODEL | {"hidden": [BILLION] * 9}))),
    "safetensors, nested brackets": (load_model, safetensors({"__metadata__": {"scratchvae": "[" * 100_000}})),
}


@pytest.mark.parametrize("name", PROMISES)
def test_no_memory_is_taken_on_a_header_s_word(name, tmp_path):
    read, content = PROMISES[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    get_engine("compiled")  # what its import takes is not the reader's
    tracemalloc.start()  # NumPy's arrays are seen by it
    try:
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * MB
    finally:
        tracemalloc.stop()


def test_an_archive_s_members_are_never_paths(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("../../escaped.npy", "/escaped.npy", "x_train.npy"):
            member = io.BytesIO()
            np.save(member, np.ones((2, 2)))
            archive.writestr(name, member.getvalue())
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.npz"
    path.write_bytes(buffer.getvalue())
    assert read_npz(path).found == "array 'x_train'"
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["x.npz"]


def test_an_encrypted_member_and_a_strange_compression_are_refused(tmp_path):
    for entry, words in (({"flag_bits": 1}, "encrypted"), ({"compress_type": zipfile.ZIP_LZMA}, "method 14")):
        path = tmp_path / "x.npz"
        path.write_bytes(zipped(npy_header((0,)), **entry))
        with pytest.raises(ValueError, match=words):
            read_npz(path)


@pytest.fixture(scope="module")
def package() -> dict[Path, ast.Module]:
    """The sources, parsed."""
    return {file: ast.parse(file.read_text()) for file in sorted((REPOSITORY / "scratchvae").rglob("*.py"))}


@pytest.mark.parametrize("word", ["pickle", "eval", "exec", "extractall", "extract"])
def test_nothing_in_the_package_unpickles_evaluates_or_extracts(word, package):
    for file, tree in package.items():
        for node in ast.walk(tree):
            called = getattr(node, "func", None)
            assert word not in (getattr(called, "id", None), getattr(called, "attr", None)), file
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert word not in modules, file


def test_numpy_is_never_allowed_to_unpickle(package):
    allowed = [
        keyword.value
        for tree in package.values()
        for node in ast.walk(tree)
        for keyword in getattr(node, "keywords", [])
        if keyword.arg == "allow_pickle"
    ]
    assert allowed
    assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed)


def test_the_fuzzer_names_every_reader():
    assert tuple(TARGETS) == READERS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "'nonsense' is no reader and no file; expected readers among idx, npy, "),
        (["setup.cfg"], "setup.cfg: expected one reader before it, which reads it again; got 0"),
    ],
)
def test_the_fuzzer_refuses_what_is_no_reader_in_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_the_fuzzer_runs_and_finds_nothing(tmp_path):
    """A little of `python -m fuzz`, which needs the `fuzz` extra; a million inputs a reader are a night's work."""
    command = [sys.executable, "-m", "fuzz", "idx", "checkpoint", "--runs", "3000", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [result["passed"] for result in json.loads((tmp_path / "r.json").read_text())["readers"]] == [True, True]


def test_the_run_that_is_kept_is_of_every_reader_and_found_nothing():
    kept = json.loads((REPOSITORY / "fuzz/results.json").read_text())["readers"]
    assert {result["reader"]: result["passed"] for result in kept} == dict.fromkeys(TARGETS, True)
