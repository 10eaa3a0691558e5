"""Code as it stands in the package, taken by inspection, so that the page cannot show anything but what was run."""

import ast
import inspect
import io
import keyword
import textwrap
import tokenize
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).resolve().parents[2]


class Excerpt(NamedTuple):
    """Some lines of a function, and where they stand."""

    name: str  # of the function or class
    file: str  # from the package's folder on
    line: int  # of the first line shown
    code: str


def excerpt(subject: Callable[..., Any] | type, first: str = "", last: str = "") -> Excerpt:
    """The lines of a function from the first that holds `first` to the next that holds `last`, without its docstring.

    Takes     first: "" for the line of the definition; last: "" for the end of the function, or of `first`'s line where
              `first` is given
    Raises    ValueError where a line is not there
    """
    plain: Any = inspect.unwrap(subject)
    lines, start = inspect.getsourcelines(plain)
    file = Path(inspect.getsourcefile(plain) or "").resolve()
    begin = next((number for number, line in enumerate(lines) if first in line), None)
    if begin is None:
        raise ValueError(f"{plain.__qualname__}: no line with {first!r}")
    end = begin if first and not last else len(lines) - 1
    if last:
        found = next((number for number, line in enumerate(lines) if number >= begin and last in line), None)
        if found is None:
            raise ValueError(f"{plain.__qualname__}: no line with {last!r} from line {begin} on")
        end = found
    hidden = _docstring_lines("".join(lines))
    kept = [line for number, line in enumerate(lines[: end + 1]) if number >= begin and number not in hidden]
    code = textwrap.dedent("".join(kept)).rstrip()
    return Excerpt(plain.__qualname__, file.relative_to(PACKAGE.parent).as_posix(), start + begin, code)


def _docstring_lines(source: str) -> set[int]:
    """Numbers of the lines of the first docstring, from 0."""
    body = ast.parse(textwrap.dedent(source)).body[0]
    statements = getattr(body, "body", [])
    if statements and isinstance(statements[0], ast.Expr) and isinstance(statements[0].value, ast.Constant):
        return set(range(statements[0].lineno - 1, statements[0].end_lineno or 0))
    return set()


def html(shown: Excerpt) -> str:
    """The excerpt as a figure: where it stands, and the code with its comments, strings and keywords marked."""
    where = f"<b>{escape(shown.name)}</b> in {escape(shown.file)}, line {shown.line}"
    return f'<figure class="code"><figcaption>{where}</figcaption><pre><code>{marked(shown.code)}</code></pre></figure>'


def marked(code: str) -> str:
    """Code as HTML. What is no complete piece of Python stays unmarked."""
    kinds = {tokenize.COMMENT: "comment", tokenize.STRING: "string"}
    lines = code.splitlines(keepends=True)
    pieces, row, column = [], 1, 0

    def copy_to(end: tuple[int, int]) -> None:
        nonlocal row, column
        while (row, column) < end and row <= len(lines):
            until = end[1] if row == end[0] else len(lines[row - 1])
            pieces.append(escape(lines[row - 1][column:until], quote=False))
            row, column = (row, until) if row == end[0] else (row + 1, 0)

    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            kind = kinds.get(token.type)
            if token.type == tokenize.NAME and keyword.iskeyword(token.string):
                kind = "keyword"
            copy_to(token.start)
            if kind:
                pieces.append(f'<span class="{kind}">')
            copy_to(token.end)
            if kind:
                pieces.append("</span>")
    except (tokenize.TokenError, IndentationError):
        return escape(code, quote=False)
    return "".join(pieces).rstrip()
