"""Ten bugs that shipped elsewhere, each planted as a short rewrite of one operation, and the check that catches it.

Every test runs one of `checks.py`'s checks twice: it passes on the project's own operation and fails on the bug. The
name says which kind of check it is; where another kind is blind to the bug, the test shows that too.
"""

import dataclasses
from types import ModuleType

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import reference, training
from scratchvae.reference.gaussian import KLCache
from scratchvae.vae import Terms
from tests.cases import build
from tests.proofs import checks
from tests.proofs.pairs import PAIRS, Sizes

SIZES = Sizes(b=4, k=3, d=5)


def derivative_holds(name, forward=None, backward=None):
    """The derivative check of a pair of operations, with one of them replaced."""
    rng = np.random.default_rng(0)
    forward = forward or getattr(reference, f"{name}_forward")
    backward = backward or getattr(reference, f"{name}_backward")
    checks.backward_is_the_derivative_of_forward(forward, backward, *PAIRS[name](rng, SIZES), rng)


def catches(check, *bug, **bugs):
    """The check fails on the bug, and fails as a check: by an assertion."""
    with pytest.raises(AssertionError):
        check(*bug, **bugs)


def test_bug_1_noise_drawn_again_in_the_backward_pass_is_caught_by_derivative():
    def backward(dz, cache):
        again = np.random.default_rng(7).normal(size=cache.eps.shape)
        return reference.reparameterize_backward(dz, cache._replace(eps=again))

    derivative_holds("reparameterize")
    catches(derivative_holds, "reparameterize", backward=backward)


def test_bug_2_standard_deviation_exp_logvar_is_caught_by_meaning_where_derivatives_agree():
    def forward(head, eps):
        _, kl, cache = reference.posterior_forward(head, eps)
        mu, logvar = np.split(head, 2, axis=1)
        std = np.exp(logvar)
        return mu[:, None] + std[:, None] * eps, kl, cache._replace(draw=cache.draw._replace(std=2 * std))

    derivative_holds("posterior", forward)  # the bug is consistent: a gradient check is blind to it
    checks.draws_have_the_standard_deviation_that_the_kl_charges_for(reference.posterior_forward)
    catches(checks.draws_have_the_standard_deviation_that_the_kl_charges_for, forward)


def test_bug_3_kl_averaged_over_latents_is_caught_by_meaning_where_derivatives_agree():
    def forward(mu, logvar):
        kl, cache = reference.kl_to_prior_forward(mu, logvar)
        return kl / mu.shape[1], cache

    def backward(dkl, cache):
        return reference.kl_to_prior_backward(dkl / cache.mu.shape[1], cache)

    derivative_holds("kl_to_prior", forward, backward)
    checks.kl_equals_monte_carlo(reference.kl_to_prior_forward)
    catches(checks.kl_equals_monte_carlo, forward)


def test_bug_3_kl_summed_over_examples_is_caught_by_meaning():
    def forward(mu, logvar):
        variance = np.exp(logvar)
        return 0.5 * (mu * mu + variance - 1 - logvar).sum(axis=0), KLCache(mu, variance - 1)

    catches(checks.kl_equals_monte_carlo, forward)


@dataclasses.dataclass(frozen=True)
class LightInTraining(sv.ELBO):
    """The KL has weight 0.00025 in the gradient, and 1 in the value."""

    def evaluate(self, ops: ModuleType, sampled):
        value, upstream = super().evaluate(ops, sampled)
        return value, upstream._replace(dkl=0.00025 * upstream.dkl)


def test_bug_3_kl_of_another_weight_in_training_than_in_validation_is_caught_by_derivative():
    case = build()
    checks.model_gradient_is_the_derivative_of_the_reported_objective(*case, sv.ELBO())
    catches(checks.model_gradient_is_the_derivative_of_the_reported_objective, *case, LightInTraining())


def test_bug_3_an_objective_with_a_light_kl_under_the_name_of_the_bound_is_caught_by_meaning():
    case = build()
    light = sv.ELBO(beta=0.00025)
    table = sv.check_gradients(*case, light)
    assert table.passed, "consistent: its gradient is its own"
    checks.objective_is_the_reported_elbo(*case)
    catches(checks.objective_is_the_reported_elbo, *case, light)


def test_bug_4_importance_weights_over_losses_are_caught_by_derivative_and_meaning():
    def forward(log_weights):
        bound, _ = reference.importance_bound_forward(log_weights)
        return bound, reference.log_sum_exp_forward(-log_weights)[1]

    derivative_holds("importance_bound")
    catches(derivative_holds, "importance_bound", forward)
    checks.the_best_sample_has_the_largest_weight(reference.importance_bound_forward)
    catches(checks.the_best_sample_has_the_largest_weight, forward)


