"""Compiled kernels: kept under the name of their sources; in a second process once, never in the way of the first."""

import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numba
import numpy as np
import pytest

from scratchvae.compiled.kernel_cache import compiled_beside
from scratchvae.compiled.step_parts import converted_from

cache = import_module("scratchvae.compiled.kernel_cache")  # the package has a function of that name


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PATH", tmp_path)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 2)


def appending(file):
    """Code that leaves one more letter in the file."""
    return f"open({str(file)!r}, 'a').write('x')"


def test_code_has_run_when_the_block_ends_and_runs_once(tmp_path):
    for _ in range(2):
        with compiled_beside("kernels", appending(tmp_path / "letters")):
            pass
        assert (tmp_path / "letters").read_text() == "x"


@pytest.mark.parametrize(
    ("of", "name", "other"), [(numba, "__version__", "0.1"), (numba.config, "CPU_FEATURES", "+sse2")]
)
def test_code_runs_once_for_every_target(tmp_path, monkeypatch, of, name, other):
    """What Numba keeps for one it does not take for another."""
    for letters, target in (("x", getattr(of, name)), ("xx", other), ("xx", getattr(of, name))):
        monkeypatch.setattr(of, name, target)
        with compiled_beside("kernels", appending(tmp_path / "letters")):
            pass
        assert (tmp_path / "letters").read_text() == letters


def test_code_of_another_name_runs_too(tmp_path):
    for name in ("kernels-float32", "kernels-float64"):
        with compiled_beside(name, appending(tmp_path / "letters")):
            pass
    assert (tmp_path / "letters").read_text() == "xx"


def test_where_it_fails_nothing_is_said_and_it_is_tried_again(tmp_path, capfd):
    for letters in ("x", "xx"):
        with compiled_beside("kernels", appending(tmp_path / "letters") + "\nraise ValueError"):
            pass
        assert (tmp_path / "letters").read_text() == letters
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_block_ends_it(tmp_path):
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError), compiled_beside("kernels", "import time; time.sleep(60)"):
        raise ZeroDivisionError
    assert time.monotonic() - started < 30
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="listens to the other process by a pipe with a name")
def test_ctrl_c_in_the_block_ends_the_other_process(tmp_path):
    pipe, ends = tmp_path / "pipe", []
    os.mkfifo(pipe)

    def interrupted():
        code = f"import time; end = open({str(pipe)!r}, 'w'); time.sleep(3); end.write('still there')"
        with compiled_beside("kernels", code):
            ends.append(pipe.open())  # waits until the other process has opened its end
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with ends[0] as end:
        assert end.read() == ""


def test_the_other_process_finds_the_same_sources(tmp_path, monkeypatch):
    """Wherever this one was started."""
    monkeypatch.chdir(tmp_path)
    with compiled_beside("kernels", f"import os; open({str(tmp_path / 'folder')!r}, 'w').write(os.getcwd())"):
        pass
    assert Path((tmp_path / "folder").read_text()) == cache.FOLDER.parents[1]


@pytest.mark.parametrize(("threads", "python"), [(1, sys.executable), (2, ""), (2, None), (2, "/no/python")])
def test_one_thread_or_a_program_that_is_not_python_starts_no_other_process(tmp_path, monkeypatch, threads, python):
    """A program that Python is embedded in may not know where Python is. Nor can the system always start one."""
    monkeypatch.setattr(numba, "get_num_threads", lambda: threads)
    monkeypatch.setattr(sys, "executable", python)
    with compiled_beside("kernels", appending(tmp_path / "letters")):
        pass
    assert not list(tmp_path.iterdir())


# --- where they are kept ---------------------------------------------------------------------------------------------


FILES = ("compiled/a.py", "compiled/b.py", "reference/a.py", "parameters.py")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder with a few sources in place of the project's."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "compiled")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    return tmp_path


def test_any_change_of_any_source_gives_the_kernels_another_name(sources):
    names = [cache._sources()]
    assert names[0] == cache._sources()
    for name in (*FILES, "compiled/c.py"):
        (sources / name).write_text("changed")
        names.append(cache._sources())
    for name in ("compiled/notes.txt", "training.py"):
        (sources / name).write_text("no source of a kernel")
        assert cache._sources() == names[-1]
    assert len(set(names)) == len(names) == 6
    assert all(name.startswith("kernels-") for name in names)


def test_kernels_take_nothing_from_files_that_do_not_name_them():
    taken = set()
    for path in cache.FOLDER.glob("*.py"):
        taken |= {
            name.split(".")[0] for name in re.findall(r"^from scratchvae\.([\w.]+) import", path.read_text(), re.M)
        }
    assert taken == {"compiled", "reference", "parameters"}


