"""Device markers: which accelerator a test needs, whether it is there, and what happens where it is not."""

import functools
import importlib.util

import pytest

MARKERS = {
    "tpu_only": "tpu_only: runs on a TPU; without one it is skipped, or lowered for it when it was asked for",
    "gpu_only": "gpu_only: runs on a GPU; without one it is skipped, or lowered for it when it was asked for",
    "cpu_only": "cpu_only: runs where the default device is a CPU",
    "tpu_backend": "tpu_backend: needs the TPU plugin (libtpu), not the hardware",
    "slow": "slow: takes more than a few seconds",
    "scheduled_only": "scheduled_only: runs at night",
    "witness": "witness: needs torch and transformers (extra `witness`)",
    "gate": "gate: part of `paraflax gate`",
}
PLATFORMS = {"tpu_only": "tpu", "gpu_only": "gpu"}
LOWERING = {"tpu": "tpu", "gpu": "cuda"}


def asked_marks(expression: str | None) -> set[str]:
    """The device markers that a `-m` expression asks for (and does not negate)."""
    words = (expression or "").replace("(", " ").replace(")", " ").split()
    asked = {word for before, word in zip(["", *words], words, strict=False) if before != "not"}
    return asked & set(PLATFORMS)


def reason_to_skip(item: pytest.Item, *, dry_run: bool) -> str:
    """Why a test cannot run here, or nothing. A dry run only accepts a test that can be lowered instead."""
    platform = _platform(item)
    if platform and platform != _default_platform():
        if not dry_run:
            return f"no {platform.upper()} is there"
        if "accelerator" not in getattr(item, "fixturenames", ()):
            pytest.fail(
                f"{item.nodeid} has no dry run: take the fixture `accelerator` and lower when it is 'dry'",
                pytrace=False,
            )
    if item.get_closest_marker("cpu_only") and _default_platform() != "cpu":
        return "the default device is not a CPU"
    if item.get_closest_marker("tpu_backend") and importlib.util.find_spec("libtpu") is None:
        return "the TPU plugin (libtpu) is not installed"
    return ""


def accelerator_name(item: pytest.Item) -> str:
    """`tpu`, `gpu` or `dry`."""
    platform = _platform(item) or "tpu"
    forced = item.config.getoption("parity_dry_run")
    return platform if platform == _default_platform() and not forced else "dry"


def lowering_platform_of(item: pytest.Item) -> str:
    """What `lowering_platforms` takes for the device of a test."""
    return LOWERING[_platform(item) or "tpu"]


def _platform(item: pytest.Item) -> str | None:
    return next((name for marker, name in PLATFORMS.items() if item.get_closest_marker(marker)), None)


@functools.cache
def _default_platform() -> str:
    import jax

    return jax.default_backend()
