"""Pallas kernels and composites: one node whose identity is the canonical form of its body and of all that steers it.

A kernel's references become values (`refs`): its form is what each reference holds after one step of the grid, over
what they held before and the place in the grid. Two kernels are one if this agrees, and grid, blocks, index maps,
scratch, aliases, compiler parameters and interpretation too. Names, costs and debugging switches say nothing of the
value. Semaphores, copies between memories and generators of the device are not modelled.
"""

import dataclasses
import typing
from collections.abc import Mapping

from jax.tree_util import PyTreeDef

from .params import Unmodelled, digest, params_token, token
from .primitives import by_name
from .refs import Cell

# Value-neutral: a kernel's name, the cost that a compiler assumes, printing while it is compiled.
_NEUTRAL = frozenset({"name", "cost_estimate", "debug", "name_and_src_info", "backend"})
_CALL = _NEUTRAL | {
    "out_avals", "jaxpr", "interpret", "grid_mapping", "mesh", "input_output_aliases", "compiler_params", "metadata",
}  # fmt: skip
_GRID = {
    "grid", "grid_names", "block_mappings", "index_map_tree", "index_map_avals", "vmapped_dims", "scratch_avals",
    "num_index_operands", "num_inputs", "num_outputs", "get_grid_indices", "local_grid_env", "debug",
}  # fmt: skip
_BLOCK = {
    "block_shape", "transformed_block_aval", "index_map_jaxpr", "index_map_out_tree", "array_aval", "origin",
    "transforms", "pipeline_mode", "debug",
}  # fmt: skip


def handlers(evaluator) -> dict[typing.Any, typing.Any]:
    """Composites: jax always loads them."""
    return dict.fromkeys(by_name(("composite",)), _Kernels(evaluator).composite)


def late_handlers(evaluator) -> dict[str, typing.Any]:
    """Pallas, by module and name, since it is loaded only when it is used."""
    kernels = _Kernels(evaluator)
    return {
        "pallas_call.pallas_call": kernels.pallas_call,
        "primitives.program_id": kernels.place,
        "primitives.num_programs": kernels.place,
        "primitives.multiple_of": kernels.identity,
        "core.with_memory_space_constraint": kernels.identity,
    }


