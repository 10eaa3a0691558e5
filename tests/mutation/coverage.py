"""Which test runs which line of the sources, and how long it takes: what decides the tests a fault is shown to."""

import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest


class Run(NamedTuple):
    """One test of the suite without a fault."""

    test: str
    seconds: float  # of the processor
    lines: dict[str, set[int]]  # of each source file


class Recorder:
    """A pytest plugin that notes the lines of `package` each test runs. What a module runs when it is imported belongs
    to no test, and neither does the inside of a compiled function."""

    def __init__(self, root: Path, package: str) -> None:
        self.prefix = str(root / package) + "/"
        self.root = root
        self.runs: list[tuple[str, float, dict[str, list[int]]]] = []  # as `Run`, in JSON's types
        self._lines: dict[str, set[int]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._lines = defaultdict(set)
        started = time.process_time()
        sys.settrace(self._enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            lines = {str(Path(name).relative_to(self.root)): sorted(seen) for name, seen in self._lines.items()}
            self.runs.append((item.nodeid, time.process_time() - started, lines))

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(self.prefix) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._lines[frame.f_code.co_filename].add(frame.f_lineno)
        return self._line


def quickest(
    runs: list[Run], file: str, statement: tuple[int, int], most: float, inlined: Collection[str] = ()
) -> list[str]:
    """The tests named after the file; then the quickest of the others that run the statement, up to `most` seconds.

    A statement that no test runs, because it is run when the module is imported or is compiled, is met by all tests
    that run any line of its file. A statement that writes code is run by the test that happens to be first; the code
    is by others: while there are seconds left, those follow that run a line of the files it is `inlined` in.
    """
    span = range(statement[0], statement[1] + 1)
    met = [run for run in runs if not run.lines.get(file, set()).isdisjoint(span)]
    met = met or [run for run in runs if run.lines.get(file)]
    named = [run for run in runs if _is_named_after(run.test, file)]
    near = [run for run in runs if any(run.lines.get(other) or _is_named_after(run.test, other) for other in inlined)]
    others = sorted((run for run in met if run not in named), key=lambda run: run.seconds)
    others += sorted((run for run in near if run not in named and run not in met), key=lambda run: run.seconds)
    named.sort(key=lambda run: (run not in met, run.seconds))
    spent = itertools.accumulate(run.seconds for run in others)
    return [run.test for run in named] + [run.test for run, so_far in zip(others, spent, strict=True) if so_far <= most]


def _is_named_after(test: str, file: str) -> bool:
    source = Path(file)
    named = Path(test.partition("::")[0])
    if named.name == f"test_{source.parent.name}.py":
        return True
    return named.name == f"test_{source.name}" and named.parent.name in (source.parent.name, "reference", "tests")
