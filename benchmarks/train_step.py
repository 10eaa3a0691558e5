"""`python -m benchmarks.train_step --json FILE`: microseconds per training step, scratchvae beside its peers.

Every system takes a shuffled minibatch of resident data, draws its own Gaussian noise, goes forward and backward,
updates by Adam and keeps the loss. First all prove the same losses and gradients; then they take turns.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.equality import Proof, compare, learns_too_much
from benchmarks.images import images_of
from benchmarks.machine import warn_if_busy
from benchmarks.measure import Spread, alternate, geometric_mean, ratios, round_to
from benchmarks.numbers import count, duration
from benchmarks.peers.scratchvae_training import train_on_problem
from benchmarks.processes import PeerError, PeerProcess, System
from benchmarks.report import bar, bar_panels, exit_status, say, show_bars, show_table, write_json
from benchmarks.systems import PEAK, SCRATCHVAE, TORCH_EAGER, TRAINING_SYSTEMS
from benchmarks.workloads import WORKLOADS, Workload, write_problem
from scratchvae.engine import processors

WARM_SHARE = 0.2  # of a round's steps, before the clock starts
CALIBRATION_STEPS, CALIBRATIONS = 20, 3
FASTEST_BAR, GEOMETRIC_BAR, EAGER_BAR, PEAK_BAR = 1.3, 1.6, 3.0, 0.80


@dataclass
class Files:
    """What the processes of one workload pass each other."""

    folder: Path
    found: str

    @property
    def problem(self) -> str:
        return str(self.folder / "problem.npz")

    @property
    def data(self) -> str:
        return str(self.folder / "data.npy")

    def claim(self, system: str) -> str:
        return str(self.folder / f"{system.replace(' ', '-')}.npz")


def measure_workload(workload: Workload, systems: list[System], options: argparse.Namespace) -> list[dict]:
    """Rows of one workload: who is not installed, who is refused, and the times of the rest."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        files = write_files(workload, Path(folder), options.data_dir)
        reference = train_on_problem(workload, dict(np.load(files.problem)), "float64", "reference")
        rows, running = {}, {}
        for system in systems:
            rows[system.name] = row = {"workload": workload.name, "system": system.name, "threads": options.threads}
            row["data"] = files.found
            peer = admit(system, workload, files, reference, options.threads, row)
            if peer is not None:
                running[system.name] = processes.enter_context(peer)
        peak = processes.enter_context(PeerProcess(PEAK, options.threads))
        time_rounds(workload, running, peak, rows, options)
    return list(rows.values())


def write_files(workload: Workload, folder: Path, data_dir: str | None) -> Files:
    images = images_of(workload, data_dir)
    files = Files(folder, images.found)
    np.save(files.data, images.pixels)
    write_problem(workload, images.pixels, files.problem)
    return files


def admit(system: System, workload: Workload, files: Files, reference, threads: int, row: dict) -> PeerProcess | None:
    """Starts a system and has it prove its numbers. None, with the reason in the row, where it may not be timed."""
    if not system.installed():
        row["status"] = "not installed"
        return None
    peer = PeerProcess(system, threads)
    try:
        row |= peer.ask("prepare", workload=workload.as_json(), problem=files.problem, data=files.data)
        proof = prove(peer, workload, files, reference)
    except PeerError as error:
        row["status"] = "failed"
        say(f"{workload.name}: {error}")
        peer.close()
        return None
    row["proof"] = proof.as_json()
    if proof.holds:
        say(f"{workload.name}: {system.name} computes the same: {proof}")
        return peer
    row["status"] = "refused"
    say(f"{workload.name}: {system.name} REFUSED, it computes something else: {proof}")
    peer.close()
    return None


def prove(peer: PeerProcess, workload: Workload, files: Files, reference: dict) -> Proof:
    claim = files.claim(peer.system.name)
    peer.ask("prove", out=claim)
    return compare(dict(np.load(claim)), reference, dict(np.load(files.problem)), workload.learning_rate)


