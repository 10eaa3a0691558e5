"""Where tests of data find or leave their files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write_file


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The real MNIST files, where there are any."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("SCRATCHVAE_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("the real MNIST is not here: set SCRATCHVAE_DATA to the folder with its four IDX files")
    return folder
