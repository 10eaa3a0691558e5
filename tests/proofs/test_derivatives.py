"""Every derivative is right: each pair of operations, and whole models of every kind."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

import scratchvae as sv
from scratchvae.engine import get_engine
from scratchvae.gradcheck import GATES
from tests.cases import ACTIVATION_NAMES, LIKELIHOOD_NAMES, build
from tests.proofs.checks import backward_is_the_derivative_of_forward
from tests.proofs.pairs import PAIRS, generators, sizes

COMBINATIONS = list(itertools.product(LIKELIHOOD_NAMES, ACTIVATION_NAMES))
METHODS = {"reference": ("complex", "richardson", "central"), "compiled": ("central",)}


def test_no_pair_of_operations_is_left_out():
    backwards = {name for name in get_engine("reference").__all__ if name.endswith("_backward")}
    assert backwards == {f"{name}_backward" for name in PAIRS} | {"network_backward"}


@pytest.mark.parametrize("name", PAIRS)
@given(rng=generators, n=sizes)
def test_backward_equals_the_complex_step_through_the_reference_forward(name, rng, n):
    ops = get_engine("reference")
    forward, backward = getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")
    backward_is_the_derivative_of_forward(forward, backward, *PAIRS[name](rng, n), rng)


@pytest.mark.parametrize("name", PAIRS)
@given(rng=generators, n=sizes)
@settings(max_examples=8)
def test_backward_equals_central_differences_of_the_compiled_forward(name, rng, n):
    ops = get_engine("compiled")
    forward, backward = getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")
    backward_is_the_derivative_of_forward(forward, backward, *PAIRS[name](rng, n), rng, method="central")


@pytest.mark.parametrize(("likelihood", "activation"), COMBINATIONS)
def test_every_gradient_of_every_model_passes_every_gate(engine, likelihood, activation):
    case = build(4, 2, (3,), likelihood, activation, engine=engine, rows=4, samples=2, seed=1)
    for objective, method in itertools.product((sv.ELBO(2), sv.IWAE(2)), METHODS[engine]):
        table = sv.check_gradients(*case, objective, method)
        assert len(table) == len(case.vae.parameters)
        assert table.passed, f"{objective}\n{table}"
        assert all(row.gate == GATES[method] for row in table)


@pytest.mark.parametrize("hidden", [(), (3, 5), (4, 2, 3)])
def test_gradients_hold_at_any_depth(engine, hidden):
    case = build(4, 3, hidden, activation="softplus", engine=engine, rows=3, samples=3, seed=2)
    for objective, method in itertools.product((sv.ELBO(3, beta=2.0), sv.IWAE(3)), METHODS[engine]):
        table = sv.check_gradients(*case, objective, method)
        assert table.passed, f"{objective}\n{table}"


def test_gradients_hold_where_a_float32_network_would_round_them_away():
    case = build(4, 2, (3,), rows=4, samples=2, seed=1)
    case.vae.parameters["decoder.head.weight"][...] *= 1e-6
    case.vae.parameters["encoder.head.weight"][...] *= 1e-6
    table = sv.check_gradients(*case, sv.ELBO(2), "complex")
    norms = np.array([row.norm for row in table])
    assert norms.max() / norms.min() > 1e5, "small gradients and large ones side by side"
    assert table.passed, str(table)
