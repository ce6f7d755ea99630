"""A program's terms as text that can be kept: coded small enough for a golden, complete enough to explain a change.

No line number and no name of a variable is part of it, so code that moves leaves it as it is. Read back, the terms are
laid beside those of the program as it is now, and where they part is found as between any two programs.
"""

import base64
import collections
import dataclasses
import json
import lzma
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from harness.verdict import Finding

from . import explain
from .loops import Loop, System
from .params import digest
from .sources import Recalled, is_backward, scopes
from .terms import Node, Origin

_LINE = 104  # characters of code in a line
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]
# Said by the type, or no part of a term's identity: the equation that happened to come first has them.
_BARE = frozenset({
    "weak_type", "sharding", "out_sharding", "jaxpr", "update_jaxpr", "update_consts", "branches", "new_sizes", "shape",
})  # fmt: skip


class RecordError(ValueError):
    """Recorded terms that cannot be read. The message says why, in one sentence."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One term: operation, parameters, type, stage (behind `~` in a backward pass), operands by place, open or not."""

    op: str
    attrs: str
    type: str
    stage: str
    operands: tuple[int, ...]
    free: bool


@dataclasses.dataclass(frozen=True)
class Record:
    """Every term under a program's outputs, operands first, and where each output is among them."""

    rows: tuple[Row, ...]
    outputs: Mapping[str, int]
    origins: tuple[Origin | None, ...] = dataclasses.field(default=(), compare=False)

    def operations(self) -> dict[str, str]:
        """For each stage how many operations it has and a digest of them alone: of what they read, types and constants.

        So a change shows in the stages that it touches and in no other.
        """
        stages: dict[str, list[str]] = collections.defaultdict(list)
        for row in self.rows:
            if row.op not in ("input", "variable", "constant"):
                read = [self.rows[place] for place in row.operands]
                reads = [other.type + (other.attrs if other.op == "constant" else "") for other in read]
                stages[row.stage.lstrip("~")].append(json.dumps([row.op, row.attrs, row.type, sorted(reads)]))
        return {
            stage or "outside any stage": f"{len(found)} operations, {_short('|'.join(sorted(found)).encode())}"
            for stage, found in sorted(stages.items())
        }

    def lines(self) -> list[str]:
        """The coded text, in lines that a text file can hold."""
        tables: dict[str, dict[str, int]] = {name: {} for name in ("op", "attrs", "type", "stage")}
        columns: dict[str, list[int]] = {name: [] for name in (*tables, "free", "count", "back")}
        for place, row in enumerate(self.rows):
            for name, table in tables.items():
                columns[name].append(table.setdefault(getattr(row, name), len(table)))
            columns["free"].append(int(row.free))
            columns["count"].append(len(row.operands))
            columns["back"] += [place - operand for operand in row.operands]
        head = {"outputs": dict(self.outputs), **{name: list(table) for name, table in tables.items()}}
        sizes = {name: len(column) for name, column in columns.items()}
        text = json.dumps([head, sizes], sort_keys=True, separators=(",", ":")).encode()
        body = b"".join(_varints(columns[name]) for name in sorted(columns))
        packed = lzma.compress(
            len(text).to_bytes(4, "little") + text + body, format=lzma.FORMAT_RAW, filters=_FILTERS
        )
        code = base64.b64encode(packed).decode()
        return [code[start : start + _LINE] for start in range(0, len(code), _LINE)]


def read(lines: Iterable[str]) -> Record:
    """The inverse of `Record.lines`.

    Raises:
        RecordError: the text is damaged.
    """
    try:
        data = lzma.decompress(base64.b64decode("".join(lines)), format=lzma.FORMAT_RAW, filters=_FILTERS)
        size = int.from_bytes(data[:4], "little")
        head, sizes = json.loads(data[4 : 4 + size])
        numbers = _numbers(data[4 + size :])
        columns = {name: [next(numbers) for _ in range(sizes[name])] for name in sorted(sizes)}
        rows, back = [], iter(columns["back"])
        for place, count in enumerate(columns["count"]):
            op, attrs, kind, stage = (head[name][columns[name][place]] for name in ("op", "attrs", "type", "stage"))
            operands = tuple(place - next(back) for _ in range(count))
            rows.append(Row(op, attrs, kind, stage, operands, bool(columns["free"][place])))
        return Record(tuple(rows), head["outputs"])
    except (ValueError, KeyError, IndexError, StopIteration, RuntimeError, lzma.LZMAError) as error:
        raise RecordError(f"recorded terms cannot be read ({type(error).__name__}); renew the golden") from None


