"""Inner products of rows against NumPy's, at every edge of a tile."""

import numpy as np
import pytest

from scratchvae.compiled import inner
from scratchvae.compiled.inner import COLUMNS, HEIGHT, TOGETHER
from tests.compiled.entries import entry_of

inner_products = entry_of(inner.inner_products)

SHAPES = [
    *((rows, columns, 37) for rows in range(1, 2 * HEIGHT + 2) for columns in range(1, 2 * COLUMNS + 2)),
    *((20, 6, steps) for steps in (1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 784)),
    *((2 * HEIGHT - 1, 6, TOGETHER * steps + more) for steps in (8, 16, 40) for more in (-1, 0, 1, 21)),
]


def factors(rows: int, columns: int, steps: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows + 100 * columns + 10_000 * steps)
    return rng.standard_normal((rows, steps)).astype(dtype), rng.standard_normal((columns, steps)).astype(dtype)


def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Into some columns of a wider matrix; nothing else of it may change."""
    rows, columns = len(a), len(b)
    wide = np.full((rows + 1, columns + 20), 7, a.dtype)
    inner_products(a, b, wide[:rows, 3 : 3 + columns])
    result = wide[:rows, 3 : 3 + columns].copy()
    wide[:rows, 3 : 3 + columns] = 7
    assert np.all(wide == 7)
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_any_size(dtype):
    for shape in SHAPES:
        a, b = factors(*shape, dtype)
        want = a.astype(np.float64) @ b.T.astype(np.float64)
        bound = 2 * np.finfo(dtype).eps * np.sqrt(shape[2]) * (np.abs(a) @ np.abs(b).T)
        assert np.all(np.abs(products(a, b) - want) <= bound), shape


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_element_has_the_same_bits_wherever_it_stands(dtype):
    """Whatever tile makes it: its order of sums depends on its length alone."""
    a, b = factors(2 * HEIGHT, 2 * COLUMNS, 149, dtype)
    whole = products(a, b)
    for i in range(len(a)):
        np.testing.assert_array_equal(products(a[i : i + 1].copy(), b)[0], whole[i])
    for j in range(len(b)):
        np.testing.assert_array_equal(products(a, b[j : j + 1].copy())[:, 0], whole[:, j])


def test_nan_and_infinity_are_what_they_are():
    a, b = factors(3, 5, 21, "float32")
    a[1, 20], b[2, 0] = np.nan, np.inf
    got = products(a, b)
    assert np.isnan(got[1]).all()
    np.testing.assert_array_equal(np.isinf(got[[0, 2]]), [[False, False, True, False, False]] * 2)