def test_bug_5_a_bound_above_the_evidence_is_caught_by_the_exact_oracle_where_derivatives_agree(plant):
    def forward(log_weights):
        return reference.log_sum_exp_forward(log_weights)  # log K is missing

    derivative_holds("importance_bound", forward)
    checks.bound_is_exact_where_q_is_the_posterior()
    checks.bounds_do_not_exceed_the_evidence()
    plant("importance_bound_forward", forward)
    catches(checks.bound_is_exact_where_q_is_the_posterior)
    catches(checks.bounds_do_not_exceed_the_evidence)


def test_bug_6_a_likelihood_of_saturated_probabilities_is_caught_by_meaning_where_derivatives_agree():
    def forward(x, logits):
        p = reference.sigmoid_forward(logits)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p, log_q = np.log(p), np.log(1 - p)
        log_p, log_q = (np.where(term.real < -100, -100, term).astype(term.dtype) for term in (log_p, log_q))
        x = x[:, None]
        alive = (p.real > 0) & (p.real < 1)  # beyond, the clipped logarithm is constant
        return (x * log_p + (1 - x) * log_q).sum(axis=2), reference.bernoulli.BernoulliCache((x - p) * alive)

    backward = reference.bernoulli_log_likelihood_backward
    derivative_holds("bernoulli_log_likelihood", forward)  # moderate logits show nothing
    for dtype in (np.float32, np.float64):
        good = reference.bernoulli_log_likelihood_forward, backward, dtype
        checks.saturated_logits_keep_value_and_gradient(*good)
        catches(checks.saturated_logits_keep_value_and_gradient, forward, backward, dtype)
    logit, black = np.full((1, 1, 1), 20, np.float32), np.zeros((1, 1), np.float32)
    value, cache = forward(black, logit)
    assert (value, backward(np.ones((1, 1), np.float32), cache)) == (-100, 0), "the bug as it shipped: not -20 and -1"


def test_bug_7_an_epoch_as_the_mean_of_batch_means_is_caught_by_meaning():
    def averages_of(terms, with_error=False):
        means = [Terms(*(np.array([term.mean()]) for term in part)) for part in terms]
        return training.Averages.of(means, with_error)

    checks.epoch_means_count_every_row_once(training.Averages.of)
    catches(checks.epoch_means_count_every_row_once, averages_of)


def test_bug_8_batch_statistics_at_evaluation_are_caught_by_meaning(plant):
    true = reference.network_forward

    def network_forward(x, network):
        out, cache = true(x, network)
        return out - 0.01 * out.mean(axis=0), cache

    case = build(rows=5)
    checks.rows_are_independent(*case)
    plant("network_forward", network_forward)
    catches(checks.rows_are_independent, *case)


def test_bug_9_a_sign_that_belongs_to_another_name_is_caught_by_the_exact_oracle():
    def estimate(*arguments, **settings):
        got = sv.log_evidence(*arguments, **settings)
        return got._replace(log_evidence=-got.log_evidence)

    checks.evidence_is_exact_where_q_is_the_posterior(sv.log_evidence)
    catches(checks.evidence_is_exact_where_q_is_the_posterior, estimate)


def test_bug_9_a_number_of_samples_rounded_down_to_whole_blocks_is_caught_by_meaning():
    def estimate(vae, x, num_samples):
        return sv.log_evidence(vae, x, num_samples=num_samples - num_samples % 5 or num_samples)

    checks.evidence_is_exact_where_q_is_the_posterior(estimate)  # with equal weights the value does not show it
    checks.evidence_uses_every_sample(sv.log_evidence)
    catches(checks.evidence_uses_every_sample, estimate)


def test_bug_10_adam_corrected_by_the_epoch_is_caught_by_the_independent_loop(plant):
    true = reference.network_adam

    def network_adam(deltas, network, first, second, step, **rest):
        true(deltas, network, first, second, 1 + (step - 1) // 3, **rest)  # three updates an epoch

    checks.training_is_the_textbook_loop()
    plant("network_adam", network_adam)
    catches(checks.training_is_the_textbook_loop)


def test_bug_10_best_weights_beside_the_latest_moments_are_caught_by_resuming(tmp_path, monkeypatch):
    true = training.save_model

    def save_model(vae, path, state):
        true(vae if state.best is None else vae.with_parameters(state.best), path, state)

    checks.resuming_continues_the_run(tmp_path, patience=50)
    monkeypatch.setattr(training, "save_model", save_model)
    catches(checks.resuming_continues_the_run, tmp_path, patience=50)
