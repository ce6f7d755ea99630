"""Pure functions of arrays: the maths of the model, written once for both twins.

No parameters, no parameter paths, no randomness, no state, no Flax. Every function listed here owes a NumPy float64
oracle (`parity_tests/ops/oracles.py`) and works under strict dtype promotion and `numpy_rank_promotion("raise")`.
"""

from .attention import attend
from .cache import write_cache
from .embedding import embed, unembed
from .experts import Experts, mix_experts
from .linear import dense, head
from .loss import TokenLoss, cross_entropy
from .masks import attention_mask
from .mlp import activate, gate
from .norm import layer_norm, rms_norm
from .rope import rotate
from .router import Routing, expert_counts, load_balance, route
from .softcap import soft_cap

__all__ = [
    "Experts", "Routing", "TokenLoss", "activate", "attend", "attention_mask", "cross_entropy", "dense", "embed",
    "expert_counts", "gate", "head", "layer_norm", "load_balance", "mix_experts", "rms_norm", "rotate", "route",
    "soft_cap", "unembed", "write_cache",
]
