"""Which layers see a window and how their positions turn, as Hugging Face's configs say it, and back.

Their words are `layer_types`, `sliding_window`, `rope_theta`, `rope_scaling`, `rope_parameters`; ours are the cycle and
the model's positions. Read in the classes of transformers 5; no weights and no other attribute here.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping, Sequence

from ..config import ConfigError, Layer, LinearScaling, Llama3Scaling, ModelConfig, Rope, YarnScaling

Json = Mapping[str, typing.Any]
Types = tuple[str, ...]

FULL, SLIDING = "full_attention", "sliding_attention"
SIZE, DENSE, PART = "num_hidden_layers", "first_k_dense_replace", "partial_rotary_factor"


@dataclasses.dataclass(frozen=True)
class Layers:
    """How a class chooses its layers. `types`: what an absent `layer_types` means, given the keys and the window.

    `window`: what an absent `sliding_window` means, 0 being none; None if the class reads no such key. `switch`: it
    counts only under `use_sliding_window`. `listed`: the class reads `layer_types`. `thetas`: the base of each type
    where `rope_parameters` has an entry for each; else `theta` is everybody's. `scaling`: what the absence of all
    rotary words means. `keys`: older words that `types` reads.

    `interleaved`: neighbours turn together, or what the absence of `interleave_key` means. `dense`: what an absent
    `first_k_dense_replace` means; None if the class reads no such key. `stretched`: `mscale_all_dim` is also in the
    query's scale. `fraction`: what an absent `partial_rotary_factor` means; None if the class reads no such key.
    """

    types: Callable[[Json, int | None], Types] = lambda keys, window: (FULL,) * keys[SIZE]
    window: int | None = None
    switch: bool = False
    listed: bool = False
    theta: float = 10_000.0
    thetas: Mapping[str, float] | None = None
    local_theta: str | None = None
    suffixes: Mapping[str, str] | None = None
    scaling: Json | None = None
    interleaved: bool = False
    interleave_key: str | None = None
    dense: int | None = None
    stretched: bool = False
    fraction: float | None = None
    keys: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        """Every key that is read here."""
        words = {"rope_theta", "rope_scaling", "rope_parameters", *self.keys}
        words |= {self.local_theta} if self.local_theta else set()
        words |= {"sliding_window"} if self.window is not None else set()
        words |= {"use_sliding_window"} if self.switch else set()
        words |= {self.interleave_key} if self.interleave_key else set()
        words |= {DENSE, "intermediate_size"} if self.dense is not None else set()
        words |= {PART} if self.fraction is not None else set()
        return frozenset(words | ({"layer_types"} if self.listed else set()))


def every(period: int) -> Callable[[Json, int | None], Types]:
    """A full layer after each `period - 1` sliding ones."""
    return lambda keys, _: tuple(FULL if (i + 1) % period == 0 else SLIDING for i in range(keys[SIZE]))


def all_alike(keys: Json, window: int | None) -> Types:
    """Every layer slides, if there is a window."""
    return (FULL if window is None else SLIDING,) * keys[SIZE]


def read_layers(layers: Layers, keys: Json) -> tuple[Rope, tuple[Layer, ...]]:
    """The positions of the full layers, and the shortest cycle that says every layer.

    Raises:
        ConfigError: for a type, a scaling or a word that is not known.
    """
    if not isinstance(keys[SIZE], int) or keys[SIZE] < 1:
        raise ConfigError(SIZE, keys[SIZE], "must be a positive whole number", "set it")
    window = read_window(layers, keys)
    types = read_types(layers, keys, window)
    ropes = _ropes_by_type(layers, keys) if layers.thetas else {FULL: _flat_rope(layers, keys)}
    sliding = Layer(window=window, rope=ropes.get(SLIDING))
    return ropes[FULL], shortest([sliding if kind == SLIDING else Layer() for kind in types], layers.suffixes)


def shortest(layers: Sequence[Layer], suffixes: Mapping[str, str] | None = None) -> tuple[Layer, ...]:
    """The shortest cycle that says every layer; these have names of their own, or suffixes if of the two kinds."""
    period = next(p for p in range(1, len(layers) + 1) if all(it == layers[i % p] for i, it in enumerate(layers)))
    cycle = layers[:period]
    if suffixes is not None and tuple(_kind(layer) for layer in cycle) == tuple(suffixes):
        return tuple(dataclasses.replace(layer, suffix=suffixes[_kind(layer)]) for layer in cycle)
    if period == 1:
        return tuple(cycle)
    return tuple(dataclasses.replace(layer, name=f"layers_{index}") for index, layer in enumerate(cycle))


def _kind(layer: Layer) -> str:
    return FULL if layer.window is None else SLIDING


def all_layers(config: ModelConfig) -> list[Layer]:
    """Every layer after the prefix, in order."""
    number = config.num_layers - config.num_prefix_layers
    return [config.cycle[index % len(config.cycle)] for index in range(number)]


def write_layers(layers: Layers, config: ModelConfig) -> dict[str, typing.Any]:
    """The inverse of `read_layers`, as far as their words go: what they cannot say is left out."""
    if not isinstance(config.positions, Rope):
        raise ConfigError("positions", config.positions, "must be rotary for this Hugging Face class", "use Rope")
    cycle = all_layers(config)
    window = next((layer.window for layer in cycle if layer.window is not None), None)
    keys: dict[str, typing.Any] = {}
    if layers.window is not None:
        keys["sliding_window"] = window
    if layers.switch:
        keys["use_sliding_window"] = window is not None
    if layers.listed:
        keys["layer_types"] = [_kind(layer) for layer in cycle]
        # What no layer uses has no value, and some classes refuse null.
        keys = {key: value for key, value in keys.items() if value is not None}
    if layers.interleave_key:
        keys[layers.interleave_key] = config.positions.interleaved
    if layers.dense is not None:
        keys |= _write_dense(config)
    if layers.fraction is not None:
        keys[PART] = config.positions.fraction
    if layers.thetas is None:
        scaling = {**spell_rope(config.positions), **(_spell_stretch(config) if layers.stretched else {})}
        keys["rope_theta"] = config.positions.max_timescale
        return {**keys, "rope_scaling": scaling} if config.positions.scaling or layers.scaling else keys
    local = next((layer.rope or config.positions for layer in cycle if layer.window is not None), None)
    ropes = {FULL: config.positions, SLIDING: local or Rope(layers.thetas[SLIDING])}
    spelled = {kind: {**spell_rope(rope), "rope_theta": rope.max_timescale} for kind, rope in ropes.items()}
    return {**keys, "rope_parameters": spelled}


def read_dense(layers: Layers, keys: Json) -> tuple[int, int]:
    """How many layers have an MLP of their own before the first mixture, and its hidden width (0 without one).

    Raises:
        ConfigError: when no layer is left to be a mixture.
    """
    number = 0 if layers.dense is None else keys.get(DENSE, layers.dense)
    if number == 0:
        return 0, 0
    if not isinstance(number, int) or not 0 < number < keys[SIZE]:
        raise ConfigError(DENSE, number, f"must lie between 0 and {SIZE} = {keys[SIZE]}", "leave one layer to mix")
    width = keys.get("intermediate_size")
    if not isinstance(width, int) or width < 1:
        raise ConfigError("intermediate_size", width, "must be a positive whole number", "set it")
    return number, width


def _write_dense(config: ModelConfig) -> dict[str, typing.Any]:
    if config.prefix is None:
        return {DENSE: 0}
    mlp = config.mlp_of(config.prefix)
    return {DENSE: config.num_prefix_layers, "intermediate_size": mlp.hidden_dim}


def read_stretch(keys: Json) -> float:
    """DeepSeek's factor on query and key alike, 1 without YaRN or its `mscale_all_dim`."""
    entry = keys.get("rope_scaling") or keys.get("rope_parameters") or {}
    if "yarn" not in (entry.get("rope_type"), entry.get("type")) or not entry.get("mscale_all_dim"):
        return 1.0
    if entry.get("factor") is None:
        raise ConfigError("rope_scaling", entry, "needs factor beside mscale_all_dim", "add the key")
    return _amplitude(entry["factor"], entry["mscale_all_dim"])


