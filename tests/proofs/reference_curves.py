"""Training curves kept from an earlier day: `python -m tests.proofs.reference_curves` writes them anew.

They change only where what is computed is meant to change: other draws, another order of the data, another objective.
The digits are split, binarized afresh at every use, shuffled and validated, so every draw of a run has a part in them.
"""

import json
from functools import cache
from pathlib import Path

import scratchvae as sv
from scratchvae.data import load
from scratchvae.engine import ENGINES

FILE = Path(__file__).with_suffix(".json")
OBJECTIVES = {"elbo": sv.ELBO(), "iwae": sv.IWAE(3)}
RELATIVE = {"float32": 1e-4, "float64": 1e-9}  # rounding of other processors and libraries, grown over 45 updates


def names() -> list[str]:
    """engine, dtype and objective of every curve."""
    return [f"{engine} {dtype} {objective}" for engine in ENGINES for dtype in RELATIVE for objective in OBJECTIVES]


@cache
def curve(name: str) -> list[list[float]]:
    """(training objective, reconstruction, kl, held-out ELBO) after each epoch."""
    engine, dtype, objective = name.split()
    digits = load("digits", seed=4)
    vae = sv.VAE(64, 4, (24, 16), activation="tanh", dtype=dtype, engine=engine, seed=2)
    history = sv.fit(
        vae, digits.train, epochs=3, batch_size=100, learning_rate=3e-3, objective=OBJECTIVES[objective],
        validation=digits.held_out, seed=3, progress=False,
    )  # fmt: skip
    columns = (history[column] for column in ("objective", "reconstruction", "kl", "validation.elbo"))
    return [list(row) for row in zip(*columns, strict=True)]


def stored() -> dict[str, list[list[float]]]:
    return json.loads(FILE.read_text())


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: curve(name) for name in names()}, indent=1) + "\n")
