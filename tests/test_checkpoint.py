"""Checkpoints: what is saved comes back, resuming is the uninterrupted run, and bad files are refused."""

import json
import os
import stat
import struct

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import scratchvae as sv
from scratchvae import files
from scratchvae.checkpoint import trained_epochs
from tests.cases import LIKELIHOOD_NAMES, build
from tests.proofs.checks import resuming_continues_the_run


def rewrite(path, change):
    """Write a file again after `change` of its tensors and its header."""
    tensors, header = load_file(path), json.loads(safe_open(path, "np").metadata()["scratchvae"])
    change(tensors, header)
    save_file(tensors, path, {"scratchvae": json.dumps(header)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("likelihood", LIKELIHOOD_NAMES)
def test_a_model_comes_back_as_it_was(engine, tmp_path, likelihood, dtype):
    vae, x, eps = build(6, 3, (4, 5), likelihood, "softplus", dtype, engine)
    path = tmp_path / "model.safetensors"
    vae.save(path)
    loaded = sv.VAE.load(path, engine=engine)
    assert loaded.config == vae.config
    np.testing.assert_array_equal(loaded.parameters.flat, vae.parameters.flat)
    np.testing.assert_array_equal(loaded.elbo(x, eps).elbo, vae.elbo(x, eps).elbo)


def test_a_file_is_plain_safetensors_with_a_json_header(tmp_path):
    vae, _, _ = build()
    vae.save(tmp_path / "model.safetensors")
    arrays = load_file(tmp_path / "model.safetensors")
    assert set(arrays) == set(vae.parameters)
    raw = (tmp_path / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    described = json.loads(header["__metadata__"]["scratchvae"])
    assert described["format"] == "scratchvae"
    assert described["version"] == 1
    assert described["model"] == vae.config


def test_an_entry_of_the_history_is_put_into_words_once_and_the_header_is_still_the_json_of_what_it_says(
    tmp_path, monkeypatch
):
    vae, x, _ = build()
    settings = {"progress": False, "validation": x, "checkpoint": tmp_path / "run.safetensors"}
    first = sv.fit(vae, x, epochs=2, **settings)
    dumped, dumps = [], json.dumps
    monkeypatch.setattr(json, "dumps", lambda said: dumped.append(said) or dumps(said))
    sv.fit(vae, x, epochs=5, resume=True, **settings)
    assert [said["epoch"] for said in dumped if "epoch" in said] == [1, 2, 3, 4, 5]
    monkeypatch.undo()
    text = safe_open(tmp_path / "run.safetensors", "np").metadata()["scratchvae"]
    assert json.dumps(json.loads(text)) == text
    entries = trained_epochs(tmp_path / "run.safetensors")
    assert len(entries) == 5
    assert [entry | {"seconds": 0} for entry in entries[:2]] == [entry | {"seconds": 0} for entry in first]


@pytest.mark.parametrize("patience", [None, 2, 50])
def test_resuming_gives_the_bits_of_the_run_that_was_not_stopped(engine, tmp_path, patience):
    resuming_continues_the_run(tmp_path, patience, engine)


def test_resuming_from_another_file_leaves_that_file_alone(tmp_path):
    settings = {"batch_size": 2, "progress": False}
    vae, x, _ = build()
    sv.fit(vae, x, epochs=2, checkpoint=tmp_path / "first.safetensors", **settings)
    before = (tmp_path / "first.safetensors").read_bytes()
    other, _, _ = build(seed=9)
    start = tmp_path / "first.safetensors"
    history = sv.fit(other, x, epochs=4, checkpoint=tmp_path / "second.safetensors", resume=start, **settings)
    assert len(history) == 4
    assert (tmp_path / "first.safetensors").read_bytes() == before
    assert (tmp_path / "second.safetensors").exists()


def test_a_run_that_is_done_is_written_to_another_file(tmp_path):
    settings = {"epochs": 2, "batch_size": 2, "progress": False}
    vae, x, _ = build()
    sv.fit(vae, x, checkpoint=tmp_path / "first.safetensors", **settings)
    sv.fit(build(seed=9).vae, x, checkpoint=tmp_path / "second", resume=tmp_path / "first.safetensors", **settings)
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first.safetensors").read_bytes()


def test_resuming_a_run_that_is_done_does_nothing_more(tmp_path):
    settings = {"epochs": 3, "batch_size": 2, "progress": False, "checkpoint": tmp_path / "run.safetensors"}
    vae, x, _ = build()
    history = sv.fit(vae, x, **settings)
    other, _, _ = build(seed=9)
    before = (tmp_path / "run.safetensors").stat().st_mtime_ns
    again = sv.fit(other, x, resume=True, **settings)
    assert (tmp_path / "run.safetensors").stat().st_mtime_ns == before
    np.testing.assert_array_equal(other.parameters.flat, vae.parameters.flat)
    for mine, theirs in zip(again.epochs, history.epochs, strict=True):
        assert {"seconds": theirs["seconds"], **mine} == theirs


def test_of_a_run_with_early_stopping_the_best_parameters_are_loaded(tmp_path):
    vae, x, _ = build(data_dim=6, rows=23)
    path = tmp_path / "run.safetensors"
    sv.fit(
        vae, x[:6], epochs=30, batch_size=3, learning_rate=0.1, validation=x[6:], patience=3, checkpoint=path,
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(sv.VAE.load(path, engine="reference").parameters.flat, vae.parameters.flat)
    current = load_file(path)["encoder.0.weight"]
    assert (current != vae.parameters["encoder.0.weight"]).any(), "beside the moments stand the current parameters"


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 3},
        {"learning_rate": 0.5},
        {"seed": 7},
        {"objective": sv.IWAE(3)},
        {"binarize": "none"},
        {"objective": sv.ELBO(kl="monte-carlo")},
        {"adam_epsilon": 1e-4},
        {"patience": 2, "validation": np.eye(5)},
    ],
)
def test_a_run_cannot_be_resumed_with_other_settings(tmp_path, changed):
    settings = {"epochs": 2, "batch_size": 2, "progress": False, "checkpoint": tmp_path / "run.safetensors"}
    vae, x, _ = build()
    sv.fit(vae, x, **settings)
    before = (tmp_path / "run.safetensors").read_bytes()
    other, _, _ = build(seed=9)
    mine = other.parameters.copy()
    with pytest.raises(ValueError, match=rf"was trained with {next(iter(changed))} ") as refusal:
        sv.fit(other, x, resume=True, **{**settings, "epochs": 4, **changed})
    assert "\n" not in str(refusal.value)
    assert (tmp_path / "run.safetensors").read_bytes() == before
    np.testing.assert_array_equal(other.parameters.flat, mine.flat)


@pytest.mark.parametrize("changed", ["data", "validation"])
def test_a_run_cannot_be_resumed_with_other_data_of_the_same_size(tmp_path, changed):
    path = tmp_path / "run.safetensors"
    vae, x, _ = build()
    data = {"data": x, "validation": x.copy()}
    sv.fit(vae, data["data"], 1, validation=data["validation"], checkpoint=path, progress=False)
    before = path.read_bytes()
    other = data | {changed: 1 - data[changed]}
    with pytest.raises(ValueError, match=f"was trained with {changed} 'SHA-256 [0-9a-f]{{64}}'; got 'SHA-256"):
        sv.fit(vae, other["data"], 2, validation=other["validation"], checkpoint=path, resume=True, progress=False)
    assert path.read_bytes() == before
    for known in data, {name: part.copy(order="F") for name, part in data.items()}:
        sv.fit(vae, known["data"], 2, validation=known["validation"], checkpoint=path, resume=True, progress=False)


def test_a_file_from_before_runs_knew_their_data_goes_on(tmp_path):
    path = tmp_path / "run.safetensors"
    vae, x, _ = build()
    sv.fit(vae, x, 1, checkpoint=path, progress=False)
    tensors, header = load_file(path), json.loads(safe_open(path, "np").metadata()["scratchvae"])
    for name in ("data", "validation"):
        del header["training"]["settings"][name]
    save_file(tensors, path, {"scratchvae": json.dumps(header)})
    assert len(sv.fit(vae, x, 2, checkpoint=path, resume=True, progress=False)) == 2


def test_a_run_cannot_be_resumed_with_more_or_fewer_examples(tmp_path):
    settings = {"progress": False, "checkpoint": tmp_path / "run.safetensors"}
    vae, x, _ = build()
    sv.fit(vae, x, epochs=1, **settings)
    with pytest.raises(ValueError, match="was trained with examples 3; got 2 now"):
        sv.fit(build().vae, x[:2], epochs=2, resume=True, **settings)


def test_a_run_goes_on_with_the_same_beta_as_a_number_of_numpy(tmp_path):
    settings = {"progress": False, "checkpoint": tmp_path / "run.safetensors"}
    vae, x, _ = build()
    sv.fit(vae, x, epochs=1, objective=sv.ELBO(beta=0.5), **settings)
    assert len(sv.fit(build().vae, x, epochs=2, resume=True, objective=sv.ELBO(beta=np.float64(0.5)), **settings)) == 2


def test_a_run_goes_on_with_equal_settings_of_other_types(tmp_path):
    settings = {"progress": False, "checkpoint": tmp_path / "run.safetensors"}
    vae, x, _ = build()
    one, other = sv.Stages((1, 0.5), (3, 4)), sv.Stages([np.float64(1), np.float32(0.5)], [np.int64(3), 4])
    sv.fit(vae, x, 1, learning_rate=one, objective=sv.ELBO(beta=1), **settings)
    assert len(sv.fit(build().vae, x, 2, learning_rate=other, objective=sv.ELBO(), resume=True, **settings)) == 2
    sv.fit(vae, x, 1, learning_rate=np.float32(0.5), adam_epsilon=np.float32(0.25), **settings)
    assert len(sv.fit(build().vae, x, 2, learning_rate=0.5, adam_epsilon=0.25, resume=True, **settings)) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden": (7,)},
        {"latent_dim": 3},
        {"activation": "relu"},
        {"likelihood": "continuous-bernoulli"},
        {"dtype": "float32"},
        {"posterior": "full"},
    ],
)
def test_a_run_is_resumed_by_the_model_it_belongs_to(tmp_path, changed):
    vae, x, _ = build()
    sv.fit(vae, x, epochs=1, checkpoint=tmp_path / "run.safetensors", progress=False)
    other, _, _ = build(**changed)
    with pytest.raises(ValueError, match="expected the model being trained"):
        sv.fit(other, x, epochs=2, resume=tmp_path / "run.safetensors", progress=False)


