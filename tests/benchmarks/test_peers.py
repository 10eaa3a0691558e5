"""What every peer is given: pixels, minibatches, processors; and what is measured of its process and of the machine."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.images import STAND_IN_ZEROS, Images, mnist, thresholded
from benchmarks.peers.protocol import ShuffledRows, peak_memory
from benchmarks.peers.scratchvae_scaling import Alone, trainer_of
from benchmarks.peers.scratchvae_training import ScratchvaeTraining
from benchmarks.processes import PeerError, PeerProcess, confined
from benchmarks.systems import SAMPLING_SYSTEMS
from benchmarks.workloads import Workload, write_problem
from scratchvae.compiled.simd import TARGETS, WIDTHS, simd_name

SMALL = Workload("small", 20, (9,), 3, "tanh", 3)


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="the system does not show them")
def test_every_peer_is_told_to_keep_freed_memory(tmp_path):
    np.save(tmp_path / "pixels.npy", np.zeros((1, 4), np.uint8))
    with PeerProcess(SAMPLING_SYSTEMS["numpy"], 1) as peer:
        peer.ask("prepare", draws=1, pixels=str(tmp_path / "pixels.npy"))  # so it has begun
        told = Path(f"/proc/{peer.process.pid}/environ").read_text().split("\0")
    assert {"MALLOC_MMAP_THRESHOLD_=33554432", "MALLOC_TRIM_THRESHOLD_=134217728"} <= set(told)


def test_pixels_of_a_half_and_more_are_one():
    images = thresholded(Images(np.array([[0, 127, 128, 255]] * 3, np.uint8), "pixels"), 2)
    np.testing.assert_array_equal(images.pixels, [[0, 0, 255, 255]] * 2)
    assert images.found == "pixels, the first 2, thresholded at 1/2"


def test_what_stands_in_for_mnist_says_so_and_has_its_shape_and_its_share_of_zeros(tmp_path, capsys):
    images = mnist(str(tmp_path), test=True)
    assert images.found.startswith("NOT MNIST")
    assert "MNIST is absent" in capsys.readouterr().err
    assert images.pixels.shape == (10_000, 784)
    assert (images.pixels == 0).mean() == pytest.approx(STAND_IN_ZEROS, abs=0.001)


def test_an_epochs_minibatches_are_whole_and_have_no_row_twice():
    rows, epochs = ShuffledRows(11, 3), []
    taken = np.concatenate([rows.take(steps) for steps in (1, 4, 2, 2)])
    assert taken.shape == (9, 3)
    for epoch in range(3):
        epochs.append(taken[3 * epoch : 3 * epoch + 3].ravel())
        assert len(set(epochs[-1])) == 9
        assert set(epochs[-1]) <= set(range(11))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_peak_memory_is_in_megabytes():
    held = np.ones(64 << 17)  # 64 of them
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    assert held.nbytes / 2**20 <= peak_memory()["megabytes"] < everything


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process takes all processors here")
def test_a_peer_has_as_many_processors_as_threads_and_who_starts_it_keeps_its_own():
    before = os.sched_getaffinity(0)
    with confined(1):
        counted = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
        done = subprocess.run(counted, capture_output=True, check=True)
    assert int(done.stdout) == 1
    assert os.sched_getaffinity(0) == before


def test_a_peer_that_has_died_since_it_was_last_asked_is_said_to_have_ended():
    peer = PeerProcess(SAMPLING_SYSTEMS["numpy"], 1)
    peer.process.kill()
    peer.process.wait()
    with pytest.raises(PeerError, match="numpy ended during run"), peer:
        peer.ask("run", kind="normals", repeats=1)
    assert peer.process.stdout.closed
    assert peer.messages.closed


@pytest.mark.slow
def test_scratchvaes_own_minibatches_are_whole_and_have_no_row_twice_in_an_epoch(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros((11, SMALL.data_dim), np.uint8))
    write_problem(SMALL, np.zeros((3, SMALL.data_dim), np.uint8), str(tmp_path / "problem.npz"))
    peer = ScratchvaeTraining(1)
    peer.prepare(SMALL.as_json(), str(tmp_path / "problem.npz"), str(tmp_path / "data.npy"))
    first, second = (np.concatenate(list(islice(peer.batches, 3))) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(9))
    assert first.tolist() != second.tolist()


@pytest.mark.slow
def test_one_of_so_many_processes_on_paper_works_on_its_share_of_a_batch():
    pixels = np.zeros((12, SMALL.data_dim), np.uint8)
    for share in (1, 2, 3):
        assert len(trainer_of(SMALL, pixels, Alone(share)).step(np.arange(12)).elbo) == 12 // share


PEAK_LOOP = """
import numpy as np
from benchmarks.peak import LANES, multiply_add_loop

multiply_add_loop(1, np.float32(1))
(assembly,) = multiply_add_loop.inspect_asm().values()
print(LANES, "fmaf" in assembly)
"""


@pytest.mark.slow
@pytest.mark.skipif(simd_name() not in TARGETS, reason="not an x86 processor")
def test_the_machines_peak_is_that_of_the_kernels_vectors():
    """Wider ones would not fit into the registers, and what is made of calls into the C library is no peak."""
    command = [sys.executable, "-c", PEAK_LOOP]
    for width in list(TARGETS)[list(TARGETS).index(simd_name()) :]:
        environment = os.environ | {"SCRATCHVAE_SIMD": width}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(WIDTHS[width].bytes // 4), "False"]


@pytest.mark.slow
def test_the_machines_peak_counts_the_multiply_adds_that_its_loop_makes():
    """With a factor of 1 every multiply-add raises one number by 1."""
    from benchmarks.peak import CHAINS, COPIED_MEGABYTES, LANES, LOOPS, MachinePeak, multiply_add_loop

    one = np.float32(1)
    assert multiply_add_loop(8, one) - multiply_add_loop(3, one) == 5 * CHAINS * LANES

    class HalfASecond(MachinePeak):
        def seconds(self, work):
            super().seconds(work)
            return 0.5

    found = HalfASecond(1).measure()
    assert found["multiply_adds_per_second"] == 2 * LOOPS * CHAINS * LANES
    assert found["bytes_per_second"] == 2 * 2 * COPIED_MEGABYTES * 2**20  # read, and written
