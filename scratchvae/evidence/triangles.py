"""Triangles on which a network of relus is affine, and Gauss's rule on them: a kinked function integrated to rounding.

The kinks of the first hidden layer are straight lines. Between them the second layer's inputs are affine, so that its
kinks are straight there, and so on: cut by cut, triangles remain on which the whole network is affine.

T triangles, Z latent dimensions.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from scratchvae.parameters import Layer

ORDERS = (0.08, 3), (0.24, 4), (0.55, 5), (np.inf, 7)  # Gauss nodes along a side, by its share of the longest


def affine_pieces(u: NDArray, to_z: Callable[[NDArray], NDArray], hidden: Sequence[Layer]) -> NDArray:
    """Cut triangles along the kinks of all hidden layers.

    Takes     u (T, 3, 2); to_z: an affine map of points (..., 2) to (..., Z); hidden: layers of relus
    Returns   triangles (S, 3, 2) that cover the same area
    """
    for depth, layer in enumerate(hidden):
        h = to_z(u)
        for below in hidden[:depth]:
            h = np.maximum(h @ below.weight + below.bias, 0.0)
        a = h @ layer.weight + layer.bias  # (T, 3, H), affine on each triangle
        a = a[:, :, (a.max(axis=(0, 1)) > 0) & (a.min(axis=(0, 1)) < 0)]
        corners = np.concatenate([u, a], axis=2)
        for unit in range(a.shape[2]):
            corners = cut(corners, 2 + unit)
        u = corners[:, :, :2]
    return u


def cut(corners: NDArray, column: int) -> NDArray:
    """Cut every triangle where one of its columns, affine on it, is 0. Takes corners (T, 3, C); returns (S, 3, C)."""
    positive = corners[:, :, column] > 0
    count = positive.sum(axis=1)
    mixed = (count > 0) & (count < 3) & (corners[:, :, column].min(axis=1) < 0)
    alone = np.where(count == 1, positive.argmax(axis=1), positive.argmin(axis=1))[mixed]  # on its side of the line
    rows = np.arange(len(alone))
    p, q, r = (corners[mixed][rows, (alone + turn) % 3] for turn in range(3))
    pq, pr = (_zero_between(p, other, column) for other in (q, r))
    new = [np.stack(piece, axis=1) for piece in ((p, pq, pr), (pq, q, r), (pq, r, pr))]
    return np.concatenate([corners[~mixed], *new])


def _zero_between(p: NDArray, q: NDArray, column: int) -> NDArray:
    share = p[:, column] / (p[:, column] - q[:, column])
    zero = p + share[:, None] * (q - p)
    zero[:, column] = 0.0
    return zero


def gauss_on_triangles(u: NDArray, unit: float) -> tuple[NDArray, NDArray]:
    """Gauss's product rule on every triangle as a square with one side shrunk to a point, of lower order on small ones.

    Formula   u = p + s (q - p) + s t (r - q), du = 2 area s ds dt,  s and t from 0 to 1
    Takes     u (T, 3, 2); unit: the longest side of a triangle that is not cut
    Returns   nodes (G, 2), log weights (G,)
    """
    p, q, r = u[:, 0], u[:, 1], u[:, 2]
    twice_area = np.abs((q - p)[:, 0] * (r - p)[:, 1] - (q - p)[:, 1] * (r - p)[:, 0])
    longest = np.max([np.hypot(*(a - b).T) for a, b in ((p, q), (q, r), (r, p))], axis=0)
    nodes, log_weights = [], []
    for shortest, (widest, order) in zip((0.0, *(share for share, _ in ORDERS)), ORDERS, strict=False):
        chosen = (longest > shortest * unit) & (longest <= widest * unit) & (twice_area > 0)
        abscissas, weights = np.polynomial.legendre.leggauss(order)
        s, t = (array.ravel() for array in np.meshgrid((abscissas + 1) / 2, (abscissas + 1) / 2, indexing="ij"))
        weight = np.outer(weights, weights).ravel() / 4 * s
        along, across = (q - p)[chosen, None], (r - q)[chosen, None]
        nodes.append((p[chosen, None] + s[:, None] * along + (s * t)[:, None] * across).reshape(-1, 2))
        log_weights.append(np.log(twice_area[chosen, None] * weight).ravel())
    return np.concatenate(nodes), np.concatenate(log_weights)
