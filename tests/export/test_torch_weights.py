"""Weights to PyTorch and back: the same names, transposed weights, the same function."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

import scratchvae as sv
from scratchvae import export
from scratchvae.likelihoods import LIKELIHOODS
from scratchvae.parameters import ACTIVATION_CODES
from tests.cases import random_data

EXPORTED = (*LIKELIHOODS, "categorical:3,4", "discretised-logistic:17", "discretised-logistic-diagonal:17")


def model(dtype="float32", hidden=(12, 9), likelihood="gaussian-learned-diagonal", activation="tanh"):
    """A model with no parameter at zero."""
    vae = sv.VAE(7, 3, hidden, likelihood=likelihood, activation=activation, dtype=dtype, engine="reference", seed=2)
    rng = np.random.default_rng(0)
    for name, array in vae.parameters.items():
        if not name.endswith(".weight"):
            array[...] += rng.normal(size=array.shape)
    return vae


def same(a, b):
    return all(np.array_equal(a.parameters[name], b.parameters[name]) for name in a.parameters)


def module_of(vae, torch):
    """The model's module, its weights as they are."""
    from scratchvae.export import torch_module

    module = eval(export.torch_call(vae), {"VAE": torch_module.VAE})
    module.load_state_dict({name: torch.from_numpy(array) for name, array in export.torch_state(vae).items()})
    return module


def test_the_state_has_our_names_and_torchs_shapes():
    vae = model()
    state = export.torch_state(vae)
    assert list(state) == list(vae.parameters)
    assert state["encoder.0.weight"].shape == (12, 7)
    assert np.array_equal(state["encoder.0.weight"], vae.parameters["encoder.0.weight"].T)
    state["encoder.0.weight"][...] = 0
    assert vae.parameters["encoder.0.weight"].all(), "the state is a copy"


