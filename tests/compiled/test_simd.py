"""Which vector width is chosen, and what holds for all widths, those of other processors included."""

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numba
import pytest

from scratchvae.compiled import simd
from scratchvae.compiled.simd import TARGETS, WIDTHS, suited_to
from scratchvae.compiled.tile import HIGH, WIDE

REGISTERS = {"avx512": 32, "avx2": 16, "neon": 32, "portable": 16}  # vector registers of each instruction set


@pytest.mark.parametrize("processor", ["any", "znver4"])
@pytest.mark.parametrize("name", WIDTHS)
def test_every_edge_has_a_tile_and_the_largest_one_fits_into_the_registers(name, processor):
    width = suited_to(processor, WIDTHS[name])
    assert (width.name, width.registers) == (name, REGISTERS[name])
    for heights, counts in ((width.heights, width.counts), (width.sparse_heights, width.sparse_counts)):
        for sizes in (heights, counts):
            assert list(sizes) == sorted(set(sizes), reverse=True)
            assert sizes[-1] == 1, "what is left over may be one row, or one vector"
        assert heights[0] < HIGH, "a tile's number would be another's"
        assert counts[0] < WIDE
        sums, held = heights[0] * counts[0], min(heights[0], counts[0])  # of C; of A or B
        assert sums + held + 1 <= width.registers  # and one of the other
    assert width.inner_height * 4 + min(width.inner_height, 4) + 1 <= width.registers
    assert set(width.narrow_heights) <= set(width.heights)
    assert 2 in width.counts or not width.narrow_heights


def test_zen_4_shares_a_list_of_zeros_with_fewer_rows():
    suited = suited_to("znver4", WIDTHS["avx512"])
    assert suited.sparse_heights[0] < WIDTHS["avx512"].sparse_heights[0]
    assert suited_to("znver4", WIDTHS["avx2"]) is WIDTHS["avx2"]


@pytest.mark.parametrize(
    ("processor", "enough"), [("znver3", True), ("znver4", False), ("znver5", False), ("icelake-server", True)]
)
def test_who_takes_a_line_away_by_asking(monkeypatch, processor, enough):
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: processor)
    assert simd.asking_is_enough() is enough


def test_512_bits_alone_have_estimates_of_reciprocals():
    assert suited_to("znver4", WIDTHS["avx512"]).estimates
    assert [name for name, width in WIDTHS.items() if width.estimates] == ["avx512"]


@pytest.mark.parametrize("name", WIDTHS)
def test_a_vector_holds_a_power_of_two_of_elements_and_two_at_least(name):
    lanes = WIDTHS[name].bytes / 8
    assert lanes in (2, 4, 8)


def test_widths_are_named_from_the_widest_and_fused_where_the_target_is():
    assert [WIDTHS[name].bytes for name in TARGETS] == [64, 32, 16]
    for name, (_, features) in TARGETS.items():
        assert WIDTHS[name].fused == ("+fma" in features.split(","))
    assert WIDTHS["neon"].bytes == 16
    assert WIDTHS["neon"].fused


@pytest.fixture
def host(monkeypatch):
    """Pretends to be another processor; what a forced width sets in Numba is put back."""
    monkeypatch.setattr(numba.config, "CPU_NAME", "as before")
    monkeypatch.setattr(numba.config, "CPU_FEATURES", None)
    monkeypatch.delenv("SCRATCHVAE_SIMD", raising=False)

    def pretend(*features, triple="x86_64-unknown-linux-gnu"):
        monkeypatch.setattr(simd.llvm, "get_host_cpu_features", lambda: llvm.FeatureMap(dict.fromkeys(features, True)))
        monkeypatch.setattr(simd.llvm, "get_default_triple", lambda: triple)

    return pretend


AVX2 = ("avx2", "fma")
AVX512 = (*AVX2, "avx512f", "avx512vl", "avx512dq")


