"""A server whose state was found damaged, and how it comes by another one.

The log is what a server has promised; the state only follows from it. So with a damaged state and a whole log a server goes
on to vote, to take entries and to count for their commitment: all of that rests on term, vote and log alone (in the table of
what waits for what, only answers to clients wait for applying), and a cluster of three with one more server down needs it.
It keeps away from all that needs a state: answering, leading, building snapshots, compaction.

It asks its leader for a snapshot until one comes. Where the own log has the snapshot's index the file just becomes the state,
and what follows in the log is applied; else the core installs it, log and all, as it does for any follower that lags.
"""

from coordd.messages.peer import StateWanted
from coordd.raft.output import SendSnapshot
from coordd.raft.replica import Replica
from coordd.server.ports import Links, SnapshotPort, Writer
from coordd.storage.writer import CompactLog
from coordd.types import Base, Configuration, ServerId, SnapshotMeta

__all__ = ["Refill", "others_of"]

_ASK_SECONDS = 1.0
"""Between two words to the leader that a state is wanted."""


class Refill:
    """Mutable; one per node, which calls everything but `turn` and `wanted`."""

    def __init__(self, replica: Replica, links: Links, snapshots: SnapshotPort, writer: Writer) -> None:
        self._replica = replica
        self._links = links
        self._snapshots = snapshots
        self._writer = writer
        self._asked_at = float("-inf")
        self.lost = False
        """There is no state."""
        self.adopting: SnapshotMeta | None = None
        """A snapshot that is to take the place of the lost state, above a log that stays."""

    def turn(self, now: float) -> None:
        """About ten times a second: while the state is lost the leader is asked for another."""
        leader, me = self._replica.leader, self._replica.me
        if not self._waits or leader is None or leader == me or now - self._asked_at < _ASK_SECONDS:
            return
        self._asked_at = now
        self._links.send(StateWanted(me, leader, self._replica.log.base_index))

    def wanted(self, message: StateWanted, now: float) -> None:
        """A follower's state is lost; its log is not, and goes on growing meanwhile."""
        leading = self._replica.leading
        progress = leading.peers.get(message.sender) if leading is not None and not self.lost else None
        if progress is not None:
            order = SendSnapshot(message.sender, progress.session, self._replica.term, message.at_least)
            self._snapshots.send(order, now)

    def helps(self, snapshot: SnapshotMeta) -> bool:
        """It is of this log's own past, and all that is missing here is a state."""
        log = self._replica.log
        known = log.base_index <= snapshot.index <= log.durable and log.term(snapshot.index) == snapshot.term
        return self._waits and known

    @property
    def _waits(self) -> bool:
        return self.lost and self.adopting is None and not self._replica.installing

    def adopt(self, snapshot: SnapshotMeta) -> None:
        """Let raft.db name the file, durably, and change nothing else in it."""
        log = self._replica.log
        at, configuration = self._replica.configuration_at(log.base_index)
        self.adopting = snapshot
        base = Base(log.base_index, log.base_term, 0, configuration, at, self._snapshots.adopt(snapshot))
        self._writer.submit(CompactLog(base))

    def done(self) -> None:
        """There is a state again."""
        self.lost, self.adopting = False, None


def others_of(configuration: Configuration | None, me: ServerId) -> bool:
    """Whether a state can come from somebody else."""
    return configuration is not None and any(member.voter and member.id != me for member in configuration.members)
