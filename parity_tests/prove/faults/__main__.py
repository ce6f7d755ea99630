"""Writes the table of explained faults into the docs; fails when a planted line is not named."""

import sys

from .table import PAGE, outcomes, page

found = outcomes()
PAGE.write_text(page(found), encoding="utf-8")
wrong = sorted(name for name, outcome in found.items() if not outcome.named)
print(f"{len(found) - len(wrong)} of {len(found)} planted faults are named by line", *wrong)
sys.exit(1 if wrong else 0)