def test_a_checkpoint_from_before_there_was_a_choice_of_posterior_goes_on(tmp_path):
    settings = {"batch_size": 2, "progress": False, "checkpoint": tmp_path / "run.safetensors"}
    whole, x, _ = build()
    sv.fit(whole, x, epochs=1, **settings)
    rewrite(tmp_path / "run.safetensors", lambda tensors, header: header["model"].pop("posterior"))
    assert sv.VAE.load(tmp_path / "run.safetensors", engine="reference").config == whole.config
    parts = build(seed=9).vae
    sv.fit(parts, x, epochs=2, resume=True, **settings)
    sv.fit(whole := build().vae, x, epochs=2, batch_size=2, progress=False)
    np.testing.assert_array_equal(parts.parameters.flat, whole.parameters.flat)


def test_a_model_without_a_training_state_cannot_be_resumed(tmp_path):
    vae, x, _ = build()
    vae.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="without a training state; expected a checkpoint written by fit"):
        sv.fit(vae, x, epochs=2, resume=tmp_path / "model.safetensors", progress=False)


def test_a_training_state_that_says_too_little_cannot_be_resumed(tmp_path):
    _, x, _ = build()
    for training in ({}, [], {"updates": 3}):
        path = rewritten(tmp_path, lambda arrays, header, training=training: header.update(training=training))
        with pytest.raises(ValueError, match="without a training state"):
            sv.fit(build().vae, x, epochs=2, resume=path, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"updates": -1}, "training.history is not one that fit wrote"),
        ({"updates": 2**63}, "training.history is not one that fit wrote"),
        ({"updates": True}, "training.updates is True; expected what fit wrote there"),
        ({"history": [{"epoch": 1}]}, "training.history is not one that fit wrote"),
        ({"updates": 5}, "training.history is not one that fit wrote"),
        ({"best_epoch": 1}, "best_epoch 1 does not fit a history of 1 epochs"),
    ],
)
def test_a_training_state_whose_parts_do_not_fit_cannot_be_resumed(tmp_path, change, message):
    vae, x, _ = build()
    path = tmp_path / "run.safetensors"
    sv.fit(vae, x, epochs=1, checkpoint=path, progress=False)
    rewrite(path, lambda tensors, header: header["training"].update(change))
    with pytest.raises(ValueError, match=message):
        sv.fit(build().vae, x, epochs=2, resume=path, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 7},
        {"epoch": True},
        {"step": None},
        {"step": "4"},
        {"step": 0},
        {"step": 3},
        {"train": {"elbo": -1.0}},
        {"validation": {}},
    ],
)
def test_an_entry_that_is_not_its_epochs_cannot_be_resumed(tmp_path, change):
    vae, x, _ = build()
    path = tmp_path / "run.safetensors"
    sv.fit(vae, x, epochs=2, batch_size=len(x), checkpoint=path, progress=False)
    rewrite(path, lambda tensors, header: header["training"]["history"][0].update(change))
    with pytest.raises(ValueError, match=r"training\.history is not one that fit wrote"):
        sv.fit(build().vae, x, epochs=3, batch_size=len(x), checkpoint=path, resume=True, progress=False)


