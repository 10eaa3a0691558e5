"""Random arguments for every operation, so that a proof can walk over all of them and miss none."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray

from scratchvae.parameters import Parameters
from scratchvae.reference.full_posterior import full_head_size


class Arguments(NamedTuple):
    """Arguments of `name_forward`, and which of them `name_backward` gives gradients for, in its order."""

    values: tuple[Any, ...]
    differentiable: tuple[int, ...]


class Sizes(NamedTuple):
    b: int  # examples
    k: int  # samples
    d: int  # dimensions


sizes = st.builds(Sizes, st.integers(1, 6), st.integers(1, 5), st.integers(1, 9))
generators = st.builds(np.random.default_rng, st.integers(0, 2**32 - 1))


def _elementwise(rng: Generator, n: Sizes) -> Arguments:
    a = rng.uniform(-3, 3, size=(n.b, n.d))
    a[0, 0] = abs(a[0, 0])  # a relu that is dead everywhere has no gradient to compare
    return Arguments((a,), (0,))


def _dense(rng: Generator, n: Sizes) -> Arguments:
    bias = rng.normal(size=n.k)
    bias[0] += 10  # one unit that is alive, for relu
    weight = rng.normal(size=(n.d, n.k)) / n.d
    activation = rng.choice(["identity", "relu"])  # the saturating ones are walked over by name, and in whole models
    return Arguments((rng.uniform(-1, 1, size=(n.b, n.d)), weight, bias, str(activation)), (0, 1, 2))


def _posterior(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((rng.normal(size=(n.b, 2 * n.d)), rng.normal(size=(n.b, n.k, n.d))), (0,))


def _full_head(rng: Generator, n: Sizes) -> NDArray:
    """Correlations stay moderate however many dimensions there are: L is solved with, not only multiplied by."""
    head = rng.normal(size=(n.b, full_head_size(n.d)))
    head[:, 2 * n.d :] /= n.d
    return head


def _log_ratio(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((rng.normal(size=(n.b, n.d)), *rng.normal(size=(2, n.b, n.k, n.d))), (0, 2))


def _full_posterior(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((_full_head(rng, n), rng.normal(size=(n.b, n.k, n.d))), (0,))


def _full_kl(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((_full_head(rng, n),), (0,))


def _full_log_density(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((rng.normal(size=(n.b, n.k, n.d)), _full_head(rng, n)), (0, 1))


def _reparameterize(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((*rng.normal(size=(2, n.b, n.d)), rng.normal(size=(n.b, n.k, n.d))), (0, 1))


def _kl(rng: Generator, n: Sizes) -> Arguments:
    return Arguments(tuple(rng.normal(size=(2, n.b, n.d))), (0, 1))


def _log_density(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((rng.normal(size=(n.b, n.k, n.d)), *rng.normal(size=(2, n.b, n.d))), (0, 1, 2))


def _standard_log_density(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((rng.normal(size=(n.b, n.k, n.d)),), (0,))


def _bernoulli(rng: Generator, n: Sizes) -> Arguments:
    x = (rng.random((n.b, n.d)) < 0.5).astype(float)
    return Arguments((x, rng.normal(size=(n.b, n.k, n.d))), (1,))


def _gaussian_likelihood(rng: Generator, n: Sizes) -> Arguments:
    logvar = rng.normal(size=rng.choice([1, n.d]))
    return Arguments((rng.normal(size=(n.b, n.d)), rng.normal(size=(n.b, n.k, n.d)), logvar), (1, 2))


def _unit_gaussian(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((rng.normal(size=(n.b, n.d)), rng.normal(size=(n.b, n.k, n.d))), (1,))


def _continuous_bernoulli(rng: Generator, n: Sizes) -> Arguments:
    scale = rng.choice([0.1, 1.0, 20.0])  # within the series, across its end, beyond it
    return Arguments((rng.random((n.b, n.d)), scale * rng.normal(size=(n.b, n.k, n.d))), (1,))


def _discretised_logistic(rng: Generator, n: Sizes) -> Arguments:
    levels = int(rng.choice([2, 17, 256]))
    x = rng.integers(0, levels, (n.b, n.d)) / (levels - 1)
    log_scale = rng.normal(size=rng.choice([1, n.d])) - 1
    return Arguments((x, rng.normal(size=(n.b, n.k, n.d)), log_scale, levels), (1, 2))


def _categorical(rng: Generator, n: Sizes) -> Arguments:
    d = max(n.d, 2)  # one column alone is always 1, and has no gradient to compare
    starts = np.flatnonzero(rng.random(d) < 0.3)
    starts = np.append(0, starts[starts > 1])
    x = np.zeros((n.b, d))
    for start, end in zip(starts, np.append(starts[1:], d), strict=True):
        x[np.arange(n.b), rng.integers(start, end, n.b)] = 1
    return Arguments((x, 3 * rng.normal(size=(n.b, n.k, d)), starts), (1,))


def _poisson(rng: Generator, n: Sizes) -> Arguments:
    log_rate = 2 * rng.normal(size=(n.b, n.k, n.d))
    return Arguments((rng.poisson(np.exp(log_rate[:, 0])).astype(float), log_rate), (1,))


def _log_weights(rng: Generator, n: Sizes) -> Arguments:
    return Arguments((3 * rng.normal(size=(n.b, n.k)),), (0,))


def _decoded(rng: Generator, n: Sizes) -> tuple:
    shapes = {f"decoder.{name}": shape for name, shape in _decoder_shapes(n).items()}
    parameters = Parameters.zeros(shapes, np.float64)
    parameters.flat[:] = rng.normal(size=parameters.flat.size)
    x = (rng.random((n.b, 37 * n.d)) < 0.5).astype(np.float64)
    return x, rng.normal(size=(n.b, n.k, 3)), parameters.network("decoder", "tanh")


def _log_weights_of_draws(rng: Generator, n: Sizes) -> tuple:
    x, eps, network = _decoded(rng, n)
    return x, rng.normal(size=(n.b, 6)), eps, network


def _decoder_shapes(n: Sizes) -> dict[str, tuple[int, ...]]:
    """Wide enough for the products of the compiled twin to wrap around."""
    return {"0.weight": (3, 5), "0.bias": (5,), "head.weight": (5, 37 * n.d), "head.bias": (37 * n.d,)}


PAIRS: MappingProxyType[str, Callable[[Generator, Sizes], Arguments]] = MappingProxyType(
    {
        "identity": _elementwise,
        "tanh": _elementwise,
        "relu": _elementwise,
        "sigmoid": _elementwise,
        "softplus": _elementwise,
        "dense": _dense,
        "reparameterize": _reparameterize,
        "kl_to_prior": _kl,
        "kl_per_dimension": _kl,
        "posterior": _posterior,
        "log_ratio": _log_ratio,
        "full_posterior": _full_posterior,
        "full_kl_per_dimension": _full_kl,
        "full_gaussian_log_density": _full_log_density,
        "gaussian_log_density": _log_density,
        "standard_normal_log_density": _standard_log_density,
        "bernoulli_log_likelihood": _bernoulli,
        "gaussian_log_likelihood": _gaussian_likelihood,
        "unit_gaussian_log_likelihood": _unit_gaussian,
        "continuous_bernoulli_log_likelihood": _continuous_bernoulli,
        "discretised_logistic_log_likelihood": _discretised_logistic,
        "categorical_log_likelihood": _categorical,
        "poisson_log_likelihood": _poisson,
        "log_sum_exp": _log_weights,
        "importance_bound": _log_weights,
    }
)
"""name -> arguments of name_forward. `network` is checked on its own, because its backward comes in two halves."""

VALUES: MappingProxyType[str, Callable[[Generator, Sizes], tuple]] = MappingProxyType(
    {
        "decoded_bernoulli_log_likelihood": _decoded,
        "decoded_bernoulli_log_weights": _log_weights_of_draws,
        "gaussian_draw_scores": lambda rng, n: (
            rng.normal(size=(n.b, n.k)), rng.normal(size=(n.b, n.k, n.d)), rng.normal(size=(n.b, n.d)),
        ),
        "full_gaussian_draw_scores": lambda rng, n: (
            rng.normal(size=(n.b, n.k)), rng.normal(size=(n.b, n.k, n.d)), _full_head(rng, n),
        ),
        "effective_sample_size": lambda rng, n: _log_weights(rng, n).values,
        "gather_rows": lambda rng, n: (
            rng.integers(0, 256, (n.b, n.d), dtype=np.uint8),
            rng.integers(0, n.b, n.k),
            np.dtype("float64"),
        ),
        "philox4x32": lambda rng, n: (*rng.integers(0, 2**32, (4, n.b), dtype=np.uint32), n.k, n.d),
        "random_words": lambda rng, n: (n.k, 3, n.d, rng.integers(0, 2**32, n.b), n.d),
        "normals": lambda rng, n: (2**40 + n.k, 3, n.d, rng.integers(0, 2**32, n.b), n.d),
        "uniforms": lambda rng, n: (n.k, 3, n.d, rng.integers(0, 2**32, n.b), n.d),
        "bernoulli_bytes": lambda rng, n: (
            rng.integers(0, 256, (n.b, n.d), dtype=np.uint8),
            rng.integers(0, n.b, n.k),
            n.k, 2, n.d, np.arange(n.k),
        ),
        "bernoulli_probabilities": lambda rng, n: (rng.random((n.b, n.d)), n.k, 2, n.d, np.arange(n.b)),
        "permutation": lambda rng, n: (n.k, 1, n.b, 7 * n.d),
    }
)  # fmt: skip
"""name -> arguments, for the operations without a backward pass that return a value."""

IN_PLACE = ("adam_update", "network_gradient", "network_adam")
