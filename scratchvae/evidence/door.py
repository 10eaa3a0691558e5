"""What every estimate goes through: parameters that are numbers, sums in one order, and no NaN that goes unseen."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from scratchvae.engine import one_order_of_sums
from scratchvae.finite import check_finite, named_parameters, quiet
from scratchvae.vae import VAE

Estimate = TypeVar("Estimate", bound=Callable[..., Any])


def in_one_order(estimate: Estimate) -> Estimate:
    """The estimate, the same bits for any number of threads, and without NumPy's warnings.

    Of a compiled model too: closed forms, integration and the surgery's grid are NumPy's whatever its engine.
    """

    @wraps(estimate)
    def within(*arguments: Any, **settings: Any) -> Any:
        with quiet(), one_order_of_sums("reference"):
            return estimate(*arguments, **settings)

    return cast(Estimate, within)


def door(estimate: Estimate) -> Estimate:
    """The same, of a model whose parameters are numbers: NotFiniteError names the first that is not."""
    ordered = in_one_order(estimate)

    @wraps(estimate)
    def within(vae: VAE, *arguments: Any, **settings: Any) -> Any:
        check_finite([vae.parameters.flat], named_parameters(vae))
        return ordered(vae, *arguments, **settings)

    return cast(Estimate, within)


def refuse_nan(**estimates: NDArray) -> None:
    """Raises NotFiniteError, with the name and the row of the first NaN, where estimates (B, ...) hold one."""
    for name, values in estimates.items():
        rows = np.isnan(values).reshape(len(values), -1).any(axis=1)
        if rows.any():
            check_finite([values], [(f"{name} of row {int(rows.argmax())}", values)])
