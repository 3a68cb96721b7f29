"""What a client may ask of a server, and who judges it: one table of request kinds, one authorizer for every door.

A request is decoded, its deadline fixed (monotonic, from the budget it carries), its token resolved in the applied state, and
then it goes to the part that answers it: writes to `proposals`, reads to `reads`, subscriptions to `watches`, the operator's
requests to `operator`. A kind without an entry in the table does not get past start-up.
"""

from collections.abc import Callable
from typing import Any, get_args

from coordd.acl.authorizer import Access
from coordd.errors import (
    BusyError,
    InvalidError,
    InvariantError,
    NoLeaderError,
    NotFoundError,
    NotLeaderError,
    RequestError,
    TransportError,
    invariant,
)
from coordd.messages import client as wire
from coordd.messages.codec import MAX_COMMAND_BYTES, decode_request
from coordd.messages.command import Command, DestroySession, RegisterClient, command_decoder, encode
from coordd.messages.entry import UNREADABLE, CommandHeader, encode_command
from coordd.messages.levels import level_of
from coordd.server.authority import Authority
from coordd.server.levels import Levels
from coordd.server.node import Node
from coordd.server.operator import Operator
from coordd.server.proposals import Proposals
from coordd.server.reads import Reads
from coordd.server.terms import LeaderDuties
from coordd.server.waiting import Answers, Waiter, error_body
from coordd.server.watches import Watches
from coordd.state.permissions import Permission

__all__ = ["Api"]

_LONGEST_BUDGET_MS = 3_600_000
_LARGEST = (1 << 63) - 1
_CUT_OFF_SECONDS = 5.0
"""A server that has not been current for so long sends its subscribers to another one."""
_WAY_BACK_SHARE, _WAY_BACK_SECONDS = 0.2, 1.0
"""Kept of an operator's time for the answer's way back: what is still missing is worth hearing."""