def test_more_updates_than_a_word_of_a_draws_address_counts_cannot_be_resumed(tmp_path):
    vae, x, _ = build()
    path = tmp_path / "run.safetensors"
    sv.fit(vae, x, epochs=1, checkpoint=path, progress=False)

    def count(update):
        def change(tensors, header):
            header["training"]["updates"] = header["training"]["history"][0]["step"] = update

        return change

    rewrite(path, count(2**32 - 1))
    assert trained_epochs(path)[0]["step"] == 2**32 - 1
    rewrite(path, count(2**32))
    with pytest.raises(ValueError, match=r"training\.history is not one that fit wrote"):
        trained_epochs(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("adam.second.encoder.0.bias"), "has no tensor encoder.0.bias"),
        (lambda tensors: tensors.pop("best.encoder.0.bias"), "has no tensor encoder.0.bias"),
        (
            lambda tensors: tensors.update({"adam.first.encoder.0.bias": np.zeros(4, np.float32)}),
            r"tensor encoder.0.bias is float32 \(4,\); expected float64 \(4,\)",
        ),
    ],
)
def test_a_training_state_whose_tensors_do_not_fit_cannot_be_resumed(tmp_path, change, message):
    vae, x, _ = build()
    settings = {"validation": x, "patience": 3, "progress": False, "checkpoint": tmp_path / "run.safetensors"}
    sv.fit(vae, x, epochs=1, **settings)
    rewrite(tmp_path / "run.safetensors", lambda tensors, header: change(tensors))
    with pytest.raises(ValueError, match=message):
        sv.fit(build().vae, x, epochs=2, resume=True, **settings)


