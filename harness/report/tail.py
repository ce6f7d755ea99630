"""What a run has written so far: reads the growing files of its workers, for a progress display. It never waits."""

import collections
import dataclasses
import json
import pathlib

from .stream import MERGED


@dataclasses.dataclass
class Tail:
    """Counts over the files of a run's directory."""

    directory: pathlib.Path
    collected: int = 0
    done: int = 0
    failed: int = 0
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    offsets: dict[str, int] = dataclasses.field(default_factory=dict)

    def poll(self) -> None:
        """Reads the complete lines that are new since the last call."""
        for file in sorted(self.directory.glob("*.jsonl")):
            if file.name == MERGED:
                continue
            try:
                with file.open("rb") as handle:
                    handle.seek(self.offsets.get(file.name, 0))
                    text = handle.read()
            except FileNotFoundError:
                continue
            whole = text.rpartition(b"\n")[0]
            if whole:
                self.offsets[file.name] = self.offsets.get(file.name, 0) + len(whole) + 1
                for line in whole.split(b"\n"):
                    self._count(json.loads(line))

    def _count(self, line: dict) -> None:
        match line["type"]:
            case "collection":
                self.collected = max(self.collected, line["collected"] + line["reused"])
            case "record" if line["observable"] != "control":
                self.kinds[line["kind"]] += 1
            case "test":
                self.done += 1
                self.failed += line["outcome"] in ("failed", "error")

    @property
    def text(self) -> str:
        """Counts in words."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        return f"{self.done}/{self.collected or '?'} tests, {kinds or 'nothing compared yet'}" + (
            f", {self.failed} failed" if self.failed else ""
        )
