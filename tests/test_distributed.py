"""Several processes over MPI: the history of one process, one voice, and an end that leaves a checkpoint."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import distributed
from scratchvae.distributed import (
    SHARED_MEMORY,
    DistributedTrainer,
    Processes,
    _mapped,
    launched_processes,
    was_launched,
)
from scratchvae.training import Trainer
from tests.cases import build

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300  # seconds that a job may take on a busy machine
TRAIN = ("-m", "scratchvae", "train")


@pytest.fixture(scope="module")
def mpiexec() -> str:
    pytest.importorskip("mpi4py", reason="the extra mpi is not installed")
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    return found or pytest.skip("there is no mpiexec")


def command(mpiexec, processes, *arguments):
    alone = [sys.executable, *map(str, arguments)]
    return alone if processes == 1 else [mpiexec, "-n", str(processes), *alone]


def launch(mpiexec, processes, *arguments, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(mpiexec, processes, *arguments),
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def largest_difference(mine, theirs):
    """Of two histories, relative to the second."""
    assert len(mine) == len(theirs) > 0
    differences = []
    for entry, other in zip(mine, theirs, strict=True):
        assert (entry["epoch"], entry["step"]) == (other["epoch"], other["step"])
        for part in ("train", "validation"):
            assert entry[part].keys() == other[part].keys()
            differences += [abs(value / other[part][name] - 1) for name, value in entry[part].items()]
    return max(differences)


# --- the parts ------------------------------------------------------------------------------------------------------


class Imagined(Processes):
    """One of some processes, with nobody else there."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def own(self, count):
        return self.part(count)

    def add_up(self, array):
        pass

    def shared_zeros(self, size, dtype):
        return [np.zeros(size, dtype)]

    def add_up_part(self, arrays):
        self.added = arrays[0].copy()
        return arrays[0][self.own(len(arrays[0]))]

    def share_parts(self, array, arrays):
        pass


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_every_row_is_one_processs_and_the_first_has_some(size):
    for count in (1, 2, 5, 63, 64, 200):
        rows = np.arange(count)
        parts = [rows[Imagined(rank, size).part(count)] for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate(parts), rows)
        assert len(parts[0]) > 0
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("processors", "beside", "threads"), [(8, 1, 8), (8, 3, 2), (2, 2, 1), (2, 4, 1)])
def test_the_processes_of_a_machine_share_its_processors(monkeypatch, processors, beside, threads):
    one = Imagined(0, 12)
    one._beside = beside
    monkeypatch.setattr(distributed, "processors", lambda: processors)
    assert one.threads_each() == threads


@pytest.mark.parametrize(
    ("likelihood", "objective"),
    [("bernoulli", sv.ELBO(2)), ("bernoulli", sv.IWAE(3)), ("gaussian-learned", sv.ELBO(2))],
    ids=["bernoulli", "bernoulli-iwae", "gaussian-learned"],
)
@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(
    ("engine", "dtype", "rtol", "atol"),
    [
        ("reference", "float64", 1e-12, 1e-15),
        ("compiled", "float32", 1e-5, 1e-6),
        pytest.param("compiled", "float64", 1e-12, 1e-15, marks=pytest.mark.slow),  # whole steps take long to compile
    ],
)
def test_the_addends_of_all_processes_are_the_gradient_of_the_whole_batch(
    engine, dtype, rtol, atol, likelihood, objective, rows
):

    def trainer(*processes):
        vae, x, _ = build(data_dim=6, rows=9, engine=engine, likelihood=likelihood, dtype=dtype)
        kind = DistributedTrainer if processes else Trainer
        return kind(*processes, vae, x, 1e-3, objective, "none", 3)

    batch = np.arange(9)[::-1][:rows]
    whole = trainer()
    whole.updates = 1
    terms, deltas = whole._terms_and_deltas(batch)
    gradient = whole.vae.parameters.zeros_like()
    whole.vae.write_gradient(deltas, gradient)

    addends, seen = [], []
    for rank in range(3):
        one = trainer(Imagined(rank, 3))
        seen.append(one.step(batch).objective)
        addends.append(one.processes.added)
    np.testing.assert_allclose(sum(addends), gradient.flat, rtol=rtol, atol=atol)
    np.testing.assert_allclose(np.concatenate(seen), terms.objective, rtol=rtol)


