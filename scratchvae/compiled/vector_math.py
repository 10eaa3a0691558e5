"""exp, log, log1p, tanh, sigmoid, softplus and the square root as arithmetic, so that loops over them vectorise, as
calls into the C library do not.

`exp32` and its kin take and return float32. No branches, only selections; multiply-adds are fused explicitly, so that
no flag decides about the bits. Errors, over all 2^32 arguments (`benchmarks/vector_math_sweep.py`): at most 2 units in
the last place (ulp). NaN gives NaN, infinities and -0.0 give what mathematics says, results below 2^-126 are subnormal;
but the root of a subnormal number comes out too small, and `expm1_and_excess32` says itself how right it is. float64
goes to the C library. `exp`, `log`, ... take either and are for use inside compiled functions.

Method: reduce the argument to a small interval exactly, then a polynomial fitted there for the least relative error
(Muller, Elementary Functions, 2016, chapters 3 and 11).
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from scratchvae.compiled.kernel_cache import INNER, KERNEL
from scratchvae.compiled.simd import SIMD

f32, i32 = np.float32, np.int32

LOG2_E = f32(1 / math.log(2))
LOG_2_HIGH, LOG_2_LOW = f32(0.693359375), f32(-2.12194440e-4)  # the high part has 10 bits: n times it is exact
HALF_LOG_2 = f32(math.log(2) / 2)
ROUNDER = f32(1.5 * 2**23)  # adding it leaves a float32's nearest integer in the low bits
ROUNDER_BITS = i32(0x4B400000)
EXP_LOWEST, EXP_HIGHEST = f32(-104), f32(89)  # exp rounds to 0 below, overflows above
DECAY_LOWEST = f32(-87.9)
ROOT_BITS = i32(0x5F3759DF)  # less half of x's pattern it is that of 1 / sqrt(x), to 3.5 %
SQRT_HALF_BITS = i32(0x3F3504F3)
SIGN_BIT, MAGNITUDE_BITS = i32(-(2**31)), i32(2**31 - 1)
INFINITY, NAN = f32(np.inf), f32(np.nan)

# exp(r) = 1 + r + r^2 E(r) for |r| <= log(2) / 2
E0, E1, E2, E3, E4 = (
    f32(c)
    for c in (
        0.49999998153991393,
        0.16666543620181443,
        0.041667199879768385,
        0.008366520656485962,
        0.0013882520086320714,
    )
)
# 1 / sqrt(1 - r) = 1 + r R(r) for -0.0691 <= r <= 0.0676
R0, R1, R2, R3 = (f32(c) for c in (0.4999983310699463, 0.3750002682209015, 0.3139354884624481, 0.27410900592803955))
# log(1 + f) = f - f^2 / 2 + f^3 G(f) for 1 + f in [sqrt(1/2), sqrt(2)]
G0, G1, G2, G3, G4, G5, G6, G7 = (
    f32(c)
    for c in (
        0.3333333170878815,
        -0.25000821046329685,
        0.20001226762267796,
        -0.1662335687032241,
        0.14201760440089034,
        -0.13160189322497035,
        0.12761562465770593,
        -0.07634460096575958,
    )
)
# log(1 + t) = t + t^2 P(t) for t in [0, 1]; fitted among float32: the best real coefficients, rounded, lose 0.35 ulp
P0, P1, P2, P3, P4, P5, P6, P7, P8 = (
    f32(c)
    for c in (
        -0.499999463558197,
        0.33330875635147095,
        -0.24962064623832703,
        0.19711965322494507,
        -0.15400291979312897,
        0.10753095149993896,
        -0.05835610628128052,
        0.02056359313428402,
        -0.003396641695871949,
    )
)


@intrinsic
def float32_from_bits(typing_context, bits):
    """The float32 with the given int32 pattern."""
    return types.float32(types.int32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def bits_from_float32(typing_context, value):
    """The int32 pattern of a float32."""
    return types.int32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def join_bits(typing_context, pattern, value):
    """The bits that are set in a pattern or in that of a float32 or float64, an integer of as many bits."""
    integer = types.int32 if value == types.float32 else types.int64
    return integer(integer, value), lambda context, builder, sig, args: builder.or_(
        args[0], builder.bitcast(args[1], args[0].type)
    )


def _fused(context, builder, signature, args):
    return builder.fma(*args)


def _multiply_add(context, builder, signature, args):
    if SIMD.fused:
        return _fused(context, builder, signature, args)
    return builder.fadd(builder.fmul(args[0], args[1]), args[2])


@intrinsic
def fused_multiply_add(typing_context, a, b, c):
    """a b + c, rounded once. A processor that has no instruction for it calls the C library, for each."""
    return a(a, a, a), _fused


@intrinsic
def multiply_add(typing_context, a, b, c):
    """a b + c, rounded once where the processor can (else a call for each would be far slower)."""
    return a(a, a, a), _multiply_add


# --- pieces -----------------------------------------------------------------------------------------------------------


@njit(forceinline=True, **INNER)
def _reduce(x):
    """n and r with x = n log 2 + r, |r| <= log(2) / 2."""
    shifted = multiply_add(x, LOG2_E, ROUNDER)
    n = shifted - ROUNDER
    r = multiply_add(n, -LOG_2_LOW, multiply_add(n, -LOG_2_HIGH, x))
    return i32(bits_from_float32(shifted) - ROUNDER_BITS), r


@njit(forceinline=True, **INNER)
def _exp_minus_one(r):
    """exp(r) - 1 for |r| <= log(2) / 2."""
    p = multiply_add(r, multiply_add(r, multiply_add(r, multiply_add(r, E4, E3), E2), E1), E0)
    return multiply_add(r * r, p, r)


@njit(forceinline=True, **INNER)
def _power_of_two(n):
    """2^n for -127 <= n <= 127, where 2^-127 is flushed to 0."""
    return float32_from_bits(i32(i32(n + i32(127)) << i32(23)))


@njit(forceinline=True, **INNER)
def _log_polynomial(f, exponent):
    """exponent log 2 + log(1 + f)."""
    p = multiply_add(f, multiply_add(f, multiply_add(f, multiply_add(f, G7, G6), G5), G4), G3)
    p = multiply_add(f, multiply_add(f, multiply_add(f, p, G2), G1), G0)
    p = f * f * multiply_add(f, p, f32(-0.5))
    return multiply_add(exponent, LOG_2_HIGH, f + multiply_add(exponent, LOG_2_LOW, p))


@njit(forceinline=True, **INNER)
def absolute32(x):
    return float32_from_bits(bits_from_float32(x) & MAGNITUDE_BITS)


@njit(forceinline=True, **INNER)
def expm1_and_excess32(x, power):
    """exp(x) - 1 and exp(x) - 1 - x, which is never negative, of a power = exp(x) to rounding.

    The second is right to 6 ulp for |x| <= log(2) / 2, where it is a square times a polynomial fitted for the first;
    beyond, where it is 0.05 at least, to 5e-6 of it: the rounding of the power, which also leaves the first 1e-6.
    """
    p = multiply_add(x, multiply_add(x, multiply_add(x, multiply_add(x, E4, E3), E2), E1), E0)
    near, curved = absolute32(x) <= HALF_LOG_2, x * x * p
    growth = multiply_add(x * x, p, x) if near else power - f32(1)
    return growth, curved if near else growth - x


@njit(forceinline=True, **INNER)
def decay32(x):
    """exp(x) for x <= 0, where a result below 2^-126.5 may be 0: cheaper than `exp32`."""
    x = DECAY_LOWEST if x < DECAY_LOWEST else x
    n, r = _reduce(x)
    scale = _power_of_two(n)
    return multiply_add(scale, _exp_minus_one(r), scale)


@njit(forceinline=True, **INNER)
def rise32(h):
    """1 - exp(-h) for h >= 0: the derivative of softplus from its value."""
    h = -DECAY_LOWEST if h > -DECAY_LOWEST else h
    n, r = _reduce(-h)
    scale = _power_of_two(n)
    return (f32(1) - scale) - scale * _exp_minus_one(r)


@njit(forceinline=True, **INNER)
def log1p_unit32(t):
    """log(1 + t) for 0 <= t <= 1: no reduction needed."""
    p = multiply_add(t, multiply_add(t, multiply_add(t, multiply_add(t, P8, P7), P6), P5), P4)
    p = multiply_add(t, multiply_add(t, multiply_add(t, multiply_add(t, p, P3), P2), P1), P0)
    return multiply_add(t * t, p, t)


@njit(forceinline=True, **INNER)
def root32(x):
    """sqrt(x) = g / sqrt(1 - r) for x >= 0, with a guess y of 1 / sqrt(x), g = x y, and r = 1 - x y^2. An infinite x
    stays infinite.

    An instruction for it there is, but a loop that divides too waits for the unit that does both.
    """
    y = float32_from_bits(i32(ROOT_BITS - i32(bits_from_float32(x) >> i32(1))))
    g = x * y
    r = multiply_add(-g, y, f32(1))
    p = multiply_add(r, multiply_add(r, multiply_add(r, R3, R2), R1), R0)
    return multiply_add(g * r, p, g)


@njit(forceinline=True, **INNER)
def _ratio(numerator, a, t):
    """numerator / (a + t) for a, t >= 0, with what a + t rounds away put back and the quotient's remainder added."""
    total = a + t
    lost = a - (total - t) if t > a else t - (total - a)
    inverse = f32(1) / total
    quotient = numerator * inverse
    remainder = multiply_add(-quotient, lost, multiply_add(-quotient, total, numerator))
    return multiply_add(remainder, inverse, quotient)


