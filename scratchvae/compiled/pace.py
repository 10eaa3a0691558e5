"""How many threads a small step is given, or one made operation by operation: all, or one where the others cost more
than they save.

Processors that share no cache pass a line on some three times as slowly, and a virtual machine's may share one at one
moment and not at the next; and another program may keep one of them busy. So now and then a few steps are made by the
other number of threads, and timed. Bits do not depend on it.
"""

from functools import cache

LOOK = 16  # steps made by the other number of threads; or half of a call's
EVERY = 1_000  # steps after which it is looked again, at the next call
GAIN = 0.95  # of the time that it must take to be chosen


class Pace:
    """What a step of one size takes with all threads and with one."""

    def __init__(self) -> None:
        self.alone = False
        self.since_look = EVERY
        self.seconds: dict[bool, float] = {}

    def pieces(self, steps: int) -> list[tuple[int, int, bool]]:
        """Steps first .. last - 1 of a call, and whether a single thread makes them."""
        look = min(LOOK, -(-steps // 2)) if self.since_look >= EVERY else 0
        self.since_look = steps if look else self.since_look + steps
        pieces = [(0, look, not self.alone), (look, steps, self.alone)]
        return [piece for piece in pieces if piece[0] < piece[1]]

    def took(self, alone: bool, seconds: float) -> None:
        """Seconds that a step of a piece took. Once both are known the faster is chosen, and both are forgotten: a
        step that something disturbs is compared with a look if it is the last one before, and with no other."""
        others = self.seconds.pop(not alone, None)  # at once: models in several Python threads may share a pace
        if others is None:
            self.seconds[alone] = seconds
            return
        self.seconds.pop(alone, None)
        took = {alone: seconds, not alone: others}
        if took[not self.alone] < GAIN * took[self.alone]:
            self.alone = not self.alone


@cache
def pace_of(multiply_adds: int, threads: int) -> Pace:
    """The pace of steps of so many multiply-adds, all threads being so many."""
    return Pace()
