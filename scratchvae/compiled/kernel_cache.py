"""Where compiled kernels are kept on disk: a folder named after the sources they were compiled from.

Numba looks at the one file a kernel stands in. A kernel that has inlined a function or a constant of another file would
be taken from the cache after that other file has changed, and run the old code with the new arguments.
"""

import atexit
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba

FOLDER = Path(__file__).parent
# Options of kernels: of those that Python calls, those that only other kernels call, whose entry for Python would take
# the compiler time too (called from Python they end the process), and those compiled with their caller and not before.
KERNEL: Any = {"cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
INNER: Any = {**KERNEL, "no_cpython_wrapper": True}
INLINED: Any = {**INNER, "cache": False, "inline": "always"}
DIGITS = 16  # of the sources' digest in a folder's name
KEPT = 3  # versions of the kernels, for processes that still run the sources before


def _sources() -> str:
    """A name for what kernels are compiled from as it is now: the compiled engine, and whose constants it takes."""
    package = FOLDER.parent
    paths = [*FOLDER.glob("*.py"), *(package / "reference").glob("*.py"), package / "parameters.py"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths)))
    return f"kernels-{digest.hexdigest()[:DIGITS]}"


def _parent() -> Path:
    """NUMBA_CACHE_DIR if it is set, else beside the sources, else, where these cannot be written, the user's cache, and
    where there can be none a folder that goes with the process."""
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR).absolute()
    beside = FOLDER / "__pycache__"
    if os.access(beside if beside.exists() else FOLDER, os.W_OK):
        return beside
    try:
        of_user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scratchvae"
    except RuntimeError:  # the system does not know a home of this user
        return _temporary()
    there = next(folder for folder in (of_user, *of_user.parents) if os.path.exists(folder))
    return of_user if os.access(there, os.W_OK) else _temporary()


def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="scratchvae-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


PATH = _parent() / _sources()


@contextmanager
def kernel_cache() -> Iterator[None]:
    """Functions decorated with cache=True inside are kept in `PATH`; whatever else uses Numba is left alone."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(PATH)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


@contextmanager
def compiled_beside(name: str, code: str) -> Iterator[None]:
    """Until the block ends, and if `code` has not run to its end for these sources, this Numba and this target before,
    run it in another process, which leaves what it compiles in the cache: Numba compiles one kernel at a time in a
    process. Should that process fail, or not start, the kernels are compiled here when they are first needed, as they
    would be without it."""
    done = PATH / f"{name}-{_target()}.compiled"
    code = f"from pathlib import Path\n{code}\nPath({str(done)!r}).touch()"
    process = None if numba.get_num_threads() == 1 or done.exists() else _started(code)
    if process is None:
        yield
        return
    with process:
        try:
            yield
        except BaseException:
            process.kill()
            raise


def _target() -> str:
    """A name for what Numba tells its kernels on disk apart by, beside their sources."""
    config = numba.config
    target = numba.__version__, llvm.get_host_cpu_name(), config.CPU_NAME, config.CPU_FEATURES
    return hashlib.sha256(repr(target).encode()).hexdigest()[:DIGITS]


def _started(code: str) -> subprocess.Popen[bytes] | None:
    """A process that runs the code and says nothing; None where there can be none."""
    if not sys.executable:
        return None
    null, environment = subprocess.DEVNULL, {**os.environ, "NUMBA_CACHE_DIR": str(PATH.parent)}
    command = [sys.executable, "-c", code]
    try:
        return subprocess.Popen(command, cwd=FOLDER.parents[1], env=environment, stdin=null, stdout=null, stderr=null)
    except OSError:  # so many processes as there may be, or that Python is there no longer
        return None


def remove_old_kernels() -> None:
    """Delete all but the last few versions, and nothing of another name: the folder may be one for all of Numba."""
    versions = sorted(PATH.parent.glob(f"kernels-{'[0-9a-f]' * DIGITS}"), key=_last_change)
    for version in versions[:-KEPT]:
        if version != PATH:
            shutil.rmtree(version, ignore_errors=True)


def _last_change(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another process has just deleted it
        return 0.0
