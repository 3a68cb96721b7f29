"""Messages in few letters, for tests in which one real server meets peers that exist only as messages."""

from collections.abc import Sequence

from coordd.messages.peer import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from coordd.types import Index, LogSlice, SnapshotMeta, Term
from tests.raft.cluster import Cluster, piece, sid

__all__ = [
    "BOOT",
    "SESSION",
    "accepted",
    "append",
    "beat",
    "beat_answered",
    "grant",
    "install",
    "order",
    "refusal",
    "rejected",
    "request",
]

SESSION = 7
"""The session of leaders that do not exist."""
BOOT = 1
"""The boot of followers that were never started again."""


def append(
    term: Term,
    sender: str,
    receiver: str,
    previous: tuple[Index, Term] = (0, 0),
    terms: Sequence[Term] = (),
    commit: Index = 0,
) -> AppendEntries:
    """Entries of these terms behind (index, term); none: a probe."""
    index, previous_term = previous
    entries = piece(index + 1, terms) if terms else LogSlice(index + 1, [], ())
    return AppendEntries(term, sid(sender), sid(receiver), SESSION, index, previous_term, commit, entries)


def beat(term: Term, sender: str, receiver: str, commit: Index = 0, number: int = 1) -> Heartbeat:
    return Heartbeat(term, sid(sender), sid(receiver), SESSION, commit, number)


def install(term: Term, sender: str, receiver: str, snapshot: SnapshotMeta) -> InstallSnapshot:
    return InstallSnapshot(term, sid(sender), sid(receiver), SESSION, snapshot)


def request(
    term: Term,
    sender: str,
    receiver: str,
    last: tuple[Index, Term] = (0, 0),
    *,
    pre: bool = False,
    transfer: bool = False,
) -> RequestVote:
    """A candidate whose log ends with (index, term)."""
    return RequestVote(term, sid(sender), sid(receiver), *last, pre, transfer)


def grant(term: Term, sender: str, receiver: str, *, pre: bool = False) -> VoteResponse:
    return VoteResponse(term, sid(sender), sid(receiver), True, pre)


def refusal(term: Term, sender: str, receiver: str, *, pre: bool = False) -> VoteResponse:
    return VoteResponse(term, sid(sender), sid(receiver), False, pre)


def order(term: Term, sender: str, receiver: str) -> TimeoutNow:
    return TimeoutNow(term, sid(sender), sid(receiver))


def accepted(
    cluster: Cluster,
    leader: str,
    peer: str,
    index: Index,
    *,
    boot: int = BOOT,
    session: int = 0,
    refilling: bool = False,
) -> AppendResponse:
    """The peer acknowledges everything up to `index` in the leader's present session."""
    server = cluster[leader]
    session = session or server.progress(peer).session
    if peer in cluster.servers:
        cluster[peer].trusted = False
    return AppendResponse(server.replica.term, sid(peer), server.id, session, boot, index, refilling=refilling)


def rejected(cluster: Cluster, leader: str, peer: str, at: Index, hint: tuple[Index, Term]) -> AppendResponse:
    """The peer does not have the leader's entry `at`; its last one of no higher term is the hint's."""
    server = cluster[leader]
    session = server.progress(peer).session
    return AppendResponse(server.replica.term, sid(peer), server.id, session, BOOT, hint[0], at, hint[1])


def beat_answered(
    cluster: Cluster, leader: str, peer: str, number: int, *, boot: int = BOOT, promise: float = 0.3, priority: int = 0
) -> HeartbeatResponse:
    server = cluster[leader]
    session = server.progress(peer).session
    return HeartbeatResponse(server.replica.term, sid(peer), server.id, session, boot, number, promise, priority)
