"""How many threads work: as many as a test asks for, and as before when it has ended."""

from collections.abc import Iterator

import pytest

from scratchvae.compiled import step
from scratchvae.compiled.pace import Pace
from scratchvae.engine import get_threads, set_threads


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = get_threads()
    yield
    set_threads(before)


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
