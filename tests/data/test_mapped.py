"""Data larger than memory: rows on the disk train to the same bits as rows in memory, and take little of it."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from data_files import message_of

import scratchvae as sv
from scratchvae.data import MappedRows, dataset, load
from scratchvae.data.binarize import METHODS, binarize
from scratchvae.data.mapped import BLOCK, column_mean, fingerprint, row_by_row
from scratchvae.reference.random import Stream

REPOSITORY = Path(__file__).resolve().parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 4, 6)).astype(np.uint8)
KINDS = {
    "bytes": PIXELS,
    "float32": (PIXELS / 255).astype(np.float32),
    "float16": (PIXELS / 255).astype(np.float16),
    "big-endian": (PIXELS / 255).astype(">f8"),
    "bool": PIXELS > 127,
    "small integers": PIXELS.astype(np.int64) - 5,
    "large integers": PIXELS.astype(np.int64) * (1 << 20),
    "columns first": np.asfortranarray(PIXELS / 255),
}


@pytest.fixture
def on_disk(monkeypatch):
    """Leaves every .npy on the disk, however small."""
    monkeypatch.setattr(dataset, "STAYS_ON_DISK", 0)


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The same file loaded into memory and left on the disk."""

    def load_both(array, **options):
        np.save(tmp_path / "x.npy", array)
        in_memory = load(tmp_path / "x.npy", **options)
        monkeypatch.setattr(dataset, "STAYS_ON_DISK", 0)
        return in_memory, load(tmp_path / "x.npy", **options)

    return load_both


@pytest.mark.parametrize("kind", KINDS)
def test_rows_on_the_disk_have_the_type_the_values_and_the_split_of_rows_in_memory(both, kind):
    in_memory, mapped = both(KINDS[kind], seed=3)
    assert isinstance(mapped.train, MappedRows)
    assert isinstance(mapped.held_out, MappedRows)
    assert (mapped.image_shape, mapped.grey, mapped.found) == (in_memory.image_shape, in_memory.grey, in_memory.found)
    for here, there in ((in_memory.train, mapped.train), (in_memory.held_out, mapped.held_out)):
        assert there.dtype == here.dtype
        assert there.shape == here.shape
        np.testing.assert_array_equal(np.asarray(there), here)
        np.testing.assert_array_equal(there[3:5], here[3:5])
        np.testing.assert_array_equal(there[np.array([4, 1, 1])], here[[4, 1, 1]])
        np.testing.assert_array_equal(there[2], here[2])
        np.testing.assert_array_equal(column_mean(there), column_mean(here))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["bytes", "float32"])
def test_a_batch_is_drawn_alike_from_the_disk_and_from_memory(both, ops, method, kind):
    in_memory, mapped = both(KINDS[kind])
    rows = np.array([7, 0, 31])
    here, there = (binarize(ops, part.train, rows, method, 5, Stream.BINARIZE, 9) for part in (in_memory, mapped))
    np.testing.assert_array_equal(here, there)


def test_training_from_the_disk_gives_the_bits_of_training_from_memory(both, engine):
    in_memory, mapped = both(KINDS["float32"])
    models = [sv.VAE(24, 2, (5,), engine=engine) for _ in range(2)]
    for vae, part in zip(models, (in_memory, mapped), strict=True):
        sv.fit(vae, part.train, epochs=2, batch_size=16, validation=part.held_out, progress=False)
    assert models[0].parameters.flat.tobytes() == models[1].parameters.flat.tobytes()


def test_a_mapped_array_of_ones_own_trains_as_it_is(tmp_path):
    np.save(tmp_path / "x.npy", KINDS["float32"].reshape(50, 24))
    mapped, vae = np.load(tmp_path / "x.npy", mmap_mode="r"), sv.VAE(24, 2, (5,), engine="reference")
    assert len(sv.fit(vae, mapped, epochs=1, validation=mapped, progress=False)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: np.where(x == x[7, 2, 1], np.nan, x), ["is nan", "expected finite numbers"]),
        (lambda x: np.where(x == x[7, 2, 1], np.inf, x), ["is inf", "expected finite numbers"]),
        (lambda x: x[:1], ["1 row", "expected at least 2"]),
        (lambda x: x[:, 0, 0], ["1-D", "expected 2-D"]),
        (lambda x: x.astype(complex), ["complex128", "expected numbers"]),
        (lambda x: (x > 0.5).astype(np.uint8), ["uint8 with no value above 1"]),
    ],
)
def test_what_is_refused_in_memory_is_refused_on_the_disk(on_disk, tmp_path, change, words):
    np.save(tmp_path / "x.npy", change(KINDS["float32"]))
    message_of(lambda: load(tmp_path / "x.npy"), "x.npy", *words)


def test_a_bad_value_on_the_disk_is_named_by_its_place_in_the_file(on_disk, tmp_path):
    x = KINDS["float32"].reshape(50, 24).copy()
    x[31, 5] = 1.5
    np.save(tmp_path / "x.npy", x)
    data, vae = load(tmp_path / "x.npy"), sv.VAE(24, 2, (5,), engine="reference")
    part = data.train if 31 in data.train.rows else data.held_out
    message_of(lambda: sv.fit(vae, part), "row 31, column 5", "is 1.5", "expected values in [0, 1]")
    other = data.held_out if 31 in data.train.rows else data.train
    message_of(lambda: sv.fit(vae, other), "values from 0 to 1.5", "expected values in [0, 1]")


