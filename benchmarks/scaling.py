"""`python -m benchmarks.scaling [--json FILE]`: training by one and by two processes, and on paper by 64.

The workload is `pytorch-example` with batches of 512, one thread a process. One process is scratchvae as it is without
MPI. Measured are whole epochs of one and of two processes, over their steps; what one of R processes does but for the
exchange; and the exchange of gradients and parameters by itself, in shared memory and by messages, and of the loss.
From these, for R machines that share a batch, a process each:

    step(R) = compute(R) + exchange(R)        compute: as measured
    exchange(R) = 2 (R - 1) / R transfer + 3 log2(R) latency        transfer: of all gradients, to one other process

(A reduce-scatter of gradients, an all-gather of parameters, by halving and doubling; the sum of the loss, by doubling:
log2(R) messages one after the other each. Thakur, Rabenseifner, Gropp 2005.) Of two processes, the sum of a number
takes one latency, and the exchange by messages transfer + 2 latency: these give the two. Both are of messages here, so
that holds where the network is as fast as this machine's memory; `--gigabytes` and `--microseconds` put a network's
numbers in their place. What is exchanged once an epoch is measured, and not on paper.

Where each process has a batch of its own, compute is that of one that makes Adam's whole step, and not its part.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.machine import warn_if_busy
from benchmarks.measure import Spread, ratios, round_to
from benchmarks.numbers import count
from benchmarks.peers.scratchvae_scaling import BY_MESSAGES, EXCHANGES, LATENCY, ON_PAPER
from benchmarks.processes import REPOSITORY, PeerError, thread_environment
from benchmarks.report import bar, say, show_bars, show_table, write_json
from scratchvae.data.mnist import FOLDER_VARIABLE

BATCH = 512
TWO_PROCESSES_BAR = 1.6


def launch(processes: int, options: argparse.Namespace) -> dict:
    """What the first of some processes measured. Raises PeerError where one fails, which has said why."""
    command = [sys.executable, "-m", "benchmarks.peers.scratchvae_scaling", "--batch", str(BATCH)]
    command += ["--rounds", str(options.rounds), "--steps", str(options.steps)]
    data_dir = options.data_dir or os.environ.get(FOLDER_VARIABLE)
    command += ["--data-dir", os.path.abspath(data_dir)] if data_dir else []  # they run in another folder
    if processes > 1:
        command = [mpiexec(), "-n", str(processes), *command]
    environment = os.environ | thread_environment(1)
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise PeerError(f"processes {processes}: one ended with status {done.returncode}")
    return json.loads(done.stdout)


def mpiexec() -> str:
    """The launcher that came with this Python's packages, else the system's. Raises PeerError where there is none."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise PeerError("there is no mpiexec: pip install scratchvae[mpi]")
    return found


def measure(options: argparse.Namespace) -> tuple[dict[str, list[float]], int, str]:
    """Seconds of everything, over rounds, the number of parameters and what the data are. One and two processes take
    turns."""
    seen: dict[str, list[float]] = {}
    mpiexec()  # or there is nothing to measure
    for turn in range(options.turns):
        for processes in (1, 2) if turn % 2 == 0 else (2, 1):
            answer = launch(processes, options)
            parts = {f"step of {processes}": answer["step"]}
            parts |= {f"unreduced {rows}": values for rows, values in answer.get("unreduced", {}).items()}
            parts |= {name: answer[name] for name in EXCHANGES if name in answer}
            for name, values in parts.items():
                seen.setdefault(name, []).extend(values)
            say(f"turn {turn + 1}: processes {processes}: {np.median(answer['step']) * 1e6:.0f} us a step")
    return seen, answer["parameters"], answer["data"]


def on_paper(spreads: dict[str, Spread], parameters: int, options: argparse.Namespace) -> list[dict]:
    """Steps per second and efficiency of R processes: of one batch shared, and of a batch for each."""
    one = spreads["step of 1"].median
    latency = spreads[LATENCY].median
    transfer = spreads[BY_MESSAGES].median - 2 * latency
    if options.microseconds is not None:
        latency = options.microseconds * 1e-6
    if options.gigabytes is not None:
        transfer = 4 * parameters / (options.gigabytes * 1e9)
    lines = []
    for size in ON_PAPER:
        exchange = 2 * (size - 1) / size * transfer + 3 * math.log2(size) * latency
        compute, whole = (one if size == 1 else spreads[f"unreduced {BATCH // r}"].median for r in (size, 1))
        lines.append(
            {
                "processes": size,
                "compute_microseconds": round_to(compute * 1e6),
                "exchange_microseconds": round_to(exchange * 1e6),
                "speed": round_to(one / (compute + exchange), 4),
                "efficiency": round_to(one / (compute + exchange) / size, 3),
                "efficiency_with_a_batch_each": round_to(one / (whole + exchange), 3),
            }
        )
    return lines


def show(spreads: dict[str, Spread], paper: list[dict]) -> None:
    lines = [[name, "", f"{spread.median * 1e6:.0f}", f"{spread.lower_quartile * 1e6:.0f} - "
              f"{spread.upper_quartile * 1e6:.0f}"] for name, spread in spreads.items()]  # fmt: skip
    show_table(f"Measured, batch {BATCH}", ["what", "", "us", "quartiles"], lines)
    columns = ["on paper", "processes", "compute us", "exchange us", "speed", "efficiency", "a batch each"]
    show_table(
        "One batch shared by R processes, and a batch for each",
        columns,
        [["", *(f"{value:g}" for value in line.values())] for line in paper],
    )


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="where the numbers go")
    parser.add_argument("--turns", type=count, default=5, help="of one process and two; default 5")
    parser.add_argument("--rounds", type=count, default=5, help="in each turn; default 5")
    parser.add_argument("--steps", type=count, default=117, help="of an epoch, which a round is; default 117, MNIST's")
    parser.add_argument("--gigabytes", type=float, help="a second that the network carries; default: as measured here")
    parser.add_argument("--microseconds", type=float, help="of a message's latency; default: as measured here")
    parser.add_argument("--data-dir", help="folder with MNIST's four files; else SCRATCHVAE_DATA, else downloaded")
    options = parser.parse_args(arguments)
    if options.gigabytes is not None and not options.gigabytes > 0:
        parser.error(f"--gigabytes is {options.gigabytes}; expected a number above 0")
    if options.microseconds is not None and not options.microseconds >= 0:
        parser.error(f"--microseconds is {options.microseconds}; expected a number of at least 0")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where two processes are not as much faster as they should be, 2 where one fails."""
    options = read_options(arguments)
    warn_if_busy(say)
    try:
        seen, parameters, data = measure(options)
    except PeerError as error:
        say(str(error))
        return 2
    spreads = {name: Spread.of(values) for name, values in seen.items()}
    gain = ratios(seen["step of 1"], seen["step of 2"])
    paper = on_paper(spreads, parameters, options)
    show(spreads, paper)
    bars = [bar("two processes, times as fast as one (one thread each)", TWO_PROCESSES_BAR, gain.median)]
    bars.append(bar("efficiency of two processes", TWO_PROCESSES_BAR / 2, gain.median / 2))
    show_bars(bars)
    if options.json:
        rows = [{"measured": name, "data": data, "seconds": spread.as_json()} for name, spread in spreads.items()]
        settings = {name: getattr(options, name) for name in ("turns", "rounds", "steps", "gigabytes", "microseconds")}
        settings |= {"workload": "pytorch-example", "batch": BATCH, "threads_each": 1}
        write_json(options.json, "scaling", settings, rows, bars, on_paper=paper, gain=gain.as_json())
    return 0 if all(line["met"] for line in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
