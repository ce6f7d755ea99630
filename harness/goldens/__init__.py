"""Recorded, reviewed facts about cases: small sorted text files, compared by meaning, written only on purpose."""

from . import terms
from .compare import NUMBER_BOUND, Difference, compare, verdict_of
from .golden import Golden, GoldenError, expected_files, filename_of, number, parse, read_number
from .store import (
    MANIFEST,
    Status,
    check,
    proposals,
    propose,
    read,
    read_blob,
    reject,
    remove,
    status,
    write,
    write_blob,
)

__all__ = [
    "terms", "Golden", "GoldenError", "expected_files", "filename_of", "number", "read_number", "parse",
    "Difference", "compare", "verdict_of", "NUMBER_BOUND",
    "MANIFEST", "Status", "read", "write", "check", "status", "read_blob", "write_blob", "remove",
    "propose", "proposals", "reject",
]  # fmt: skip