def time_rounds(workload: Workload, running: dict[str, PeerProcess], peak: PeerProcess, rows: dict, options) -> None:
    """Fills the rows: rounds in turn, with the machine's peak measured in each of them too."""
    peak.ask("measure")  # once before: while it starts, it is at work beside those whose pace is taken
    steps = {name: steps_a_round(peer, options.round_seconds) for name, peer in running.items()}
    peaks: list[dict] = []

    def timed(name: str) -> float:
        answer = running[name].ask("run", steps=steps[name], warm=max(1, int(WARM_SHARE * steps[name])))
        rows[name]["last_loss"] = round_to(answer["last_loss"])
        return answer["seconds"] / answer["steps"] * 1e6

    def measured_peak() -> float:
        peaks.append(peak.ask("measure"))
        return 0.0

    calls = {name: lambda name=name: timed(name) for name in running}
    values = alternate(calls | {"machine peak": measured_peak}, options.rounds)
    ours = rows[SCRATCHVAE]["last_loss"] if SCRATCHVAE in running else None
    for name in running:
        if ours is not None and learns_too_much(loss := rows[name]["last_loss"], ours):
            rows[name]["status"] = "refused"
            say(f"{workload.name}: {name} REFUSED, its loss is {loss} after the rounds, scratchvae's {ours}")
            continue
        fill_row(rows[name], workload, values[name], values.get(SCRATCHVAE), steps[name])
    if SCRATCHVAE in running:
        executed = running[SCRATCHVAE].ask("count_multiply_adds")["multiply_adds_executed"]
        rows[SCRATCHVAE] |= fractions_of_peak(workload, executed, values[SCRATCHVAE], peaks)


def steps_a_round(peer: PeerProcess, seconds: float) -> int:
    """As many steps as fill the time at the best pace of a few runs, which follow some that compile, wake everything up
    and grow until they last: a run that something disturbs makes no round short."""
    peer.ask("run", steps=CALIBRATION_STEPS, warm=1)
    steps, taken = CALIBRATION_STEPS, 0.0
    while taken < seconds / 4:
        answer = peer.ask("run", steps=steps, warm=1)
        steps, taken = 2 * answer["steps"], answer["seconds"]
    answers = [peer.ask("run", steps=answer["steps"], warm=1) for _ in range(CALIBRATIONS)]
    return max(1, round(seconds / min(answer["seconds"] / answer["steps"] for answer in answers)))


def fill_row(row: dict, workload: Workload, values: list[float], ours: list[float] | None, steps: int) -> None:
    spread = Spread.of(values)
    row["status"] = "measured"
    row["microseconds_per_step"] = round_to(spread.median)
    row["examples_per_second"] = round(workload.batch_size / spread.median * 1e6)
    row["ratio_to_scratchvae"] = round_to(ratios(values, ours).median) if ours else None
    row["ratio_spread"] = ratios(values, ours).as_json() if ours else None
    row["spread"] = spread.as_json() | {"steps_a_round": steps}


def fractions_of_peak(workload: Workload, executed: int, microseconds: list[float], peaks: list[dict]) -> dict:
    """How much of the best multiply-add rate and copy rate of these rounds the whole step reaches, the median over
    them; how much of the rate of its own round; and how soon two threads saw one another's signals in each.

    Multiply-adds are given as the algorithm states them and as executed: with pixels that are zero, fewer.
    """
    rates = [peak["multiply_adds_per_second"] for peak in peaks]
    arithmetic, memory = max(rates), max(peak["bytes_per_second"] for peak in peaks)
    exchanges = [peak["nanoseconds_of_an_exchange"] for peak in peaks]
    seconds = Spread.of(microseconds).median * 1e-6
    in_its_round = ratios([executed / (step * 1e-6) for step in microseconds], rates)
    return {
        "multiply_adds_per_step": workload.multiply_adds(),
        "multiply_adds_executed": executed,
        "fraction_of_multiply_add_peak": round_to(workload.multiply_adds() / seconds / arithmetic, 3),
        "fraction_of_multiply_add_peak_executed": round_to(executed / seconds / arithmetic, 3),
        "fraction_of_its_rounds_peak_executed": round_to(in_its_round.median, 3),
        "least_bytes_per_step": workload.least_memory_traffic(),
        "fraction_of_memory_peak": round_to(workload.least_memory_traffic() / seconds / memory, 3),
        "peak_multiply_adds_per_second": round_to(arithmetic, 4),
        "peak_bytes_per_second": round_to(memory, 4),
        "nanoseconds_of_an_exchange": [nanoseconds and round(nanoseconds) for nanoseconds in exchanges],
    }


# --- what is concluded -----------------------------------------------------------------------------------------------


