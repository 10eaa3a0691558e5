"""README's tables of training steps hold what the kept results hold, cell by cell."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = {  # of the table: systems of the results, of which the fastest is shown
    "scratchvae": ("scratchvae",),
    "JAX scan": ("jax scan", "jax scan 512-bit"),
    "TensorFlow XLA": ("tensorflow xla",),
    "torch.compile": ("torch.compile", "torch.compile max-autotune"),
    "torch eager": ("torch eager",),
}
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("train_step*.json"))


def table_of(result: str) -> list[list[str]]:
    """The cells of the table that stands below a result's name, its titles first."""
    _, text = (ROOT / "README.md").read_text().split(f"benchmarks/results/{result}`", 1)
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE).group().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def expected(titles: list[str], rows: dict[str, dict]) -> list[str]:
    """The cells of a workload, from its rows by system."""
    peers = [row["ratio_to_scratchvae"] for system, row in rows.items() if system != "scratchvae"]
    cells = []
    for title in titles:
        if title in COLUMNS:
            fastest = min(rows[system]["microseconds_per_step"] for system in COLUMNS[title] if system in rows)
            cells.append(f"{fastest:,.0f} us")
        else:
            ratio = min(peers) if title == "against the fastest" else rows["torch eager"]["ratio_to_scratchvae"]
            cells.append(f"{ratio:.2f}")
    return cells


@pytest.mark.parametrize("result", [path.name for path in RESULTS])
def test_a_table_is_that_of_its_results(result):
    titles, *lines = table_of(result)
    assert titles[1] == "scratchvae"
    assert titles[-2:] == ["against the fastest", "against torch eager"]
    rows: dict[str, dict] = {}
    for row in json.loads((ROOT / "benchmarks" / "results" / result).read_text())["rows"]:
        rows.setdefault(row["workload"], {})[row["system"]] = row
    shown = {re.match(r"`(.*?)`", line[0]).group(1): line[1:] for line in lines}
    assert shown == {workload: expected(titles[1:], of_it) for workload, of_it in rows.items()}
