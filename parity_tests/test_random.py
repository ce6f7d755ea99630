"""Random configs: a covering set in which every pair of knob values occurs, and Hypothesis draws by stratum.

Each config is proved from its traces; what is not proved is measured. A stable share of the proved ones is executed
op by op as an audit, where equal denotation must mean equal bits.
"""

import dataclasses
import itertools
import pathlib

import hypothesis
import pytest

from harness.check import check
from harness.measure import audit, measure
from harness.observe.shardings import compare_constraints
from harness.subjects.compact import SUBJECT, checkpoints, space
from harness.subjects.compact.setup import read
from harness.subjects.compact.subject import OBSERVABLES
from harness.verdict import Kind
from models.checkpoints.layouts import Layout

COVERING = space.covering()
REGRESSIONS = sorted((pathlib.Path(__file__).parent / "regressions").glob("*.json"))
EXAMPLES = {"train_step": 4, "loss_and_grads": 3, "forward": 3, "prefill": 3, "generate": 3}
AUDITED_SHARE = 14
SAMPLED = 12  # every twelfth covering config is compiled and saved as well


def _compare(case, parity):
    linen, nnx = SUBJECT.programs(case)
    verdict = check(linen, nnx)
    chosen = verdict.kind is Kind.PROVED and int(case.id[-8:], 16) % AUDITED_SHARE == 0
    if chosen:
        verdict = audit(linen, nnx, verdict)
    knobs = space.knob_values(case.config)
    parity.expect(verdict, case=case, observable=OBSERVABLES[case.step], audited=chosen, knobs=knobs)


@pytest.mark.gate
@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_configs_that_once_failed(path, parity):
    for step in ("train_step", "prefill", "generate"):
        case = SUBJECT.case(read(str(path)), step, mesh="fsdp-tensor-256", label=path.stem)
        _compare(case, parity)
        parity.expect(compare_constraints(*SUBJECT.programs(case)), case=case, observable="shardings")


@pytest.mark.gate
@pytest.mark.parametrize("step", ["train_step", "prefill"])
@pytest.mark.parametrize("index", range(len(COVERING)))
def test_every_pair_of_knob_values(index, step, parity):
    _compare(SUBJECT.case(COVERING[index], step, label=f"cover-{index}"), parity)


@pytest.mark.gate
@pytest.mark.parametrize("stratum", space.strata(), ids=lambda stratum: stratum.id)
def test_random_configs(stratum, parity):
    @hypothesis.seed(f"{parity.seed}-{stratum.id}")
    @hypothesis.settings(max_examples=parity.scale(EXAMPLES[stratum.step]))
    @hypothesis.given(setup=space.setups(stratum))
    def compare(setup):
        hypothesis.note(repr(setup))
        label = f"random-{stratum.family}-{'scanned' if stratum.scan_layers else 'unscanned'}"
        _compare(SUBJECT.case(setup, stratum.step, label=label), parity)

    compare()


@pytest.mark.gate
@pytest.mark.parametrize("index", range(0, len(COVERING), SAMPLED))
def test_a_sample_is_compiled_and_saved_alike(index, tmp_path, parity):
    case = SUBJECT.case(COVERING[index], "train_step", label=f"cover-{index}")
    linen, nnx = SUBJECT.programs(case)
    parity.expect(measure(linen, nnx), case=case, observable="state")
    saved = [checkpoints.save(tmp_path, program, case, Layout.FINAL) for program in (linen, nnx)]
    parity.expect(checkpoints.compare_saved(*saved), case=case, observable="checkpoints")


def test_the_covering_set_covers_every_pair():
    rows, spaces = space.covering_rows(), {"scan_layers": (True, False), "family": space.FAMILIES, **space.KNOBS}
    for (one, values), (other, others) in itertools.combinations(spaces.items(), 2):
        seen = {(str(row[one]), str(row[other])) for row in rows}
        assert seen == {(str(a), str(b)) for a in values for b in others}, (one, other)


def test_a_setup_survives_its_token():
    for setup in COVERING[:5]:
        case = SUBJECT.case(setup, "train_step")
        assert dataclasses.replace(SUBJECT.case_from_token(case.token), label=case.label) == case
