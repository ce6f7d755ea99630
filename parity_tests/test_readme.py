"""The README's example runs as it stands there, and it can fail."""

import pathlib
import re

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL).group(1)


def test_the_example_of_ones_own_pair_proves_it():
    scope = {}
    exec(compile(EXAMPLE, "README.md", "exec"), scope)
    assert str(scope["verdict"].kind) == "proved"


def test_the_example_notices_a_changed_function():
    scope = {}
    broken = EXAMPLE.replace('x @ state["kernel"])', 'x @ state["kernel"] * 1.01)')
    broken = broken.replace("assert verdict, verdict.explain()", "")
    assert broken != EXAMPLE
    exec(compile(broken, "README.md", "exec"), scope)
    assert not scope["verdict"]


def test_the_example_has_about_ten_statements():
    lines = [line for line in EXAMPLE.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 11
