"""Peers run in processes of their own, with a stated number of threads; this starts them and speaks to them."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import is_installed
from scratchvae.compiled.memory import KEPT, LARGEST_BLOCK

REPOSITORY = Path(__file__).resolve().parents[1]


class PeerError(RuntimeError):
    """A peer answered with an error or died; the message ends with what it last wrote to standard error."""


@dataclass(frozen=True)
class System:
    """One configuration of one framework: the module to run, its arguments and environment."""

    name: str
    module: str
    requires: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    takes_threads: bool = False

    def installed(self) -> bool:
        return is_installed(self.requires)


def thread_environment(threads: int) -> dict[str, str]:
    """Every variable by which one of the systems is told how many threads to use."""
    number = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")
    return {name: number for name in names} | {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}


# glibc's own limits depend on what has been freed before: for every step it may get its pages from the system anew,
# for which eager steps of `pytorch-example` take 1.2 to 2 times as long
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(LARGEST_BLOCK), "MALLOC_TRIM_THRESHOLD_": str(KEPT)}


class PeerProcess:
    """A running peer. It may use `threads` processors and no others, whatever its framework would take."""

    def __init__(self, system: System, threads: int) -> None:
        self.system = system
        self.messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        arguments = [*system.arguments, *(("--threads", str(threads)) if system.takes_threads else ())]
        with confined(threads):
            self.process = subprocess.Popen(
                [sys.executable, "-m", system.module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.messages,
                text=True,
                cwd=REPOSITORY,
                env={**os.environ, **thread_environment(threads), **KEPT_MEMORY, **system.environment},
            )

    def ask(self, command: str, **arguments) -> dict:
        """Sends a command and waits for its answer. Raises PeerError."""
        try:
            self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"{self.system.name} ended during {command}: {self.last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.system.name}: {answer['error']}")
        return answer

    def last_words(self) -> str:
        self.messages.seek(0)
        return " ".join(self.messages.read()[-300:].split())

    def close(self) -> None:
        with suppress(BrokenPipeError):  # what a peer that has died did not take is still to be written
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.messages.close()

    def __enter__(self) -> "PeerProcess":
        return self

    def __exit__(self, *_) -> None:
        self.close()


@contextmanager
def confined(threads: int) -> Iterator[None]:
    """What is started in here may use the first `threads` of this thread's processors, where the system can say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
