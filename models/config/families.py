"""Families as data: what llama, gemma, qwen ... mean. A function takes sizes and returns a `ModelConfig`.

Nothing here computes, and nothing that computes asks for a family. The published sizes are in `presets.py`.
Sources: Llama 2 and 3 (Touvron et al. 2023, Dubey et al. 2024), GPT-3 (Brown et al. 2020), Gemma 1 to 3 (Gemma Team
2024, 2024, 2025), Mistral 7B and Mixtral (Jiang et al. 2023, 2024), Qwen 2.5 and 3 (Qwen Team 2024, 2025), OLMo 3 (OLMo
Team 2025), DeepSeek V2 and V3 (DeepSeek-AI 2024, 2024), Kimi K2 (Kimi Team 2025), GPT-OSS (OpenAI 2025), Llama 4 (Meta
2025), Qwen3-Next (Qwen Team 2025), Gemma 4 (Gemma Team 2026).
"""

import dataclasses
import math

from .schema import (
    Attention,
    BlockNorms,
    BranchNorms,
    GatedDelta,
    LatentAttention,
    Layer,
    Mlp,
    ModelConfig,
    Moe,
    Router,
)
from .words import (
    Activation,
    LayerNorm,
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    Projection,
    QkNorm,
    RmsNorm,
    Rope,
    Score,
    Unrotated,
    YarnScaling,
)

LLAMA3_SCALING = Llama3Scaling(factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_length=8192)
PRE_NORMS = BlockNorms("pre_self_attention_layer_norm", None, "post_self_attention_layer_norm", None)
GEMMA_NORMS = BlockNorms("pre_self_attention_norm", None, "pre_ffw_norm", None)
SANDWICH_NORMS = BlockNorms("pre_self_attention_norm", "post_self_attention_norm", "pre_ffw_norm", "post_ffw_norm")
POST_NORMS = BlockNorms(None, "post_self_attention_layer_norm", None, "post_mlp_layer_norm")


def named(*layers: Layer) -> tuple[Layer, ...]:
    """A cycle whose layers are modules of their own: `layers_0`, `layers_1`, ..."""
    return tuple(dataclasses.replace(layer, name=f"layers_{index}") for index, layer in enumerate(layers))


def llama(
    *,
    vocab_size: int,
    embed_dim: int,
    num_layers: int,
    heads: tuple[int, int],
    head_dim: int,
    hidden_dim: int,
    rope: Rope = Rope(),  # noqa: B008 - frozen
    tied_head: bool = False,
) -> ModelConfig:
    """Llama 2 and 3: pre-norm RMSNorm, SwiGLU, rotary grouped-query attention. `heads`: query heads, key heads."""
    return ModelConfig(
        family="llama",
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_layers=num_layers,
        attention=Attention(num_heads=heads[0], num_kv_heads=heads[1], head_dim=head_dim),
        mlp=Mlp(hidden_dim=hidden_dim, activation=Activation.SILU, gated=True),
        norm=RmsNorm(epsilon=1e-5),
        positions=rope,
        block_norms=PRE_NORMS,
        tied_head=tied_head,
    )


def mistral(*, window: int | None = None, max_timescale: float = 1_000_000.0, **sizes) -> ModelConfig:
    """Mistral: llama with a sliding window of `window` keys, or none (version 0.2 on)."""
    return llama(rope=Rope(max_timescale=max_timescale), **sizes).replace(
        family="mistral", cycle=(Layer(window=window),)
    )


def qwen2(*, max_timescale: float = 1_000_000.0, **sizes) -> ModelConfig:
    """Qwen 2 and 2.5: llama with a bias on query, key and value."""
    plain = llama(rope=Rope(max_timescale=max_timescale), **sizes)
    attention = dataclasses.replace(plain.attention, qkv_bias=True)
    return plain.replace(family="qwen2", attention=attention, norm=RmsNorm(epsilon=1e-6))


def qwen3(*, max_timescale: float = 1_000_000.0, **sizes) -> ModelConfig:
    """Qwen 3, dense: llama with a norm on each head's query and key."""
    plain = llama(rope=Rope(max_timescale=max_timescale), **sizes)
    attention = dataclasses.replace(plain.attention, qk_norm=QkNorm.HEAD)
    return plain.replace(family="qwen3", attention=attention, norm=RmsNorm(epsilon=1e-6))


def olmo3(*, window: int = 4096, scaling: YarnScaling | None = None, **sizes) -> ModelConfig:
    """OLMo 3: norms after each part, a norm over all heads of query and key, three sliding layers to a full one.

    Only the full layers' positions are scaled.
    """
    rope = Rope(max_timescale=500_000.0)
    plain = llama(rope=dataclasses.replace(rope, scaling=scaling), **sizes)
    sliding = Layer(window=window, rope=rope)
    return plain.replace(
        family="olmo3",
        attention=dataclasses.replace(plain.attention, qk_norm=QkNorm.WIDTH),
        norm=RmsNorm(epsilon=1e-6),
        block_norms=POST_NORMS,
        cycle=named(sliding, sliding, sliding, Layer()),
    )


