"""scratchvae: a variational autoencoder written from scratch.

VAE, Elbo, Terms                    the model                                  vae.py
HierarchicalVAE                     the model with two stochastic layers       hierarchical.py
Gaussian, FullGaussian              what the encoder answers                   posteriors.py
ELBO, IWAE                          what training maximises                    objectives/
STL, DReG, ScoreFunction            other estimators of its gradient           objectives/
fit, History                        training                                   training.py
NotFiniteError, DivergedError       what is said when numbers overflow         finite.py
Stages                              a learning rate that changes               schedules.py
Parameters                          weights and biases by name, in one array   parameters.py
check_gradients                     proofs of the gradients                    gradcheck.py
GradientTable, GradientRow          what they answer
log_evidence, Evidence              estimates of log p(x)                      evidence/
VariationalAutoencoder              the model with scikit-learn's methods      estimator.py
reference/                          the operations in NumPy, to be read
compiled/                           their Numba twins, to be run
"""

from typing import TYPE_CHECKING, Any

from scratchvae.evidence import Evidence, log_evidence
from scratchvae.finite import DivergedError, NotFiniteError
from scratchvae.gradcheck import GradientRow, GradientTable, check_gradients
from scratchvae.hierarchical import HierarchicalVAE
from scratchvae.objectives import ELBO, IWAE, STL, DReG, ScoreFunction
from scratchvae.parameters import Parameters
from scratchvae.posteriors import FullGaussian, Gaussian
from scratchvae.schedules import Stages
from scratchvae.training import History, fit
from scratchvae.vae import VAE, Elbo, Terms

if TYPE_CHECKING:
    from scratchvae.estimator import VariationalAutoencoder

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "IWAE",
    "STL",
    "VAE",
    "DReG",
    "DivergedError",
    "Elbo",
    "Evidence",
    "FullGaussian",
    "Gaussian",
    "GradientRow",
    "GradientTable",
    "HierarchicalVAE",
    "History",
    "NotFiniteError",
    "Parameters",
    "ScoreFunction",
    "Stages",
    "Terms",
    "VariationalAutoencoder",
    "check_gradients",
    "fit",
    "log_evidence",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what needs scikit-learn when it is first asked for."""
    if name == "VariationalAutoencoder":
        from scratchvae.estimator import VariationalAutoencoder

        return VariationalAutoencoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
