"""Faults of what only some layers have, planted in the Linen twin: no proof, and the first finding names the line."""

import pytest

from parity_tests.prove.faults.rows import Twin

_ATTENTION, _DELTA, _MOE = "models/linen/attention.py", "models/linen/delta.py", "models/linen/moe.py"
_DECODER = "models/linen/decoder.py"

FAULTS = (
    Twin("chunks-by-order", "chunks are counted from the row's start", "llama4-scanned", "forward", _ATTENTION,
         "ops.attention_mask(order_BT, order_BT,",
         "ops.attention_mask(_arange(*segments_BT.shape), _arange(*segments_BT.shape),"),
    Twin("temper-early", "the temperature rises one position early", "llama4-scanned", "prefill", _ATTENTION,
         "ops.temper(q_BTNH, positions_BT, unrotated)", "ops.temper(q_BTNH, positions_BT + 1, unrotated)"),
    Twin("value-normed-as-key", "a value that is the key gets no norm", "gemma4-scanned", "forward", _ATTENTION,
         "self._unscaled_norm(v_BTKH) if attention.value_norm", "v_BTKH if attention.value_norm",
         lost=("models/ops/norm.py", "normed = x * lax.rsqrt(mean_square + epsilon)")),
    Twin("gate-reads-the-experts-input", "the gate reads what the experts read", "gemma4-scanned", "forward", _MOE,
         "self._mixed(inputs_BTD, residual_BTD, segments_BT)", "self._mixed(inputs_BTD, inputs_BTD, segments_BT)",
         lost=(_MOE, "inputs_BTD = make_norm(self.config, norms.experts_pre)(residual_BTD)")),
    Twin("layer-scale-from-one", "a layer's factor is one less itself", "gemma4-unscanned", "prefill", _DECODER,
         "x_BTD * self.scale_1.astype(x_BTD.dtype)", "x_BTD * (1 - self.scale_1.astype(x_BTD.dtype))"),
    Twin("gate-before-query", "a head's halves change places", "qwen3-next-scanned", "forward", _ATTENTION,
         "q_BTNH, gate_BTNH = jnp.split(q_BTNH, 2, axis=-1)", "gate_BTNH, q_BTNH = jnp.split(q_BTNH, 2, axis=-1)"),
    Twin("decay-for-rate", "what a token keeps and writes change places", "qwen3-next-scanned", "forward", _DELTA,
         "b_BTKG, a_BTKG = jnp.split(", "a_BTKG, b_BTKG = jnp.split("),
    Twin("slot-not-emptied", "a slot used again keeps the old state", "qwen3-next-scanned", "generate", _DELTA,
         "positions_BT[:, 0] == 0", "positions_BT[:, 0] < 0"),
    Twin("state-of-the-convolution-lost", "the last inputs are not kept", "qwen3-next-scanned", "generate", _DELTA,
         "_keep(leaf, state_BwC)", "_keep(leaf, leaf and leaf.value)",
         lost=("models/ops/conv.py", "valid_BS = jnp.pad(valid_BT, ((0, 0), (count, 0)), constant_values=True)")),
    Twin("shared-gate-without-sigmoid", "the shared part's gate is linear", "qwen3-next-scanned", "forward", _MOE,
         "ops.sigmoid_gate(out_BTD, logit_BT1)", "out_BTD * logit_BT1"),
)  # fmt: skip
QUICK = {"chunks-by-order", "gate-reads-the-experts-input", "slot-not-emptied"}
LATER = pytest.mark.scheduled_only


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=fault.id, marks=() if fault.id in QUICK else LATER) for fault in FAULTS]
)
def test_the_first_finding_names_a_fault_of_one_kind_of_layer(fault):
    outcome = fault.outcome()
    text = outcome.verdict.explain()
    assert outcome.noticed, text
    assert outcome.named, f"{' or '.join(map(str, outcome.lines))} is not named\n{text}"
