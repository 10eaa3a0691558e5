"""The run's page, report.html: one file, no network, light and dark as the reader's system says."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from . import tables
from .summary import Summary

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b616b; --line: #d9dce1; --ground: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a0a6b0; --line: #353a42; --ground: #15181c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--ground); color: var(--ink);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p { margin: .5rem 0; } .soft, figcaption { color: var(--soft); font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9375rem; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td:nth-child(2) { text-align: left; color: var(--soft); }
th { font-weight: 600; }
figure { margin: .5rem 0; } figure img { width: 100%; height: auto; }
.terms { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: .5rem 0; }
.terms dt { color: var(--soft); } .terms dd { margin: 0; overflow-wrap: anywhere; }
.groups { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem 2rem; }
.groups h3 { font-size: 1rem; margin: .5rem 0 0; }
"""


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def figure(pair: tuple[bytes, bytes], kind: str, description: str, caption: str = "") -> str:
    """A picture drawn twice, for light and for dark pages; `description` is read out where it cannot be seen."""
    light, dark = (_data_uri(content, kind) for content in pair)
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(description, quote=True)}"></picture>{below}</figure>'
    )


def summary_section(summaries: Mapping[str, Summary]) -> str:
    """The table that ends training, with its units."""
    titles, rows = tables.cells(summaries)
    heads = "".join(f"<th scope=col>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="soft">{escape(tables.caption(summaries.values()))}</p>'
    )


def _written(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_written(entry) for entry in value) or "none"
    return str(value) if not isinstance(value, bool) else "yes" if value else "no"


def configuration_section(config: Mapping[str, Any]) -> str:
    """What was trained on what and how, one group of terms for each part of config.json."""
    groups = []
    for name, entries in config.items():
        if isinstance(entries, Mapping):
            terms = "".join(
                f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(_written(value))}</dd>"
                for key, value in entries.items()
            )
            groups.append(f'<div><h3>{escape(name.capitalize())}</h3><dl class="terms">{terms}</dl></div>')
    return f'<div class="groups">{"".join(groups)}</div>'


def render(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page: a title, one sentence under it, and sections of (heading, HTML)."""
    content = "\n".join(f"<section><h2>{escape(heading)}</h2>\n{html}</section>" for heading, html in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="soft">{escape(lead)}</p>\n{content}\n</body></html>\n'
    )
