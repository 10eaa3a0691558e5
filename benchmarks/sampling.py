"""`python -m benchmarks.sampling --json FILE`: nanoseconds a draw of normals, uniforms and binarized pixels.

Every system draws as many numbers, float32, into memory it keeps where it can. Before it is timed, the mean and the
mean square of what it draws must be right within six standard errors.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.images import mnist
from benchmarks.machine import warn_if_busy
from benchmarks.measure import Spread, alternate, ratios, round_to
from benchmarks.numbers import count, duration
from benchmarks.processes import PeerError, PeerProcess
from benchmarks.report import bar, bar_panels, exit_status, say, show_bars, show_table, write_json
from benchmarks.systems import SAMPLING_SYSTEMS, SCRATCHVAE

KINDS = ("normals", "uniforms", "binarized")
PICTURES = 128  # a batch
DRAWS = PICTURES * 784  # about 100,000: a batch of pixels, or the noise of two steps of `iwae-k50`
STANDARD_ERRORS = 6
NORMAL_BAR, TORCH_BAR, NUMPY_BAR = 1.0, 4.0, 8.0


def measure(options: argparse.Namespace) -> list[dict]:
    """Rows of every kind, system and number of threads; all of them take turns."""
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        images = mnist(options.data_dir, test=True)
        pixels = images.pixels[:PICTURES]
        file = str(Path(folder) / "pixels.npy")
        np.save(file, pixels)
        for threads in options.threads:
            running = {}
            for name in options.systems:
                system = SAMPLING_SYSTEMS[name]
                if not system.installed():
                    rows.append({"system": name, "threads": threads, "status": "not installed"})
                elif threads == 1 or system.requires != "numpy":
                    running[name] = processes.enter_context(PeerProcess(system, threads))
            found = {"data": images.found}
            facts = {name: found | peer.ask("prepare", draws=DRAWS, pixels=file) for name, peer in running.items()}
            for kind in KINDS:
                rows += measure_kind(kind, running, facts, pixels, threads, options)
    return rows


def measure_kind(kind: str, running: dict, facts: dict, pixels: NDArray, threads: int, options) -> list[dict]:
    """The rows of one kind of draw, for the systems that draw the right thing."""
    rows = {name: {"kind": kind, "system": name, "threads": threads, **facts[name]} for name in running}
    admitted = {}
    for name, peer in running.items():
        rows[name]["moments"] = moments = peer.ask("moments", kind=kind)
        if are_right(kind, moments, pixels):
            admitted[name] = peer
        else:
            rows[name]["status"] = "refused"
            say(f"{kind}: {name} REFUSED, its moments are {moments}")
    repeats = {name: repeats_a_round(peer, kind, options.round_seconds) for name, peer in admitted.items()}

    def timed(name: str) -> float:
        answer = admitted[name].ask("run", kind=kind, repeats=repeats[name])
        return answer["seconds"] / answer["draws"] * 1e9

    values = alternate({name: lambda name=name: timed(name) for name in admitted}, options.rounds)
    for name in admitted:
        ours = values.get(SCRATCHVAE)
        rows[name]["status"] = "measured"
        rows[name]["nanoseconds_per_draw"] = round_to(Spread.of(values[name]).median)
        rows[name]["spread"] = Spread.of(values[name]).as_json()
        rows[name]["ratio_to_scratchvae"] = round_to(ratios(values[name], ours).median) if ours else None
    return list(rows.values())


def are_right(kind: str, moments: dict, pixels: NDArray) -> bool:
    """Whether mean and mean square are within six standard errors of what they must be.

    normals    0 and 1, with variances 1 and 2           uniforms    1/2 and 1/3, with variances 1/12 and 4/45
    binarized  (draw - p): 0 and p (1 - p), over all pixels; the variance of its square is at most p (1 - p)
    """
    p = pixels / 255
    spread = float((p * (1 - p)).mean())
    mean, square, variances = {
        "normals": (0, 1, (1, 2)),
        "uniforms": (1 / 2, 1 / 3, (1 / 12, 4 / 45)),
        "binarized": (0, spread, (spread, spread)),
    }[kind]
    found = abs(moments["mean"] - mean), abs(moments["square"] - square)
    return all(
        difference <= STANDARD_ERRORS * np.sqrt(variance / DRAWS)
        for difference, variance in zip(found, variances, strict=True)
    )


def repeats_a_round(peer: PeerProcess, kind: str, seconds: float) -> int:
    peer.ask("run", kind=kind, repeats=1)
    answer = peer.ask("run", kind=kind, repeats=5)
    return max(1, round(5 * seconds / answer["seconds"]))


# --- what is concluded -----------------------------------------------------------------------------------------------


def bars_of(rows: list[dict]) -> list[dict]:
    """The bars of one core's normals: 1 ns, 4 times torch, 8 times NumPy."""
    normals = {
        row["system"]: row
        for row in rows
        if row.get("kind") == "normals" and row["threads"] == 1 and row["status"] == "measured"
    }
    if SCRATCHVAE not in normals:
        return []
    ours = normals[SCRATCHVAE]["nanoseconds_per_draw"]
    bars = [bar("normals, nanoseconds each on one core", NORMAL_BAR, ours, at_most=True)]
    for name, required in (("torch", TORCH_BAR), ("numpy", NUMPY_BAR)):
        if name in normals:
            ratio = normals[name]["ratio_to_scratchvae"]
            bars.append(bar(f"normals, times as fast as {name} on one core", required, ratio))
    return bars


