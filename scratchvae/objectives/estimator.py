"""What the estimators share: objectives whose encoder gradient is an estimate, and not the derivative of their value.

Each reports its bound as the value. For the decoder its gradient is that value's derivative, as ever; for the encoder
it has the right mean (or says where not) and another variance. `encoder_surrogate` is a function whose derivative the
encoder gradient is, so that `check_gradients` can prove it; a surrogate's value means nothing and is never reported.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

from numpy.typing import NDArray

from scratchvae.objectives.sampled import Settings


@dataclass(frozen=True)
class Estimator(Settings):
    """The number of samples, and what an estimator cannot do."""

    def of_log_weights(self, ops: ModuleType, log_weights: NDArray) -> NoReturn:
        """Raises ValueError: how log-weights came about is what an estimator is about."""
        raise ValueError(f"{self!r} needs log q itself; expected ELBO(...) or IWAE(...) for log-weights alone")
