"""What can happen to the consensus core: past facts and requests, each frozen data. `core.Raft.step` takes one at a time.

Times never travel in events; the driver hands `now` to `step`. The driver's duties are told in `output.py`.
"""

from typing import TypeAlias

import msgspec

from coordd.messages.peer import RaftMessage
from coordd.types import Base, Configuration, HardState, Index, LogSlice, Member, ServerId, SnapshotMeta, Term, TermRun

__all__ = [
    "AddServer",
    "Applied",
    "Change",
    "ChangeRequested",
    "Compacted",
    "CompactionAsked",
    "EntriesRead",
    "Event",
    "Founded",
    "MoveServer",
    "PeerConnected",
    "PeerUnreachable",
    "Persisted",
    "PromoteServer",
    "Proposed",
    "ReadRequested",
    "Received",
    "RemoveServer",
    "Restarted",
    "SnapshotFailed",
    "SnapshotInstalled",
    "SnapshotReceived",
    "SnapshotSent",
    "StateLost",
    "StateRestored",
    "Ticked",
    "TransferRequested",
]


class Received(msgspec.Struct, frozen=True):
    """A message whose sender the transport has proved. Messages of other clusters never get here."""

    message: RaftMessage


class Ticked(msgspec.Struct, frozen=True):
    """Time has passed; due at the latest at `Output.next_deadline`. Harmless at any other moment."""

    disk_stalled: bool = False
    """The oldest write handed to the log is still not durable after half an election timeout (rule 99)."""


class Proposed(msgspec.Struct, frozen=True):
    """Clients' commands, encoded as entries. Taken or refused as a whole: see `Output.proposal`."""

    entries: list[bytes]


class ReadRequested(msgspec.Struct, frozen=True):
    """A linearizable read wants to know the index it must wait for. `read` is the driver's number, unique in this process."""

    read: int


class Persisted(msgspec.Struct, frozen=True):
    """Every write up to this sequence number is durable (`LogWrite.sequence`). Comes in order."""

    sequence: int


class EntriesRead(msgspec.Struct, frozen=True):
    """Answer to `ReadEntries`. `slice` None: the entries are compacted away."""

    peer: ServerId
    session: int
    previous_term: Term
    """Term of the entry before the slice."""
    slice: LogSlice | None


class Applied(msgspec.Struct, frozen=True):
    """The state holds everything up to this index, in a finished transaction."""

    index: Index


class CompactionAsked(msgspec.Struct, frozen=True):
    """The driver wishes to drop the log up to `index` at most. Answered by `Output.compact`, or by nothing."""

    index: Index


class Compacted(msgspec.Struct, frozen=True):
    """The log was dropped up to and with `base.index`, durably."""

    base: Base


class SnapshotSent(msgspec.Struct, frozen=True):
    """The receiver has stored and verified the whole file. Its own acknowledgement follows once it is installed."""

    peer: ServerId
    session: int
    index: Index


class SnapshotFailed(msgspec.Struct, frozen=True):
    """Building or sending was given up; the core asks again when the peer shows life."""

    peer: ServerId
    session: int


class SnapshotReceived(msgspec.Struct, frozen=True):
    """A snapshot that `Output.expect_snapshot` named lies here complete, verified and synced."""

    term: Term
    leader: ServerId
    session: int
    snapshot: SnapshotMeta


class SnapshotInstalled(msgspec.Struct, frozen=True):
    """Log and state now start from this snapshot, durably: the answer to `Output.install_snapshot`."""

    snapshot: SnapshotMeta


class StateLost(msgspec.Struct, frozen=True):
    """The state was found damaged: its server neither leads nor answers until another one stands in its place."""


class StateRestored(msgspec.Struct, frozen=True):
    """A state of the leader's, applied up to `index`, stands in for the lost one; the log has this entry durably."""

    index: Index


class PeerConnected(msgspec.Struct, frozen=True):
    """A connection to the peer works again."""

    peer: ServerId


class PeerUnreachable(msgspec.Struct, frozen=True):
    """Messages to the peer were dropped: what was in flight is probably lost."""

    peer: ServerId


class AddServer(msgspec.Struct, frozen=True):
    """Add a server as a learner; with `member.promote` it becomes a voter once caught up."""

    member: Member
    replaces: ServerId | None = None
    """A member that leaves at the moment when the new one is promoted (or at once, if it is a learner)."""


class RemoveServer(msgspec.Struct, frozen=True):
    """A voter first becomes a learner that is leaving, and is dropped when that is committed (rule 69)."""

    server: ServerId


class PromoteServer(msgspec.Struct, frozen=True):
    """Make a learner a voter as soon as it has caught up."""

    server: ServerId


class MoveServer(msgspec.Struct, frozen=True):
    """The member is reached elsewhere from now on (rule 78)."""

    server: ServerId
    raft_address: str
    client_address: str


Change: TypeAlias = AddServer | RemoveServer | PromoteServer | MoveServer


class ChangeRequested(msgspec.Struct, frozen=True):
    """An operator wants another membership. Answered by `Output.change`."""

    change: Change
    force: bool = False
    """Skip the check that the healthy voters form a quorum of the new configuration."""


class TransferRequested(msgspec.Struct, frozen=True):
    """Hand leadership over; None lets the core choose the best follower. Answered by `Output.transfer`."""

    target: ServerId | None = None


class Founded(msgspec.Struct, frozen=True):
    """Found a cluster: only on a server with an empty log and no term, and on one server only. Answered by `Output.change`."""

    configuration: Configuration


class Restarted(msgspec.Struct, frozen=True):
    """What the storage remembers; the first event a core gets, and the only one of its kind."""

    me: ServerId
    boot: int
    """Number of this start, from 1, below 2**32."""
    hard_state: HardState
    base: Base
    tail: LogSlice
    """The newest entries, as many as fit the core's memory; it ends with the last entry of the log."""
    tail_previous_term: Term
    """Term of the entry before the tail."""
    earlier_runs: tuple[TermRun, ...]
    """Terms of the entries between the base and the tail: a handful of pairs, with which a leader that was away finds at
    once where a follower's log agrees (rule 38)."""
    configurations: tuple[tuple[Index, Configuration], ...]
    """Every configuration entry behind the base, by index."""
    applied: Index
    """What the state already holds."""
    promised: Index = 0
    """High-water mark: entries up to here were acknowledged once. Longer than the log: the disk has forgotten (rule 111)."""


Event: TypeAlias = (
    Received
    | Proposed
    | Persisted
    | Applied
    | Ticked
    | ReadRequested
    | EntriesRead
    | CompactionAsked
    | Compacted
    | SnapshotSent
    | SnapshotFailed
    | SnapshotReceived
    | SnapshotInstalled
    | StateLost
    | StateRestored
    | PeerConnected
    | PeerUnreachable
    | ChangeRequested
    | TransferRequested
    | Founded
    | Restarted
)