def gpt3(
    *,
    vocab_size: int,
    embed_dim: int,
    num_layers: int,
    num_heads: int,
    head_dim: int,
    hidden_dim: int,
    position_length: int,
) -> ModelConfig:
    """GPT-3: LayerNorm and biases everywhere, learned positions, fused multi-head projection, tied head."""
    attention = Attention(
        num_heads=num_heads, num_kv_heads=num_heads, head_dim=head_dim, projection=Projection.FUSED,
        qkv_bias=True, out_bias=True,
    )  # fmt: skip
    return ModelConfig(
        family="gpt3",
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_layers=num_layers,
        attention=attention,
        mlp=Mlp(hidden_dim=hidden_dim, activation=Activation.GELU, gated=False, bias=True, input_norm="mlp_layer_norm"),
        norm=LayerNorm(epsilon=1e-5, zero_centered=True),
        positions=LearnedPositions(length=position_length),
        block_norms=BlockNorms("pre_self_attention_norm", None, None, None),
        tied_head=True,
    )


def gemma(
    *,
    vocab_size: int,
    embed_dim: int,
    num_layers: int,
    heads: tuple[int, int],
    head_dim: int,
    hidden_dim: int,
    query_scale: float | None = None,
) -> ModelConfig:
    """Gemma 1: head dim of its own, GeGLU, scales around one, scaled embedding, tied head."""
    return ModelConfig(
        family="gemma",
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_layers=num_layers,
        attention=Attention(num_heads=heads[0], num_kv_heads=heads[1], head_dim=head_dim, query_scale=query_scale),
        mlp=Mlp(hidden_dim=hidden_dim, activation=Activation.GELU, gated=True),
        norm=RmsNorm(epsilon=1e-6, zero_centered=True),
        positions=Rope(),
        block_norms=GEMMA_NORMS,
        scale_embedding=True,
        tied_head=True,
    )


def gemma2(*, window: int = 4096, **sizes) -> ModelConfig:
    """Gemma 2: norms before and after each part, soft caps, pairs of a local and a global layer."""
    plain = gemma(**sizes)
    return plain.replace(
        family="gemma2",
        attention=dataclasses.replace(plain.attention, soft_cap=50.0),
        block_norms=SANDWICH_NORMS,
        cycle=(Layer(window=window, suffix="_local"), Layer(suffix="_global")),
        final_soft_cap=30.0,
    )


def gemma3(*, window: int = 1024, factor: float = 8.0, **sizes) -> ModelConfig:
    """Gemma 3: five local layers to a global one, each kind with its own rotary base, norms on query and key."""
    plain = gemma(**sizes)
    local = Layer(window=window, rope=Rope(max_timescale=10_000.0))
    return plain.replace(
        family="gemma3",
        attention=dataclasses.replace(plain.attention, qk_norm=QkNorm.HEAD),
        positions=Rope(max_timescale=1_000_000.0, scaling=LinearScaling(factor)),
        block_norms=SANDWICH_NORMS,
        cycle=named(*[local] * 5, Layer()),
    )


def gemma4(
    *, global_heads: tuple[int, int], experts: tuple[int, int] | None, expert_dim: int = 0, window: int = 1024, **sizes
) -> ModelConfig:
    """Gemma 4: gemma 3's cycle with wider heads in global layers, whose value is their key and whose head turns by a
    quarter; values normed, layers scaled. `experts` beside the MLP, or `None`. `global_heads`: key heads, head dim.
    """
    plain = gemma(query_scale=1.0, **sizes)
    local = dataclasses.replace(plain.attention, qk_norm=QkNorm.HEAD, value_norm=True)
    wide = dataclasses.replace(local, num_kv_heads=global_heads[0], head_dim=global_heads[1], share_kv=True)
    turning = Rope(max_timescale=1_000_000.0, fraction=0.25, proportional=True)
    mixed = plain.replace(
        family="gemma4",
        attention=local,
        norm=RmsNorm(epsilon=1e-6),
        block_norms=SANDWICH_NORMS,
        cycle=named(*[Layer(window=window)] * 5, Layer(attention=wide, rope=turning)),
        final_soft_cap=30.0,
        layer_scale=True,
    )
    if experts is None:
        return mixed
    router = Router(*experts, normalized=True, expert_scale=True, input_scale=True)
    norms = BranchNorms("post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2")
    shared = plain.mlp.hidden_dim
    return mixed.replace(mlp=Moe(router, expert_dim, Activation.GELU, shared_hidden_dim=shared, branch_norms=norms))