def test_kernels_lie_where_the_user_says_else_beside_the_sources_else_in_the_users_cache(sources, monkeypatch):
    assert cache._parent() == sources / "compiled" / "__pycache__"
    monkeypatch.setattr(cache.os, "access", lambda path, mode: path != cache.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache._parent() == Path("/somewhere/scratchvae")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache._parent() == Path.home() / ".cache" / "scratchvae"
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/asked/for")
    assert cache._parent() == Path("/asked/for")


def test_a_folder_of_kernels_that_is_someone_elses_is_left_alone(sources, monkeypatch):
    """As after a first run by another user."""
    beside = sources / "compiled" / "__pycache__"
    beside.mkdir()
    assert cache._parent() == beside
    monkeypatch.setattr(cache.os, "access", lambda path, mode: path != beside)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache._parent() == Path("/somewhere/scratchvae")


def test_a_user_without_a_home_has_a_folder_that_goes_with_the_process(sources, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache.os, "access", lambda path, mode: path != cache.FOLDER)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(cache, "_temporary", lambda: sources / "temporary")
    assert cache._parent() == sources / "temporary"


@pytest.mark.slow
def test_where_none_can_be_kept_they_go_with_the_process_and_those_it_starts_share_them(tmp_path):
    """As for a user who owns neither the package nor a home."""
    code = r"""if True:
        import os
        os.access = lambda path, mode: False
        import numba, numpy
        from importlib import import_module
        dense, kernel_cache = (import_module(f"scratchvae.compiled.{name}") for name in ("dense", "kernel_cache"))
        numba.get_num_threads = lambda: 2
        with kernel_cache.compiled_beside("kernels", "pass"):
            dense.dense_forward(*(numpy.ones(shape, "f4") for shape in ((2, 3), (3, 4), 4)), "relu")
        kept = [str(file) for file in kernel_cache.PATH.rglob("*") if file.is_file()]
        print(kernel_cache.PATH, *kept, sep="\n")
    """
    environment = {**os.environ, "TMPDIR": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    path, *kept = ended.stdout.splitlines()
    assert path.startswith(f"{tmp_path}/scratchvae-")
    assert [name.startswith(f"{path}/kernels-") for name in kept if name.endswith(".compiled")] == [True]
    assert [name for name in kept if name.endswith(".nbc")]
    assert not list(tmp_path.iterdir())


def test_numbas_own_cache_is_another_folder_outside_and_after_an_error():
    before = numba.config.CACHE_DIR
    with cache.kernel_cache():
        assert str(cache.PATH) == numba.config.CACHE_DIR
    assert before == numba.config.CACHE_DIR
    with pytest.raises(KeyError), cache.kernel_cache():
        raise KeyError
    assert before == numba.config.CACHE_DIR


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_kernels_that_are_made_when_they_are_asked_for_lie_with_the_others(tmp_path, dtype):
    kernel = converted_from.__wrapped__(np.dtype(dtype))
    assert Path(kernel.stats.cache_path).is_relative_to(tmp_path)


def versions_in(folder, count):
    """Kernels of so many versions, the first the oldest."""
    versions = [folder / f"kernels-{number:016x}" for number in range(count)]
    for age, version in enumerate(versions):
        version.mkdir()
        (version / "kernel").write_text("")
        os.utime(version, (1000 + age, 1000 + age))
    return versions


def test_the_last_three_versions_are_kept_and_the_one_in_use(tmp_path, monkeypatch):
    versions, others = versions_in(tmp_path, 6), [tmp_path / "of someone else", tmp_path / "kernels-of-someone-else"]
    for folder in others:
        folder.mkdir()
        os.utime(folder, (0, 0))
    monkeypatch.setattr(cache, "PATH", versions[1])
    for _ in range(2):
        cache.remove_old_kernels()
        assert set(tmp_path.iterdir()) == {versions[1], *versions[3:], *others}


def test_a_version_that_another_process_has_just_deleted_is_in_nobodys_way(tmp_path, monkeypatch):
    """Its name has been read, and there is nothing behind it."""
    versions = versions_in(tmp_path, 5)
    (tmp_path / f"kernels-{9:016x}").symlink_to(tmp_path / "deleted")
    monkeypatch.setattr(cache, "PATH", versions[4])
    cache.remove_old_kernels()
    assert [version.exists() for version in versions] == [False, False, True, True, True]
