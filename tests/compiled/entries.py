"""Entries for Python of kernels that only other kernels call: they have none of their own."""

from collections.abc import Callable
from typing import Any

from numba import njit


def entry_of(kernel: Callable) -> Any:
    """The kernel, callable from Python. To be made once for all tests: each one made is compiled."""

    @njit(error_model="numpy")
    def run(*arguments):
        return kernel(*arguments)

    return run