def show(rows: list[dict]) -> None:
    lines = []
    for row in rows:
        start = [row.get("kind", ""), row["system"], str(row["threads"])]
        if row["status"] != "measured":
            lines.append([*start, row["status"], "", ""])
            continue
        spread, ratio = row["spread"], row["ratio_to_scratchvae"]
        quartiles = f"{spread['lower_quartile']:.2f} - {spread['upper_quartile']:.2f}"
        lines.append([*start, f"{row['nanoseconds_per_draw']:.2f}", quartiles, f"{ratio:.2f}" if ratio else ""])
    show_table("Random draws", ["draws", "system", "threads", "ns per draw", "quartiles", "ratio"], lines)


def plot(path: str, rows: list[dict]) -> None:
    panels: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["status"] == "measured":
            core = "one thread" if row["threads"] == 1 else f"{row['threads']} threads"
            panels.setdefault(f"{row['kind']}, {core}", {})[row["system"]] = row["nanoseconds_per_draw"]
    if panels:
        bar_panels(path, panels, "ns per draw", SCRATCHVAE, f"Random draws, float32, {DRAWS:,} at a time")


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="FILE", help="where the rows go; the plot goes beside it")
    parser.add_argument("--systems", nargs="+", choices=SAMPLING_SYSTEMS, default=list(SAMPLING_SYSTEMS))
    parser.add_argument("--threads", nargs="+", type=count, default=[1, 2])
    parser.add_argument("--rounds", type=count, help="default 11, with --quick 3")
    parser.add_argument("--round-seconds", type=duration, default=0.1)
    parser.add_argument("--data-dir", help="folder with MNIST's four files; else SCRATCHVAE_DATA, else downloaded")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 11)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where a system's draws are wrong, 2 where one fails."""
    options = read_options(arguments)
    warn_if_busy(say)
    try:
        rows = measure(options)
    except PeerError as error:
        say(str(error))
        return 2
    bars = bars_of(rows)
    show(rows)
    show_bars(bars)
    settings = {"rounds": options.rounds, "round_seconds": options.round_seconds, "draws": DRAWS}
    write_json(options.json, "sampling", settings, rows, bars)
    plot(options.json, rows)
    return exit_status(rows)


if __name__ == "__main__":
    sys.exit(main())
