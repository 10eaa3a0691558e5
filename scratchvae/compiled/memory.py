"""Keeps freed memory in the process, so that a training step does not pay for getting the same pages again.

By default the C library returns large blocks to the system when they are freed, and gets fresh, empty pages for the
next ones: a page fault for every 4 KB that a pass writes, two to seven per cent of a training step on MNIST.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST_BLOCK = 32 << 20  # bytes, the most that glibc takes: larger blocks still go back to the system
KEPT = 128 << 20  # bytes of free memory that a heap may hold


def keep_freed_memory() -> None:
    """Tell glibc to keep blocks of up to 32 MB; other C libraries are left as they are."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        library.mallopt(M_TRIM_THRESHOLD, KEPT)
