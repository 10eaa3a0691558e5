"""What log p(x) is.

estimate     log_evidence: one door to every method                     METHODS
importance   estimates from samples of q(z|x) or p(z), with error bars  Evidence
annealed     annealed importance sampling: bounds from both sides       annealed_importance, bidirectional, Bounds
quadrature   integration over z, for at most three latent dimensions    integrate, posterior_on_grid, Quadrature
surgery      what the average KL to the prior is made of; active units  elbo_surgery, active_units
exact        closed forms for the linear-Gaussian model                 LinearGaussian
door         what all of them go through: sums in one order, no NaN unseen (integration answers NaN, its error infinite)
gap          log p(x) - ELBO: the fault of q's family or the encoder's  inference_gap, best_posterior, Gap
"""

from scratchvae.evidence.annealed import Bounds, annealed_importance, bidirectional
from scratchvae.evidence.estimate import METHODS, log_evidence
from scratchvae.evidence.exact import LinearGaussian
from scratchvae.evidence.gap import Gap, best_posterior, inference_gap
from scratchvae.evidence.importance import Evidence
from scratchvae.evidence.quadrature import PosteriorGrid, Quadrature, integrate, posterior_on_grid
from scratchvae.evidence.surgery import (
    Surgery,
    active_units,
    active_units_by_layer,
    elbo_surgery,
    elbo_surgery_by_quadrature,
)

__all__ = [
    "METHODS",
    "Bounds",
    "Evidence",
    "Gap",
    "LinearGaussian",
    "PosteriorGrid",
    "Quadrature",
    "Surgery",
    "active_units",
    "active_units_by_layer",
    "annealed_importance",
    "best_posterior",
    "bidirectional",
    "elbo_surgery",
    "elbo_surgery_by_quadrature",
    "inference_gap",
    "integrate",
    "log_evidence",
    "posterior_on_grid",
]
