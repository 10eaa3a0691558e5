"""`scratchvae export`: files that other tools read, and nothing written where it cannot be done."""

import shutil
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from scratchvae import VAE, export
from tests.cli.conftest import Command
from tests.cli.test_bad_input import assert_refused, files_of


def test_torch_weights_and_the_module_they_fit_are_written(command: Command, trained, tmp_path):
    result = command("export", trained, "--format", "torch", "--out", "theirs", "--json")
    assert result.status == 0, result.err
    folder = tmp_path / "theirs"
    assert [tmp_path / name for name in result.record["files"]] == [folder / "weights.safetensors", folder / "vae.py"]
    vae = VAE.load(trained / "model.safetensors", engine="reference")
    state = load_file(folder / "weights.safetensors")
    assert all(np.array_equal(state[name], array) for name, array in export.torch_state(vae).items())
    assert (folder / "vae.py").read_text() == export.torch_module_source()
    assert result.record["model"] == vae.config
    assert result.record["format"] == "torch"
    module = "VAE(data_dim=16, latent_dim=2, hidden=[8], likelihood='bernoulli', activation='relu')"
    assert f"vae.py written to theirs; the module is {module}" in " ".join(result.err.split())


def test_the_files_go_into_the_run_where_no_folder_is_given(command: Command, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    assert command("export", "run", "--format", "torch").status == 0
    assert sorted(path.name for path in (tmp_path / "run" / "torch").iterdir()) == ["vae.py", "weights.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_onnx_graphs_are_written_and_written_over(command: Command, trained, tmp_path):
    pytest.importorskip("onnx", reason="onnx, of the extra onnx, is not installed")
    for _ in range(2):
        result = command("export", trained, "--out", "graphs")
        assert result.status == 0, result.err
        assert result.out == ""
        assert "encoder.onnx and decoder.onnx written to graphs" in result.err
    vae = VAE.load(trained / "model.safetensors", engine="reference")
    assert {path.name: path.read_bytes() for path in (tmp_path / "graphs").iterdir()} == export.onnx_files(vae)


def test_weights_that_are_not_finite_are_not_passed_on(command: Command, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    model = tmp_path / "run" / "model.safetensors"
    for name in ("decoder.0.weight", "adam.first.decoder.0.weight"):
        tensors, metadata = load_file(trained / "model.safetensors"), safe_open(model, "np").metadata()
        tensors[name][0, 0] = np.nan
        save_file(tensors, model, metadata)
        wrong = f"{name} holds a NaN or an infinity; expected finite numbers"
        assert_refused(command("export", "run", "--format", "torch"), f"model.safetensors: {wrong}")
        assert_refused(command("train", "--out", "run", "--resume", "--epochs", "9"), wrong)
    assert not (tmp_path / "run" / "torch").exists()


def test_bad_input_is_refused_and_writes_nothing(command: Command, trained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nothing")
    before = files_of(tmp_path)
    assert_refused(command("export", trained, "--format", "pickle"), "--format is 'pickle'; expected onnx or torch")
    assert_refused(command("export", "nosuch"), "nosuch")
    for out in ("file", "no/such", "link"):
        assert_refused(command("export", trained, "--format", "torch", "--out", out), f"--out is {out}")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert_refused(command("export", trained, "--out", "graphs"), "pip install 'scratchvae[onnx]'")
    assert files_of(tmp_path) == before
