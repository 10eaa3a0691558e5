"""a b + c rounded once is the float32 nearest to the exact number, and what processors compute."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from scratchvae.compiled.vector_math import fused_multiply_add as instruction
from scratchvae.reference.fused_multiply_add import fused_multiply_add

f32 = np.float32
# 812825 * 1321 = 2^30 + 1: to the left of the last bit of 1 + 2^-24 + 2^-54 float64 has no room
NEAR_A_MIDDLE = f32(812825), f32(1321 * 2.0**-54), f32(1)

finite = st.floats(-(2.0**40), 2.0**40, width=32)


@njit
def by_the_processor(a, b, c, out):
    for i in range(out.size):
        out[i] = instruction(a[i], b[i], c[i])


def nearest(exact: Fraction) -> np.float32:
    """The float32 nearest to a rational number, of two the one whose last bit is even."""
    guess = f32(float(exact))
    candidates = [np.nextafter(guess, f32(-np.inf)), guess, np.nextafter(guess, f32(np.inf))]
    return min(candidates, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.int32)) % 2))


@given(a=finite, b=finite, c=finite)
def test_it_is_the_float32_nearest_to_the_exact_number(a, b, c):
    got = fused_multiply_add(f32(a), f32(b), f32(c))
    assert got == nearest(Fraction(a) * Fraction(b) + Fraction(c))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_beside_the_middle_of_two_float32_goes_to_its_side_where_rounding_twice_does_not(sign):
    a, b, c = NEAR_A_MIDDLE
    exact = sign * (Fraction(1) + Fraction(1, 2**24) + Fraction(1, 2**54))
    assert fused_multiply_add(sign * a, b, sign * c) == nearest(exact) == f32(sign * (1 + 2.0**-23))
    assert f32(np.float64(sign * a) * np.float64(b) + np.float64(sign * c)) == f32(sign), "no case of rounding twice"


def test_a_sum_in_the_middle_goes_to_the_even_neighbour():
    for last_bit in (0, 1):
        c = f32(1 + last_bit * 2.0**-23)
        assert fused_multiply_add(f32(2.0**-12), f32(2.0**-12), c) == f32(1 + 2 * last_bit * 2.0**-23)


def test_processors_give_the_same_bits():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 200_000)).astype(f32)
    c = (-a * b * (1 + rng.standard_normal(a.size) * 2.0 ** -rng.integers(0, 30, a.size))).astype(f32)
    edges = np.array([(sign * x, y, sign * z) for sign in (1, -1) for x, y, z in [NEAR_A_MIDDLE]], f32).T
    a, b, c = (np.concatenate(pair) for pair in zip((a, b, c), edges, strict=True))
    out = np.empty_like(a)
    by_the_processor(a, b, c, out)
    np.testing.assert_array_equal(out.view(np.uint32), fused_multiply_add(a, b, c).view(np.uint32))
