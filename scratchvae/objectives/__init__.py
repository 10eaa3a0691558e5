"""What training maximises, and its gradient with respect to the terms the model hands over.

sampled.py          the record an objective sees, the record of gradients it answers with, and what it is told
log_weights.py      log w = log p(x|z) + log p(z) - log q(z|x), and back
elbo.py             the evidence lower bound; beta, free bits, warm-up, Monte Carlo KL
iwae.py             the importance-weighted bound
estimator.py        what the next three share: a bound as the value, and an encoder gradient that estimates its own
stl.py              the pathwise gradient, without the score: 0 where q is the posterior
dreg.py             the importance-weighted bound's gradient, reparameterized twice
score_function.py   the ELBO's gradient by the score alone, for comparison
"""

from types import MappingProxyType

from scratchvae.arguments import in_short
from scratchvae.objectives.dreg import DReG
from scratchvae.objectives.elbo import ELBO, KLS
from scratchvae.objectives.iwae import IWAE
from scratchvae.objectives.sampled import Objective, Sampled, Upstream
from scratchvae.objectives.score_function import ScoreFunction
from scratchvae.objectives.stl import STL

__all__ = [
    "ELBO",
    "IWAE",
    "KLS",
    "OBJECTIVES",
    "STL",
    "DReG",
    "Objective",
    "Sampled",
    "ScoreFunction",
    "Upstream",
    "check_objective",
]

OBJECTIVES = MappingProxyType({"elbo": ELBO, "iwae": IWAE, "stl": STL, "dreg": DReG, "score-function": ScoreFunction})


def check_objective(objective: object) -> None:
    """Raises ValueError for what is not an objective: a name, or a class without its brackets."""
    if isinstance(objective, type) or not (hasattr(objective, "evaluate") and hasattr(objective, "num_samples")):
        names = ", ".join(f"{kind.__name__}(...)" for kind in OBJECTIVES.values())
        raise ValueError(f"objective is {in_short(objective)}; expected one of {names}")