@pytest.mark.parametrize("hidden", [(), (12,), (12, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_from_its_file_bit_for_bit(tmp_path, hidden, dtype):
    vae = model(dtype, hidden)
    export.save_torch(vae, tmp_path / "weights.safetensors")
    back = export.load_torch(tmp_path / "weights.safetensors", engine="reference")
    assert back.config == vae.config
    assert same(back, vae)


@pytest.mark.parametrize("activation", ACTIVATION_CODES)
@pytest.mark.parametrize("likelihood", EXPORTED)
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float64", 1e-14)])
def test_the_module_computes_what_the_model_does(activation, likelihood, dtype, error):
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    vae = model(dtype, likelihood=likelihood, activation=activation)
    module = module_of(vae, torch)
    assert list(module.state_dict()) == list(vae.parameters)
    rng = np.random.default_rng(1)
    eps, z = (rng.random(shape).astype(dtype) for shape in ((30, 3), (4, 30, 3)))
    x = random_data(vae, rng, 30).astype(dtype)
    with torch.no_grad():
        got = [*module.encode(torch.from_numpy(x)), module.decode(torch.from_numpy(z))]
        got.append(module(torch.from_numpy(x), torch.from_numpy(eps)))
    for mine, theirs in zip((*vae.encode(x), vae.decode(z), vae.elbo(x, eps).elbo), got, strict=True):
        assert np.abs(mine - theirs.numpy()).max() <= error * max(1, np.abs(mine).max())


@pytest.mark.parametrize("likelihood", EXPORTED)
def test_the_modules_gradient_is_the_models(likelihood):
    """Also where the decoder gives 0 exactly: what a branch that is not taken gives there must not come through."""
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    vae = model("float64", likelihood=likelihood)
    vae.parameters["decoder.head.weight"][:, :2] = vae.parameters["decoder.head.bias"][:2] = 0
    rng = np.random.default_rng(1)
    x, eps = random_data(vae, rng, 30), rng.normal(size=(30, 3))
    _, gradients = vae.value_and_grad(x, eps)
    module = module_of(vae, torch)
    (-module(torch.from_numpy(x), torch.from_numpy(eps)).mean()).backward()
    for name, parameter in module.named_parameters():
        theirs = parameter.grad.numpy()
        theirs = theirs.T if name.endswith(".weight") else theirs
        np.testing.assert_allclose(theirs, gradients[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli", "discretised-logistic:17", "categorical"])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float64", 1e-14)])
def test_the_module_is_the_model_where_the_decoder_is_certain(likelihood, dtype, error):
    """A sigmoid, and its logarithm, is out of digits long before logits of 1,000."""
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    vae = model(dtype, likelihood=likelihood)
    vae.parameters["decoder.head.bias"][...] = [-1e3, 1e3, -40, 40, -20, 20, 0]
    rng = np.random.default_rng(1)
    x, eps = random_data(vae, rng, 30).astype(dtype), rng.random((30, 3)).astype(dtype)
    with torch.no_grad():
        theirs = module_of(vae, torch)(torch.from_numpy(x), torch.from_numpy(eps)).numpy()
    np.testing.assert_allclose(theirs, vae.elbo(x, eps).elbo, rtol=error, atol=error)


@pytest.mark.parametrize(("dtype", "error", "log_rate"), [("float32", 1e-6, -1e3), ("float64", 1e-14, -1e4)])
def test_the_module_is_the_model_where_a_rate_is_rounded_to_zero(dtype, error, log_rate):
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    vae = model(dtype, likelihood="poisson")
    vae.parameters["decoder.head.bias"][:2] = log_rate
    x, eps = np.ones((30, 7), dtype), np.random.default_rng(1).random((30, 3)).astype(dtype)
    terms, gradients = vae.value_and_grad(x, eps)
    module = module_of(vae, torch)
    theirs = module(torch.from_numpy(x), torch.from_numpy(eps))
    np.testing.assert_allclose(theirs.detach().numpy(), terms.elbo, rtol=error)
    (-theirs.mean()).backward()
    np.testing.assert_allclose(module.decoder.head.bias.grad.numpy(), gradients["decoder.head.bias"], rtol=10 * error)


def test_softplus_has_all_its_digits_where_torchs_own_has_become_the_identity():
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    vae = model("float64", activation="softplus")
    vae.parameters["encoder.0.bias"][...] = np.linspace(15, 26, 12)
    x = np.random.default_rng(1).random((30, 7))
    with torch.no_grad():
        theirs = module_of(vae, torch).encode(torch.from_numpy(x))
    for mine, other in zip(vae.encode(x), theirs, strict=True):
        np.testing.assert_allclose(other.numpy(), mine, rtol=1e-12)


def test_a_file_that_torch_wrote_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    from safetensors.torch import save_file as save_tensors

    from scratchvae.export.torch_module import VAE

    module = VAE(7, 3, (12, 9), "gaussian-learned", "relu")
    with torch.no_grad():
        module.likelihood.logvar += 0.5
    save_tensors(module.state_dict(), tmp_path / "theirs.safetensors")
    vae = export.load_torch(tmp_path / "theirs.safetensors", "gaussian-learned", "relu", engine="reference")
    assert (vae.data_dim, vae.latent_dim, vae.hidden) == (7, 3, (12, 9))
    x = np.random.default_rng(0).random((5, 7), np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(vae.encode(x).mu, module.encode(torch.from_numpy(x))[0], atol=1e-6)
    assert vae.parameters["likelihood.logvar"] == 0.5
    assert same(vae, export.from_torch_state(module.state_dict(), "gaussian-learned", "relu", engine="reference"))


def test_the_copied_module_works_by_itself_and_refuses_what_it_does_not_know():
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    source = export.torch_module_source()
    assert "import scratchvae" not in source
    assert "from scratchvae" not in source.split('"""', 2)[2]
    names: dict = {"__name__": "copied"}
    exec(compile(source, "vae.py", "exec"), names)
    assert names["VAE"](4, 2).decode(torch.zeros(3, 2)).shape == (3, 4)
    with_numbers = [
        "gaussian:3",
        "discretised-logistic:",
        "discretised-logistic:1,2",
        "categorical:a",
        "categorical:3,,1",
    ]
    for name in ("beta", *with_numbers):
        with pytest.raises(ValueError, match=f"likelihood is {name!r}; expected one of bernoulli, gaussian, "):
            names["VAE"](4, 2, likelihood=name)
    for levels in (0, 1):
        with pytest.raises(ValueError, match=f"^discretised-logistic has {levels} levels; expected at least 2$"):
            names["VAE"](4, 2, likelihood=f"discretised-logistic:{levels}")


def test_every_likelihood_has_a_module_or_is_named_as_missing():
    pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    from scratchvae.export.torch_module import VAE

    for name in LIKELIHOODS:
        shapes = {key: tuple(array.shape) for key, array in VAE(4, 2, likelihood=name).likelihood.state_dict().items()}
        learned = LIKELIHOODS[name].parameter_shapes(4)
        assert {f"likelihood.{key}": shape for key, shape in shapes.items()} == learned


def test_tensors_that_are_no_arrays_are_refused_in_one_line():
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    state = {name: torch.from_numpy(array) for name, array in export.torch_state(model()).items()}
    live = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
    small = {name: tensor.bfloat16() for name, tensor in state.items()}
    for tensors in (live, small):
        with pytest.raises(ValueError, match=r"^[a-z0-9.]+: no array \(.*expected tensors of a state_dict$"):
            export.from_torch_state(tensors, "gaussian-learned-diagonal", "tanh")


def test_a_model_that_is_read_runs_on_the_compiled_engine_unless_another_is_asked_for(tmp_path):
    vae, path = model(), tmp_path / "w.safetensors"
    export.save_torch(vae, path)
    state = export.torch_state(vae)
    for engine, told in (("compiled", {}), ("reference", {"engine": "reference"})):
        assert export.load_torch(path, **told).engine == engine
        assert export.from_torch_state(state, "gaussian-learned-diagonal", "tanh", **told).engine == engine


def test_weights_are_not_written_where_there_is_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"w\.safetensors: cannot be written"):
        export.save_torch(model(), tmp_path / "none" / "w.safetensors")


def changed(state, **arrays):
    return {name: array for name, array in (state | arrays).items() if array is not None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder.head.weight": None}, "no tensor decoder.head.weight"),
        ({"encoder.0.bias": None}, "no tensor encoder.0.bias"),
        ({"encoder.0.bias": np.zeros(3, np.float32)}, "encoder.0.bias is float32 (3,); expected float32 (12,)"),
        ({"encoder.0.bias": np.zeros(12)}, "encoder.0.bias is float64 (12,); expected float32 (12,)"),
        (
            {"encoder.0.weight": np.zeros((7, 12), np.float32)},
            "float32 (12, 7); expected float32 (7, 12)",
        ),
        ({"decoder.0.weight": np.zeros(3, np.float32)}, "not two-dimensional"),
        (
            {"encoder.0.bias": np.full(12, np.nan, np.float32)},
            "encoder.0.bias holds a NaN or an infinity; expected finite numbers",
        ),
        ({"extra.weight": np.zeros((2, 2), np.float32)}, "has a tensor extra.weight; expected encoder.0.weight"),
        ({"decoder.head.weight": np.zeros((7, 12), np.float16)}, "dtype is 'float16'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_one_line(tmp_path, change, words):
    state = changed(export.torch_state(model()), **change)
    save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at below
        export.load_torch(tmp_path / "w.safetensors", "gaussian-learned-diagonal", "tanh", engine="reference")
    assert str(caught.value).startswith(f"{tmp_path / 'w.safetensors'}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_header_does_not_say_must_be_given_and_must_not_contradict_it(tmp_path):
    vae, path = model(), tmp_path / "w.safetensors"
    save_file(export.torch_state(vae), path)
    with pytest.raises(ValueError, match="does not say its likelihood; expected likelihood= to be given"):
        export.load_torch(path)
    export.save_torch(vae, path)
    with pytest.raises(ValueError, match="was written with activation 'tanh'; got 'relu'"):
        export.load_torch(path, activation="relu")
    for given in ({"likelihood": ""}, {"activation": ""}):
        with pytest.raises(ValueError, match=r"''; expected one of|was written with activation 'tanh'; got ''"):
            export.load_torch(path, **given)
    for text in ("[]", "{", json.dumps({"seed": -1, "likelihood": "gaussian-learned-diagonal", "activation": "tanh"})):
        save_file(load_file(path), path, {"scratchvae.torch": text})
        with pytest.raises(ValueError, match=r"w\.safetensors: "):
            export.load_torch(path)
    with pytest.raises(ValueError, match=r"none\.safetensors: no such file; expected a state_dict in a "):
        export.load_torch(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is a folder; expected a state_dict"):
        export.load_torch(tmp_path)


def test_a_likelihood_may_be_given_by_any_of_its_names(tmp_path):
    vae, path = model(likelihood="discretised-logistic"), tmp_path / "w.safetensors"
    export.save_torch(vae, path)
    assert same(export.load_torch(path, "discretised-logistic:256", engine="reference"), vae)


def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path):
    path, weights = tmp_path / "w.safetensors", export.torch_state(model())
    entry = {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}  # a type that NumPy has not
    header = json.dumps({"encoder.0.bias": entry}).encode()
    for content in (
        b"nothing",
        save(weights, {"scratchvae.torch": "[" * 100_000}),
        struct.pack("<Q", len(header)) + header + b"0",
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"w\.safetensors: not a readable safetensors file") as refusal:
            export.load_torch(path)
        assert "\n" not in str(refusal.value)


def test_two_stochastic_layers_and_a_full_posterior_are_refused():
    layers = sv.HierarchicalVAE(4, (3, 2), ((5,), (4,)), engine="reference")
    full = sv.VAE(4, 2, (5,), posterior="full", engine="reference")
    for vae, words in ((layers, "two stochastic layers"), (full, "diagonal posterior")):
        for write in (export.torch_state, export.encoder_onnx, export.decoder_onnx):
            with pytest.raises(ValueError, match=words):
                write(vae)
