"""The config space: every knob and its values, a builder, Hypothesis strategies by stratum and a pairwise covering set.

The first value of a knob is its simplest one, so that a failing config shrinks towards the plainest model.
"""

import dataclasses
import itertools
import typing
from collections.abc import Mapping

from allpairspy import AllPairs
from hypothesis import strategies as st

from models.config import (
    Activation,
    AdamW,
    Attention,
    BlockNorms,
    BranchNorms,
    DType,
    GatedDelta,
    LatentAttention,
    Layer,
    LayerNorm,
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    Mlp,
    ModelConfig,
    Moe,
    Projection,
    QkNorm,
    Remat,
    RmsNorm,
    Rope,
    Router,
    Score,
    TrainConfig,
    Unrotated,
    YarnScaling,
)

from .setup import Setup

KNOBS: dict[str, tuple[typing.Any, ...]] = {
    "num_blocks": (2, 1, 3),
    "cycle": ((None,), (3,), (4, None), (3, 5, None)),
    "remainder": (0, 1, 2),
    "named_layers": (False, True),
    "chunked": (False, True),
    "own_rope": (None, "turning", "none", "tempered"),
    "own_attention": (None, "wide", "delta"),
    "norm": ("rms", "rms_zero", "layer", "layer_zero"),
    "epsilon": (1e-5, 1e-6, 1e-3),
    "positions": ("rope", "rope_long", "learned"),
    "rope_fraction": (1.0, 0.5, "half the pairs"),
    "interleaved": (False, True),
    "rope_scaling": (None, "linear", "llama3", "yarn"),
    "heads": ((4, 2), (2, 2), (4, 1), (6, 3)),
    "head_dim": (4, 12, 8),
    "projection": ("separate", "fused"),
    "qkv_bias": (False, True),
    "out_bias": (False, True),
    "qk_norm": (None, "head", "width", "l2"),
    "out_gate": (False, True),
    "value_norm": (False, True),
    "share_kv": (False, True),
    "query_scale": (None, 1.0, 0.3),
    "soft_cap": (None, 5.0),
    "activation": ("silu", "gelu", "quick_gelu"),
    "gated": (True, False),
    "mlp_bias": (False, True),
    "mlp_norm": ("block", "inside", "none"),
    "experts": (None, "softmax", "sigmoid_groups", "of_chosen", "scaled"),
    "capacity_factor": (None, 0.7),
    "scale_inputs": (False, True),
    "shared_experts": (None, "plain", "gated", "branch"),
    "clamp": (None, 0.5),
    "prefix": (0, 1, 2),
    "latent": (None, "plain", "low_rank"),
    "sinks": (False, True),
    "pre_attention": (True, False),
    "post_attention": (False, True),
    "post_mlp": (False, True),
    "layer_scale": (False, True),
    "scale_embedding": (False, True),
    "tied_head": (False, True),
    "final_soft_cap": (None, 7.0),
    "dropout_rate": (0.0, 0.1),
    "dtype": ("float32", "bfloat16"),
    "weight_dtype": ("float32", "bfloat16"),
    "remat": ("none", "save_dots", "full"),
    "vocab_size": (61, 97),
    "embed_dim": (16, 24),
    "hidden_dim": (20, 32),
    "z_loss": (0.0, 1e-3),
    "clip_norm": (None, 1.0, 0.1),
    "weight_decay": (0.0, 0.1),
}
NORMS = {
    "rms": (RmsNorm, False),
    "rms_zero": (RmsNorm, True),
    "layer": (LayerNorm, False),
    "layer_zero": (LayerNorm, True),
}
TIMESCALES = {"rope": 10_000.0, "rope_long": 500_000.0}
SCALINGS = {
    None: None,
    "linear": LinearScaling(factor=8.0),
    "llama3": Llama3Scaling(factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_length=16),
    "yarn": YarnScaling(factor=4.0, original_length=16),
}
ROUTERS = {
    "softmax": Router(5, 2, normalized=True),
    "sigmoid_groups": Router(
        6, 3, score=Score.SIGMOID, normalized=True, scale=1.5, choice_bias=True, num_groups=3, num_chosen_groups=2,
        group_top=2,
    ),
    "of_chosen": Router(4, 3, score=Score.SOFTMAX_OF_CHOSEN, logit_bias=True),
    "scaled": Router(5, 2, normalized=True, expert_scale=True, input_scale=True),
}  # fmt: skip
OWN_ROPES = {
    None: None,
    "turning": Rope(max_timescale=100.0),
    "none": Unrotated(),
    "tempered": Unrotated(temperature=0.5, length=3),
}
BRANCHES = BranchNorms("post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2")
FAMILIES = ("llama", "gpt3", "gemma2")


