"""Training by several processes, on one machine or many, over MPI: `mpiexec -n R scratchvae train ...`

Every process holds the model and the data, and takes its rows of every minibatch. Gradients are added up once a step,
on the flat array; each process gets a part of the sum, makes Adam's step on that part of the parameters, and all
exchange their parts of these (Rajbhandari et al. 2020, their first stage):

    gradient = sum_r (B_r / B) gradient_r        gradient_r of -mean(objective) over the B_r rows of process r

The processes of one machine do both through memory that they share, without a message (Hoefler et al. 2013); between
machines each has messages for its part alone.

Noise is a function of the example, so R processes give the history of one, to rounding. The first process alone writes
and speaks. Nothing of MPI is imported unless a launcher started this process as one of several.

Needs mpi4py and an MPI library: the extra `mpi` has both.
"""

import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.data.mapped import Data
from scratchvae.engine import processors
from scratchvae.parameters import Parameters
from scratchvae.training import Averages, Trainer, of_one_update
from scratchvae.vae import Terms

RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")  # set by MPICH's and Intel's, Slurm's, Open MPI's
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")  # the launcher's before Slurm's
SHARED_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
PAGE = mmap.PAGESIZE
FAILURE_SECONDS = 5.0  # how long a process that failed waits to hear whether all the others failed too
POLL_SECONDS = 0.02


def was_launched() -> bool:
    """Whether this process was started by an MPI launcher. Imports nothing."""
    return any(name in os.environ for name in RANK_VARIABLES)


@cache
def launched_processes() -> "Processes | None":
    """The processes that were launched together, this one among them; None where there is no other.

    Raises    ValueError where a launcher started this process and mpi4py or an MPI library is missing
    """
    sizes = [os.environ[name] for name in SIZE_VARIABLES if name in os.environ]
    if not was_launched() or sizes[:1] == ["1"]:
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"started by an MPI launcher, but mpi4py cannot be used ({error}); expected: pip install scratchvae[mpi]"
        ) from None
    return Processes(MPI.COMM_WORLD) if MPI.COMM_WORLD.size > 1 else None


