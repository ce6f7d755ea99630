"""What the prover knows about jax's primitives: which are functions of their operands, and what may be ignored and why.

A primitive that is not here is not understood, and whatever depends on it is undecided. Primitives are told apart by
identity, never by name.
"""

import typing

import jax
from jax.extend.core import primitives as jax_primitives

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
"""
_IDENTITIES = "random_clone stop_gradient copy name optimization_barrier sharding_constraint device_put"
_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "call": "call_jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}

# Value-neutral parameters. `weak_type` steers promotion while tracing and nothing afterwards; a sharding says where a
# result lives, not what it is (the execution facts report it).
IGNORED = frozenset({"weak_type", "sharding", "out_sharding"})

COMMUTATIVE = frozenset({"add", "mul", "max", "min", "and", "or", "xor", "eq", "ne"})


def _collect() -> dict[str, typing.Any]:
    found = {}
    for module in (jax_primitives, jax.lax):
        for attribute in dir(module):
            if attribute.endswith("_p"):
                primitive = getattr(module, attribute)
                found.setdefault(primitive.name, primitive)

    # jax exports no names for those that copy a key and that pass between typed and raw keys.
    def keys():
        return jax.random.wrap_key_data(jax.random.key_data(jax.random.clone(jax.random.key(0))))

    for equation in jax.make_jaxpr(keys)().eqns:
        found.setdefault(equation.primitive.name, equation.primitive)
    return found


_BY_NAME = _collect()


def _all(names: typing.Iterable[str]) -> dict[typing.Any, str]:
    return {_BY_NAME[name]: name for name in names if name in _BY_NAME}


# The cotangents' sum is a sum. No operation may be another's name and a digit: a term's digest puts a number behind it.
_RENAMED = {_BY_NAME["add_any"]: "add", _BY_NAME["exp2"]: "exp_base_2"}
ELEMENTWISE = frozenset(_ELEMENTWISE.split()) - {"exp2"} | {"exp_base_2"}
PURE = _all([*_ELEMENTWISE.split(), *_OTHERS.split()]) | _RENAMED
IDENTITIES = _all(_IDENTITIES.split())
CALLS = {_BY_NAME[name]: parameter for name, parameter in _CALLS.items() if name in _BY_NAME}
SCAN, WHILE, COND = _BY_NAME["scan"], _BY_NAME["while"], _BY_NAME["cond"]
