"""Tables for the terminal: what a model is worth on each part of the data, and how well its gradients are checked."""

from collections.abc import Iterable, Mapping

from rich import box
from rich.table import Table

from scratchvae.evidence.annealed import CHAINS, temperatures_for

from .summary import INTEGRALS, Summary, how_many

# name, unit, how the value is written
ROWS = (
    ("examples", "", lambda s: f"{s.examples:,}"),
    ("reconstruction", "nats per example", lambda s: f"{s.reconstruction:.3f}"),
    ("KL", "nats per example", lambda s: f"{s.kl:.3f}"),
    ("ELBO", "nats per example", lambda s: f"{s.elbo:.3f}"),
    ("log p(x)", "nats per example", lambda s: f"{s.log_evidence:.3f}{_error(s)}"),
    ("gap", "nats per example", lambda s: f"{s.gap:.3f}"),
    ("log p(x)", "bits per dimension", lambda s: f"{s.bits_per_dimension:.4f}"),
    ("active units", "latent dimensions", lambda s: _active(s)),
)
SAMPLING_ROWS = (
    ("sampling error", "nats per example", lambda s: f"{s.sampling_error:.4f}"),
    ("sampling bias", "nats per example", lambda s: f"{s.sampling_bias:.4f}" if s.sampling_bias else "-"),
    ("effective samples", "median of examples", lambda s: _effective(s, s.effective_sample_size)),
    ("effective samples", "fewest of an example", lambda s: _effective(s, s.smallest_effective_sample_size)),
)
ESTIMATORS = {
    "importance": "importance-weighted lower bound with {}",
    "prior": "lower bound by {} of the prior",
    "ais": "lower bound by annealing, {} on the way of all chains together",
    "quadrature": "by integration over z",
    "exact": "in closed form",
}


def _error(summary: Summary) -> str:
    """The standard error over examples; a single one has none."""
    return f" ± {summary.standard_error:.3f}" if summary.examples > 1 else ""


def _active(summary: Summary) -> str:
    """How many means vary over the examples; of a single one nothing does."""
    return f"{summary.active_units} of {summary.latent_dim}" if summary.examples > 1 else "-"


def _effective(summary: Summary, size: float) -> str:
    """How many of the weighted samples count: chains for annealing, nothing where nothing is sampled."""
    if summary.method in INTEGRALS:
        return "-"
    weighted = f"{CHAINS} chains" if summary.method == "ais" else f"{summary.num_samples:,}"
    return f"{size:,.1f} of {weighted}"


def cells(summaries: Mapping[str, Summary], sampling: bool = False) -> tuple[list[str], list[list[str]]]:
    """Titles, and rows of (name, unit, one value for each part); `sampling` adds how good the estimate is."""
    rows = ROWS + (SAMPLING_ROWS if sampling else ())
    return ["", "", *summaries], [[name, unit, *map(write, summaries.values())] for name, unit, write in rows]


def caption(summaries: Iterable[Summary]) -> str:
    """One sentence under the table: what the numbers are means of, and what the ± is."""
    summaries = list(summaries)
    summary = summaries[0]
    words = ESTIMATORS.get(summary.method, f"by the method {summary.method!r} with {{}}")
    count = summary.num_samples
    counted = (CHAINS * temperatures_for(count), "point") if summary.method == "ais" else (count, "sample")
    estimator = words.format(how_many(*counted))
    if any(s.examples > 1 for s in summaries):
        estimator += ", ± its standard error over examples"
    parts = " and ".join(dict.fromkeys(s.described for s in summaries))
    return (
        f"Means per example, over {parts}. log p(x): {estimator}; "
        "gap = log p(x) - ELBO. "
        "Active: the posterior mean varies over the data by more than 0.01."
    )


def summary_table(summaries: Mapping[str, Summary], sampling: bool = False) -> Table:
    """One column for each part of the data: the ELBO and its terms, log p(x), the gap, active units."""
    titles, rows = cells(summaries, sampling)
    table = Table(box=box.SIMPLE_HEAD)
    for position, title in enumerate(titles):
        style = "dim" if position == 1 else None
        table.add_column(title, justify="left" if position < 2 else "right", style=style, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
