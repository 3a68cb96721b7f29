"""What the judge must not take for a broken invariant, each found by a long campaign; and what it must."""

import pytest

from coordd.messages.peer import StateDigest
from coordd.raft.output import Output, Role
from coordd.raft.progress import Progress
from coordd.raft.window import Window
from coordd.types import Base, Configuration, HardState, Member, ServerId
from tests.sim.invariants import Invariants
from tests.sim.ledger import Record, TermLog
from tests.sim.look import Look
from tests.sim.paranoid import from_scratch
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


def test_nobody_is_elected_while_a_lease_holds_but_for_a_term_that_is_over(judge: Invariants) -> None:
    """Found by seed 361: the votes of term 2 arrive when the leader of term 3 has its lease."""
    judge.lease_holds(A, 3, B, 2)
    with pytest.raises(Violation, match="invariant 12: elected while another's lease holds"):
        judge.lease_holds(A, 3, B, 4)


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


def test_until_it_is_told_of_a_snapshot_that_its_disk_has_a_server_believes_in_its_old_log(judge: Invariants) -> None:
    """Found by seed 43: the entry behind the snapshot had never been committed."""
    judge.ledger.records[A].submitted = judge.ledger.records[A].durable = TermLog(0, 0, [1, 2, 2])
    judge.installed(A, Base(2, 3, 0, judge.ledger.configurations[1, 1], 1))
    seen = Look(Role.FOLLOWER, 3, B, 2, 3, 3, [], installing=True)
    judge.stepped(A, Output(), seen)
    with pytest.raises(Violation, match="invariant 9"):
        judge.stepped(A, Output(), seen._replace(installing=False))


def test_a_state_may_be_ahead_of_a_log_that_has_forgotten_its_end(judge: Invariants) -> None:
    """Found by seed 3: a bit of the log's WAL turned round, and the state was opened with entry 2 in it."""
    judge.ledger.entries[1, 1] = (0, b"")
    judge.booted(A, 2, TermLog(0, 0, [1]), 0, None, promised=2, faulty=True)
    judge.restored(A, 2)
    from_scratch(judge.ledger)
    judge.ledger.records[A].applied = 3
    with pytest.raises(Violation, match="invariant 8"):
        from_scratch(judge.ledger)


def test_nobody_applies_beyond_what_it_knows_to_be_committed(judge: Invariants) -> None:
    judge.booted(A, 2, TermLog(0, 0, [1, 3]), 0, None)
    judge.restored(A, 1)
    judge.ledger.records[A].applied = 2
    with pytest.raises(Violation, match="invariant 8"):
        from_scratch(judge.ledger)


def test_a_log_may_still_be_cut_where_a_state_was_that_is_lost(judge: Invariants) -> None:
    judge.restored(A, 2)
    judge.lost(A)
    judge.compacted(A, Base(2, 3, 0, judge.ledger.configurations[1, 1], 1))
    judge.restored(B, 1)
    judge.lost(B)
    with pytest.raises(Violation, match="invariant 8"):
        judge.compacted(B, Base(2, 3, 0, judge.ledger.configurations[1, 1], 1))


def test_without_a_state_nobody_leads_or_answers(judge: Invariants) -> None:
    judge.lost(A)
    with pytest.raises(Violation, match="invariant 4: a leader without a state"):
        takes_office(judge, A, 4)
    with pytest.raises(Violation, match="invariant 4: an answer without a state"):
        judge.read_answered(A, 0, 0)
    judge.restored(A, 2)
    judge.read_answered(A, 2, 2)


def test_a_spoilt_digest_is_overlooked_until_most_voters_have_told_another(judge: Invariants) -> None:
    judge.resembles(A, 2, 7)
    judge.doubted(A)
    judge.resembles(A, 2, 8)
    right, wrong = b"7", b"8"
    judge.sending(A, StateDigest(A, B, 2, "rows", wrong))
    configuration = judge.ledger.configurations[1, 1]
    judge.compared(StateDigest(B, A, 2, "rows", wrong), configuration)
    judge.compared(StateDigest(B, A, 2, "rows", right), configuration)
    with pytest.raises(Violation, match="contradict"):
        judge.compared(StateDigest(C, A, 2, "rows", right), configuration)
    judge.lost(A)
    judge.compared(StateDigest(C, A, 2, "rows", right), configuration)


def test_a_digest_that_was_read_from_the_disk_again_is_looked_at_again(judge: Invariants) -> None:
    judge.resembles(B, 2, 7)
    judge.doubted(A)
    judge.resembles(A, 2, 7)
    with pytest.raises(Violation, match="two states"):
        judge.resembles(A, 2, 8)


def progress(match: int) -> Progress:
    return Progress(B, session=1, next=match + 1, contact=0.0, window=Window(2, 64, 1 << 20, 1 << 10), match=match)
