"""log p(x) by whichever method is asked for: one table of methods, one record of answers."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchvae.arguments import checked_seed, one_of, whole_positive
from scratchvae.evidence import importance
from scratchvae.evidence.annealed import ais_evidence
from scratchvae.evidence.door import door, refuse_nan
from scratchvae.evidence.exact import LinearGaussian
from scratchvae.evidence.importance import Evidence
from scratchvae.evidence.quadrature import integrate_evidence
from scratchvae.progress import Watch
from scratchvae.vae import VAE

Method = Callable[..., Evidence]  # vae, x (B, D), num_samples, seed, watch, and options of the method's own


@door
def log_evidence(
    vae: VAE,
    x: NDArray,
    method: str = "importance",
    num_samples: int = 5000,
    seed: int = 0,
    watch: Watch | None = None,
    **options: Any,
) -> Evidence:
    """log p(x) of every example.

    Formula   log p(x) = log of the integral of p(x|z) p(z) over z; each method has its own, with its source

    "importance", "prior" and "ais" are lower bounds on log p(x) in expectation, by Jensen's inequality: their mean
    weight is unbiased, its logarithm is not. A single estimate can be on either side. "exact" and "quadrature" are
    log p(x) itself, but for rounding and the error of the integration.

    Takes     x (B, D), of 0 and 1 under a Bernoulli: grey values are not binarized here but taken as they are, and what
              comes of them is the logarithm of no probability; method: a name in METHODS; num_samples and seed: for the
              methods that draw samples (of "ais", num_samples is chains times temperatures); watch: called with the
              number of steps done and to do, for a progress bar; options: those of the method in OPTIONS, see
              `ais_evidence` and `importance_evidence`
    Returns   Evidence(log_evidence, standard_error, effective_sample_size), each (B,), in nats; -inf with an infinite
              error where every weight was zero
    Raises    ValueError for an unknown method or option, bad input, or a model the method cannot take; NotFiniteError
              where an estimate is NaN
    """
    check_options(method, options)
    found = METHODS[method](
        vae, x, whole_positive("num_samples", num_samples), checked_seed(seed), watch=watch, **options
    )
    refuse_nan(log_evidence=found.log_evidence)
    return found


def check_options(method: str, options: Iterable[str]) -> None:
    """Raises ValueError for an unknown method, or a name that is no option of it."""
    one_of("method", method, METHODS)
    known = OPTIONS.get(method, ())
    for name in options:
        if name not in known:
            raise ValueError(f"{name!r} is no option of method {method!r}; expected {', '.join(known) or 'none'}")


def exact_evidence(vae: VAE, x: NDArray, num_samples: int, seed: int, watch: Watch | None = None) -> Evidence:
    """The closed form, for a linear decoder with Gaussian noise: no samples, no error. See `LinearGaussian`.

    Takes     x (B, D); num_samples, seed and watch are not used
    Returns   Evidence, each (B,), in nats
    Raises    ValueError for a model that is not linear with Gaussian noise, or data that do not fit it
    """
    values = LinearGaussian.from_vae(vae).log_evidence(x)
    return Evidence(values, np.zeros(len(values)), np.full(len(values), np.inf))


def quadrature_evidence(vae: VAE, x: NDArray, num_samples: int, seed: int, watch: Watch | None = None) -> Evidence:
    """Integration over z, for at most three latent dimensions. The standard error is the estimate of its error.

    Takes     x (B, D); num_samples and seed are not used; watch: told how many examples are done
    Returns   Evidence, each (B,), in nats
    Raises    ValueError as `integrate`
    """
    values, errors = integrate_evidence(vae, x, watch=watch)
    return Evidence(values, errors, np.full(len(errors), np.inf))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        **importance.METHODS,
        "ais": ais_evidence,
        "quadrature": quadrature_evidence,
        "exact": exact_evidence,
    }
)

OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "importance": ("examples", "head"),
        "ais": ("num_chains", "num_temperatures", "num_leapfrog", "start"),
    }
)
