"""Bugs of the migration, planted in one twin's source or in its tooling, and what has to notice each.

A fault is an edit of one file. The meta tests make it in a scratch copy of the tree, run the gate's own command there,
and hold the report against `names`: the file whose line was edited, and words that the report has to contain.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SourceFault:
    """An edit, the case that must turn red, and what its report must name."""

    id: str
    path: str
    old: str
    new: str
    label: str
    step: str
    names: tuple[str, ...]


TWIN_FAULTS = (
    SourceFault(
        id="norm-ignores-its-epsilon",
        path="models/nnx/layers.py",
        old="x, self.scale[...], epsilon=norm.epsilon,",
        new="x, self.scale[...], epsilon=1e-6,",
        label="llama-scanned",
        step="forward",
        names=("models/nnx/layers.py", "RmsNorm.__call__", "pre_self_attention_layer_norm"),
    ),
    SourceFault(
        id="two-norms-swapped",
        path="models/nnx/decoder.py",
        old="normed = self._norm(norms.pre_attention, x)",
        new="normed = self._norm(norms.pre_mlp, x)",
        label="llama-scanned",
        step="forward",
        names=("models/nnx/decoder.py:{line}", "self_attention"),
    ),
    SourceFault(
        id="causal-mask-off-by-one",
        path="models/linen/attention.py",
        old="ops.attention_mask(order_BT, order_BT, segments_BT",
        new="ops.attention_mask(order_BT - 1, order_BT, segments_BT",
        label="llama-scanned",
        step="forward",
        names=("models/linen/attention.py:{line}",),
    ),
    SourceFault(
        id="bias-dropped",
        path="models/nnx/layers.py",
        old="            x, self.kernel[...], bias, num_contracted",
        new="            x, self.kernel[...], None, num_contracted",
        label="gpt3-unscanned",
        step="forward",
        names=("models/linen/layers.py", "qkv_proj"),
    ),
    SourceFault(
        id="soft-cap-forgotten",
        path="models/linen/attention.py",
        old="scale=attention.scale, soft_cap=attention.soft_cap)",
        new="scale=attention.scale, soft_cap=None)",
        label="gemma2-unscanned",
        step="loss_and_grads",
        names=("models/linen/attention.py",),
    ),
    SourceFault(
        id="gradients-not-clipped",
        path="models/nnx/steps.py",
        old="train_state.apply_gradients(clipped.grads)",
        new="train_state.apply_gradients(grads)",
        label="llama-scanned",
        step="train_step",
        names=("models/linen/steps.py",),
    ),
    SourceFault(
        id="cache-written-one-slot-late",
        path="models/nnx/attention.py",
        old="start_B = context.positions[:, 0]",
        new="start_B = context.positions[:, 0] + 1",
        label="llama-unscanned",
        step="generate",
        names=("models/nnx/attention.py",),
    ),
    SourceFault(
        id="layers-own-positions-ignored",
        path="models/linen/attention.py",
        old="match self.config.positions_of(self.layer):",
        new="match self.config.positions:",
        label="gemma3-scanned",
        step="forward",
        names=("models/linen/attention.py", "layers_0"),
    ),
    SourceFault(
        id="norm-over-each-head-for-all-heads",
        path="models/linen/attention.py",
        old="wide_BTW = x_BTNH.reshape(*x_BTNH.shape[:2], -1)",
        new="wide_BTW = x_BTNH.swapaxes(2, 3).reshape(*x_BTNH.shape[:2], -1)",
        label="olmo3-unscanned",
        step="forward",
        names=("models/linen/attention.py", "query_norm"),
    ),
    SourceFault(
        id="key-normed-by-the-querys-scale",
        path="models/nnx/attention.py",
        old="k_BTKH = self._normed(k_BTKH, self.key_norm)",
        new="k_BTKH = self._normed(k_BTKH, self.query_norm)",
        label="qwen3-scanned",
        step="forward",
        names=("models/nnx/attention.py:{line}",),
    ),
    SourceFault(
        id="remainder-runs-before-the-cycles",
        path="models/linen/decoder.py",
        old="for stack in config.stacks:",
        new="for stack in reversed(config.stacks):",
        label="gemma3-unscanned",
        step="generate",
        names=("layers_remainder",),
    ),
    SourceFault(
        id="chunks-counted-from-the-row",
        path="models/nnx/attention.py",
        old="if layer.chunk is None else context.positions",
        new="if layer.chunk != 0 else context.positions",
        label="llama4-scanned",
        step="forward",
        names=("models/nnx/attention.py", "layers_0"),
    ),
    SourceFault(
        id="slot-goes-on-from-its-last-text",
        path="models/nnx/delta.py",
        old="begins_B = context.positions[:, 0] == 0",
        new="begins_B = context.positions[:, 0] < 0",
        label="qwen3-next-scanned",
        step="prefill",
        names=("models/nnx/delta.py:{line}",),
    ),
    SourceFault(
        id="router-reads-the-normed-stream",
        path="models/nnx/moe.py",
        old="self._norm(norms.experts_pre, residual), residual, context",
        new="self._norm(norms.experts_pre, residual), x, context",
        label="gemma4-scanned",
        step="forward",
        names=("moe/gate", "pre_ffw_norm"),
    ),
)

# The same wrong line in both twins: parity cannot see it, a witness or a golden must.
COMMON_FAULTS = (
    SourceFault(
        id="rope-base-wrong-in-both",
        path="models/ops/rope.py",
        old="(np.arange(0, turning, 2, dtype=np.float64) / turning)",
        new="(np.arange(0, turning, 2, dtype=np.float64) / (turning + 2))",
        label="llama-scanned",
        step="forward",
        names=("ratio",),
    ),
)
