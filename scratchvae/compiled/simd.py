"""Which vector width the kernels are compiled for, and when BLAS would be the better choice.

`SCRATCHVAE_SIMD` forces a width: avx512, avx2, or portable (128 bits: SSE2, NEON). It is read when the compiled engine
is imported, before the first kernel is compiled. Numba then targets that processor as a whole, and since its cache on
disk is keyed by the target, kernels of different widths never meet. Where Numba is told what to compile for
(`NUMBA_CPU_FEATURES`, or `NUMBA_CPU_NAME=generic`), the width is of that, unless one is forced.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

import llvmlite.binding as llvm
import numba


class Width(NamedTuple):
    """What the micro-kernels need to know of a target."""

    name: str
    bytes: int  # of one vector register
    registers: int
    heights: tuple[int, ...]  # of tiles of a product, in rows: a tile and one row of B must fit into the registers
    counts: tuple[int, ...]  # of tiles, in vectors
    wide: int  # vectors of tiles with fewer rows, where panels of the others would leave one vector over; 0: none
    wide_heights: tuple[int, ...]
    sparse_heights: tuple[int, ...]
    sparse_counts: tuple[int, ...]  # the same of tiles that skip zeros; or with elements of A held, and not a row of B
    dense: float  # share of places that are not all zero from which skipping the others does not pay
    narrow_heights: tuple[int, ...]  # of tiles one vector and 16 bytes wide, where fewer bytes take less time
    inner_height: int  # of tiles of inner products, four columns wide
    fused: bool  # multiply-add with one rounding
    estimates: bool = False  # whether Adam takes less time by an estimated reciprocal and the processor's root


# (processor, features) for Numba: x86-64-v4, x86-64-v3 and the x86-64 baseline, which has no fused multiply-add.
TARGETS = {
    "avx512": ("skylake-avx512", "+avx512f,+avx512dq,+avx512bw,+avx512vl,+avx512cd,+avx2,+fma,+bmi,+bmi2"),
    "avx2": ("haswell", "+avx2,+fma,+bmi,+bmi2"),
    "portable": ("x86-64", "+sse2"),
}
WIDTHS = {
    "avx512": Width(
        "avx512", 64, 32, heights=(8, 4, 2, 1), counts=(3, 2, 1), wide=4, wide_heights=(6, 4, 2, 1),
        sparse_heights=(4, 2, 1), sparse_counts=(6, 5, 4, 3, 2, 1), dense=0.8, narrow_heights=(8, 4),
        inner_height=6, fused=True, estimates=True,
    ),
    "avx2": Width(
        "avx2", 32, 16, heights=(4, 2, 1), counts=(3, 2, 1), wide=0, wide_heights=(1,),
        sparse_heights=(2, 1), sparse_counts=(6, 5, 4, 2, 1), dense=0.76, narrow_heights=(), inner_height=3,
        fused=True,
    ),
    "neon": Width(
        "neon", 16, 32, heights=(8, 4, 2, 1), counts=(3, 2, 1), wide=0, wide_heights=(1,),
        sparse_heights=(2, 1), sparse_counts=(9, 8, 7, 6, 4, 2, 1), dense=0.8, narrow_heights=(),
        inner_height=5, fused=True,
    ),
    "portable": Width(
        "portable", 16, 16, heights=(4, 2, 1), counts=(2, 1), wide=0, wide_heights=(1,),
        sparse_heights=(2, 1), sparse_counts=(5, 4, 2, 1), dense=0.8, narrow_heights=(), inner_height=2,
        fused=False,
    ),
}  # fmt: skip


def _widest(features: Mapping[str, bool]) -> str:
    """The widest of `WIDTHS` that a processor with these features has."""
    if llvm.get_default_triple().startswith(("aarch64", "arm64")):
        return "neon"
    if features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
        return "avx512"
    return "avx2" if features.get("avx2") and features.get("fma") else "portable"


def _choose() -> Width:
    """The forced width, else that of the features Numba was told, else the host's. Raises ValueError for a name that is
    unknown or wider than the host."""
    features, told = llvm.get_host_cpu_features(), numba.config.CPU_FEATURES
    host, forced = _widest(features), os.environ.get("SCRATCHVAE_SIMD", "")
    if told is not None and not forced:
        return WIDTHS[_widest({feature[1:]: feature.startswith("+") for feature in told.split(",")})]
    if forced in ("", host):
        # of many of Intel's processors LLVM believes that loops run better on halves of their registers
        whole_registers = f"{features.flatten()},-prefer-256-bit"
        numba.config.CPU_FEATURES = whole_registers if host == "avx512" else None  # None: all that the host has
        return WIDTHS[host]
    narrower = list(TARGETS)[list(TARGETS).index(host) :] if host in TARGETS else []
    if forced not in narrower:
        raise ValueError(f"SCRATCHVAE_SIMD is {forced!r}; this processor has {', '.join(narrower or [host])}")
    numba.config.CPU_NAME, numba.config.CPU_FEATURES = TARGETS[forced]
    return WIDTHS[forced]


def suited_to(processor: str, width: Width) -> Width:
    """The width with the processor's own tiles for zeros.

    The fewer rows a tile has, the fewer share a list of zeros, but the more it reads of B for each multiply-add. With
    two multiply-adds of 512 bits a cycle tiles of 2 rows by 9 vectors wait for the second-level cache; Zen 4 makes one.
    """
    if width.name == "avx512" and processor == "znver4":
        return width._replace(sparse_heights=(2, 1), sparse_counts=(9, 8, 7, 6, 4, 2, 1), dense=0.88)
    return width


SIMD = suited_to(llvm.get_host_cpu_name(), _choose())


def asking_is_enough() -> bool:
    """Whether a prefetch to write takes a cache line away from the other cores that have read it. AMD's Zen 4 and 5
    leave a line shared that is in the cache already; Zen 3 and Intel's processors take it, without a store that others
    behind it would wait for."""
    return llvm.get_host_cpu_name() not in ("znver4", "znver5")


def simd_name() -> str:
    """avx512, avx2, neon or portable: what the compiled kernels use."""
    return SIMD.name


def matrix_engine() -> str:
    """Who multiplies matrices: always our kernel, so that results have the same bits for any thread count.

    Measured on AVX-512, where it beats OpenBLAS and MKL. A host where BLAS should be faster (Apple's matrix unit;
    Intel's MKL on AVX2) would get its line here.
    """
    return "scratchvae"
