"""ONNX graphs compute what the model does, for any number of rows, in onnxruntime."""

import json
import sys

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import export
from scratchvae.export.onnx_graphs import MEANS
from scratchvae.likelihoods import LIKELIHOODS
from scratchvae.parameters import ACTIVATION_CODES
from tests.cases import random_data

onnx = pytest.importorskip("onnx", reason="onnx, of the extra onnx, is not installed")

SIZES = [(784, (400,), 20), (7, (), 3), (12, (33, 10), 5)]
EXPORTED = (*LIKELIHOODS, "categorical:3,4,5", "discretised-logistic:17", "discretised-logistic-diagonal:17")


def session(graph):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra dev, is not installed")
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def model(likelihood="bernoulli", activation="tanh", dtype="float32", sizes=SIZES[2]):
    """A model with no parameter at zero."""
    data, hidden, latent = sizes
    vae = sv.VAE(data, latent, hidden, likelihood, activation, dtype, engine="reference", seed=3)
    rng = np.random.default_rng(0)
    for name, array in vae.parameters.items():
        if not name.endswith(".weight"):
            array[...] += rng.normal(size=array.shape)
    return vae


def assert_equal(vae, rows, error):
    rng = np.random.default_rng(rows)
    x = random_data(vae, rng, rows).astype(vae.dtype)
    z = rng.normal(size=(rows, vae.latent_dim)).astype(vae.dtype)
    got = [*session(export.encoder_onnx(vae)).run(["mu", "logvar"], {"x": x})]
    got += session(export.decoder_onnx(vae)).run(["mean"], {"z": z})
    for mine, theirs in zip((*vae.encode(x), vae.decode(z)), got, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        assert np.abs(mine - theirs).max() <= error * max(1, np.abs(mine).max())


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATION_CODES)
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float64", 1e-14)])
def test_every_activation_and_depth_is_the_models(activation, sizes, dtype, error):
    vae = model(activation=activation, dtype=dtype, sizes=sizes)
    for rows in (1, 30):
        assert_equal(vae, rows, error)


@pytest.mark.parametrize("likelihood", EXPORTED)
def test_every_likelihoods_mean_is_the_models(likelihood):
    for dtype, error in (("float32", 1e-6), ("float64", 1e-14)):
        assert_equal(model(likelihood, dtype=dtype), 30, error)


def test_softplus_stays_finite_where_its_exponential_would_not():
    vae = model(activation="softplus")
    vae.parameters["encoder.0.weight"][...] *= 1e4
    assert_equal(vae, 5, 1e-6)


def test_a_trained_model_of_the_digits_is_exported_to_1e_6(digits):
    vae = sv.VAE(64, 8, (128,), engine="reference")
    sv.fit(vae, digits[0][:500], epochs=3, progress=False)
    assert_equal(vae, 50, 1e-6)


def test_the_graphs_say_what_they_are():
    """The versions are those of ONNX 1.8, which onnxruntime 1.7 reads: it refuses later ones."""
    vae = model()
    for graph, inputs, outputs in (
        (export.encoder_onnx(vae), {"x": 12}, {"mu": 5, "logvar": 5}),
        (export.decoder_onnx(vae), {"z": 5}, {"mean": 12}),
    ):
        assert [entry.version for entry in graph.opset_import] == [13]
        assert graph.ir_version == 7
        assert json.loads(graph.metadata_props[0].value) == vae.config
        for values, want in ((graph.graph.input, inputs), (graph.graph.output, outputs)):
            dims = {value.name: value.type.tensor_type.shape.dim for value in values}
            assert {name: (free.dim_param, size.dim_value) for name, (free, size) in dims.items()} == {
                name: ("batch", size) for name, size in want.items()
            }


def test_the_same_model_gives_the_same_bytes_in_the_files(tmp_path):
    export.save_onnx(model(), tmp_path)
    inputs = {path.name: [value.name for value in onnx.load(path).graph.input] for path in tmp_path.iterdir()}
    assert inputs == {"encoder.onnx": ["x"], "decoder.onnx": ["z"]}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == export.onnx_files(model())
    with pytest.raises(ValueError, match=r"encoder\.onnx: cannot be written"):
        export.save_onnx(model(), tmp_path / "none")


def test_what_cannot_be_exported_is_refused_in_one_line(monkeypatch):
    class Strange:
        name = "strange:3"

    vae = model()
    vae.likelihood = Strange()
    with pytest.raises(ValueError, match=f"likelihood 'strange:3' has no ONNX graph.*one of {', '.join(MEANS)}"):
        export.decoder_onnx(vae)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="ONNX export needs the onnx package: pip install 'scratchvae"):
        export.encoder_onnx(vae)
