"""The elementary functions: within 2 ulp of the truth, right at every edge, and vectorised.

`python -m benchmarks.vector_math_sweep` goes over all 2^32 arguments; here are 65,000 of them for each function and
every argument next to a power of two.
"""

import json
import math
import platform
import re

import numpy as np
import pytest
from numba import njit
from scipy import special

from benchmarks import vector_math_sweep
from benchmarks.vector_math_sweep import FUNCTIONS, ulp_error, worst_in
from scratchvae.compiled import vector_math as vm
from scratchvae.compiled.simd import SIMD
from scratchvae.reference.activations import ACTIVATIONS

TRUTH = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "softplus": lambda x: np.logaddexp(0, x),
}
FUSED = pytest.mark.skipif(not SIMD.fused, reason="the bound of 2 ulp is for processors with a fused multiply-add")


def over(function):
    """The function in a loop over an array, compiled here so that its assembly can be read."""

    @njit(error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


def apply(function, x):
    out = np.empty_like(x)
    over(function)(x, out)
    return out


def next_to_powers_of_two():
    powers = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
    near = np.concatenate([np.nextafter(powers, np.float32(0)), powers, np.nextafter(powers, np.float32(np.inf))])
    return np.concatenate([-near, near])


@FUSED
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_functions_are_within_two_ulp(name):
    error, where = worst_in(*FUNCTIONS[name], 0, 2**32, 65_537)
    assert error <= 2, f"{error} ulp at {where}"


@FUSED
@pytest.mark.parametrize("name", TRUTH)
def test_float32_functions_are_within_two_ulp_next_to_powers_of_two(name):
    x = next_to_powers_of_two()
    with np.errstate(all="ignore"):
        truth = TRUTH[name](x.astype(np.float64))
    got = apply(FUNCTIONS[name][0], x)
    errors = [ulp_error(*pair) for pair in zip(got, truth, strict=True)]
    assert max(errors) <= 2, f"at {x[np.argmax(errors)]}"


def test_the_measure_of_error_sees_an_ulp_a_wrong_sign_and_a_lost_nan():
    one = np.float32(1)
    assert ulp_error(one, 1.0) == 0
    assert ulp_error(np.nextafter(one, np.float32(2)), 1.0) == 1
    assert ulp_error(np.float32(0), -0.0) == np.inf
    assert ulp_error(one, np.nan) == np.inf
    assert ulp_error(np.float32(np.inf), 3e38) > 2
    assert ulp_error(np.float32(2e-45), 1e-45) < 1, "the last place of a subnormal is 2^-149"


def test_a_sweep_is_kept_in_a_folder_that_is_made_for_it(tmp_path, monkeypatch):
    """As the other benchmarks' results are: this one takes ten minutes."""
    file = tmp_path / "results" / "sweep.json"
    monkeypatch.setattr(vector_math_sweep, "FUNCTIONS", {})
    vector_math_sweep.main(["--json", str(file)])
    assert json.loads(file.read_text()) == {"stride": 1, "errors": []}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TRUTH)
def test_edges_are_what_mathematics_says(name, dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1, 1, 1e3, -1e3, np.finfo(dtype).max], dtype)
    with np.errstate(all="ignore"):
        truth = TRUTH[name](x)
    got = apply(getattr(vm, name), x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, truth, rtol=3e-7 if dtype == np.float32 else 1e-13)
    np.testing.assert_array_equal(np.signbit(got[truth == 0]), np.signbit(truth[truth == 0]))


@pytest.mark.parametrize("name", TRUTH)
def test_float64_functions_are_right_to_thirteen_digits(name):
    x = np.concatenate([np.linspace(-30, 30, 2001), np.ldexp(1.0, np.arange(-60, 9))])
    if name in ("log", "log1p"):
        x = x[x > 0]
    np.testing.assert_allclose(apply(getattr(vm, name), x), TRUTH[name](x), rtol=1e-13)


@FUSED
def test_exp_minus_one_and_what_is_left_of_it_without_x_are_right_and_of_one_sign():
    @njit(error_model="numpy")
    def both(x, power, growth, excess):
        for i in range(x.size):
            growth[i], excess[i] = vm.expm1_and_excess(x[i], power[i])

    x = np.concatenate([next_to_powers_of_two(), np.linspace(-2, 2, 100_001, dtype=np.float32), [0, np.nan]])
    x = x[~(np.abs(x) > 80)].astype(np.float32)
    wide = x.astype(np.longdouble)
    terms = [wide**n / math.factorial(n) for n in range(2, 25)]
    exact = np.where(np.abs(wide) < 1, sum(reversed(terms)), np.expm1(wide) - wide)
    growth, excess = np.empty_like(x), np.empty_like(x)
    with np.errstate(under="ignore"):
        both(x, np.exp(x), growth, excess)
    assert (excess[:-1] >= 0).all()
    assert np.isnan([growth[-1], excess[-1]]).all()
    np.testing.assert_allclose(growth, np.expm1(x.astype(float)), rtol=1e-6)
    np.testing.assert_allclose(excess, exact.astype(float), rtol=5e-6, atol=2**-149)
    near = np.abs(x) <= np.log(2) / 2
    errors = [ulp_error(got, float(truth)) for got, truth in zip(excess[near], exact[near], strict=True)]
    assert max(errors) <= 6


