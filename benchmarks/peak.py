"""What the machine can do at most, measured: multiply-adds of a loop that stays in registers, bytes of a large copy,
and how soon one thread sees what another has written.

It takes its turn in every round like any other system (`python -m benchmarks.peak` is such a process), because the
clock of a processor depends on the moment and on what the neighbours do.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from benchmarks.peers.protocol import serve
from scratchvae.compiled.barrier import signals_for, together
from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.tile import INDEX, INT32, Row, splat

LANES = SIMD.bytes // 4  # float32 numbers of a vector register, as wide as the kernels' are
CHAINS = 12  # independent sums: more than two units of latency four need, and they fit in sixteen registers
LOOPS = 4_000_000
EXCHANGES, TRIES = 5_000, 5
COPIED_MEGABYTES = 128  # a thread: larger than a cache


@intrinsic
def multiply_adds(typing_context, loops, factor):
    """The sum over chains and lanes of s <- s * factor + factor, repeated: CHAINS * LANES multiply-adds a loop, made as
    the kernels make theirs."""
    signature = types.float32(types.intp, types.float32)

    def codegen(context, builder, sig, arguments):
        loops, factor = arguments
        row, factors = Row(builder, ir.FloatType(), 1, INDEX(LANES), whole=True), splat(builder, factor, LANES)
        chains = [cgutils.alloca_once(builder, factors.type) for _ in range(CHAINS)]
        for number, chain in enumerate(chains):
            builder.store(ir.Constant(factors.type, [float(number)] * LANES), chain)
        with cgutils.for_range(builder, loops):
            for chain in chains:
                builder.store(row.multiply_add(builder.load(chain), factors, factors), chain)
        total = builder.load(chains[0])
        for chain in chains[1:]:
            total = builder.fadd(total, builder.load(chain))
        result = ir.Constant(factor.type, 0.0)
        for lane in range(LANES):
            result = builder.fadd(result, builder.extract_element(total, INT32(lane)))
        return result

    return signature, codegen


@njit(nogil=True)
def multiply_add_loop(loops, factor):
    return multiply_adds(loops, factor)


@njit(nogil=True)
def signal_and_wait(signals, part, times):
    for _ in range(times):
        together(signals, part, part + 1, 2)


class MachinePeak:
    """Each thread runs its own loop, or copies its own arrays; the slowest counts."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)
        size = COPIED_MEGABYTES * 2**20 // 4
        self.copies = [(np.ones(size, np.float32), np.zeros(size, np.float32)) for _ in range(threads)]
        multiply_add_loop(1, np.float32(0.5))
        signal_and_wait(signals_for(2), 0, 0)

    def measure(self) -> dict:
        """Multiply-adds a second and bytes a second, read and written, over all threads; nanoseconds until two threads
        have each seen a signal of the other, on cores without a common cache some three times as many as with one."""
        arithmetic = self.seconds(lambda thread: multiply_add_loop(LOOPS, np.float32(0.5)))
        memory = self.seconds(lambda thread: np.copyto(self.copies[thread][1], self.copies[thread][0]))
        return {
            "nanoseconds_of_an_exchange": self.exchange() if self.threads > 1 else None,
            "multiply_adds_per_second": self.threads * LOOPS * CHAINS * LANES / arithmetic,
            "bytes_per_second": self.threads * 2 * COPIED_MEGABYTES * 2**20 / memory,
        }

    def exchange(self) -> float:
        """The shortest of some tries: in the others one thread begins long after the other."""

        def seconds() -> float:
            signals = signals_for(2)
            return self.seconds(lambda thread: signal_and_wait(signals, thread, EXCHANGES if thread < 2 else 0))

        return min(seconds() for _ in range(TRIES)) / EXCHANGES * 1e9

    def seconds(self, work: Callable[[int], object]) -> float:
        start = time.perf_counter()
        list(self.pool.map(work, range(self.threads)))
        return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    serve(MachinePeak(parser.parse_args().threads))