@pytest.fixture
def without_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI", "SLURM")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"])
def test_every_launcher_is_noticed(without_launcher, monkeypatch, name):
    assert not was_launched()
    monkeypatch.setenv(name, "0")
    assert was_launched()


ALONE = [
    {"PMI_RANK": "0", "PMI_SIZE": "1"},
    {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
    {"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1"},  # an interactive shell of Slurm's
]
TOGETHER = [
    {"PMI_RANK": "0", "PMI_SIZE": "4", "SLURM_STEP_NUM_TASKS": "1"},  # an mpiexec in a script of Slurm's
    {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "1"},
    {"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "4"},
    {"PMIX_RANK": "0"},
]


@pytest.mark.parametrize("variables", ALONE)
def test_a_process_that_is_launched_alone_needs_nothing_of_mpi(variables, without_launcher, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert launched_processes.__wrapped__() is None


@pytest.mark.parametrize("variables", TOGETHER)
def test_a_process_that_is_launched_with_others_needs_mpi(variables, without_launcher, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ValueError, match="started by an MPI launcher, but mpi4py cannot be used"):
        launched_processes.__wrapped__()


def test_memory_that_is_shared_is_for_no_other_user(tmp_path):
    before = os.umask(0)
    try:
        _mapped(tmp_path / "memory", 100)[:] = 1
    finally:
        os.umask(before)
    assert (tmp_path / "memory").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "memory").read_bytes() == b"\1" * 100
    (tmp_path / "link").symlink_to(tmp_path / "memory")
    with pytest.raises(OSError, match="link"):
        _mapped(tmp_path / "link", 100)


def test_a_loss_that_is_merely_large_ends_no_training():
    """Its sum over many rows is finite in double precision alone, in which one process looks at it too."""
    vae = sv.VAE(6, 2, (5,), "gaussian", engine="reference")
    vae.parameters.flat[:] = 0
    x = np.full((2000, 6), 5e17, np.float32)
    terms = DistributedTrainer(Imagined(0, 2), vae, x, 1e-3, None, "none").step(np.arange(2000))
    assert 3.4e38 < -terms.objective.sum(dtype=np.float64) < np.inf
    assert len(terms.objective) == 1000


def test_without_a_launcher_nothing_of_mpi_is_imported():
    code = (
        "import sys\n"
        "from scratchvae.distributed import launched_processes\n"
        "import scratchvae.cli\n"
        "assert launched_processes() is None\n"
        "print([name for name in sys.modules if 'mpi' in name.lower().split('.')[0]])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PMI", "OMPI"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_launcher_without_mpi4py_is_bad_input():
    code = "import sys; sys.modules['mpi4py'] = None; from scratchvae.cli import main; sys.exit(main(['train']))"
    environment = os.environ | {"PMI_RANK": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"scratchvae: started by an MPI launcher, but .*pip install scratchvae\[mpi\]\n", done.stderr)


EXCHANGED = """
import sys
import numpy as np
from mpi4py import MPI
from scratchvae import distributed
from scratchvae.distributed import Processes

world = MPI.COMM_WORLD
machines = {  # of four processes
    "one": None,
    "one each": MPI.COMM_SELF,
    "two of two": world.Split(world.rank // 2),
    "two of two, in turn": world.Split(world.rank % 2),
    "three and one": world.Split(world.rank == 3),
}
for name, machine in machines.items():
    processes = Processes(world, machine)
    for size in (1, 3, 5, 1000, 4099):
        arrays = processes.shared_zeros(size, np.dtype(np.float64))
        for turn in range(3):
            addends = np.random.default_rng((turn, size)).integers(0, 1000, (4, size)).astype(np.float64)
            arrays[0][:] = addends[world.rank]
            part = processes.add_up_part(arrays).copy()
            own, whole = processes.own(size), np.full(size, np.nan)
            np.testing.assert_array_equal(part, addends.sum(0)[own], err_msg=name)
            whole[own] = part
            processes.share_parts(whole, arrays)
            np.testing.assert_array_equal(whole, addends.sum(0), err_msg=name)
distributed.SHARED_MEMORY = "/nowhere"
try:
    Processes(world).shared_zeros(1000, np.dtype(np.float32))
except ValueError as error:
    sys.stdout.write(f"{error}\\n")
"""


@pytest.mark.slow
def test_sums_and_parts_are_everywhere_however_processes_lie_on_machines(mpiexec, tmp_path):
    before = set(Path(SHARED_MEMORY).iterdir())
    done = launch(mpiexec, 4, "-m", "mpi4py", "-c", EXCHANGED, cwd=tmp_path)  # one that fails ends all
    assert done.returncode == 0, done.stderr
    words = "processes of one machine cannot share memory (No such file or directory); expected 16,384 bytes free in "
    assert done.stdout.splitlines() == [words + "/nowhere"] * 4
    assert not [path for path in set(Path(SHARED_MEMORY).iterdir()) - before if path.name.startswith("scratchvae")]


# --- the history of one process -------------------------------------------------------------------------------------

COMPARED = """
import json, sys
import numpy as np
import scratchvae as sv
from scratchvae.distributed import launched_processes

processes = launched_processes()
results = {}
for engine in sys.argv[2:]:
    for dtype in ("float32", "float64"):
        x = np.random.default_rng(0).integers(0, 256, (501, 40), dtype=np.uint8)
        vae = sv.VAE(40, 3, (30,), dtype=dtype, engine=engine)
        history = sv.fit(vae, x, epochs=10, batch_size=25, validation=x[:77], progress=False, processes=processes)
        results[engine + dtype] = history.epochs
if processes is None or processes.is_first:
    open(sys.argv[1], "w").write(json.dumps(results))
"""


def compare_histories(mpiexec, folder, sizes, *engines):
    (folder / "compared.py").write_text(COMPARED)
    results = []
    for size in (1, *sizes):
        done = launch(mpiexec, size, "compared.py", f"{size}.json", *engines, cwd=folder)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((folder / f"{size}.json").read_text()))
    for other in results[1:]:
        for name, history in results[0].items():
            assert history[-1]["step"] == 210  # the last of each epoch has one row
            assert largest_difference(other[name], history) < (1e-5 if "32" in name else 1e-12), name


def test_two_processes_have_the_history_of_one_to_rounding(mpiexec, tmp_path):
    compare_histories(mpiexec, tmp_path, [2], "reference")


@pytest.mark.slow
def test_so_have_three_processes_and_the_compiled_engine(mpiexec, tmp_path):
    compare_histories(mpiexec, tmp_path, [3], "reference", "compiled")


STATES = """
import numpy as np
import scratchvae as sv
from scratchvae.distributed import launched_processes
from scratchvae.training import Trainer

processes = launched_processes()
x = np.random.default_rng(0).integers(0, 256, (41, 6), dtype=np.uint8)


def trained(new_trainer, change):
    trainer = new_trainer(sv.VAE(6, 2, (5,), dtype="float64", engine="reference"), x, 0.01)
    states = trainer.vae.parameters.flat, trainer.first.flat, trainer.second.flat
    for state in states:
        state += 0.01 + change
    list(trainer.epoch(1, 10))  # the last of the epoch's batches has one row
    return states


alone, together = trained(Trainer, 0.0), trained(processes.trainer, 0.001 * processes.rank)
for mine, theirs in zip(together, alone, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-15)
vae = sv.VAE(6, 2, (5,), dtype="float64", engine="reference")
sv.fit(vae, x, epochs=1, checkpoint=f"{processes.rank}.safetensors", progress=False, processes=processes)
"""


def test_an_epoch_begins_with_the_firsts_state_ends_with_ones_and_is_written_once(mpiexec, tmp_path):
    done = launch(mpiexec, 2, "-m", "mpi4py", "-c", STATES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["0.safetensors"]


DIVERGED = """
import sys
import numpy as np
import scratchvae as sv
from scratchvae.distributed import launched_processes

processes = launched_processes()
x = np.full((20, 6), 1e16, np.float32)
said = []
for together in (None, processes):
    vae = sv.VAE(6, 2, (5,), "gaussian", engine="reference")
    vae.parameters["encoder.0.weight"][...] = 0
    vae.parameters["decoder.head.bias"][:] = 1  # else it is set to the mean
    vae.parameters["decoder.0.bias"][:] = 1e6  # the loss is about 1e32, a gradient 1e22: its square is infinite
    try:
        sv.fit(vae, x, batch_size=10, progress=False, processes=together)
    except sv.DivergedError as error:
        said.append(str(error))
assert said[0] == said[1], said
sys.stdout.write(f"{said[1]}\\n")
"""


def test_all_processes_name_a_moment_that_goes_bad_though_it_is_in_one_ones_part(mpiexec, tmp_path):
    done = launch(mpiexec, 2, "-m", "mpi4py", "-c", DIVERGED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert "the first array to go bad: Adam's second moment of decoder.head.weight at update 1" in first


DIVERGED_IN_ONE = """
import sys
import numpy as np
import scratchvae as sv
from scratchvae.distributed import launched_processes

processes, whose = launched_processes(), np.zeros(2)
for row in range(6):
    x, said = np.zeros((20, 6), np.float32), []
    x[row] = 1e30  # finite, and its square is not
    for together in (None, processes):
        vae = sv.VAE(6, 2, (5,), "gaussian", engine="reference")
        vae.parameters["decoder.head.bias"][:] = 1  # else it is set to the mean, from which all rows are far
        vae.parameters["encoder.0.weight"][...] = 0
        try:
            sv.fit(vae, x, batch_size=4, progress=False, processes=together)
        except sv.DivergedError as error:
            said.append(str(error))
    (update, whole), (_, mine) = ((words.partition(";")[0], words.rpartition(": ")[2]) for words in said)
    assert said[1].startswith(update), said
    whose[processes.rank] += mine == whole == "log_likelihood at " + update.partition(":")[0]
processes.add_up(whose)
assert whose.all() and whose.sum() == 6, whose
"""


def test_a_loss_that_is_infinite_in_one_process_ends_all_at_the_same_update(mpiexec, tmp_path):
    done = launch(mpiexec, 2, "-m", "mpi4py", "-c", DIVERGED_IN_ONE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


FAILED = """
import numpy as np
from scratchvae import distributed

processes = distributed.launched_processes()
assert processes.all_failed()
if processes.is_first:
    distributed.FAILURE_SECONDS = 0.1
    assert not processes.all_failed()
total = np.array([1.0 + processes.rank])
processes.add_up(total)  # a failure that one has told of is in nobody's way
assert total == 3
if not processes.is_first:
    assert processes.all_failed()
"""


def test_whether_all_failed_is_known_to_each(mpiexec, tmp_path):
    done = launch(mpiexec, 2, "-m", "mpi4py", "-c", FAILED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (60, 4, 4), dtype=np.uint8)
        np.save(tmp_path / f"{name}.npy", pixels)
    return "a.npy"


def history(run: Path):
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_goes_on_with_any_number_of_processes(mpiexec, tmp_path, images):
    settings = (*TRAIN, images, "--batch-size", "7", "--hidden", "9")
    assert launch(mpiexec, 1, *settings, "--epochs", "6", "--out", "whole", cwd=tmp_path).returncode == 0
    done = launch(mpiexec, 2, *settings, "--epochs", "2", "--out", "parts", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 2, "one JSON object, not one a process"
    assert done.stderr.count("training VAE(") == 1
    assert "2 processes of " in done.stderr
    for epochs, size in ((4, 3), (6, 1)):
        arguments = (*TRAIN, "--out", "parts", "--resume", "--epochs", epochs)
        assert launch(mpiexec, size, *arguments, cwd=tmp_path).returncode == 0
    assert largest_difference(history(tmp_path / "parts"), history(tmp_path / "whole")) < 1e-5
    assert {file.name for file in (tmp_path / "parts").iterdir()} == {
        file.name for file in (tmp_path / "whole").iterdir()
    }


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_and_leaves_a_checkpoint_to_go_on_from(mpiexec, tmp_path, images):
    arguments = (*TRAIN, images, "--epochs", "100000", "--hidden", "9", "--out", "run")
    words = tmp_path / "words"
    with words.open("w") as stream:
        job = subprocess.Popen(
            command(mpiexec, 2, *arguments), cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=stream, stderr=stream,
        )  # fmt: skip
        run = tmp_path / "run"
        wait_until(lambda: (run / "history.jsonl").exists() and len(history(run)) > 3)
        os.kill(second_process(job.pid), signal.SIGKILL)
        assert job.wait(timeout=PATIENCE) != 0
    said = words.read_text()
    assert re.search(r"if one ends early all do, go on with: scratchvae train --out run --resume", said)
    assert "KILLED" in said.upper()
    sv.VAE.load(run / "model.safetensors", engine="reference")
    epochs = len(history(run))
    done = launch(mpiexec, 3, *TRAIN, "--out", "run", "--resume", "--epochs", epochs + 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [entry["epoch"] for entry in history(run)] == list(range(1, epochs + 3))


def wait_until(done):
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def second_process(launcher):
    """The process of rank 1 under a launcher."""
    below = [launcher]
    for pid in below:  # grows as it is walked
        below += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return next(pid for pid in below if b"PMI_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes())


@pytest.mark.slow
def test_what_is_wrong_for_all_is_said_once_and_what_is_wrong_for_one_ends_all(mpiexec, tmp_path, images):
    done = launch(mpiexec, 2, *TRAIN, "missing.npy", cwd=tmp_path)
    assert done.returncode == 2
    assert len(re.findall("^scratchvae: ", done.stderr, re.MULTILINE)) == 1
    one = command(mpiexec, 2, *TRAIN, images, "--out", "run")
    other = command(mpiexec, 1, *TRAIN, "b.npy", "--out", "run")
    one[2] = "1"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*one, ":", "-n", "1", *other], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert "scratchvae: process 1 has other data, settings or version than process 0; expected the same" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_training_that_diverges_ends_where_that_of_one_process_does(mpiexec, tmp_path, images):
    settings = (*TRAIN, images, "--learning-rate", "1e30", "--batch-size", "60")
    words = []
    for size in (1, 2):
        done = launch(mpiexec, size, *settings, "--out", f"run{size}", cwd=tmp_path)
        assert done.returncode == 1
        words.append(re.findall(r"^scratchvae: ([^;\n]*)", done.stderr, re.MULTILINE))
    assert words[0] == words[1]
    assert len(words[0]) == 1


@pytest.mark.slow
def test_each_process_may_be_called_in_a_folder_of_its_own(mpiexec, tmp_path, images):
    job = command(mpiexec, 1, *TRAIN, tmp_path / images, "--out", tmp_path / "run")
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
    both = [mpiexec, "-n", "1", "-wdir", tmp_path / "one", *job, ":", "-n", "1", "-wdir", tmp_path / "other", *job]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(word) for word in both], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
