"""The benchmark of random draws: who draws the wrong thing is refused, and a draw is one number."""

from argparse import Namespace

import numpy as np
import pytest

from benchmarks.peers.numpy_sampling import NumpySampling
from benchmarks.processes import PeerProcess
from benchmarks.sampling import DRAWS, KINDS, PICTURES, are_right, bars_of, measure, measure_kind
from benchmarks.systems import SAMPLING_SYSTEMS

PIXELS = np.full((PICTURES, 784), 51, np.uint8)  # P(1) = 1/5
MOMENTS = {  # mean, mean square, standard deviations of a draw and of its square
    "normals": (0, 1, 1, np.sqrt(2)),
    "uniforms": (1 / 2, 1 / 3, np.sqrt(1 / 12), np.sqrt(4 / 45)),
    "binarized": (0, 4 / 25, 2 / 5, 2 / 5),  # of draw - p
}


@pytest.mark.parametrize("kind", MOMENTS)
def test_moments_are_right_within_six_standard_errors(kind):
    mean, square, *deviations = MOMENTS[kind]
    of_mean, of_square = (deviation / np.sqrt(DRAWS) for deviation in deviations)
    for side in (-1, 1):
        near = {"mean": mean + side * 5.9 * of_mean, "square": square + side * 5.9 * of_square}
        assert are_right(kind, near, PIXELS)
        assert not are_right(kind, near | {"mean": mean + side * 6.1 * of_mean}, PIXELS)
        assert not are_right(kind, near | {"square": square + side * 6.1 * of_square}, PIXELS)


@pytest.mark.parametrize("kind", MOMENTS)
def test_a_systems_own_moments_are_right_and_each_number_is_a_draw(kind, tmp_path):
    np.save(tmp_path / "pixels.npy", PIXELS)
    peer = NumpySampling()
    peer.prepare(DRAWS, str(tmp_path / "pixels.npy"))
    assert are_right(kind, peer.moments(kind), PIXELS)
    assert peer.run(kind, repeats=3)["draws"] == 3 * DRAWS


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, system in SAMPLING_SYSTEMS.items() if system.installed()])
def test_every_installed_system_draws_the_right_thing_and_can_be_timed(name, tmp_path):
    np.save(tmp_path / "pixels.npy", PIXELS)
    with PeerProcess(SAMPLING_SYSTEMS[name], threads=1) as peer:
        peer.ask("prepare", draws=DRAWS, pixels=str(tmp_path / "pixels.npy"))
        for kind in KINDS:
            assert are_right(kind, peer.ask("moments", kind=kind), PIXELS), kind
            answer = peer.ask("run", kind=kind, repeats=2)
            assert (answer["draws"], answer["seconds"] > 0) == (2 * DRAWS, True), kind


def test_rows_say_what_the_pixels_are(tmp_path):
    options = Namespace(data_dir=str(tmp_path), threads=[1], systems=["numpy"], rounds=1, round_seconds=1e-3)
    rows = measure(options)
    assert [row["kind"] for row in rows] == list(KINDS)
    assert all(row["data"].startswith("NOT MNIST") for row in rows)


def test_pixels_of_0_and_255_are_drawn_as_they_are(tmp_path):
    np.save(tmp_path / "pixels.npy", np.array([[0, 255] * 50], np.uint8))
    peer = NumpySampling()
    peer.prepare(1, str(tmp_path / "pixels.npy"))
    assert peer.moments("binarized") == {"mean": 0, "square": 0}


class Drawer:
    """Answers as one that takes so long for a normal, and whose normals have such a mean."""

    def __init__(self, nanoseconds, mean=0.0):
        self.nanoseconds, self.mean = nanoseconds, mean
        self.repeats = []

    def ask(self, command, kind, repeats=0):
        assert kind == "normals"
        if command == "moments":
            return {"mean": self.mean, "square": 1.0}
        self.repeats.append(repeats)
        return {"seconds": repeats * DRAWS * self.nanoseconds * 1e-9, "draws": repeats * DRAWS}


def test_who_draws_the_right_thing_is_timed_for_as_long_as_asked_and_who_does_not_is_not_timed():
    running = {"scratchvae": Drawer(1.0), "slow": Drawer(5.0), "wrong": Drawer(0.5, mean=0.03)}
    options, facts = Namespace(rounds=3, round_seconds=0.1), {name: {} for name in running}
    rows = measure_kind("normals", running, facts, PIXELS, 2, options)
    found = [(row["status"], row.get("nanoseconds_per_draw"), row.get("ratio_to_scratchvae")) for row in rows]
    assert found == [("measured", 1.0, 1.0), ("measured", 5.0, 5.0), ("refused", None, None)]
    assert running["slow"].repeats[-3:] == [round(0.1 / (DRAWS * 5e-9))] * 3
    assert running["wrong"].repeats == []


def test_the_bars_are_those_of_normals_on_one_core():
    def row(system, nanoseconds, ratio, kind="normals", threads=1):
        numbers = {"nanoseconds_per_draw": nanoseconds, "ratio_to_scratchvae": ratio}
        return {"kind": kind, "system": system, "threads": threads, "status": "measured", **numbers}

    rows = [row("scratchvae", 0.9, 1.0), row("torch", 4.5, 5.0), row("numpy", 6.3, 7.0)]
    others = [row("scratchvae", 9.0, 9.0, "uniforms"), row("scratchvae", 9.0, 9.0, threads=2)]
    assert [(line["measured"], line["met"]) for line in bars_of(rows + others)] == [(0.9, True), (5, True), (7, False)]
