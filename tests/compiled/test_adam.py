"""Adam's loop in both ways, denormal numbers being flushed as in every step."""

import numpy as np
import pytest

from scratchvae import compiled, reference
from scratchvae.compiled import adam, adam_by_estimates
from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.slices import slices_for
from scratchvae.engine import get_threads
from scratchvae.parameters import aligned_zeros
from tests.compiled.flushing import flushed

GUARD = 20  # elements behind the arrays' ends
WAYS = {"arithmetic": flushed(adam.update_by_arithmetic), "chosen": flushed(adam.update)}
if SIMD.name == "avx512":  # the estimates are those of 512 bits
    WAYS["estimates"] = flushed(adam_by_estimates.update)


@pytest.fixture(params=WAYS)
def update(request):
    way = WAYS[request.param]
    return lambda p, g, m, v, constants: way(p, g, m, v, constants, p.size)


def state(size):
    rng = np.random.default_rng(size)
    return [(rng.normal(size=size) * 10.0 ** rng.uniform(-6, 3, size)).astype(np.float32) for _ in range(3)] + [
        (10.0 ** rng.uniform(-12, 6, size)).astype(np.float32)
    ]


@pytest.mark.parametrize("start", [0, 1, 4, 8, 15])  # in a cache line
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, 80, 127, 1000])
def test_a_step_is_adams_to_two_roundings(update, size, start):
    whole = [aligned_zeros(start + size + GUARD, "float32") for _ in range(4)]
    arrays = [array[start : start + size] for array in whole]
    for guarded, array, values in zip(whole, arrays, state(size), strict=True):
        guarded[:] = 7
        array[:] = values
    p, g, m, v = (array.astype(np.float64) for array in arrays)
    constants = np.array([0.1, 0.999, 0.001, 1e-3, 1e-8], np.float32)
    one_minus_beta1, beta2, one_minus_beta2, rate, epsilon = constants.astype(np.float64)
    assert update(*arrays, constants)
    first, second = m + one_minus_beta1 * (g - m), beta2 * v + one_minus_beta2 * g * g
    moved = rate * first / (np.sqrt(second) + epsilon)
    ulp, differences = 2.0**-23, abs(g) + abs(m)
    assert np.all(abs(arrays[2] - first) <= ulp * differences)
    assert np.all(abs(arrays[3] - second) <= 2 * ulp * second)
    slack = 3 * ulp * abs(moved) + ulp * rate * differences / (np.sqrt(second) + epsilon)
    assert np.all(abs(arrays[0] - (p - moved)) <= slack + ulp / 2 * abs(p - moved))
    for array in whole:
        outside = np.delete(array, np.arange(start, start + size))
        np.testing.assert_array_equal(outside, np.float32(7), "what lies before and behind is not touched")


@pytest.mark.parametrize("place", [0, 70, 99])
def test_a_weight_whose_second_moment_is_infinite_stays(update, place):
    p, g, m, v = state(100)
    before, g[place] = p.copy(), 1e30
    assert update(p, g, m, v, np.array([0.1, 0.999, 0.001, 1e-3, 1e-8], np.float32))
    assert np.isinf(v[place])
    assert p[place] == before[place]
    assert (p != before).sum() > 50


@pytest.mark.parametrize("place", [0, 70, 99])
@pytest.mark.parametrize("array", range(4))
def test_a_number_that_is_none_is_noticed(update, array, place):
    arrays = state(100)
    arrays[array][place] = np.nan
    assert not update(*arrays, np.array([0.1, 0.999, 0.001, 1e-3, 1e-8], np.float32))
    assert np.flatnonzero(np.isnan(arrays[0])).tolist() == [place]


def test_nothing_moves_where_there_was_never_a_gradient(update):
    p, zeros = state(100)[0], [np.zeros(100, np.float32) for _ in range(3)]
    before = p.copy()
    assert update(p, *zeros, np.array([0.1, 0.999, 0.001, 1e-3, 1e-8], np.float32))
    np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("view", [lambda a: a[::2], lambda a: a.reshape(20, 5), lambda a: a.reshape(20, 5).T])
def test_arrays_of_any_layout_are_updated_where_they_lie(view, dtype):
    both = [[array.astype(dtype) for array in state(100)] for _ in range(2)]
    for arrays, ops in zip(both, (compiled, reference), strict=True):
        p, g, m, v = map(view, arrays)
        ops.adam_update(p, g, m, v, 3, 1e-2)
    for got, want in zip(*both, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_gradient_of_another_type_is_taken():
    one, other = state(100), state(100)
    one[1] = one[1].astype(np.float64)
    for p, g, m, v in (one, other):
        compiled.adam_update(p, g, m, v, 3, 1e-2)
    for got, want in zip(one, other, strict=True):
        np.testing.assert_array_equal(got, want)


def test_arrays_that_threads_share_out_have_the_bits_of_their_parts():
    """With one element more than can be shared out evenly."""
    whole, size = state(40_001), 20_000
    parts = [[array[low : low + size].copy() for array in whole] for low in range(0, 40_001, size)]
    assert slices_for(40_001, 0.2) == min(2, get_threads())
    assert slices_for(size, 0.2) == 1
    for p, g, m, v in (whole, *parts):
        compiled.adam_update(p, g, m, v, 3, 1e-2)
    for got, want in zip(whole, map(np.concatenate, zip(*parts, strict=True)), strict=True):
        np.testing.assert_array_equal(got, want)
