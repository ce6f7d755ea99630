"""Goldens: text that survives, differences by meaning, and a directory that is never half-written."""

import pytest

from harness import goldens
from harness.goldens import Golden, GoldenError, number
from harness.verdict import Kind

SECTIONS = {
    "environment": {"jax": "0.10.2"},
    "case": {"family": "llama", "literal": "SUBJECT.case(Setup(...), step='forward')"},
    "leaves": {"params/decoder/norm": "float32[8]", "logits": "float32[2,8,264]"},
    "fingerprints": {"value of linen": "aa"},
    "numbers": {"loss": number(5.545177444479562), "element": number(1e-20, scale=1.0)},
    "digests": {"logits": "f00"},
}
GOLDEN = Golden("llama-forward-1234abcd", SECTIONS)


@pytest.fixture(autouse=True)
def off_ci(monkeypatch):
    """Stores here are scratch ones; the test of the refusal under CI sets the variable itself."""
    monkeypatch.delenv("CI", raising=False)


def changed(section, key, value, golden=GOLDEN):
    entries = {k: v for k, v in {**golden.sections.get(section, {}), key: value}.items() if v is not None}
    return Golden(golden.case_id, {**golden.sections, section: entries})


def test_a_golden_survives_its_text_and_is_sorted():
    text = GOLDEN.text()
    assert goldens.parse(text, "x") == GOLDEN
    assert text.index("logits = float32") < text.index("params/decoder/norm")


def test_write_then_read_and_the_manifest_knows_it(tmp_path):
    path = goldens.write(tmp_path, GOLDEN)
    assert path == tmp_path / "llama" / "llama-forward-1234abcd.txt"
    assert goldens.read(path) == GOLDEN
    assert len((tmp_path / "MANIFEST").read_text().splitlines()) == 1


