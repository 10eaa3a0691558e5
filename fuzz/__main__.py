"""Fuzz the readers: `python -m fuzz [reader ...] --runs 1000000 --json fuzz/results.json`. Needs the `fuzz` extra.

Each reader runs in a process of its own, its inputs one file on a memory disk where there is one. A reader passes when
every input was read or refused with ValueError in one line, none took TIMEOUT of processor time, and none asked for
MEMORY beyond what the process had. Anything else ends the reader's run: the input is kept in the
working folder as crash-*, timeout-* or oom-*, and `python -m fuzz READER FILE` runs it again.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

TIMEOUT = 5.0  # seconds of processor time: on a busy machine the clock says little
STUCK = 600  # seconds on the clock
MEMORY = 200  # MB
LONGEST = 4096  # bytes of an input
INSTRUMENTED = ["scratchvae.data.arrays", "scratchvae.data.idx", "scratchvae.checkpoint", "scratchvae.parameters"]
INSTRUMENTED += ["scratchvae.data.labels", "scratchvae.export.torch_weights", "scratchvae.cli.run_directory"]
INSTRUMENTED += ["numpy.lib.format", "numpy.lib._format_impl", "zipfile", "gzip"]
READERS = ("idx", "npy", "npz", "csv", "labels", "checkpoint", "torch", "config", "history")  # those of `fuzz.targets`
LIBRARIES = ("atheris", "numpy", "safetensors")


def fuzz_one(name: str, runs: int, again: list[str]) -> None:
    """This process becomes the fuzzer of one reader; it never returns."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    corpus = Path(folder.name) / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        target.check(seed, Path(folder.name))
        (corpus / str(number)).write_bytes(seed)
    start = _peak_memory()
    seen = {"refused": 0, "read": 0, "slowest": 0.0}

    def one_input(data: bytes) -> None:
        if not any(seen.values()):  # here, for libFuzzer has set up its own memory by now
            _allow_more_memory(MEMORY)
        began = time.process_time()
        seen["read" if target.check(data, Path(folder.name)) else "refused"] += 1
        seen["slowest"] = max(seen["slowest"], time.process_time() - began)
        assert seen["slowest"] < TIMEOUT, f"{seen['slowest']:.1f} s of processor time for one input"
        if seen["refused"] + seen["read"] == runs:
            print("seen", json.dumps(seen | {"memory": _peak_memory() - start}), file=sys.stderr)

    options = [f"-timeout={STUCK}", f"-rss_limit_mb={start + MEMORY}", f"-max_len={LONGEST}", "-seed=1"]
    options += [f"-runs={runs}", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, *(again or [str(corpus)])], one_input)
    atheris.Fuzz()


def fuzz(name: str, runs: int) -> dict[str, Any]:
    """One reader's result: what it ran, what it took and refused, and how it ended."""
    started = time.monotonic()
    command = [sys.executable, "-m", "fuzz", name, "--runs", str(runs), "--inside"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    seen = re.findall(r"^seen (.*)$", done.stderr, re.MULTILINE)
    result = {"reader": name, "passed": done.returncode == 0 and bool(seen), "inputs": runs}
    result["minutes"] = round((time.monotonic() - started) / 60, 1)
    if not result["passed"]:
        return result | {"said": done.stdout[-2000:] + done.stderr[-2000:]}
    numbers = json.loads(seen[0])
    return result | {
        "refused": numbers["refused"],
        "read": numbers["read"],
        "slowest_ms": round(1000 * numbers["slowest"], 1),
        "memory_grown_mb": numbers["memory"],
    }


def _allow_more_memory(megabytes: int) -> None:
    """Let any request for memory beyond this fail, be it used or not: a reader then raises MemoryError."""
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), resource.RLIM_INFINITY))


def _peak_memory() -> int:
    """The most memory this process has had, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", help=f"{' '.join(READERS)}; all by default")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs a reader")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = [name for name in options.readers if not os.path.exists(name)]
    again = [name for name in options.readers if os.path.exists(name)]
    if unknown := [name for name in names if name not in READERS]:
        parser.error(f"{unknown[0]!r} is no reader and no file; expected readers among {', '.join(READERS)}")
    if again and len(names) != 1:
        parser.error(f"{again[0]}: expected one reader before it, which reads it again; got {len(names)}")
    if options.inside or again:
        fuzz_one(names[0], options.runs, again)
    results = []
    for name in names or READERS:
        results.append(fuzz(name, options.runs))
        print(json.dumps(results[-1]) if results[-1]["passed"] else results[-1]["said"], flush=True)
        if options.json:
            versions = {"python": platform.python_version()} | {library: version(library) for library in LIBRARIES}
            options.json.write_text(json.dumps({"versions": versions, "readers": results}, indent=1) + "\n")
    return 0 if all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