@pytest.mark.parametrize(
    ("features", "triple", "name"),
    [
        (AVX512, "x86_64-unknown-linux-gnu", "avx512"),
        (AVX512[:-1], "x86_64-unknown-linux-gnu", "avx2"),
        ((*AVX2, "avx512f", "avx512dq"), "x86_64-unknown-linux-gnu", "avx2"),
        ((*AVX2, "avx512vl", "avx512dq"), "x86_64-unknown-linux-gnu", "avx2"),
        (AVX2, "x86_64-unknown-linux-gnu", "avx2"),
        (("avx2",), "x86_64-unknown-linux-gnu", "portable"),
        (("fma",), "x86_64-unknown-linux-gnu", "portable"),
        ((), "aarch64-unknown-linux-gnu", "neon"),
        ((), "arm64-apple-darwin23", "neon"),
    ],
)
def test_the_host_gets_the_widest_vectors_that_it_has(host, features, triple, name):
    host(*features, triple=triple)
    assert simd._choose() is WIDTHS[name]
    assert numba.config.CPU_NAME == "as before"


WHOLE_REGISTERS = ",".join([*(f"+{name}" for name in sorted(AVX512)), "-prefer-256-bit"])


@pytest.mark.parametrize(("features", "wanted"), [(AVX512, WHOLE_REGISTERS), (AVX2, None)])
def test_loops_use_whole_registers(host, features, wanted):
    host(*features)
    simd._choose()
    assert numba.config.CPU_FEATURES == wanted


@pytest.mark.parametrize(
    ("told", "name"),
    [("", "portable"), ("+avx2,-fma", "portable"), ("+avx2,+fma,-avx512f", "avx2"), (WHOLE_REGISTERS, "avx512")],
)
def test_where_numba_is_told_its_features_the_width_is_theirs(host, monkeypatch, told, name):
    """Kernels for wider registers would be an instruction that the target has not: LLVM ends the process."""
    host(*AVX512)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", told)
    assert simd._choose() is WIDTHS[name]
    assert (numba.config.CPU_NAME, numba.config.CPU_FEATURES) == ("as before", told)


@pytest.mark.parametrize("told", [None, "", "+sse2"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_width_that_the_host_has_may_be_forced_whatever_numba_was_told(host, monkeypatch, name, told):
    host(*AVX512)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", told)
    monkeypatch.setenv("SCRATCHVAE_SIMD", name)
    assert simd._choose() is WIDTHS[name]
    target = ("as before", WHOLE_REGISTERS) if name == "avx512" else TARGETS[name]
    assert (numba.config.CPU_NAME, numba.config.CPU_FEATURES) == target


@pytest.mark.parametrize(
    ("features", "triple", "forced", "names"),
    [
        (AVX2, "x86_64-unknown-linux-gnu", "avx512", "avx2, portable"),
        ((), "x86_64-unknown-linux-gnu", "avx2", "portable"),
        ((), "aarch64-unknown-linux-gnu", "portable", "neon"),
        (AVX512, "x86_64-unknown-linux-gnu", "neon", "avx512, avx2, portable"),
    ],
)
def test_a_width_that_the_host_has_not_is_refused(host, monkeypatch, features, triple, forced, names):
    host(*features, triple=triple)
    monkeypatch.setenv("SCRATCHVAE_SIMD", forced)
    with pytest.raises(ValueError, match=f"SCRATCHVAE_SIMD is '{forced}'; this processor has {names}$"):
        simd._choose()


def test_the_width_and_the_matrix_engine_have_names():
    assert simd.simd_name() == simd.SIMD.name
    assert simd.matrix_engine() == "scratchvae"


@pytest.mark.slow
@pytest.mark.skipif(simd.simd_name() not in TARGETS, reason="not an x86 processor")
def test_inner_products_and_transposes_are_right_with_narrower_vectors_too():
    """Where there are wider ones nobody else compiles them so; products have a test of their own in `test_gemm`."""
    files = [str(Path(__file__).with_name(f"test_{file}.py")) for file in ("inner", "gemm")]
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-k", "test_inner or transpose_moves"]
    for name in list(TARGETS)[list(TARGETS).index(simd.simd_name()) + 1 :]:
        environment = os.environ | {"SCRATCHVAE_SIMD": name}
        done = subprocess.run([*command, *files], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
