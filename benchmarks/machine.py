"""The machine that a figure was taken on, and a Markdown table. Plain data, no jax."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Iterable, Sequence

PACKAGES = ("jax", "flax", "numpy")


def describe() -> dict[str, str]:
    """Processor, cores, memory, system, Python and library versions."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "processor": field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }


def sentence(facts: dict[str, str]) -> str:
    """The description in one line."""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", *PACKAGES))
    return f"{facts['cores']} cores of {facts['processor']}, {facts['memory']}, {facts['system']}; {versions}"


def field(path: str, key: str) -> str:
    """The first value of a key in a file of `key : value` lines; empty where there is no such file or key."""
    file = pathlib.Path(path)
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _memory() -> str:
    kibibytes = field("/proc/meminfo", "MemTotal").partition(" ")[0]
    return f"{int(kibibytes) / 2**20:.0f} GiB" if kibibytes else "memory unknown"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
