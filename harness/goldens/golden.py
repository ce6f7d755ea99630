"""One golden: a recorded, reviewed fact about a case, as sorted lines that diff well. Text only; no files here."""

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping

from ..verdict import Finding

HEADER = "# paraflax golden 1"
INFORMING = ("environment", "digests", "operations", "terms")
SECTIONS = (
    "environment", "case", "leaves", "specs", "fingerprints", "operations", "cost", "numbers", "digests", "terms",
)  # fmt: skip
FIX = "run `paraflax goldens regen` and review the difference"


class GoldenError(ValueError):
    """A golden that cannot be used. The message names the file, the rule and the fix in one sentence."""

    def __init__(self, name: str, rule: str, fix: str = FIX) -> None:
        super().__init__(f"golden {name}: {rule}; {fix}.")
        self.name = name


@dataclasses.dataclass(frozen=True)
class Golden:
    """The facts of one case by section and key.

    Sections: `environment` (library versions: they say whether fingerprints and cost may be compared), `case`
    (literal, family), `leaves` (shape, dtype, logical axes), `specs` (PartitionSpec by mesh), `fingerprints`, `cost`,
    `numbers` (float64 truths, see `number`), `digests` (of bits), `operations` (by stage) and `terms` (coded): the last
    three inform and never decide. `explain` says of a golden computed now which operations part it from a stored one.
    """

    case_id: str
    sections: Mapping[str, Mapping[str, str]]
    explain: Callable[["Golden"], tuple[Finding, ...]] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+-]+", self.case_id):
            raise GoldenError(self.case_id, "a case id holds letters, digits and .+-_ only", "rename the case")
        for section, entries in self.sections.items():
            if section not in SECTIONS:
                raise GoldenError(self.case_id, f"section {section!r} is unknown", f"use one of {', '.join(SECTIONS)}")
            for key, value in entries.items():
                if "\n" in f"{key}{value}" or " = " in key or not key.strip() or key[0] in "[#":
                    raise GoldenError(
                        self.case_id, f"entry {key!r} of {section} is not one line", "keep keys and values to one line"
                    )

    @property
    def family(self) -> str:
        """The folder: entry `family` of section `case` (which `filename_of` expects), else the id's first word."""
        return self.sections.get("case", {}).get("family") or self.case_id.split("-")[0]

    @property
    def filename(self) -> str:
        """The path below the goldens' directory."""
        return f"{self.family}/{self.case_id}.txt"

    @property
    def num_facts(self) -> int:
        """How many entries a comparison decides on."""
        return sum(len(entries) for name, entries in self.sections.items() if name not in INFORMING)

    def text(self) -> str:
        """The file's content: sections in fixed order, keys sorted, a last line that counts the entries."""
        lines = [HEADER, f"# {self.case_id}"]
        count = 0
        for section in SECTIONS:
            entries = self.sections.get(section)
            if entries:
                lines += ["", f"[{section}]", *(f"{key} = {entries[key]}" for key in sorted(entries))]
                count += len(entries)
        return "\n".join([*lines, "", f"# end of {count} entries", ""])


def filename_of(case: typing.Any) -> str:
    """The golden's path of a case: its config's family (else its subject), then its id."""
    return f"{getattr(case.config, 'family', case.subject)}/{case.id}.txt"


def expected_files(subject: typing.Any) -> list[str]:
    """The file of every case with a golden, and the subject's other recorded files (`golden_files`)."""
    return [*(filename_of(case) for case in subject.golden_cases()), *getattr(subject, "golden_files", ())]


def number(value: float, *, scale: float | None = None) -> str:
    """A float64 truth as text; `scale` is the magnitude that differences are held against (default: the value's)."""
    text = repr(float(value))
    return text if scale is None else f"{text} on {float(scale)!r}"


def read_number(text: str) -> tuple[float, float]:
    """Value and magnitude of a number's text.

    Raises:
        ValueError: when it is no number.
    """
    value, _, scale = text.partition(" on ")
    return float(value), abs(float(scale or value))


def parse(text: str, name: str) -> Golden:
    """The inverse of `Golden.text`.

    Raises:
        GoldenError: when the text is truncated, out of form, or damaged by hand.
    """
    lines = text.split("\n")
    if lines[0] != HEADER or len(lines) < 2 or not lines[1].startswith("# "):
        raise GoldenError(name, f"does not begin with {HEADER!r}, so it is no golden of this version")
    sections, section = _entries(lines[2:], name)
    count = sum(len(entries) for entries in sections.values())
    if section != f"# end of {count} entries":
        raise GoldenError(name, f"is truncated: its last line does not count the {count} entries that are there")
    golden = Golden(lines[1][2:], sections)
    if golden.text() != text:
        raise GoldenError(name, "was edited by hand: its lines are not in the form and order that are written")
    return golden


def _entries(lines: list[str], name: str) -> tuple[dict[str, dict[str, str]], str]:
    """The sections, and the line that ended them."""
    sections: dict[str, dict[str, typing.Any]] = {}
    current: dict[str, str] | None = None
    for line in lines:
        if line.startswith("# end of "):
            return sections, line
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1], {})
        elif line:
            key, found, value = line.partition(" = ")
            if not found or current is None or key in current:
                raise GoldenError(name, f"line {line[:60]!r} is no new entry of a section")
            current[key] = value
    return sections, ""
