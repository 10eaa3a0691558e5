"""The operations, in NumPy, to be read. From top to bottom they derive the ELBO's gradient:

dense, activations, network      what the encoder and the decoder compute
random, gather                   noise and minibatches
gaussian, posterior              the draw z ~ q(z|x) and KL(q(z|x) || p(z))
full_posterior                   the same for a q with a full covariance
bernoulli, gaussian_likelihood, continuous_bernoulli, discretised_logistic, categorical, poisson   log p(x|z)
log_sum_exp, importance          the importance-weighted bound
adam                             the update
"""

from scratchvae.reference.activations import (
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
from scratchvae.reference.adam import adam_update
from scratchvae.reference.bernoulli import bernoulli_log_likelihood_backward, bernoulli_log_likelihood_forward
from scratchvae.reference.categorical import (
    categorical_log_likelihood_backward,
    categorical_log_likelihood_forward,
)
from scratchvae.reference.continuous_bernoulli import (
    continuous_bernoulli_log_likelihood_backward,
    continuous_bernoulli_log_likelihood_forward,
)
from scratchvae.reference.decoded import decoded_bernoulli_log_likelihood, decoded_bernoulli_log_weights
from scratchvae.reference.dense import dense_backward, dense_forward
from scratchvae.reference.discretised_logistic import (
    discretised_logistic_log_likelihood_backward,
    discretised_logistic_log_likelihood_forward,
)
from scratchvae.reference.full_posterior import (
    full_gaussian_draw_scores,
    full_gaussian_log_density_backward,
    full_gaussian_log_density_forward,
    full_kl_per_dimension_backward,
    full_kl_per_dimension_forward,
    full_posterior_backward,
    full_posterior_forward,
)
from scratchvae.reference.gather import gather_rows
from scratchvae.reference.gaussian import (
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
from scratchvae.reference.gaussian_likelihood import (
    gaussian_log_likelihood_backward,
    gaussian_log_likelihood_forward,
    unit_gaussian_log_likelihood_backward,
    unit_gaussian_log_likelihood_forward,
)
from scratchvae.reference.importance import (
    effective_sample_size,
    importance_bound_backward,
    importance_bound_forward,
)
from scratchvae.reference.log_sum_exp import log_sum_exp_backward, log_sum_exp_forward
from scratchvae.reference.network import network_adam, network_backward, network_forward, network_gradient
from scratchvae.reference.poisson import (
    poisson_log_likelihood_backward,
    poisson_log_likelihood_forward,
)
from scratchvae.reference.posterior import (
    log_ratio_backward,
    log_ratio_forward,
    posterior_backward,
    posterior_forward,
)
from scratchvae.reference.random import (
    bernoulli_bytes,
    bernoulli_probabilities,
    normals,
    permutation,
    philox4x32,
    random_words,
    uniforms,
)

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
