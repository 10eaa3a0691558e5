"""What training maximises, and its gradient with respect to the terms the model hands over.

sampled.py       the record an objective sees, and the record of gradients it answers with
elbo.py          the evidence lower bound
iwae.py          the importance-weighted bound
log_weights.py   log w = log p(x|z) + log p(z) - log q(z|x), and back
"""

from types import MappingProxyType

from scratchvae.objectives.elbo import ELBO
from scratchvae.objectives.iwae import IWAE
from scratchvae.objectives.sampled import Objective, Sampled, Upstream

__all__ = ["ELBO", "IWAE", "OBJECTIVES", "Objective", "Sampled", "Upstream", "check_objective"]

OBJECTIVES = MappingProxyType({"elbo": ELBO, "iwae": IWAE})


def check_objective(objective: object) -> None:
    """Raises ValueError for what is not an objective: a name, or a class without its brackets."""
    if isinstance(objective, type) or not hasattr(objective, "evaluate"):
        raise ValueError(f"objective is {objective!r}; expected ELBO(...) or IWAE(...)")
