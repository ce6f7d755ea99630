"""What an explanation says: one operation as a line of text, and one parting as a title."""

from collections.abc import Mapping

import numpy as np

from .align import MOVES, Parting, is_literal, unwrapped
from .terms import Node

# The parameter without a name is a digest of all of them, in recorded terms.
_UNSAID = frozenset({"", "weak_type", "sharding", "out_sharding", "jaxpr", "update_jaxpr", "update_consts"})
_LONG = 160
_VERBS = {"mul": "multiplies by", "add": "adds", "sub": "subtracts", "div": "divides by"}
_AXES = frozenset({"axes", "axis", "dimension", "dimensions", "concat_dimension"})


def describe(node: Node | None) -> str:
    """One line: result type, operation, parameters, operands (constants by value, inputs by name)."""
    if node is None:
        return "(no counterpart)"
    if node.op == "unmodelled":
        return f"{_type(node)} = not modelled ({node.attrs})"
    if node.op in ("input", "constant"):
        return _operand(node)
    return f"{_type(node)} = {node.op}{_parameters(node)}({', '.join(map(_operand, _shown(node)))})"


def _shown(node: Node) -> tuple[Node, ...]:
    """A loop's carries are many: of a system only the class that is read."""
    if node.op != "at":
        return node.operands
    place = node.attrs.labels.index(node.attrs.label)
    return node.operands[place], node.operands[place + len(node.attrs.labels)]


def _parameters(node: Node) -> str:
    if not isinstance(node.attrs, Mapping) and not hasattr(node.attrs, "items"):
        loop = getattr(node.attrs, "loop", node.attrs)
        return f"[length={loop.length}, reverse={loop.reverse}]" if hasattr(loop, "length") else ""
    shown = {name: value for name, value in node.attrs.items() if value is not None and name not in _UNSAID}
    return f"[{', '.join(f'{name}={short(value)}' for name, value in shown.items())}]" if shown else ""


def short(value) -> str:
    """A parameter's value; a very long one is cut in the middle."""
    text = f"{value}"
    if type(value) is tuple:
        text = f"{tuple(part.item() if isinstance(part, np.generic) else part for part in value)}"
    elif hasattr(value, "_fields"):
        text = "(" + ", ".join(f"{name}={part}" for name, part in zip(value._fields, value, strict=True)) + ")"
    return text if len(text) <= _LONG else f"{text[: _LONG - 60]} ... {text[-50:]}"


def _type(node: Node) -> str:
    return f"{node.dtype}[{','.join(str(size) for size in node.shape)}]"


def _operand(node: Node) -> str:
    inner = unwrapped(node)
    if inner.op == "constant":
        return _value(inner)
    name = input_name(node)
    if name is not None:
        return f"{name}: {_type(node)}"
    if node.op == "variable":
        return {"self": "carry", "index": "index"}.get(node.attrs[0], "") + f": {_type(node)}"
    return f"{node.op}: {_type(node)}"


def _value(node: Node) -> str:
    value = node.attrs
    if np.ndim(value) == 0:
        return str(value[()]) if isinstance(value, np.ndarray) else str(value)
    return f"an array {_type(node)}"


def input_name(node: Node) -> str | None:
    """The input's name, where the term is one that was at most moved, sliced or converted."""
    while node.op in MOVES and len(node.operands) == 1:
        node = node.operands[0]
    return str(node.attrs) if node.op == "input" else None


def thing(node: Node) -> str:
    """What a value is, in few words."""
    inner = unwrapped(node)
    if inner.op == "constant":
        return _value(inner)
    name = input_name(node)
    if name is not None:
        return name
    if node.op == "variable":
        return "the loop's carry" if node.attrs[0] == "self" else f"the loop's {node.attrs[0]}"
    if node.op == "at":
        return "the loop's carry"
    if node.op == "draw":
        return "a random draw"
    leaves = sorted(inputs_near(inner))
    return f"{inner.op} of {', '.join(leaves[:2])}" if leaves else inner.op


def inputs_near(node: Node, reach: int = 3) -> set[str]:
    """Names of inputs that a value is made of within a few operations."""
    name = input_name(node)
    if name is not None:
        return {name}
    if not reach or node.op == "at":
        return set()
    return set().union(*(inputs_near(operand, reach - 1) for operand in node.operands), set())


def title(parting: Parting, names: tuple[str, str]) -> str:
    """What kind of difference it is, in one line."""
    a, b = parting.pair
    if parting.how == "added":
        return f"only {names[0] if a is not None else names[1]} {_does(parting.chain)}"
    assert a is not None  # an addition alone has one side
    assert b is not None
    reader = parting.readers[0] or a
    if parting.how == "literal":
        if unwrapped(a).dtype != unwrapped(b).dtype:
            return f"literal {_typed(a)} against {_typed(b)} in {reader.op}"
        return f"literal {_operand(a)} against {_operand(b)} in {reader.op}"
    if a.op == b.op == "draw":
        return f"{reader.op}: a random draw of another stage, order or key"
    if parting.how in ("input", "reads"):
        return f"{reader.op}: {names[0]} reads {thing(a)} where {names[1]} reads {thing(b)}"
    if parting.how == "moved":
        return f"{a.op} in another place"
    if parting.how == "order":
        return f"operands exchanged in {a.op}"
    if parting.how == "loop":
        return _loops(a, b)
    if parting.how == "carry":
        return "another carry of the loop is read"
    return _parameter(a, b) if parting.how == "parameter" else f"{a.op} against {b.op}"


def _typed(node: Node) -> str:
    return f"{_operand(node)} ({unwrapped(node).dtype})"


def _does(chain: tuple[Node, ...]) -> str:
    """`multiplies by 2.0`, or the operations of the chain in program order."""
    if len(chain) == 1:
        (node,) = chain
        if node.op == "convert_element_type":
            return f"converts to {node.dtype}"
        if node.op == "at":
            return "changes this value from round to round of a loop"
        simple = [x for x in node.operands if is_literal(x)] or [x for x in node.operands if input_name(x) is not None]
        if node.op in _VERBS and len(simple) == 1:
            return f"{_VERBS[node.op]} {thing(simple[0])}"
        return f"applies {node.op}"
    words = list(dict.fromkeys(node.op for node in reversed(chain) if node.op not in MOVES)) or [chain[-1].op]
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return f"applies {', '.join(words[:5])}{more}"


def _loops(a: Node, b: Node) -> str:
    one, two = (getattr(node.attrs, "loop", node.attrs) for node in (a, b))
    if one.length != two.length:
        return f"a loop of {one.length} rounds against {two.length}"
    return "a loop in the other direction"


def _parameter(a: Node, b: Node) -> str:
    """The parameters of one operation that differ."""
    if a.op == "convert_element_type":
        return f"converts to {a.dtype} against {b.dtype}"
    if not hasattr(a.attrs, "items") or not hasattr(b.attrs, "items"):
        return f"{a.op} with other parameters"
    names = [name for name in dict.fromkeys([*a.attrs, *b.attrs]) if name not in _UNSAID]
    unlike = [(name, a.attrs.get(name), b.attrs.get(name)) for name in names]
    unlike = [(name, x, y) for name, x, y in unlike if str(x) != str(y)]
    words = [
        f"{'axis' if name in _AXES else name} {_bare(x)} against {_bare(y)}" if name in _AXES
        else f"{name} {short(x)} against {short(y)}"
        for name, x, y in unlike
    ]  # fmt: skip
    return f"{', '.join(words)} in {a.op}" if words else f"{a.op} with other parameters"


def _bare(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
