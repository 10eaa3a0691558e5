"""One trial: a fresh process in which one module has a fault, and the tests that should notice.

Processes are forked from one that has imported the libraries and nothing of the project, so a trial costs little more
than its tests. A fault is noticed if a test fails, the tests cannot be collected, or they take too long.
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType

import hypothesis  # noqa: F401 - imported once, before the forks
import numba
import numpy as np  # noqa: F401
import pytest
import scipy.stats  # noqa: F401

SILENT = ("-q", "-p", "no:cacheprovider", "--no-header", "-W", "ignore::pytest.PytestAssertRewriteWarning")


class WithFault(importlib.abc.MetaPathFinder):
    """Finds one module in a source that is not its file's."""

    def __init__(self, file: Path, root: Path, source: str) -> None:
        parts = file.relative_to(root).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.file, self.source = file, source

    def find_spec(
        self, name: str, path: object, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.file, loader=_Loader(name, str(self.file), self.source)
        )


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, file: str, source: str) -> None:
        super().__init__(name, file)
        self.faulty = source

    def get_code(self, name: str) -> CodeType:
        return compile(self.faulty, self.path, "exec", dont_inherit=True)


def in_a_fork(work: Callable[[], int], root: Path, processor_seconds: int, log: Path | None = None) -> int:
    """Exit status of `work` in a forked process that sees the project in `root`; negative where it was ended."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (processor_seconds, processor_seconds + 5))
            words = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(words, 1)
            os.dup2(words, 2)
            os.chdir(root)
            sys.path[:] = [str(root), *(entry for entry in sys.path if entry not in ("", os.getcwd()))]
            os.environ["PYTHONPATH"] = str(root)
            for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "scratchvae")]:
                del sys.modules[name]
            status = work()
        finally:
            os._exit(status)
    deadline = time.monotonic() + 20 * processor_seconds
    while True:
        ended, result = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(result)
        if time.monotonic() > deadline:
            os.kill(child, 9)
            deadline = float("inf")
        time.sleep(0.01)


def notices(root: Path, file: str, source: str, tests: Sequence[str], processor_seconds: int, kernels: bool) -> bool:
    """Whether some test fails when `file` reads `source`. With `kernels`, those that may have to do with `file` are
    compiled anew; Numba's cache would take them for unchanged."""
    with tempfile.TemporaryDirectory() as cache:
        if kernels:
            keep_kernels(root / file, Path(cache))

        def work() -> int:
            sys.meta_path.insert(0, WithFault(root / file, root, source))
            if kernels:
                numba.config.CACHE_DIR = cache
            return int(pytest.main(["-x", *SILENT, *tests]))

        return in_a_fork(work, root, processor_seconds) != 0


def keep_kernels(file: Path, cache: Path) -> None:
    """Link into `cache` the kernels compiled beside `file`, but for modules that import it, even through others.

    And the marks that a second process has compiled kernels: one that did so now would have no fault in them.
    """
    changed, compiled = dependents(file), file.parent / "__pycache__"
    for kernel in (path for path in compiled.glob("kernels-*/**/*") if path.is_file()):
        if kernel.name.partition(".")[0] not in changed:
            place = cache / kernel.relative_to(compiled)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(kernel, place)


def dependents(file: Path) -> set[str]:
    """The modules of a folder that take something from `file`, itself or through each other, and `file`."""
    needs = {}
    for other in file.parent.glob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(other.read_text())) if isinstance(node, ast.ImportFrom)]
        names = [node.module or "" for node in nodes] + [alias.name for node in nodes for alias in node.names]
        needs[other.stem] = {name.rpartition(".")[2] for name in names}
    found = {file.stem}
    while more := {module for module, needed in needs.items() if needed & found} - found:
        found |= more
    return found


def copy_of(repository: Path, folder: Path) -> Path:
    """The project as it is now, apart from where it is being worked on."""
    for part in ("scratchvae", "tests", "benchmarks"):
        shutil.copytree(repository / part, folder / part, ignore=shutil.ignore_patterns(".git"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(repository / name, folder / name)
    return folder
