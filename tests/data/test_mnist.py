"""MNIST: checked by content wherever it comes from, and downloaded so that nothing unchecked is kept."""

import hashlib
import logging
import sys

import numpy as np
import pooch
import pytest
from data_files import gzipped, idx_bytes, message_of

from scratchvae.data import load, mnist

NAMES = list(mnist.SHA256)
FIRST, SECOND = mnist.ADDRESSES


@pytest.fixture
def small(monkeypatch):
    """Four small files in place of MNIST's, with their checksums."""
    random = np.random.default_rng(0)
    shapes = [(20, 4, 4), (20,), (6, 4, 4), (6,)]
    contents = {
        name: idx_bytes(random.integers(0, 256, shape).astype(np.uint8))
        for name, shape in zip(NAMES, shapes, strict=True)
    }
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(mnist, "SHA256", sums)
    monkeypatch.delenv(mnist.FOLDER_VARIABLE, raising=False)
    return contents


@pytest.fixture
def network(monkeypatch, tmp_path):
    """What the addresses send: bytes, or an error to raise. Notes every address that is asked."""

    class Network:
        def __init__(self):
            self.asked = []
            self.answers = {}
            self.cache = tmp_path / "cache"

        def download(self, url, output_file, _pooch):
            self.asked.append(url)
            answer = self.answers.get(url, ConnectionError("no route\nto host"))
            if isinstance(answer, Exception):
                raise answer
            with open(output_file, "wb") as file:
                file.write(answer)

        def serve(self, address, contents):
            self.answers.update({f"{address}{name}.gz": gzipped(content) for name, content in contents.items()})

        def kept(self):
            return sorted(path.name for path in self.cache.rglob("*") if path.is_file())

    network = Network()
    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **options: network.download)
    monkeypatch.setattr(pooch, "os_cache", lambda project: network.cache)
    return network


def test_real_mnist_has_its_known_statistics(mnist_files):
    data = load("mnist", mnist_files)
    assert data.train.shape == (60000, 784)
    assert data.held_out.shape == (10000, 784)
    assert data.train.dtype == data.held_out.dtype == np.uint8
    assert data.train.flags.c_contiguous
    assert data.train.mean() == 33.318421449829934
    assert data.train.std() / 255 == pytest.approx(0.3081078, abs=1e-7)
    assert data.image_shape == (28, 28)
    assert data.grey
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(data.held_out_labels).sum() == 10000


def test_an_idx_file_of_real_mnist_is_a_data_set_of_its_own(mnist_files):
    path = next(mnist_files.glob("t10k-images*"))
    data = load(path)
    assert data.train.shape == (9000, 784)
    assert data.held_out.shape == (1000, 784)
    assert data.train.dtype == np.uint8


@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("form", ["plain", "gzip", "dotted", "dotted gzip"])
def test_the_four_files_are_read_from_a_folder(small, write, tmp_path, place, form, network):
    for name, content in small.items():
        file = name.replace("-idx", ".idx") if "dotted" in form else name
        file, content = (file + ".gz", gzipped(content)) if "gzip" in form else (file, content)
        write(f"{place}/{file}" if place else file, content)
    data = load("mnist", tmp_path)
    assert data.train.shape == (20, 16)
    assert data.held_out.shape == (6, 16)
    assert data.train.tobytes() == small[NAMES[0]][16:]
    assert data.held_out_labels.tobytes() == small[NAMES[3]][8:]
    assert network.asked == []


def test_the_folder_can_be_named_by_the_environment(small, write, tmp_path, monkeypatch, network):
    for name, content in small.items():
        write(name, content)
    monkeypatch.setenv(mnist.FOLDER_VARIABLE, str(tmp_path))
    assert load("mnist").train.shape == (20, 16)
    message_of(lambda: load("mnist", tmp_path / "elsewhere"), "elsewhere: no train-images-idx3-ubyte")
    assert network.asked == []


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_one_changed_byte_is_refused(small, write, tmp_path, name):
    for other, content in small.items():
        write(other, content)
    load("mnist", tmp_path)
    write(name, small[name][:-1] + bytes([small[name][-1] ^ 1]))
    message_of(lambda: load("mnist", tmp_path), name, "SHA-256 of the content is", "expected")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_refused_by_name(small, write, tmp_path, name):
    for other, content in small.items():
        if other != name:
            write(other, content)
    message_of(lambda: load("mnist", tmp_path), str(tmp_path), f"no {name}", "expected MNIST's four IDX files")


def test_mnist_is_not_split_otherwise(small):
    message_of(lambda: load("mnist", held_out=0.1), "held_out is 0.1", "expected None")


def test_the_files_are_downloaded_once(small, network):
    network.serve(FIRST, small)
    first = load("mnist")
    assert network.asked == [f"{FIRST}{name}.gz" for name in NAMES]
    assert network.kept() == sorted(f"{name}.gz" for name in NAMES)
    second = load("mnist")
    assert len(network.asked) == 4
    np.testing.assert_array_equal(first.train, second.train)


def test_an_empty_name_of_the_folder_is_none(small, network, monkeypatch):
    monkeypatch.setenv(mnist.FOLDER_VARIABLE, "")
    network.serve(FIRST, small)
    assert load("mnist").train.shape == (20, 16)


def test_the_second_address_is_asked_where_the_first_fails(small, network):
    network.serve(SECOND, small)
    assert load("mnist").train.shape == (20, 16)
    assert network.asked == [f"{address}{name}.gz" for name in NAMES for address in (FIRST, SECOND)]


@pytest.mark.parametrize("sent", [b"<html>moved</html>", b"", "another", "truncated"])
def test_what_is_not_mnist_is_not_kept_and_the_second_address_is_asked(small, network, sent):
    right = gzipped(small[NAMES[0]])
    wrong = {"another": gzipped(small[NAMES[1]]), "truncated": right[:-20]}.get(sent, sent)
    network.serve(FIRST, small)
    network.answers[f"{FIRST}{NAMES[0]}.gz"] = wrong
    first_try = message_of(lambda: load("mnist"), NAMES[0], "what was sent", "ConnectionError", "data directory")
    assert str(network.cache) not in first_try
    assert network.kept() == []
    network.serve(SECOND, small)
    assert load("mnist").train.shape == (20, 16)


def test_no_address_that_answers_is_one_line_naming_all(small, network):
    message_of(
        lambda: load("mnist"),
        "train-images-idx3-ubyte.gz could not be downloaded",
        "storage.googleapis.com: ConnectionError",
        "ossci-datasets.s3.amazonaws.com: ConnectionError",
        "SCRATCHVAE_DATA",
    )
    assert network.kept() == []


def test_a_damaged_file_in_the_cache_is_downloaded_again(small, network):
    network.serve(FIRST, small)
    load("mnist")
    path = network.cache / "mnist" / f"{NAMES[2]}.gz"
    path.write_bytes(path.read_bytes()[:-5])
    load("mnist")
    assert network.asked[4:] == [f"{FIRST}{NAMES[2]}.gz"]


def test_downloading_leaves_poochs_logger_as_it_was(small, network, monkeypatch):
    logger = pooch.get_logger()
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    message_of(lambda: load("mnist"), "could not be downloaded")
    assert logger.level == logging.DEBUG
    network.serve(FIRST, small)
    load("mnist")
    assert logger.level == logging.DEBUG


def test_without_pooch_it_says_what_is_missing(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    message_of(lambda: load("mnist"), "pooch is not installed", "data directory")
