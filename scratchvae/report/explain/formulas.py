"""Formulas written in one line, as MathML, which browsers draw themselves: no script, no font, no network.

log p_θ(x) = ∫ p_θ(x|z) p(z) dz        letters are variables, words are upright, _ and ^ with one item or {several}
frac{1}{2}    sqrt{x}    quad (a space)        "words in quotes"        @elbo{...} in the colour of a quantity
"""

import re
from html import escape

TOKEN = re.compile(r'"[^"]*"|@[a-z]+|[A-Za-z]{2,}|[A-Za-z\u0370-\u03ff](?:[\u0302\u0304])?|\d+(?:[.,]\d+)*|\S')
LARGE = {"∑": "munder", "∏": "munder", "∫": "msub"}
FENCES = "(){}|‖"  # square brackets stretch around fractions
UNSTRETCHED = ' stretchy="false"'


def inline(text: str) -> str:
    """A formula in a line of text."""
    return f"<math>{_row(text)}</math>"


def display(text: str) -> str:
    """A formula on a line of its own; several lines, each cut into columns by &, are aligned on one another."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) == 1:
        return f'<math display="block">{_row(lines[0])}</math>'
    rows = ("".join(f"<mtd>{_row(cell)}</mtd>" for cell in line.split("&")) for line in lines)
    table = "".join(f"<mtr>{row}</mtr>" for row in rows)
    return f'<math display="block" displaystyle="true"><mtable>{table}</mtable></math>'


def fill(text: str) -> str:
    """Replace $$...$$ and $...$ in HTML by MathML."""
    text = re.sub(r"\$\$(.+?)\$\$", lambda found: f'<div class="formula">{display(found[1])}</div>', text, flags=re.S)
    return re.sub(r"\$([^$\n]+)\$", lambda found: inline(found[1]), text)


def _row(text: str) -> str:
    tokens = TOKEN.findall(text)
    items, rest = _items(tokens)
    if rest:
        raise ValueError(f"{text!r}: a closing brace too many")
    return "<mrow>" + "".join(items) + "</mrow>"


def _items(tokens: list[str]) -> tuple[list[str], list[str]]:
    """MathML of tokens up to the closing brace, and the tokens after it."""
    items: list[str] = []
    while tokens and tokens[0] != "}":
        item, tokens = _item(tokens)
        scripts: dict[str, str] = {}
        while tokens and tokens[0] in ("_", "^"):
            where = tokens[0]
            scripts[where], tokens = _item(tokens[1:])
        items.append(_with_scripts(item, scripts))
    return items, tokens


def _with_scripts(item: str, scripts: dict[str, str]) -> str:
    if not scripts:
        return item
    if any(symbol in item for symbol in ("∑", "∏")):
        kind = {"_^": "munderover", "_": "munder", "^": "mover"}["".join(sorted(scripts, reverse=True))]
    else:
        kind = {"_^": "msubsup", "_": "msub", "^": "msup"}["".join(sorted(scripts, reverse=True))]
    return f"<{kind}>{item}{''.join(scripts[mark] for mark in '_^' if mark in scripts)}</{kind}>"


def _item(tokens: list[str]) -> tuple[str, list[str]]:
    token, rest = tokens[0], tokens[1:]
    if token == "{":
        items, rest = _items(rest)
        return "<mrow>" + "".join(items) + "</mrow>", rest[1:]
    if token == "frac":
        top, rest = _item(rest)
        bottom, rest = _item(rest)
        return f"<mfrac>{top}{bottom}</mfrac>", rest
    if token == "sqrt":
        inside, rest = _item(rest)
        return f"<msqrt>{inside}</msqrt>", rest
    if token.startswith("@"):
        inside, rest = _item(rest)
        return f'<mrow class="{token[1:]}">{inside}</mrow>', rest
    if token.startswith('"'):
        return f"<mtext>{escape(token[1:-1])}</mtext>", rest
    if token == "quad":
        return '<mspace width="1.2em"/>', rest
    if token in ("dz", "dx"):
        return f'<mrow><mspace width="0.17em"/><mi mathvariant="normal">d</mi><mi>{token[1]}</mi></mrow>', rest
    if token[0].isdigit():
        return f"<mn>{token}</mn>", rest
    if token.isalpha() or (len(token) == 2 and token[0].isalpha()):
        space = '<mspace width="0.17em"/>' if len(token) > 2 and rest and rest[0] not in "_^(),)}" else ""
        return f"<mi>{token}</mi>{space}" if not space else f"<mrow><mi>{token}</mi>{space}</mrow>", rest
    if token in "|‖":
        return f'<mo{UNSTRETCHED} lspace="0.12em" rspace="0.12em">{token}</mo>', rest
    if token in LARGE:
        return f'<mo largeop="true" movablelimits="false">{token}</mo>', rest
    return f"<mo{UNSTRETCHED if token in FENCES else ''}>{escape(token)}</mo>", rest
