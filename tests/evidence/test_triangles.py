"""Triangles between kinks: they cover what they were cut from, the network is affine on each, Gauss's rule is exact."""

from math import factorial

import numpy as np
import pytest

from scratchvae.evidence.triangles import affine_pieces, cut, gauss_on_triangles
from tests.cases import build

SQUARE = 3.0 * np.array([[[-1, -1], [1, -1], [1, 1]], [[-1, -1], [1, 1], [-1, 1]]], float)


def areas(u):
    (a, b), (c, d) = (u[:, 1] - u[:, 0]).T, (u[:, 2] - u[:, 0]).T
    return np.abs(a * d - b * c) / 2


@pytest.mark.parametrize("hidden", [(7,), (6, 5), (4, 4, 3)])
def test_pieces_cover_the_square_and_the_decoder_is_affine_on_each(hidden):
    vae, _, _ = build(latent_dim=2, hidden=hidden, activation="relu")
    pieces = affine_pieces(SQUARE, lambda u: u, vae._decoder.layers[:-1])
    assert len(pieces) > 8
    np.testing.assert_allclose(areas(pieces).sum(), 36.0, rtol=1e-12)
    rng = np.random.default_rng(0)
    weight = rng.dirichlet(np.ones(3), size=(len(pieces), 4))  # four points in each triangle
    inside = vae.ops.network_forward((weight @ pieces).reshape(-1, 2), vae._decoder)[0].reshape(len(pieces), 4, -1)
    corners = vae.ops.network_forward(pieces.reshape(-1, 2), vae._decoder)[0].reshape(len(pieces), 3, -1)
    np.testing.assert_allclose(inside, weight @ corners, atol=1e-11)


def test_before_cutting_the_decoder_is_not_affine():
    """The control: the same check fails on the square itself."""
    vae, _, _ = build(latent_dim=2, hidden=(7,), activation="relu")
    middle = vae.ops.network_forward(SQUARE.mean(axis=1), vae._decoder)[0]
    corners = vae.ops.network_forward(SQUARE.reshape(-1, 2), vae._decoder)[0].reshape(2, 3, -1)
    assert np.abs(middle - corners.mean(axis=1)).max() > 1e-3


def test_a_cut_leaves_what_the_line_misses_and_makes_three_of_what_it_meets():
    corners = np.concatenate([SQUARE, (SQUARE[:, :, :1] - 5.0)], axis=2)
    np.testing.assert_array_equal(cut(corners, 2), corners)
    for touching in (SQUARE[:, :, 0] + 3.0, SQUARE[:, :, 0] - SQUARE[:, :, 1]):  # along a side, and at a corner too
        corners[:, :, 2] = touching
        np.testing.assert_array_equal(cut(corners, 2), corners)
    corners[:, :, 2] = SQUARE[:, :, 0] - 1.0
    pieces = cut(corners, 2)
    assert len(pieces) == 6
    assert ((pieces[:, :, 2] >= 0).all(axis=1) | (pieces[:, :, 2] <= 0).all(axis=1)).all()
    np.testing.assert_allclose(areas(pieces[:, :, :2]).sum(), 36.0, rtol=1e-14)
    np.testing.assert_allclose(pieces[:, :, 2], pieces[:, :, 0] - 1.0, atol=1e-14)


@pytest.mark.parametrize(
    ("size", "degree"), [(0.07, 4), (0.09, 6), (0.23, 6), (0.25, 8), (0.54, 8), (0.56, 12), (1.0, 12)]
)
def test_gauss_is_exact_for_polynomials_on_the_standard_triangle(size, degree):
    """The integral of x^a y^b over x, y >= 0, x + y <= h is h^(a + b + 2) a! b! / (a + b + 2)!."""
    u = size * np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    nodes, log_weights = gauss_on_triangles(u, np.sqrt(2))  # the longest side of the whole one
    assert len(nodes) == (degree // 2 + 1) ** 2, "no more than that takes"
    for a in range(degree + 1):
        b = degree - a
        exact = size ** (degree + 2) * factorial(a) * factorial(b) / factorial(degree + 2)
        np.testing.assert_allclose(np.exp(log_weights) @ (nodes[:, 0] ** a * nodes[:, 1] ** b), exact, rtol=1e-12)


@pytest.mark.parametrize("longest", [0.08, 0.24, 0.55, 1.0])
def test_a_triangle_as_long_as_an_order_goes_is_counted_once(longest):
    u = np.array([[[0.0, 0.0], [longest, 0.0], [longest / 2, longest / 8]]])
    _, log_weights = gauss_on_triangles(u, 1.0)
    np.testing.assert_allclose(np.exp(log_weights).sum(), areas(u)[0], rtol=1e-13)


def test_a_triangle_without_area_has_no_nodes():
    flat = np.array([[[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]], [[0.2, 0.3]] * 3])
    nodes, log_weights = gauss_on_triangles(flat, 1.0)
    assert nodes.shape == (0, 2)
    assert log_weights.shape == (0,)
