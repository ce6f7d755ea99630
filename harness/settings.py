"""The settings every program is traced and run in. They are the harness's own, whatever the caller has switched on.

Two traces are comparable only under equal settings, so `environment()` is part of every fingerprint.
"""

import contextlib
import os
from collections.abc import Iterator

import jax

MATMUL_PRECISION = "highest"
PRNG_IMPLEMENTATION = "threefry2x32"


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """32-bit, standard dtype promotion, matmuls at highest precision, partitionable threefry keys.

    Promotion is not strict here: optax does not survive it. An ambient mesh is left alone.
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision(MATMUL_PRECISION),
        jax.threefry_partitionable(True),
        jax.default_prng_impl(PRNG_IMPLEMENTATION),
    ):
        yield


def compiler_options() -> dict[str, bool | int]:
    """XLA's own choices, or hardly any optimisation where the environment's PARAFLAX_COMPILE is `quick`.

    That takes a fifth of the time: a tiny model compiles for seconds and runs for milliseconds. For the CPU only.
    """
    if os.environ.get("PARAFLAX_COMPILE") != "quick":
        return {}
    return {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def environment() -> dict[str, str]:
    """What a trace depends on beside the program: the library version and the settings of `tracing`."""
    return {
        "jax": jax.__version__,
        "x64": "off",
        "dtype promotion": "standard",
        "matmul precision": MATMUL_PRECISION,
        "prng": f"{PRNG_IMPLEMENTATION}, partitionable",
    }
