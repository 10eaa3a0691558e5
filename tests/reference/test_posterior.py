"""The draw and the KL side by side: one pass equals the two operations it is made of."""

import numpy as np
from hypothesis import given

from scratchvae import reference
from tests.proofs.checks import draws_have_the_standard_deviation_that_the_kl_charges_for
from tests.proofs.pairs import generators, sizes


def test_draws_have_the_standard_deviation_that_the_kl_charges_for_on_both_engines(ops):
    draws_have_the_standard_deviation_that_the_kl_charges_for(ops.posterior_forward)


@given(rng=generators, n=sizes)
def test_mu_and_logvar_are_used_twice_and_their_gradients_are_sums_of_two(rng, n):
    (mu, logvar), eps = rng.normal(size=(2, n.b, n.d)), rng.normal(size=(n.b, n.k, n.d))
    z, kl, cache = reference.posterior_forward(np.concatenate([mu, logvar], axis=1), eps)
    want_z, draw_cache = reference.reparameterize_forward(mu, logvar, eps)
    want_kl, kl_cache = reference.kl_to_prior_forward(mu, logvar)
    np.testing.assert_array_equal(z, want_z)
    np.testing.assert_array_equal(kl, want_kl)

    dz, dkl = rng.normal(size=z.shape), rng.normal(size=kl.shape)
    dhead = reference.posterior_backward(dz, dkl, cache)
    from_draw, from_kl = (
        reference.reparameterize_backward(dz, draw_cache),
        reference.kl_to_prior_backward(dkl, kl_cache),
    )
    want = np.concatenate([a + b for a, b in zip(from_draw, from_kl, strict=True)], axis=1)
    np.testing.assert_allclose(dhead, want, rtol=1e-14)


def test_the_first_half_of_the_head_is_mu(ops):
    head = np.array([[7.0, 8.0, -600.0, -600.0]])
    z, _, _ = ops.posterior_forward(head, np.ones((1, 1, 2)))
    np.testing.assert_allclose(z, [[[7.0, 8.0]]])
