"""Adam: gradient descent scaled by running averages of the gradient and of its square."""

import numpy as np
from numpy.typing import NDArray


def adam_update(
    parameters: NDArray,
    gradient: NDArray,
    first: NDArray,
    second: NDArray,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """One step, in place, on flat arrays of one size.

    Update    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
              p = p - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
    Takes     parameters p, gradient g = d loss / d p, first m, second v: (P,); step t, counted from 1 over all updates
              (never over epochs: the correction would stay too strong)
    Source    Kingma, Ba 2015, algorithm 1
    """
    # The two corrections are folded into a step size and an epsilon, as section 2 of the paper does.
    correction = np.sqrt(1 - beta2**step)
    size = learning_rate * correction / (1 - beta1**step)
    scaled_epsilon = epsilon * correction
    number = parameters.dtype.type
    first[...] = number(beta1) * first + number(1 - beta1) * gradient
    second[...] = number(beta2) * second + number(1 - beta2) * gradient * gradient
    parameters[...] -= number(size) * first / (np.sqrt(second) + number(scaled_epsilon))
