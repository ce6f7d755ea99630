"""How a program asks to be executed, apart from what it computes: placement, recomputation, unrolling, donation.

Facts are counted, not placed: the finding says which constraint or checkpoint one side has and the other lacks.
"""

import collections
import enum
import typing

import jax

from .params import Unmodelled, token

Fact = tuple[str, str]


class Facts:
    """A multiset of facts in words, each under its kind, and where each was asked for: `at` is the present place."""

    def __init__(self):
        self.counts: collections.Counter[Fact] = collections.Counter()
        self.places: dict[Fact, list[typing.Any]] = {}
        self.at: typing.Any = None

    def add(self, kind: str, words: str) -> None:
        """One more such fact."""
        self.counts[(kind, words)] += 1
        self.places.setdefault((kind, words), []).append(self.at)

    def placement(self, params: typing.Mapping[str, typing.Any]) -> None:
        """The sharding that an ordinary operation asks for its result, where it names an axis at all."""
        sharding = params.get("sharding") or params.get("out_sharding")
        if sharding is not None and _names_an_axis(sharding):
            self.add("result sharding", _sharding(sharding))

    def call(self, equation) -> None:
        """What a call asks for beside its value."""
        params, name = equation.params, equation.primitive.name
        if name == "remat2":
            words = f"policy {_policy(params['policy'])}, prevent_cse {params['prevent_cse']}"
            self.add("remat of the backward pass" if params["differentiated"] else "remat", words)
        if name == "jit":
            self._jit(params)

    def _jit(self, params) -> None:
        if any(params["donated_invars"]):
            self.add("donation", f"{sum(params['donated_invars'])} arguments donated")
        if params["compiler_options_kvs"]:
            self.add("compiler options", ", ".join(f"{key}={value}" for key, value in params["compiler_options_kvs"]))
        for what in ("in_shardings", "out_shardings"):
            for sharding in params[what]:
                if isinstance(sharding, jax.sharding.Sharding):
                    self.add(f"jit {what}", _sharding(sharding))

    def identity(self, equation) -> None:
        """A constraint, a move between memories, a barrier."""
        params, name = equation.params, equation.primitive.name
        if name == "sharding_constraint":
            shape = tuple(equation.outvars[0].aval.shape)
            free = sorted(params["unconstrained_dims"])
            self.add(
                "sharding constraint",
                f"{_sharding(params['sharding'])} on {list(shape)}" + (f" but {free}" if free else ""),
            )
        elif name == "device_put":
            self.add("device_put", ", ".join(_device(device) for device in params["devices"]))
        elif name == "optimization_barrier":
            self.add("optimization barrier", f"{len(equation.outvars)} arrays")
        elif name == "reshard":
            self.add("reshard", _sharding(params["dst_sharding"]))
        elif name in ("layout_constraint", "shard_alike"):
            self.add(name.replace("_", " "), f"on {list(equation.outvars[0].aval.shape)}")

    def scan(self, params) -> None:
        """Unrolling of a loop."""
        if params.get("unroll", 1) not in (1, False):
            self.add("unroll", f"scan of length {params['length']} unrolled by {params['unroll']}")


def places(params: typing.Mapping[str, typing.Any]) -> bool:
    """Whether an ordinary operation says where its result lives."""
    return params.get("sharding") is not None or params.get("out_sharding") is not None


def _names_an_axis(sharding) -> bool:
    spec = getattr(sharding, "spec", None)
    return spec is None or any(axis is not None for axis in spec)


def _sharding(sharding) -> str:
    spec = getattr(sharding, "spec", None)
    if spec is None:
        return f"{type(sharding).__name__}"
    sizes = ", ".join(f"{axis}={size}" for axis, size in getattr(sharding, "mesh", sharding).shape.items())
    memory = getattr(sharding, "memory_kind", None)
    return f"{tuple(spec)} over {sizes}" + (f" in {memory}" if memory else "")


def _device(device) -> str:
    if isinstance(device, jax.sharding.Sharding):
        return _sharding(device)
    if isinstance(device, enum.Enum):
        return f"{type(device).__name__}.{device.name}"
    return "default" if device is None else type(device).__name__


def _policy(policy) -> str:
    if policy is None:
        return "nothing_saveable"
    for name in dir(jax.checkpoint_policies):
        known = getattr(jax.checkpoint_policies, name)
        if known is policy or (not callable(type(policy)) and known == policy):
            return name
    try:
        return f"{type(policy).__name__} {token(dict_of(policy)).hex()}"
    except Unmodelled:
        return f"{type(policy).__name__}, not compared further"


def dict_of(policy) -> tuple[typing.Any, ...]:
    """The public state of a policy object, sorted by name; a bare function has none and is unmodelled."""
    state = getattr(policy, "__dict__", None)
    if not state or getattr(policy, "__code__", None) is not None:
        raise Unmodelled(f"a policy of type {type(policy).__name__}")
    return tuple(sorted((name, value) for name, value in state.items()))