class _Kernels:
    def __init__(self, evaluator):
        self.evaluator = evaluator

    def pallas_call(self, equation, operands, origin, used):
        """One node for each result."""
        del used
        params = equation.params
        _known(params, _CALL)
        if equation.effects:
            raise Unmodelled("a kernel with side effects")
        if params["mesh"] is not None or params.get("metadata"):
            raise Unmodelled("a kernel over a mesh of cores, or with metadata")
        body = self._sealed(params["jaxpr"], origin)
        blocks = self._grid(params["grid_mapping"], origin)
        data = digest(
            self.evaluator.context, body, blocks,
            token(tuple(_aval_words(aval) for aval in params["out_avals"])),
            *[_token(params[name]) for name in ("interpret", "input_output_aliases", "compiler_params")],
        )  # fmt: skip
        attrs = {"name": params.get("name"), "grid": params["grid_mapping"].grid, "blocks": blocks.hex()[:8]}
        attrs["kernel"] = body.hex()[:8]
        return self._nodes("pallas_call", data, attrs, equation, operands, origin)

    def composite(self, equation, operands, origin, used):
        """A named operation: a compiler may know it by its name, so this counts beside the definition."""
        del used
        params = equation.params
        if equation.effects:
            raise Unmodelled("the operation has side effects")
        body = self._sealed(params["jaxpr"], origin)
        data = digest(body, _token({name: value for name, value in params.items() if name != "jaxpr"}))
        attrs = {"name": params["name"], "body": body.hex()[:8]}
        return self._nodes("composite", data, attrs, equation, operands, origin)

    def place(self, equation, operands, origin, used):
        """The kernel's place in the grid along an axis, or the size of that axis."""
        del used
        if not self.evaluator.is_sealed:
            raise Unmodelled("a place in a grid outside a kernel")
        data = params_token(equation.params)
        return self._nodes(equation.primitive.name, data, dict(equation.params), equation, operands, origin)

    def identity(self, equation, operands, origin, used):
        """A promise about a number, a wish about a memory."""
        del equation, origin, used
        return operands[:1]

    def _nodes(self, op, data, attrs, equation, operands, origin):
        return [
            self.evaluator.graph.raw(op, data + (b"output %d" % k if k else b""), {**attrs, "output": k},
                                     tuple(operands), tuple(var.aval.shape), var.aval.dtype, origin)
            for k, var in enumerate(equation.outvars)
        ]  # fmt: skip

    def _sealed(self, jaxpr, origin) -> bytes:
        """Digest of a body over its own arguments: its outputs and what its references hold in the end."""
        evaluator = self.evaluator
        args, cells = [], []
        invars = getattr(jaxpr, "jaxpr", jaxpr).invars
        for k, var in enumerate(invars):
            aval = var.aval
            if not _is_array(aval):
                raise Unmodelled(f"a kernel argument of type {type(getattr(aval, 'inner_aval', aval)).__name__}")
            node = evaluator.graph.leaf("argument", b"%d" % k, tuple(aval.shape), aval.dtype)
            if hasattr(aval, "inner_aval"):
                cells.append(Cell(node))
                args.append(cells[-1])
            else:
                args.append(node)
        outs = evaluator.sealed(lambda: [*evaluator.closed(jaxpr, args, origin), *(cell.value for cell in cells)])
        avals = token(tuple(_aval_words(var.aval) for var in invars))
        return digest(avals, *[node.digest for node in outs])

    def _grid(self, mapping, origin) -> bytes:
        fields = _fields(mapping, _GRID)
        if fields["get_grid_indices"] is not None or fields["local_grid_env"] is not None:
            raise Unmodelled("a grid with indices of its own making")
        counted = ("grid", "grid_names", "vmapped_dims", "num_index_operands", "num_inputs", "num_outputs")
        parts = [_token(fields[name]) for name in counted]
        parts += [token(tuple(_aval_words(aval) for aval in fields["scratch_avals"]))]
        return digest(*parts, *[self._block(block, origin) for block in fields["block_mappings"]])

    def _block(self, block, origin) -> bytes:
        fields = _fields(block, _BLOCK)
        parts = [_token(fields[name]) for name in ("block_shape", "transforms", "pipeline_mode")]
        parts += [token(_aval_words(fields[name])) for name in ("transformed_block_aval", "array_aval")]
        return digest(self._sealed(fields["index_map_jaxpr"], origin), *parts)


def _known(found: typing.Iterable[str], known: typing.Collection[str]) -> None:
    for name in found:
        if name not in known:
            raise Unmodelled(f"the parameter {name} is not known to the prover")


def _fields(value, known) -> dict[str, typing.Any]:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    _known(fields, known)
    return fields


def _is_array(aval) -> bool:
    inner = getattr(aval, "inner_aval", aval)
    return type(inner).__name__ == "ShapedArray"


def _aval_words(aval) -> tuple[typing.Any, ...]:
    """Shape, dtype and memory of an array or of what a reference holds."""
    if not _is_array(aval):
        raise Unmodelled(f"scratch memory of type {type(getattr(aval, 'inner_aval', aval)).__name__}")
    return (tuple(aval.shape), aval.dtype, hasattr(aval, "inner_aval"), getattr(aval, "memory_space", None))


def _token(value: typing.Any) -> bytes:
    """Parameters that hold mappings, too."""
    if isinstance(value, Mapping):
        return b"M" + digest(*[token(key) + _token(item) for key, item in sorted(value.items())])
    if type(value) is tuple:
        return b"(" + b"".join([digest(_token(item)) for item in value]) + b")"
    return _tree(value) if type(value) is PyTreeDef else token(value)


def _tree(tree: PyTreeDef) -> bytes:
    """A tree of Python's own containers."""
    data = tree.node_data()
    if data is None:
        return b"leaf"
    kind, keys = data
    if kind not in (tuple, list, dict, type(None)):
        raise Unmodelled(f"a parameter that holds a tree of {kind.__name__}")
    return digest(token(kind.__name__), token(keys), *map(_tree, tree.children()))
