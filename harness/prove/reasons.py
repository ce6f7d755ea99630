"""Why some of jax's primitives are not modelled, one reason each. A program that needs one is undecided, and says so.

A primitive of jax's that is neither known nor listed here makes `parity_tests/prove/test_coverage.py` fail by name.
"""

_UNWRITTEN = "its result was never written, so it may be anything"
_STARTED = "a collective that is started here and ends elsewhere"
_UNREDUCED = "partial sums that a type stands for are not modelled"
_TRACING = "it lives while jax traces and is in no program that jax compiles"
_TOKENS = "it orders operations for the compiler and has no value"
_HIGH = "a type of the user's own, whose meaning is Python code"

REASONS: dict[str, str] = {
    "accum_grad_in_ref": _TRACING,
    "after_all": _TOKENS,
    "all_gather_done": _STARTED,
    "all_gather_reduced": _UNREDUCED,
    "all_gather_reduced_start": _STARTED,
    "all_gather_start": _STARTED,
    "all_to_all_done": _STARTED,
    "all_to_all_start": _STARTED,
    "broadcast_to": "it belongs to references that an older form of jax linearised",
    "call_hi_primitive": _HIGH,
    "check": "a check that checkify has not yet turned into a value",
    "create_linear": _TRACING,
    "create_token": _TOKENS,
    "custom_jvp_call_jaxpr": _TRACING,
    "custom_lin": _TRACING,
    "custom_partitioning": "a function of the user's own decides how it is split over devices",
    "empty": _UNWRITTEN,
    "empty2": _UNWRITTEN,
    "ffi_call": "foreign code, known by a name only",
    "inspect_sharding": "a call of Python while compiling",
    "pbroadcast_done": _STARTED,
    "pbroadcast_start": _STARTED,
    "pin": "a reference that is an array for a while",
    "ppermute_done": _STARTED,
    "ppermute_start": _STARTED,
    "precv": "one half of a transfer between devices",
    "preduced": _UNREDUCED,
    "psend": "one half of a transfer between devices",
    "psum_done": _STARTED,
    "psum_invariant_start": _STARTED,
    "psum_start": _STARTED,
    "reduce_scatter_done": _STARTED,
    "reduce_scatter_start": _STARTED,
    "reduced_vary_cast_p": _UNREDUCED,
    "rng_uniform": "it draws from a state of the device, so it is no function of its operands",
    "stage": _TRACING,
    "unpin": "a reference that is an array for a while",
    "unreachable": "it fails when it is run",
    "unreduced_psum": _UNREDUCED,
    "unreduced_psum_start": _STARTED,
    "unreduced_reduce_scatter": _UNREDUCED,
    "unreduced_reduce_scatter_start": _STARTED,
    "vary_unreduced_cast_p": _UNREDUCED,
}