def record(outputs: Mapping[str, Node]) -> Record:
    """The terms under named outputs."""
    rows: list[Row] = []
    origins: list[Origin | None] = []
    places: dict[bytes, int] = {}
    attrs: dict[tuple[str, bytes], str] = {}
    stages: dict[int, str] = {}
    for node in _operands_first([outputs[name] for name in sorted(outputs)]):
        places[node.digest] = len(rows)
        key = (node.op, node.token)
        if key not in attrs:
            attrs[key] = _attrs(node)
        kind = f"{node.dtype}[{','.join(str(size) for size in node.shape)}]"
        operands = tuple(places[operand.digest] for operand in node.operands)
        rows.append(Row(node.op, attrs[key], kind, _stage(node.origin, stages), operands, bool(node.free)))
        origins.append(node.origin)
    return Record(tuple(rows), {name: places[outputs[name].digest] for name in sorted(outputs)}, tuple(origins))


def changes(old: Record, new: Record, names: tuple[str, str] = ("golden", "code")) -> tuple[Finding, ...]:
    """Where a recorded program and another part. `new` as `record` made it knows its lines."""
    before, after = _terms(old), _terms(new)
    names_of = [name for name in old.outputs if name in new.outputs]
    pairs = {name: (before[old.outputs[name]], after[new.outputs[name]]) for name in names_of}
    return explain.findings(pairs, names)


def _operands_first(roots: Sequence[Node]) -> Iterable[Node]:
    seen: set[bytes] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node.digest not in seen:
            seen.add(node.digest)
            stack.append((node, True))
            stack += [(operand, False) for operand in reversed(node.operands) if operand.digest not in seen]


def _stage(origin: Origin | None, known: dict[int, str]) -> str:
    if origin is None:
        return ""
    found = known.get(id(origin))
    if found is None:
        found = known[id(origin)] = ("~" if is_backward(origin) else "") + "/".join(scopes(origin))
    return found


def _short(data: bytes) -> str:
    return digest(data).hex()[:8]


def _attrs(node: Node) -> str:
    """What tells this operation from others of its name, in JSON: values to be read, the rest by a short digest."""
    attrs = node.attrs
    if node.op == "constant":
        plain = isinstance(attrs, np.ndarray | np.generic) and np.ndim(attrs) == 0
        value = {"value": str(np.asarray(attrs)[()])} if plain else {}
        return json.dumps({**value, "": _short(node.token)})
    if node.op == "at":
        labels = [label.hex()[:8] for label in attrs.labels]
        return json.dumps({"loop": _loop(attrs.loop), "label": attrs.label.hex()[:8], "labels": labels})
    if isinstance(attrs, Loop):
        return json.dumps({"loop": _loop(attrs)})
    if node.op == "variable":
        kind, depth, label = attrs
        return json.dumps({"kind": kind, "depth": depth, "label": label.hex()[:8] if label else ""})
    if node.op == "input":
        return json.dumps({"name": attrs})
    if not isinstance(attrs, Mapping) and not hasattr(attrs, "items"):
        return json.dumps({"": _short(node.token)})
    shown = {name: str(value)[:200] for name, value in attrs.items() if value is not None and name not in _BARE}
    return json.dumps({**shown, "": _short(node.token)}, sort_keys=True)


def _loop(loop: Loop) -> list[typing.Any]:
    return [loop.depth, loop.length, loop.reverse]


def _terms(record: Record) -> list[Node]:
    """The rows as terms again, with digests of their own."""
    nodes: list[Node] = []
    for place, row in enumerate(record.rows):
        operands = tuple(nodes[operand] for operand in row.operands)
        dtype, _, sizes = row.type[:-1].partition("[")
        shape = tuple(int(size) for size in sizes.split(",") if size)
        token = str(json.loads(row.attrs).get("", row.attrs)).encode()
        name = digest(row.op.encode(), token, row.type.encode(), *(operand.digest for operand in operands))
        free = frozenset({("index", 0, None)}) if row.free else frozenset()
        origin = record.origins[place] if record.origins else _recalled(row.stage, place)
        identity = (row.op, token, _read_attrs(row.op, row.attrs, dtype), operands)
        nodes.append(Node(identity, shape, dtype, free, name, origin))
    return nodes


def _recalled(stage: str, place: int) -> Recalled:
    words = tuple(word for word in stage.lstrip("~").split("/") if word)
    return Recalled(words, stage.startswith("~"), place)


def _read_attrs(op: str, text: str, dtype: str) -> typing.Any:
    data = json.loads(text)
    if op == "constant":
        return np.asarray(_number(data["value"], dtype)) if "value" in data else data[""]
    if op == "at":
        labels = tuple(bytes.fromhex(label) for label in data["labels"])
        return System(Loop(*data["loop"]), bytes.fromhex(data["label"]), labels)
    if "loop" in data:
        return Loop(*data["loop"])
    if op == "variable":
        return data["kind"], data["depth"], bytes.fromhex(data["label"])
    return data["name"] if op == "input" else data


def _number(text: str, dtype: str) -> typing.Any:
    if text in ("True", "False"):
        return text == "True"
    return np.asarray(complex(text) if "j" in text else float(text)).astype(jnp.dtype(dtype))


def _varints(numbers: Iterable[int]) -> bytes:
    out = bytearray()
    for number in numbers:
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0
