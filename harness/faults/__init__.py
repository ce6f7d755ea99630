"""Planted faults: how a check shows that it can fail. The faults themselves stand beside their subject."""

from .planted import Fault, FaultError, FaultKind, Planted, planted
from .source import planted_source

__all__ = ["Fault", "FaultError", "FaultKind", "Planted", "planted", "planted_source"]
