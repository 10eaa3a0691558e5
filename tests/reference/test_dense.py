"""The dense layer, against its sums written out."""

import numpy as np

from scratchvae import reference


def test_a_dense_layer_is_a_sum_over_its_inputs_and_a_bias(ops):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=2)
    h, _ = ops.dense_forward(x, weight, bias, "tanh")
    for n in range(3):
        for j in range(2):
            assert np.isclose(h[n, j], np.tanh(sum(x[n, i] * weight[i, j] for i in range(4)) + bias[j]), rtol=1e-13)


def test_the_gradient_of_a_weight_is_a_sum_of_outer_products(ops):
    rng = np.random.default_rng(1)
    x, weight, bias, dh = rng.normal(size=(5, 3)), rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=(5, 2))
    _, cache = ops.dense_forward(x, weight, bias, "identity")
    dx, dweight, dbias = ops.dense_backward(dh, cache)
    np.testing.assert_allclose(dweight, sum(np.outer(x[n], dh[n]) for n in range(5)), rtol=1e-12)
    np.testing.assert_allclose(dbias, dh.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(dx, dh @ weight.T, rtol=1e-12)


def test_the_cache_holds_what_backward_reads_and_no_copy():
    x, weight, bias = np.ones((2, 3)), np.ones((3, 1)), np.zeros(1)
    h, cache = reference.dense_forward(x, weight, bias, "relu")
    assert cache.x is x
    assert cache.weight is weight
    assert cache.h is h
