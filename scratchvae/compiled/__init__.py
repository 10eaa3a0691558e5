"""The operations of `reference`, under the same names, as Numba kernels, to be run.

gemm, tile, inner          matrix products on register-tiled micro-kernels (nonzeros: which skip zeros)
network, dense             a whole stack of layers in one call
decoded                    samples decoded and weighed in one call, for evaluation
vector_math, activations   exp, log, tanh and their kin, written so that loops over them use vector registers
random, philox             the same random bits as the reference
step                       whole training steps in one call, for the usual model; the threads share out the examples
                           (step_by_examples) or, in small batches, the weights (step_by_weights)
adam                       Adam's loop (adam_by_estimates, adam_by_rows: in the ways that suit 512-bit registers)
barrier, shares, pace      threads that wait for one another; how much each has to do; how many there are
simd                       which vector width, and why
denormals                  which numbers a training step takes for zero, and why
kernel_cache               where compiled kernels are kept, in step with their sources
"""

from scratchvae.compiled.kernel_cache import kernel_cache, remove_old_kernels

remove_old_kernels()
with kernel_cache():
    from scratchvae.compiled.activations import (
        identity_backward,
        identity_forward,
        relu_backward,
        relu_forward,
        sigmoid_backward,
        sigmoid_forward,
        softplus_backward,
        softplus_forward,
        tanh_backward,
        tanh_forward,
    )
    from scratchvae.compiled.adam import adam_update
    from scratchvae.compiled.bernoulli import bernoulli_log_likelihood_backward, bernoulli_log_likelihood_forward
    from scratchvae.compiled.categorical import (
        categorical_log_likelihood_backward,
        categorical_log_likelihood_forward,
    )
    from scratchvae.compiled.continuous_bernoulli import (
        continuous_bernoulli_log_likelihood_backward,
        continuous_bernoulli_log_likelihood_forward,
    )
    from scratchvae.compiled.decoded import decoded_bernoulli_log_likelihood, decoded_bernoulli_log_weights
    from scratchvae.compiled.dense import dense_backward, dense_forward
    from scratchvae.compiled.discretised_logistic import (
        discretised_logistic_log_likelihood_backward,
        discretised_logistic_log_likelihood_forward,
    )
    from scratchvae.compiled.full_posterior import (
        full_gaussian_draw_scores,
        full_gaussian_log_density_backward,
        full_gaussian_log_density_forward,
        full_kl_per_dimension_backward,
        full_kl_per_dimension_forward,
        full_posterior_backward,
        full_posterior_forward,
    )
    from scratchvae.compiled.gather import gather_rows
    from scratchvae.compiled.gaussian import (
        gaussian_draw_scores,
        gaussian_log_density_backward,
        gaussian_log_density_forward,
        kl_per_dimension_backward,
        kl_per_dimension_forward,
        kl_to_prior_backward,
        kl_to_prior_forward,
        reparameterize_backward,
        reparameterize_forward,
        standard_normal_log_density_backward,
        standard_normal_log_density_forward,
    )
    from scratchvae.compiled.gaussian_likelihood import (
        gaussian_log_likelihood_backward,
        gaussian_log_likelihood_forward,
        unit_gaussian_log_likelihood_backward,
        unit_gaussian_log_likelihood_forward,
    )
    from scratchvae.compiled.importance import (
        effective_sample_size,
        importance_bound_backward,
        importance_bound_forward,
    )
    from scratchvae.compiled.log_sum_exp import log_sum_exp_backward, log_sum_exp_forward
    from scratchvae.compiled.network import network_adam, network_backward, network_forward, network_gradient

    # no twin: how many threads small steps get that are not made in one call
    from scratchvae.compiled.pace import Pace as Pace
    from scratchvae.compiled.poisson import (
        poisson_log_likelihood_backward,
        poisson_log_likelihood_forward,
    )
    from scratchvae.compiled.posterior import (
        log_ratio_backward,
        log_ratio_forward,
        posterior_backward,
        posterior_forward,
    )
    from scratchvae.compiled.random import (
        bernoulli_bytes,
        bernoulli_probabilities,
        normals,
        permutation,
        philox4x32,
        random_words,
        uniforms,
    )

    # no twins: `Trainer.steps` in one call, with their updates and without
    from scratchvae.compiled.step import Minibatches as Minibatches
    from scratchvae.compiled.step import compile_steps as compile_steps
    from scratchvae.compiled.step import step_gradient as step_gradient
    from scratchvae.compiled.step import training_steps as training_steps

__all__ = [
    "adam_update",
    "bernoulli_bytes",
    "bernoulli_log_likelihood_backward",
    "bernoulli_log_likelihood_forward",
    "bernoulli_probabilities",
    "categorical_log_likelihood_backward",
    "categorical_log_likelihood_forward",
    "continuous_bernoulli_log_likelihood_backward",
    "continuous_bernoulli_log_likelihood_forward",
    "decoded_bernoulli_log_likelihood",
    "decoded_bernoulli_log_weights",
    "dense_backward",
    "dense_forward",
    "discretised_logistic_log_likelihood_backward",
    "discretised_logistic_log_likelihood_forward",
    "effective_sample_size",
    "full_gaussian_draw_scores",
    "full_gaussian_log_density_backward",
    "full_gaussian_log_density_forward",
    "full_kl_per_dimension_backward",
    "full_kl_per_dimension_forward",
    "full_posterior_backward",
    "full_posterior_forward",
    "gather_rows",
    "gaussian_draw_scores",
    "gaussian_log_density_backward",
    "gaussian_log_density_forward",
    "gaussian_log_likelihood_backward",
    "gaussian_log_likelihood_forward",
    "identity_backward",
    "identity_forward",
    "importance_bound_backward",
    "importance_bound_forward",
    "kl_per_dimension_backward",
    "kl_per_dimension_forward",
    "kl_to_prior_backward",
    "kl_to_prior_forward",
    "log_ratio_backward",
    "log_ratio_forward",
    "log_sum_exp_backward",
    "log_sum_exp_forward",
    "network_adam",
    "network_backward",
    "network_forward",
    "network_gradient",
    "normals",
    "permutation",
    "philox4x32",
    "poisson_log_likelihood_backward",
    "poisson_log_likelihood_forward",
    "posterior_backward",
    "posterior_forward",
    "random_words",
    "relu_backward",
    "relu_forward",
    "reparameterize_backward",
    "reparameterize_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "softplus_backward",
    "softplus_forward",
    "standard_normal_log_density_backward",
    "standard_normal_log_density_forward",
    "tanh_backward",
    "tanh_forward",
    "uniforms",
    "unit_gaussian_log_likelihood_backward",
    "unit_gaussian_log_likelihood_forward",
]
