"""What the benchmark of starting concludes."""

import pytest

from benchmarks.start import bars_of


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
