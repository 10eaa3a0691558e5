"""What the benchmark of starting concludes."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import start
from benchmarks.start import bars_of, cache_environment, first_step_rows, memory_rows
from benchmarks.train_step import Files
from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize(("megabytes", "met"), [(150.0, True), (450.0, False)])
def test_memory_is_a_share_of_torchs_and_starts_are_in_seconds(megabytes, met):
    rows = [
        {"measurement": "first step, cold cache", "system": "scratchvae", "seconds": 16.0},
        {"measurement": "first step, warm cache", "system": "scratchvae", "seconds": 1.0},
        {"measurement": "first step, warm cache", "system": "torch eager", "seconds": 3.0},
        {"measurement": "peak memory", "system": "scratchvae", "megabytes": megabytes},
        {"measurement": "peak memory", "system": "torch eager", "megabytes": 600.0},
    ]
    bars = bars_of([row | {"status": "measured"} for row in rows])
    measured = [(line["measured"], line["met"]) for line in bars]
    assert measured == [(16.0, False), (1.0, True), (megabytes / 600, met)]


class Peer:
    """One that has done all at once."""

    def __init__(self, system, threads):
        pass

    def ask(self, command, **arguments):
        return {"megabytes": 100.0} if command == "peak_memory" else {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_rows_say_what_the_data_are(monkeypatch, tmp_path):
    monkeypatch.setattr(start, "PeerProcess", Peer)
    monkeypatch.setattr(start, "SYSTEMS", ("scratchvae",))
    options = Namespace(rounds=1, cold_rounds=1, threads=1, memory_steps=1, workload=WORKLOADS["digits"])
    files = Files(tmp_path, "pixels")
    rows = first_step_rows(files, options) + memory_rows(files, options)
    assert [row["data"] for row in rows] == ["pixels"] * 3


def test_a_package_that_cannot_be_imported_is_one_line_and_status_2(monkeypatch, capsys, tmp_path):
    (tmp_path / "broken_package.py").write_text("raise ImportError('there is no such library')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(start, "IMPORTS", {"broken": "broken_package"})
    assert start.main(["--json", str(tmp_path / "found.json"), "--rounds", "1"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("import broken_package ended: ")
    assert said.endswith("ImportError: there is no such library")


@pytest.mark.slow
def test_a_cold_start_finds_no_kernels(tmp_path):
    """They are looked for in the folder of this start and nowhere else."""
    where = "from scratchvae.compiled.kernel_cache import PATH; print(PATH)"
    environment = os.environ | cache_environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout).is_relative_to(tmp_path)