def _spell_stretch(config: ModelConfig) -> dict[str, float]:
    """`mscale_all_dim` for the query's scale, as few digits of it as say the same."""
    attention, scaling = config.attention, config.positions.scaling if isinstance(config.positions, Rope) else None
    plain = dataclasses.replace(attention, query_scale=None).scale
    if not isinstance(scaling, YarnScaling) or attention.scale == plain or scaling.factor == 1:
        return {}
    scale = (math.sqrt(attention.scale / plain) - 1.0) / (0.1 * math.log(scaling.factor))
    found = [round(scale, digits) for digits in range(1, 16)]
    same = (s for s in found if plain * _amplitude(scaling.factor, s) ** 2 == attention.scale)
    return {"mscale_all_dim": next(same, scale)}


def read_window(layers: Layers, keys: Json) -> int | None:
    """How many keys a sliding layer sees; None where no layer slides.

    Raises:
        ConfigError: for anything but a positive whole number.
    """
    if layers.window is None or (layers.switch and not keys.get("use_sliding_window", False)):
        return None
    window = keys.get("sliding_window", layers.window or None)
    if window is not None and (not isinstance(window, int) or window < 1):
        raise ConfigError("sliding_window", window, "must be a positive whole number", "set how many keys are seen")
    return window


def read_types(layers: Layers, keys: Json, window: int | None) -> Types:
    """The type of each layer.

    Raises:
        ConfigError: for an unknown one, for too many or too few, and for a sliding one without a window.
    """
    types = keys.get("layer_types") if layers.listed else None
    if types is None:
        types = layers.types(keys, window)
    unknown = [kind for kind in types if kind not in (FULL, SLIDING)]
    if unknown:
        raise ConfigError("layer_types", unknown[0], "is not supported", f"known: {FULL}, {SLIDING}")
    if len(types) != keys[SIZE]:
        raise ConfigError("layer_types", list(types), f"must name {SIZE} = {keys[SIZE]} layers", "name each once")
    if SLIDING in types and window is None:
        rule = "leaves layers of type sliding_attention without a window"
        raise ConfigError("sliding_window", keys.get("sliding_window"), rule, "set it, and use_sliding_window if known")
    return tuple(types)


