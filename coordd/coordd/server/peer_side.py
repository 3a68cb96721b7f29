"""The side of a server that faces other servers: each message goes to the part it is for, and the connections follow the
configuration.

A message counts only if its key was believed (`links`), if it is of this cluster, and if it is meant for this very life
of this server.
"""

from collections.abc import Callable

from coordd.log_output import Log
from coordd.messages.peer import Beats, Hello, PeerMessage, SnapshotChunk, SnapshotCredit, StateDigest, StateWanted
from coordd.raft.events import SnapshotReceived
from coordd.server.beats import BeatRelay
from coordd.server.belonging import was_removed
from coordd.server.greetings import Greetings
from coordd.server.links import PeerLinks
from coordd.server.node import Node
from coordd.server.observed import Observed
from coordd.server.roster import Roster
from coordd.server.snapshots import Snapshots
from coordd.server.state_care import StateCare
from coordd.storage.log_store import LogStore
from coordd.types import ServerId

__all__ = ["PeerSide"]

_MESSAGES, _BYTES = 256, 4 * 1024 * 1024
"""Taken in one turn."""


class PeerSide:
    """Mutable; one per server."""

    def __init__(
        self,
        *,
        me: ServerId,
        node: Node,
        links: PeerLinks,
        roster: Roster,
        greetings: Greetings,
        snapshots: Snapshots,
        care: StateCare,
        beats: BeatRelay,
        observed: Observed,
        store: LogStore,
        log: Log,
    ) -> None:
        self._me = me
        self._node = node
        self._links = links
        self._roster = roster
        self._greetings = greetings
        self._snapshots = snapshots
        self._care = care
        self._beats = beats
        self._observed = observed
        self._store = store
        self._log = log
        self._strangers: set[str] = set()
        """Keys that were told of once; only accepted keys get this far."""
        self._told_removed = False

    def take_in(self, clock: Callable[[], float]) -> None:
        """Messages that have come. The clock is read when they are here: a promise not to vote lasts from then on, and a
        process that stood still before must not count it from an earlier moment than its leader does (rule 60)."""
        messages = self._links.receive(_MESSAGES, _BYTES)
        now = clock()
        for key, cluster, message in messages:
            self._take(key, cluster, message, now)

    def _take(self, key: str, cluster: str, message: PeerMessage, now: float) -> None:
        if isinstance(message, Hello):
            self._greetings.heard(key, message)
            return
        if message.receiver != self._me:
            self._stranger(key, cluster)
            return
        if not self._links.cluster_id and not self._roster.configured:
            self._links.cluster_id = cluster  # of a server that our own configuration file vouches for
        if cluster != self._links.cluster_id:
            self._stranger(key, cluster)
            return
        match message:
            case SnapshotChunk():
                self._snapshots.chunk(message)
            case SnapshotCredit():
                self._snapshots.credited(message, now)
            case Beats():
                self._beats.taken(message, now)
            case StateWanted():
                self._node.refill.wanted(message, now)
            case StateDigest():
                self._care.heard(message, now)
            case _:
                self._node.receive(message, now)

    def _stranger(self, key: str, cluster: str) -> None:
        self._observed.dropped += 1
        if key not in self._strangers:
            self._strangers.add(key)
            self._log.warning("message of another cluster or life", server=self._roster.name_of(key), cluster=cluster)

    def pass_snapshots(self, now: float) -> None:
        """Once a turn: send what credits allow, and tell the core how transfers ended."""
        self._snapshots.turn(now)
        for outcome in self._snapshots.take_outcomes():
            if isinstance(outcome, SnapshotReceived):
                self._node.snapshot_received(outcome, now)
                self._snapshots.discard_unwanted(self._node.taking_state)
            else:
                self._node.snapshot_sent(outcome, now)

    def tick(self, now: float) -> None:
        """About ten times a second."""
        self._greetings.turn(now)
        configuration = self._node.configuration
        others = [m.id for m in configuration.members if m.id != self._me] if configuration else []
        self._node.look_at_links(self._links.connected(others), now)
        self._node.refill.turn(now)
        self._beats.turn()

    def configuration_changed(self) -> None:
        """From the node, in the middle of a step: whom we talk to, and whom we let in, follow at once."""
        replica = self._node.raft.replica
        committed, _ = replica.configuration_at(replica.log.commit)
        every = [configuration for _, configuration in replica.configurations]
        configurations = [configuration for at, configuration in replica.configurations if at >= committed]
        departing = [p.peer for p in replica.leading.peers.values()] if replica.leading else []
        self._roster.follow(configurations, departing, every)
        if configurations:
            self._links.cluster_id = configurations[-1].cluster_id
            self._store.join(self._links.cluster_id)
            removed = was_removed(self._me, every)
            if removed and not self._told_removed:
                self._log.warning("removed", cluster=self._links.cluster_id, advice="stop this server")
            self._told_removed = removed
        self._links.follow_roster()
