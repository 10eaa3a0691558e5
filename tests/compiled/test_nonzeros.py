"""Lists of the places where rows are not zero. What is made of them is tested in `test_gemm`."""

import numpy as np
import pytest
from numba import njit

from scratchvae.compiled import nonzeros
from scratchvae.compiled.nonzeros import ALIKE, GROUP, WORD, pair, pair_alike
from scratchvae.compiled.tile import ROWS_AHEAD
from tests.compiled.entries import entry_of

list_nonzeros = entry_of(nonzeros.list_nonzeros)

DTYPES = ["float32", "float64"]


@njit
def paired(a):
    order = np.arange(len(a)).astype(np.int32)
    pair(a, order)
    return order


@njit
def ordered(a):
    order = np.full(len(a), -1, np.int32)
    pair_alike(a, order)
    return order


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_places_are_listed_in_ascending_order(dtype, order):
    a = np.zeros((3, 21), dtype)
    a[0, [2, 20]], a[1, 5], a[2, [0, 17]] = (1.5, -2.0), np.nan, (3.0, -0.5)
    groups = -(-3 // GROUP)
    places, counts = np.full((groups, 40), -1, np.int32), np.zeros(groups, np.int32)
    total = list_nonzeros(a, np.array(order, np.int32), places, counts)
    assert total == counts.sum()
    for group in range(groups):
        rows = a[list(order[group * GROUP : (group + 1) * GROUP])]
        want = np.flatnonzero((rows != 0).any(axis=0))
        assert places[group, : counts[group]].tolist() == want.tolist()
        assert not places[group, counts[group] :][:ROWS_AHEAD].any(), "rows that a tile asks for ahead"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pattern_of_eight_neighbours_is_listed(dtype):
    patterns = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).reshape(1, -1)
    a = (patterns * np.arange(1, 2049)).astype(dtype)
    places, counts = np.full((1, 2100), -1, np.int32), np.zeros(1, np.int32)
    assert list_nonzeros(a, np.zeros(GROUP, np.int32), places, counts) == 1024
    assert places[0, :1024].tolist() == np.flatnonzero(a).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [WORD, 3 * WORD + 5])
def test_rows_that_are_zero_at_the_same_places_are_paired(dtype, columns):
    rng = np.random.default_rng(0)
    kind = rng.permutation(np.repeat(np.arange(9), 2))
    a = (rng.random((9, columns)) < 0.5)[kind] * rng.normal(size=(18, columns)).astype(dtype)
    a[3, a[3] != 0] = np.nan
    order = paired(a)
    assert sorted(order) == list(range(18))
    assert kind[order[::2]].tolist() == kind[order[1::2]].tolist()


@pytest.mark.parametrize("rows", [1, 2, 3, 63, 64])
def test_pairs_have_fewer_places_than_neighbours(rows):
    """Of two kinds of units each is on in four fifths of its half of the places; an odd row is left over."""
    rng = np.random.default_rng(rows)
    kind, half = rng.integers(0, 2, (rows, 1)), np.arange(400) % 2
    a = (rng.random((rows, 400)) < np.where(kind == half, 0.8, 0.3)).astype(np.float32)
    order = paired(a)
    assert sorted(order) == list(range(rows))
    listed, before = (
        (of[: rows // 2 * 2].reshape(-1, 2, 400) != 0).any(axis=1).sum() / 400 / max(1, rows // 2)
        for of in (a[order], a)
    )
    assert listed <= before * (0.95 if rows > 3 else 1)


@pytest.mark.parametrize(("share", "columns"), [(ALIKE - 0.1, 200), (0.6, WORD - 1)])
def test_rows_stay_as_they_are_where_looking_does_not_pay(share, columns):
    a = (np.random.default_rng(0).random((64, columns)) < share).astype(np.float32)
    assert paired(a).tolist() == list(range(64))


def test_rows_are_paired_where_two_share_a_list_and_stay_where_more_do():
    a = (np.random.default_rng(0).random((64, 200)) < 0.6).astype(np.float32)
    assert paired(a).tolist() != list(range(64))
    assert ordered(a).tolist() == (paired(a).tolist() if GROUP == 2 else list(range(64)))
