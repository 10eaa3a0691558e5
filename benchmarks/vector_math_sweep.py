"""The largest error of every float32 function of `scratchvae.compiled.vector_math`, over all 2^32 arguments.

    python -m benchmarks.vector_math_sweep [--stride N] [--json FILE]

The truth is the C library in float64. An error is counted in units in the last place (ulp) of the float32 nearest to
the truth; 0.5 is the least any function can promise. Stride 1, the default, takes about ten minutes on two cores;
stride 1009 a second.
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np
from numba import njit, prange

from benchmarks.numbers import count
from scratchvae.compiled import vector_math as vm
from scratchvae.files import write_whole


@njit
def exact_log(x):
    return np.log(x)


@njit
def exact_log1p(x):
    return np.log1p(x)


@njit
def exact_sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(x)


@njit
def exact_softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x))) if x == x else x


@njit
def exact_exp(x):
    return math.exp(x)


@njit
def exact_tanh(x):
    return math.tanh(x)


@njit
def exact_rise(x):
    return -math.expm1(-x)


@njit
def exact_root(x):
    return math.sqrt(x)


@njit
def softplus_of_both(x):
    return vm.softplus_sigmoid(x)[0]


@njit
def sigmoid_of_both(x):
    return vm.softplus_sigmoid(x)[1]


def within(low, high, *functions):
    """Functions that are defined for low <= x <= high alone: NaN beyond."""
    return tuple(_within(low, high, function) for function in functions)


def _within(low, high, function):
    @njit
    def inside(x):
        return function(x) if low <= x <= high else np.float32(np.nan)

    return inside


SMALLEST, SMALLEST_NORMAL = 2.0**-149, 2.0**-126
LOWEST = -87.0  # where exp(x) is still a normal number
FUNCTIONS = {
    "exp": (vm.exp32, exact_exp),
    "log": (vm.log32, exact_log),
    "log1p": (vm.log1p32, exact_log1p),
    "tanh": (vm.tanh32, exact_tanh),
    "sigmoid": (vm.sigmoid32, exact_sigmoid),
    "softplus": (vm.softplus32, exact_softplus),
    "softplus, of both": within(LOWEST, math.inf, softplus_of_both, exact_softplus),
    "sigmoid, of both": within(LOWEST, math.inf, sigmoid_of_both, exact_sigmoid),
    "softplus_derivative": within(SMALLEST, math.inf, vm.rise32, exact_rise),
    "decay": within(LOWEST, 0.0, vm.decay32, exact_exp),
    "log1p_unit": within(0.0, 1.0, vm.log1p_unit32, exact_log1p),
    "root": within(SMALLEST_NORMAL, math.inf, vm.root32, exact_root),
}
LARGEST, BEYOND = float(np.finfo(np.float32).max), 2.0**128


@njit(error_model="numpy")
def ulp_error(got, truth):
    """|got - truth| in units in the last place of a float32; infinity where one is NaN and the other is not."""
    if got != got or truth != truth:
        return 0.0 if got != got and truth != truth else math.inf
    if truth == got:
        return 0.0 if math.copysign(1.0, truth) == math.copysign(1.0, float(got)) else math.inf
    bounded = min(max(truth, -BEYOND), BEYOND)  # an overflow counts from the first number that is too large
    value = min(max(float(got), -BEYOND), BEYOND)
    exponent = max(math.frexp(min(abs(bounded), LARGEST))[1] - 24, -149)
    return abs(value - bounded) / math.ldexp(1.0, exponent)


@njit(error_model="numpy")
def worst_in(function, exact, first, last, stride):
    worst, where = 0.0, np.float32(0)
    for pattern in range(first, last, stride):
        x = vm.float32_from_bits(np.int32(np.uint32(pattern)))
        error = ulp_error(function(x), exact(np.float64(x)))
        if error > worst:
            worst, where = error, x
    return worst, where


@njit(parallel=True)
def worst_of_all(function, exact, stride, blocks):
    worst, where = np.zeros(blocks), np.zeros(blocks, np.float32)
    for block in prange(blocks):
        first, last = block * 2**32 // blocks, (block + 1) * 2**32 // blocks
        worst[block], where[block] = worst_in(function, exact, first, last, stride)
    return worst, where


def sweep(name, stride=1):
    """The largest error of a function in ulp, and an argument that has it."""
    worst, where = worst_of_all(*FUNCTIONS[name], stride, 256)
    block = int(np.argmax(worst))
    return float(worst[block]), float(where[block])


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vector_math_sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--stride", type=count, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args(arguments)
    rows = []
    for name in FUNCTIONS:
        error, argument = sweep(name, options.stride)
        rows.append({"function": name, "ulp": error, "at": argument})
        print(f"{name:20} {error:7.3f} ulp at {argument!r}", file=sys.stderr, flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.json, json.dumps({"stride": options.stride, "errors": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