# --- float32 ----------------------------------------------------------------------------------------------------------


@njit(forceinline=True, **INNER)
def exp32(x):
    """exp(x) = 2^n exp(r). Two factors of 2^(n/2): 2^n itself may be subnormal or too large."""
    x = EXP_LOWEST if x < EXP_LOWEST else x
    x = EXP_HIGHEST if x > EXP_HIGHEST else x
    n, r = _reduce(x)
    half = i32(n >> i32(1))
    return (_exp_minus_one(r) + f32(1)) * _power_of_two(half) * _power_of_two(i32(n - half))


@njit(forceinline=True, **INNER)
def log32(x):
    """log(x) = e log 2 + log(m), m in [sqrt(1/2), sqrt(2))."""
    subnormal = x < f32(2.0**-126)
    scaled = x * f32(2.0**23) if subnormal else x
    bits = bits_from_float32(scaled)
    exponent = i32(i32(bits - SQRT_HALF_BITS) >> i32(23))
    f = float32_from_bits(i32(bits - i32(exponent << i32(23)))) - f32(1)
    y = _log_polynomial(f, f32(exponent) - (f32(23) if subnormal else f32(0)))
    y = y if x < INFINITY else x
    y = y if x != f32(0) else -INFINITY
    return NAN if x < f32(0) else y


