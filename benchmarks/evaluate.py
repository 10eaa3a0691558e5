"""`python -m benchmarks.evaluate --json FILE`: seconds for L_5000 of 1,000 MNIST test images, a 784-400-20 model.

All systems have the same trained weights. First, with the noise given, they must give the same bounds of a few images
to rounding; then each estimates all images with its own noise, a slice in turn, and the means must agree within the
Monte Carlo error.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import scratchvae as sv
from benchmarks.images import mnist, thresholded
from benchmarks.machine import warn_if_busy
from benchmarks.measure import Spread, alternate, ratios, round_to
from benchmarks.numbers import count
from benchmarks.peers.evaluation import BLOCK_ROWS, BLOCK_SAMPLES
from benchmarks.peers.scratchvae_training import model_with
from benchmarks.processes import PeerError, PeerProcess
from benchmarks.report import bar, bar_panels, exit_status, say, show_bars, show_table, write_json
from benchmarks.systems import EVALUATION_SYSTEMS, SCRATCHVAE
from benchmarks.workloads import WORKLOADS
from scratchvae.engine import processors

WORKLOAD = WORKLOADS["pytorch-example"]
TOLERANCE = 1e-5  # relative, of a bound with the noise given, against the reference engine in float64
STANDARD_ERRORS = 6  # between the means of two systems, each with its own noise
JAX_BAR = 1.5


def measure(options: argparse.Namespace) -> list[dict]:
    """One row a system."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        images = thresholded(mnist(options.data_dir, test=True), options.images)
        if len(images.pixels) < options.images:
            raise PeerError(f"--images is {options.images}; there are {len(images.pixels)} test images")
        files = {name: str(Path(folder) / name) for name in ("parameters.npz", "data.npy", "noise.npy", "claim.npy")}
        parameters = trained_parameters(options)
        np.savez(files["parameters.npz"], **parameters)
        np.save(files["data.npy"], images.pixels)
        reference = write_noise(parameters, images.pixels, files["noise.npy"])
        rows, running = [], {}
        for name in options.systems:
            rows.append({"system": name, "threads": options.threads, "data": images.found})
            peer = admit(name, files, reference, options.threads, rows[-1])
            if peer is not None:
                running[name] = processes.enter_context(peer)
        time_rounds(running, {row["system"]: row for row in rows}, options)
    return rows


def trained_parameters(options: argparse.Namespace) -> dict[str, NDArray]:
    """Weights after some epochs of training, so that the importance weights are those of a model in use."""
    vae = sv.VAE(WORKLOAD.data_dim, WORKLOAD.latent_dim, WORKLOAD.hidden, activation=WORKLOAD.activation)
    say(f"training the model that is evaluated for {options.epochs} epochs")
    pixels = mnist(options.data_dir).pixels
    sv.fit(vae, pixels, epochs=options.epochs, batch_size=128, binarize="threshold", progress=False)
    return dict(vae.parameters)


def write_noise(parameters: dict, pixels: NDArray, path: str) -> NDArray:
    """Writes the noise of the proof, of a block as peers work on: a compiler makes another program for other shapes.
    Gives the bounds of the reference engine in float64 with it."""
    shape = BLOCK_ROWS, BLOCK_SAMPLES, WORKLOAD.latent_dim
    eps = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.save(path, eps)
    vae = model_with(WORKLOAD, parameters, "float64", "reference")
    terms, _ = vae.value_and_grad(pixels[:BLOCK_ROWS], eps, sv.IWAE(num_samples=BLOCK_SAMPLES))
    return terms.objective


def admit(name: str, files: dict, reference: NDArray, threads: int, row: dict) -> PeerProcess | None:
    """Starts a system and has it prove its bounds. None, with the reason in the row, where it may not be timed."""
    system = EVALUATION_SYSTEMS[name]
    if not system.installed():
        row["status"] = "not installed"
        return None
    peer = PeerProcess(system, threads)
    try:
        parameters, data = files["parameters.npz"], files["data.npy"]
        row |= peer.ask("prepare", workload=WORKLOAD.as_json(), parameters=parameters, data=data)
        peer.ask("prove", noise=files["noise.npy"], out=files["claim.npy"])
        difference = float(np.abs(np.load(files["claim.npy"]) / reference - 1).max())
    except PeerError as error:
        row["status"] = "failed"
        say(str(error))
        peer.close()
        return None
    row["bound_difference"] = difference
    if difference <= TOLERANCE:
        say(f"{name} computes the same bounds: {difference:.1e} (at most {TOLERANCE:.0e})")
        return peer
    row["status"] = "refused"
    say(f"{name} REFUSED, its bounds differ by {difference:.1e} (at most {TOLERANCE:.0e})")
    peer.close()
    return None