class Processes:
    """What the processes of one job do together. Every method but `part` and `own` is called by all of them.

    Takes     world: their MPI communicator; machine: that of those which share memory with this one, by default all
              on this machine
    """

    def __init__(self, world: Any, machine: Any = None) -> None:
        from mpi4py import MPI

        self.rank: int = world.rank
        self.size: int = world.size
        self._in_place = MPI.IN_PLACE
        self._world = world.Dup()
        self._failed = world.Dup()  # apart, so that a failure meets no step that others are waiting in
        beside = world.Split_type(MPI.COMM_TYPE_SHARED)
        self._beside = beside.size
        self._machine = _equally_many(world, machine or beside)
        self._across = world.Split(self._machine.rank)  # one process of each machine

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def threads_each(self) -> int:
        """Processors of this machine for each of the processes on it."""
        return max(1, processors() // self._beside)

    def part(self, count: int) -> slice:
        """Which of `count` rows are this process's. The first has some wherever there are any."""
        return _part(count, self.rank, self.size)

    def own(self, count: int) -> slice:
        """Which of `count` elements this process gets from `add_up_part` and gives to `share_parts`."""
        of_machine = self._of_machine(count, self._machine.rank)
        within = _part(of_machine.stop - of_machine.start, self._across.rank, self._across.size)
        return slice(of_machine.start + within.start, of_machine.start + within.stop)

    def add_up(self, array: NDArray) -> None:
        """Put the sum over processes in the place of each one's array: the same bits everywhere."""
        self._world.Allreduce(self._in_place, array)

    def shared_zeros(self, size: int, dtype: np.dtype) -> list[NDArray]:
        """An array (size,) for each process of this machine, in memory that all of them see: first this process's own,
        then the others' from the next on.

        Raises    ValueError where there is not so much of it
        """
        token, row = np.frombuffer(os.urandom(8), np.uint8).copy(), -(-size * dtype.itemsize // PAGE) * PAGE
        self._machine.Bcast(token)
        path = Path(SHARED_MEMORY, f"scratchvae-{token.tobytes().hex()}")
        needed = self._machine.size * row
        try:
            memory = _mapped(path, needed).reshape(self._machine.size, row)
            self._machine.Barrier()
        except OSError as error:
            raise ValueError(
                f"processes of one machine cannot share memory ({error.strerror}); "
                f"expected {needed:,} bytes free in {SHARED_MEMORY}"
            ) from None
        finally:
            path.unlink(missing_ok=True)  # the memory lives as long as the arrays do
        arrays = [mate[: size * dtype.itemsize].view(dtype) for mate in memory]
        return arrays[self._machine.rank :] + arrays[: self._machine.rank]

    def add_up_part(self, arrays: list[NDArray]) -> NDArray:
        """This process's part of the sum over processes of their own `arrays` of `shared_zeros`. None may write in
        these before all are through `share_parts`."""
        self._machine.Barrier()
        of_machine = self._of_machine(len(arrays[0]), self._machine.rank)
        mine, *others = (array[of_machine] for array in arrays)
        for other in others:
            mine += other
        if self._across.size == 1:
            return mine
        counts = _counts(len(mine), self._across.size)
        summed = np.empty(counts[self._across.rank], mine.dtype)
        self._across.Reduce_scatter(mine, summed, counts)
        return summed

    def share_parts(self, array: NDArray, arrays: list[NDArray]) -> None:
        """Put every process's part of an array in its place in all the others'. Overwrites the `arrays`, which
        `shared_zeros` made in its size."""
        mine, *others = arrays
        places = [self._of_machine(len(array), self._machine.rank + ahead) for ahead in range(len(arrays))]
        if self._across.size > 1:
            counts = _counts(places[0].stop - places[0].start, self._across.size)
            self._across.Allgatherv(self._in_place, (array[places[0]], counts))
        mine[places[0]] = array[places[0]]
        self._machine.Barrier()
        for place, other in zip(places[1:], others, strict=True):
            array[place] = other[place]
        self._machine.Barrier()

    def _of_machine(self, count: int, rank: int) -> slice:
        """Which of `count` elements are those of this machine's process `rank`, counted around."""
        return _part(count, rank % self._machine.size, self._machine.size)

    def gather(self, array: NDArray) -> NDArray:
        """The arrays (n,) of all processes, one after the other, everywhere."""
        counts = np.zeros(self.size, np.int64)
        counts[self.rank] = array.size
        self.add_up(counts)
        gathered = np.empty(counts.sum(), array.dtype)
        self._world.Allgatherv(np.ascontiguousarray(array), (gathered, counts))
        return gathered

    def copy_from_first(self, array: NDArray) -> None:
        """Put the first process's array in the place of all others'."""
        self._world.Bcast(array)

    def check_same(self, what: str, content: bytes) -> None:
        """Raise ValueError in a process whose content is not the first's; a point that all pass together."""
        mine = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
        first = mine.copy()
        self.copy_from_first(first)
        if (mine != first).any():
            raise ValueError(f"process {self.rank} has other {what} than process 0; expected the same in all")
        self._world.Barrier()

    def leave(self) -> None:
        """Wait until all are done, without keeping a processor busy."""
        _wait(self._world.Ibarrier(), float("inf"))

    def all_failed(self) -> bool:
        """Whether every process calls this within a few seconds: then what is wrong is wrong for all."""
        return _wait(self._failed.Ibarrier(), FAILURE_SECONDS)

    def abort(self, status: int) -> None:
        """End all processes with this exit status."""
        self._world.Abort(status)

    def trainer(self, *settings: Any) -> "DistributedTrainer":
        """A `Trainer` of these settings that shares its work with the other processes."""
        return DistributedTrainer(self, *settings)


def _equally_many(world: Any, machine: Any) -> Any:
    """The machine's processes, or, where another machine has more or fewer, each process for itself."""
    sizes = np.zeros(world.size, np.int64)
    world.Allgather(np.array([machine.size]), sizes)
    return machine if (sizes == sizes[0]).all() else world.Split(world.rank)


def _part(count: int, rank: int, size: int) -> slice:
    """Part `rank` of `size` of `count`; the first has some wherever there are any."""
    return slice(*(-(-count * end // size) for end in (rank, rank + 1)))


def _counts(count: int, size: int) -> NDArray[np.int64]:
    """The lengths of all parts."""
    return np.array([part.stop - part.start for part in (_part(count, rank, size) for rank in range(size))])


def _mapped(path: Path, size: int) -> NDArray[np.uint8]:
    """The bytes of a file, in memory that all who map it share; made where it is not there yet."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)  # fails where there is too little, as a write to it would later
        else:
            os.ftruncate(descriptor, size)
        return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
    finally:
        os.close(descriptor)


def _wait(request: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


class DistributedTrainer(Trainer):
    """One of several processes that make the same updates. `step` takes all rows of a batch and uses its own."""

    def __init__(self, processes: Processes, *settings: Any) -> None:
        super().__init__(*settings)
        self.processes = processes
        self.writes = processes.is_first
        flat = self.vae.parameters.flat
        self._gradients = processes.shared_zeros(flat.size, flat.dtype)
        self._gradient = Parameters(self.vae.parameters.layout, self._gradients[0])
        self._part = part = processes.own(flat.size)
        # where tensors lie in it: not the padding between them, which has no gradient and is nobody's parameter
        ends = ((entry.offset, entry.offset + entry.size) for entry in self._gradient.layout)
        own = ((max(low, part.start), min(high, part.stop)) for low, high in ends)
        self._own = [slice(low, high) for low, high in own if low < high]
        self._share_moments = False  # after every update, and not after every epoch alone

    def epoch(self, epoch: int, batch_size: int) -> Iterator[Terms]:
        """As `Trainer.epoch`. All begin with the first process's state, should machines ever differ in rounding."""
        for parameters in (self.vae.parameters, self.first, self.second):
            self.processes.copy_from_first(parameters.flat)
        yield from super().epoch(epoch, batch_size)
        self._gather_moments()

    def calls(self, batches: Iterable[NDArray]) -> Iterator[Terms]:
        """As `Trainer.calls`, one update after the other."""
        return map(of_one_update, map(self.step, batches))

    def step(self, rows: NDArray) -> Terms:
        """One update from the given rows of the data. Returns the terms of this process's part of them.

        Of the moments each process then has its own part; `epoch` ends with the whole of them in all.
        """
        self.updates += 1
        terms = self._write_gradient(rows)
        self._adam_on_part(self.processes.add_up_part(self._gradients))
        self.processes.share_parts(self.vae.parameters.flat, self._gradients)
        if self._share_moments:
            self._gather_moments()
        total = np.array([terms.objective.sum(dtype=np.float64)])  # float32 may have no room for it
        self.processes.add_up(total)
        # a loss that is not finite anywhere is so everywhere: all stop at the same update
        return terms if np.isfinite(total[0]) else terms._replace(objective=total)

    def first_not_finite(self, batches: Iterable[NDArray], last: int) -> str:
        """As `Trainer.first_not_finite`; all processes see all moments after every update."""
        self._share_moments = True
        return super().first_not_finite(batches, last)

    def averages(self, terms: list[Terms], with_error: bool = False) -> Averages:
        """As `Trainer.averages`, over the rows of all processes."""
        columns = zip(*terms, strict=True) if terms else ([np.empty(0, self.vae.dtype)] for _ in Terms._fields)
        whole = Terms(*(self.processes.gather(np.concatenate(column, axis=None)) for column in columns))
        return Averages.of([whole], with_error)

    def validate(self, x: Data) -> Averages:
        """As `Trainer.validate`; every process takes a part of the rows."""
        part = self.processes.part(len(x))
        return self.averages(self._held_out(x, part.start, part.stop), with_error=True)

    def _mine(self, rows: NDArray) -> NDArray:
        return rows[self.processes.part(len(rows))]

    def _write_gradient(self, rows: NDArray) -> Terms:
        """This process's addend of the gradient of -mean(objective) over all rows."""
        mine = self._mine(rows)
        if not len(mine):
            self._gradient.flat[:] = 0
            return Terms(*(np.empty(0, self.vae.dtype) for _ in Terms._fields))
        if self._in_one_call():
            minibatch = self._minibatches(mine[np.newaxis], self.updates)
            return Terms(*self.vae.ops.step_gradient(minibatch, len(rows), self._gradient.flat)[0])
        terms, deltas = self._terms_and_deltas(mine)
        self.vae.write_gradient(deltas, self._gradient)
        self._gradient.flat *= self.vae.dtype.type(len(mine) / len(rows))
        return terms

    def _adam_on_part(self, gradient: NDArray) -> None:
        """Adam's step on this process's part of the flat arrays, given the gradient there."""
        settings = self._adam_settings()
        for place in self._own:
            of_part = slice(place.start - self._part.start, place.stop - self._part.start)
            state = self.first.flat[place], self.second.flat[place]
            parameters = self.vae.parameters.flat[place]
            self.vae.ops.adam_update(parameters, gradient[of_part], *state, self.updates, **settings)

    def _gather_moments(self) -> None:
        for moments in (self.first, self.second):
            self.processes.share_parts(moments.flat, self._gradients)
