"""What the leader knows of one follower (etcd's Progress).

    PROBE      its match point is unknown: one append at a time, and then one per heartbeat answer
    REPLICATE  entries are streamed ahead of the acknowledgements, within a window of messages and bytes
    SNAPSHOT   it needs what is compacted: nothing is appended until the snapshot is installed

Invariant: 0 <= match < next.
"""

from dataclasses import dataclass
from enum import StrEnum

from coordd.raft.window import Window
from coordd.types import Index, ServerId

__all__ = ["Progress", "ProgressState"]


class ProgressState(StrEnum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Progress:
    """Mutable; lives as long as its leader leads and the peer is a member."""

    peer: ServerId
    session: int
    """Number of this stretch of replication; answers of another one are stale (rule 43)."""
    next: Index
    """The next entry to send. In PROBE at most one message with it is on its way."""
    contact: float
    """When the last answer came, monotonic seconds; at first the beginning of leadership, as a grace."""
    window: Window
    """REPLICATE: what is on its way, and how much may be."""
    match: Index = 0
    """Everything up to here is durable at the follower and equals our log."""
    state: ProgressState = ProgressState.PROBE
    boot: int = 0
    """The follower's boot id; 0 until its first answer."""
    probe_sent: bool = False
    """PROBE: the probe is on its way; the next one waits for a heartbeat answer."""
    reading: bool = False
    """Entries for it are being read from disk."""
    commit_sent: Index = 0
    """The commit index it was last told."""
    acked_round: int = 0
    """The newest heartbeat round it answered in this life."""
    promise: float = 0.0
    """For how long from that answer on it surely gives nobody else a vote, seconds."""
    priority: int = 0
    """As it says itself; until its first answer the leader's own, which prefers nobody."""
    preferred_since: float | None = None
    """Since when it could take over and has a higher priority than the leader."""
    refilling: bool = False
    """Its disk forgot entries: its match counts for nothing (rule 111)."""
    stateless: bool = False
    """Its state is lost: it can't lead."""
    departing_since: float | None = None
    """It has left the configuration, and is kept so that it hears of it (rule 68)."""
    catch_up_target: Index = 0
    """Learner: end of the current round of catching up (thesis 4.2.1)."""
    catch_up_since: float = 0.0
    caught_up: bool = False
    """Learner: the last round took less than an election timeout."""

    def probe(self) -> None:
        """Start again from what is known: after a rejection, a lost connection, a restart of the follower."""
        self.state = ProgressState.PROBE
        self.next = self.match + 1
        self.probe_sent = False
        self.window.clear()

    def replicate(self) -> None:
        """The logs are known to agree up to match."""
        self.state = ProgressState.REPLICATE
        self.next = self.match + 1
        self.probe_sent = False
        self.window.clear()

    def await_snapshot(self) -> None:
        self.state = ProgressState.SNAPSHOT
        self.caught_up = False
        self.window.clear()

    def sent(self, last: Index, size: int, now: float) -> None:
        """An append with entries up to `last` has left."""
        if self.state is ProgressState.REPLICATE:
            self.next = last + 1
            self.window.sent(last, size, now)
        else:
            self.probe_sent = True

    def acknowledged(self, index: Index, now: float) -> bool:
        """The follower holds everything up to `index`. True if that is news."""
        self.window.acknowledged(index, now)
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        return True

    def count_round(self, last: Index, now: float, election_timeout: float) -> None:
        """Catching up goes in rounds: a quick one means that the next one would be quick too (thesis 4.2.1)."""
        if self.match >= self.catch_up_target:
            self.caught_up = now - self.catch_up_since < election_timeout
            self.catch_up_target, self.catch_up_since = last, now
        elif now - self.catch_up_since >= election_timeout:
            self.caught_up = False
