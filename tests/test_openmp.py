"""Idle threads: how long they spin before they sleep."""

import importlib.util
import os
import subprocess
import sys

import pytest

from scratchvae import openmp
from scratchvae.openmp import SETTINGS, load_openmp

STARTS = (
    "from scratchvae.engine import get_engine; get_engine('compiled')",
    "from scratchvae.engine import get_threads; get_threads()",
)
GNU = sys.platform == "linux" and importlib.util.find_spec("numba.np.ufunc.omppool") is not None


@pytest.mark.skipif(not GNU, reason="the threads are not of GNU's OpenMP")
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("users", [{}, {"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "passive"}])
def test_idle_threads_spin_ten_thousand_turns_unless_the_user_says_otherwise(start, users):
    expected = {"GOMP_SPINCOUNT": "77", "OMP_WAIT_POLICY": "0"}[next(iter(users))] if users else "10000"
    program = (
        f"import os; before = dict(os.environ); {start}; import numba.np.ufunc.omppool; assert before == os.environ"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **users}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{expected}'" in found.stderr


def test_the_environment_is_touched_by_the_first_call_alone(monkeypatch):
    """Others may read it meanwhile, and the number of threads is asked for many times in an epoch."""
    load_openmp()
    monkeypatch.setattr(openmp, "os", None)
    load_openmp()


def test_threads_of_another_kind_need_no_such_library(monkeypatch):
    def missing(_):
        raise ImportError("libgomp.so.1: cannot open shared object file")

    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(openmp, "import_module", missing)
    load_openmp.__wrapped__()
    assert not set(SETTINGS) & set(os.environ)
