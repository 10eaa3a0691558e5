"""evaluate, sample, gradcheck and info: each once as a user would call it, and what --json promises."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from scratchvae import VAE
from scratchvae import gradcheck as checker
from scratchvae.cli import app
from scratchvae.cli.gradcheck import CHECKED, FREE_BITS, KINK_MARGIN, Case, few_cases, model_away_from_kinks
from scratchvae.cli.options import use_threads
from scratchvae.data import load, mnist
from scratchvae.engine import get_threads
from scratchvae.likelihoods import LIKELIHOODS
from scratchvae.objectives import OBJECTIVES
from scratchvae.parameters import ACTIVATION_CODES
from scratchvae.posteriors import POSTERIORS
from scratchvae.report.summary import summarise
from tests.cli.conftest import FAST, REPOSITORY, Command

COMMANDS = [known.callback.__name__ for known in app.registered_commands if known.callback]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_options_that_every_command_takes(command: Command, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    result = command(name, "--help")
    assert result.status == 0
    for option in ("--json", "--seed", "--threads", "--engine"):
        assert option in result.out
    assert f"scratchvae {name}" in result.out  # an example


def test_without_a_command_the_commands_are_listed(command: Command):
    result = command()
    assert result.status == 0
    assert len(COMMANDS) == 8
    assert all(name in result.out for name in COMMANDS)


def test_the_reference_engine_sums_in_one_order_on_any_number_of_threads():
    vae = VAE(784, 2, (400,), engine="reference")
    x = (np.random.default_rng(0).random((64, 784)) > 0.5).astype(np.float32)
    encoded = set()
    with threadpool_limits():
        for threads in (1, min(2, get_threads())):
            use_threads(threads, "reference")
            encoded.add(vae.encode(x).mu.tobytes())
    assert len(encoded) == 1


def test_the_matrix_library_takes_no_more_threads_than_are_asked_for():
    with threadpool_limits():
        use_threads(1)
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


def test_the_version_is_shown(command: Command):
    assert command("--version").out.startswith("scratchvae ")


def test_evaluate_gives_a_bound_that_rises_with_its_samples(command: Command, trained):
    few, many = (
        command("evaluate", trained, "--engine", "reference", "--samples", samples, "--json").record
        for samples in (1, 500)
    )
    for part in ("training", "held_out"):
        assert few[part]["log_evidence"] < many[part]["log_evidence"]
        assert many[part]["elbo"] < many[part]["log_evidence"]
        assert 1 <= many[part]["effective_sample_size"] <= 500


def test_pixels_drawn_once_are_at_evaluation_those_of_training(command: Command, undrawn, images):
    """Whatever the seed of the samples is."""
    command("train", images, *FAST, "--binarize", "fixed", "--seed", 3, "--epochs", 1, "--out", "run")
    vae, data = VAE.load("run/model.safetensors", "reference"), load(str(images), seed=3).train
    words = ("evaluate", "run", "--engine", "reference", "--samples", 5, "--seed", 7, "--json")
    found = command(*words).record["training"]
    right, wrong = (summarise(vae, data, "", "fixed", num_samples=5, seed=7, pixel_seed=seed) for seed in (3, 7))
    assert found["log_evidence"] == pytest.approx(right.log_evidence, rel=1e-5)
    assert found["log_evidence"] != pytest.approx(wrong.log_evidence, rel=1e-5)


def test_a_run_need_not_say_what_was_not_asked_for(command: Command, undrawn, images):
    """Of its data: a folder of MNIST, a size of images, labels, the shape of an image."""
    command("train", images, *FAST, "--epochs", 1, "--out", "run")
    file = Path("run/config.json")
    config = json.loads(file.read_text())
    for name in ("data_dir", "resize", "labels", "image_shape"):
        del config["data"][name]
    file.write_text(json.dumps(config))
    assert command("evaluate", "run", "--engine", "reference", "--samples", 5).status == 0


@pytest.mark.parametrize("method", ["importance", "prior"])
def test_evaluate_measures_by_the_method_samples_limit_and_seed_asked_for(command: Command, images, trained, method):
    words = ("evaluate", trained, "--engine", "reference", "--method", method, "--samples", 9, "--limit", 4)
    found = command(*words, "--seed", 7, "--json").record
    vae, data = VAE.load(trained / "model.safetensors", "reference"), load(str(images))
    for part, x in (("training", data.train), ("held_out", data.held_out)):
        want = summarise(vae, x, "", "dynamic", 9, 4, method, seed=7)
        assert found[part]["log_evidence"] == pytest.approx(want.log_evidence, rel=1e-5)
        assert (found[part]["examples"], found[part]["examples_in_all"]) == (4, len(x))


@pytest.mark.slow
def test_evaluate_tells_the_parts_of_a_data_set_that_has_two_of_its_own(command: Command, undrawn):
    assert command("train", "digits", *FAST, "--epochs", 1, "--out", "run").status == 0
    words = ("evaluate", "run", "digits", "--engine", "reference", "--samples", 2, "--json")
    parts = command(*words).record.keys() & {"training", "held_out", "given"}
    assert parts == {"training", "held_out"}


def test_evaluate_resizes_the_images_of_a_folder_as_training_did(command: Command, undrawn):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = Path("some" if number < 12 else "others")
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    assert command("train", "some", "--resize", "4", *FAST, "--epochs", 1, "--out", "run").status == 0
    for size in ("4", "4x4", "4X4"):
        assert command("train", "--resize", size, "--out", "run", "--resume").status == 0
    refused = command("train", "--resize", "4x5", "--out", "run", "--resume")
    assert "run was made with --resize 4x4, now asked 4x5; leave it out" in refused.err
    result = command("evaluate", "run", "others", "--engine", "reference", "--samples", 2, "--json")
    assert result.status == 0, result.err
    assert result.record["given"]["examples"] == 12


def test_evaluate_prints_a_table_with_units(command: Command, trained):
    result = command("evaluate", trained, "--engine", "reference", "--samples", 20, "--limit", 10)
    assert result.status == 0, result.err
    for word in ("nats", "bits per dimension", "log p(x)", "effective", "held out", "20 samples"):
        assert word in result.out, result.out
    assert result.err == ""


def write_table(path, x, words=None):
    """A table of x with, if there are words, a column of them called kind."""
    if path.suffix == ".npz":
        np.savez(path, data=x, **({} if words is None else {"kind": words}))
        return
    columns = {f"x{column}": x[:, column] for column in range(x.shape[1])} | ({} if words is None else {"kind": words})
    if path.suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow", reason="pyarrow (the extra 'parquet') is not installed")
        import_module("pyarrow.parquet").write_table(arrow.table(columns), path)
        return
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_evaluate_reads_a_table_as_that_of_the_run_was_read(command: Command, undrawn, tmp_path, suffix):
    """Its labels are taken out under the same name; without them it is data alone, and so is a file that has none."""
    x = np.random.default_rng(0).random((20, 3))
    write_table(tmp_path / f"table{suffix}", x, np.where(x[:, 0] > 0.5, "cat", "dog"))
    write_table(tmp_path / f"bare{suffix}", x)
    np.save(tmp_path / "bare.npy", x)
    shutil.copy(tmp_path / f"table{suffix}", tmp_path / f"LOUD{suffix.upper()}")
    assert command("train", f"table{suffix}", "--labels", "kind", *FAST, "--epochs", 1, "--out", "run").status == 0
    records = [
        command("evaluate", "run", data, "--engine", "reference", "--samples", 5, "--json").record
        for data in (f"table{suffix}", f"LOUD{suffix.upper()}", f"bare{suffix}", "bare.npy")
    ]
    assert records[0]["given"]["examples"] == 20
    assert len({record["given"]["log_evidence"] for record in records}) == 1


def test_evaluate_takes_a_single_example(command: Command, trained, tmp_path):
    np.save(tmp_path / "one.npy", np.random.default_rng(2).integers(0, 256, (1, 16), dtype=np.uint8))
    result = command("evaluate", trained, "one.npy", "--engine", "reference", "--samples", 20, "--json")
    assert result.record["given"]["examples"] == 1
    assert "over the one given example. log p(x)" in " ".join(result.err.split())
    assert "±" not in result.err


def test_evaluate_takes_all_rows_of_data_it_is_given(command: Command, trained, tmp_path):
    np.save(tmp_path / "more.npy", np.random.default_rng(2).integers(0, 256, (30, 16), dtype=np.uint8))
    result = command("evaluate", trained, "more.npy", "--engine", "reference", "--samples", 20, "--json")
    assert result.status == 0, result.err
    assert result.record["given"]["examples"] == 30
    assert "training" not in result.record
    assert result.record["data"] == "more.npy"


def test_evaluate_refuses_images_of_other_sides_though_they_have_as_many_pixels(command: Command, undrawn, tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (30, 4, 8), dtype=np.uint8)
    np.save("wide.npy", pixels)
    np.save("tall.npy", pixels.transpose(0, 2, 1))
    np.save("rows.npy", pixels.reshape(30, 32))
    assert command("train", "wide.npy", *FAST, "--epochs", 1, "--out", "run").status == 0
    words = ("--engine", "reference", "--samples", 2)
    assert [command("evaluate", "run", name, *words).status for name in ("wide.npy", "rows.npy")] == [0, 0]
    refused = command("evaluate", "run", "tall.npy", *words)
    expected = "tall.npy: images of 8 x 4 pixels (height x width); expected 4 x 8"
    assert (refused.status, refused.err.strip().removeprefix("scratchvae: ")) == (2, expected)


def test_evaluate_refuses_a_table_whose_columns_are_in_another_order(command: Command, undrawn, tmp_path):
    rows = np.random.default_rng(2).normal(size=(30, 3))

    def table(name, header, order=(0, 1, 2)):
        np.savetxt(name, rows[:, order], delimiter=",", header=header, comments="")

    table("all.csv", "height,weight,kind")
    table("moved.csv", "weight,height,kind", (1, 0, 2))
    table("less.csv", "height,weight", (0, 1))
    np.savetxt("nameless.csv", rows, delimiter=",")
    arguments = ("train", "all.csv", *FAST, "--epochs", 1, "--likelihood", "gaussian", "--labels", "kind")
    assert command(*arguments, "--out", "run").status == 0
    assert json.loads(Path("run/config.json").read_text())["data"]["columns"] == ["height", "weight"]
    refused = command("evaluate", "run", "moved.csv", "--engine", "reference", "--samples", 2)
    expected = "moved.csv: column 1 is 'weight'; expected 'height' in its place"
    assert (refused.status, refused.err.strip().removeprefix("scratchvae: ")) == (2, expected)
    for name in ("all.csv", "less.csv"):
        assert command("evaluate", "run", name, "--engine", "reference", "--samples", 2).status == 0
    refused = command("evaluate", "run", "nameless.csv", "--engine", "reference", "--samples", 2)
    assert "3 columns" in refused.err


@pytest.mark.parametrize("older", [False, True])
def test_evaluate_refuses_data_of_another_scale_than_the_runs(command: Command, undrawn, tmp_path, older):
    pixels = np.random.default_rng(2).integers(0, 256, (30, 3), dtype=np.uint8)
    kinds = {"bytes": pixels, "unit": pixels / 255, "own": pixels / 50, "dark": pixels > 127}
    for kind, rows in kinds.items():
        np.save(f"{kind}.npy", rows)
    refused = set()
    for kind in ("bytes", "unit", "own"):
        arguments = ("train", f"{kind}.npy", *FAST, "--epochs", 1, "--likelihood", "gaussian", "--out", kind)
        assert command(*arguments).status == 0
        file = Path(kind, "config.json")
        config = json.loads(file.read_text())
        assert config["data"]["scale"] == kind
        if older:
            del config["data"]["scale"]
            file.write_text(json.dumps(config))
        for other in kinds:
            done = command("evaluate", kind, f"{other}.npy", "--engine", "reference", "--samples", 2)
            if done.status:
                refused.add(done.err.strip().removeprefix("scratchvae: "))
    taken, scaled = "numbers beyond 0 to 1, taken as they are", "uint8, which means value / 255"
    end = "as the model was trained on"
    assert refused == (
        set()
        if older
        else {f"own.npy: {taken}; expected {scaled}, {end}", f"bytes.npy: {scaled}; expected {taken}, {end}"}
    )


def test_evaluate_takes_1000_examples_of_more_unless_it_is_told_to_take_all(command: Command, trained, tmp_path):
    np.save(tmp_path / "many.npy", np.random.default_rng(2).integers(0, 256, (1200, 16), dtype=np.uint8))
    words = ("evaluate", trained, "many.npy", "--engine", "reference", "--samples", 2, "--json")
    assert [command(*words, *more).record["given"]["examples"] for more in ((), ("--limit", 0))] == [1000, 1200]


def test_a_run_on_mnist_finds_it_where_it_was_or_where_it_is_now(command: Command, undrawn, tmp_path, monkeypatch):
    random, sums = np.random.default_rng(0), {}
    (tmp_path / "old").mkdir()
    for name, shape in zip(mnist.SHA256, [(20, 28, 28), (20,), (6, 28, 28), (6,)], strict=True):
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        content = header + random.integers(0, 10, shape, dtype=np.uint8).tobytes()
        (tmp_path / "old" / name).write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(mnist, "SHA256", sums)
    monkeypatch.setenv("SCRATCHVAE_DATA", "nowhere")

    def ends(*data_dir):
        words = ("--engine", "reference", "--samples", 2, *data_dir)
        yield command("train", "--out", "run", "--resume", *data_dir).status
        yield from (command("evaluate", "run", *data, *words).status for data in ([], ["mnist"]))

    assert command("train", "mnist", "--data-dir", "old", *FAST, "--epochs", 1, "--out", "run").status == 0
    assert list(ends()) == [0, 0, 0]
    monkeypatch.chdir("old")
    assert command("evaluate", "../run", "--engine", "reference", "--samples", 2).status == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").rename("new")
    assert list(ends()) == [2, 2, 2]
    assert list(ends("--data-dir", "new")) == [0, 0, 0]
    assert list(ends()) == [0, 0, 0]  # the run that went on says where they are


def test_a_standard_error_of_one_example_is_null_in_json(command: Command, trained):
    result = command("evaluate", trained, "--engine", "reference", "--samples", 20, "--limit", 1, "--json")
    assert result.record["held_out"]["standard_error"] is None


def test_sample_writes_the_same_numbers_for_the_same_seed(command: Command, trained, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = command("sample", trained, "--count", 9, "--seed", seed, "--out", f"{name}.npy", "--engine", "reference")
        assert out.status == 0, out.err
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert a.shape == (9, 16)
    assert set(np.unique(a)) <= {0.0, 1.0}
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_sample_with_mean_writes_the_means_of_the_model(command: Command, trained, tmp_path):
    words = ("sample", trained, "--mean", "--count", 5, "--seed", 7, "--out", "means.npy", "--engine", "reference")
    assert command(*words).status == 0
    vae = VAE.load(trained / "model.safetensors", "reference")
    np.testing.assert_array_equal(np.load(tmp_path / "means.npy"), vae.sample(5, seed=7, mean=True))


def test_samples_go_into_the_run_as_a_picture_or_as_numbers(command: Command, undrawn, trained, vectors, tmp_path):
    options = ("--likelihood", "gaussian", "--epochs", 1, "--out", "numbers")
    assert command("train", vectors, *FAST, *options).status == 0
    shutil.copytree(trained, tmp_path / "images")
    for run, name in (("images", "samples.png"), ("numbers", "samples.npy")):
        assert command("sample", run, "--engine", "reference").status == 0
        assert (tmp_path / run / name).is_file()
    assert np.load(tmp_path / "numbers" / "samples.npy").shape == (64, 5)
    refused = command("sample", "numbers", "--out", "a.png", "--engine", "reference")
    assert (refused.status, "the run's data are no images" in refused.err) == (2, True)


def test_sampled_images_are_as_high_and_wide_as_those_of_the_data(command: Command, trained, tmp_path):
    from PIL import Image

    shutil.copytree(trained, tmp_path / "run")
    config = json.loads((trained / "config.json").read_text())
    config["data"]["image_shape"] = [2, 8]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert command("sample", "run", "--count", 1, "--out", "one.PNG", "--engine", "reference").status == 0
    with Image.open(tmp_path / "one.PNG") as image:
        assert image.width == 4 * image.height


def test_sample_draws_a_grid_of_means(command: Command, trained, tmp_path):
    from PIL import Image

    result = command("sample", trained, "--count", 6, "--mean", "--out", "six.png", "--json", "--engine", "reference")
    assert result.record["mean"] is True
    with Image.open(tmp_path / "six.png") as image:
        assert image.mode == "L"
        assert image.width > image.height > 2 * 4  # three columns, two rows


def test_gradcheck_passes_every_parameter_by_every_method(command: Command):
    result = command("gradcheck", "--json", "--engine", "reference")
    assert result.status == 0, result.err
    record = result.record
    assert record["passed"] is True
    assert {name: found["gate"] for name, found in record["methods"].items()} == dict(checker.GATES)
    assert {row["likelihood"] for row in record["rows"]} >= {"bernoulli", "gaussian", "gaussian-learned"}
    assert all(row["error"] <= row["gate"] for row in record["rows"])
    for name, found in record["methods"].items():
        rows = [row for row in record["rows"] if row["method"] == name]
        worst = max(rows, key=lambda row: row["error"])
        assert (found["tensors"], found["failed"], found["worst"]) == (len(rows), 0, worst["error"])
        assert found["worst_at"].items() <= worst.items()


@pytest.mark.slow
def test_gradcheck_all_covers_every_likelihood_activation_and_objective_by_the_complex_step(command: Command):
    rows = command("gradcheck", "--all", "--method", "complex", "--json", "--engine", "reference").record["rows"]
    models = {(row["likelihood"], row["activation"], row["objective"]) for row in rows}
    assert models >= set(itertools.product(LIKELIHOODS, ACTIVATION_CODES, ("elbo", "iwae")))
    assert {(row["objective"], row["posterior"]) for row in rows} == set(itertools.product(CHECKED, POSTERIORS))
    assert CHECKED.keys() > OBJECTIVES.keys()
    assert max(row["error"] for row in rows) <= 1e-12


def test_gradcheck_has_every_part_of_a_model_at_least_once():
    for found, all_of_them in zip(
        zip(*few_cases(), strict=True), (LIKELIHOODS, ACTIVATION_CODES, CHECKED, POSTERIORS), strict=True
    ):
        assert set(found) == set(all_of_them)


@pytest.fixture
def one_case(monkeypatch):
    """Of all models that are checked, one."""
    case = Case("bernoulli", "tanh", "elbo", "diagonal")
    monkeypatch.setattr(import_module("scratchvae.cli.gradcheck"), "all_cases", lambda: iter([case]))


@pytest.mark.slow
def test_gradcheck_all_is_of_both_engines(command: Command, one_case):
    record = command("gradcheck", "--all", "--json").record
    assert record["engines"] == ["reference", "compiled"]
    assert {row["engine"] for row in record["rows"]} == {"reference", "compiled"}


def test_gradcheck_looks_at_the_model_of_its_seed_and_by_a_method_once(command: Command, one_case):
    words = ("gradcheck", "--all", "--engine", "reference", "--method", "central", "--method", "central", "--json")
    one, again, other = (command(*words, "--seed", seed).record["rows"] for seed in (1, 1, 2))
    assert len(one) == len({row["parameter"] for row in one})
    assert one == again
    assert [row["error"] for row in one] != [row["error"] for row in other]


@pytest.mark.parametrize("seed", [0, 100, 200, 2**64 - 1])
def test_gradients_are_checked_where_neither_relus_nor_free_bits_have_their_kink(seed):
    vae, x, eps, _ = model_away_from_kinks(Case("bernoulli", "relu", "elbo-free-bits", "diagonal"), "reference", seed)
    q, weights = vae.encode(x), vae.parameters
    kl = 0.5 * (q.mu**2 + np.exp(q.logvar) - 1 - q.logvar)
    assert np.abs(kl - FREE_BITS).min() >= KINK_MARGIN
    z = q.mu[:, None] + np.exp(q.logvar[:, None] / 2) * eps
    for part, h in (("encoder", x), ("decoder", z.reshape(-1, vae.latent_dim))):
        for layer in range(2):
            a = h @ weights[f"{part}.{layer}.weight"] + weights[f"{part}.{layer}.bias"]
            assert np.abs(a).min() >= KINK_MARGIN
            h = np.maximum(a, 0)


def test_gradcheck_ends_with_status_1_where_a_gradient_is_off_by_a_thousandth(command: Command, plant):
    from scratchvae import reference

    right = reference.posterior_backward
    plant("posterior_backward", lambda *arguments: 1.001 * right(*arguments))
    result = command("gradcheck", "--engine", "reference", "--json")
    assert result.status == 1
    assert result.record["passed"] is False
    assert "FAILED" in result.err


def test_info_says_what_runs_here(command: Command):
    record = command("info", "--json").record
    assert record["versions"]["numpy"] == np.__version__
    assert record["engine"]["name"] == "compiled"
    assert record["engine"]["threading_layer"] in ("omp", "tbb", "workqueue")
    assert record["processor"]["usable"] >= 1
    assert "scratchvae" in command("info").out


def test_info_looks_for_kernels_where_they_are_kept(command: Command, tmp_path, monkeypatch):
    kept, versions = tmp_path / "kept", tmp_path / "kept" / "kernels-0"
    monkeypatch.setattr(import_module("scratchvae.compiled.kernel_cache"), "PATH", versions)
    assert command("info", "--json").record["cache"] == {"kernels": str(kept), "files": 0, "megabytes": 0}
    versions.mkdir(parents=True)
    (versions / "kernel.nbc").write_bytes(bytes(300_000))
    (versions / "kernel.nbi").write_bytes(bytes(100_000))
    assert command("info", "--json").record["cache"] == {"kernels": str(kept), "files": 2, "megabytes": 0.4}


def test_info_tells_a_folder_of_data_that_is_there_from_one_that_is_not(command: Command, tmp_path, monkeypatch):
    words = ("info", "--engine", "reference", "--json")
    for value, folder, exists in ((tmp_path, str(tmp_path), True), ("nowhere", "nowhere", False), ("", None, False)):
        monkeypatch.setenv("SCRATCHVAE_DATA", str(value))
        assert command(*words).record["data"]["SCRATCHVAE_DATA"] == {"folder": folder, "exists": exists}


def test_info_says_of_the_reference_engine_nothing_of_kernels(command: Command):
    assert command("info", "--engine", "reference", "--json").record["engine"].keys() == {"name", "threads"}


def test_a_process_prints_one_json_object_with_the_threads_asked_for(process):
    started = process("info", "--json", "--threads", "1")
    out, err = started.communicate(timeout=60)
    assert started.returncode == 0, err
    assert json.loads(out)["engine"]["threads"] == 1


def test_the_command_line_starts_without_plotting_or_learning_libraries():
    code = "import sys, scratchvae.cli; print(sorted({'matplotlib', 'sklearn', 'pooch', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not grant more memory than there is")
def test_a_process_asks_for_no_more_memory_than_there_is_or_it_was_left():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for before, after in ((-1, memory), (memory // 2, memory // 2), (2 * memory, memory)):
        code = f"""
import resource, sys
from scratchvae.cli import main
resource.setrlimit(resource.RLIMIT_DATA, ({before}, resource.getrlimit(resource.RLIMIT_DATA)[1]))
sys.argv[1:] = ["--version"]
main()
print(resource.getrlimit(resource.RLIMIT_DATA)[0])
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == str(after)


@pytest.mark.parametrize(("samples", "words"), [("1", "with 1 sample,"), ("1000", "with 1,000 samples,")])
def test_evaluate_says_how_many_samples_its_bound_has(command: Command, trained, samples, words):
    shown = command("evaluate", trained, "--limit", "3", "--samples", samples).out
    assert f"importance-weighted lower bound {words}" in " ".join(shown.split())