@njit(forceinline=True, **INNER)
def log1p32(x):
    """log(1 + x), with what 1 + x rounds away put back: log(u + c) for u = fl(1 + x), c = (1 + x) - u."""
    u = f32(1) + x
    c = f32(1) - (u - x) if x > f32(1) else x - (u - f32(1))
    bits = bits_from_float32(u)
    exponent = i32(i32(bits - SQRT_HALF_BITS) >> i32(23))
    back = i32(-exponent)
    back = i32(-127) if back < i32(-127) else back
    f = (float32_from_bits(i32(bits - i32(exponent << i32(23)))) - f32(1)) + c * _power_of_two(back)
    y = _log_polynomial(f, f32(exponent))
    y = y if x < INFINITY else x
    y = y if x != f32(0) else x
    y = y if x != f32(-1) else -INFINITY
    return NAN if x < f32(-1) else y


@njit(forceinline=True, **INNER)
def tanh32(x):
    """tanh |x| = t / (t + 2) with t = exp(2 |x|) - 1, and the sign of x."""
    a = absolute32(x)
    a = f32(10) if a > f32(10) else a  # where tanh has long been 1
    n, r = _reduce(a + a)
    scale = _power_of_two(n)
    t = multiply_add(scale, _exp_minus_one(r), scale - f32(1))
    y = _ratio(t, f32(2), t)
    return float32_from_bits(bits_from_float32(y) | (bits_from_float32(x) & SIGN_BIT))


