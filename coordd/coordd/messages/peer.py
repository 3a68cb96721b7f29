"""What Raft servers say to each other. Frozen data; the transport proves the sender, `codec.py` validates on decode.

Every message names its term, sender and receiver. `session` numbers one stretch of replication from a leader to a
follower (rule 43): a leader draws a new one each time it begins to track a peer, the follower echoes it, and an
answer of an older stretch is dropped.
"""

from typing import TypeAlias

import msgspec

from coordd.messages.levels import FIRST
from coordd.types import Index, LogSlice, ServerId, SnapshotMeta, Term

__all__ = [
    "AppendEntries",
    "AppendResponse",
    "Beats",
    "Envelope",
    "Heartbeat",
    "HeartbeatResponse",
    "Hello",
    "InstallSnapshot",
    "PeerMessage",
    "RaftMessage",
    "ReadIndexRequest",
    "ReadIndexResponse",
    "RequestVote",
    "SnapshotChunk",
    "SnapshotCredit",
    "StateDigest",
    "StateWanted",
    "TimeoutNow",
    "VoteResponse",
]


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages of the consensus core. It carries fields only."""

    term: Term
    sender: ServerId
    receiver: ServerId


class RequestVote(Message, frozen=True, tag="rv"):
    """Candidate to voter. With `pre` set it asks what would happen at `term`, without changing any (thesis 9.6)."""

    last_index: Index
    last_term: Term
    pre: bool = False
    transfer: bool = False
    """Set by a candidate that a leader told to campaign: the vote is judged although a leader is known (rule 88)."""


class VoteResponse(Message, frozen=True, tag="vr"):
    """Voter to candidate. `pre` repeats the request's; a granted pre-vote carries the term asked about (rule 18)."""

    granted: bool
    pre: bool = False


class AppendEntries(Message, frozen=True, tag="ae"):
    """Leader to follower: the entries behind `previous_index`, or none as a probe."""

    session: int
    previous_index: Index
    previous_term: Term
    commit: Index
    """The leader's commit index; the follower trusts it only up to the last entry this message verified (rule 35)."""
    slice: LogSlice


class AppendResponse(Message, frozen=True, tag="ar"):
    """Follower to leader. Accepted: everything up to `index` is durable there and equals the leader's log.

    Rejected: (`index`, `hint_term`) is the follower's last entry with a term not above the probe's (rule 38), and
    `rejected` is the `previous_index` that did not match, by which the leader knows a stale rejection.
    """

    session: int
    boot: int
    """Number of the follower's start: a new one makes the leader probe again, since un-synced entries may be gone."""
    index: Index
    rejected: Index | None = None
    hint_term: Term = 0
    refilling: bool = False
    """The follower's disk has forgotten entries it once acknowledged: its answers move `next`, but count for nothing
    until it holds them again (rule 111)."""


class Heartbeat(Message, frozen=True, tag="hb"):
    """Leader to follower, empty and small. `commit` is never above what that follower acknowledged (rule 36)."""

    session: int
    commit: Index
    round: int
    """Number of this round, strictly rising within the leader's term: confirms reads and the lease (rule 55)."""
    leader_commit: Index = 0
    """The leader's own commit index, to judge by how old the follower's state is, never to commit by (rule 63). 0: the
    leader can't vouch for it."""
    unsure: float = 0.0
    """Seconds before the sending since when the leader can't prove that it is the only one; 0 under its lease."""
    heard: int = 0
    """The newest round whose answer by this follower had come when this was sent: so it was sent after that answer."""
    election_timeout: float = 0.0
    """Seconds that the leader, by what it measures, advises to wait for it; 0: no advice."""
    rank: int = 0
    """Steps of priority among healthy voters before this follower: they are to campaign first."""
    heard_in: int = 0
    """Boot of the follower's life that gave the answer named by `heard`."""


class HeartbeatResponse(Message, frozen=True, tag="hr"):
    """Follower to leader: it followed the leader of `term` when the heartbeat of `round` came."""

    session: int
    boot: int
    round: int
    promise: float = 0.0
    """Seconds, from this answer on, for which it gives nobody else a vote, also after a restart: leases count on it (rule 59)."""
    priority: int = 0
    """The follower's setting."""
    stateless: bool = False
    """Its state is lost: it counts as ever, and can't lead until it has another."""


class InstallSnapshot(Message, frozen=True, tag="is"):
    """Leader to follower, first word of a transfer: this snapshot will come in chunks."""

    session: int
    snapshot: SnapshotMeta


class TimeoutNow(Message, frozen=True, tag="tn"):
    """Leader to its chosen successor: campaign at once (thesis 3.10)."""


class ReadIndexRequest(Message, frozen=True, tag="rr"):
    """Follower to leader: confirm leadership, then tell the index that a linearizable read must wait for."""

    request: int


class ReadIndexResponse(Message, frozen=True, tag="ri"):
    """Leader to follower. `index` None: not answered, ask again (leader lost, or not yet ready)."""

    request: int
    index: Index | None


RaftMessage: TypeAlias = (
    AppendEntries
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | RequestVote
    | VoteResponse
    | InstallSnapshot
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexResponse
)


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="he"):
    """First word on every connection between servers, repeated until answered; the only one a stranger may say.

    Bootstrap waits for one from each listed server; adding a server waits for one from the new server.
    """

    name: str
    sender: ServerId
    boot: int
    cluster_name: str
    cluster_id: str
    """"" while the sender belongs to no cluster yet."""
    last_index: Index
    answer: bool = False
    """An answer is not answered again."""
    level: int = FIRST
    """The highest feature level that the sender supports (rule 95)."""


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True, tag="sc"):
    """One piece of a snapshot file, on the connection kept for snapshots (rule 104)."""

    term: Term
    sender: ServerId
    receiver: ServerId
    session: int
    snapshot: SnapshotMeta
    offset: int
    data: bytes


class SnapshotCredit(msgspec.Struct, frozen=True, array_like=True, tag="sk"):
    """The receiver allows the sender to send up to `offset + window` bytes; `offset` bytes are stored already."""

    term: Term
    sender: ServerId
    receiver: ServerId
    session: int
    digest: str
    offset: int
    window: int


class Beats(msgspec.Struct, frozen=True, array_like=True, tag="be"):
    """Follower to leader: the agents of these nodes have said that they live. Lost ones are made up for by the next."""

    sender: ServerId
    receiver: ServerId
    nodes: tuple[str, ...]


class StateWanted(msgspec.Struct, frozen=True, array_like=True, tag="sw"):
    """Follower to leader, repeated until it comes: my state is damaged, send me a snapshot. My log is whole."""

    sender: ServerId
    receiver: ServerId
    at_least: Index
    """The log there begins behind this index: an older state could not go on from it."""


class StateDigest(msgspec.Struct, frozen=True, array_like=True, tag="sd"):
    """Voter to voter: what the sender's state amounts to at an index at which all compare theirs."""

    sender: ServerId
    receiver: ServerId
    index: Index
    kind: str
    """What the digest is made from: only digests of one kind can be compared."""
    digest: bytes


PeerMessage: TypeAlias = RaftMessage | Beats | Hello | SnapshotChunk | SnapshotCredit | StateDigest | StateWanted


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What travels in one frame. Peers of another cluster or version are refused before the core sees a thing (rule 76)."""

    version: int
    cluster_id: str
    """"" only for Hello."""
    message: PeerMessage
