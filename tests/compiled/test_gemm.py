"""The matrix products: what they compute at every edge, and that no way of computing them changes a bit."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import cfunc, njit, types
from numpy.typing import NDArray

from scratchvae.compiled import gemm
from scratchvae.compiled.gemm import kernel
from scratchvae.compiled.simd import TARGETS, simd_name
from scratchvae.parameters import ACTIVATION_CODES
from scratchvae.reference.activations import ACTIVATIONS
from tests.compiled.entries import entry_of

finite_sparse_product, product, product_ahead, transpose = map(
    entry_of, (gemm.finite_sparse_product, gemm.product, gemm.product_ahead, gemm.transpose)
)
SHAPES = [
    (1, 1, 1),
    (1, 5, 3),
    (2, 0, 4),
    (3, 7, 16),
    (7, 20, 17),
    (8, 33, 48),
    (13, 64, 65),
    (50, 20, 79),
    (66, 31, 150),
]
DTYPES = ["float32", "float64"]


@njit(error_model="numpy")
def sparse_product(kernel, a, b, start, c, activation):
    gemm.sparse_product(kernel, a, b, start, c, activation)


def matrices(shape: tuple[int, int, int], dtype: str, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    rows, steps, columns = shape
    rng = np.random.default_rng(seed)
    draws = rng.normal(size=(rows, steps)), rng.normal(size=(steps, columns)), rng.normal(size=columns)
    a, b, start = (np.ascontiguousarray(draw, dtype) for draw in draws)
    return a, b, start


def multiply(a: NDArray, b: NDArray, start: NDArray, function=product, activation: str = "identity") -> NDArray:
    """The product, between two rows that must stay as they are."""
    rows, columns = len(a), b.shape[1]
    frame = np.full((rows + 2, columns), 7.5, b.dtype)
    c = frame[1:-1]
    function(kernel(b.dtype), a, b, start, c, ACTIVATION_CODES[activation])
    assert (frame[[0, -1]] == 7.5).all(), "wrote outside of the result"
    return c


def distance(got: NDArray, want: NDArray) -> float:
    return float(np.abs(got - want).max() / max(1.0, np.abs(want).max()) / np.finfo(got.dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_the_sum_over_k_at_every_edge(shape, dtype):
    a, b, start = matrices(shape, dtype)
    want = start + a.astype(float) @ b.astype(float)
    assert distance(multiply(a, b, start), want) < 60


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_width_changes_a_bit_of_a_column(dtype):
    """Whatever tiles a width is made of, one vector and a little more included."""
    a, b, start = matrices((15, 20, 60), dtype)
    whole = multiply(a, b, start)
    for columns in range(1, 60):
        part = multiply(a, np.ascontiguousarray(b[:, :columns]), np.ascontiguousarray(start[:columns]))
        np.testing.assert_array_equal(part, whole[:, :columns], err_msg=f"{columns} columns")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_transposed_first_factor_gives_the_same_bits(shape, dtype):
    a, b, start = matrices(shape, dtype)
    assert (multiply(np.asfortranarray(a), b, start) == multiply(a, b, start)).all()


def test_without_a_start_the_sum_begins_at_zero():
    a, b, start = matrices((5, 6, 7), "float32")
    assert (multiply(a, b, start[:0]) == multiply(a, b, np.zeros_like(start))).all()


@pytest.mark.parametrize("activation", ACTIVATION_CODES)
def test_the_activation_is_applied_to_the_product(activation):
    a, b, start = matrices((9, 5, 37), "float64")
    want, _ = ACTIVATIONS[activation].forward(start + a @ b)
    assert np.allclose(multiply(a, b, start, activation=activation), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_that_go_on_have_the_bits_of_one_sum(shape, dtype):
    a, b, start = matrices(shape, dtype)
    a[:, 1::3] = 0  # so that a sparse product steps over them
    address, want, cut = kernel(np.dtype(dtype)), multiply(a, b, start[:0]), len(b) // 3
    dense, sparse = np.full((2, *want.shape), np.nan, dtype)
    for more, part in enumerate([slice(cut), slice(cut, None)]):
        own = np.ascontiguousarray(a[:, part]), b[part]
        product_ahead(address, *own, dense, bool(more), start[:0])
        finite_sparse_product(address, *own, start[:0], sparse, bool(more), 0, start[:0])
    np.testing.assert_array_equal(dense, want)
    np.testing.assert_array_equal(sparse, want)


def test_a_row_has_the_same_bits_whatever_rows_are_beside_it():
    a, b, start = matrices((21, 30, 45), "float32")
    whole = multiply(a, b, start)
    for low, high in ((0, 1), (3, 10), (5, 21)):
        assert (multiply(a[low:high], b, start) == whole[low:high]).all()


def assert_claims_keep_bits(address: int, dtype: str) -> None:
    a, b, start = matrices((66, 31, 150), dtype)
    a[:, ::2] = 0  # so that a sparse product steps over them
    bits, want = np.random.default_rng(1).bytes(9_900 * b.itemsize), multiply(a, b, start[:0])
    held, c = np.frombuffer(bytearray(bits), dtype), np.empty((len(a), b.shape[1]), dtype)
    product_ahead(address, a, b, c, False, held[7:])
    np.testing.assert_array_equal(c, want)
    finite_sparse_product(address, a, b, start[:0], c, False, 0, held[7:])
    np.testing.assert_array_equal(c, want)
    assert held.tobytes() == bits


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_a_product_claims_for_writing_keeps_its_bits(dtype):
    assert_claims_keep_bits(kernel(dtype), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("asks", [True, False])
def test_both_ways_to_claim_keep_bits(asks, monkeypatch):
    """A processor has one of the two."""
    monkeypatch.setattr(gemm, "ASKS", asks)
    function = cfunc(gemm._signature(types.float32), error_model="numpy")(gemm._product)
    assert ("i32 1, i32 3, i32 1)" in function.inspect_llvm()) is asks, "a prefetch to write"
    assert_claims_keep_bits(function.address, "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 40, 17), (7, 50, 150), (130, 37, 64), (131, 150, 33), (64, 1, 1)])
def test_skipping_zeros_changes_no_bit(shape, density, dtype):
    a, b, start = matrices(shape, dtype)
    a[np.random.default_rng(1).random(a.shape) >= density] = 0  # times zero, half would be -0.0, which is not skipped
    assert (multiply(a, b, start, sparse_product) == multiply(a, b, start)).all()


@pytest.mark.parametrize("place", [(3, 50), (0, 0), (19, 69)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_skipping_zeros_hides_neither_nan_nor_infinity(bad, place):
    """And what else is in the result is what it is without."""
    a, b, start = matrices((6, 20, 70), "float32")
    a[:, [0, 3]] = a[:, 5:] = 0
    want = multiply(a, b, start, activation="tanh")
    b[place] = bad
    got = multiply(a, b, start, sparse_product, "tanh")
    assert np.isnan(got[:, place[1]]).all()  # 0 NaN and 0 infinity are both NaN
    np.testing.assert_array_equal(*(np.delete(array, place[1], axis=1) for array in (got, want)))


@pytest.mark.parametrize("function", [product, sparse_product])
def test_a_nan_in_either_factor_reaches_every_sum_that_it_is_in(function):
    a, b, start = matrices((6, 20, 70), "float32")
    a[2, 7] = np.nan
    got = multiply(a, b, start, function)
    assert np.isnan(got[2]).all()
    assert np.isfinite(np.delete(got, 2, axis=0)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (33, 17), (7, 50), (48, 64), (0, 3)])
def test_a_transpose_moves_every_element(shape, dtype):
    source = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    frame = np.full((shape[1] + 2, shape[0] + 20), -1, dtype)
    target = frame[1:-1, : shape[0]]
    transpose(source, target)
    assert (target == source.T).all()
    assert (frame[[0, -1]] == -1).all()
    assert (frame[:, shape[0] :] == -1).all()


ONE_WIDTH = """
import sys
import numpy as np
from tests.compiled.test_gemm import SHAPES, matrices, multiply, sparse_product
from scratchvae.compiled.simd import simd_name

