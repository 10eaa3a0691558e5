"""The training step's benchmark: how long a round lasts, what a step computes, and what is made of its time."""

import json
from argparse import Namespace

import numpy as np
import pytest

from benchmarks import train_step
from benchmarks.peers.scratchvae_training import (
    ScratchvaeTraining,
    model_with,
    multiply_adds_of_weightless_samples,
    skipped_multiply_adds,
)
from benchmarks.processes import PeerError
from benchmarks.systems import SCRATCHVAE
from benchmarks.train_step import bars_of, fill_row, fractions_of_peak, steps_a_round, time_rounds
from benchmarks.workloads import (
    KINK,
    WORKLOADS,
    Workload,
    _distance_from_kinks,
    _problem,
    glorot_parameters,
    write_problem,
)
from scratchvae.compiled.nonzeros import GROUP
from scratchvae.compiled.step_by_weights import BY_ROWS

PACE = 0.005  # seconds a step
SMALL = Workload("small", 20, (9, 7), 3, "relu", 8, num_samples=5, objective="IWAE")
DECODER = 3 * 7 + 7 * 9 + 9 * 20  # weights of its decoder


# --- rounds ---------------------------------------------------------------------------------------------------------


class DisturbedPeer:
    """Answers as one whose steps take five times as long in every run whose number is given."""

    def __init__(self, disturbed: set[int]) -> None:
        self.disturbed = disturbed
        self.runs = 0

    def ask(self, command: str, steps: int, warm: int) -> dict:
        assert command == "run"
        factor = 5 if self.runs in self.disturbed else 1
        self.runs += 1
        return {"steps": steps, "seconds": steps * PACE * factor}


@pytest.mark.parametrize("disturbed", [set(), {0}, {1}, {2}, {1, 2}, {3, 4}, {1, 2, 4}])
def test_a_round_lasts_as_asked_whichever_runs_before_it_are_disturbed(disturbed):
    assert steps_a_round(DisturbedPeer(disturbed), seconds=0.5) == 100


class RecordedPeer:
    """Answers whatever it is asked, which goes into a list under its name."""

    def __init__(self, name: str, asked: list[tuple[str, str]], loss: float = 1.0) -> None:
        self.name, self.asked, self.loss = name, asked, loss

    def ask(self, command: str, **arguments) -> dict:
        self.asked.append((self.name, command))
        peak = dict.fromkeys(["multiply_adds_per_second", "bytes_per_second", "nanoseconds_of_an_exchange"], 1.0)
        answers = {"measure": peak, "count_multiply_adds": {"multiply_adds_executed": 1}}
        return answers.get(command) or {"steps": arguments["steps"], "seconds": 1.0, "last_loss": self.loss}


def test_the_peak_is_at_rest_before_the_first_pace_is_taken():
    """While its process starts it compiles and fills arrays beside those whose steps are counted."""
    asked, options = [], Namespace(rounds=3, round_seconds=0.5)
    peers = {SCRATCHVAE: RecordedPeer("ours", asked)}
    time_rounds(SMALL, peers, RecordedPeer("peak", asked), {SCRATCHVAE: {}}, options)
    assert asked[0] == ("peak", "measure")
    assert asked.count(("peak", "measure")) == 1 + options.rounds


@pytest.mark.parametrize(
    ("loss", "status"), [(60.0, "measured"), (50.0, "refused"), (np.nan, "refused"), (400.0, "measured")]
)
def test_a_system_that_learns_more_than_there_is_has_no_time(loss, status):
    """As without noise, or of one minibatch again and again; who makes fewer updates learns less."""
    peers = {SCRATCHVAE: RecordedPeer("ours", [], 84.0), "other": RecordedPeer("other", [], loss)}
    rows = {SCRATCHVAE: {}, "other": {}}
    time_rounds(SMALL, peers, RecordedPeer("peak", []), rows, Namespace(rounds=3, round_seconds=0.5))
    assert [rows[name]["status"] for name in peers] == ["measured", status]
    assert ("ratio_to_scratchvae" in rows["other"]) == (status == "measured")


