"""scratchvae: a variational autoencoder written from scratch.

VAE, Gaussian, Elbo, Terms          the model                                  vae.py
HierarchicalVAE                     the model with two stochastic layers       hierarchical.py
ELBO, IWAE                          what training maximises                    objectives/
fit, History, DivergedError         training                                   training.py
Stages                              a learning rate that changes               schedules.py
check_gradients, GradientTable      proofs of the gradients                    gradcheck.py
log_evidence, Evidence              estimates of log p(x)                      evidence/
reference/                          the operations in NumPy, to be read
compiled/                           their Numba twins, to be run
"""

from scratchvae.evidence import Evidence, log_evidence
from scratchvae.gradcheck import GradientRow, GradientTable, check_gradients
from scratchvae.hierarchical import HierarchicalVAE
from scratchvae.objectives import ELBO, IWAE
from scratchvae.parameters import Parameters
from scratchvae.schedules import Stages
from scratchvae.training import DivergedError, History, fit
from scratchvae.vae import VAE, Elbo, Gaussian, Terms

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "IWAE",
    "VAE",
    "DivergedError",
    "Elbo",
    "Evidence",
    "Gaussian",
    "GradientRow",
    "GradientTable",
    "HierarchicalVAE",
    "History",
    "Parameters",
    "Stages",
    "Terms",
    "check_gradients",
    "fit",
    "log_evidence",
]
