"""What log p(x) is.

estimate     log_evidence: one door to every method                     METHODS
importance   estimates from samples of q(z|x) or p(z), with error bars  Evidence
exact        closed forms for the linear-Gaussian model                 LinearGaussian
"""

from scratchvae.evidence.estimate import METHODS, log_evidence
from scratchvae.evidence.exact import LinearGaussian
from scratchvae.evidence.importance import Evidence

__all__ = ["METHODS", "Evidence", "LinearGaussian", "log_evidence"]