@njit(forceinline=True, **INNER)
def sigmoid32(x):
    """1 / (1 + exp(-x)), from exp(-|x|) <= 1, which cannot overflow."""
    t = exp32(-absolute32(x))
    return _ratio(t if x < f32(0) else f32(1), f32(1), t)


@njit(forceinline=True, **INNER)
def softplus32(x):
    """log(1 + exp(x)) = max(x, 0) + log(1 + t), t = exp(-|x|), and log(1 + t) = log 2 + log(1 + (t - 1) / 2)."""
    t = exp32(-absolute32(x))
    halve = t > f32(math.sqrt(2) - 1)
    f = multiply_add(f32(0.5), t, f32(-0.5)) if halve else t
    return (f32(0) if x < f32(0) else x) + _log_polynomial(f, f32(1) if halve else f32(0))


# --- float64 ----------------------------------------------------------------------------------------------------------


@njit(forceinline=True, **INNER)
def expm1_and_excess64(x, power):
    growth = math.expm1(x)
    return growth, growth - x


@njit(forceinline=True, **INNER)
def sigmoid64(x):
    t = math.exp(-abs(x))
    return (t if x < 0 else 1.0) / (1.0 + t)


@njit(forceinline=True, **INNER)
def softplus64(x):
    return (0.0 if x < 0 else x) + math.log1p(math.exp(-abs(x)))


# --- either -----------------------------------------------------------------------------------------------------------


def exp(x):
    """exp(x) of a float32 or float64, inside compiled functions."""
    raise NotImplementedError


def log(x):
    """log(x), as `exp`."""
    raise NotImplementedError


def log1p(x):
    """log(1 + x), as `exp`."""
    raise NotImplementedError


def tanh(x):
    """tanh(x), as `exp`."""
    raise NotImplementedError


def sigmoid(x):
    """1 / (1 + exp(-x)), as `exp`."""
    raise NotImplementedError


def softplus(x):
    """log(1 + exp(x)), as `exp`."""
    raise NotImplementedError


def softplus_sigmoid(x):
    """softplus(x) and sigmoid(x) from one exponential. float32: a value below 2^-126.5 may be 0."""
    raise NotImplementedError


def tails(x):
    """softplus(-|x|) and sigmoid(-|x|): log(1 + t) and t / (1 + t), t = exp(-|x|). float32: as `softplus_sigmoid`."""
    raise NotImplementedError


def expm1_and_excess(x, power):
    """exp(x) - 1 and exp(x) - 1 - x of x and power = exp(x), as `exp`; see `expm1_and_excess32`."""
    raise NotImplementedError


def decay(x):
    """exp(x) for x <= 0, as `exp`. float32: a result below 2^-126.5 may be 0."""
    raise NotImplementedError


def rise(h):
    """1 - exp(-h) for h >= 0, as `exp`."""
    raise NotImplementedError


def root(x):
    """sqrt(x) for x >= 0, as `exp`. float32: that of a subnormal x comes out between 0 and its root."""
    raise NotImplementedError


@njit(forceinline=True, **INNER)
def _tails32(x):
    t = decay32(-absolute32(x))
    total = f32(1) + t
    quotient, lost = t / total, t - (total - f32(1))
    return log1p_unit32(t), multiply_add(-quotient, lost, quotient)


@njit(forceinline=True, **INNER)
def _tails64(x):
    t = math.exp(-abs(x))
    return math.log1p(t), t / (1.0 + t)


@njit(forceinline=True, **INNER)
def _softplus_sigmoid32(x):
    (softplus, sigmoid), negative = _tails32(x), x < f32(0)
    return (f32(0) if negative else x) + softplus, sigmoid if negative else f32(1) - sigmoid


@njit(forceinline=True, **INNER)
def _softplus_sigmoid64(x):
    (softplus, sigmoid), negative = _tails64(x), x < 0
    return (0.0 if negative else x) + softplus, sigmoid if negative else 1.0 - sigmoid


INLINE: Any = {"error_model": "numpy", "forceinline": True, "no_cfunc_wrapper": True}


