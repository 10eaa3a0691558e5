"""The table's set-up is the paper's, a shortened schedule learns, and a stopped run ends with the same bits."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

import scratchvae as sv
from benchmarks import paper_table
from benchmarks.paper_table import PUBLISHED, Cell, Evaluation, Training, main, result, schedule
from scratchvae.checkpoint import load_model
from scratchvae.data.mapped import fingerprint
from scratchvae.data.mnist import read_mnist
from scratchvae.engine import set_threads
from scratchvae.evidence import active_units_by_layer
from scratchvae.report.summary import Summary, as_seen, spread_rows, summarise

SHORT = ["--passes", "0.002", "--train-images", "500", "--test-images", "20", "--samples", "100"]
PASSES = 7  # 0.002 of 3,280


def run(folder, mnist_files, *more: str) -> int:
    return main(["--out", str(folder), "--data-dir", str(mnist_files), *SHORT, *more])


def only(folder, ending: str):
    (found,) = folder.glob(f"*.{ending}")
    return found


@pytest.fixture(autouse=True)
def one_thread(threads_as_before) -> None:
    """Updates this small gain nothing from a second thread, and on a busy machine lose much."""
    set_threads(1)


# --- the set-up -----------------------------------------------------------------------------------------------------


def test_the_full_schedule_is_the_papers():
    epochs, stages = schedule(1.0, 59_600)
    assert (epochs, sum(stages.updates)) == (3280, 9_774_400)
    assert stages.updates == tuple(2980 * 3**stage for stage in range(8))
    assert stages.rates == pytest.approx([1e-3, 7.2e-4, 5.2e-4, 3.7e-4, 2.7e-4, 1.9e-4, 1.4e-4, 1e-4])


@pytest.mark.parametrize("fraction", [1e-9, 0.0003, 0.01, 0.1, 0.5])
def test_a_fraction_shortens_every_stage_alike(fraction):
    epochs, stages = schedule(fraction, 59_600)
    assert fraction * 3280 <= epochs < fraction * 3280 + 1
    assert sum(stages.updates) == epochs * 2980
    full = np.array(schedule(1.0, 59_600).stages.updates)
    np.testing.assert_allclose(stages.updates, full * epochs / 3280, atol=1)


def test_the_one_layer_model_is_the_papers():
    vae = Cell("vae", 1, 1, 1.0, 0).untrained()
    assert sum(array.size for array in vae.parameters.values()) == 425_284
    assert vae.activation == "tanh"


def test_the_two_layer_model_is_the_papers():
    vae = Cell("vae", 1, 2, 1.0, 0).untrained()
    weights = {name: array.shape for name, array in vae.parameters.items() if name.endswith("weight")}
    assert list(weights.values()) == [
        (784, 200), (200, 200), (200, 200), (100, 100), (100, 100), (100, 100),
        (50, 100), (100, 100), (100, 200), (100, 200), (200, 200), (200, 784),
    ]  # fmt: skip
    assert vae.activation == "tanh"


def test_the_published_table_is_the_papers():
    """Nats and active units of k = 1, 5, 50. With one sample the two objectives are one, and so are their cells."""
    columns = {
        (1, "vae"): [(86.76, (19,)), (86.47, (20,)), (86.35, (20,))],
        (1, "iwae"): [(86.76, (19,)), (85.54, (22,)), (84.78, (25,))],
        (2, "vae"): [(85.33, (16, 5)), (85.01, (17, 5)), (84.78, (17, 5))],
        (2, "iwae"): [(85.33, (16, 5)), (83.89, (21, 5)), (82.90, (26, 7))],
    }
    table = {(*column, k): cell for column, cells in columns.items() for k, cell in zip((1, 5, 50), cells, strict=True)}
    assert table == PUBLISHED


def test_every_cell_has_its_objective_and_a_name_of_its_own():
    cells = [Cell(model, k, layers, 1.0, 0) for layers, model, k in PUBLISHED]
    assert len({cell.name for cell in cells}) == len(cells)
    assert Cell("vae", 5, 1, 1.0, 0).objective() == sv.ELBO(num_samples=5, kl="monte-carlo")
    exact = Cell("vae", 5, 1, 1.0, 0, "exact")
    assert exact.objective() == sv.ELBO(num_samples=5)
    assert exact.name not in {cell.name for cell in cells}
    assert exact.command.endswith("--seed 0 --kl exact")
    assert Cell("iwae", 50, 1, 1.0, 0).objective() == sv.IWAE(num_samples=50)


@pytest.mark.parametrize("fraction", [0.002, 0.2, 0.20000049, 1e-09])
def test_the_command_that_is_kept_makes_the_run_again(fraction):
    """To the last digit: a little more than a fifth is a pass more."""
    cell = Cell("iwae", 5, 1, fraction, 3)
    options = paper_table.read_options(cell.command.split()[3:])
    assert Cell(options.model, options.k, options.layers, options.passes, options.seed, options.kl) == cell


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.fixture
def summary() -> Summary:
    """Of a trained model; every number in it is another."""
    numbers = dict.fromkeys(Summary.__annotations__, -1.0)
    numbers |= {"elbo": -90.5, "log_evidence": -85.2, "standard_error": 0.224, "sampling_error": 0.00336}
    return Summary(**numbers | {"part": "test", "method": "dynamic", "examples": 9_000, "num_samples": 400})


def kept(cell: Cell, summary: Summary, *arguments: str) -> dict:
    epochs = [{"epoch": epoch, "step": 2980 * epoch, "train": {"elbo": -100.0 + epoch}} for epoch in (1, 2)]
    training = Training(cell.untrained(), sv.History(epochs), 90.0)
    return result(cell, training, Evaluation(summary, (21, 7), 30.0), paper_table.read_options(list(arguments)))


def test_a_first_look_has_a_name_of_its_own_and_replaces_no_result():
    cell = Cell("vae", 1, 1, 1.0, 0)
    looks = [[], ["--samples", "100"], ["--samples", "100", "--test-images", "20"], ["--train-images", "500"]]
    names = [paper_table.name_of_result(cell, paper_table.read_options(look)) for look in looks]
    assert names[0] == cell.name
    assert names[2] == f"{cell.name}-test-images-20-samples-100"
    assert len(set(names)) == len(names)
    trained = [paper_table.name_of_checkpoint(cell, paper_table.read_options(look)) for look in looks]
    assert trained == [cell.name, cell.name, cell.name, f"{cell.name}-train-images-500"]


def test_what_is_kept_of_a_run_is_what_was_found_beside_what_was_published(summary):
    document = kept(Cell("iwae", 5, 2, 1.0, 4), summary)
    assert document["cell"] == {"model": "iwae", "k": 5, "layers": 2, "kl": "monte-carlo"}
    names = "nll", "standard_error", "sampling_error", "elbo", "active_units", "difference", "seed"
    assert [document[name] for name in names] == [85.2, 0.224, 0.00336, -90.5, [21, 7], 1.31, 4]
    assert document["published"] == {"nll": 83.89, "active_units": [21, 5]}
    assert document["training"] == {"images": 59_600, "passes": 2, "updates": 5960, "minutes": 1.5, "elbo": -98.0}
    assert document["evaluation"] == {"images": 9_000, "samples": 400, "minutes": 0.5}


def test_a_schedule_is_full_only_with_all_passes_over_all_images(summary):
    cell = Cell("vae", 1, 1, 1.0, 0)
    assert kept(cell, summary)["schedule"] == "full"
    assert kept(replace(cell, passes=0.5), summary)["schedule"] == "shortened"
    assert kept(cell, summary, "--train-images", "59000")["schedule"] == "shortened"


# --- a shortened run ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("model", "layers"), [("vae", 1), ("iwae", 1), ("iwae", 2)])
def test_a_shortened_schedule_learns_and_is_set_beside_the_published_cell(tmp_path, mnist_files, model, layers, capsys):
    assert run(tmp_path, mnist_files, "--model", model, "--k", "5", "--layers", str(layers), "--json") == 0
    shown = capsys.readouterr()
    document = json.loads(only(tmp_path, "json").read_text())
    assert json.loads(shown.out) == document
    assert document["training"]["updates"] == PASSES * 25
    assert document["training"]["passes"] == PASSES
    assert document["schedule"] == "shortened"
    nll, units = PUBLISHED[layers, model, 5]
    assert document["published"] == {"nll": nll, "active_units": list(units)}
    assert len(document["active_units"]) == layers
    assert document["difference"] == pytest.approx(document["nll"] - document["published"]["nll"], abs=0.001)
    assert document["command"].startswith(f"python -m benchmarks.paper_table --model {model} --k 5 --layers {layers}")
    assert document["command"].endswith("--train-images 500 --test-images 20 --samples 100")
    assert {"seed", "date", "machine", "standard_error", "active_units"} <= document.keys()
    assert 100 < document["nll"] < untrained_nll(Cell(model, 5, layers, 0.002, 0), mnist_files) - 5
    assert "published" in shown.err
    assert "ours" in shown.err
    assert_trained_and_evaluated_as_it_says(only(tmp_path, "safetensors"), document, read_mnist(mnist_files))


def assert_trained_and_evaluated_as_it_says(checkpoint, document, mnist) -> None:
    """Trained on the first images, binarized afresh, with the paper's epsilon; evaluated on test images, so too."""
    with safe_open(checkpoint, framework="numpy") as file:
        settings = json.loads(file.metadata()["scratchvae"])["training"]["settings"]
    assert settings["data"] == f"SHA-256 {fingerprint(mnist.train[:500])}"
    assert (settings["binarize"], settings["adam_epsilon"], settings["seed"]) == ("dynamic", 1e-4, 0)
    vae = load_model(checkpoint)
    found = summarise(vae, mnist.test, "test", "dynamic", num_samples=100, limit=20)
    seen = as_seen(vae, mnist.test, spread_rows(len(mnist.test), 20), "dynamic", 0)
    assert document["nll"] == pytest.approx(-found.log_evidence, abs=1e-4)
    assert document["standard_error"] == pytest.approx(found.standard_error, rel=0.01)
    assert document["active_units"] == list(active_units_by_layer(vae, seen))


