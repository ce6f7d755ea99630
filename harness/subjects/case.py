"""One case: a subject's config under a step, on a mesh. It has a stable id, a literal and a token to repeat it."""

import base64
import binascii
import dataclasses
import hashlib
import json
import typing
import zlib


class CaseError(ValueError):
    """A token or a description that names no case."""


@dataclasses.dataclass(frozen=True)
class Case:
    """`config` is the subject's own config object; `config_json` its plain form; `mesh` a name the subject knows."""

    subject: str
    config: typing.Any
    config_json: str
    step: str
    mesh: str | None = None
    label: str | None = None

    @property
    def id(self) -> str:
        """A readable, stable id: label or family, step, mesh and eight hex digits of the content."""
        return case_id(self)

    @property
    def literal(self) -> str:
        """Python text that rebuilds the config and the case."""
        mesh = "" if self.mesh is None else f", mesh={self.mesh!r}"
        return f"SUBJECT.case({self.config!r}, step={self.step!r}{mesh})"

    @property
    def token(self) -> str:
        """The case in one word, for `paraflax repro TOKEN`."""
        data = {"subject": self.subject, "config": json.loads(self.config_json), "step": self.step, "mesh": self.mesh}
        packed = zlib.compress(json.dumps(data, sort_keys=True, separators=(",", ":")).encode(), level=9)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def case_id(case: Case) -> str:
    """`label-step[-mesh]-hash`, the hash over everything that decides what is run."""
    content = "\n".join([case.subject, case.config_json, case.step, case.mesh or ""])
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    words = [case.label or getattr(case.config, "family", case.subject), case.step, case.mesh]
    return "-".join([*(word for word in words if word), digest])


def read_token(token: str) -> dict[str, typing.Any]:
    """The plain description behind a token.

    Raises:
        CaseError: when it is not one.
    """
    try:
        padded = token + "=" * (-len(token) % 4)
        return json.loads(zlib.decompress(base64.urlsafe_b64decode(padded)))
    except (binascii.Error, zlib.error, ValueError) as error:
        raise CaseError(
            f"token {token[:16]!r}...: is not a case token ({error}); copy the whole word that the report printed."
        ) from None