@overload(exp, jit_options=INLINE)
def _exp(x):
    return (lambda x: exp32(x)) if x == types.float32 else (lambda x: math.exp(x))


@overload(log, jit_options=INLINE)
def _log(x):
    return (lambda x: log32(x)) if x == types.float32 else (lambda x: np.log(x))


@overload(log1p, jit_options=INLINE)
def _log1p(x):
    return (lambda x: log1p32(x)) if x == types.float32 else (lambda x: np.log1p(x))


@overload(tanh, jit_options=INLINE)
def _tanh(x):
    return (lambda x: tanh32(x)) if x == types.float32 else (lambda x: math.tanh(x))


@overload(sigmoid, jit_options=INLINE)
def _sigmoid(x):
    return (lambda x: sigmoid32(x)) if x == types.float32 else (lambda x: sigmoid64(x))


@overload(softplus, jit_options=INLINE)
def _softplus(x):
    return (lambda x: softplus32(x)) if x == types.float32 else (lambda x: softplus64(x))


@overload(expm1_and_excess, jit_options=INLINE)
def _expm1_and_excess(x, power):
    way = expm1_and_excess32 if x == types.float32 else expm1_and_excess64
    return lambda x, power: way(x, power)


@overload(decay, jit_options=INLINE)
def _decay(x):
    return (lambda x: decay32(x)) if x == types.float32 else (lambda x: math.exp(x))


@overload(rise, jit_options=INLINE)
def _rise(h):
    return (lambda h: rise32(h)) if h == types.float32 else (lambda h: -math.expm1(-h))


@overload(root, jit_options=INLINE)
def _root(x):
    return (lambda x: root32(x)) if x == types.float32 else (lambda x: math.sqrt(x))


@overload(softplus_sigmoid, jit_options=INLINE)
def _softplus_sigmoid(x):
    return (lambda x: _softplus_sigmoid32(x)) if x == types.float32 else (lambda x: _softplus_sigmoid64(x))


@overload(tails, jit_options=INLINE)
def _tails(x):
    return (lambda x: _tails32(x)) if x == types.float32 else (lambda x: _tails64(x))


# --- rows -------------------------------------------------------------------------------------------------------------


@njit(**KERNEL)
def activate_row(row, code):
    """row = activation(row) in place; the codes are `parameters.ACTIVATION_CODES`.

    Adding zero, which changes no number, makes the loop write all of a vector: an element written back as it was LLVM
    leaves out, and stores that leave elements out take ten times as long on AVX2.
    """
    zero = row.dtype.type(0)
    if code == 1:
        for j in range(row.size):
            row[j] = tanh(row[j])
    elif code == 2:
        for j in range(row.size):
            row[j] = zero if row[j] <= zero else row[j] + zero
    elif code == 3:
        for j in range(row.size):
            row[j] = sigmoid(row[j])
    elif code == 4:
        for j in range(row.size):
            row[j] = softplus(row[j])


@njit(**KERNEL)
def activation_backward_row(da, h, code):
    """da *= activation'(h), from the output h; da comes as d loss / d h. In place: were the result another array, LLVM
    would test whether the two overlap, and take the elements one by one where they are the same."""
    zero, one = h.dtype.type(0), h.dtype.type(1)
    if code == 1:
        for j in range(h.size):
            da[j] *= one - h[j] * h[j]
    elif code == 2:
        for j in range(h.size):
            da[j] = zero if h[j] <= zero else da[j]
    elif code == 3:
        for j in range(h.size):
            da[j] *= h[j] * (one - h[j])
    elif code == 4:
        for j in range(h.size):
            da[j] *= rise(h[j])


@njit(fastmath={"reassoc"}, **INNER)
def sum_row(terms):
    """The sum of a row, in an order that depends on its length alone: one partial sum a vector lane, then theirs.

    The flag lets LLVM choose that order once, when it compiles; NaN and infinity are what they are. The loop writes
    nothing: beside a store, LLVM would test at run time whether the arrays lie far enough apart for vectors, and the
    order would depend on where they lie.
    """
    total = terms.dtype.type(0)
    for j in range(terms.size):
        total += terms[j]
    return total
