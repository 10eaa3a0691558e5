"""What log p(x) is. `importance`: estimates from samples, with their error bars."""

from scratchvae.evidence.importance import Evidence, log_evidence

__all__ = ["Evidence", "log_evidence"]
