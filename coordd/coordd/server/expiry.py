"""The leader's timers, pure: which sessions, clients and nodes have been silent for too long, and who may be renewed.

Deadlines live in memory only. A new leader gives everyone a full TTL; it may be late with an expiry, never early
(rule 94). From the moment at which an expiry is proposed the session is *expiring* and renewals are refused: the
entry is already on its way, and a renewal answered now would be a promise nobody keeps. What `due` names is named once;
`refused` makes it due again, when the core did not take the proposal.
"""

import heapq

from coordd.messages.command import Deregister, ExpireClients, ExpireSessions, NodeStatus, SetNodeStatus
from coordd.state.sessions import SessionAlive
from coordd.types import Index, Term

__all__ = ["BeatTimers", "ClientTimers", "SessionTimers"]

_MOST_AT_ONCE = 1000
"""Sessions, clients or nodes in one command."""
_LONG_AGO = float("-inf")


class SessionTimers:
    """Sessions with a TTL. Times are monotonic seconds."""

    def __init__(self, term: Term) -> None:
        self._term = term
        self._alive: dict[str, tuple[Index, float]] = {}
        """id → (create index, TTL in seconds)"""
        self._deadline: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        self._expiring: set[str] = set()

    def sync(self, sessions: list[SessionAlive], now: float) -> None:
        """Follow the state: new sessions get a full TTL, sessions that ended are forgotten."""
        present = {session.id: session for session in sessions}
        for gone in self._alive.keys() - present.keys():
            del self._alive[gone]
            self._deadline.pop(gone, None)
            self._expiring.discard(gone)
        for session in sessions:
            known = self._alive.get(session.id)
            if known is None or known[0] != session.create_index:
                self._alive[session.id] = (session.create_index, session.ttl_ms / 1000)
                self._expiring.discard(session.id)
                self._deadline.pop(session.id, None)
                self._set(session.id, now)
        if len(self._queue) > 2 * len(self._alive) + _MOST_AT_ONCE:
            self._queue = [(deadline, id) for id, deadline in self._deadline.items() if id not in self._expiring]
            heapq.heapify(self._queue)

    def renew(self, session: str, now: float) -> int | None:
        """A full TTL from now, in milliseconds; None if the session is gone or expiring, or has no TTL."""
        known = self._alive.get(session)
        if known is None or session in self._expiring or self._deadline[session] <= now:
            return None
        self._set(session, now)
        return int(known[1] * 1000)

    def due(self, now: float) -> ExpireSessions | None:
        """The command that ends what has run out; each session is named once, until `refused`."""
        ended: list[tuple[str, Index]] = []
        while self._queue and self._queue[0][0] <= now and len(ended) < _MOST_AT_ONCE:
            _, session = heapq.heappop(self._queue)
            known = self._alive.get(session)
            if known is None or session in self._expiring:
                continue
            if self._deadline[session] > now:
                heapq.heappush(self._queue, (self._deadline[session], session))
                continue
            self._expiring.add(session)
            ended.append((session, known[0]))
        return ExpireSessions(self._term, tuple(ended)) if ended else None

    def refused(self, command: ExpireSessions) -> None:
        """The proposal was not taken: they are due again at once."""
        for session, _ in command.sessions:
            self._expiring.discard(session)
            if session in self._alive:
                heapq.heappush(self._queue, (self._deadline[session], session))

    def _set(self, session: str, now: float) -> None:
        """Each session is in the queue once; a renewed one is put back when its old place comes up."""
        first = session not in self._deadline
        self._deadline[session] = now + self._alive[session][1]
        if first:
            heapq.heappush(self._queue, (self._deadline[session], session))


