"""What is a finite number, and which array is named where one is not."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import NotFiniteError
from scratchvae.finite import arrays_of_a_pass, check_finite, is_finite_number, is_whole_number


@pytest.mark.parametrize("value", [0, -3, 1.5, Fraction(1, 3), np.float32(2), np.int64(7), 10**300])
def test_a_finite_number_is_real_and_fits_a_float(value):
    assert is_finite_number(value)


@pytest.mark.parametrize(
    "value", [True, np.True_, np.nan, -np.inf, np.float32(np.inf), 10**400, 1j, "1", None, [1.0], Decimal(1)]
)
def test_what_is_no_finite_number_is_none_without_an_error(value):
    assert not is_finite_number(value)


@pytest.mark.parametrize(
    ("value", "whole"),
    [(-3, True), (np.uint8(7), True), (10**400, True), (2.0, False), (True, False), (np.True_, False), ("1", False)],
)
def test_a_whole_number_is_an_integer_and_no_bool(value, whole):
    assert is_whole_number(value) is whole


def test_finite_results_are_finite_whatever_their_sum():
    check_finite([np.full(3, np.finfo(np.float32).max, np.float32), np.zeros(0)], [])


@pytest.mark.parametrize("bad", [[1.0, np.nan], [np.inf, 1.0], [np.inf, -np.inf]])
def test_the_first_array_that_is_not_finite_is_named(bad):
    good = np.ones(2)

    def later():
        yield "first", good
        yield "second", np.array(bad)
        raise AssertionError("what comes later is not computed")

    with pytest.raises(NotFiniteError, match=r"^second is not finite"):
        check_finite([good, np.array(bad)], later())
    with pytest.raises(NotFiniteError, match=r"^the result is not finite"):
        check_finite([np.array(bad)], [("first", good)])


def test_the_arrays_of_a_pass_come_in_the_order_in_which_they_are_computed():
    vae = sv.VAE(4, 2, (3,), engine="reference")
    x, eps, parameters = np.eye(4), np.zeros((4, 1, 2)), list(vae.parameters)
    forward = [name for name, _ in arrays_of_a_pass(vae, x, eps)]
    assert forward[: len(parameters) + 2] == [*(f"parameter {name}" for name in parameters), "head", "eps"]
    whole = [name for name, _ in arrays_of_a_pass(vae, x, eps, sv.ELBO())]
    assert whole == [*forward, "objective", *(f"gradient of {name}" for name in parameters)]


def test_a_gradient_that_its_objective_alone_makes_infinite_is_named():
    vae = sv.VAE(4, 2, (3,), engine="reference")
    vae.parameters["encoder.0.bias"][:] = 1e5
    vae.parameters["encoder.head.weight"][...] = 0
    vae.parameters["encoder.head.bias"][:2] = 1e-3
    vae.value_and_grad(np.eye(4), np.zeros((4, 2)))
    with pytest.raises(NotFiniteError, match=r"^gradient of encoder.head.weight is not finite"):
        vae.value_and_grad(np.eye(4), np.zeros((4, 2)), sv.ELBO(beta=1e38))
