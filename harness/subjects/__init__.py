"""What the harness drives: a subject (backends, steps, a space of configs) and one case of it. Knows no framework."""

from .case import Case, case_id
from .subject import NamedVerdict, Subject, find_subject

__all__ = ["Case", "NamedVerdict", "Subject", "case_id", "find_subject"]