@dataclasses.dataclass(frozen=True)
class Stratum:
    """A slice of the space that one test item draws from."""

    family: str
    scan_layers: bool
    step: str
    part: int = 0

    @property
    def id(self) -> str:
        """`llama-scanned-train_step-0`."""
        return f"{self.family}-{'scanned' if self.scan_layers else 'unscanned'}-{self.step}-{self.part}"


def strata(parts: int = 1) -> list[Stratum]:
    """Every stratum; train steps, which cover most, in twice as many parts."""
    steps = ("train_step", "loss_and_grads", "forward", "prefill", "generate")
    return [
        Stratum(family, scan, step, part)
        for family, scan, step in itertools.product(FAMILIES, (True, False), steps)
        for part in range(parts * (2 if step == "train_step" else 1))
    ]


def setups(stratum: Stratum) -> st.SearchStrategy[Setup]:
    """Random setups of a stratum."""
    knobs = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in KNOBS.items()})
    return knobs.map(lambda drawn: build(stratum.family, stratum.scan_layers, drawn))


def covering_rows() -> list[dict[str, typing.Any]]:
    """A small set of knob values in which every two values of every two knobs occur together at least once."""
    spaces = {"scan_layers": (True, False), "family": FAMILIES, **KNOBS}
    return [dict(zip(spaces, row, strict=True)) for row in AllPairs([list(values) for values in spaces.values()])]


def covering() -> list[Setup]:
    """The setups of the covering rows."""
    return [build(row.pop("family"), row.pop("scan_layers"), row) for row in covering_rows()]


def build(family: str, scan_layers: bool, knobs: Mapping[str, typing.Any]) -> Setup:
    """The setup that these knobs mean. What a knob cannot have beside another gives way: see the helpers."""
    kind, zero_centered = NORMS[knobs["norm"]]
    cycle, mlp, num_prefix = _cycle(knobs), _mlp(knobs), knobs["prefix"]
    model = ModelConfig(
        family=family,
        vocab_size=knobs["vocab_size"],
        embed_dim=knobs["embed_dim"],
        num_layers=num_prefix + knobs["num_blocks"] * len(cycle) + min(knobs["remainder"], len(cycle) - 1),
        attention=_latent(knobs) if _is_latent(knobs) else _attention(knobs),
        mlp=_moe(knobs) if knobs["experts"] else mlp,
        norm=kind(epsilon=knobs["epsilon"], zero_centered=zero_centered),
        positions=_positions(knobs),
        block_norms=_block_norms(knobs),
        cycle=cycle,
        prefix=Layer(mlp=mlp) if num_prefix else None,
        num_prefix_layers=num_prefix,
        scale_embedding=knobs["scale_embedding"],
        tied_head=knobs["tied_head"],
        final_soft_cap=knobs["final_soft_cap"],
        dropout_rate=knobs["dropout_rate"],
        dtype=DType(knobs["dtype"]),
        weight_dtype=DType(knobs["weight_dtype"]),
        scan_layers=scan_layers,
        remat=Remat(knobs["remat"]),
        layer_scale=knobs["layer_scale"],
    )
    return Setup(model, _train(knobs))


