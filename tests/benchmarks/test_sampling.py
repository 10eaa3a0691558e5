"""The benchmark of random draws: who draws the wrong thing is refused, and a draw is one number."""

import numpy as np
import pytest

from benchmarks.peers.numpy_sampling import NumpySampling
from benchmarks.sampling import DRAWS, PICTURES, are_right, bars_of

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


def test_pixels_of_0_and_255_are_drawn_as_they_are(tmp_path):
    np.save(tmp_path / "pixels.npy", np.array([[0, 255] * 50], np.uint8))
    peer = NumpySampling()
    peer.prepare(1, str(tmp_path / "pixels.npy"))
    assert peer.moments("binarized") == {"mean": 0, "square": 0}


def test_the_bars_are_those_of_normals_on_one_core():
    def row(system, nanoseconds, ratio, kind="normals", threads=1):
        numbers = {"nanoseconds_per_draw": nanoseconds, "ratio_to_scratchvae": ratio}
        return {"kind": kind, "system": system, "threads": threads, "status": "measured", **numbers}

    rows = [row("scratchvae", 0.9, 1.0), row("torch", 4.5, 5.0), row("numpy", 6.3, 7.0)]
    others = [row("scratchvae", 9.0, 9.0, "uniforms"), row("scratchvae", 9.0, 9.0, threads=2)]
    assert [(line["measured"], line["met"]) for line in bars_of(rows + others)] == [(0.9, True), (5, True), (7, False)]