def mixtral(*, experts: tuple[int, int], capacity_factor: float | None = None, **sizes) -> ModelConfig:
    """Mixtral: mistral with a mixture of experts for its MLP. `experts`: how many there are, how many are chosen."""
    plain = mistral(**sizes)
    router = Router(*experts, normalized=True)
    moe = Moe(router, plain.mlp.hidden_dim, capacity_factor=capacity_factor)
    return plain.replace(family="mixtral", mlp=moe)


def qwen3_moe(*, experts: tuple[int, int], **sizes) -> ModelConfig:
    """Qwen 3 with a mixture of many small experts for its MLP."""
    plain = qwen3(**sizes)
    return plain.replace(family="qwen3_moe", mlp=Moe(Router(*experts, normalized=True), plain.mlp.hidden_dim))


def qwen3_next(*, experts: tuple[int, int], delta: GatedDelta, **sizes) -> ModelConfig:
    """Qwen3-Next: three layers of gated delta rule to one of gated attention, a quarter of whose heads turns."""
    plain = qwen3(**sizes)
    moe = Moe(Router(*experts, normalized=True), plain.mlp.hidden_dim, shared_hidden_dim=plain.mlp.hidden_dim)
    linear = Layer(attention=delta)
    return plain.replace(
        family="qwen3_next",
        attention=dataclasses.replace(plain.attention, out_gate=True),
        mlp=dataclasses.replace(moe, shared_gate=True),
        norm=RmsNorm(epsilon=1e-6, zero_centered=True),
        positions=dataclasses.replace(plain.positions, fraction=0.25),
        cycle=named(linear, linear, linear, Layer()),
    )


def llama4(
    *, experts: int, interleave: int, dense_dim: int, qk_norm: QkNorm | None, chunk: int, nope: Unrotated, **sizes
) -> ModelConfig:
    """Llama 4: three layers that read their own chunk to one without positions that reads all; one expert a token.

    Each `interleave`-th layer is a mixture with a shared expert of the same width, the others are dense.
    """
    plain = llama(**sizes)
    width = plain.mlp.hidden_dim
    moe = Moe(Router(experts, 1, score=Score.SIGMOID), width, shared_hidden_dim=width, scale_inputs=True)
    dense = dataclasses.replace(plain.mlp, hidden_dim=dense_dim)
    cycle = (Layer(chunk=chunk),) * 3 + (Layer(rope=nope),)
    mlps = [None if (index + 1) % interleave == 0 else dense for index in range(len(cycle))]
    return plain.replace(
        family="llama4",
        attention=dataclasses.replace(plain.attention, qk_norm=qk_norm),
        mlp=moe,
        cycle=named(*(dataclasses.replace(layer, mlp=mlp) for layer, mlp in zip(cycle, mlps, strict=True))),
    )


def gpt_oss(*, experts: tuple[int, int], scaling: YarnScaling, window: int = 128, **sizes) -> ModelConfig:
    """GPT-OSS: attention sinks, biases everywhere, pairs of a sliding and a full layer, clamped experts."""
    plain = llama(rope=Rope(max_timescale=150_000.0, scaling=scaling), **sizes)
    moe = Moe(
        Router(*experts, score=Score.SOFTMAX_OF_CHOSEN, logit_bias=True), plain.mlp.hidden_dim,
        activation=Activation.QUICK_GELU, bias=True, clamp=7.0, linear_offset=1.0,
    )  # fmt: skip
    attention = dataclasses.replace(plain.attention, qkv_bias=True, out_bias=True, sinks=True)
    return plain.replace(family="gpt_oss", attention=attention, mlp=moe, cycle=named(Layer(window=window), Layer()))


def deepseek(
    *,
    vocab_size: int,
    embed_dim: int,
    layers: tuple[int, int],
    widths: tuple[int, int],
    attention: LatentAttention,
    router: Router,
    num_shared_experts: int,
    rope: Rope,
) -> ModelConfig:
    """DeepSeek V2, V3 and Kimi K2: latent attention, dense layers first, then routed and shared experts.

    `layers`: how many, and how many of them are dense. `widths`: of a dense layer's MLP, and of one expert.
    """
    hidden_dim, expert_dim = widths
    return ModelConfig(
        family="deepseek",
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_layers=layers[0],
        attention=attention,
        mlp=Moe(router, expert_dim, shared_hidden_dim=num_shared_experts * expert_dim),
        norm=RmsNorm(epsilon=1e-6),
        positions=rope,
        block_norms=PRE_NORMS,
        prefix=Layer(mlp=Mlp(hidden_dim=hidden_dim, activation=Activation.SILU, gated=True)),
        num_prefix_layers=layers[1],
    )


def stretched(attention: LatentAttention, factor: float, mscale: float = 1.0) -> LatentAttention:
    """The attention with YaRN's factor on the logits in its query scale: `(0.1 mscale ln(factor) + 1) ** 2`."""
    plain = (attention.nope_dim + attention.rope_dim) ** -0.5
    return dataclasses.replace(attention, query_scale=plain * (0.1 * mscale * math.log(factor) + 1.0) ** 2)