def test_a_best_epoch_without_held_out_data_cannot_be_resumed(tmp_path):
    vae, x, _ = build()
    settings = {"validation": x, "patience": 3, "progress": False, "checkpoint": tmp_path / "run.safetensors"}
    sv.fit(vae, x, epochs=1, **settings)
    rewrite(
        tmp_path / "run.safetensors",
        lambda tensors, header: header["training"]["history"][0].update(validation=None),
    )
    with pytest.raises(ValueError, match="best_epoch 1 does not fit a history of 1 epochs"):
        sv.fit(build().vae, x, epochs=2, resume=True, **settings)


@pytest.mark.parametrize("patience", [None, 3])
def test_the_epochs_of_a_checkpoint_are_those_that_were_trained(tmp_path, patience):
    vae, x, _ = build()
    path = tmp_path / "run.safetensors"
    assert trained_epochs(path) == []
    history = sv.fit(vae, x, epochs=2, validation=x, patience=patience, checkpoint=path, progress=False)
    for kept, entry in zip(trained_epochs(path), history.epochs, strict=True):
        assert {"seconds": entry["seconds"], **kept} == entry
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        trained_epochs(path)


def test_a_file_is_as_readable_as_any_other(tmp_path):
    before = os.umask(0o022)
    try:
        build().vae.save(tmp_path / "model.safetensors")
    finally:
        after = os.umask(before)
    assert after == 0o022, "and so are the files that come later"
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644


