"""Progress bars: rich's, silent where standard error is no terminal. Training's shows the terms of the ELBO live."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

COMPILING = "compiling, once"  # kernels are kept
REFRESH = 0.1  # seconds between updates of the numbers, so that watching costs nothing

Watch = Callable[[int, int], None]  # called with the number of steps done and to do
Advance = Callable[[], None]  # one more step is done


def counted(watch: Watch | None, total: int) -> Advance:
    """Counts steps and tells `watch`."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if watch is not None:
            watch(done, total)

    return advance


def _on_a_terminal() -> bool:
    """Whether standard error is one; Python has None for a stream that is closed."""
    return sys.stderr is not None and sys.stderr.isatty()


def _that_says_when_it_compiles(bar: Any, task: Any) -> AbstractContextManager[None]:
    """The bar says so while Numba compiles kernels: the first time that takes longer than many an epoch."""
    if "numba" not in sys.modules:  # the reference engine
        return nullcontext()
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]  # Numba has no types
        depth, before = 0, ""  # kernels are compiled within one another

        def on_start(self, event: Any) -> None:
            if self.depth == 0:
                self.before = bar.tasks[task].description
                bar.update(task, description=COMPILING)
            self.depth += 1

        def on_end(self, event: Any) -> None:
            self.depth -= 1
            if self.depth == 0:
                bar.update(task, description=self.before)

    return event.install_listener("numba:compile", Listener())


@contextmanager
def counting_bar(words: str, enabled: bool = True) -> Iterator[Watch | None]:
    """A bar that counts steps; None where it is not enabled or standard error is no terminal."""
    if not (enabled and _on_a_terminal()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(words, total=None)
        with _that_says_when_it_compiles(bar, task):
            yield lambda done, total: bar.update(task, completed=done, total=total)


class Progress(Protocol):
    """What training tells as it goes: the terms (S, B) of updates when they are made, and an epoch's entry."""

    def advance(self, epoch: int, terms: Any) -> None: ...

    def epoch(self, entry: dict[str, Any]) -> None: ...


class Quiet:
    """Says nothing."""

    def advance(self, epoch: int, terms: Any) -> None:
        pass

    def epoch(self, entry: dict[str, Any]) -> None:
        pass


class RichBar:
    """A rich progress bar over all updates."""

    def __init__(self, bar: Any, task: Any, epochs: int) -> None:
        self._bar = bar
        self._task = task
        self._epochs = epochs
        self._pending = 0
        self._shown = 0.0
        self._held_out = ""

    def advance(self, epoch: int, terms: Any) -> None:
        self._pending += len(terms.objective)
        now = time.perf_counter()
        if now - self._shown < REFRESH:
            return
        self._show(epoch, {name: float(getattr(terms, name).mean()) for name in ("elbo", "reconstruction", "kl")})
        self._shown = now

    def epoch(self, entry: dict[str, Any]) -> None:
        if entry["validation"] is not None:
            self._held_out = f"  held out {entry['validation']['elbo']:.2f}"
        self._show(entry["epoch"], entry["train"])

    def _show(self, epoch: int, means: Mapping[str, float]) -> None:
        terms = "ELBO {elbo:.2f} = {reconstruction:.2f} - KL {kl:.2f}".format_map(means)
        text = f"epoch {epoch}/{self._epochs}  {terms}{self._held_out}"
        self._bar.update(self._task, advance=self._pending, description=text)
        self._pending = 0


@contextmanager
def progress_bar(epochs: int, updates: int, enabled: bool = True, done: int = 0) -> Iterator[Progress]:
    """A bar over epochs * updates, of which `done` epochs are behind a resumed run; or silence where it is not enabled
    or standard error is no terminal."""
    if not (enabled and _on_a_terminal()):
        yield Quiet()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    # in 80 columns all fits; in fewer the numbers are cut at their end, and never the time that remains
    numbers = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    columns = BarColumn(bar_width=8), TimeRemainingColumn(), numbers
    with RichProgress(*columns, expand=True, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=epochs * updates, completed=done * updates)
        with _that_says_when_it_compiles(bar, task):
            yield RichBar(bar, task, epochs)
