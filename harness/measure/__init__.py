"""Executes two programs and judges the difference by rounding alone: float64 truth, one noise ratio, localisation."""

from .audit import Contradiction, audit
from .execute import measure, measure_runs
from .interpreter import Unsupported
from .localise import first_difference
from .ratio import CALIBRATION, LITERAL_BOUND, K
from .runners import Runners, compiled, replaying, stepwise
from .stepwise import DrawMismatch, op_by_op
from .truth import TruthRunner, truth

__all__ = [
    "measure", "audit", "truth", "first_difference", "Contradiction", "DrawMismatch", "Unsupported",
    "measure_runs", "Runners", "compiled", "stepwise", "replaying", "op_by_op", "TruthRunner",
    "K", "LITERAL_BOUND", "CALIBRATION",
]  # fmt: skip
