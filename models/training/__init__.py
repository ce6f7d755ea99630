"""Training without a framework: batches, objectives and optimizers. No Flax, no parameter paths."""

from .batch import Batch
from .objectives import LossTerms, next_token_loss, with_load_balance
from .optimizers import Clipped, clip_by_global_norm, make_optimizer, schedule

__all__ = [
    "Batch", "Clipped", "LossTerms", "clip_by_global_norm", "make_optimizer", "next_token_loss", "schedule",
    "with_load_balance",
]