def test_a_system_that_fails_while_it_is_timed_is_one_line_and_status_2(monkeypatch, capsys, tmp_path):
    def fails(*_):
        raise PeerError("torch eager ended during run: out of memory")

    monkeypatch.setattr(train_step, "measure_workload", fails)
    assert train_step.main(["--json", str(tmp_path / "found.json")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "torch eager ended during run: out of memory"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [(["not installed"], 0), (["failed", "not installed"], 2), (["refused"], 1), (["failed", "refused"], 1)],
)
def test_wrong_numbers_are_status_1_and_a_system_that_fails_before_it_is_timed_status_2(
    statuses, expected, monkeypatch, tmp_path
):
    rows = [{"workload": "digits", "system": str(n), "status": status} for n, status in enumerate(statuses)]
    monkeypatch.setattr(train_step, "measure_workload", lambda *_: rows)
    assert train_step.main(["--json", str(tmp_path / "found.json"), "--workloads", "digits"]) == expected
    assert json.loads((tmp_path / "found.json").read_text())["rows"] == rows


# --- what a step computes -------------------------------------------------------------------------------------------


def test_multiply_adds_are_those_of_every_product_of_a_step():
    """Two products with the layer that reads pixels, three with each other one; a row a sample in the decoder."""
    encoder = 2 * 20 * 9 + 3 * (9 * 7 + 7 * 6)
    assert SMALL.multiply_adds() == 8 * encoder + 8 * 5 * 3 * DECODER


def test_the_least_traffic_is_adams_and_the_minibatchs():
    """Parameter and two moments are read and written, float32; the minibatch is read, a byte a pixel."""
    vae = model_with(SMALL, glorot_parameters(SMALL, 0), engine="reference")
    parameters = sum(array.size for array in vae.parameters.values())
    assert SMALL.parameter_count() == parameters
    assert SMALL.least_memory_traffic() == 24 * parameters + 8 * 20


@pytest.mark.parametrize("batch_size", [64, 8])
def test_places_where_a_whole_group_is_zero_are_not_executed(batch_size):
    """Forward a group of images shares its places, in the gradient a group of pixels; few examples share none there."""
    workload = Workload("sparse", 20, (9,), 3, "tanh", batch_size)
    x = np.zeros((batch_size, 20), np.float32)
    x[:, 0] = x[1, 19] = 1
    apart = 1 if BY_ROWS and batch_size == 8 else GROUP  # pixels that share a list in the gradient
    forward = 19 * batch_size - GROUP
    gradient = (20 - apart) * batch_size - apart
    assert skipped_multiply_adds(workload, x) == 9 * (forward + gradient)
    assert skipped_multiply_adds(workload, 1 - x) == 0


def test_samples_that_weigh_nothing_do_not_go_back_through_the_decoder():
    rng = np.random.default_rng(0)
    vae = model_with(SMALL, glorot_parameters(SMALL, 0), engine="reference")
    vae.parameters["encoder.head.bias"][3:] = 4  # q is wider than the prior
    x, eps = rng.random((8, 20)), rng.standard_normal(SMALL.noise_shape)
    eps[:, 1] = eps[:, 0]
    eps[:, 2:] *= 100  # where the prior is not
    assert multiply_adds_of_weightless_samples(SMALL, vae, x, eps) == 2 * 8 * 3 * DECODER


def test_what_a_step_executes_is_what_it_states_less_what_it_leaves_out(tmp_path):
    workload = Workload("sparse", 20, (9,), 3, "tanh", 8)
    pixels = np.zeros((64, 20), np.uint8)
    pixels[:, 0] = 255
    np.save(tmp_path / "data.npy", pixels)
    write_problem(workload, pixels, str(tmp_path / "problem.npz"))
    peer = ScratchvaeTraining(1)
    peer.prepare(workload.as_json(), str(tmp_path / "problem.npz"), str(tmp_path / "data.npy"))
    executed = workload.multiply_adds() - skipped_multiply_adds(workload, pixels[:8])
    assert peer.count_multiply_adds() == {"multiply_adds_executed": executed}


def test_no_system_proves_itself_on_a_relu_that_rounding_switches(tmp_path):
    workload = Workload("kinks", 40, (300, 300), 3, "relu", 20)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 40), dtype=np.uint8)
    near = [_distance_from_kinks(workload, _problem(workload, pixels, seed)) < KINK for seed in range(40)]
    assert 0 < sum(near) < 40, "nothing is shown"
    seed = near.index(True)
    write_problem(workload, pixels, str(tmp_path / "problem.npz"), seed)
    written, following = dict(np.load(tmp_path / "problem.npz")), seed + near[seed:].index(False)
    want = _problem(workload, pixels, following)
    assert written.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(written[name], array)
    first = written["x"][written["rows"][0]] / 255 @ written["encoder.0.weight"] + written["encoder.0.bias"]
    assert np.abs(first).min() > KINK