def test_an_engine_that_is_none_is_not_blamed_on_the_file(tmp_path):
    build().vae.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"^engine is 'foo'; expected one of reference, compiled$"):
        sv.VAE.load(tmp_path / "model.safetensors", engine="foo")


# --- files that are not ours ----------------------------------------------------------------------------------------


def refused(path, message):
    with pytest.raises(ValueError, match=message) as refusal:
        sv.VAE.load(path, engine="reference")
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "none.safetensors", "no such file; expected a model written by save or fit")
    refused(tmp_path, "is a folder; expected a model written by save or fit")


def test_a_file_truncated_anywhere_is_refused(tmp_path):
    vae, _, _ = build()
    path = tmp_path / "model.safetensors"
    vae.save(path)
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "not a readable safetensors file")


def test_bytes_that_are_no_safetensors_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for content in (b"hello", b"\x80\x04\x95" + b"x" * 100, b"\xff" * 200, b"\x00" * 200):
        path.write_bytes(content)
        refused(path, "not a readable safetensors file")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    refused(path, "a safetensors file of something else")
    save_file({"weight": np.zeros(3)}, path, {"scratchvae": "{}"})
    refused(path, "a safetensors file of something else")
    save_file({"weight": np.zeros(3)}, path, {"scratchvae": "not json"})
    refused(path, "not a readable safetensors file")


def rewritten(tmp_path, change):
    vae, _, _ = build()
    arrays, header = dict(vae.parameters), {"format": "scratchvae", "version": 1, "model": vae.config}
    change(arrays, header)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / "model.safetensors",
              {"scratchvae": json.dumps(header)})  # fmt: skip
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, header: header.update(version=99), "format version 99; expected 1"),
        (lambda arrays, header: header.update(version=0), "format version 0; expected 1"),
        (lambda arrays, header: header.pop("version"), "format version None; expected 1"),
        (lambda arrays, header: header.pop("model"), "does not describe a model"),
        (lambda arrays, header: header.update(model=[1]), "does not describe a model"),
        (lambda arrays, header: header["model"].update(colour="red"), "does not describe a model"),
        (lambda arrays, header: header["model"].update(hidden=3), "does not describe a model"),
        (lambda arrays, header: header["model"].update(hidden=[0]), "a hidden size is 0"),
        (lambda arrays, header: header["model"].update(activation="gelu"), "'gelu'"),
        (lambda arrays, header: header["model"].update(dtype=3), "dtype|model"),
        (lambda arrays, header: arrays.pop("encoder.0.bias"), "no tensor encoder.0.bias"),
        (lambda arrays, header: arrays.update({"encoder.0.bias": np.zeros(9)}), r"\(9,\); expected float64 \(4,\)"),
        (
            lambda arrays, header: arrays.update({"encoder.0.bias": np.zeros(4, np.float32)}),
            "is float32.*expected float64",
        ),
    ],
)
def test_a_file_that_does_not_fit_its_own_header_is_refused(tmp_path, change, message):
    refused(rewritten(tmp_path, change), message)


# --- writing --------------------------------------------------------------------------------------------------------


def test_a_file_cannot_be_written_where_there_is_no_folder(tmp_path):
    with pytest.raises(ValueError, match="cannot be written"):
        build().vae.save(tmp_path / "no" / "such" / "model.safetensors")


def test_a_full_disk_while_writing_leaves_the_last_complete_file_and_nothing_beside_it(tmp_path, monkeypatch):
    vae, _, _ = build()
    path = tmp_path / "model.safetensors"
    vae.save(path)
    before = path.read_bytes()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    vae.parameters.flat[:] = 1
    with pytest.raises(ValueError, match="cannot be written"):
        vae.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_file_is_synced_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        true = getattr(files.os, name)
        monkeypatch.setattr(files.os, name, lambda *a, name=name, true=true: (calls.append(name), true(*a))[1])
    build().vae.save(tmp_path / "model.safetensors")
    assert calls[:2] == ["fsync", "replace"]
