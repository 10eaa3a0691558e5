"""`scratchvae info`: what runs here: versions, processor, threads, kernels, caches and data."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratchvae import __version__
from scratchvae.data.mnist import FOLDER_VARIABLE
from scratchvae.engine import get_engine, get_threads, processors

from .options import Engine, Json, Quiet, Seed, Threads, use_threads
from .output import Output

if TYPE_CHECKING:
    from rich.table import Table

PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "safetensors",
    "typer",
    "rich",
    "pooch",
    "scikit-learn",
    "matplotlib",
    "pillow",
)


def info(
    as_json: Json = False, quiet: Quiet = False, seed: Seed = 0, threads: Threads = None, engine: Engine = "compiled"
) -> None:
    """Show versions, the engine and its vector width, threads and their layer, the processor, caches and data folders.

    [bold]Examples[/bold]
    scratchvae info --json
    """
    output = Output(as_json, quiet)
    use_threads(threads)
    facts = {
        "command": "info",
        "versions": versions(),
        "processor": processor(),
        "engine": engine_facts(engine),
        "cache": cache(),
        "data": data_folders(),
    }
    output.result(_table(facts), whole_words=False)  # paths are long
    output.record(facts)


def versions() -> dict[str, str | None]:
    """Of Python, this package and what it uses; None where not installed."""
    found: dict[str, str | None] = {"scratchvae": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def processor() -> dict[str, Any]:
    """Its name, as the system gives it, and how many of its threads may be used."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {"name": name, "machine": platform.machine(), "system": platform.system(), "usable": processors()}


def engine_facts(name: str) -> dict[str, Any]:
    """Which engine, how many threads, and for the compiled one its vector width, matrix product and threading layer."""
    get_engine(name)
    facts: dict[str, Any] = {"name": name, "threads": get_threads()}
    if name == "compiled":
        from scratchvae.compiled.simd import matrix_engine, simd_name

        facts |= {"simd": simd_name(), "matrix_products": matrix_engine(), "threading_layer": threading_layer()}
    return facts


def threading_layer() -> str:
    """The layer that Numba runs parallel loops with; it is chosen when the first of them runs."""
    import numba

    _smallest_parallel_loop(2)
    return str(numba.threading_layer())


def cache() -> dict[str, Any]:
    """Where compiled kernels are kept, and how much is there."""
    from scratchvae.compiled.kernel_cache import PATH

    folder = PATH.parent  # of this version's and of those before
    files = [path for suffix in ("nbi", "nbc") for path in folder.rglob(f"*.{suffix}")]
    return {
        "kernels": str(folder),
        "files": len(files),
        "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def data_folders() -> dict[str, Any]:
    """Where MNIST is looked for, and whether the folder is there."""
    named = os.environ.get(FOLDER_VARIABLE) or None
    try:
        import pooch

        downloads = str(Path(pooch.os_cache("scratchvae")) / "mnist")
    except ImportError:
        downloads = None
    folders = {FOLDER_VARIABLE: named, "downloads": downloads}
    return {name: {"folder": path, "exists": bool(path and Path(path).is_dir())} for name, path in folders.items()}


def _smallest_parallel_loop(count: int) -> int:
    """Run one parallel loop, so that Numba has chosen its threading layer."""
    from numba import njit, prange

    def total(n: int) -> int:
        found = 0
        for i in prange(n):
            found += i
        return found

    return int(njit(parallel=True)(total)(count))


def _table(facts: dict[str, Any]) -> "Table":
    from rich.table import Column, Table

    table = Table("", "", Column(overflow="fold"), show_header=False, box=None, pad_edge=False)
    for part, entries in facts.items():
        if isinstance(entries, dict):
            for index, (name, value) in enumerate(entries.items()):
                table.add_row(
                    part if index == 0 else "", name if name.isupper() else name.replace("_", " "), _written(value)
                )
    return table


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['folder'] or 'not set'}{'' if value['exists'] else ' (not there)' if value['folder'] else ''}"
    return "not installed" if value is None else str(value)
