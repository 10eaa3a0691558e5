"""What the benchmark of starting concludes."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import start
from benchmarks.start import (
    SPANS,
    bars_of,
    cache_environment,
    first_step_rows,
    memory_rows,
    seconds_to_first_step,
    show,
)
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


def test_every_line_of_the_table_says_from_where_to_where_it_was_measured(capsys):
    measured = {"system": "scratchvae", "status": "measured"}
    names = ["import", "first step, cold cache", "first step, warm cache"]
    rows = [measured | {"measurement": name, "seconds": 1.5} for name in names]
    rows += [measured | {"measurement": "peak memory", "megabytes": 240.0}]
    rows += [{"measurement": "first step", "system": "tensorflow xla", "status": "not installed"}]
    show(rows)
    lines = [line for line in capsys.readouterr().err.splitlines() if "scratchvae" in line or "tensorflow" in line]
    spans = [SPANS[name] for name in ("import", "first step", "first step", "peak memory", "first step")]
    assert len(lines) == len(spans)
    assert all(span in line for span, line in zip(spans, lines, strict=True))
    assert "not installed" in lines[-1]


def test_the_time_to_a_first_step_begins_before_the_process_and_ends_before_it_is_ended(monkeypatch, tmp_path):
    clock, steps = iter(range(2)), []

    class Recorded(Peer):
        def __init__(self, system, threads):
            steps.append("start")

        def ask(self, command, **arguments):
            steps.append(command)
            return {}

        def __exit__(self, *error):
            steps.append("end")

    monkeypatch.setattr(start, "PeerProcess", Recorded)
    monkeypatch.setattr(start.time, "perf_counter", lambda: steps.append("clock") or next(clock))
    options = Namespace(threads=1, workload=WORKLOADS["digits"])
    assert seconds_to_first_step(None, Files(tmp_path, "pixels"), options) == 1
    assert steps == ["clock", "start", "prepare", "run", "clock", "end"]


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