def time_rounds(running: dict[str, PeerProcess], rows: dict[str, dict], options: argparse.Namespace) -> None:
    """Each system estimates every image once, one slice a round."""
    estimates: dict[str, list[NDArray]] = {name: [] for name in running}
    edges = range(0, options.images + 1, options.images // options.rounds)

    def timed(name: str) -> float:
        turn = len(estimates[name])
        start, stop = edges[turn], edges[turn + 1]
        answer = running[name].ask("estimate", start=start, stop=stop, samples=options.samples)
        estimates[name].append(np.array([answer["log_evidence"], answer["standard_error"]]))
        return answer["seconds"] / (stop - start)

    for peer in running.values():  # compiles: every round is of such blocks
        peer.ask("estimate", start=0, stop=BLOCK_ROWS, samples=options.samples)
    values = alternate({name: lambda name=name: timed(name) for name in running}, options.rounds)
    merged = {name: np.concatenate(parts, axis=1) for name, parts in estimates.items()}
    for name in running:
        fill_row(rows[name], values[name], values.get(SCRATCHVAE), merged[name], merged.get(SCRATCHVAE), options)


def fill_row(row: dict, values: list[float], ours: list[float] | None, found, our_found, options) -> None:
    """Takes seconds an image by round, and estimates with standard errors (2, images)."""
    row["nats"], row["nats_standard_error"] = mean_with_error(found)
    row["status"] = "measured"
    if our_found is not None:
        row["standard_errors_from_scratchvae"] = round_to(standard_errors_apart(found, our_found), 3)
        if not row["standard_errors_from_scratchvae"] <= STANDARD_ERRORS:  # or it is NaN
            row["status"] = "refused"
            say(f"{row['system']} REFUSED: {row['standard_errors_from_scratchvae']} standard errors from scratchvae")
            return
    row["seconds"] = round_to(Spread.of(values).median * options.images)
    row["spread"] = Spread.of([value * options.images for value in values]).as_json()
    row["ratio_to_scratchvae"] = round_to(ratios(values, ours).median) if ours else None


def mean_with_error(found: NDArray) -> tuple[float, float]:
    """Mean of log p(x) over the images, and its Monte Carlo error."""
    value, error = found
    return round_to(float(value.mean()), 6), round_to(float(np.sqrt(np.square(error).sum()) / len(error)), 3)


def standard_errors_apart(one: NDArray, other: NDArray) -> float:
    """Difference of the means over the images, in its own standard errors: both sides had noise of their own."""
    error = np.sqrt(np.square(one[1]).sum() + np.square(other[1]).sum()) / one.shape[1]
    return float(abs(one[0].mean() - other[0].mean()) / error)


# --- what is concluded -----------------------------------------------------------------------------------------------


def bars_of(rows: list[dict], estimated: str) -> list[dict]:
    peers = {row["system"]: row.get("ratio_to_scratchvae") for row in rows if row["system"].startswith("jax")}
    measured = {name: ratio for name, ratio in peers.items() if ratio}
    if not measured:
        return []
    best = min(measured, key=lambda name: measured[name])
    return [bar(f"{estimated}, times as fast as JAX ({best})", JAX_BAR, measured[best])]


def show(rows: list[dict]) -> None:
    lines = []
    for row in rows:
        if row["status"] != "measured":
            lines.append([row["system"], "", row["status"], "", "", "", ""])
            continue
        spread, ratio = row["spread"], row["ratio_to_scratchvae"]
        quartiles = f"{spread['lower_quartile']:.2f} - {spread['upper_quartile']:.2f}"
        nats = f"{row['nats']:.3f} +- {row['nats_standard_error']:.3f}"
        numbers = [f"{row['seconds']:.2f}", quartiles, f"{ratio:.2f}" if ratio else "", nats, str(row["threads"])]
        lines.append([row["system"], row["generator"], *numbers])
    columns = ["system", "noise", "seconds", "quartiles", "ratio", "nats, mean +- Monte Carlo error", "threads"]
    show_table("L_K of MNIST test images", columns, lines)


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="FILE", help="where the rows go; the plot goes beside it")
    parser.add_argument("--systems", nargs="+", choices=EVALUATION_SYSTEMS, default=list(EVALUATION_SYSTEMS))
    parser.add_argument("--images", type=count, default=1000)
    parser.add_argument("--samples", type=count, default=5000)
    parser.add_argument("--rounds", type=count, default=10, help="slices of the images, one a round")
    parser.add_argument("--epochs", type=count, default=3, help="of training, before the evaluation")
    parser.add_argument("--threads", type=count, default=processors())
    parser.add_argument("--data-dir", help="folder with MNIST's four files; else SCRATCHVAE_DATA, else downloaded")
    parser.add_argument("--quick", action="store_true", help="60 images, 500 samples, three rounds")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.samples, options.rounds, options.epochs = 60, 500, 3, 1
    if options.samples < 2:
        parser.error("--samples is 1; expected at least 2, for a Monte Carlo error")
    if options.images % (options.rounds * BLOCK_ROWS):
        parser.error(
            f"--images is {options.images} in {options.rounds} rounds; expected a multiple of "
            f"{options.rounds * BLOCK_ROWS}: whole blocks of {BLOCK_ROWS} images in each"
        )
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where a system's numbers are wrong, 2 where one fails."""
    options = read_options(arguments)
    warn_if_busy(say)
    try:
        rows = measure(options)
    except PeerError as error:
        say(str(error))
        return 2
    estimated = f"L_{options.samples} of {options.images:,} images"
    bars = bars_of(rows, estimated)
    show(rows)
    show_bars(bars)
    settings = {name: getattr(options, name) for name in ("threads", "rounds", "images", "samples", "epochs")}
    write_json(options.json, "evaluate", settings, rows, bars)
    panel = {row["system"]: row["seconds"] for row in rows if row["status"] == "measured"}
    if panel:
        bar_panels(options.json, {estimated: panel}, "seconds", SCRATCHVAE, f"log p(x), {options.threads} threads")
    return exit_status(rows)


if __name__ == "__main__":
    sys.exit(main())
