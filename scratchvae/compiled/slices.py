"""How rows are split between threads: contiguous slices, one a thread, and one slice where the work is small.

No result depends on the split: every row is computed alone. The split is that of `network`, so that a thread finds in
its cache the rows it wrote itself.
"""

import numba

WORTH_A_THREAD = 4_000  # nanoseconds of work: about what it takes to wake a thread and to wait for it


def slices_for(elements: int, nanoseconds: float) -> int:
    """Into how many slices to split work on so many elements that take about so many nanoseconds each."""
    slices = int(elements * nanoseconds) // WORTH_A_THREAD
    return min(numba.get_num_threads(), slices) if slices > 1 else 1
