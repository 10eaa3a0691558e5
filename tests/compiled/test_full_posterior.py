"""The compiled Gaussian with a full covariance: what the walk over all twins does not see."""

import numpy as np

from scratchvae.compiled.full_posterior import _factor, full_kl_per_dimension_forward
from tests.compiled.entries import entry_of


def test_the_factor_is_triangular_whatever_was_in_its_memory():
    head = np.random.default_rng(0).normal(size=(2, 9))
    _, cache = full_kl_per_dimension_forward(head)
    factor, write = np.full((3, 3), np.nan), entry_of(_factor)
    for b in range(2):
        write(head[b], factor)
        np.testing.assert_array_equal(factor, cache.transposed[b])
        np.testing.assert_array_equal(factor, np.triu(factor))
        np.testing.assert_allclose(np.diag(factor), np.exp(head[b, 3:6] / 2), rtol=1e-14)
