"""Session set-up that must happen before jax starts: devices, compile cache, Hypothesis profiles, checked shapes.

An accelerator is asked for by `JAX_PLATFORMS` or by `-m tpu_only` / `-m gpu_only`; otherwise the CPU is used, split
into eight simulated devices.
"""

import os
import pathlib
import sys

import hypothesis
import pytest

ROOT = pathlib.Path(__file__).resolve().parent
ACCELERATOR_MARKS = ("tpu_only", "gpu_only", "tpu_backend")
SIMULATED = "--xla_force_host_platform_device_count=8"


def _asked_for_accelerator(config: pytest.Config) -> bool:
    expression = config.getoption("markexpr", default="") or ""
    words = expression.replace("(", " ").replace(")", " ").split()
    asked = {word for before, word in zip(["", *words], words, strict=False) if before != "not"}
    return "JAX_PLATFORMS" in os.environ or bool(asked & set(ACCELERATOR_MARKS))


def pytest_configure(config: pytest.Config) -> None:
    """Settles the platform, the compile cache and the profiles, once for the controller and once for each worker."""
    flags = [SIMULATED]
    if not _asked_for_accelerator(config):
        os.environ["JAX_PLATFORMS"] = "cpu"
        by_night = os.environ.get("PARAFLAX_PROFILE") == "nightly"
        if os.environ.setdefault("PARAFLAX_COMPILE", "full" if by_night else "quick") == "quick":
            flags.append("--xla_backend_optimization_level=0")
    _add_xla_flags(flags)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".paraflax" / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    _hypothesis_profiles()
    _own_models(config)


def _add_xla_flags(flags: list[str]) -> None:
    """Adds what is not set yet: a flag of the caller's own stays."""
    given = os.environ.get("XLA_FLAGS", "").split()
    names = {flag.partition("=")[0] for flag in given}
    os.environ["XLA_FLAGS"] = " ".join([*given, *(flag for flag in flags if flag.partition("=")[0] not in names)])


def _hypothesis_profiles() -> None:
    common = {"deadline": None, "print_blob": True, "suppress_health_check": list(hypothesis.HealthCheck)}
    hypothesis.settings.register_profile("pr", derandomize=True, database=None, **common)
    hypothesis.settings.register_profile("dev", **common)
    hypothesis.settings.register_profile("nightly", max_examples=1000, **common)
    hypothesis.settings.load_profile(os.environ.get("PARAFLAX_PROFILE", "pr"))


def _own_models(config: pytest.Config) -> None:
    """Refuses a stray `models.py` that shadows the package, and switches the shape types of the maths on."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    import importlib.util

    spec = importlib.util.find_spec("models")
    origin = pathlib.Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin is None or ROOT not in origin.parents:
        raise pytest.UsageError(
            f"`import models` finds {origin}, which shadows the package of that name; rename or move that file."
        )
    from jaxtyping import install_import_hook

    install_import_hook(["models.ops"], "beartype.beartype")
