"""Measures the table of the families and writes it into the README; fails when a cell is empty or beyond its limit.

    python -m parity_tests.families                 # all families: some ten minutes
    python -m parity_tests.families --only llama4   # prints one, writes nothing
"""

import argparse
import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from .table import FAMILIES, README, measured, page, rows

parser = argparse.ArgumentParser(prog="python -m parity_tests.families", description=__doc__.splitlines()[0])
parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="FAMILY", help="print these; leave the README alone")
options = parser.parse_args()
found = {}
for family in options.only or FAMILIES:
    found[family] = measured(family)
    print(*rows(family, found[family]), sep="\n", flush=True)
if options.only is None:
    README.write_text(page(README.read_text(encoding="utf-8"), found), encoding="utf-8")
failed = [f"{family} {cell.name}" for family, cells in found.items() for cell in cells if not cell.holds]
print(f"{len(failed)} cells fail", *failed)
sys.exit(1 if failed else 0)
