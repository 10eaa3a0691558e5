"""Numbers with which nothing can be measured are refused in one line, before anything is."""

from importlib import import_module

import pytest

COUNTS = {
    "train_step": ("rounds", "threads"),
    "sampling": ("rounds", "threads"),
    "evaluate": ("images", "samples", "rounds", "epochs", "threads"),
    "start": ("rounds", "cold-rounds", "threads"),
    "scaling": ("turns", "rounds", "steps"),
    "vector_math_sweep": ("stride",),
}


def refused(benchmark: str, option: str, value: str, capsys) -> str:
    """What is said; the benchmark ends with it."""
    with pytest.raises(SystemExit) as ended:
        import_module(f"benchmarks.{benchmark}").main([f"--{option}", value])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"python -m benchmarks.{benchmark}: error: "), "what was typed, to be typed again"
    return said


@pytest.mark.parametrize(("benchmark", "option"), [(name, option) for name in COUNTS for option in COUNTS[name]])
@pytest.mark.parametrize("value", ["0", "-1", "1.5"])
def test_what_is_counted_is_a_whole_number_of_at_least_1(benchmark, option, value, capsys):
    said = refused(benchmark, option, value, capsys)
    assert said.endswith(f"--{option}: '{value}'; expected a whole number of at least 1")


@pytest.mark.parametrize("benchmark", ["train_step", "sampling"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "long"])
def test_a_round_lasts_some_seconds(benchmark, value, capsys):
    said = refused(benchmark, "round-seconds", value, capsys)
    assert said.endswith(f"--round-seconds: '{value}'; expected a number of seconds above 0")


@pytest.mark.parametrize("value", ["-1", str(2**64)])
def test_a_seed_fits_into_the_key_of_a_draw(value, capsys):
    said = refused("signal_to_noise", "seed", value, capsys)
    assert said.endswith(f"--seed is {value}; expected 0 to 2^64 - 1")