results = [np.frombuffer(simd_name().encode(), np.uint8)]
for dtype in ("float32", "float64"):
    for shape in SHAPES:
        a, b, start = matrices(shape, dtype)
        results.append(multiply(a, b, start))
        a[:, ::2] = 0
        results.append(multiply(a, b, start, sparse_product))
np.savez(sys.argv[1], *results)
"""


def results_at(width: str, path) -> list[NDArray]:
    environment = os.environ | {"SCRATCHVAE_SIMD": width}
    subprocess.run([sys.executable, "-c", ONE_WIDTH, str(path)], env=environment, check=True)
    with np.load(path) as archive:
        name, *results = archive.values()
    assert bytes(name).decode() == (width or simd_name())
    return results


@pytest.mark.slow
@pytest.mark.skipif(simd_name() not in TARGETS, reason="not an x86 processor")
def test_every_vector_width_computes_the_same_and_the_fused_ones_the_same_bits(tmp_path):
    widths = list(TARGETS)[list(TARGETS).index(simd_name()) :]
    widest, *others = (results_at(width, tmp_path / f"{width}.npz") for width in widths)
    for width, results in zip(widths[1:], others, strict=True):
        for got, want in zip(results, widest, strict=True):
            if width == "portable":  # a multiply-add rounds twice there
                assert distance(got, want.astype(float)) < 60
            else:
                assert (got == want).all()


def test_an_unknown_width_is_refused():
    environment = os.environ | {"SCRATCHVAE_SIMD": "mmx"}
    command = [sys.executable, "-c", "import scratchvae.compiled.simd"]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert outcome.returncode != 0
    assert "SCRATCHVAE_SIMD is 'mmx'" in outcome.stderr


AT_THE_END_OF_A_PAGE = """
import ctypes, mmap, sys
import numpy as np
from scratchvae.compiled.gemm import kernel
from tests.compiled.test_gemm import product, sparse_product, transpose