def untrained_nll(cell: Cell, mnist_files) -> float:
    """Nats per image of a model that knows each pixel's mean and nothing else."""
    mnist, vae = read_mnist(mnist_files), cell.untrained()
    vae.set_output_bias(mnist.train[:500].mean(axis=0) / 255)
    return -summarise(vae, mnist.test, "test", "dynamic", num_samples=100, limit=20).log_evidence


@pytest.mark.slow
def test_a_stopped_run_goes_on_by_the_same_command_and_ends_with_the_same_bits(tmp_path, mnist_files, monkeypatch):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert run(whole, mnist_files) == 0
    with monkeypatch.context() as patch:
        patch.setattr(paper_table, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(paper_table.Countdown, "__call__", stop_after_three)
        assert run(halves, mnist_files) == 130
    assert not list(halves.glob("*.json"))
    assert run(halves, mnist_files) == 0
    assert only(whole, "safetensors").read_bytes() == only(halves, "safetensors").read_bytes()
    kept = [json.loads(only(folder, "json").read_text()) for folder in (whole, halves)]
    for name in ("nll", "standard_error", "elbo", "active_units", "command"):
        assert kept[0][name] == kept[1][name]
    assert kept[1]["training"]["minutes"] > 0


def test_the_time_of_a_pass_that_is_made_again_counts_once_and_that_of_a_stop_not_at_all(tmp_path):
    for epoch, seconds in ((1, 2.0), (2, 3.0), (2, 4.5)):
        paper_table.Clock(tmp_path / "cell.seconds").keep(epoch, seconds)
    assert paper_table.Clock(tmp_path / "cell.seconds").seconds() == 6.5


@pytest.mark.parametrize("torn", ["2", "2 3.4" + "3 5.000000"])
def test_a_line_that_a_crash_has_cut_short_keeps_no_time_and_stops_no_run(tmp_path, torn):
    (tmp_path / "cell.seconds").write_text(f"1 2.000000\n{torn}\n")
    assert paper_table.Clock(tmp_path / "cell.seconds").seconds() == 2


def stop_after_three(countdown, done, total, more="") -> None:
    if done == 3:
        raise KeyboardInterrupt


# --- progress and refusals ------------------------------------------------------------------------------------------


def test_progress_says_how_much_time_is_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(paper_table.time, "monotonic", lambda: now[0])
    countdown = paper_table.Countdown("training")
    for epoch in range(11, 31):  # resumed after 10 passes: the speed is that of the passes made since
        now[0] += 40.0
        countdown(epoch, 110, "ELBO -100.00  ")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[-1] == "training 30 of 110 (27.3%)  ELBO -100.00  53 min left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_durations_are_in_the_unit_a_person_would_use(seconds, words):
    assert paper_table.spoken(seconds) == words


@pytest.mark.parametrize(
    "bad",
    [
        ["--passes", "2"], ["--passes", "0"], ["--passes", "some"], ["--k", "7"], ["--test-images", "0"],
        ["--train-images", "60000"], ["--seed", "-1"], ["--data-dir", "/nowhere"], ["--model", "iwae", "--kl", "exact"],
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_status_2_and_nothing_written(tmp_path, mnist_files, bad, capsys):
    try:
        status = run(tmp_path / "new", mnist_files, *bad)
    except SystemExit as refusal:
        status = refusal.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.glob("new/*"))