def _cycle(knobs: Mapping[str, typing.Any]) -> tuple[Layer, ...]:
    """The windows' layers, the first with what is its own. A plain cycle of one needs no names."""
    windows, named = knobs["cycle"], knobs["named_layers"]
    layers = [
        Layer(
            window=None if knobs["chunked"] else window,
            chunk=window if knobs["chunked"] else None,
            suffix=f"_{index}" if len(windows) > 1 and not named else "",
            name=f"layers_{index}" if named else None,
        )
        for index, window in enumerate(windows)
    ]
    return (_with_its_own(layers[0], knobs), *layers[1:])


def _with_its_own(layer: Layer, knobs: Mapping[str, typing.Any]) -> Layer:
    """Learned positions leave a layer no rope, latent attention none that does not turn.

    A state reads by neither rope nor window nor chunk, and needs RMSNorm.
    """
    own, rms = knobs["own_attention"], NORMS[knobs["norm"]][0] is RmsNorm
    if own == "delta" and rms:
        return dataclasses.replace(layer, window=None, chunk=None, attention=GatedDelta(2, 4, 3, 5, chunk=4))
    attention = _attention({**knobs, "heads": (4, 1), "head_dim": 16, "share_kv": True}) if own == "wide" else None
    rope = OWN_ROPES[knobs["own_rope"]] if knobs["positions"] != "learned" else None
    if isinstance(rope, Unrotated) and attention is None and _is_latent(knobs):
        rope = None
    return dataclasses.replace(layer, attention=attention, rope=rope)


def _attention(knobs: Mapping[str, typing.Any]) -> Attention:
    """A fused projection has as many key heads as query heads, no norm over its width, no gate, and a value of its own.

    Only RMSNorm norms heads.
    """
    fused, (heads, kv_heads) = knobs["projection"] == "fused", knobs["heads"]
    rms = NORMS[knobs["norm"]][0] is RmsNorm
    qk_norm = "head" if fused and knobs["qk_norm"] == "width" else knobs["qk_norm"]
    return Attention(
        num_heads=heads,
        num_kv_heads=heads if fused else kv_heads,
        head_dim=knobs["head_dim"],
        projection=Projection(knobs["projection"]),
        qkv_bias=knobs["qkv_bias"],
        out_bias=knobs["out_bias"],
        qk_norm=QkNorm(qk_norm) if qk_norm and rms else None,
        query_scale=knobs["query_scale"],
        soft_cap=knobs["soft_cap"],
        sinks=knobs["sinks"],
        out_gate=knobs["out_gate"] and not fused,
        value_norm=knobs["value_norm"] and rms,
        share_kv=knobs["share_kv"] and not fused,
    )


def _is_latent(knobs: Mapping[str, typing.Any]) -> bool:
    """Latent attention needs RMSNorm and rotary positions."""
    return knobs["latent"] is not None and NORMS[knobs["norm"]][0] is RmsNorm and knobs["positions"] != "learned"


def _latent(knobs: Mapping[str, typing.Any]) -> LatentAttention:
    return LatentAttention(
        num_heads=knobs["heads"][0], kv_rank=10, nope_dim=knobs["head_dim"], rope_dim=6, value_dim=5,
        query_rank=14 if knobs["latent"] == "low_rank" else None, query_scale=knobs["query_scale"],
    )  # fmt: skip


def _positions(knobs: Mapping[str, typing.Any]) -> Rope | LearnedPositions:
    if knobs["positions"] == "learned":
        return LearnedPositions(length=32)
    fraction = 1.0 if _is_latent(knobs) else knobs["rope_fraction"]
    proportional = fraction == "half the pairs" and not knobs["interleaved"] and knobs["rope_scaling"] != "yarn"
    return Rope(
        max_timescale=TIMESCALES[knobs["positions"]],
        fraction=0.5 if isinstance(fraction, str) else fraction,
        interleaved=knobs["interleaved"],
        scaling=SCALINGS[knobs["rope_scaling"]],
        proportional=proportional,
    )


