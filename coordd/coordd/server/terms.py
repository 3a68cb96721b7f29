"""What a leader does because it leads: stamp time, end what has fallen silent, take signs of life, raise the feature level.

`LeaderDuties` comes to life when its server is ready to lead (it has applied the entry with which it took office) and
forgets everything when it no longer leads: a new leader gives everyone a full TTL.
"""

from collections.abc import Callable

from coordd.acl.authorizer import Authorizer
from coordd.messages.command import (
    Command,
    Deregister,
    ExpireClients,
    ExpireSessions,
    RaiseFeatureLevel,
    SetNodeStatus,
)
from coordd.server.expiry import BeatTimers, ClientTimers, SessionTimers
from coordd.server.levels import Levels
from coordd.server.node import Node
from coordd.server.state_time import StateTime
from coordd.state.topics import Topic
from coordd.types import Term

__all__ = ["LeaderDuties"]

_EVERYTHING = Authorizer(management=True)
_BEATS_PER_SECOND = 500
"""Above this many nodes for each second of the interval, the interval grows."""
_CLIENT_LOOKS = 8
"""How often within their expiry the list of registered clients is read."""


class LeaderDuties:
    """Mutable; one per server, also while it does not lead."""

    def __init__(
        self,
        *,
        node: Node,
        levels: Levels,
        propose: Callable[[Command, float], None],
        client_expiry: float,
        beat_interval: float,
        beat_timeout: float,
        reap_after: float,
    ) -> None:
        """Durations are seconds. `propose` queues a command of the leader's own."""
        self._node = node
        self._levels = levels
        self._propose = propose
        self._client_expiry = client_expiry
        self._beat_interval = beat_interval
        self._beat_timeout = beat_timeout
        self._reap_after = reap_after
        self._term: Term = 0
        """Term of the leadership these timers belong to; 0: none."""
        self._time: StateTime | None = None
        self._sessions = SessionTimers(0)
        self._clients = ClientTimers(0, [], client_expiry, 0.0)
        self._beats = BeatTimers(0, {}, beat_timeout, reap_after, 0.0)
        self._nodes_changed = False
        self._clients_read_at = 0.0
        self._lock_tick_at = 0

    # --- following the node -------------------------------------------------------------------------------------------

    def turn(self, changes: set[Topic], now: float, wall: float) -> None:
        """Once a turn of the loop, with the topics that changed in it."""
        if not self._node.ready:
            self._term = 0
            self._time = None
            return
        if self._term != self._node.raft.replica.term:
            self._take_office(now, wall)
            return
        if changes:
            self._follow(changes, now)

    def tick(self, now: float, wall: float) -> None:
        """Propose what is due; about ten times a second."""
        if not self._term or not self._node.ready:
            return
        self._follow_slowly(now)
        timed = (self._sessions.due(now), self._beats.due(now), self._clients.due(now), *self._beats.reap(now))
        for command in (*timed, self._levels.due()):
            if command is not None:
                self._propose(command, now)
        self._grant_due_locks(now, wall)

    def _take_office(self, now: float, wall: float) -> None:
        self._term = self._node.raft.replica.term
        machine = self._node.machine
        self._time = StateTime(machine.state_time, now, wall)
        self._sessions = SessionTimers(self._term)
        self._sessions.sync(machine.sessions_alive(), now)
        self._clients = ClientTimers(self._term, machine.clients_alive(), self._client_expiry, now)
        self._beats = BeatTimers(self._term, machine.nodes_alive(), self._beat_timeout, self._reap_after, now)
        self._nodes_changed = False
        self._clients_read_at = now
        self._lock_tick_at = 0

    def _follow(self, changes: set[Topic], now: float) -> None:
        if ("sessions",) in changes:  # at once: the next request may renew a session that has just been created
            self._sessions.sync(self._node.machine.sessions_alive(), now)
        if ("nodes",) in changes or ("checks",) in changes:
            self._nodes_changed = True

    def _follow_slowly(self, now: float) -> None:
        """What costs a look at many rows and may be late."""
        if self._nodes_changed:
            self._nodes_changed = False
            self._beats.sync(self._node.machine.nodes_alive(), now)
        if now - self._clients_read_at >= self._client_expiry / _CLIENT_LOOKS:
            self._clients_read_at = now
            self._clients.sync(self._node.machine.clients_alive(), now)

    def refused(self, command: Command) -> None:
        """The core did not take a command of ours: what it was to do is due again."""
        match command:
            case ExpireSessions():
                self._sessions.refused(command)
            case ExpireClients(clients=()):
                self._lock_tick_at = 0
            case ExpireClients():
                self._clients.refused(command)
            case SetNodeStatus():
                self._beats.refused(command)
            case RaiseFeatureLevel():
                self._levels.refused()
            case Deregister():
                self._beats.reap_refused(command)
            case _:
                pass

    def _grant_due_locks(self, now: float, wall: float) -> None:
        """A lock delay or a waiter's deadline has passed: any entry with a later state time acts on it."""
        due = self._node.machine.lock_deadlines()
        if due is None or due == self._lock_tick_at:
            return
        if self.state_time(now, wall) >= due:
            self._lock_tick_at = due
            self._propose(ExpireClients(self._term, ()), now)

    # --- what others ask ----------------------------------------------------------------------------------------------

    def state_time(self, now: float, wall: float) -> int:
        """Replicated nanoseconds to stamp into a command. Only a ready leader stamps."""
        if self._time is None or self._term != self._node.raft.replica.term:
            self._take_office(now, wall)
        return self._time.at(now, wall) if self._time is not None else 0

    def client_heard(self, client: int, now: float) -> None:
        self._clients.heard(client, now)

    def beat(self, node: str, now: float) -> None:
        """The agent of this node lives."""
        if self._term:
            self._beats.heard(node, now)

    def beat_interval_ms(self) -> int:
        """How long agents should wait between two beats: longer with more nodes, and below a third of the timeout."""
        wanted = max(self._beat_interval, self._beats.count / _BEATS_PER_SECOND)
        return int(1000 * min(wanted, max(self._beat_interval, self._beat_timeout / 3)))

    def renew(self, session: str, now: float) -> int | None:
        """See `SessionTimers.renew`."""
        return self._sessions.renew(session, now) if self._term else None
