"""Where words go: results to standard output, or one JSON object in their place; all else to standard error."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTH_WITHOUT_A_TERMINAL = 100  # a table written to a file or a pipe is not folded
WIDEST = 1000  # of a table


class Output:
    """What a command says: `message` as it goes, `result` and `record` at its end."""

    def __init__(self, as_json: bool, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    @property
    def is_live(self) -> bool:
        """Whether somebody watches: a bar may move on standard error."""
        return sys.stderr.isatty() and not self.quiet

    def message(self, words: str) -> None:
        """One line of progress on standard error, unless quiet is asked for."""
        if not self.quiet:
            print(words, file=sys.stderr, flush=True)

    @contextmanager
    def working(self, words: str) -> Iterator[None]:
        """Say what is being worked on while it lasts, where standard error is a terminal."""
        if not self.is_live:
            yield
            return
        from rich.console import Console

        with Console(stderr=True, highlight=False).status(words):
            yield

    def result(self, table: Any, whole_words: bool = True) -> None:
        """A table or text for a person: on standard output, or on standard error beside a JSON object. Where the
        terminal is narrower than its words it is wider than the terminal, or its words are broken."""
        if self.quiet and self.as_json:
            return
        from rich.console import Console

        stream = sys.stderr if self.as_json else sys.stdout
        width = None if stream.isatty() or os.environ.get("COLUMNS") else WIDTH_WITHOUT_A_TERMINAL
        console = Console(file=stream, width=width, highlight=False, markup=False)
        if whole_words:
            unbroken = console.measure(table, options=console.options.update(max_width=WIDEST)).minimum
            console.width = max(console.width, unbroken)
        console.print(table)

    def note(self, words: str) -> None:
        """A sentence under a result, folded to the width at hand, on the same stream."""
        self.result(words)

    def record(self, numbers: Mapping[str, Any]) -> None:
        """The JSON object, with --json; nothing else is ever printed on standard output beside it."""
        if self.as_json:
            print(json.dumps(plain(numbers), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """The value in JSON's types: arrays as lists, paths as strings, and null for what is no finite number."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
