"""ONNX graphs of a model: the encoder, x to mu and logvar, and the decoder, z to the mean of p(x|z).

Operator set 13, IR version 7: any onnxruntime since 1.7. The first dimension of every input and output is free and
called "batch". Element type: the model's, float or double. Weights stand in the graph as ours, (in, out), so that
nothing is transposed; hidden layers are Gemm and activation, by the names of our parameters.

    encoder     x (batch, D)    ->  mu (batch, Z), logvar (batch, Z)
    decoder     z (batch, Z)    ->  mean (batch, D)

x is what the model computes with: pixels as value / 255, never bytes.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.export.plain import check_plain
from scratchvae.files import write_together
from scratchvae.likelihoods import DiscretisedLogistic
from scratchvae.parameters import Layer
from scratchvae.reference.continuous_bernoulli import MEAN_SERIES, NEAR
from scratchvae.vae import VAE

OPSET = 13
IR_VERSION = 7
FREE = "batch"
OPERATORS = MappingProxyType({"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Identity"})


def encoder_onnx(vae: VAE) -> Any:
    """The encoder as an `onnx.ModelProto`: input x (batch, D), outputs mu and logvar, each (batch, Z).

    Raises    ImportError without the onnx package; ValueError as `check_plain`
    """
    check_plain(vae)
    graph = _Graph(vae)
    seen = "x"
    if vae.likelihood.name == "poisson":  # the encoder is shown log(1 + x)
        seen = graph.node("Log", [graph.node("Add", ["x", graph.constant("x.one", np.ones(1))], "x.more")], "x.seen")
    h = graph.hidden_layers(seen, "encoder", vae._encoder.layers)
    head, latent = vae._encoder.layers[-1], vae.latent_dim
    graph.dense(h, "mu", "encoder.head.mu", head.weight[:, :latent], head.bias[:latent])
    graph.dense(h, "logvar", "encoder.head.logvar", head.weight[:, latent:], head.bias[latent:])
    return graph.model("encoder", {"x": vae.data_dim}, {"mu": latent, "logvar": latent})


def decoder_onnx(vae: VAE) -> Any:
    """The decoder as an `onnx.ModelProto`: input z (batch, Z), output mean (batch, D), the mean of p(x|z).

    Raises    ImportError without the onnx package; ValueError for a likelihood that has no graph here
    """
    check_plain(vae)
    name = vae.likelihood.name
    stem = name.partition(":")[0]
    if stem not in MEANS:
        raise ValueError(f"likelihood {name!r} has no ONNX graph of its mean; expected one of {', '.join(MEANS)}")
    graph = _Graph(vae)
    head = vae._decoder.layers[-1]
    h = graph.hidden_layers("z", "decoder", vae._decoder.layers)
    graph.dense(h, "out", "decoder.head", head.weight, head.bias)
    MEANS[stem](graph)
    return graph.model("decoder", {"z": vae.latent_dim}, {"mean": vae.data_dim})


def onnx_files(vae: VAE) -> dict[str, bytes]:
    """The contents of encoder.onnx and decoder.onnx. Raises as `encoder_onnx` and `decoder_onnx`."""
    graphs = {"encoder.onnx": encoder_onnx(vae), "decoder.onnx": decoder_onnx(vae)}
    return {name: graph.SerializeToString(deterministic=True) for name, graph in graphs.items()}


def save_onnx(vae: VAE, folder: str | os.PathLike[str]) -> None:
    """Write encoder.onnx and decoder.onnx into a folder that exists, complete or not at all, and both or neither.

    Raises    ValueError where the folder does not exist or cannot be written; as `encoder_onnx` and `decoder_onnx`
    """
    write_together({Path(folder) / name: content for name, content in onnx_files(vae).items()})


class _Graph:
    """Nodes and weights of one graph in the making."""

    def __init__(self, vae: VAE) -> None:
        try:
            import onnx
        except ImportError:
            raise ImportError("ONNX export needs the onnx package: pip install 'scratchvae[onnx]'") from None
        self.onnx = onnx
        self.vae = vae
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """One operator; returns the name of its output."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))
        return output

    def constant(self, name: str, array: NDArray) -> str:
        """An array of the model's dtype (whole numbers as they are) in the graph; returns its name."""
        kind = np.int64 if np.asarray(array).dtype.kind == "i" else self.vae.dtype
        self.weights.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array, kind), name))
        return name

    def dense(self, source: str, output: str, name: str, weight: NDArray, bias: NDArray) -> str:
        """output = source @ weight + bias."""
        inputs = [source, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.node("Gemm", inputs, output)

    def hidden_layers(self, source: str, prefix: str, layers: tuple[Layer, ...]) -> str:
        """All layers but the head; returns the name of the last one's output."""
        for index, layer in enumerate(layers[:-1]):
            name = f"{prefix}.{index}"
            a = self.dense(source, f"{name}.a", name, layer.weight, layer.bias)
            source = self.activation(layer.activation, a, f"{name}.h")
        return source

    def activation(self, kind: str, a: str, output: str) -> str:
        """output = activation(a). ONNX's own Softplus is not offered in double, so it is spelt out."""
        if kind != "softplus":
            return self.node(OPERATORS[kind], [a], output)
        decay = self.node("Exp", [self.node("Neg", [self.node("Abs", [a], f"{a}.abs")], f"{a}.neg")], f"{a}.decay")
        one_more = self.node("Add", [decay, self.constant(f"{a}.one", np.ones(1))], f"{a}.sum")
        rise = self.node("Relu", [a], f"{a}.rise")
        return self.node("Add", [rise, self.node("Log", [one_more], f"{a}.log")], output)

    def model(self, name: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
        """The finished graph, checked by the onnx package."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, name, self._values(inputs), self._values(outputs), self.weights)
        model = helper.make_model(
            graph,
            producer_name="scratchvae",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            doc_string=f"{name} of a variational autoencoder; the first dimension of every input is free",
        )
        helper.set_model_props(model, {"scratchvae": json.dumps(self.vae.config)})
        self.onnx.checker.check_model(model, full_check=True)
        return model

    def _values(self, columns: Mapping[str, int]) -> list[Any]:
        helper = self.onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(self.vae.dtype)
        return [helper.make_tensor_value_info(name, kind, [FREE, size]) for name, size in columns.items()]


# --- the mean of p(x|z) from the decoder's output, "out" to "mean" ---------------------------------------------------


def _operator(kind: str) -> Callable[[_Graph], object]:
    return lambda graph: graph.node(kind, ["out"], "mean")


def _mean_of_continuous_bernoulli(graph: _Graph) -> None:
    """1 / a - exp(-a) / (1 - exp(-a)) below 0 and its complement above, a = |out|; near 0 the series of both."""
    one, half, zero = (
        graph.constant(f"out.{name}", np.array(x)) for name, x in (("1", 1.0), ("half", 0.5), ("0", 0.0))
    )
    threshold = graph.constant("out.threshold", np.array(NEAR))
    near = graph.node("Less", [graph.node("Abs", ["out"], "out.abs"), threshold], "out.near")
    a = graph.node("Where", [near, threshold, "out.abs"], "out.a")
    decay = graph.node("Exp", [graph.node("Neg", [a], "out.minus")], "out.decay")
    odds = graph.node("Div", [decay, graph.node("Sub", [one, decay], "out.rise")], "out.odds")
    below = graph.node("Sub", [graph.node("Div", [one, a], "out.inverse"), odds], "out.below")
    above = graph.node("Sub", [one, below], "out.above")
    far = graph.node("Where", [graph.node("Less", ["out", zero], "out.negative"), below, above], "out.far")
    small = graph.node("Where", [near, "out", zero], "out.small")
    square, total = graph.node("Mul", [small, small], "out.square"), zero
    for n, coefficient in reversed(list(enumerate(MEAN_SERIES))):
        product = graph.node("Mul", [total, square], f"out.product.{n}")
        total = graph.node("Add", [product, graph.constant(f"out.series.{n}", np.array(coefficient))], f"out.sum.{n}")
    close = graph.node("Add", [graph.node("Mul", [small, total], "out.slope"), half], "out.close")
    graph.node("Where", [near, close, far], "mean")


def _mean_of_discretised_logistic(graph: _Graph) -> None:
    """The mean over the edges between levels of sigmoid((out - edge) / scale): a level below x adds one step.

    For each example it holds D times as many numbers as there are edges, and sums them in the model's type: in float32
    to 5e-7 of 256 levels, 5e-5 of 65,536.
    """
    likelihood = graph.vae.likelihood
    assert isinstance(likelihood, DiscretisedLogistic)
    steps = likelihood.levels - 1
    edges = graph.constant("edges", (np.arange(steps) + 0.5) / steps)
    inverse = graph.constant("inverse_scale", np.exp(-graph.vae.parameters["likelihood.log_scale"])[:, None])
    column = graph.node("Unsqueeze", ["out", graph.constant("last_axis", np.array([2]))], "out.column")
    distance = graph.node("Mul", [graph.node("Sub", [column, edges], "out.from_edges"), inverse], "out.distance")
    graph.node("ReduceMean", [graph.node("Sigmoid", [distance], "out.reached")], "mean", axes=[2], keepdims=0)


def _softmax_of_groups(graph: _Graph) -> None:
    """The softmax in each group of columns; the groups' sizes stand in the likelihood's name."""
    numbers = graph.vae.likelihood.name.partition(":")[2]
    sizes = [int(size) for size in numbers.split(",")] if numbers else [graph.vae.data_dim]
    groups = [f"group.{index}" for index in range(len(sizes))]
    split = [graph.constant("group.sizes", np.array(sizes))]
    graph.nodes.append(graph.onnx.helper.make_node("Split", ["out", *split], groups, name="out/Split", axis=1))
    means = [graph.node("Softmax", [group], f"{group}.mean", axis=1) for group in groups]
    graph.node("Concat", means, "mean", axis=1)


MEANS: Mapping[str, Callable[[_Graph], object]] = MappingProxyType(
    {
        "bernoulli": _operator("Sigmoid"),
        "gaussian": _operator("Identity"),
        "gaussian-learned": _operator("Identity"),
        "gaussian-learned-diagonal": _operator("Identity"),
        "continuous-bernoulli": _mean_of_continuous_bernoulli,
        "discretised-logistic": _mean_of_discretised_logistic,
        "discretised-logistic-diagonal": _mean_of_discretised_logistic,
        "poisson": _operator("Exp"),
        "categorical": _softmax_of_groups,
    }
)
