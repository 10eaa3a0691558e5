"""Tiles as LLVM code. What they compute is tested where they are made into products, in `test_gemm`."""

from llvmlite import binding, ir

from scratchvae.compiled.tile import PLAIN, SIZES, SKIP, _tile_function


def test_a_module_has_the_code_of_a_tile_once():
    module = ir.Module()
    for scalar in (ir.FloatType(), ir.DoubleType()):
        for kind in (PLAIN, SKIP):
            first, again = (_tile_function(module, scalar, 2, 1, kind) for _ in range(2))
            assert first is again
    names = [function.name for function in module.functions if not function.name.startswith("llvm.")]
    assert len(names) == len(set(names)) == 4
    assert {name.startswith("scratchvae_tile_") for name in names} == {True}


def test_the_code_of_every_tile_is_well_formed():
    module = ir.Module()
    for kind, sizes in SIZES.items():
        for height, count in sizes:
            _tile_function(module, ir.FloatType(), height, count, kind)
    binding.parse_assembly(str(module)).verify()
