"""Binary pixels."""

from dataclasses import dataclass

import numpy as np

from scratchvae.reference.random import Stream


@dataclass(frozen=True)
class Bernoulli:
    """p(x|z) = prod_d Bernoulli(x_d; sigmoid(out_d)): the decoder gives logits."""

    name: str = "bernoulli"
    data: str = "0 and 1; grey pixels are binarized"
    binary: bool = True
    unit_interval: bool = True

    def check(self, x, name="x"):
        """Grey values pass: whether they may stay grey is for training to say (`data.check_method`)."""

    def parameter_shapes(self, data_dim):
        return {}

    def parameter_start(self):
        return {}

    def encoder_input(self, x):
        return x

    def forward(self, ops, x, out, parameters):
        return ops.bernoulli_log_likelihood_forward(x, out)

    def backward(self, ops, dlog_likelihood, cache):
        return ops.bernoulli_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops, out, parameters):
        return ops.sigmoid_forward(out)[0]

    def draw(self, ops, out, parameters, draws):
        uniforms = ops.uniforms(draws.seed, Stream.PIXELS, 0, draws.examples, out.shape[-1])
        return (uniforms < self.mean(ops, out, parameters)).astype(out.dtype)

    def output_bias(self, mean):
        """logit of the training mean clipped to [0.001, 0.999] (Burda, Grosse, Salakhutdinov 2015, their code)."""
        clipped = np.clip(mean, 0.001, 0.999)
        return np.log(clipped) - np.log1p(-clipped)