DAMAGES = {
    "truncated": lambda text: text[: len(text) // 2],
    "without its end": lambda text: text[: text.rindex("# end")],
    "edited": lambda text: text.replace("float32[8]", "float32[9]"),
    "empty": lambda text: "",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_golden_is_one_sentence_with_the_fix(damage, tmp_path):
    path = goldens.write(tmp_path, GOLDEN)
    path.write_text(DAMAGES[damage](path.read_text()))
    with pytest.raises(GoldenError) as caught:
        goldens.read(path)
    assert "llama/llama-forward-1234abcd.txt" in str(caught.value)
    assert "paraflax goldens regen" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert goldens.status(tmp_path, [GOLDEN.filename]).damaged == (GOLDEN.filename,)


@pytest.mark.parametrize("damage", ["truncated", "without its end", "empty"])
def test_damage_shows_in_the_text_alone(damage):
    with pytest.raises(GoldenError):
        goldens.parse(DAMAGES[damage](GOLDEN.text()), "x")


def test_a_missing_golden_diverges(tmp_path):
    verdict = goldens.check(tmp_path, GOLDEN)
    assert verdict.kind is Kind.DIVERGED
    assert "is missing; run `paraflax goldens regen`" in verdict.explain()


def test_status_names_missing_unused_and_stale(tmp_path):
    goldens.write(tmp_path, GOLDEN)
    goldens.write(tmp_path, Golden("llama-old-00000000", SECTIONS))
    newer = changed("environment", "jax", "0.11.0")
    state = goldens.status(tmp_path, [GOLDEN.filename, "llama/llama-new-1.txt"], current=[newer])
    assert state.missing == ("llama/llama-new-1.txt",)
    assert state.unused == ("llama/llama-old-00000000.txt",)
    assert state.stale == (GOLDEN.filename,)
    assert not state.clean
    for name in (*state.missing, *state.unused):
        assert name in state.explain()


def test_a_file_that_only_the_manifest_knows_is_no_silence(tmp_path):
    goldens.write(tmp_path, GOLDEN).unlink()
    assert goldens.status(tmp_path, []).unused == (GOLDEN.filename,)
    assert goldens.status(tmp_path, [GOLDEN.filename]).missing == (GOLDEN.filename,)


DIFFERENCES = {
    "a leaf's dtype": (changed("leaves", "logits", "bfloat16[2,8,264]"), [("leaves", "logits", Kind.DIVERGED)]),
    "a leaf gone": (changed("leaves", "logits", None), [("leaves", "logits", Kind.DIVERGED)]),
    "a leaf more": (changed("leaves", "extra", "x"), [("leaves", "extra", Kind.DIVERGED)]),
    "a fingerprint": (
        changed("fingerprints", "value of linen", "bb"),
        [("fingerprints", "value of linen", Kind.DIVERGED)],
    ),
    "a number's last bits": (changed("numbers", "loss", number(5.545177444479562 * (1 + 1e-13))), []),
    "a number by a float32 rounding": (
        changed("numbers", "loss", number(5.545177444479562 * (1 + 6e-8))),
        [("numbers", "loss", Kind.DIVERGED)],
    ),
    "noise around zero": (changed("numbers", "element", number(-3e-17, scale=1.0)), []),
    "a nan": (changed("numbers", "loss", number(float("nan"))), [("numbers", "loss", Kind.DIVERGED)]),
    "an infinity": (changed("numbers", "loss", number(float("inf"))), [("numbers", "loss", Kind.DIVERGED)]),
    "a digest of bits": (changed("digests", "logits", "beef"), []),
    "nothing": (GOLDEN, []),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_are_told_by_meaning(name):
    current, wanted = DIFFERENCES[name]
    assert [(d.section, d.key, d.kind) for d in goldens.compare(GOLDEN, current)] == wanted


def test_fingerprints_of_other_versions_are_undecided_with_the_command_and_structure_still_decides():
    current = changed("environment", "jax", "0.11.0", changed("fingerprints", "value of linen", "bb"))
    (difference,) = goldens.compare(GOLDEN, current)
    assert difference.kind is Kind.UNDECIDED
    assert "paraflax goldens regen" in difference.detail
    assert "jax 0.10.2 (now 0.11.0)" in difference.detail
    worse = changed("leaves", "logits", None, current)
    assert goldens.verdict_of(goldens.compare(GOLDEN, worse), GOLDEN).kind is Kind.DIVERGED


def test_a_golden_under_another_case_diverges(tmp_path):
    goldens.write(tmp_path, GOLDEN)
    other = Golden("llama-forward-ffffffff", SECTIONS)
    goldens.write_blob(tmp_path, other.filename, GOLDEN.text().encode())
    assert "holds the case llama-forward-1234abcd" in goldens.check(tmp_path, other).reason


def test_under_ci_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "true")
    for act in (goldens.write, goldens.propose):
        with pytest.raises(GoldenError, match="environment variable CI"):
            act(tmp_path, GOLDEN)
    with pytest.raises(GoldenError, match="environment variable CI"):
        goldens.remove(tmp_path, GOLDEN.filename)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rename", [1, 2, 3])
def test_an_interrupted_write_leaves_a_golden_that_the_manifest_knows(rename, tmp_path, monkeypatch):
    """A write renames three times: manifest, file, manifest. Whichever is the last, some whole golden is there."""
    import os

    path, calls, real = goldens.write(tmp_path, GOLDEN), [], os.replace

    def interrupted(*names):
        calls.append(names)
        if len(calls) == rename:
            raise KeyboardInterrupt
        real(*names)

    newer = changed("leaves", "logits", "bfloat16[2]")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            goldens.write(tmp_path, newer)
    assert goldens.read(path) == (GOLDEN if rename < 3 else newer)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["MANIFEST", path.name]
    goldens.write(tmp_path, newer)
    assert goldens.read(path) == newer


def test_npz_goldens_are_held_by_their_hash(tmp_path):
    goldens.write_blob(tmp_path, "llama/witness.npz", b"content")
    assert goldens.read_blob(tmp_path, "llama/witness.npz") == b"content"
    assert goldens.status(tmp_path, ["llama/witness.npz"]).clean
    (tmp_path / "llama" / "witness.npz").write_bytes(b"conten")
    with pytest.raises(GoldenError, match="truncated or was edited"):
        goldens.read_blob(tmp_path, "llama/witness.npz")


def test_pending_goldens_wait_for_a_decision(tmp_path):
    goldens.write(tmp_path, GOLDEN)
    newer = changed("leaves", "logits", "bfloat16[2]")
    goldens.propose(tmp_path, newer)
    assert goldens.read(tmp_path / GOLDEN.filename) == GOLDEN
    assert goldens.proposals(tmp_path) == [newer]
    assert goldens.status(tmp_path, [GOLDEN.filename]).pending == (GOLDEN.filename + ".new",)
    goldens.reject(tmp_path, newer)
    assert goldens.proposals(tmp_path) == []


@pytest.mark.parametrize("bad", [("leaves", "a = b", "x"), ("leaves", "a", "two\nlines"), ("nonsense", "a", "b")])
def test_what_cannot_be_one_line_is_refused(bad):
    section, key, value = bad
    with pytest.raises(GoldenError):
        Golden("llama-1", {section: {key: value}})
