"""A Hugging Face `config.json` as a `ModelConfig`, and back. It reads no weights.

Every key is either read, known to change nothing, or known only with one value; any other is refused by name, because
a key that we do not know could change the result.
"""

import dataclasses
import difflib
import typing

from ..config import (
    Attention,
    ConfigError,
    DType,
    GatedDelta,
    LatentAttention,
    Layer,
    Mlp,
    ModelConfig,
    Rope,
    from_json,
    to_json,
)
from .hf_layers import Json, read_dense, read_layers, write_layers
from .hf_tables import ARCHITECTURES, FAMILIES
from .hf_words import REQUIRED, Architecture, Attribute

_Attending = Attention | LatentAttention | GatedDelta
_OF_A_RUN = ("dtype", "dropout_rate", "scan_layers", "remat")
"""Fields that say how a model is run; `config.json` does not hold them."""


def architecture_of(config: ModelConfig) -> Architecture:
    """The architecture whose tensors this model's parameters are written as.

    Raises:
        ConfigError: when Hugging Face has no class that computes the same, naming the field that stands in the way.
    """
    if config.family not in FAMILIES:
        raise ConfigError("family", config.family, "has no Hugging Face class", f"known: {', '.join(sorted(FAMILIES))}")
    known = FAMILIES[config.family]
    architecture = next((one for one in known if one.writes(config)), known[-1])
    ours = _comparable(config)
    read = config_from_hf(_write(architecture, config))
    theirs = _comparable(read)
    for name, value in ours.items():
        if theirs[name] != value:
            rule = f"cannot be said in the config of {architecture.class_name}"
            raise ConfigError(name, to_json(config)[name], rule, f"it would read {to_json(read)[name]!r}")
    return architecture


def config_to_hf(config: ModelConfig) -> dict[str, typing.Any]:
    """The `config.json` of this model.

    Raises:
        ConfigError: when Hugging Face has no class that computes the same.
    """
    return _write(architecture_of(config), config)


def config_from_hf(attributes: Json) -> ModelConfig:
    """The model that a `config.json` describes; computed and stored in its `dtype`, float32 when it names none.

    Raises:
        ConfigError: for an unknown `model_type`, and for an unsupported key or value that could change the result.
    """
    model_type = attributes.get("model_type")
    if model_type not in ARCHITECTURES:
        nested = isinstance(attributes.get("text_config"), dict)
        fix = "give its text_config alone" if nested else f"known: {', '.join(sorted(ARCHITECTURES))}"
        raise ConfigError("model_type", model_type, "is not supported", fix)
    architecture = ARCHITECTURES[model_type]
    _refuse_unknown(architecture, attributes)
    values = {attribute.field: _read(attribute, attributes) for attribute in architecture.attributes}
    data = to_json(_with_layers(architecture, attributes))
    values |= architecture.derived.read(attributes) if architecture.derived else {}
    for field, value in values.items():
        _assign(data, field, value)
    if architecture.layers is not None and architecture.layers.dense is not None and data["prefix"] is not None:
        _assign(data, "prefix.mlp.activation", values["mlp.activation"])
    data["weight_dtype"] = data["dtype"] = _dtype(attributes)
    config = from_json(ModelConfig, data)
    if architecture.varied is not None:
        config = architecture.varied.read(config, attributes)
    plain = config.replace(attention=dataclasses.replace(config.attention, query_scale=None))
    return plain if plain.attention.scale == config.attention.scale else config


def _with_layers(architecture: Architecture, attributes: Json) -> ModelConfig:
    if architecture.layers is None:
        return architecture.template
    positions, cycle = read_layers(architecture.layers, attributes)
    dense, width = read_dense(architecture.layers, attributes)
    mlp = architecture.template.mlp
    prefix = Layer(mlp=Mlp(hidden_dim=width, activation=mlp.activation, gated=True)) if dense else None
    return architecture.template.replace(
        positions=positions, cycle=cycle, num_layers=dense + len(cycle), prefix=prefix, num_prefix_layers=dense
    )


