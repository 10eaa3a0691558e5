"""Real numbers, with unit variance or a learned one."""

from dataclasses import dataclass

import numpy as np

from scratchvae.likelihoods.likelihood import normals


@dataclass(frozen=True)
class UnitGaussian:
    """p(x|z) = N(x; out, I): the textbook -1/2 ||x - D(z)||^2, constant included."""

    name: str = "gaussian"
    data: str = "real numbers, unit variance: the squared error"
    binary: bool = False
    unit_interval: bool = False

    def check(self, x, name="x"):
        """Every real number is possible."""

    def parameter_shapes(self, data_dim):
        return {}

    def parameter_start(self):
        return {}

    def encoder_input(self, x):
        return x

    def forward(self, ops, x, out, parameters):
        return ops.unit_gaussian_log_likelihood_forward(x, out)

    def backward(self, ops, dlog_likelihood, cache):
        return ops.unit_gaussian_log_likelihood_backward(dlog_likelihood, cache), {}

    def mean(self, ops, out, parameters):
        return out

    def draw(self, ops, out, parameters, draws):
        return out + normals(ops, out, draws)

    def output_bias(self, mean):
        return mean


@dataclass(frozen=True)
class LearnedGaussian:
    """p(x|z) = N(x; out, exp(likelihood.logvar)): one learned variance, or one per dimension."""

    per_dimension: bool = False
    binary: bool = False
    unit_interval: bool = False

    @property
    def name(self):
        return "gaussian-learned-diagonal" if self.per_dimension else "gaussian-learned"

    @property
    def data(self):
        return "real numbers, one learned variance; -diagonal after the name for one a column"

    def check(self, x, name="x"):
        """Every real number is possible."""

    def parameter_shapes(self, data_dim):
        return {"likelihood.logvar": (data_dim,) if self.per_dimension else (1,)}

    def parameter_start(self):
        return {"likelihood.logvar": 0.0}

    def encoder_input(self, x):
        return x

    def forward(self, ops, x, out, parameters):
        return ops.gaussian_log_likelihood_forward(x, out, parameters["likelihood.logvar"])

    def backward(self, ops, dlog_likelihood, cache):
        dout, dlogvar = ops.gaussian_log_likelihood_backward(dlog_likelihood, cache)
        return dout, {"likelihood.logvar": dlogvar}

    def mean(self, ops, out, parameters):
        return out

    def draw(self, ops, out, parameters, draws):
        std = np.exp(0.5 * parameters["likelihood.logvar"])
        return out + std * normals(ops, out, draws)

    def output_bias(self, mean):
        return mean
