"""Tiles as LLVM code. What they compute is tested where they are made into products, in `test_gemm`."""

from llvmlite import binding, ir

from scratchvae.compiled.simd import SIMD
from scratchvae.compiled.tile import _tile_function


def test_a_module_has_the_code_of_a_tile_once():
    module = ir.Module()
    for scalar in (ir.FloatType(), ir.DoubleType()):
        for skip in (0, 1):
            first, again = (_tile_function(module, scalar, 2, 1, skip) for _ in range(2))
            assert first is again
    names = [function.name for function in module.functions if not function.name.startswith("llvm.")]
    assert len(names) == len(set(names)) == 4
    assert {name.startswith("scratchvae_tile_") for name in names} == {True}


def test_the_code_of_every_tile_is_well_formed():
    module = ir.Module()
    for skip, heights, counts in ((0, SIMD.heights, SIMD.counts), (1, SIMD.sparse_heights, SIMD.sparse_counts)):
        for height in heights:
            for count in counts:
                _tile_function(module, ir.FloatType(), height, count, skip)
    binding.parse_assembly(str(module)).verify()
