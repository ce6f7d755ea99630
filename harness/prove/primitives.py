"""What the prover knows about jax's primitives: which are functions of their operands, and what may be ignored and why.

A primitive that is not here is not understood, and whatever depends on it is undecided. Primitives are told apart by
identity, never by name.
"""

import sys
import typing

import jax
from jax.extend.core import Primitive
from jax.extend.core import primitives as jax_primitives

from .reasons import REASONS

_UNKNOWN = "this primitive is not known to the prover"

_ELEMENTWISE = """
abs acos acosh add and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clz complex conj cos cosh digamma div
eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le lgamma log
log1p logistic lt max min mul ne neg nextafter not or polygamma population_count pow real regularized_incomplete_beta
rem round rsqrt shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh xor zeta
eq_to le_to lt_to mulhi
"""
_OTHERS = """
argmax argmin approx_top_k bitcast_convert_type broadcast_in_dim cholesky clamp concatenate conv_general_dilated
convert_element_type cumlogsumexp cummax cummin cumprod cumsum dot_general dynamic_slice dynamic_update_slice eigh fft
gather householder_product iota lu pad qr random_bits random_fold_in random_gamma random_seed random_split random_unwrap
random_wrap reduce reduce_and reduce_max reduce_min reduce_or reduce_precision reduce_prod reduce_sum reduce_window
reduce_window_max reduce_window_min reduce_window_sum reduce_xor reshape rev rng_bit_generator scatter scatter-add
scatter-max scatter-min scatter-mul scatter-sub select_and_gather_add select_and_scatter select_and_scatter_add select_n
slice sort split squeeze stack svd threefry2x32 tile top_k transpose triangular_solve unstack
cholesky_update eig from_edtype geqp3 geqrf hessenberg iota_2x32_shape lu_pivots_to_permutation ormqr philox2x32
philox4x32 platform_index ragged_dot_general scaled_dot schur symmetric_product threefry4x32 to_edtype tridiagonal
tridiagonal_solve zeros_like
"""
_IDENTITIES = """
copy device_put layout_constraint name optimization_barrier pvary random_clone reshard sharding_constraint stop_gradient
xla_metadata_value
"""
_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "call": "call_jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "eval_jaxpr": "jaxpr",
    "linear_call": "callee",
    "remat_opt": "fwd_jaxpr",
}

# jax exports only a part of its primitives. The rest are looked up where they are defined, among the modules loaded.
_MODULES = """
ad_util callback checkify core custom_batching custom_derivatives custom_partitioning debugging ffi
lax.control_flow.conditionals lax.control_flow.loops lax.control_flow.solves lax.eval_jaxpr lax.lax lax.linalg
lax.parallel lax.scaled_dot pjit random.philox2x32 random.philox4x32 random.prng random.threefry4x32 shard_map
state.discharge state.primitives xla_metadata
"""
# Modules that jax loads only when they are asked for; a primitive of theirs is looked up when a program has one.
_LATE = ("compute_on", "cudnn.scaled_matmul_stablehlo", "pallas.core", "pallas.pallas_call", "pallas.primitives",
         "shard_alike")  # fmt: skip
LATE_PURE = frozenset({"primitives.reciprocal", "scaled_matmul_stablehlo.scaled_matmul",
                       "scaled_matmul_stablehlo.scaled_matmul_wrapper"})  # fmt: skip

# Value-neutral parameters. `weak_type` steers promotion while tracing and nothing afterwards; a sharding says where a
# result lives, not what it is (the execution facts report it).
IGNORED = frozenset({"weak_type", "sharding", "out_sharding"})

COMMUTATIVE = frozenset({"add", "mul", "max", "min", "and", "or", "xor", "eq", "ne"})


def _collect() -> dict[str, typing.Any]:
    found = {}
    own = [sys.modules.get(f"jax._src.{name}") for name in _MODULES.split()]
    for module in (jax_primitives, jax.lax, *own):
        for attribute in dir(module):
            primitive = getattr(module, attribute)
            if attribute.endswith("_p") and isinstance(primitive, Primitive):
                found.setdefault(primitive.name, primitive)

    # jax exports no names for those that copy a key and that pass between typed and raw keys.
    def keys():
        return jax.random.wrap_key_data(jax.random.key_data(jax.random.clone(jax.random.key(0))))

    for equation in jax.make_jaxpr(keys)().eqns:
        found.setdefault(equation.primitive.name, equation.primitive)
    return found


def late(primitive: typing.Any) -> str | None:
    """`module.name` of a primitive from a module that jax loads only when it is asked for."""
    for name in _LATE:
        if any(value is primitive for value in vars(sys.modules.get(f"jax._src.{name}", sys)).values()):
            return f"{name.split('.')[-1]}.{primitive.name}"
    return None


EVERY = _collect()


def reason(primitive: typing.Any) -> str:
    """Why a primitive is not understood: from the table of reasons, else that it is new."""
    known = EVERY.get(primitive.name) is primitive
    return REASONS.get(primitive.name, _UNKNOWN) if known else _UNKNOWN


def by_name(names: typing.Iterable[str]) -> dict[typing.Any, str]:
    """The primitives of these names that this jax has."""
    return {EVERY[name]: name for name in names if name in EVERY}


# The cotangents' sum is a sum. No operation may be another's name and a digit: a term's digest puts a number behind it.
# A loop's rows, too, are called a stack.
_RENAMED = {EVERY["add_any"]: "add", EVERY["exp2"]: "exp_base_2", EVERY["stack"]: "stack_arrays"}
ELEMENTWISE = frozenset(_ELEMENTWISE.split()) - {"exp2"} | {"exp_base_2"}
PURE = by_name([*_ELEMENTWISE.split(), *_OTHERS.split()]) | _RENAMED
IDENTITIES = by_name(_IDENTITIES.split())

# Functions of their operands whose parameters hold no float, so that equal parameters mean one thing (0.0 equals -0.0),
# and nothing that cannot be a key: known again by parameters and operands, without a digest.
_QUICK = """
argmax argmin broadcast_in_dim clamp concatenate convert_element_type cumsum dot_general dynamic_slice
dynamic_update_slice iota pad reduce_and reduce_max reduce_min reduce_or reduce_sum reshape rev select_n slice split
squeeze transpose
"""
QUICK = frozenset(by_name([*(ELEMENTWISE - {"eq_to", "le_to", "lt_to"}), *_QUICK.split()])) | frozenset(_RENAMED)
CALLS = {EVERY[name]: parameter for name, parameter in _CALLS.items() if name in EVERY}
SCAN, WHILE, COND = EVERY["scan"], EVERY["while"], EVERY["cond"]
LINEAR_SOLVE, TIE = EVERY["custom_linear_solve"], EVERY["tie"]