def _mlp(knobs: Mapping[str, typing.Any]) -> Mlp:
    return Mlp(
        hidden_dim=knobs["hidden_dim"],
        activation=Activation(knobs["activation"]),
        gated=knobs["gated"],
        bias=knobs["mlp_bias"],
        input_norm="mlp_layer_norm" if knobs["mlp_norm"] == "inside" else None,
    )


def _moe(knobs: Mapping[str, typing.Any]) -> Moe:
    return Moe(
        ROUTERS[knobs["experts"]],
        knobs["hidden_dim"],
        activation=Activation(knobs["activation"]),
        bias=knobs["mlp_bias"],
        clamp=knobs["clamp"],
        linear_offset=0.0 if knobs["clamp"] is None else 1.0,
        capacity_factor=knobs["capacity_factor"],
        shared_hidden_dim=7 if knobs["shared_experts"] else None,
        shared_gate=knobs["shared_experts"] == "gated",
        scale_inputs=knobs["scale_inputs"],
        branch_norms=BRANCHES if knobs["shared_experts"] == "branch" else None,
    )


def _block_norms(knobs: Mapping[str, typing.Any]) -> BlockNorms:
    return BlockNorms(
        pre_attention="pre_self_attention_norm" if knobs["pre_attention"] else None,
        post_attention="post_self_attention_norm" if knobs["post_attention"] else None,
        pre_mlp="pre_ffw_norm" if knobs["mlp_norm"] == "block" else None,
        post_mlp="post_ffw_norm" if knobs["post_mlp"] else None,
    )


def _train(knobs: Mapping[str, typing.Any]) -> TrainConfig:
    optimizer = AdamW(warmup_steps=2, decay_steps=20, clip_norm=knobs["clip_norm"], weight_decay=knobs["weight_decay"])
    return TrainConfig(optimizer=optimizer, z_loss=knobs["z_loss"])


def knob_values(setup: Setup) -> dict[str, str]:
    """The values that a setup really has, for counting which pairs a run covered."""
    model, optimizer = setup.model, setup.train.optimizer
    norms, rope = model.block_norms, model.positions if isinstance(model.positions, Rope) else None
    values = {
        "family": model.family, "scan": model.scan_layers, "blocks": model.num_blocks,
        "cycle": tuple(layer.window for layer in model.cycle), "remainder": model.stacks[-1].names[0],
        "chunks": tuple(layer.chunk for layer in model.cycle), "named_layers": model.cycle[0].name is not None,
        "own_rope": model.cycle[0].rope, "own_attention": type(model.cycle[0].attention).__name__,
        "prefix": model.num_prefix_layers,
        "norm": (type(model.norm).__name__, model.norm.zero_centered), "epsilon": model.norm.epsilon,
        "positions": rope.max_timescale if rope else model.positions, "rope_fraction": rope.fraction if rope else None,
        "interleaved": rope.interleaved if rope else None, "rope_scaling": rope.scaling if rope else None,
        "proportional": rope.proportional if rope else None, "layer_scale": model.layer_scale,
        "mlp_norm": norms.pre_mlp, "pre_attention": norms.pre_attention, "post_attention": norms.post_attention,
        "post_mlp": norms.post_mlp, "scale_embedding": model.scale_embedding, "tied_head": model.tied_head,
        "final_soft_cap": model.final_soft_cap, "dropout": model.dropout_rate, "dtype": model.dtype,
        "weight_dtype": model.weight_dtype, "remat": model.remat, "z_loss": setup.train.z_loss,
        "clip": optimizer.clip_norm, "weight_decay": optimizer.weight_decay,
        **_fields("attention", model.attention), **_fields("mlp", model.mlp),
    }  # fmt: skip
    return {name: str(value) for name, value in values.items()}


def _fields(part: str, config: Attention | LatentAttention | Mlp | Moe) -> dict[str, typing.Any]:
    """The fields of a part, and which of its variants it is."""
    fields = {f"{part}.{field.name}": getattr(config, field.name) for field in dataclasses.fields(config)}
    return {part: type(config).__name__, **fields}
