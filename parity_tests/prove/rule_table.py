"""The table of rewrite rules in `docs/rules.md`, from the rules and their examples. Run it to write the file anew.

`PYTHONPATH=. python -m parity_tests.prove.rule_table`
"""

import pathlib

from harness.prove import RULES

from . import test_rules

PATH = pathlib.Path(__file__).resolve().parents[2] / "docs" / "rules.md"
HEAD = """# Rewrite rules

What a proof may rewrite, in the order in which it is tried. Written by `python -m parity_tests.prove.rule_table`; a
test holds it against the rules. Each rule has examples in `parity_tests/prove/examples_of_*.py`: both sides are run op
by op, on awkward values, in every dtype that jax admits to them. The last column names the dtypes that jax admits and
no example proves, because bits differ there or nothing is claimed; the rest of the twenty-four are held.

| rule | class | why it holds | not in |
|---|---|---|---|
"""
GROUPS = {
    "float8": [name for name in test_rules.dtypes() if name.startswith("float8")],
    "integers": [name for name in test_rules.dtypes() if "int" in name],
}


def rows() -> list[str]:
    """One line for each rule."""
    return [f"{static(rule)} {_shortened(excluded(rule.name))} |" for rule in RULES]


def static(rule) -> str:
    """The columns that follow from the rule alone."""
    return f"| {rule.name} | {rule.strength.words} | {rule.argument} |"


def excluded(name: str) -> list[str]:
    """The dtypes that every example of a rule admits or leaves out, and that none of them proves."""
    admitted, held = set(), set()
    for example in test_rules.EXAMPLES:
        if example.rule == name:
            found = set(test_rules.admitted(example))
            admitted |= found
            held |= found - set(example.unlike)
    return [kind for kind in test_rules.dtypes() if kind in admitted - held]


def _shortened(names: list[str]) -> str:
    for group, members in GROUPS.items():
        if set(members) <= set(names):
            names = [group, *(name for name in names if name not in members)]
    return ", ".join(names)


if __name__ == "__main__":
    PATH.write_text(HEAD + "\n".join(rows()) + "\n")
