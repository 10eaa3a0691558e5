"""What log p(x) is.

estimate     log_evidence: one door to every method                     METHODS
importance   estimates from samples of q(z|x) or p(z), with error bars  Evidence
quadrature   integration over z, for at most three latent dimensions    integrate, posterior_on_grid, Quadrature
exact        closed forms for the linear-Gaussian model                 LinearGaussian
"""

from scratchvae.evidence.estimate import METHODS, log_evidence
from scratchvae.evidence.exact import LinearGaussian
from scratchvae.evidence.importance import Evidence
from scratchvae.evidence.quadrature import PosteriorGrid, Quadrature, integrate, posterior_on_grid

__all__ = [
    "METHODS",
    "Evidence",
    "LinearGaussian",
    "PosteriorGrid",
    "Quadrature",
    "integrate",
    "log_evidence",
    "posterior_on_grid",
]
