"""A configuration as JSON and back: exact, and every unknown or missing key named.

A union's member carries its class under the key `kind`. Where a field held one class alone before it became a union's,
that class (the field's `untagged`) goes without a kind: old files are read and names stay what they were. Not a general
serialiser: it knows dataclasses, enums, tuples, optional values and plain numbers, which is all that a configuration is
made of.
"""

import dataclasses
import difflib
import enum
import json
import types
import typing

from .errors import ConfigError

T = typing.TypeVar("T")


def to_json(config: object, *, defaults: bool = True) -> dict[str, object]:
    """A dataclass as plain dicts, lists and numbers; without `defaults`, fields that hold their default are left out.

    What is stored should hold every field: a default may change. A name should not change with a field that is new.
    """
    return _encode(config, tagged=False, defaults=defaults)


def from_json(cls: type[T], data: object) -> T:
    """The inverse of `to_json`.

    Raises:
        ConfigError: for an unknown key (with the nearest known one), a missing key, or a value of the wrong type.
    """
    return _decode(cls, data, cls.__name__)


def dumps(config: object) -> str:
    """Sorted, indented JSON text."""
    return json.dumps(to_json(config), indent=1, sort_keys=True)


def _encode(value: object, *, tagged: bool, defaults: bool) -> typing.Any:
    if dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value))
        fields = {
            field.name: _encode(
                getattr(value, field.name), tagged=_is_tagged(field, hints, getattr(value, field.name)),
                defaults=defaults,
            )
            for field in dataclasses.fields(value)
            if defaults or getattr(value, field.name) != field.default
        }
        return {"kind": type(value).__name__, **fields} if tagged else fields
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_encode(item, tagged=False, defaults=defaults) for item in value]
    return value


def _members(hint: object) -> list[typing.Any]:
    return list(typing.get_args(hint)) if isinstance(hint, types.UnionType) else [hint]


def _is_variant(hint: object) -> bool:
    return sum(dataclasses.is_dataclass(member) for member in _members(hint)) > 1


def _is_tagged(field: dataclasses.Field, hints: dict[str, typing.Any], value: object) -> bool:
    return _is_variant(hints[field.name]) and type(value).__name__ != field.metadata.get("untagged")


def _decode(hint: typing.Any, data: object, where: str) -> typing.Any:
    members = _members(hint)
    if len(members) > 1:
        return _decode_union(members, data, where)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(hint, data, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(data, list):
            raise ConfigError(where, data, "must be a list", "write [...]")
        item = typing.get_args(hint)[0]
        return tuple(_decode(item, entry, f"{where}[{index}]") for index, entry in enumerate(data))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        known = [member.value for member in hint]
        if data not in known:
            raise ConfigError(where, data, f"must be one of {', '.join(known)}", _nearest(str(data), known))
        return hint(data)
    if hint is float and type(data) is int:
        return float(data)
    if type(data) is not hint:
        raise ConfigError(where, data, f"must be of type {hint.__name__}", f"found {type(data).__name__}")
    return data


def _decode_union(members: list[typing.Any], data: object, where: str) -> object:
    if data is None and type(None) in members:
        return None
    classes = {
        member.__name__: member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)
    }
    if not classes:
        return _decode(next(member for member in members if member is not type(None)), data, where)
    if len(classes) == 1:  # one class or nothing: no tag needed
        return _decode_dataclass(next(iter(classes.values())), data, where)
    if not isinstance(data, dict) or data.get("kind") not in classes:
        kind = data.get("kind") if isinstance(data, dict) else data
        raise ConfigError(f"{where}.kind", kind, f"must be one of {', '.join(sorted(classes))}", "name the variant")
    rest = {key: value for key, value in data.items() if key != "kind"}
    return _decode_dataclass(classes[data["kind"]], rest, where)


def _decode_dataclass(cls: typing.Any, data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise ConfigError(where, data, f"must be an object with the fields of {cls.__name__}", "write {...}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise ConfigError(
                f"{where}.{key}", data[key], f"is not a field of {cls.__name__}", _nearest(key, list(fields))
            )
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(f"{where}.{name}", None, "is required and missing", f"add the key {name!r}")
    tagged = {key: _with_kind(fields[key], value) for key, value in data.items()}
    return cls(**{key: _decode(hints[key], value, f"{where}.{key}") for key, value in tagged.items()})


def _with_kind(field: dataclasses.Field, data: typing.Any) -> typing.Any:
    """What a field's value without a kind is."""
    if "untagged" not in field.metadata or not isinstance(data, dict) or "kind" in data:
        return data
    return {"kind": field.metadata["untagged"], **data}


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
