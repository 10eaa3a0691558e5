"""How many threads small steps are given."""

from types import SimpleNamespace

import pytest

from scratchvae import training
from scratchvae.compiled.pace import EVERY, Pace, pace_of
from scratchvae.engine import get_threads
from tests.compiled.test_step import SOME, Composed, Trainer, batches, pixels, sv

STEPS = EVERY // 8  # of a call


@pytest.fixture
def all_threads():
    """Not here, where their number is chosen."""


def run(pace: Pace, seconds: dict[bool, float], calls: int) -> list[bool]:
    """Which calls a single thread made most of, where a step takes so long with all threads and with one."""
    alone = []
    for _ in range(calls):
        for _, _, piece_alone in pace.pieces(STEPS):
            pace.took(piece_alone, seconds[piece_alone])
        alone.append(piece_alone)
    return alone


def test_all_threads_work_as_long_as_that_is_faster():
    assert not any(run(Pace(), {False: 62, True: 90}, 40))


def test_one_thread_works_alone_while_others_cost_more_than_they_save():
    """As where a virtual machine's processors come to lie apart, and together again."""
    pace, near, far = Pace(), {False: 62, True: 90}, {False: 131, True: 90}
    run(pace, near, 20)
    assert run(pace, far, 20)[8:] == [True] * 12
    assert run(pace, near, 20)[16:] == [False] * 4


def test_a_step_that_takes_long_now_and_then_is_no_reason_to_change():
    """Where every call is one step: each is compared with nothing but a look that comes with it."""
    pace, alone = Pace(), []
    for number in range(20 * EVERY):
        for _, _, piece_alone in pace.pieces(1):
            pace.took(piece_alone, 90 if piece_alone else 62 if number % EVERY != EVERY // 2 else 620)
            alone.append(piece_alone)
    assert sum(alone) < 30


def test_what_all_threads_take_is_known_for_their_number_alone():
    assert pace_of(1_000, 2) is pace_of(1_000, 2)
    assert len({pace_of(1_000, 2), pace_of(1_000, 3), pace_of(2_000, 2)}) == 3


def test_a_hundredth_is_no_reason_to_change():
    assert not any(run(Pace(), {False: 100, True: 99}, 40))


def test_pieces_are_all_steps_in_order():
    pace = Pace()
    for call in range(16):
        pieces = pace.pieces(STEPS)
        assert [begin for begin, _, _ in pieces] == [0, *(end for _, end, _ in pieces[:-1])]
        assert pieces[-1][1] == STEPS
        assert len(pieces) == (2 if call % 8 == 0 else 1)
    assert all(len(pace.pieces(EVERY)) == 2 for _ in range(3))
    assert Pace().pieces(5) == [(0, 3, True), (3, 5, False)]
    assert Pace().pieces(1) == [(0, 1, True)]


@pytest.mark.parametrize("rows", [SOME, 40])
def test_a_look_changes_no_bit(rows, monkeypatch, made_by):
    """The same steps by all threads, and first by one."""
    if get_threads() < 2:
        pytest.skip("one processor")
    results = []
    for pieces in ([(0, 40, False)], [(0, 16, True), (16, 40, False)]):
        monkeypatch.setattr(Pace, "pieces", lambda self, steps, pieces=pieces: pieces)
        trainer = Trainer(sv.VAE(37, 5, hidden=(150, 131), seed=1), pixels(), seed=5)
        terms = list(trainer.steps(batches(40, rows)))
        results.append([*(part.elbo for part in terms), trainer.vae.parameters.flat.copy()])
    most = 2 if rows == SOME else get_threads()
    assert made_by == [most, 1, most]
    for one, other in zip(*results, strict=True):
        assert (one == other).all()


def test_steps_made_of_operations_are_given_one_thread_too(monkeypatch):
    """And the same bits; between the steps all threads are there."""
    if get_threads() < 2:
        pytest.skip("one processor")
    results, given, between = [], [], []

    class Watched(Composed):
        def _composed_step(self, rows):
            given.append(get_threads())
            return super()._composed_step(rows)

    for pieces in ([(0, 6, False)], [(0, 2, True), (2, 6, False)]):
        monkeypatch.setattr(Pace, "pieces", lambda self, steps, pieces=pieces: pieces)
        trainer = Watched(sv.VAE(37, 5, hidden=(150, 131), seed=1), pixels(), seed=5)
        terms = []
        for part in trainer.steps(batches(6, 90)):
            terms.append(part.elbo)
            between.append(get_threads())
        results.append([*terms, trainer.vae.parameters.flat.copy()])
    most = get_threads()
    assert given == [most] * 6 + [1] * 2 + [most] * 4
    assert between == [most] * 12
    for one, other in zip(*results, strict=True):
        assert (one == other).all()


def test_large_steps_made_of_operations_are_not_looked_at(monkeypatch):
    """By one of many threads each would take many times as long."""
    monkeypatch.setattr(training, "SMALL", 9 * Composed(sv.VAE(37, 5, hidden=(12,)), pixels())._work(1))
    calls = []
    monkeypatch.setattr(Pace, "pieces", lambda self, steps: calls.append(steps) or [(0, steps, False)])
    trainer = Composed(sv.VAE(37, 5, hidden=(12,)), pixels())
    assert len(list(trainer.steps(batches(5, 9)))) == 5
    assert not calls
    assert len(list(trainer.steps(batches(5, 8)))) == 5
    assert calls == ([5] if get_threads() > 1 else [])


def test_steps_made_of_operations_say_what_they_took(monkeypatch):
    """In the middle: what the first took, which compiles, counts for nothing."""
    if get_threads() < 2:
        pytest.skip("one processor")
    took, clock = [], iter([0, 1_000, 0, 1, 0, 2, 0, 5, 0, 6])
    monkeypatch.setattr(Pace, "pieces", lambda self, steps: [(0, 3, True), (3, 5, False)])
    monkeypatch.setattr(Pace, "took", lambda self, alone, seconds: took.append((alone, seconds)))
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    list(Composed(sv.VAE(37, 5, hidden=(12,)), pixels()).steps(batches(5, 9)))
    assert took == [(True, 2), (False, 5.5)]
