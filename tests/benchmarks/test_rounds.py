"""How long a round of the training step's benchmark lasts."""

import pytest

from benchmarks.train_step import steps_a_round

PACE = 0.005  # seconds a step


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
