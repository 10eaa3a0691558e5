"""What every test can use: both engines, the real MNIST, and hypothesis without a clock or a dice."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from scratchvae.engine import ENGINES, get_engine, get_threads, set_threads

settings.register_profile(
    "scratchvae",
    deadline=None,  # the first call of a compiled operation compiles it
    derandomize=True,  # a failure is the same tomorrow
    database=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("scratchvae")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test that presses Ctrl-C is heard all the same


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, those that install the wheel before all: one that begins last keeps one process busy while the
    others have nothing left to do."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, "test_wheel" not in item.nodeid))


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Whatever number of threads a test asks for, and however it ends."""
    before = get_threads()
    yield
    set_threads(before)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    return request.param


@pytest.fixture
def ops(engine: str) -> ModuleType:
    """The operations of each engine in turn."""
    return get_engine(engine)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable], None]:
    """Puts a function in the place of one of the reference engine's operations, for one test."""

    def replace(name: str, function: Callable) -> None:
        monkeypatch.setattr(get_engine("reference"), name, function)

    return replace


@pytest.fixture(scope="session")
def mnist_files() -> Path:
    """The folder with the real MNIST, where there is one."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("SCRATCHVAE_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("the real MNIST is not here: set SCRATCHVAE_DATA to the folder with its four IDX files")
    return folder


@pytest.fixture(scope="session")
def digits() -> tuple[NDArray, NDArray]:
    """The 8x8 digits as training and held-out rows, float32 in [0, 1]."""
    from scratchvae.data.digits import read_digits

    images, _ = read_digits()
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:1500]], images[order[1500:]]
