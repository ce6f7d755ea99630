"""The gate of any subject: checks each case it offers and each golden it declares (`paraflax gate --subject`)."""

import inspect
import typing

import pytest

from ..subjects import find_subject


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of the subject."""
    subject = find_subject(metafunc.config.getoption("parity_subject"))
    sources = {"case": subject.preset_cases, "golden_case": subject.golden_cases}
    for name, cases in sources.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(cases()), ids=lambda case: case.id)


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> typing.Any:
    """The subject that `--parity-subject` names."""
    return find_subject(pytestconfig.getoption("parity_subject"))


@pytest.mark.gate
def test_backends_agree(subject: typing.Any, case: typing.Any, parity: typing.Any) -> None:
    weaker = {} if parity.allow == "exact" else {"allow": parity.allow}  # as `paraflax check` asks
    if weaker and "allow" not in inspect.signature(subject.check).parameters:
        pytest.fail(f"subject {subject.name} compares exactly only; leave --allow out", pytrace=False)
    parity.expect_all(subject.check(case, **weaker))


@pytest.mark.gate
def test_golden_is_what_the_code_gives(subject: typing.Any, golden_case: typing.Any, parity: typing.Any) -> None:
    parity.golden(subject.golden(golden_case), case=golden_case)


@pytest.mark.gate
def test_goldens_are_complete(subject: typing.Any, parity: typing.Any) -> None:
    parity.account(subject)
