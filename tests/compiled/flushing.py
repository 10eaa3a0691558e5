"""Kernels as a training step runs them: denormal numbers are zero."""

from collections.abc import Callable
from typing import Any

from numba import njit

from scratchvae.compiled.denormals import FLUSH, mode, set_mode


def flushed(kernel: Callable) -> Any:
    """The kernel in that mode. To be made once for all tests: each one made is compiled."""

    @njit(error_model="numpy")
    def run(*arguments):
        before = mode()
        set_mode(before | FLUSH)
        result = kernel(*arguments)
        set_mode(before)
        return result

    return run