def _flat_rope(layers: Layers, keys: Json) -> Rope:
    """One description for all layers. `rope_scaling` is the older word and, there, wins over the newer one."""
    given = {name: keys[name] for name in ("rope_scaling", "rope_parameters") if keys.get(name)}
    if len(given) == 2 and given["rope_scaling"] != given["rope_parameters"]:
        raise ConfigError("rope_scaling", given["rope_scaling"], "is not what rope_parameters says", "keep one of them")
    name = next(iter(given), "rope_parameters")
    absent = layers.scaling if keys.get("rope_parameters") is None and layers.scaling else {}
    fraction = None if layers.fraction is None else keys.get(PART, layers.fraction) or 1.0
    rope = read_rope(name, given.get(name, absent), keys.get("rope_theta", layers.theta), keys, fraction=fraction)
    interleaved = keys.get(layers.interleave_key, layers.interleaved) if layers.interleave_key else layers.interleaved
    return dataclasses.replace(rope, interleaved=bool(interleaved))


def _ropes_by_type(layers: Layers, keys: Json) -> dict[str, Rope]:
    """A description for each type of layer; the older `rope_scaling` belongs to the full ones alone."""
    thetas = dict(layers.thetas or {})
    entries = _object("rope_parameters", keys.get("rope_parameters") or {})
    for name in entries:
        if name not in thetas:
            rule = f"has {name!r} where only {' and '.join(thetas)} may be"
            raise ConfigError("rope_parameters", entries, rule, "give each type of layer an entry of its own")
    thetas[FULL] = keys.get("rope_theta", thetas[FULL])
    if layers.local_theta:
        thetas[SLIDING] = keys.get(layers.local_theta, thetas[SLIDING])
    found = {}
    for kind, theta in thetas.items():
        entry = _object("rope_parameters", entries.get(kind) or {})
        older = _object("rope_scaling", keys.get("rope_scaling") or {}) if kind == FULL else {}
        name = "rope_scaling" if older else "rope_parameters"
        found[kind] = read_rope(name, {**entry, **older}, theta, keys)
        refuse_untruncated(name, kind, found[kind])
    return found


def refuse_untruncated(name: str, kind: str, rope: Rope) -> None:
    """`truncate` is read beside the entries of the types, and so never for one of them.

    Raises:
        ConfigError: when it is false.
    """
    if isinstance(rope.scaling, YarnScaling) and not rope.scaling.truncate:
        rule = f"has truncate = False for {kind}, which the class does not read there"
        raise ConfigError(name, rope.scaling, rule, "use truncate = True")


def _object(name: str, value: object) -> dict[str, typing.Any]:
    if not isinstance(value, dict):
        raise ConfigError(name, value, "must be an object", "give rope_type and its numbers")
    return value


