"""What the benchmark of starting concludes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.start import bars_of, cache_environment


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


@pytest.mark.slow
def test_a_cold_start_finds_no_kernels(tmp_path):
    """They are looked for in the folder of this start and nowhere else."""
    where = "from scratchvae.compiled.kernel_cache import PATH; print(PATH)"
    environment = os.environ | cache_environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout).is_relative_to(tmp_path)