class ClientTimers:
    """Registrations of numbered writes. Silence of `expiry` seconds ends them."""

    def __init__(self, term: Term, clients: list[int], expiry: float, now: float) -> None:
        self._term = term
        self._expiry = expiry
        self._heard = dict.fromkeys(clients, now)

    def sync(self, clients: list[int], now: float) -> None:
        """Follow the state: new registrations get the full time, those that are no more are forgotten."""
        present = set(clients)
        self._heard = {client: heard for client, heard in self._heard.items() if client in present}
        for client in clients:
            self._heard.setdefault(client, now)

    def heard(self, client: int, now: float) -> None:
        """Moved to the end: the dict stays ordered by time. A number that nobody registered leaves no trace."""
        if self._heard.pop(client, None) is not None:
            self._heard[client] = now

    def due(self, now: float) -> ExpireClients | None:
        """Named once; one that was applied without effect (another term) is named by the next leader again."""
        silent: list[int] = []
        for client, heard in self._heard.items():
            if now - heard < self._expiry or len(silent) == _MOST_AT_ONCE:
                break
            silent.append(client)
        for client in silent:
            del self._heard[client]
        return ExpireClients(self._term, tuple(silent)) if silent else None

    def refused(self, command: ExpireClients) -> None:
        self._heard = dict.fromkeys(command.clients, _LONG_AGO) | self._heard


class BeatTimers:
    """Nodes whose agents have been heard. Only a flip of `serfHealth` goes through the log, and the end of a dead node."""

    def __init__(
        self, term: Term, nodes: dict[str, bool | None], timeout: float, reap_after: float, now: float
    ) -> None:
        """`nodes`: every registered node → whether its `serfHealth` passes; None: it has no such check, hence no agent."""
        self._term = term
        self._timeout = timeout
        self._reap_after = reap_after
        self._passing: dict[str, bool | None] = {}
        self._flipping: dict[str, tuple[bool, float]] = {}
        """What was proposed of a node and is not yet in the state, and when."""
        self._heard: dict[str, float] = {}
        self._silent: dict[str, float] = {}
        self.sync(nodes, now)

    def heard(self, node: str, now: float) -> None:
        """Moved to the end: the dict stays ordered by time."""
        self._heard.pop(node, None)
        self._heard[node] = now
        self._silent.pop(node, None)

    def sync(self, nodes: dict[str, bool | None], now: float) -> None:
        """Follow the state, but for flips that are still on their way into it."""
        self._flipping = {
            node: (passing, since)
            for node, (passing, since) in self._flipping.items()
            if node in nodes and nodes[node] is not passing and now - since < self._timeout
        }
        self._passing = {**nodes, **{node: passing for node, (passing, _) in self._flipping.items()}}
        self._silent = {node: since for node, since in self._silent.items() if node in nodes}
        for node, passing in self._passing.items():
            if passing:
                self._heard.setdefault(node, now)
            elif passing is False and node not in self._heard:
                self._silent.setdefault(node, now)

    def due(self, now: float) -> SetNodeStatus | None:
        """Nodes that fell silent, and silent or new ones that were heard."""
        flips: list[NodeStatus] = []
        for node, heard in list(self._heard.items()):
            if now - heard < self._timeout or len(flips) == _MOST_AT_ONCE:
                break
            del self._heard[node]
            if self._passing.get(node):
                self._silent[node] = now
                flips.append(self._flip(node, False, now))
        for node in self._heard:
            if node in self._passing and not self._passing[node] and len(flips) < _MOST_AT_ONCE:
                flips.append(self._flip(node, True, now))
        return SetNodeStatus(self._term, tuple(flips)) if flips else None

    def _flip(self, node: str, passing: bool, now: float) -> NodeStatus:
        self._passing[node] = passing
        self._flipping[node] = (passing, now)
        if passing:
            return NodeStatus(node, "passing", "Agent alive and reachable")
        return NodeStatus(node, "critical", "Agent not live or unreachable")

    def refused(self, command: SetNodeStatus) -> None:
        fell_silent = [status.node for status in command.nodes if status.status != "passing"]
        for status in command.nodes:
            self._flipping.pop(status.node, None)
            self._passing[status.node] = status.status != "passing"
        for node in fell_silent:
            self._silent.pop(node, None)
        self._heard = {node: _LONG_AGO for node in fell_silent if node not in self._heard} | self._heard

    def reap(self, now: float) -> list[Deregister]:
        """Nodes that have been dead for so long that they are taken out of the catalog, each named once."""
        ended = [node for node, since in self._silent.items() if now - since >= self._reap_after][:_MOST_AT_ONCE]
        for node in ended:
            del self._silent[node]
        return [Deregister(node) for node in ended]

    def reap_refused(self, command: Deregister) -> None:
        self._silent.setdefault(command.node, _LONG_AGO)

    @property
    def count(self) -> int:
        return len(self._passing)
