"""What a benchmark leaves: a JSON file, a plot beside it, a table on standard error."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from scratchvae.files import write_whole

OURS, THEIRS = "#c0392b", "#7f8c8d"


def say(message: str) -> None:
    """Progress and results go to standard error."""
    print(message, file=sys.stderr, flush=True)


def write_json(path: str | Path, benchmark: str, settings: dict, rows: list[dict], bars: list[dict], **more) -> None:
    """One object: what was measured, how, on which machine, the rows, and which bars are met."""
    document = {"benchmark": benchmark, "machine": describe_machine(), "settings": settings, **more}
    document |= {"rows": rows, "bars": bars}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=1) + "\n")
    say(f"wrote {path}")


def bar(name: str, required: float, measured: float, at_most: bool = False) -> dict:
    """One line of the bars: what is asked for, what was measured, whether it is met."""
    met = measured <= required if at_most else measured >= required
    return {"bar": name, "required": required, "at_most": at_most, "measured": float(f"{measured:.4g}"), "met": met}


def show_bars(bars: list[dict]) -> None:
    for line in bars:
        verdict, side = "met    " if line["met"] else "NOT MET", "at most" if line["at_most"] else "at least"
        say(f"{verdict}  {line['bar']}: {line['measured']:g} ({side} {line['required']:g})")


def exit_status(rows: list[dict]) -> int:
    """1 where a system was refused, whose numbers are wrong; 2 where one that is installed failed; 0 otherwise."""
    seen = {row["status"] for row in rows}
    return 1 if "refused" in seen else 2 if "failed" in seen else 0


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """The first columns are names, on the left; numbers are on the right."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, width=150).print(table)


def plot_beside(path: str | Path) -> Path:
    return Path(path).with_suffix(".png")


def bar_panels(path: str | Path, panels: dict[str, dict[str, float]], label: str, ours: str, title: str) -> None:
    """One panel a workload with one bar a system, ours in colour; numbers are written at the bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    height = 0.32 * max(len(values) for values in panels.values()) + 1.3
    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.6 * len(panels), height), squeeze=False)
    systems = next(iter(panels.values()))
    for axis, (name, values) in zip(axes[0], panels.items(), strict=True):
        places = range(len(values))
        drawn = axis.barh(places, values.values(), color=[OURS if system == ours else THEIRS for system in values])
        axis.bar_label(
            drawn, fmt=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}", padding=2, fontsize=8
        )
        named = axis is axes[0][0] or values.keys() != systems.keys()  # not again where the panels' rows are the same
        axis.set_yticks(places, values.keys() if named else [""] * len(values), fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.25)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(label, fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(plot_beside(path), dpi=150)
    pyplot.close(figure)
    say(f"wrote {plot_beside(path)}")