def test_exp_goes_through_the_subnormals_to_zero():
    x = np.array([-87, -88, -100, -103, -103.9, -104, -200], np.float32)
    np.testing.assert_allclose(apply(vm.exp32, x), np.exp(x.astype(np.float64)), rtol=1e-6, atol=1.5e-45)
    assert apply(vm.exp32, x)[-1] == 0


def test_a_root_at_its_edges():
    x = np.array([0, 2**-126, 4, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(apply(vm.root, x), np.array([0, 2**-63, 2, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(apply(vm.root, x.astype(np.float64)), np.sqrt(x.astype(np.float64)))


def test_the_root_of_a_subnormal_number_is_too_small_at_most():
    x = np.arange(0, 1 << 23, 101, dtype=np.uint32).view(np.float32)
    root, exact = apply(vm.root, x), np.sqrt(x.astype(np.float64))
    assert np.all(root >= 0)
    assert np.all(root <= exact * (1 + 2**-23))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softplus_and_its_derivative_from_one_exponential_agree_with_each_alone(dtype):
    @njit(error_model="numpy")
    def both(x, softplus, sigmoid):
        for i in range(x.size):
            softplus[i], sigmoid[i] = vm.softplus_sigmoid(x[i])

    x = np.concatenate([np.linspace(-1e3, 1e3, 401), np.linspace(-20, 20, 1001)]).astype(dtype)
    softplus, sigmoid = np.empty_like(x), np.empty_like(x)
    both(x, softplus, sigmoid)
    rtol, atol = (4e-7, 2e-38) if dtype == np.float32 else (1e-14, 1e-300)
    np.testing.assert_allclose(softplus, np.logaddexp(0, x.astype(np.float64)), rtol=rtol, atol=atol)
    np.testing.assert_allclose(sigmoid, special.expit(x.astype(np.float64)), rtol=rtol, atol=atol)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")
@FUSED
@pytest.mark.parametrize("name", [*TRUTH, "root"])
def test_loops_over_float32_use_vector_registers(name):
    loop = over(FUNCTIONS[name][0])
    x = np.ones(64, np.float32)
    loop(x, x.copy())
    (assembly,) = loop.inspect_asm().values()
    register = {64: "zmm", 32: "ymm"}[SIMD.bytes]
    assert re.search(rf"vfn?madd\w+ps\s.*%{register}", assembly), "a scalar loop, or a call into the C library"


def test_activations_store_whole_vectors():
    """Of relu LLVM would leave out what stays as it is, by masked stores: ten times as slow on AVX2."""
    stored = re.compile(r"vmaskmovp\w\s+%\w+, %\w+, \S*\(|\)\s*\{%k")
    assert stored.search("vmaskmovps %ymm2, %ymm0, 32(%rax,%rsi,4)")
    assert stored.search("vmovups %zmm1, (%rax) {%k1}")
    assert not stored.search("vmaskmovps 32(%rax), %ymm0, %ymm2")
    for function, rows in ((vm.activate_row, 1), (vm.activation_backward_row, 2)):
        fresh = njit(error_model="numpy")(function.py_func)  # of a function from the cache there is no assembly
        fresh(*np.ones((rows, 64), np.float32), 0)
        (assembly,) = fresh.inspect_asm().values()
        assert not stored.search(assembly)


@pytest.mark.parametrize("code", range(5))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_go_through_the_activation_of_their_code_and_back(code, dtype):
    names = ("identity", "tanh", "relu", "sigmoid", "softplus")
    activation = ACTIVATIONS[names[code]]
    a = np.concatenate([np.linspace(-9, 9, 131), [0.0, np.nan]]).astype(dtype)
    h, dh = a.copy(), np.linspace(1, 2, a.size).astype(dtype)
    vm.activate_row(h, code)
    np.testing.assert_allclose(h, activation.forward(a)[0], rtol=5e-7 if dtype == np.float32 else 1e-14)
    da = dh.copy()
    vm.activation_backward_row(da, h, code)
    np.testing.assert_allclose(da, activation.backward(dh, h), rtol=3e-6 if dtype == np.float32 else 1e-13)
