"""How many threads work on a small step: all that a test asks for. And which tests a processor is no subject of."""

import pytest

from scratchvae.compiled import step
from scratchvae.compiled.pace import Pace
from scratchvae.compiled.simd import SIMD

collect_ignore = [] if SIMD.estimates else ["test_adam_by_rows.py"]  # Adam by rows is made of 512 bits' estimates


@pytest.fixture(autouse=True)
def all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small steps too: how many threads are given to them is else a matter of what takes how long."""
    monkeypatch.setattr(Pace, "pieces", lambda self, steps: [(0, steps, False)])


@pytest.fixture
def made_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads made each piece of a call of the whole step, in order."""
    numbers: list[int] = []
    original = step._steps

    def steps(task, parts, *arguments):
        numbers.append(parts)
        original(task, parts, *arguments)

    steps.compile = original.compile  # type: ignore[attr-defined]
    monkeypatch.setattr(step, "_steps", steps)
    return numbers
