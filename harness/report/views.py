"""Files beside the records: the certificate as JSON and the summary as Markdown. They can always be made anew."""

import json
import pathlib

from .certificate import RunCertificate, certify
from .exits import Exit, exit_code
from .markdown import markdown
from .stream import Run, write_atomically

CERTIFICATE = "certificate.json"
SUMMARY = "summary.md"


def write_views(directory: pathlib.Path, run: Run, *, code: Exit | None = None) -> RunCertificate:
    """Writes both views of a run; `code` where the caller knows better than the records."""
    certificate = certify(run)
    judged = exit_code(run.records, run.outcomes) if code is None else code
    write_atomically(
        directory / CERTIFICATE, json.dumps({"exit": int(judged), **certificate.to_json()}, indent=1) + "\n"
    )
    write_atomically(directory / SUMMARY, markdown(run, certificate, judged))
    return certificate
