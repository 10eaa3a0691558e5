"""a b + c of float32, rounded once: one instruction of a processor, which NumPy does not offer."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

BEYOND_FLOAT32 = (1 << 29) - 1  # the bits of a float64's mantissa that a float32 has no room for
MIDDLE = 1 << 28  # what they are halfway between two float32


def fused_multiply_add(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> NDArray[np.float32]:
    """The float32 nearest to a b + c, where rounding the product before the sum could give its neighbour.

    In float64 the product is exact, and the sum is rounded to 53 bits. Rounding that to 24 goes astray only where the
    first rounding has moved it onto the middle between two float32: there it moves on, to the side of what it lacks.

    Takes     float32 arrays that broadcast; a b + c is 0 or between 2^-126 and 2^128 in size
    Returns   float32 of the broadcast shape
    Source    Boldo, Melquiond 2008, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
              odd"; Knuth, The Art of Computer Programming, volume 2, section 4.2.2, theorem B, for what a sum lacks
    """
    product, addend = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = np.asarray(product + addend)
    middle = (total.view(np.int64) & BEYOND_FLOAT32) == MIDDLE
    if middle.any():
        added = total - product
        lacking = (product - (total - added)) + (addend - added)
        beside = np.nextafter(total, np.copysign(np.inf, lacking))
        total = np.where(middle & (lacking != 0), beside, total)
    return total.astype(np.float32)
