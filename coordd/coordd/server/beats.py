"""Signs of life of agents on their way to the leader: gathered for a moment, then sent on in one message.

None is kept for later: with no leader to be reached they are dropped, and the agents' next ones make up for them. A beat
that was kept would tell a later leader that a node lives which may have been dead for long.
"""

from collections.abc import Callable

from coordd.messages.peer import Beats
from coordd.server.node import Node
from coordd.server.terms import LeaderDuties

__all__ = ["BeatRelay"]

_MOST = 16_384
"""Nodes in one message."""


class BeatRelay:
    """Mutable; one per server."""

    def __init__(
        self, node: Node, duties: LeaderDuties, send: Callable[[Beats], bool], clock: Callable[[], float]
    ) -> None:
        self._node = node
        self._duties = duties
        self._send = send
        self._clock = clock
        self._nodes: set[str] = set()

    def heard(self, node: str) -> None:
        """The agent of this node said that it lives."""
        if self._node.leading:
            self._duties.beat(node, self._clock())
        elif len(self._nodes) < _MOST:
            self._nodes.add(node)

    def taken(self, beats: Beats, now: float) -> None:
        """Another server passes these on to us."""
        for node in beats.nodes:
            self._duties.beat(node, now)

    def turn(self) -> None:
        """About ten times a second."""
        nodes, self._nodes = self._nodes, set()
        replica = self._node.raft.replica
        if nodes and replica.leader is not None and replica.leader != replica.me:
            self._send(Beats(replica.me, replica.leader, tuple(sorted(nodes))))
