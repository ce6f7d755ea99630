"""Proof of parity from traces: canonical form, fingerprints, and where two programs part when they are not one
function.

Sound without exception and failing closed: what is not modelled is `undecided`. Nothing here compiles or runs a
program.
"""

from .prover import Fingerprint, fingerprint, prove, recorded
from .record import Record, RecordError, changes, read
from .rules import RULES, Rule, Strength

__all__ = [
    "RULES", "Fingerprint", "Rule", "Strength", "fingerprint", "prove", "Record", "RecordError", "changes", "read",
    "recorded",
]  # fmt: skip
