"""What a run leaves behind: one JSONL stream of records, and its views. No jax here."""

from .certificate import RunCertificate, certify
from .exits import MEANINGS, Exit, exit_code
from .record import Record, RecordError, from_verdict
from .recorder import Recorder, failures
from .stream import Outcome, Run, Stream, merge, read_run, write_atomically

__all__ = [
    "Record", "RecordError", "from_verdict", "Recorder", "failures",
    "Run", "Outcome", "Stream", "merge", "read_run", "write_atomically",
    "RunCertificate", "certify", "Exit", "MEANINGS", "exit_code",
]  # fmt: skip
