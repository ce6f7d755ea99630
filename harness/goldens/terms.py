"""The terms of recorded programs in a golden: which operation changed, when a fingerprint did.

They inform and never decide: the fingerprints do. A section of lines that diff well says which stages changed; the
coded terms say which operation, and the code as it is now says at which line.
"""

import typing
from collections.abc import Iterable, Mapping

from ..verdict import Finding
from .golden import Golden

BOTH = "both"


def sections(records: Mapping[str, typing.Any]) -> dict[str, dict[str, str]]:
    """The sections `operations` and `terms` from the records by side; sides that are one have one record, of `both`."""
    operations, terms = {}, {}
    for name, record in records.items():
        operations |= {f"{stage} of {name}": words for stage, words in record.operations().items()}
        terms |= {f"{name} {number:04}": line for number, line in enumerate(record.lines())}
    return {"operations": operations, "terms": terms}


def coded(golden: Golden, side: str) -> list[str]:
    """The lines of one side's coded terms; none where the golden holds no terms."""
    lines = golden.sections.get("terms", {})
    for name in (side, BOTH):
        found = [lines[key] for key in sorted(lines) if key.rpartition(" ")[0] == name]
        if found:
            return found
    return []


def changed(stored: Golden, current: Golden, sides: Iterable[str]) -> tuple[Finding, ...]:
    """What parts two goldens, from their texts alone: operations and stages, without lines of code."""
    from ..prove import RecordError, changes, read

    for side in sides:
        texts = coded(stored, side), coded(current, side)
        if all(texts) and texts[0] != texts[1]:
            try:
                found = changes(*(read(text) for text in texts), names=("golden", side))
            except RecordError:
                continue
            if found:
                return found
    return ()


def sides_of(golden: Golden) -> list[str]:
    """The backends whose fingerprints a golden holds."""
    keys = golden.sections.get("fingerprints", {})
    return sorted({key.rpartition(" of ")[2] for key in keys if key.startswith("value of ")})
