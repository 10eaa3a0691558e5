"""What is published: a wheel and an sdist that twine accepts, and a wheel that works where nothing else is."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA_FILES = ("scratchvae/py.typed", "scratchvae/report/explain/page.html", "scratchvae/report/explain/page.css")


def run(*command, cwd=None):
    """The command's output. PYTHONPATH is taken away, so that what is installed is what runs."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist, and the wheel made from it: what is not in the sdist is not in the wheel."""
    pytest.importorskip("build", reason="build, of the extra dev, is not installed")
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "scratchvae"
    run("git", "clone", "--quiet", ROOT, source)
    run(sys.executable, "-m", "build", "--outdir", out, source)
    return out


@pytest.mark.slow
def test_wheel_and_sdist_are_whole_and_twine_accepts_them(built):
    pytest.importorskip("twine", reason="twine, of the extra dev, is not installed")
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    said = run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    assert said.count("PASSED") == 2
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
    packages = {name.split("/")[0] for name in inside}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"scratchvae"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "scratchvae").rglob("*.py")}
    assert set(DATA_FILES) | modules <= set(inside)
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "setup.cfg", "pyproject.toml", "LICENSE", *DATA_FILES} <= inside
    assert not any(name.startswith("tests") for name in inside), "some tests, without what they import"


@pytest.mark.slow
def test_the_wheel_trains_and_explains_in_an_empty_environment(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    assert str(tmp_path) in run(
        binaries / "python", "-c", "import scratchvae; print(scratchvae.__file__)", cwd=tmp_path
    )
    run(binaries / "scratchvae", "train", "--epochs", 2, "--out", "run", cwd=tmp_path)
    assert {"model.safetensors", "report.html"} <= {path.name for path in (tmp_path / "run").iterdir()}
    run(binaries / "scratchvae", "explain", "--quick", "--out", "explain.html", cwd=tmp_path)
    assert "log p(x)" in (tmp_path / "explain.html").read_text()
