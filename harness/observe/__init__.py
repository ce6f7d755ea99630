"""The comparands that are not values of outputs: variables, shardings, checkpoint trees and cost.

Inputs are plain data (names, shapes, dtypes, specs), so nothing here knows a framework. Each comparison answers an
`Observation`: what was compared, every mismatch, and what was declared to be on one side only.
"""

from .observation import Mismatch, Observation

__all__ = ["Mismatch", "Observation"]
