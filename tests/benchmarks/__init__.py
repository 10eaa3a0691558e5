"""Tests of the benchmarks: what is timed has been proved."""
