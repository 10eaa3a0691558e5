"""The package as a whole: importing it is light, its contents page is true, its README is too."""

import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import scratchvae as sv
from scratchvae.engine import (
    ENGINES,
    get_engine,
    get_threads,
    one_compiled_thread,
    one_order_of_sums,
    one_thread,
    processors,
    set_threads,
)

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("matplotlib", "sklearn", "typer", "rich", "pooch", "safetensors", "scipy", "PIL", "torch", "jax")


def python(code, *flags):
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=300)


def test_importing_the_package_loads_no_library_for_plots_data_or_files():
    code = f"import sys, scratchvae; print([name for name in {HEAVY} if name in sys.modules])"
    done = python(code, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert not done.stderr


def test_the_reference_engine_trains_without_compiling_anything():
    code = (
        "import sys, numpy as np, scratchvae as sv\n"
        "vae = sv.VAE(5, 2, (3,), engine='reference')\n"
        "sv.fit(vae, np.eye(5), epochs=1, progress=False)\n"
        "print([name for name in ('numba', 'rich') if name in sys.modules])"
    )
    done = python(code, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_importing_the_package_takes_less_than_half_a_second():
    """Of processor time, so that a busy machine does not matter; the interpreter's own start is not counted."""
    code = "import time; start = time.process_time(); import scratchvae; print(time.process_time() - start)"
    assert min(float(python(code).stdout) for _ in range(3)) < 0.5


def test_the_contents_page_lists_what_is_there():
    assert sv.__doc__
    assert set(re.findall(r"\w+", sv.__doc__)) >= set(sv.__all__)
    assert sorted(sv.__all__) == sorted(set(sv.__all__))
    for name in sv.__all__:
        assert getattr(sv, name).__doc__, f"{name} has no docstring"
    for module in map(get_engine, ENGINES):
        for name in module.__all__:
            assert hasattr(module, name)


def test_what_is_imported_when_it_is_asked_for_is_found_by_completion_too():
    assert set(sv.__all__) <= set(dir(sv))


PINNED = {  # what programs rely on: these parameters, in this order, with these defaults
    sv.VAE: {
        "data_dim": 784, "latent_dim": 20, "hidden": (400,), "likelihood": "bernoulli", "activation": "relu",
        "dtype": "float32", "engine": "compiled", "seed": 0,
    },
    sv.VAE.sample: {"n": None, "seed": 0, "mean": False},
    sv.log_evidence: {"vae": None, "x": None, "method": "importance", "num_samples": 5000, "seed": 0},
    sv.check_gradients: {"vae": None, "x": None, "eps": None, "objective": sv.ELBO(), "method": "complex"},
    sv.ELBO: {"num_samples": 1, "beta": 1.0},
    sv.IWAE: {"num_samples": 50},
}  # fmt: skip


@pytest.mark.parametrize("called", PINNED, ids=lambda called: called.__qualname__)
def test_parameters_and_their_defaults_stay(called):
    found = {p.name: p.default for p in inspect.signature(called).parameters.values() if p.name != "self"}
    wanted = PINNED[called]
    assert list(found)[: len(wanted)] == list(wanted)
    assert {name: found[name] for name, default in wanted.items() if default is not None} == {
        name: default for name, default in wanted.items() if default is not None
    }


def test_the_reference_operations_all_say_what_they_are():
    for name in get_engine("reference").__all__:
        assert getattr(get_engine("reference"), name).__doc__, name


def test_an_unknown_engine_and_impossible_threads_are_refused():
    with pytest.raises(ValueError, match="engine is 'gpu'; expected one of reference, compiled"):
        get_engine("gpu")
    assert processors() >= 1
    for threads in (0, 10_000):
        with pytest.raises(ValueError, match=f"threads is {threads}; expected 1 to"):
            set_threads(threads)


def matrix_threads():
    """Of NumPy's matrix library."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_one_thread_is_one_while_it_lasts_and_as_many_as_before_however_it_ends():
    before = get_threads(), matrix_threads()
    with contextlib.suppress(KeyError), one_thread():
        assert (get_threads(), matrix_threads()) == (1, {1})
        raise KeyError
    assert (get_threads(), matrix_threads()) == before
    with one_thread(wanted=False):
        assert (get_threads(), matrix_threads()) == before
    for not_wanted in (one_thread, one_compiled_thread):
        with not_wanted(wanted=False):
            set_threads(1)
        assert get_threads() == 1, "what is set meanwhile stays"
        set_threads(before[0])


def test_the_reference_engine_alone_needs_one_thread_for_one_order_of_sums():
    before = get_threads(), matrix_threads()
    for engine, during in (("reference", {1}), ("compiled", before[1])):
        with one_order_of_sums(engine):
            assert (get_threads(), matrix_threads()) == (before[0], during)
        assert matrix_threads() == before[1]


def test_of_trainings_at_once_the_last_to_end_gives_the_threads_back_in_whatever_order_they_end():
    """Or one goes on with sums in another order, and the process is left with one thread."""
    with threadpool_limits(2, "blas"):
        before = matrix_threads()
        with contextlib.ExitStack() as longer:
            with one_order_of_sums("reference"):
                longer.enter_context(one_order_of_sums("reference"))
            assert matrix_threads() == {1}
        assert matrix_threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process is not told which processors it may use")
def test_processors_that_this_process_may_not_use_do_not_count():
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, mine)


def readme_example():
    text = (ROOT / "README.md").read_text()
    found = re.search(r"```python\n(.*?)```.*?```text\n(.*?)```", text, re.DOTALL)
    assert found, "README.md has a block of Python and, below it, a block of what it prints"
    return found.groups()


def test_the_readmes_example_prints_what_it_says():
    code, printed = readme_example()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    number = re.compile(r"-?\d+\.\d+|-?\d+")
    assert number.sub("#", out.getvalue()).split() == number.sub("#", printed).split()
    got, want = ([float(n) for n in number.findall(text)] for text in (out.getvalue(), printed))
    assert got == pytest.approx(want, abs=0.15), "numbers to the digit printed, but for rounding on other processors"


def test_the_readmes_pipeline_runs():
    _, code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    assert names["z"].shape == (178, 2)
    assert np.isfinite(names["model"].score(names["table"]))


def test_every_file_that_the_readme_names_exists():
    names = re.findall(r"`((?:scratchvae|tests|benchmarks|fuzz)/[\w./]+)`", (ROOT / "README.md").read_text())
    assert names
    for name in names:
        assert (ROOT / name).exists(), name
