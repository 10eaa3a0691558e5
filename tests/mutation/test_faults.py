"""The tool that measures the tests is itself tested: its faults are those it says, each meets the right tests."""

import json
import sys
from pathlib import Path

import pytest

from tests.mutation.coverage import Run, quickest
from tests.mutation.operators import faults
from tests.mutation.trial import WithFault, dependents, keep_kernels

ROOT = Path(__file__).resolve().parents[2]


def changes(source):
    return {(fault.kind, fault.before, fault.after) for fault in faults(source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {("comparison", "a < b", "(a <= b)"), ("comparison", "a < b", "(a >= b)")}),
        ("a == b", {("comparison", "a == b", "(a != b)")}),
        ("a - b", {("arithmetic", "a - b", "(a + b)")}),
        ("-a", {("sign", "-a", "(a)")}),
        ("a += b", {("sign", "a += b", "a -= b"), ("omission", "a += b", "pass")}),
        ("a = 0", {("constant", "0", "1")}),
        ("a = 0.5", {("constant", "0.5", "1.0")}),
        ("a = True", {("constant", "True", "False")}),
        ("a and not b", {("logic", "a and not b", "(a or not b)"), ("logic", "not b", "(b)")}),
        ("if a: pass", {("logic", "a", "(not a)")}),
        ("def f(a): return a", {("return", "return a", "return None")}),
        ("a[b] = c", {("omission", "a[b] = c", "pass")}),
        ("check(a)", {("omission", "check(a)", "pass")}),
        ("raise ValueError(1 + 1)", set()),
        ("def f(a: A[1]) -> B[2]: 'text'", set()),
        ("__all__ = ['a', 1]", set()),
    ],
)
def test_each_kind_of_fault(source, expected):
    assert changes(source) == expected


@pytest.mark.slow
@pytest.mark.parametrize("file", ["reference/gaussian.py", "vae.py", "training.py", "compiled/random.py"])
def test_every_fault_is_another_program_that_differs_in_one_place(file):
    source = (ROOT / "scratchvae" / file).read_text()
    found = faults(source)
    assert len(found) > 30
    for fault in found:
        faulty = fault.apply(source)
        assert faulty != source
        compile(faulty, file, "exec")
        assert fault.statement[0] <= fault.line <= fault.statement[1]
    assert len({(fault.start, fault.end, fault.after) for fault in found}) == len(found)


def test_every_reason_is_that_of_a_fault_there_is():
    reasons = json.loads((ROOT / "tests/mutation/equivalent.json").read_text())
    files = {key.partition(" ")[0] for key in reasons}
    there = {f"{file} {fault.key}" for file in files for fault in faults((ROOT / file).read_text())}
    assert set(reasons) <= there


def test_a_fault_meets_the_tests_of_its_file_and_the_quickest_that_run_its_line():
    runs = [
        Run("tests/test_a.py::slow", 9.0, {"a.py": {1, 2}}),
        Run("tests/test_b.py::middle", 2.0, {"a.py": {2}}),
        Run("tests/test_b.py::quick", 1.0, {"a.py": {2}}),
        Run("tests/test_b.py::elsewhere", 0.1, {"a.py": {7}}),
        Run("tests/test_b.py::other", 0.1, {"b.py": {2}}),
    ]
    first = "tests/test_a.py::slow"
    assert quickest(runs, "a.py", (2, 3), 5) == [first, "tests/test_b.py::quick", "tests/test_b.py::middle"]
    assert quickest(runs, "a.py", (2, 3), 2.5) == [first, "tests/test_b.py::quick"]
    assert quickest(runs, "a.py", (5, 5), 0.5) == [first, "tests/test_b.py::elsewhere"], "a line that no test runs"
    assert quickest(runs, "a.py", (2, 3), 3.2, {"b.py"})[1:] == [
        f"tests/test_b.py::{n}" for n in ("quick", "middle", "elsewhere", "other")
    ]


def test_a_module_is_imported_with_its_fault(tmp_path, monkeypatch):
    (tmp_path / "some_module_of_mine.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    finder = WithFault(tmp_path / "some_module_of_mine.py", tmp_path, "value = 2\n")
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "some_module_of_mine", raising=False)
    import some_module_of_mine

    assert some_module_of_mine.value == 2
    del sys.modules["some_module_of_mine"]


def test_kernels_that_may_have_the_fault_inside_are_not_kept(tmp_path):
    sources = {
        "tile": "import numpy",
        "gemm": "from kernels.tile import tile",
        "network": "from kernels.gemm import (\n    product,\n)\nfrom kernels import slices",
        "slices": "",
        "random": "from kernels.slices import slices_for",
    }
    folder = tmp_path / "kernels"
    kept = folder / "__pycache__" / "kernels-0123" / "kernels_4567"
    kept.mkdir(parents=True)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
        (kept / f"{name}.function-12.py311.1.nbc").write_text("")
    (kept.parent / "network-float32.compiled").write_text("")
    assert dependents(folder / "tile.py") == {"tile", "gemm", "network"}
    assert dependents(folder / "slices.py") == {"slices", "network", "random"}
    keep_kernels(folder / "gemm.py", tmp_path / "cache")
    left = sorted(path.name.partition(".")[0] for path in (tmp_path / "cache/kernels-0123/kernels_4567").iterdir())
    assert left == ["random", "slices", "tile"]
    assert (tmp_path / "cache/kernels-0123/network-float32.compiled").exists(), "the mark of a second process"
