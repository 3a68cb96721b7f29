"""What the judge must not take for a broken invariant, each found by a long campaign; and what it must."""

import pytest

from coordd.raft.output import Output, Role
from coordd.raft.progress import Progress
from coordd.raft.window import Window
from coordd.types import Configuration, HardState, Member, ServerId
from tests.sim.invariants import Invariants
from tests.sim.ledger import Record, TermLog
from tests.sim.look import Look
from tests.sim.violation import Violation

NAMES = [ServerId(name) for name in ("a", "b", "c")]
A, B, C = NAMES
MEMBERS = tuple(Member(name, name, name, name, voter=True) for name in NAMES)


@pytest.fixture
def judge() -> Invariants:
    """Entry 1 of term 1 and entry 2 of term 3 are committed, the second by the leader of term 3."""
    judge = Invariants()
    ledger = judge.ledger
    ledger.configurations[1, 1] = Configuration("c" * 32, "sim", MEMBERS)
    ledger.committed, ledger.committed_in = [0, 1, 3], [0, 1, 3]
    for name in NAMES:
        ledger.records[name] = Record(name, submitted=TermLog(0, 0, [1, 3]), durable=TermLog(0, 0, [1, 3]), up=True)
    return judge


def takes_office(judge: Invariants, name: ServerId, term: int, peers: list[Progress] | None = None) -> None:
    for voter in NAMES[:2]:
        judge.ledger.votes[voter, term] = name
    judge.stepped(name, Output(), Look(Role.LEADER, term, name, 1, 2, 0, peers or []))


def test_a_leader_elected_late_needs_only_what_earlier_terms_committed(judge: Invariants) -> None:
    """Found by seed 1102: the votes of term 2 arrive when term 3 has committed something."""
    judge.ledger.records[A].submitted = TermLog(0, 0, [1])
    judge.ledger.records[A].commit = 1
    takes_office(judge, A, 2)


def test_a_leader_misses_nothing_of_earlier_terms(judge: Invariants) -> None:
    judge.ledger.records[A].submitted = TermLog(0, 0, [1])
    judge.ledger.records[A].commit = 1
    with pytest.raises(Violation, match="invariant 3"):
        takes_office(judge, A, 4)


def test_what_a_follower_acknowledged_may_be_replaced_by_a_newer_leader(judge: Invariants) -> None:
    """Found by seed 1148: a leader that slept believes what was true in its term."""
    judge.ledger.records[A].commit = 1
    follower = judge.ledger.records[B]
    takes_office(judge, A, 2, [progress(2)])
    follower.durable = TermLog(0, 0, [1])
    follower.hard = HardState(3, C, 1)
    judge.stepped(A, Output(), Look(Role.LEADER, 2, A, 1, 2, 0, [progress(2)]))


def test_a_follower_of_this_term_has_what_it_acknowledged(judge: Invariants) -> None:
    judge.ledger.records[A].commit = 1
    follower = judge.ledger.records[B]
    follower.durable = TermLog(0, 0, [1])
    follower.hard = HardState(2, A, 1)
    with pytest.raises(Violation, match="invariant 16"):
        takes_office(judge, A, 2, [progress(2)])


def progress(match: int) -> Progress:
    return Progress(B, session=1, next=match + 1, contact=0.0, window=Window(2, 64, 1 << 20, 1 << 10), match=match)
