"""The benchmark times nobody who computes something else."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.equality import ADAM_TOLERANCE, compare, record
from benchmarks.peers.scratchvae_training import train_on_problem
from benchmarks.processes import PeerProcess, System
from benchmarks.systems import TRAINING_SYSTEMS
from benchmarks.train_step import Files, admit, prove
from benchmarks.workloads import UPDATES, Workload, write_problem
from scratchvae.reference.adam import adam_update

RATE = 1e-3
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
STEPS = [*FRAMEWORKS, *(["jax scan"] if "jax" in FRAMEWORKS else [])]


def problem(workload: Workload, folder: Path) -> tuple[Files, dict]:
    """The files of a small workload on random pixels, and what the reference engine makes of them in float64."""
    files = Files(folder, "random pixels")
    pixels = np.random.default_rng(0).integers(0, 256, (64, workload.data_dim), dtype=np.uint8)
    np.save(files.data, pixels)
    write_problem(workload, pixels, files.problem)
    return files, train_on_problem(workload, dict(np.load(files.problem)), "float64", "reference")


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
    row: dict = {}
    assert admit(faulty(framework, "loss"), ELBO, files, reference, threads=1, row=row) is None
    assert row["status"] == "refused"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "fault"),
    [
        *((framework, "rows") for framework in STEPS),
        *((framework, "noise") for framework in STEPS if "scan" in framework),
    ],
)
def test_a_fault_in_the_step_that_is_timed_is_refused(framework: str, fault: str, tmp_path: Path) -> None:
    """What is proved gathers its minibatches and makes its updates by the functions that `run` calls."""
    files, reference = problem(ELBO, tmp_path)
    with PeerProcess(faulty(framework, fault), 1) as peer:
        peer.ask("prepare", workload=ELBO.as_json(), problem=files.problem, data=files.data)
        assert not prove(peer, ELBO, files, reference).holds
        proved = peer.ask("times")["times"]
        peer.ask("run", steps=2, warm=0)
        assert peer.ask("times")["times"] > proved > 0


def faulty(framework: str, fault: str) -> System:
    requires = "numba" if framework == "scratchvae" else framework.split()[0]
    return System("faulty", "tests.benchmarks.faulty_peer", requires, (framework, fault))


def records(step=adam_update, **settings) -> tuple[dict, dict, dict]:
    """A float32 claim of a few updates by some Adam, the reference, and the parameters before. Gradients are
    also as small as those of weights of pixels that are nearly always black: there an epsilon shows."""
    rng = np.random.default_rng(0)
    before = {"a": rng.uniform(-0.3, 0.3, (40, 30)), "b": rng.uniform(-0.05, 0.05, 30)}
    gradients = [
        {
            name: rng.standard_normal(array.shape) * 10 ** rng.uniform(-6, 0, array.shape)
            for name, array in before.items()
        }
        for _ in range(UPDATES)
    ]
    claim = record_of(step, gradients, before, {"learning_rate": RATE} | settings)
    claim = {name: np.float32(array) for name, array in claim.items()}
    return claim, record_of(adam_update, gradients, before, {"learning_rate": RATE}), before


def record_of(step, gradients: list[dict], before: dict, settings: dict) -> dict:
    parameters, moments = {name: array.copy() for name, array in before.items()}, []
    first, second = ({name: np.zeros_like(array) for name, array in before.items()} for _ in range(2))
    for update, gradient in enumerate(gradients, 1):
        for name, array in parameters.items():
            step(array, gradient[name], first[name], second[name], update, **settings)
        moments.append({name: array.copy() for name, array in first.items()})
    return record([5.0, 4.0, 3.5, 3.2, 3.0], moments, parameters)


def test_rounding_to_float32_is_accepted() -> None:
    assert compare(*records(), RATE).holds


def test_adam_made_again_is_the_reference_engines() -> None:
    _, reference, before = records()
    assert compare(reference, reference, before, RATE).adam < 1e-12


@pytest.mark.parametrize(
    "fault",
    [
        lambda claim: claim.pop("b"),
        lambda claim: claim.update(a=claim["a"].swapaxes(1, 2)),
        lambda claim: claim.update(a=claim["a"][:1]),
        lambda claim: claim.update(a=1.001 * claim["a"]),
        lambda claim: claim.update(b=np.full_like(claim["b"], np.nan)),
        lambda claim: claim.update(b=np.full_like(claim["b"], np.inf)),
        lambda claim: claim.update(b=np.zeros_like(claim["b"])),
        lambda claim: claim.update(losses=1.0001 * claim["losses"]),
        lambda claim: claim.update(losses=claim["losses"] * [1, np.nan, 1, 1, 1]),
        lambda claim: claim.update(losses=claim["losses"] * [1, 1, 1.001, 1, 1]),
        lambda claim: claim.update(losses=claim["losses"][:1]),
        lambda claim: claim.pop("trained b"),
        lambda claim: claim.update({"trained a": claim["trained a"].T}),
        lambda claim: claim.update({"trained b": np.full(30, np.nan)}),
    ],
    ids=[
        *("missing", "shape", "one update", "scaled", "nan", "infinite", "zero", "loss", "nan loss", "a later loss"),
        *("untrained", "parameters missing", "parameters' shape", "nan parameters"),
    ],
)
def test_a_wrong_loss_or_gradient_is_refused(fault) -> None:
    claim, reference, before = records()
    fault(claim)
    assert not compare(claim, reference, before, RATE).holds


def test_one_parameter_that_is_not_moved_is_refused() -> None:
    """Among those of its tensor, however small its gradient: no element is left out."""
    claim, reference, before = records()
    place = np.unravel_index(np.abs(reference["a"][0]).argmin(), before["a"].shape)
    claim["trained a"][place] = before["a"][place]
    assert not compare(claim, reference, before, RATE).holds


def uncorrected(parameters, gradient, first, second, step, learning_rate) -> None:
    adam_update(parameters, gradient, first, second, step + 10**6, learning_rate)


def half_corrected(parameters, gradient, first, second, step, learning_rate) -> None:
    adam_update(parameters, gradient, first, second, step, learning_rate / np.sqrt(1 - 0.999**step))


def decayed(parameters, gradient, first, second, step, learning_rate) -> None:
    before = parameters.copy()
    adam_update(parameters, gradient, first, second, step, learning_rate)
    parameters -= learning_rate * 0.01 * before


def with_epsilon_in_the_root(parameters, gradient, first, second, step, learning_rate) -> None:
    adam_update(np.zeros_like(parameters), gradient, first, second, step, learning_rate)
    root = np.sqrt(second / (1 - 0.999**step) + 1e-8)
    parameters -= learning_rate * first / (1 - 0.9**step) / root


@pytest.mark.parametrize(
    "faulty",
    [
        {"epsilon": 1e-7},
        {"epsilon": 1e-10},
        {"beta2": 0.99},
        {"beta2": 0.998},
        {"learning_rate": 1.001e-3},
        {"step": uncorrected},
        {"step": half_corrected},
        {"step": decayed},
        {"step": with_epsilon_in_the_root},
    ],
    ids=lambda faulty: " ".join(getattr(value, "__name__", f"{name} {value}") for name, value in faulty.items()),
)
def test_an_adam_that_is_not_ours_is_refused(faulty: dict) -> None:
    """Though its losses and its first gradients are ours."""
    claim, reference, before = records(**faulty)
    proof = compare(claim, reference, before, RATE)
    assert not proof.holds
    assert max(proof.loss, proof.trained_loss, proof.gradient) < 1e-6


def test_first_moments_of_another_decay_are_refused() -> None:
    claim, reference, before = records(beta1=0.8)
    assert not compare(claim, reference, before, RATE).holds


@pytest.mark.slow
@pytest.mark.skipif("jax jit" not in INSTALLED, reason="JAX is not installed")
@pytest.mark.parametrize("faulty", [{"epsilon": 1e-6}, {"beta2": 0.99}, {"factor": 1.001}, {"decay": 0.01}], ids=str)
def test_a_peer_whose_adam_is_not_ours_is_refused(faulty: dict, tmp_path: Path, monkeypatch) -> None:
    """Though its first gradients are ours."""
    from benchmarks.peers import jax_training

    right = jax_training.adam

    def wrong(parameters, gradients, first, second, step, learning_rate):
        settings = dict(faulty)
        rate, decay = learning_rate * settings.pop("factor", 1), settings.pop("decay", 0)
        moved, first, second = right(parameters, gradients, first, second, step, rate, **settings)
        return {name: moved[name] - rate * decay * parameters[name] for name in moved}, first, second

    monkeypatch.setattr(jax_training, "adam", wrong)
    files, reference = problem(ELBO, tmp_path)
    peer = jax_training.JaxTraining("jit")
    peer.prepare(ELBO.as_json(), files.problem, files.data)
    peer.prove(files.claim("wrong"))
    claim, before = dict(np.load(files.claim("wrong"))), dict(np.load(files.problem))
    proof = compare(claim, reference, before, ELBO.learning_rate)
    assert proof.adam > ADAM_TOLERANCE
    assert proof.gradient < 1e-4
