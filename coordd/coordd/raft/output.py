"""What the driver must do after a step. The field names carry the order; docs/rules.md, "What waits for the disk", is the law.

The driver's duties, for each Output, in this order:

1. Hand `install_snapshot` or `write` to the log writer: a FIFO queue. When it is durable, step `Persisted` or `SnapshotInstalled`.
2. Send `messages_now`.
3. Keep `messages_after_persist` until every write handed over so far, this Output's included, is durable; then send
   those whose term is not below the current term by then, and drop the others (rule 97). A granted pre-vote names the
   term that was asked about, which is above.
4. Do the rest in any order. Entries up to `committed` may be applied, in order; then step `Applied`.
5. Step `Ticked` at `next_deadline` if nothing else happened before.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from coordd.messages.peer import RaftMessage
from coordd.types import Index, LogWrite, ServerId, SnapshotMeta, Term

__all__ = [
    "Accepted",
    "Fact",
    "Output",
    "ProposalAnswer",
    "ReadEntries",
    "ReadReady",
    "Refusal",
    "Role",
    "SendSnapshot",
]


class Role(StrEnum):
    """What a server is in its term. A pre-candidate has not changed its term (thesis 9.6)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class ReadEntries(msgspec.Struct, frozen=True):
    """Entries that a follower needs and memory no longer holds; answered by `EntriesRead`, within `max_bytes`."""

    peer: ServerId
    session: int
    first: Index
    max_bytes: int


class SendSnapshot(msgspec.Struct, frozen=True):
    """A follower needs entries that are compacted: send it a snapshot with an index of at least `at_least`."""

    peer: ServerId
    session: int
    term: Term
    at_least: Index


class ReadReady(msgspec.Struct, frozen=True):
    """The read may be answered from a state that has applied `index`. None: leadership was lost, ask again."""

    read: int
    index: Index | None


class Refusal(StrEnum):
    """Why the core, or the driver before it, did not take a proposal, a change or a transfer. None had any effect."""

    NOT_LEADER = "not the leader"
    BUSY = "too many uncommitted bytes"
    NO_SPACE = "no space left on the leader's disk"
    TRANSFERRING = "leadership is being handed over"
    NOT_READY = "the leader has not yet committed an entry of its term"
    CHANGE_PENDING = "another membership change is under way"
    UNKNOWN_SERVER = "no such server in the configuration"
    ALREADY_MEMBER = "the server is a member already"
    UNHEARD = "the leader has just been elected and has not heard all voters yet"
    WOULD_LOSE_QUORUM = "the healthy voters would not form a quorum"
    NO_TARGET = "no follower can take over"
    HAS_LOG = "this server has a log already"
    LAST_VOTER = "the last voter can't be removed"


class Accepted(msgspec.Struct, frozen=True):
    """Entries `first .. first + count - 1` of `term`. They are committed if they are still there at that term when applied."""

    first: Index
    count: int
    term: Term


ProposalAnswer: TypeAlias = Accepted | Refusal


class Fact(msgspec.Struct, frozen=True):
    """Something worth a log line or a count: the core does not log."""

    name: str
    values: dict[str, object]


class Output(msgspec.Struct):
    """One step's consequences. Built by the core, read once by the driver."""

    write: LogWrite | None = None
    install_snapshot: SnapshotMeta | None = None
    messages_now: list[RaftMessage] = msgspec.field(default_factory=list)
    messages_after_persist: list[RaftMessage] = msgspec.field(default_factory=list)
    committed: Index = 0
    """Entries up to here may be applied: min(commit index, own durable index). 0: no news."""
    proposal: ProposalAnswer | None = None
    """Answer to `Proposed`."""
    change: ProposalAnswer | None = None
    """Answer to `ChangeRequested`."""
    transfer: ServerId | Refusal | None = None
    """Answer to `TransferRequested`: the chosen target. The outcome is told by facts and by the role."""
    reads_ready: list[ReadReady] = msgspec.field(default_factory=list)
    read_entries: list[ReadEntries] = msgspec.field(default_factory=list)
    stop_snapshot: list[ServerId] = msgspec.field(default_factory=list)
    """Snapshot transfers to give up, before any of `send_snapshot` begins: the peer left or restarted, or leadership was
    lost. A transfer that was stopped is told of by no event."""
    send_snapshot: list[SendSnapshot] = msgspec.field(default_factory=list)
    expect_snapshot: tuple[ServerId, int, Term, SnapshotMeta] | None = None
    """Accept chunks of this transfer: (leader, session, term, snapshot). An earlier expectation ends."""
    compact: Index = 0
    """The log may be dropped up to here. 0: no news."""
    configuration_changed: bool = False
    """The configuration in effect, or the committed one, is another: keys, addresses and peers follow it."""
    leadership_changed: bool = False
    """Role, term or known leader changed."""
    facts: list[Fact] = msgspec.field(default_factory=list)
    next_deadline: float = float("inf")
    """Monotonic seconds at which `Ticked` is due."""
