"""MNIST: 60,000 training and 10,000 test images of 28x28 bytes, from a folder or downloaded once.

Wherever the files come from, the SHA-256 of their content is checked: the gzip around it may differ between sources.
Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
"""

import os
from os import PathLike
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from numpy.typing import NDArray

from scratchvae.data.checks import DataError, one_line
from scratchvae.data.idx import read_idx

IMAGE_SHAPE = (28, 28)
FOLDER_VARIABLE = "SCRATCHVAE_DATA"
SHA256 = {  # of the uncompressed content
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
ADDRESSES = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
PLACES = ("", "mnist", "MNIST/raw")  # inside the folder: itself, or as other programs lay it out
TIMEOUT = 30.0  # seconds without an answer


class Mnist(NamedTuple):
    train: NDArray  # uint8 (60000, 784)
    train_labels: NDArray  # uint8 (60000,)
    test: NDArray  # uint8 (10000, 784)
    test_labels: NDArray  # uint8 (10000,)


def read_mnist(data_dir: str | PathLike[str] | None = None) -> Mnist:
    """The four files of MNIST, images flattened, uint8 as published.

    Takes     data_dir: the folder with the four IDX files, gzipped or not; None for the one that SCRATCHVAE_DATA names,
              and if it names none for pooch's cache folder, into which missing files are downloaded
    Raises    DataError, one line: a missing, damaged or different file; no address that gives it
    """
    folder = data_dir if data_dir is not None else os.environ.get(FOLDER_VARIABLE) or None
    arrays = [_from_folder(Path(folder), name) if folder is not None else _downloaded(name) for name in SHA256]
    train, train_labels, test, test_labels = arrays
    return Mnist(train.reshape(len(train), -1), train_labels, test.reshape(len(test), -1), test_labels)


def _from_folder(folder: Path, name: str) -> NDArray:
    for place in PLACES:
        for file in (name, name + ".gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"):
            path = folder / place / file
            if path.is_file():
                return read_idx(path, SHA256[name])
    raise DataError(
        f"{folder}: no {name} or {name}.gz there; expected MNIST's four IDX files "
        f"(with no data directory and {FOLDER_VARIABLE} unset they are downloaded)"
    )


def _downloaded(name: str) -> NDArray:
    """One file from pooch's cache folder, put there first if it is missing or damaged."""
    try:
        import pooch
    except ImportError:
        raise DataError("mnist: pooch is not installed; expected it to download, or a data directory") from None
    folder = Path(pooch.os_cache("scratchvae")) / "mnist"
    cached = folder / (name + ".gz")
    if cached.exists():
        try:
            return read_idx(cached, SHA256[name])
        except DataError:
            cached.unlink()
    failures = []
    for address in ADDRESSES:
        try:
            return read_idx(_retrieve(address, folder, name), SHA256[name])
        except (OSError, ValueError) as error:  # what requests raises is an OSError
            reason = one_line(error) if isinstance(error, DataError) else type(error).__name__
            failures.append(f"{urlsplit(address).hostname}: {reason}")
    raise DataError(
        f"mnist: {name}.gz could not be downloaded ({'; '.join(failures)}); "
        f"expected one address to give it, or a data directory (data_dir, {FOLDER_VARIABLE}) with the four IDX files"
    )


def _retrieve(address: str, folder: Path, name: str) -> str:
    import pooch

    def download_checked(url: str, output_file: str, _pooch: object) -> None:
        # pooch moves the file into its cache when this returns: what is not MNIST never gets there
        pooch.HTTPDownloader(timeout=TIMEOUT)(url, output_file, None)
        try:
            read_idx(output_file, SHA256[name])
        except DataError as error:
            raise DataError(one_line(error).replace(str(output_file), "what was sent")) from None

    logger = pooch.get_logger()
    level = logger.level
    logger.info("Downloading %s%s.gz to %s", address, name, folder)
    logger.setLevel("WARNING")  # it would advise to note the checksum of the container; the content's is checked here
    try:
        return pooch.retrieve(
            address + name + ".gz", known_hash=None, fname=name + ".gz", path=folder, downloader=download_checked
        )
    finally:
        logger.setLevel(level)
