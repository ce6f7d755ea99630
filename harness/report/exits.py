"""The exit code of a run, from its records and outcomes: 0 only when something was compared and all of it agrees."""

import enum
from collections.abc import Iterable

from .record import Record
from .stream import Outcome


class Exit(enum.IntEnum):
    """What a command answers to the shell."""

    PARITY = 0
    DIVERGENCE = 1
    USAGE = 2
    UNDECIDED = 3
    CRASH = 4


MEANINGS = {
    Exit.PARITY: "parity: everything that was compared agrees",
    Exit.DIVERGENCE: "divergence: at least one comparison or test failed",
    Exit.USAGE: "usage or configuration: nothing was judged",
    Exit.UNDECIDED: "undecided: something could not be compared, or nothing was",
    Exit.CRASH: "our own crash: the run did not get to its end",
}


def exit_code(records: Iterable[Record], outcomes: Iterable[Outcome] = ()) -> Exit:
    """A divergence outweighs a crash, a crash outweighs what is undecided; zero comparisons are undecided."""
    records, outcomes = list(records), list(outcomes)
    failed = [record for record in records if not record.passed]
    if any(record.kind.name == "DIVERGED" or record.observable == "control" for record in failed):
        return Exit.DIVERGENCE
    explained = {record.nodeid for record in failed if record.nodeid}
    unexplained = [outcome for outcome in outcomes if outcome.failed and outcome.nodeid not in explained]
    if any(not outcome.crash for outcome in unexplained):
        return Exit.DIVERGENCE
    if unexplained:
        return Exit.CRASH
    if failed or not any(record.compared for record in records):
        return Exit.UNDECIDED
    return Exit.PARITY