def test_what_is_known_of_all_values_is_found_block_by_block(on_disk, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((9, BLOCK // 2)))
    largest = []
    taken = MappedRows.__getitem__
    monkeypatch.setattr(MappedRows, "__getitem__", lambda self, i: largest.append(taken(self, i)) or largest[-1])
    data = load(tmp_path / "x.npy")
    column_mean(data.train)
    assert data.grey
    assert max(block.size for block in largest) == BLOCK


@pytest.mark.parametrize("row", [0, 1, 2])
def test_what_is_known_of_all_values_is_found_in_every_block(row):
    x = np.zeros((3, BLOCK), np.float32)
    x[row, 5] = 0.5
    assert MappedRows(x).range == (0.0, 0.5, True)
    x[row, 5] = np.nan
    assert np.isnan(MappedRows(x).range[:2]).all()


def test_rows_of_other_columns_than_the_model_s_are_refused(on_disk, tmp_path):
    np.save(tmp_path / "x.npy", KINDS["float32"])
    data, vae = load(tmp_path / "x.npy"), sv.VAE(23, 2, (5,), engine="reference")
    message_of(lambda: sv.fit(vae, data.train), "24 columns, shape (45, 24)", "expected data_dim = 23")


def test_rows_on_the_disk_become_an_array_of_any_type_by_a_copy_alone():
    rows = MappedRows(PIXELS)
    for array in (np.asarray(rows, np.float64), rows.astype(np.float64)):
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, PIXELS.reshape(50, 24))
    with pytest.raises(ValueError, match="without a copy"):
        rows.__array__(copy=False)


def test_a_part_of_a_part_is_made_of_the_rows_of_that_part():
    rows = MappedRows(PIXELS)
    part = rows.subset(np.array([9, 4, 30])).subset(np.array([2, 0]))
    np.testing.assert_array_equal(part, PIXELS.reshape(50, 24)[[30, 9]])


def test_a_mean_of_single_precision_is_summed_in_double():
    x = np.full((200_000, 2), 0.1, np.float32)
    np.testing.assert_allclose(column_mean(x), np.float64(np.float32(0.1)), rtol=1e-12)


def test_a_fingerprint_is_of_the_rows_and_not_of_where_they_lie():
    x = PIXELS.reshape(50, 24)
    for same in (np.asfortranarray(x), MappedRows(PIXELS)):
        assert fingerprint(same) == fingerprint(x)
    for parts in ((x.reshape(24, 50),), (x[::-1],), (x[:30], x[30:]), (x.astype(np.float32),)):
        assert fingerprint(*parts) != fingerprint(x)
    assert fingerprint(x[:30], x[30:]) != fingerprint(x[:20], x[20:])
    as_ever = hashlib.sha256(b"|u1(50, 24)" + x.tobytes()).hexdigest()  # runs on the disk hold it
    assert fingerprint(x) == as_ever


# --- memory: what a process of its own holds -----------------------------------------------------------------------

LIMIT = 1_000_000_000  # bytes of anonymous memory
SIDE, IMAGES = 128, 32_768  # float64: 4.3 GB


def peak_of_anonymous_memory(process: subprocess.Popen) -> int:
    """The most RssAnon that /proc shows while the process lives, in bytes: memory that no file backs."""
    peak, ended = 0, threading.Event()
    status = Path(f"/proc/{process.pid}/status")
    while not ended.wait(0.01):
        if process.poll() is not None:
            return peak
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                peak = max(peak, 1024 * int(line.split()[1]))
    return peak


def started(program: str, folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-c", program], cwd=folder, env=environment, stderr=subprocess.PIPE)


TRAIN = """
import sys
from scratchvae.cli import main
train = sys.modules["scratchvae.cli.train"]
train.FINAL_SAMPLES, train.FINAL_EXAMPLES = 20, 100  # memory goes by blocks, and time by these
options = "--likelihood gaussian --hidden 4 --latent-dim 2 --epochs 1 --batch-size 256 --out run"
raise SystemExit(main(["train", "large.npy", *options.split()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from Linux's /proc")
def test_an_array_of_four_gigabytes_trains_in_less_than_one(tmp_path):
    shape = IMAGES, SIDE, SIDE
    array = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.float64, shape)  # sparse: zeros take no place
    array[::500] = np.random.default_rng(0).random((SIDE, SIDE))
    array.flush()
    assert array.nbytes > 4 * LIMIT
    del array
    process = started(TRAIN, tmp_path)
    peak = peak_of_anonymous_memory(process)
    _, err = process.communicate()
    (tmp_path / "large.npy").unlink()
    assert process.returncode == 0, err.decode()
    assert (tmp_path / "run" / "report.html").is_file()
    assert 50_000_000 < peak < LIMIT


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from Linux's /proc")
def test_the_measure_of_memory_sees_a_copy(tmp_path):
    process = started("import numpy, time; copy = numpy.ones(40_000_000); time.sleep(1)", tmp_path)
    assert peak_of_anonymous_memory(process) > 320_000_000
    process.communicate()


def test_of_arrays_in_any_layout_those_on_the_disk_stay_there(tmp_path):
    columns = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    np.save(tmp_path / "columns.npy", columns)
    on_disk = np.asarray(np.load(tmp_path / "columns.npy", mmap_mode="r"))[1:]
    assert row_by_row(on_disk) is on_disk
    in_memory = row_by_row(columns[1:])
    assert in_memory.flags.c_contiguous
    np.testing.assert_array_equal(in_memory, on_disk)
    assert row_by_row(in_memory) is in_memory
