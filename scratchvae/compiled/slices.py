"""How rows are split between threads: contiguous slices, one a thread, and one slice where the work is small.

No result depends on the split: every row is computed alone.
"""

import numba

WORTH_A_THREAD = 32_768  # elements below which waking another thread (some microseconds) costs more than it saves


def slices_for(elements: int) -> int:
    """Into how many slices work on this many elements is split."""
    if elements < 2 * WORTH_A_THREAD:
        return 1
    return min(numba.get_num_threads(), elements // WORTH_A_THREAD)