def bars_of(rows: list[dict]) -> list[dict]:
    """The bars that the measured rows decide."""
    bars, fastest = [], {}
    for name in dict.fromkeys(row["workload"] for row in rows):
        peers = {
            row["system"]: row["ratio_to_scratchvae"]
            for row in rows
            if row["workload"] == name and row.get("ratio_to_scratchvae") and row["system"] != SCRATCHVAE
        }
        if not peers:
            continue
        best = min(peers, key=lambda system: peers[system])
        fastest[name] = peers[best]
        bars.append(bar(f"{name}, times as fast as the fastest framework ({best})", FASTEST_BAR, peers[best]))
        if TORCH_EAGER in peers:
            bars.append(bar(f"{name}, times as fast as torch eager", EAGER_BAR, peers[TORCH_EAGER]))
    if len(fastest) == len(WORKLOADS):
        bars.append(bar("geometric mean over the five", GEOMETRIC_BAR, geometric_mean(list(fastest.values()))))
    for row in rows:
        if row["workload"] == "pytorch-example" and "fraction_of_multiply_add_peak" in row:
            name = "pytorch-example, fraction of the multiply-add peak"
            bars.append(bar(f"{name}, the algorithm's", PEAK_BAR, row["fraction_of_multiply_add_peak"]))
            bars.append(bar(f"{name}, executed", PEAK_BAR, row["fraction_of_multiply_add_peak_executed"]))
    return bars


def show(rows: list[dict]) -> None:
    columns = ["workload", "system", "us per step", "quartiles", "examples/s", "ratio", "quartiles", "of peak"]
    columns += ["executed", "in its round", "threads"]
    lines = []
    for row in rows:
        start = [row["workload"], row["system"]]
        if row["status"] != "measured":
            lines.append([*start, row["status"], *[""] * 8])
            continue
        spread, ratio = row["spread"], row["ratio_spread"]
        peak = row.get("fraction_of_multiply_add_peak")
        lines.append(
            [
                *start,
                f"{row['microseconds_per_step']:.0f}",
                f"{spread['lower_quartile']:.0f} - {spread['upper_quartile']:.0f}",
                f"{row['examples_per_second']:,}",
                f"{ratio['median']:.2f}" if ratio else "",
                f"{ratio['lower_quartile']:.2f} - {ratio['upper_quartile']:.2f}" if ratio else "",
                f"{peak:.2f}" if peak else "",
                f"{row['fraction_of_multiply_add_peak_executed']:.2f}" if peak else "",
                f"{row['fraction_of_its_rounds_peak_executed']:.2f}" if peak else "",
                str(row["threads"]),
            ]
        )
    show_table("Training step (ratio: the system's time over scratchvae's)", columns, lines)


def plot(path: str, rows: list[dict], threads: int) -> None:
    panels: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["status"] == "measured":
            panels.setdefault(row["workload"], {})[row["system"]] = row["microseconds_per_step"]
    if panels:
        title = f"Training step, float32, {threads} threads, median over rounds (shorter is faster)"
        bar_panels(path, panels, "microseconds per step", SCRATCHVAE, title)


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="FILE", help="where the rows go; the plot goes beside it")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--systems", nargs="+", choices=TRAINING_SYSTEMS, metavar="NAME", help="all by default")
    parser.add_argument("--rounds", type=count, help="default 11, with --quick 3")
    parser.add_argument(
        "--round-seconds", type=duration, help="of each system in a round; default 0.5, with --quick 0.15"
    )
    parser.add_argument("--threads", type=count, default=processors())
    parser.add_argument("--data-dir", help="folder with MNIST's four files; else SCRATCHVAE_DATA, else downloaded")
    parser.add_argument("--quick", action="store_true", help="few short rounds, without max-autotune: for a first look")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 11)
    options.round_seconds = options.round_seconds or (0.15 if options.quick else 0.5)
    left_out = "torch.compile max-autotune" if options.quick else None
    options.systems = options.systems or [name for name in TRAINING_SYSTEMS if name != left_out]
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where a system was refused, whose numbers are wrong; 2 where one fails."""
    options = read_options(arguments)
    warn_if_busy(say)
    rows: list[dict] = []
    systems = [TRAINING_SYSTEMS[system] for system in options.systems]
    try:
        for name in options.workloads:
            rows += measure_workload(WORKLOADS[name], systems, options)
    except PeerError as error:
        say(str(error))
        return 2
    bars = bars_of(rows)
    show(rows)
    show_bars(bars)
    settings = {"threads": options.threads, "rounds": options.rounds, "round_seconds": options.round_seconds}
    write_json(options.json, "train_step", settings, rows, bars)
    plot(options.json, rows, options.threads)
    return exit_status(rows)


if __name__ == "__main__":
    sys.exit(main())