# --- what is made of its time ---------------------------------------------------------------------------------------


def test_a_row_has_the_median_over_rounds_and_ratios_within_them():
    row: dict = {}
    fill_row(row, SMALL, [20.0, 30.0, 100.0], [10.0, 10.0, 40.0], 7)
    assert row["microseconds_per_step"] == 30
    assert row["examples_per_second"] == round(8 / 30e-6)
    assert row["ratio_to_scratchvae"] == row["ratio_spread"]["median"] == 2.5
    assert row["spread"]["steps_a_round"] == 7
    fill_row(row, SMALL, [20.0], None, 7)
    assert row["ratio_to_scratchvae"] is row["ratio_spread"] is None


def test_fractions_are_of_the_best_that_the_machine_did_in_any_round_and_of_what_it_did_in_the_same():
    stated, moved = SMALL.multiply_adds(), SMALL.least_memory_traffic()

    def round_at(speed, nanoseconds):
        """A round in which the machine could make a step's multiply-adds, or move its bytes twice, in 1 us / speed."""
        rates = {"multiply_adds_per_second": speed * stated * 1e6, "bytes_per_second": 2 * speed * moved * 1e6}
        return rates | {"nanoseconds_of_an_exchange": nanoseconds}

    peaks = [round_at(0.5, 80.4), round_at(1.0, None), round_at(0.7, 240.0)]
    found = fractions_of_peak(SMALL, stated // 4, [2.0, 1.0, 5.0], peaks)
    assert found["fraction_of_multiply_add_peak"] == 0.5
    assert found["fraction_of_multiply_add_peak_executed"] == 0.125
    assert found["fraction_of_its_rounds_peak_executed"] == 0.25  # of 0.25, 0.25 and 0.0714
    assert found["fraction_of_memory_peak"] == 0.25
    assert found["nanoseconds_of_an_exchange"] == [80, None, 240]


def rows_of(workload, **ratios):
    """Rows of systems that take so many times as long as scratchvae."""
    ratios = {"scratchvae": 1.0} | {name.replace("_", " "): ratio for name, ratio in ratios.items()}
    return [{"workload": workload, "system": name, "ratio_to_scratchvae": ratio} for name, ratio in ratios.items()]


def test_a_workloads_bar_is_beside_the_fastest_framework():
    bars = bars_of(rows_of("digits", jax_scan=2.0, jax_jit=1.2, torch_eager=5.0, tensorflow_xla=None))
    found = [(line["bar"], line["measured"], line["met"]) for line in bars]
    assert found == [
        ("digits, times as fast as the fastest framework (jax jit)", 1.2, False),
        ("digits, times as fast as torch eager", 5.0, True),
    ]


def test_the_geometric_mean_is_of_the_fastest_framework_in_all_five_workloads():
    rows = [row for number, name in enumerate(WORKLOADS) for row in rows_of(name, jax_scan=2.0**number, torch=99.0)]
    assert bars_of(rows)[-1]["bar"] == "geometric mean over the five"
    assert bars_of(rows)[-1]["measured"] == 4.0
    assert not any("geometric" in line["bar"] for line in bars_of(rows[:-3]))


def test_the_fractions_of_the_peak_are_barred_on_the_one_workload_that_states_them():
    fractions = {"fraction_of_multiply_add_peak": 0.9, "fraction_of_multiply_add_peak_executed": 0.7}
    rows = [{"workload": name, "system": "scratchvae"} | fractions for name in ("digits", "pytorch-example")]
    assert [(line["measured"], line["met"]) for line in bars_of(rows)] == [(0.9, True), (0.7, False)]
