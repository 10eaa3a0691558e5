"""Named tensors on one flat array."""

import mmap
import pickle
import re
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

import scratchvae as sv
from scratchvae import parameters
from scratchvae.parameters import ALIGNMENT, HUGE_PAGE, Parameters, aligned_zeros
from scratchvae.training import Trainer


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_every_tensor_starts_on_a_cache_line(dtype):
    parameters = Parameters.zeros({"a": (3, 5), "b": (1,), "c": (17,)}, dtype)
    assert {array.ctypes.data % ALIGNMENT for array in parameters.values()} == {0}
    assert {array.dtype for array in parameters.values()} == {np.dtype(dtype)}


def test_a_tensor_of_more_values_than_64_bits_count_is_refused():
    """In 64 bits these are 0 values, for which there is memory."""
    with pytest.raises(ValueError, match="Maximum allowed dimension exceeded"):
        Parameters.zeros({"a": (2**32, 2**32)}, np.float32)


def test_a_name_is_a_view_on_the_flat_array():
    parameters = Parameters.zeros({"a": (2, 3), "b": (4,)}, np.float64)
    parameters["b"][:] = [1, 2, 3, 4]
    assert parameters.flat.sum() == 10
    parameters.flat[:] = 7
    assert (parameters["a"] == 7).all()
    assert list(parameters) == ["a", "b"]
    assert len(parameters) == 2


def test_a_copy_has_memory_of_its_own_and_the_same_layout():
    parameters = Parameters.zeros({"a": (2, 3)}, np.float32)
    parameters["a"][...] = 1.5
    other, wide, empty = parameters.copy(), parameters.astype(np.float64), parameters.zeros_like()
    parameters["a"][...] = 0
    assert (other["a"] == 1.5).all()
    assert (wide["a"] == 1.5).all()
    assert wide["a"].dtype == np.float64
    assert not empty.flat.any()
    assert other.layout == wide.layout == empty.layout == parameters.layout


def test_what_is_unpickled_read_only_and_off_a_cache_line_can_be_trained(engine, tmp_path):
    """joblib maps what is larger than a megabyte into its workers, read-only."""
    joblib.dump(sv.VAE(6, 2, (4,), engine=engine), tmp_path / "vae.joblib")
    vae = joblib.load(tmp_path / "vae.joblib", mmap_mode="r")
    assert vae.parameters.flat.ctypes.data % ALIGNMENT == 0
    x = np.eye(6)
    sv.fit(vae, x, epochs=2, progress=False)
    assert sv.fit(vae, x, epochs=1, progress=False)
    vae.parameters.flat.flags.writeable = False
    with pytest.raises(ValueError, match="the model's parameters are read-only"):
        sv.fit(vae, x, epochs=1, progress=False)


def test_a_network_sees_the_tensors_that_the_names_mean():
    vae = sv.VAE(5, 2, (4, 3), activation="tanh", engine="reference")
    network = vae.parameters.network("decoder", "tanh")
    assert [layer.weight.shape for layer in network.layers] == [(2, 3), (3, 4), (4, 5)]
    assert [layer.activation for layer in network.layers] == ["tanh", "tanh", "identity"]
    for layer, (inputs, outputs, weight, bias, _) in zip(network.layers, network.table.tolist(), strict=True):
        block = network.flat[weight : weight + inputs * outputs].reshape(inputs, outputs)
        assert np.shares_memory(block, layer.weight)
        np.testing.assert_array_equal(block, layer.weight)
        np.testing.assert_array_equal(network.flat[bias : bias + outputs], layer.bias)


def test_parameters_print_their_shapes():
    text = repr(Parameters.zeros({"a": (2, 3), "b": (4,)}, np.float32))
    assert "float32" in text
    assert "10 values" in text
    assert "a: (2, 3)" in text


LARGE = HUGE_PAGE // 4  # numbers of float32 that take half a huge page


@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, 3 * LARGE + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_begin_with_a_cache_line_and_large_ones_with_a_huge_page(size, dtype):
    array = aligned_zeros(size, dtype, lasting=True)
    assert (array.shape, array.dtype) == ((size,), dtype)
    assert not array.any()
    array[:] = np.arange(size)
    np.testing.assert_array_equal(array, np.arange(size, dtype=dtype))
    large = array.nbytes >= HUGE_PAGE // 2 and hasattr(mmap, "MADV_HUGEPAGE")
    assert array.ctypes.data % (HUGE_PAGE if large else ALIGNMENT) == 0 or size == 0


@pytest.mark.skipif(sys.platform != "linux", reason="what /proc says of memory")
def test_large_arrays_that_last_ask_for_huge_pages():
    array = aligned_zeros(LARGE, np.float32, lasting=True)
    regions = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)[1:]
    bounds = [[int(place, 16) for place in region.split(" ", 1)[0].split("-")] for region in regions]
    (own,) = (region for region, (low, high) in zip(regions, bounds, strict=True) if low <= array.ctypes.data < high)
    assert " hg" in re.search("^VmFlags:(.*)$", own, re.MULTILINE)[1]


def test_weights_and_moments_last_and_so_do_their_copies_but_no_gradient():
    vae = sv.VAE(784, 2, (400,), engine="reference")
    trainer = Trainer(vae, np.eye(784, dtype=np.float32))
    weights, (_, gradient) = vae.parameters, vae.value_and_grad(np.eye(784)[:2], np.zeros((2, 2)))
    copies = weights.copy(), weights.astype(np.float64), pickle.loads(pickle.dumps(vae)).parameters
    kept = weights, trainer.first, trainer.second, *copies
    assert all(state.flat.ctypes.data % HUGE_PAGE == 0 for state in kept) is hasattr(mmap, "MADV_HUGEPAGE")
    assert gradient.flat.ctypes.data % HUGE_PAGE


def test_large_arrays_are_zero_where_a_system_has_no_huge_pages(monkeypatch):
    class Memory(mmap.mmap):
        def madvise(self, *_):
            raise OSError("none")

    monkeypatch.setattr(parameters.mmap, "mmap", Memory)
    assert not aligned_zeros(LARGE, np.float32, lasting=True).any()
    monkeypatch.delattr(parameters.mmap, "MADV_HUGEPAGE", raising=False)
    assert not aligned_zeros(LARGE, np.float32, lasting=True).any()


def test_no_memory_is_a_memory_error():
    with pytest.raises(MemoryError):
        aligned_zeros(1 << 58, np.float32, lasting=True)