class Api:
    """Requests in; answers leave through `answers`, now or later. One thread."""

    def __init__(
        self,
        *,
        node: Node,
        answers: Answers,
        proposals: Proposals,
        reads: Reads,
        watches: Watches,
        duties: LeaderDuties,
        levels: Levels,
        operator: Operator,
        beats: Callable[[str], None],
        wall: Callable[[], float],
    ) -> None:
        """`beats` passes an agent's sign of life on to the leader; `wall` is the wall clock, for the state time."""
        self._node = node
        self._authority = Authority(node)
        self._answers = answers
        self._proposals = proposals
        self._reads = reads
        self._watches = watches
        self._duties = duties
        self._levels = levels
        self._operator = operator
        self._beats = beats
        self._wall = wall
        self._handlers: dict[type, Callable[[wire.Request, Any, Waiter, float], wire.ReplyBody | None]] = {
            wire.Write: self._write,
            wire.Read: self._read,
            wire.Subscribe: self._subscribe,
            wire.Credit: self._credit,
            wire.Unsubscribe: self._unsubscribe,
            wire.Keepalive: self._keepalive,
            wire.RenewSession: self._renew_session,
            wire.AgentBeat: self._agent_beat,
            wire.ServersRequest: self._servers,
            wire.InfoRequest: self._info,
            wire.BootstrapRequest: self._operate,
            wire.AddServerRequest: self._operate,
            wire.RemoveServerRequest: self._operate,
            wire.MoveServerRequest: self._operate,
            wire.TransferRequest: self._operate,
            wire.LogRequest: self._operate,
        }
        missing = set(get_args(wire.Body)) - set(self._handlers)
        invariant(not missing, "request kinds without a handler", missing=missing)

    def handle(self, connection: bytes, frame: bytes, now: float) -> None:
        """One request. What can't be read is dropped: whoever sent it speaks another protocol."""
        try:
            request = decode_request(frame)
        except TransportError:
            return
        budget = min(request.budget_ms, _LONGEST_BUDGET_MS) / 1000
        waiter = Waiter(connection, request.id, now + budget)
        try:
            body = self._handlers[type(request.body)](request, request.body, waiter, now)
        except InvariantError:
            raise
        except RequestError as error:
            body = error_body(error)
        if body is not None:
            self._answers.answer(waiter, body)

    # --- writes -------------------------------------------------------------------------------------------------------

    def _write(self, request: wire.Request, body: wire.Write, waiter: Waiter, now: float) -> wire.ReplyBody | None:
        self._must_lead()
        raw = bytes(body.command)
        if len(raw) > MAX_COMMAND_BYTES:
            raise InvalidError(f"the command has {len(raw)} bytes, {MAX_COMMAND_BYTES} are allowed")
        try:
            command = command_decoder.decode(raw)
        except UNREADABLE as error:
            raise InvalidError(f"unreadable command: {error}") from error
        self._authority.demand(request.token, command)
        self._levels.demand(command)
        if isinstance(command, RegisterClient) and body.client:
            raise InvalidError("a registration carries no client number")
        if max(body.client, body.number, body.lowest) > _LARGEST or min(body.client, body.number, body.lowest) < 0:
            raise InvalidError("client and numbers of a write are from 0 to 2^63 - 1")
        if body.client:
            self._duties.client_heard(body.client, now)
        state_time = self._duties.state_time(now, self._wall())
        self._proposals.add(
            encode_command(CommandHeader(state_time, body.client, body.number, body.lowest), raw), waiter
        )
        return None

    def propose(self, command: Command, now: float) -> None:
        """A command of the leader itself; nobody waits for it, but the duties hear if it was not taken."""
        invariant(level_of(command) <= self._node.machine.feature_level, "the leader proposes what not all can read")
        header = CommandHeader(self._duties.state_time(now, self._wall()), 0, 0, 0)
        entry = encode_command(header, encode(command))
        self._proposals.add_own(entry, lambda: self._duties.refused(command))

    def _must_lead(self) -> None:
        if not self._node.ready:
            if self._node.leading:
                raise BusyError("the leader has just been elected and is catching up: try again")
            raise NotLeaderError("this server does not lead", self._operator.leader_address())

    # --- reads --------------------------------------------------------------------------------------------------------

    def _read(self, request: wire.Request, body: wire.Read, waiter: Waiter, now: float) -> wire.ReplyBody | None:
        self._authority.demand(request.token, body.query)
        if body.consistency == "default":
            self._must_lead()
        self._reads.ask(waiter, request.token, body, now)
        return None

    def _subscribe(self, request: wire.Request, body: wire.Subscribe, waiter: Waiter, now: float) -> None:
        self._authority.demand(request.token, body.query)
        self._watches.subscribe(waiter, request.token, body, now)

    def _credit(self, request: wire.Request, body: wire.Credit, waiter: Waiter, now: float) -> None:
        self._watches.credit(waiter.connection, body.subscription, body.credit, now)

    def _unsubscribe(self, request: wire.Request, body: wire.Unsubscribe, waiter: Waiter, now: float) -> wire.Ok:
        self._watches.unsubscribe(waiter.connection, body.subscription)
        return wire.Ok()

    # --- signs of life ------------------------------------------------------------------------------------------------

    def _keepalive(self, request: wire.Request, body: wire.Keepalive, waiter: Waiter, now: float) -> wire.Ok:
        """Of a registration at the leader; else of subscriptions, and an error makes their client subscribe elsewhere."""
        alive = self._watches.heard(waiter.connection, now)
        if body.client:
            self._must_lead()
            self._duties.client_heard(body.client, now)
            return wire.Ok()
        if not alive:
            raise NotFoundError("no subscription of this connection lives here: subscribe again")
        age = self._node.age(now)
        if age is None or age > _CUT_OFF_SECONDS:
            raise NoLeaderError(
                "this server is cut off from the leader and may have missed changes: subscribe elsewhere"
            )
        return wire.Ok()

    def _renew_session(self, request: wire.Request, body: wire.RenewSession, waiter: Waiter, now: float) -> None:
        """Only a leader that has surely led after the client asked: a deposed one would promise what its successor, who
        gives everyone a TTL from its own beginning, does not know of."""
        self._must_lead()
        self._authority.demand(request.token, DestroySession(body.session))

        def renewed(at: float) -> wire.Renewed:
            self._must_lead()
            ttl_ms = self._duties.renew(body.session, at)
            if ttl_ms is None:
                raise NotFoundError(f"session {body.session} does not exist, has no TTL, or is expiring")
            return wire.Renewed(ttl_ms)

        self._reads.confirm(waiter, renewed, now)

    def _agent_beat(self, request: wire.Request, body: wire.AgentBeat, waiter: Waiter, now: float) -> wire.BeatTaken:
        self._authority.demand_one(request.token, Permission("node", body.node, "write"))
        self._watches.heard(waiter.connection, now)
        self._beats(body.node)
        return wire.BeatTaken(self._duties.beat_interval_ms())

    # --- about the cluster --------------------------------------------------------------------------------------------

    def _servers(self, request: wire.Request, body: wire.ServersRequest, waiter: Waiter, now: float) -> wire.ReplyBody:
        return self._operator.servers()

    def _info(self, request: wire.Request, body: wire.InfoRequest, waiter: Waiter, now: float) -> wire.ReplyBody:
        self._authority.demand_one(request.token, Permission("operator", "", "read"))
        return self._operator.info(now)

    def _operate(self, request: wire.Request, body: Any, waiter: Waiter, now: float) -> wire.ReplyBody | None:
        access: Access = "read" if isinstance(body, wire.LogRequest) else "write"
        self._authority.demand_one(request.token, Permission("operator", "", access))
        margin = min(_WAY_BACK_SECONDS, _WAY_BACK_SHARE * (waiter.deadline - now))
        return self._operator.handle(body, waiter._replace(deadline=waiter.deadline - margin), now)
