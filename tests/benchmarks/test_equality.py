"""The benchmark times nobody who computes something else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.equality import UPDATES, compare
from benchmarks.peers.scratchvae_training import train_on_problem
from benchmarks.processes import System
from benchmarks.systems import TRAINING_SYSTEMS
from benchmarks.train_step import Files, admit
from benchmarks.workloads import Workload, write_problem

ELBO = Workload("small", 20, (9,), 3, "tanh", 8)
IWAE = Workload("small-iwae", 20, (9, 7), 3, "relu", 8, num_samples=5, objective="IWAE")
CHECKED = (
    "scratchvae",
    "jax scan",
    "jax jit",
    "torch eager",
    "tensorflow xla",
)  # the rest: the same code, compiled long
INSTALLED = [name for name in CHECKED if TRAINING_SYSTEMS[name].installed()]
CASES = [(name, w) for name in INSTALLED for w in (ELBO, IWAE)]
FRAMEWORKS = [
    name for name in ("torch", "jax", "scratchvae") if name == "scratchvae" or any(name in s for s in INSTALLED)
]


def problem(workload: Workload, folder: Path) -> tuple[Files, dict]:
    """The files of a small workload on random pixels, and what the reference engine makes of them in float64."""
    files = Files(folder, "random pixels")
    pixels = np.random.default_rng(0).integers(0, 256, (64, workload.data_dim), dtype=np.uint8)
    np.save(files.data, pixels)
    write_problem(workload, pixels, files.problem)
    return files, train_on_problem(workload, dict(np.load(files.problem)), UPDATES, "float64", "reference")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workload"), CASES, ids=lambda case: getattr(case, "name", case))
def test_every_installed_system_computes_the_reference_and_can_be_timed(
    name: str, workload: Workload, tmp_path: Path
) -> None:
    files, reference = problem(workload, tmp_path)
    row: dict = {}
    peer = admit(TRAINING_SYSTEMS[name], workload, files, reference, threads=1, row=row)
    assert peer is not None, row
    with peer:
        assert row["proof"]["holds"]
        answer = peer.ask("run", steps=3, warm=0)
        assert answer["steps"] >= 3
        assert answer["seconds"] > 0
        assert np.isfinite(answer["last_loss"])


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_peer_whose_loss_is_off_by_a_thousandth_is_refused(framework: str, tmp_path: Path) -> None:
    files, reference = problem(ELBO, tmp_path)
    faulty = System("faulty", "tests.benchmarks.faulty_peer", framework, (framework,))
    if framework == "scratchvae":
        faulty = dataclasses.replace(faulty, requires="numba")
    row: dict = {}
    assert admit(faulty, ELBO, files, reference, threads=1, row=row) is None
    assert row["status"] == "refused"


def records() -> tuple[dict, dict]:
    """A reference and a float32 claim of it, rounded and no more."""
    rng = np.random.default_rng(0)
    reference = {"losses": np.array([5.0, 4.0, 3.5]), "a": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    reference |= {f"change of {name}": rng.standard_normal(reference[name].shape) for name in "ab"}
    return {name: np.float32(value) for name, value in reference.items()}, reference


def test_rounding_to_float32_is_accepted() -> None:
    assert compare(*records()).holds


@pytest.mark.parametrize(
    "fault",
    [
        lambda claim: claim.pop("b"),
        lambda claim: claim.update(a=claim["a"].T),
        lambda claim: claim.update(a=1.001 * claim["a"]),
        lambda claim: claim.update(b=np.array([np.nan, 0, 0])),
        lambda claim: claim.update(b=np.zeros(3)),
        lambda claim: claim.update(losses=1.0001 * claim["losses"]),
        lambda claim: claim.update(losses=claim["losses"] * [1, np.nan, 1]),
        lambda claim: claim.update(losses=claim["losses"] * [1, 1, 1.001]),
        lambda claim: claim.update(losses=claim["losses"][:1]),
        lambda claim: claim.pop("change of b"),
        lambda claim: claim.update({"change of a": claim["change of a"].T}),
        lambda claim: claim.update({"change of a": 1.001 * claim["change of a"]}),
        lambda claim: claim.update({"change of b": np.full(3, np.nan)}),
    ],
    ids=[
        *("missing", "shape", "scaled", "nan", "zero", "loss", "nan loss", "adam", "untrained"),
        *("change missing", "change's shape", "longer change", "nan change"),
    ],
)
def test_a_wrong_loss_or_gradient_is_refused(fault) -> None:
    claim, reference = records()
    fault(claim)
    assert not compare(claim, reference).holds


def test_where_a_gradient_is_nearly_zero_rounding_may_decide_how_far_adam_goes() -> None:
    claim, reference = records()
    reference["a"][0, 0] = claim["a"][0, 0] = 1e-4 * np.abs(reference["a"]).max()
    claim["change of a"][0, 0] *= -1
    assert compare(claim, reference).holds


@pytest.mark.slow
@pytest.mark.skipif("jax jit" not in INSTALLED, reason="JAX is not installed")
@pytest.mark.parametrize("fault", ["epsilon", "epsilon in the root", "decay"])
def test_an_adam_that_is_not_ours_is_refused(fault: str, tmp_path: Path, monkeypatch) -> None:
    """Though its losses after five updates are."""
    from benchmarks.peers import jax_training

    right = jax_training.adam

    def wrong(parameters, gradients, first, second, step, learning_rate):
        if fault == "epsilon":
            return right(parameters, gradients, first, second, step, learning_rate, epsilon=1e-5)
        moved, first, second = right(parameters, gradients, first, second, step, learning_rate)
        if fault == "decay":
            return {name: moved[name] - learning_rate * 0.01 * parameters[name] for name in moved}, first, second
        scale1, scale2 = 1 - jax_training.BETA1**step, 1 - 0.999**step
        steps = {name: first[name] / scale1 / (second[name] / scale2 + 1e-8) ** 0.5 for name in moved}
        return {name: parameters[name] - learning_rate * steps[name] for name in moved}, first, second

    monkeypatch.setattr(jax_training, "adam", wrong)
    files, reference = problem(ELBO, tmp_path)
    peer = jax_training.JaxTraining("jit")
    peer.prepare(ELBO.as_json(), files.problem, files.data)
    peer.prove(UPDATES, files.claim("wrong"))
    proof = compare(dict(np.load(files.claim("wrong"))), reference)
    assert not proof.holds
    assert proof.gradient < 1e-4
