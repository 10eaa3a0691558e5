"""What many processes would do, from what one and two of them did."""

import shutil
import sys
from argparse import Namespace
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

import scratchvae as sv
from benchmarks import scaling
from benchmarks.measure import Spread, ratios
from benchmarks.peers.scratchvae_scaling import BY_MESSAGES, LATENCY, ON_PAPER, Alone, seconds_a_step, trainer_of
from benchmarks.scaling import BATCH, on_paper
from benchmarks.workloads import Workload
from scratchvae.distributed import DistributedTrainer

PARAMETERS = 70_000  # 280,000 bytes
MEASURED = {"step of 1": 1000e-6, BY_MESSAGES: 300e-6, LATENCY: 10e-6}  # seconds; so 280 us are the transfer's
MEASURED |= {f"unreduced {BATCH // size}": 900e-6 / size for size in ON_PAPER}


def found(gigabytes=None, microseconds=None):
    spreads = {name: Spread.of([seconds]) for name, seconds in MEASURED.items()}
    lines = on_paper(spreads, PARAMETERS, Namespace(gigabytes=gigabytes, microseconds=microseconds))
    return {line["processes"]: line for line in lines}


def test_one_and_two_processes_take_turns_and_their_steps_are_paired(monkeypatch):
    launched = []

    def launch(processes, options):
        """On a machine that is slower in every turn."""
        launched.append(processes)
        seconds = (1 + (len(launched) - 1) // 2) / processes
        exchanges = {"unreduced": {"256": [0.5]}} if processes == 1 else {BY_MESSAGES: [0.1]}
        return {"step": [seconds, 2 * seconds], "parameters": PARAMETERS, "data": "pixels", **exchanges}

    monkeypatch.setattr(scaling, "launch", launch)
    monkeypatch.setattr(scaling, "mpiexec", lambda: "mpiexec")
    seen, parameters, data = scaling.measure(Namespace(turns=3))
    assert launched == [1, 2, 2, 1, 1, 2]
    assert (parameters, data) == (PARAMETERS, "pixels")
    assert seen["step of 1"] == [1, 2, 2, 4, 3, 6]
    assert (ratios(seen["step of 1"], seen["step of 2"]).minimum, len(seen["unreduced 256"])) == (2, 3)


def test_a_process_that_fails_is_one_line_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    monkeypatch.setattr(scaling, "mpiexec", lambda: "mpiexec")
    assert scaling.main([]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "processes 1: one ended with status 1"


def test_without_a_launcher_nothing_is_measured_and_the_status_is_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scaling.main([]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "there is no mpiexec: pip install scratchvae[mpi]"


def test_one_process_on_paper_is_the_one_that_was_measured():
    line = found()[1]
    assert (line["compute_microseconds"], line["exchange_microseconds"]) == (1000, 0)
    assert line["speed"] == line["efficiency"] == line["efficiency_with_a_batch_each"] == 1


def test_two_processes_on_paper_exchange_in_the_time_that_their_messages_and_their_sum_of_a_number_took():
    line = found()[2]
    assert (line["compute_microseconds"], line["exchange_microseconds"]) == (450, 300 + 10)
    assert line["speed"] == round(1000 / 760, 3)
    assert line["efficiency"] == round(1000 / 760 / 2, 3)
    assert line["efficiency_with_a_batch_each"] == round(1000 / 1210, 3)


@pytest.mark.parametrize(
    ("network", "microseconds"),
    [
        ({}, 1.5 * 280 + 6 * 10),
        ({"gigabytes": 2.8}, 1.5 * 100 + 6 * 10),
        ({"microseconds": 50.0}, 1.5 * 280 + 6 * 50),
        ({"gigabytes": 2.8, "microseconds": 0.0}, 1.5 * 100),
    ],
)
def test_a_networks_numbers_take_the_place_of_those_measured_and_of_no_others(network, microseconds):
    """Of four processes: a reduce-scatter and an all-gather of three quarters each, and the loss's sum, in two messages
    each."""
    assert found(**network)[4]["exchange_microseconds"] == pytest.approx(microseconds)


@pytest.mark.parametrize(("option", "value"), [("gigabytes", "0"), ("gigabytes", "nan"), ("microseconds", "-1")])
def test_a_network_that_cannot_be_is_refused(option, value, capsys):
    with pytest.raises(SystemExit):
        scaling.read_options([f"--{option}", value])
    assert f"--{option} is {float(value)}; expected a number" in capsys.readouterr().err


@pytest.mark.parametrize("given", [True, False], ids=["option", "environment"])
def test_processes_find_the_data_of_the_folder_that_they_are_started_from(given, tmp_path, monkeypatch):
    """They run in another one."""
    commands = []

    def run(command, **_):
        commands.append(command)
        return SimpleNamespace(returncode=0, stdout="{}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCHVAE_DATA", "elsewhere" if given else "mnist")
    monkeypatch.setattr(scaling.subprocess, "run", run)
    scaling.launch(1, Namespace(rounds=1, steps=1, data_dir="mnist" if given else None))
    assert commands[0][commands[0].index("--data-dir") + 1] == str(tmp_path / "mnist")


class Counted(Alone):
    """Counts what it is asked to exchange."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: Counter = Counter()

    def trainer(self, *settings):
        return DistributedTrainer(self, *settings)

    def __getattribute__(self, name):
        if name in EXCHANGED:
            self.asked[name] += 1
        return super().__getattribute__(name)


EXCHANGED = "add_up", "add_up_part", "share_parts", "copy_from_first", "gather"


def test_what_is_timed_exchanges_as_much_as_training_does():
    """In every step, and once an epoch."""
    workload, pixels = Workload("small", 20, (9,), 3, "tanh", 4), np.zeros((12, 20), np.uint8)
    timed, trained = Counted(), Counted()
    assert len(seconds_a_step(trainer_of(workload, pixels, timed), batch_size=4, rounds=2)) == 2
    vae = sv.VAE(20, 3, (9,), activation="tanh")
    sv.fit(vae, pixels, epochs=3, batch_size=4, binarize="none", processes=trained, progress=False)
    assert timed.asked == trained.asked
    assert timed.asked["add_up"] == timed.asked["add_up_part"] == 9
    assert timed.asked["share_parts"] == 9 + 3 * 2
