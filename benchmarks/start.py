"""`python -m benchmarks.start --json FILE`: time to import, time to the first training step, peak memory.

All on one workload, `pytorch-example` unless another is asked for, each measurement in a process of its own. "Cold" is
with the folders empty in which compilers keep what they made, "warm" the same again with what the cold start left
there; TensorFlow keeps nothing. Python's byte code and the files that the system has read before are there for both.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import is_installed, warn_if_busy
from benchmarks.measure import Spread
from benchmarks.numbers import count
from benchmarks.processes import REPOSITORY, PeerError, PeerProcess, System, thread_environment
from benchmarks.report import bar, bar_panels, say, show_bars, show_table, write_json
from benchmarks.systems import SCRATCHVAE, TORCH_EAGER, TRAINING_SYSTEMS
from benchmarks.train_step import write_files
from benchmarks.workloads import WORKLOADS
from scratchvae.engine import processors

IMPORTS = {SCRATCHVAE: "scratchvae", "torch": "torch", "jax": "jax", "tensorflow": "tensorflow", "numba": "numba"}
SYSTEMS = (SCRATCHVAE, "jax jit", "jax scan 512-bit", TORCH_EAGER, "torch.compile", "tensorflow xla")
MEMORY_STEPS = 500  # of `pytorch-example` an epoch and a little
SPANS = {  # from where to where, by the beginning of a measurement's name
    "import": "from starting Python to its end",
    "first step": "from starting Python to the loss of the first call",
    "peak memory": "from starting Python to the last loss, without processes that it starts",
}
COLD_BAR, WARM_BAR, MEMORY_BAR = 15.0, 2.0, 0.5


def import_rows(options: argparse.Namespace) -> list[dict]:
    """Seconds of `python -c "import ..."`, from before the process is started until it has ended; of one that imports
    nothing more, too. Each is run once before, untimed."""
    rows = []
    for name, module in {"python alone": "sys", **IMPORTS}.items():
        row = {"measurement": "import", "system": name}
        if not is_installed(module):
            rows.append(row | {"status": "not installed"})
            continue
        command = [sys.executable, "-c", f"import {module}"]
        seconds_of(command)
        values = [seconds_of(command) for _ in range(options.rounds)]
        rows.append(
            row | {"status": "measured", "seconds": Spread.of(values).median, "spread": Spread.of(values).as_json()}
        )
    return rows


def first_step_rows(files, options: argparse.Namespace) -> list[dict]:
    """`seconds_to_first_step` of every system, with cold and with warm caches."""
    rows = []
    for name in SYSTEMS:
        system = TRAINING_SYSTEMS[name]
        if not system.installed():
            rows.append({"measurement": "first step", "system": name, "status": "not installed"})
            continue
        cold, warm = [], []
        for _ in range(options.cold_rounds):
            with tempfile.TemporaryDirectory() as folder:
                cached = replace(system, environment={**system.environment, **cache_environment(Path(folder))})
                cold.append(seconds_to_first_step(cached, files, options))
                warm += [seconds_to_first_step(cached, files, options) for _ in range(options.rounds)]
        for kind, values in (("cold", cold), ("warm", warm)):
            row = {"measurement": f"first step, {kind} cache", "system": name, "status": "measured"}
            row["data"] = files.found
            rows.append(row | {"seconds": Spread.of(values).median, "spread": Spread.of(values).as_json()})
            say(f"{name}: first step {Spread.of(values).median:.2f} s with a {kind} cache")
    return rows


def cache_environment(folder: Path) -> dict[str, str]:
    """Where each compiler keeps what it made: Numba, torch's inductor, and JAX, whose cache is off unless asked for."""
    return {
        "NUMBA_CACHE_DIR": str(folder / "numba"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def seconds_to_first_step(system: System, files, options: argparse.Namespace) -> float:
    """From before the interpreter is started until the loss of its first call has come back. Importing, reading the
    data and the weights, and compiling are in it; ending the process is not. The call is one update, but many where a
    system makes many a call and nothing less: `jax scan` and TensorFlow, a tenth of a second of work."""
    began = time.perf_counter()
    with PeerProcess(system, options.threads) as peer:
        peer.ask("prepare", workload=options.workload.as_json(), problem=files.problem, data=files.data)
        peer.ask("run", steps=1, warm=0)
        return time.perf_counter() - began


def memory_rows(files, options: argparse.Namespace) -> list[dict]:
    """Largest resident set of a process from its start until it has trained for so many steps, in megabytes.

    The data are in it; processes that it starts are not. Caches are warm, as in every run but the first: a process that
    compiles holds the compiler's memory too.
    """
    rows = []
    for name in SYSTEMS:
        system = TRAINING_SYSTEMS[name]
        row = {"measurement": "peak memory", "system": name, "data": files.found}
        if not system.installed():
            rows.append(row | {"status": "not installed"})
            continue
        with tempfile.TemporaryDirectory() as folder:
            cached = replace(system, environment={**system.environment, **cache_environment(Path(folder))})
            seconds_to_first_step(cached, files, options)
            with PeerProcess(cached, options.threads) as peer:
                peer.ask("prepare", workload=options.workload.as_json(), problem=files.problem, data=files.data)
                peer.ask("run", steps=options.memory_steps, warm=0)
                rows.append(row | {"status": "measured"} | peer.ask("peak_memory"))
        say(f"{name}: peak memory {rows[-1]['megabytes']:.0f} MB")
    return rows


def seconds_of(command: list[str]) -> float:
    """Raises PeerError where the command fails."""
    environment = {**os.environ, **thread_environment(processors())}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise PeerError(f"{command[-1]} ended: {' '.join(done.stderr[-300:].split())}")
    return seconds


# --- what is concluded -----------------------------------------------------------------------------------------------


def bars_of(rows: list[dict]) -> list[dict]:
    found = {(row["measurement"], row["system"]): row for row in rows if row["status"] == "measured"}
    bars = []
    for kind, required in (("cold", COLD_BAR), ("warm", WARM_BAR)):
        row = found.get((f"first step, {kind} cache", SCRATCHVAE))
        if row:
            bars.append(bar(f"first step, {kind} cache, seconds", required, row["seconds"], at_most=True))
    ours, torch = found.get(("peak memory", SCRATCHVAE)), found.get(("peak memory", TORCH_EAGER))
    if ours and torch:
        share = ours["megabytes"] / torch["megabytes"]
        bars.append(bar("peak memory, share of torch eager's", MEMORY_BAR, share, at_most=True))
    return bars


def span_of(measurement: str) -> str:
    return next(span for name, span in SPANS.items() if measurement.startswith(name))


def value_of(row: dict) -> float:
    return row["megabytes"] if "megabytes" in row else row["seconds"]


def show(rows: list[dict]) -> None:
    lines = []
    for row in rows:
        measured = row["status"] == "measured"
        unit = "MB" if "megabytes" in row else "s"
        shown = f"{value_of(row):.{0 if unit == 'MB' else 2}f} {unit}" if measured else row["status"]
        lines.append([row["measurement"], row["system"], shown, span_of(row["measurement"])])
    show_table("Start and memory", ["measurement", "system", "median or peak", "what"], lines)


def plot(path: str, rows: list[dict], workload: str) -> None:
    panels: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["status"] == "measured":
            unit = "MB" if "megabytes" in row else "seconds"
            panels.setdefault(f"{row['measurement']}, {unit}", {})[row["system"]] = value_of(row)
    if panels:
        bar_panels(path, panels, "shorter is better", SCRATCHVAE, f"Start and memory, {workload}")


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="FILE", help="where the rows go; the plot goes beside it")
    parser.add_argument("--workload", choices=WORKLOADS, default="pytorch-example")
    parser.add_argument("--rounds", type=count, default=5, help="of imports, and of warm starts after each cold one")
    parser.add_argument("--cold-rounds", type=count, default=2, help="of cold starts")
    parser.add_argument("--threads", type=count, default=processors())
    parser.add_argument("--data-dir", help="folder with MNIST's four files; else SCRATCHVAE_DATA, else downloaded")
    parser.add_argument("--quick", action="store_true", help="one cold start, two warm ones, 50 steps for memory")
    options = parser.parse_args(arguments)
    options.workload, options.memory_steps = WORKLOADS[options.workload], MEMORY_STEPS
    if options.quick:
        options.rounds, options.cold_rounds, options.memory_steps = 2, 1, 50
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit status 2 where a process fails."""
    options = read_options(arguments)
    warn_if_busy(say)
    try:
        rows = import_rows(options)
        with tempfile.TemporaryDirectory() as folder:
            files = write_files(options.workload, Path(folder), options.data_dir)
            rows += first_step_rows(files, options)
            rows += memory_rows(files, options)
    except PeerError as error:
        say(str(error))
        return 2
    bars = bars_of(rows)
    show(rows)
    show_bars(bars)
    names = "threads", "rounds", "cold_rounds", "memory_steps"
    settings = {"workload": options.workload.name, **{name: getattr(options, name) for name in names}}
    write_json(options.json, "start", settings, rows, bars, spans=SPANS)
    plot(options.json, rows, options.workload.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
