"""Pure functions of arrays: the maths of the model, written once for both twins.

No parameters, no parameter paths, no randomness, no state, no Flax. Every function listed here owes a NumPy float64
oracle (`parity_tests/ops/oracles.py`) and works under strict dtype promotion and `numpy_rank_promotion("raise")`.
"""

from .attention import attend
from .cache import write_cache
from .conv import Convolved, causal_conv
from .delta import Decay, Recalled, decay, gated_delta
from .embedding import embed, unembed
from .experts import Experts, mix_experts
from .linear import dense, head
from .loss import TokenLoss, cross_entropy
from .masks import attention_mask, documents
from .mlp import activate, gate, sigmoid_gate
from .norm import layer_norm, rms_norm
from .rope import rotate, temper
from .router import Routing, expert_counts, load_balance, route
from .softcap import soft_cap

__all__ = [
    "Convolved", "Decay", "Experts", "Recalled", "Routing", "TokenLoss", "activate", "attend", "attention_mask",
    "causal_conv", "cross_entropy", "decay", "dense", "documents", "embed", "expert_counts", "gate", "gated_delta",
    "head", "layer_norm", "load_balance", "mix_experts", "rms_norm", "rotate", "route", "sigmoid_gate", "soft_cap",
    "temper", "unembed", "write_cache",
]