protect = ctypes.CDLL(None).mprotect
protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
held = []

def at_the_end(array):
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    held.append(memory)
    raw = np.frombuffer(memory, np.uint8)
    assert protect(raw.ctypes.data + size, mmap.PAGESIZE, 0) == 0
    placed = raw[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed

rng = np.random.default_rng(0)
for dtype in ("float32", "float64"):
    for rows, steps, columns in (
        (8, 5, 48), (8, 5, 47), (6, 5, 64), (16, 9, 33), (9, 20, 130), (3, 1, 7), (70, 40, 20),
    ):  # fmt: skip
        for function in (product, sparse_product):
            draws = rng.normal(size=(rows, steps)), rng.normal(size=(steps, columns)), rng.normal(size=columns)
            a, b, start = (at_the_end(draw.astype(dtype)) for draw in draws)
            c = at_the_end(np.zeros((rows, columns), dtype))
            function(kernel(np.dtype(dtype)), a, b, start, c, 0)
            np.testing.assert_allclose(c, draws[0] @ draws[1] + draws[2], rtol=1e-3, atol=1e-4)
        source, target = at_the_end(draws[1].astype(dtype)), at_the_end(np.zeros((columns, steps), dtype))
        transpose(source, target)
        np.testing.assert_array_equal(target, source.T)
print("read and wrote within bounds", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="protects a page of memory")
def test_products_and_transposes_touch_nothing_beyond_their_arrays():
    """Each ends with a page, and the next page may not be touched: who does is killed."""
    command = [sys.executable, "-c", AT_THE_END_OF_A_PAGE]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "read and wrote within bounds\n"
