"""The gradient checker: it passes what is right, and its controls fail."""

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import reference
from scratchvae.gradcheck import GATES
from tests.cases import build

METHODS = tuple(GATES)


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_wrong_by_a_thousandth_fails(method, plant):
    true = reference.bernoulli_log_likelihood_backward
    plant("bernoulli_log_likelihood_backward", lambda dll, cache: 1.001 * true(dll, cache))
    table = sv.check_gradients(*build(), method=method)
    assert not table.passed
    errors = {row.parameter: row.error for row in table}
    assert errors["decoder.head.bias"] == pytest.approx(1e-3, rel=0.01)
    assert str(table).count("FAILED") > str(table).count("zero everywhere") == 0


@pytest.mark.parametrize(("method", "error"), [("complex", 2e-12), ("richardson", 2e-9), ("central", 2e-7)])
def test_a_gradient_that_is_wrong_by_little_more_than_a_method_can_tell_fails(method, error, plant):
    true = reference.bernoulli_log_likelihood_backward
    assert sv.check_gradients(*build(), method=method).passed
    plant("bernoulli_log_likelihood_backward", lambda dll, cache: (1 + error) * true(dll, cache))
    table = sv.check_gradients(*build(), method=method)
    assert not {row.parameter: row.passed for row in table}["decoder.head.bias"]
    assert table.worst.error == max(row.error for row in table)


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_gradient_of_the_posterior_fails_the_encoders_tensors_alone(method, plant):
    true = reference.kl_to_prior_backward
    draw_backward = reference.reparameterize_backward

    def posterior_backward(dz, dkl, cache):
        dmu, dlogvar = true(dkl, cache.kl)
        dmu_draw, dlogvar_draw = draw_backward(dz, cache.draw)
        return np.concatenate([dmu + dmu_draw, 1.001 * dlogvar + dlogvar_draw], axis=1)

    plant("posterior_backward", posterior_backward)
    failed = {row.parameter for row in sv.check_gradients(*build(), method=method) if not row.passed}
    assert failed == {"encoder.0.weight", "encoder.0.bias", "encoder.head.weight", "encoder.head.bias"}


@pytest.mark.parametrize("method", METHODS)
def test_one_wrong_tensor_fails_alone(method, plant):
    true = reference.network_gradient

    def network_gradient(deltas, gradient):
        true(deltas, gradient)
        gradient.layers[-1].bias[:] *= 1.001 if gradient.layers[-1].bias.size == 5 else 1.0

    plant("network_gradient", network_gradient)
    failed = {row.parameter for row in sv.check_gradients(*build(), method=method) if not row.passed}
    assert failed == {"decoder.head.bias"}


@pytest.mark.parametrize("method", ["beta", ["complex"], np.zeros((99, 5))])
def test_an_unknown_method_is_refused_in_one_line(method):
    with pytest.raises(ValueError, match=r"method is .*expected one of complex, richardson, central") as refusal:
        sv.check_gradients(*build(), method=method)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("coordinates", [None, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_whose_gradient_is_zero_everywhere_fails(method, coordinates):
    case = build(activation="relu")
    case.vae.parameters["decoder.0.bias"][...] = -1e3  # every hidden unit of the decoder is dead
    table = sv.check_gradients(*case, method=method, coordinates=coordinates)
    dead = {row.parameter: row for row in table if row.norm == 0}
    assert "decoder.0.weight" in dead
    assert not any(row.passed for row in dead.values())
    assert not table.passed
    assert "zero everywhere" in str(table)


@pytest.mark.parametrize("distance", [1e-4, -1e-4, 2e-5])
@pytest.mark.parametrize("method", METHODS)
def test_a_unit_next_to_its_kink_does_not_fail_a_gradient_that_is_right(method, distance):
    """The first step of Richardson's differences, 5e-4, goes across it."""
    vae, x, eps = build(activation="relu")
    bias = vae.parameters["encoder.0.bias"]
    bias += distance - (x @ vae.parameters["encoder.0.weight"] + bias)[0]
    table = sv.check_gradients(vae, x, eps, method=method)
    assert table.passed, str(table)


def test_a_gradient_of_zero_where_the_true_one_is_not_fails(plant):
    plant("unit_gaussian_log_likelihood_backward", lambda dll, cache: np.zeros_like(cache.deviation))
    table = sv.check_gradients(*build(likelihood="gaussian"))
    assert {row.parameter: row.error for row in table}["decoder.head.bias"] == 1.0
    assert not table.passed


def test_the_checker_leaves_the_model_as_it_was(engine):
    vae, x, eps = build(dtype="float32", engine=engine)
    before = vae.parameters.copy()
    assert sv.check_gradients(vae, x, eps).passed, "a float32 model is checked in float64"
    np.testing.assert_array_equal(vae.parameters.flat, before.flat)


def test_some_coordinates_of_a_large_tensor_can_stand_for_all():
    case = build(data_dim=30, hidden=(20,))
    table = sv.check_gradients(*case, coordinates=5)
    assert table.passed
    assert {row.parameter: row.coordinates for row in table}["encoder.0.weight"] == 5
    assert table.worst in tuple(table)


def test_which_coordinates_stand_for_all_depends_on_the_seed_and_the_tensor(plant):
    """Half of either of two weights of one size is wrong: seeds find it in one, in the other or not at all."""
    true = reference.network_gradient

    def network_gradient(deltas, gradient):
        true(deltas, gradient)
        for layer in gradient.layers:
            layer.weight[: len(layer.weight) // 2] += 1

    plant("network_gradient", network_gradient)
    case, verdicts = build(8, 4, (8,), samples=1), set()
    for seed in range(12):
        passed = {row.parameter: row.passed for row in sv.check_gradients(*case, coordinates=1, seed=seed)}
        verdicts.add((passed["encoder.0.weight"], passed["decoder.head.weight"]))
    assert len(verdicts) > 2


def test_coordinates_without_a_gradient_do_not_stand_for_those_with_one():
    """Most pixels are dark, and their weights have none."""
    vae, _, eps = build(data_dim=30, hidden=(4,), activation="relu", rows=4)
    x = np.zeros((4, 30))
    x[:, 3] = 1
    assert all(sv.check_gradients(vae, x, eps, coordinates=2, seed=seed).passed for seed in range(20))


def test_a_gradient_where_there_is_none_is_wrong_and_not_idle(plant):
    true = reference.network_gradient

    def network_gradient(deltas, gradient):
        true(deltas, gradient)
        for layer in gradient.layers:
            layer.weight[...] += 1.0

    plant("network_gradient", network_gradient)
    case = build(activation="relu")
    case.vae.parameters["decoder.0.bias"][...] = -1e3
    rows = {row.parameter: row for row in sv.check_gradients(*case)}
    assert rows["decoder.0.weight"].norm == 0
    assert not rows["decoder.0.weight"].passed
    assert not rows["decoder.0.weight"].is_idle


def test_the_table_prints_one_line_a_parameter():
    case = build()
    text = str(sv.check_gradients(*case))
    assert len(text.splitlines()) == 1 + len(case.vae.parameters)
    assert text.count(" ok") == len(case.vae.parameters)


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"method": "forward"}, "forward.*complex"), ({"coordinates": 0}, "0.*1"), ({"coordinates": 1.5}, "1.5.*whole")],
)
def test_a_check_that_cannot_be_done_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        sv.check_gradients(*build(), **asked)
