"""The evaluation's benchmark: every image once, in a slice a round; errors of means; who is refused."""

from argparse import Namespace

import numpy as np
import pytest

import scratchvae as sv
from benchmarks import evaluate
from benchmarks.evaluate import (
    STANDARD_ERRORS,
    TOLERANCE,
    WORKLOAD,
    admit,
    bars_of,
    mean_with_error,
    read_options,
    standard_errors_apart,
    time_rounds,
    write_noise,
)
from benchmarks.images import Images
from benchmarks.peers.evaluation import BLOCK_ROWS, estimates
from benchmarks.peers.scratchvae_training import model_with
from benchmarks.systems import EVALUATION_SYSTEMS
from benchmarks.workloads import glorot_parameters

OPTIONS = Namespace(images=3 * BLOCK_ROWS, rounds=3, samples=50)


class Estimator:
    """Answers as one that takes so many seconds an image, and knows log p(x) of image i as -i to 1/10 nat."""

    def __init__(self, pace, off=0.0, error=0.1):
        self.pace, self.off, self.error = pace, off, error
        self.slices = []

    def ask(self, command, start, stop, samples):
        assert (command, samples) == ("estimate", 50)
        self.slices.append((start, stop))
        log_evidence = [self.off - image for image in range(start, stop)]
        seconds = (stop - start) * self.pace * (1 + (start == 0))  # the first slice is disturbed
        return {"seconds": seconds, "log_evidence": log_evidence, "standard_error": [self.error] * len(log_evidence)}


def timed(**peers):
    rows = {name: {"system": name} for name in peers}
    time_rounds(peers, rows, OPTIONS)
    return rows


def test_each_system_estimates_every_image_once_after_a_block_that_compiles():
    ours, theirs = Estimator(0.5), Estimator(1.0)
    rows = timed(scratchvae=ours, jax=theirs)
    block = BLOCK_ROWS
    assert ours.slices == theirs.slices == [(0, block), (0, block), (block, 2 * block), (2 * block, 3 * block)]
    assert [row["status"] for row in rows.values()] == ["measured"] * 2
    assert rows["jax"]["seconds"] == rows["jax"]["spread"]["median"] == 60 * 1.0
    assert rows["jax"]["ratio_to_scratchvae"] == 2
    assert (rows["jax"]["nats"], rows["jax"]["nats_standard_error"]) == (-29.5, round(0.1 / 60**0.5, 4))


def test_a_system_whose_mean_is_many_standard_errors_away_is_refused():
    error = 0.1 * np.sqrt(2 / 60)
    rows = timed(scratchvae=Estimator(0.5), near=Estimator(1.0, 5.9 * error), far=Estimator(1.0, -6.1 * error))
    assert [rows[name]["status"] for name in ("near", "far")] == ["measured", "refused"]
    assert "seconds" not in rows["far"]