_SCALINGS: dict[str, tuple[typing.Any, dict[str, str]]] = {
    "linear": (LinearScaling, {"factor": "factor"}),
    "llama3": (
        Llama3Scaling,
        {
            "factor": "factor",
            "low_freq_factor": "low_frequency_factor",
            "high_freq_factor": "high_frequency_factor",
            "original_max_position_embeddings": "original_length",
        },
    ),
    "yarn": (
        YarnScaling,
        {
            "original_max_position_embeddings": "original_length",
            "factor": "factor",
            "beta_fast": "beta_fast",
            "beta_slow": "beta_slow",
            "truncate": "truncate",
            "attention_factor": "attention_factor",
        },
    ),
}
"""By `rope_type`: our class, and their keys for its fields."""


PROPORTIONAL = "proportional"


def read_rope(
    name: str, entry: Json, theta: float, keys: Json, *, fraction: float | None = None, proportional: bool = False
) -> Rope:
    """One description of positions, given the base where it has none of its own.

    `fraction`: the part of a head that turns where the entry does not say; None if the class does not read it there.
    `proportional`: it knows that type, and reads the part there.

    Raises:
        ConfigError: for a type, a key or a value that is not known.
    """
    left = dict(_object(name, entry))
    kinds = [left.pop(word) for word in ("rope_type", "type") if word in left] or ["default"]
    theta = left.pop("rope_theta", theta)
    known = ("default", *_SCALINGS, *((PROPORTIONAL,) if proportional else ()))
    if len(set(kinds)) > 1 or kinds[0] not in known:
        raise ConfigError(name, entry, "has a rope_type that is not supported", f"known: {', '.join(known)}")
    part, turning = left.pop(PART, None), kinds[0] == PROPORTIONAL
    if part not in (None, 1.0) and fraction is None and not turning:
        raise ConfigError(name, entry, "turns a part of the head, which the class does not read", "remove the key")
    part = (fraction or 1.0) if part is None else part
    try:
        scaling = None
        if turning and "factor" in left:
            scaling = LinearScaling(float(left.pop("factor")))
        elif kinds[0] in _SCALINGS:
            scaling = _read_scaling(name, kinds[0], left, keys)
        rope = Rope(float(theta), float(part), scaling=scaling, proportional=turning)
    except TypeError:
        raise ConfigError(name, entry, "holds a value of the wrong type", "write plain numbers") from None
    if left:
        rule = f"holds {sorted(left)[0]!r}, which could change the positions and is not supported"
        raise ConfigError(name, entry, rule, "remove the key if they do not depend on it")
    return rope


def _read_scaling(name: str, kind: str, left: dict[str, typing.Any], keys: Json) -> typing.Any:
    """Takes the keys of the scaling out of `left`."""
    cls, words = _SCALINGS[kind]
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    values: dict[str, typing.Any] = {}
    for word, field in words.items():
        value = left.pop(word, None)
        value = _implied(kind, word, values, keys) if value is None else value
        value = defaults[field] if value is None else value
        if value is dataclasses.MISSING:
            raise ConfigError(name, kind, f"needs {word}", "add the key")
        if isinstance(value, str):
            raise ConfigError(name, kind, f"holds {word} = {value!r}", "write a plain number")
        whole = isinstance(value, bool) or field == "original_length"
        values[field] = value if value is None or whole else float(value)
    if kind == "yarn":
        scales = left.pop("mscale", None), left.pop("mscale_all_dim", None)
        if values["attention_factor"] is None and all(scales):
            own, of_all = (_amplitude(values["factor"], scale) for scale in scales)
            values["attention_factor"] = own / of_all
    return cls(**values)


def _implied(kind: str, word: str, values: Json, keys: Json) -> float | None:
    """What a scaling's absent number follows from."""
    length = keys.get("max_position_embeddings")
    if word == "original_max_position_embeddings":
        return length
    if word == "factor" and kind == "yarn" and length:
        return length / values["original_length"]
    return None


def _amplitude(factor: float, scale: float) -> float:
    """DeepSeek's `get_mscale`, of which YaRN's own is the one with `scale` 1."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def spell_rope(rope: Rope) -> dict[str, typing.Any]:
    """The inverse of `read_rope`, but for the base, and for the part of a head that a flat config says beside it."""
    if rope.proportional:
        factor = {"factor": rope.scaling.factor} if isinstance(rope.scaling, LinearScaling) else {}
        return {"rope_type": PROPORTIONAL, PART: rope.fraction, **factor}
    for kind, (cls, words) in _SCALINGS.items():
        if isinstance(rope.scaling, cls):
            spelled = {word: getattr(rope.scaling, field) for word, field in words.items()}
            return {"rope_type": kind, **{word: value for word, value in spelled.items() if value is not None}}
    return {"rope_type": "default"}
