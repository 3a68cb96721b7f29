"""The side of a server that faces clients: what they ask, what waits for an answer, and what the leader does on its own.

Put together here, so that the daemon has one thing to turn. The order of a turn is the daemon's: requests in, one proposal
for all that came, reads; then, after a slice was applied, answers, the leader's duties and views.
"""

import time
from collections.abc import Callable

from coordd.errors import InvalidError
from coordd.messages.client import Reply, ReplyBody
from coordd.messages.codec import MAX_FRAME_BYTES, encode_reply
from coordd.server.api import Api
from coordd.server.beats import BeatRelay
from coordd.server.levels import Levels
from coordd.server.node import Node
from coordd.server.operator import Operator
from coordd.server.ports import AppliedBatch
from coordd.server.proposals import Proposals
from coordd.server.reads import Reads
from coordd.server.settings import ServerSettings
from coordd.server.terms import LeaderDuties
from coordd.server.waiting import Answers, Waiter, error_body
from coordd.server.watches import Watches
from coordd.state.topics import Topic
from coordd.transport.clients import ClientSocket

__all__ = ["ClientAnswers", "ClientSide"]

_MESSAGES, _BYTES = 256, 1024 * 1024
"""Taken in one turn."""


class ClientAnswers:
    """`server.waiting.Answers` over the client socket."""

    def __init__(self, socket: ClientSocket) -> None:
        self._socket = socket

    def answer(self, waiter: Waiter, body: ReplyBody) -> bool:
        frame = encode_reply(Reply(waiter.request, body))
        if len(frame) > MAX_FRAME_BYTES:
            text = f"the answer has {len(frame)} bytes, {MAX_FRAME_BYTES} are allowed: ask for less at once"
            frame = encode_reply(Reply(waiter.request, error_body(InvalidError(text))))
        return self._socket.send(waiter.connection, frame)


class ClientSide:
    """Mutable; one per server."""

    def __init__(
        self,
        *,
        socket: ClientSocket,
        answers: Answers,
        node: Node,
        operator: Operator,
        beats: BeatRelay,
        duties: LeaderDuties,
        levels: Levels,
        settings: ServerSettings,
    ) -> None:
        limits = settings.limits
        self._socket = socket
        self._node = node
        self._operator = operator
        self._duties = duties
        self._most_writes = limits.pending_writes
        self._was_leading = False
        self._changes: set[Topic] = set()
        self.proposals = Proposals(answers, limits.pending_writes)
        self.watches = Watches(limits.watches, limits.watch_idle_ms / 1000, lambda query: node.machine.topics(query))
        self.reads = Reads(
            node=node,
            answers=answers,
            watches=self.watches,
            limit=limits.pending_reads,
            longest_wait=limits.watch_wait_ms / 1000,
        )
        self.api = Api(
            node=node,
            answers=answers,
            proposals=self.proposals,
            reads=self.reads,
            watches=self.watches,
            duties=duties,
            levels=levels,
            operator=operator,
            beats=beats.heard,
            wall=time.time,
        )

    @property
    def full(self) -> bool:
        """So many writes wait for their commit that no request is taken: clients are held up by their connections."""
        return len(self.proposals) >= self._most_writes

    def take_in(self, clock: Callable[[], float]) -> None:
        """Requests that have come, one proposal for their writes, and their reads. The clock is read when they are here: a
        lease that held before a request came says nothing to it (rule 60)."""
        requests = [] if self.full else self._socket.receive(_MESSAGES, _BYTES)
        now = clock()
        for connection, frame in requests:
            self.api.handle(connection, frame, now)
        self._propose(now)
        self.reads.turn(now)

    def applied(self, batch: AppliedBatch) -> None:
        """A slice was applied: answer its writers."""
        self._changes |= self._node.machine.changes
        self.proposals.applied(batch)

    def publish(self, now: float) -> None:
        """Wake who waits for what has changed in this turn, and answer what can be answered."""
        self._duties.turn(self._changes, now, time.time())
        self.watches.changed(self._changes)
        self._changes = set()
        self.reads.turn(now)

    def tick(self, now: float) -> None:
        """About ten times a second: what is due, and what has come too late."""
        self._duties.tick(now, time.time())
        self._propose(now)
        self._operator.turn(now)
        self.proposals.expire(now)
        self.reads.expire(now)
        self.watches.tick(now)

    def leadership_changed(self) -> None:
        """From the node, in the middle of a step. Whoever counted on this server to lead hears of it."""
        leading = self._node.leading
        if self._was_leading and not leading:
            self.proposals.leadership_lost()
            self.watches.wake_blocked()
        self._was_leading = leading

    def machine_replaced(self) -> None:
        """A snapshot was installed: anything may have changed."""
        self.watches.wake_all()
        self._changes.clear()

    def _propose(self, now: float) -> None:
        entries = self.proposals.take_batch(now)
        if entries:
            self.proposals.proposed(self._node.propose(entries, now), self._operator.leader_address())
