"""Planted migration faults and how the prover explains them: `python -m parity_tests.prove.faults` writes the table."""
