"""Benchmarks of the prover: what a proof costs, and how many honest pairs it proves. Tools to run, no part of a gate.

They may import the harness and the built-in subject; nothing but the tests imports them.
"""