def _write(architecture: Architecture, config: ModelConfig) -> dict[str, typing.Any]:
    source = _explicit(config)
    return {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "dtype": config.weight_dtype.value,
        **{item.key: _spell(item, _pick(source, item)) for item in architecture.attributes if item.key},
        **(architecture.derived.write(source) if architecture.derived else {}),
        **(write_layers(architecture.layers, config) if architecture.layers else {}),
        **(architecture.varied.write(config) if architecture.varied else {}),
    }


def _explicit(config: ModelConfig) -> ModelConfig:
    """The same model with its query scale, and each layer's parts, written out."""
    attention = _attending(config.attention)
    cycle = tuple(
        dataclasses.replace(layer, mlp=config.mlp_of(layer), attention=_attending(config.attention_of(layer)))
        for layer in config.cycle
    )
    if isinstance(config.positions, Rope):
        cycle = tuple(
            layer if isinstance(layer.attention, GatedDelta) else dataclasses.replace(layer, rope=turned)
            for layer, turned in zip(cycle, map(config.positions_of, config.cycle), strict=True)
        )
    return config.replace(attention=attention, cycle=cycle)


def _attending(attention: _Attending) -> _Attending:
    """With its query scale; a gated delta rule without its chunk, which no config holds and no result depends on."""
    if isinstance(attention, GatedDelta):
        return dataclasses.replace(attention, chunk=GatedDelta.chunk)
    return dataclasses.replace(attention, query_scale=attention.scale)


def _comparable(config: ModelConfig) -> dict[str, typing.Any]:
    return {name: value for name, value in to_json(_explicit(config)).items() if name not in _OF_A_RUN}


def _pick(config: ModelConfig, attribute: Attribute) -> typing.Any:
    value: typing.Any = config
    for word in attribute.field.split("."):
        value = getattr(value, word, None)
    if value is None and not attribute.null:
        raise ConfigError(attribute.field, None, "is required by the Hugging Face class", "set it")
    return value


def _assign(data: dict[str, typing.Any], field: str, value: object) -> None:
    *parents, last = field.split(".")
    place: typing.Any = data
    for word in parents:
        place = place[word]
    place[last] = value


def _read(attribute: Attribute, keys: Json) -> typing.Any:
    """The field's value, from the key or from what its absence means."""
    key, default = str(attribute.key), attribute.default
    if keys.get(key) is None and callable(default):
        return default(keys)
    if key not in keys and default is REQUIRED:
        raise ConfigError(key, None, "is required and missing from config.json", "add the key")
    value = keys.get(key, default)
    if value is None and not attribute.null:
        raise ConfigError(key, None, "must not be null", "write its value")
    if attribute.words is None or value is None:
        return value if value is None else attribute.read(value)
    if value not in attribute.words:
        raise ConfigError(key, value, "is not supported", f"known: {', '.join(attribute.words)}")
    return attribute.words[value]


def _spell(attribute: Attribute, value: typing.Any) -> typing.Any:
    """The inverse of `_read`."""
    if value is None:
        return None
    if attribute.words is None:
        return attribute.write(value)
    return next(word for word, ours in attribute.words.items() if ours == value)


def _refuse_unknown(architecture: Architecture, keys: Json) -> None:
    known = {attribute.key for attribute in architecture.attributes if attribute.key}
    known |= architecture.layers.known if architecture.layers else set()
    known |= architecture.derived.keys if architecture.derived else set()
    known |= architecture.varied.keys if architecture.varied else set()
    for key, value in keys.items():
        if key in architecture.fixed:
            allowed = architecture.fixed[key](keys)
            if value not in allowed:
                raise ConfigError(key, value, f"is supported only as {allowed[-1]!r}", "it would change the result")
        elif key not in known | architecture.ignored:
            close = difflib.get_close_matches(key, sorted(known), n=1)
            fix = f"did you mean {close[0]!r}?" if close else "remove it if the logits do not depend on it"
            raise ConfigError(key, value, f"is not a known attribute of {architecture.class_name}", fix)


def _dtype(keys: Json) -> str:
    name = keys.get("dtype") or keys.get("torch_dtype") or DType.FLOAT32.value
    if name not in [dtype.value for dtype in DType]:
        raise ConfigError("dtype", name, "is not supported", f"known: {', '.join(dtype.value for dtype in DType)}")
    return name
