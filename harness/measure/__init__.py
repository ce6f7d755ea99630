"""Executes two programs and judges the difference by rounding alone: float64 truth, one noise ratio, localisation."""

from .audit import Contradiction, audit, op_by_op
from .execute import compiled, measure, measure_runs
from .interpreter import Unsupported
from .localise import first_difference
from .ratio import CALIBRATION, LITERAL_BOUND, K
from .truth import TruthRunner, truth

__all__ = [
    "measure", "measure_runs", "audit", "op_by_op", "Contradiction", "compiled", "truth", "TruthRunner",
    "first_difference",    "K", "LITERAL_BOUND", "CALIBRATION", "Unsupported",
]  # fmt: skip