@pytest.mark.parametrize("wrong", [{"off": np.nan}, {"error": np.nan}])
def test_a_system_whose_estimates_are_no_numbers_is_refused(wrong):
    rows = timed(scratchvae=Estimator(0.5), broken=Estimator(1.0, **wrong))
    assert rows["broken"]["status"] == "refused"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--samples", "1"], "--samples is 1"),
        (["--images", "65"], "--images is 65"),
        (["--rounds", "7"], "expected a mult"),
    ],
)
def test_sizes_that_cannot_be_are_refused_in_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit):
        read_options(["--json", "found.json", *arguments])
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_more_images_than_there_are_is_one_line_and_status_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(evaluate, "mnist", lambda *_, **__: Images(np.zeros((100, 784), np.uint8), "MNIST"))
    assert evaluate.main(["--json", str(tmp_path / "found.json")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "--images is 1000; there are 100 test images"
    assert not list(tmp_path.iterdir())


def test_the_error_of_a_mean_is_that_of_independent_images():
    assert mean_with_error(np.array([[-90.0, -100.0], [0.3, 0.4]])) == (-95.0, 0.25)


def test_two_means_are_apart_by_the_errors_of_both():
    one, other = np.array([[-90.0, -100.0], [0.5, 0.0]]), np.array([[-91.3, -101.3], [0.0, 1.2]])
    assert standard_errors_apart(one, other) == pytest.approx(1.3 / (1.3 / 2))


def test_a_peers_estimate_is_the_mean_weight_and_its_error_that_of_a_mean():
    log_weights = np.random.default_rng(0).normal(-700, 1, (2, 7))  # beyond what float32 can exponentiate
    weights = np.exp(log_weights + 700)
    value, error = estimates(log_weights.astype(np.float32))
    np.testing.assert_allclose(value, np.log(weights.mean(axis=1)) - 700, rtol=1e-6)
    np.testing.assert_allclose(error, weights.std(axis=1, ddof=1) / np.sqrt(7) / weights.mean(axis=1), rtol=1e-3)


def test_the_bar_is_beside_the_faster_jax():
    rows = [{"system": name, "ratio_to_scratchvae": ratio} for name, ratio in
            (("scratchvae", 1.0), ("jax", 1.4), ("jax 512-bit", 1.6), ("torch eager", 1.1))]  # fmt: skip
    (line,) = bars_of([*rows, {"system": "jax refused"}], "L_50")
    assert (line["bar"], line["measured"], line["met"]) == ("L_50, times as fast as JAX (jax)", 1.4, False)


CHECKED = "scratchvae", "jax", "torch eager"  # the rest: the same code, compiled in another way


@pytest.fixture
def proof(tmp_path):
    """The files that a system gets, and the bounds that it must have: of an untrained model, on random pixels."""
    parameters, rng = glorot_parameters(WORKLOAD, 0), np.random.default_rng(0)
    parameters["decoder.head.bias"][:] = rng.standard_normal(WORKLOAD.data_dim)  # images differ by many nats
    for name in ("encoder.head.weight", "decoder.head.weight"):  # or few samples would have nearly all of the weight,
        parameters[name] *= np.float32(0.1)  # and of a hundred pairs of estimates some be ten standard errors apart
    pixels = np.where(rng.random((2 * BLOCK_ROWS, WORKLOAD.data_dim)) < 0.2, 255, 0).astype(np.uint8)
    files = {name: str(tmp_path / name) for name in ("parameters.npz", "data.npy", "noise.npy", "claim.npy")}
    np.savez(files["parameters.npz"], **parameters)
    np.save(files["data.npy"], pixels)
    return files, write_noise(parameters, pixels, files["noise.npy"]), model_with(WORKLOAD, parameters), pixels


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHECKED if EVALUATION_SYSTEMS[name].installed()])
def test_every_installed_system_has_the_references_bounds_and_the_estimates_of_scratchvae(name, proof):
    files, reference, vae, pixels = proof
    row: dict = {}
    peer = admit(name, files, reference, 1, row)
    assert peer is not None, row
    with peer:
        assert row["bound_difference"] <= TOLERANCE
        answer = peer.ask("estimate", start=BLOCK_ROWS, stop=2 * BLOCK_ROWS, samples=70)
    expected = sv.log_evidence(vae, pixels[BLOCK_ROWS:], num_samples=70, seed=9)
    apart = np.abs(np.array(answer["log_evidence"]) - expected.log_evidence)
    assert (apart < STANDARD_ERRORS * np.hypot(answer["standard_error"], expected.standard_error)).all()
    np.testing.assert_allclose(np.mean(answer["standard_error"]), expected.standard_error.mean(), rtol=0.3)


@pytest.mark.slow
def test_a_system_whose_bounds_are_off_by_a_ten_thousandth_is_refused(proof):
    files, reference, *_ = proof
    row: dict = {}
    assert admit("scratchvae", files, 1.0001 * reference, 1, row) is None
    assert row["status"] == "refused"
