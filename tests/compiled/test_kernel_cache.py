"""Kernels compiled in a second process: once, and never in the way of the first."""

import time
from importlib import import_module

import numba
import pytest

from scratchvae.compiled.kernel_cache import compiled_beside


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("scratchvae.compiled.kernel_cache"), "PATH", tmp_path)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 2)


def appending(file):
    """Code that leaves one more letter in the file."""
    return f"open({str(file)!r}, 'a').write('x')"


def test_code_has_run_when_the_block_ends_and_runs_once(tmp_path):
    for _ in range(2):
        with compiled_beside("kernels", appending(tmp_path / "letters")):
            pass
        assert (tmp_path / "letters").read_text() == "x"


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


def test_one_thread_starts_no_other_process(tmp_path, monkeypatch):
    monkeypatch.setattr(numba, "get_num_threads", lambda: 1)
    with compiled_beside("kernels", appending(tmp_path / "letters")):
        pass
    assert not list(tmp_path.iterdir())
