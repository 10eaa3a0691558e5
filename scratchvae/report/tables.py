"""Tables for the terminal: what a model is worth on each part of the data, and how well its gradients are checked."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from .summary import Summary

# column title, unit, how the cell is written, whether it stands in the narrow table at the end of training
COLUMNS = (
    ("examples", "", lambda s: f"{s.examples:,}"),
    ("reconstruction", "nats", lambda s: f"{s.reconstruction:.3f}"),
    ("KL", "nats", lambda s: f"{s.kl:.3f}"),
    ("ELBO", "nats", lambda s: f"{s.elbo:.3f}"),
    ("log p(x)", "nats", lambda s: f"{s.log_evidence:.3f} ± {s.standard_error:.3f}"),
    ("gap", "nats", lambda s: f"{s.gap:.3f}"),
    ("log p(x)", "bits/dim", lambda s: f"{s.bits_per_dimension:.4f}"),
    ("active units", "", lambda s: f"{s.active_units} of {s.latent_dim}"),
)
SAMPLING_COLUMNS = (
    ("± from sampling", "nats", lambda s: f"{s.sampling_error:.3f}"),
    ("effective samples", "median of K", lambda s: f"{s.effective_sample_size:.1f}"),
)

ESTIMATORS = {
    "importance": "importance-weighted lower bound with {:,} samples",
    "prior": "lower bound by {:,} samples of the prior",
    "exact": "in closed form",
}


def cells(summaries: Mapping[str, "Summary"], sampling: bool = False) -> tuple[list[str], list[list[str]]]:
    """Titles with their units, and one row of written cells for each part; `sampling` adds how good the estimate is."""
    columns = COLUMNS + (SAMPLING_COLUMNS if sampling else ())
    titles = [f"{title}\n{unit}" if unit else title for title, unit, _ in columns]
    return ["", *titles], [[name, *(write(summary) for _, _, write in columns)] for name, summary in summaries.items()]


def caption(summaries: Iterable["Summary"]) -> str:
    """One sentence under the table: what the numbers are means of, and what the ± is."""
    summary = next(iter(summaries))
    words = ESTIMATORS.get(summary.method, f"by the method {summary.method!r} with {{:,}} samples")
    estimator = words.format(summary.num_samples)
    parts = " and ".join(dict.fromkeys(s.described for s in summaries))
    return (
        f"Means per example, over {parts}. log p(x): {estimator}, ± its standard error over examples; "
        "gap = log p(x) - ELBO. "
        "Active: the posterior mean varies over the data by more than 0.01."
    )


def summary_table(summaries: Mapping[str, "Summary"], sampling: bool = False) -> Table:
    """One row for each part of the data, nats per example, and bits per dimension for comparison across data sets."""
    titles, rows = cells(summaries, sampling)
    table = Table()
    for position, title in enumerate(titles):
        table.add_column(title, justify="left" if position == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
