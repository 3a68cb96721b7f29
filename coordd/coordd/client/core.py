"""The client without sockets, threads or a clock: what to send where, and what each call's end is.

Inputs: calls and subscriptions from the shell, connections that come and go, frames, the passing of time; `now` is
seconds of a clock that never goes back and counts suspend. Outputs, to be fetched after each turn: `targets` (servers
to be connected to), `take_sends`, `take_completed`, `take_views`, `next_deadline`.

The core itself does what nobody asked for: it registers when a write wants a number, keeps alive what waits at the
servers, follows the list of servers, and puts subscriptions where they can live. `exchange.py` says how calls end.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from coordd.client.calls import Call, Policy, policy_of
from coordd.client.exchange import Exchange, Send
from coordd.client.numbering import Numbering
from coordd.client.servers import ServerList
from coordd.client.subscriptions import CREDIT, Subscription, Subscriptions
from coordd.errors import BusyError, RequestError, TransportError, request_error
from coordd.messages.client import (
    Body,
    Credit,
    Error,
    Keepalive,
    ReplyBody,
    Servers,
    ServersRequest,
    Subscribe,
    Unsubscribe,
    View,
    Write,
    Written,
)
from coordd.messages.codec import decode_reply
from coordd.messages.command import Done, Failure, RegisterClient, encode
from coordd.messages.query import Query

__all__ = ["MAX_CALLS", "PATIENCE_SECONDS", "ClientCore"]

MAX_CALLS = 8192
MAX_SUBSCRIPTIONS = 4096
PATIENCE_SECONDS = 1.0

_REGISTER_SECONDS = 5.0
_KEEPALIVE_SECONDS = 10.0
_KEEPALIVE_PATIENCE = 3.0
_LIST_SECONDS = 30.0
_LIST_HURRY_SECONDS = 0.5
_SUBSCRIBE_PAUSE = 0.25
_RETRY_CODES = ("not-leader", "no-leader", "busy", "timed-out", "outcome-unknown")

Result = ReplyBody | RequestError


class ClientCore:
    """See the module. One instance belongs to one shell and is not thread-safe."""

    def __init__(
        self, seeds: Mapping[str, str], now: float, *, rng: random.Random, token: str = "", name: str = ""
    ) -> None:
        self.servers = ServerList(seeds, rng)
        self.token = token
        self._rng = rng
        self._name = name
        self._numbering = Numbering()
        self._exchange = Exchange(self.servers, self._numbering, rng)
        self._subscriptions = Subscriptions(self._exchange.next_request)
        self._own: dict[Call, Callable[[Result, float], None]] = {}
        self._completed: deque[tuple[Call, Result]] = deque()
        self._views: list[tuple[Subscription, View | RequestError]] = []
        self._registering = False
        # An agent stands between us and the servers: their addresses are not for us.
        self._list_at = math.inf if self.servers.agent else now
        self._listed_at = now - _LIST_SECONDS
        self._keepalive_at = now + _KEEPALIVE_SECONDS

    # --- what the shell asks for -------------------------------------------------------------------------------------

    def submit(
        self,
        body: Body,
        now: float,
        *,
        timeout: float,
        patience: float = PATIENCE_SECONDS,
        numbered: bool = False,
        token: str | None = None,
        server: str = "",
        context: object = None,
    ) -> Call:
        """Begin a call. `patience`: how long a server may take to answer before another is tried. `numbered`: give this
        write a number. `server`: ask no other, and be patient with it.

        Raises: BusyError if too many are under way.
        """
        if self._exchange.open >= MAX_CALLS:
            raise BusyError("too many requests of this client are under way; wait for some to end")
        policy = Policy.NUMBER if numbered else policy_of(body)
        patience = timeout if server else patience
        call = Call(body, policy, self.token if token is None else token, now + timeout, patience, server, context)
        self._exchange.admit(call)
        if policy is Policy.NUMBER:
            self._numbering.waiting.append(call)
            self._number(now)
        else:
            self._exchange.dispatch(call, now)
        return call

    def cancel(self, call: Call) -> None:
        """Nobody waits for it any more. It may still take effect."""
        self._exchange.finish(call)

    def abandon(self) -> list[Call]:
        """The client ends: nothing more will come. Gives back the calls that were under way."""
        return [call for call in self._exchange.abandon() if self._own.pop(call, None) is None]

    def subscribe(self, query: Query, now: float, *, token: str | None = None, context: object = None) -> Subscription:
        """Keep a query in view, until `unsubscribe` or until an error comes in place of a view.

        Raises: BusyError if there are too many.
        """
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise BusyError("too many subscriptions of this client; end some")
        subscription = self._subscriptions.add(query, self.token if token is None else token)
        subscription.context = context
        self._place(subscription, now)
        return subscription

    def taken(self, subscription: Subscription, now: float) -> None:
        """The consumer is done with one view."""
        if credit := self._subscriptions.credit_due(subscription):
            self._say(subscription, Credit(subscription.number, credit), now)

    def unsubscribe(self, subscription: Subscription, now: float) -> None:
        if subscription.server:
            self._say(subscription, Unsubscribe(subscription.number), now)
        self._subscriptions.end(subscription)

    # --- what happens ------------------------------------------------------------------------------------------------

    def connected(self, server: str, now: float) -> None:
        if not self.servers.up and not self.servers.agent:
            self._list_at = now
        self.servers.connected(server)
        self._exchange.connected(now)
        self.tick(now)

    def rejected(self, server: str) -> None:
        """Somebody there ends connections before they are up."""
        self.servers.rejected(server)

    def lost(self, server: str, now: float) -> None:
        """The connection ended: no answer will come over it."""
        self.servers.lost(server)
        self._exchange.lost(server, now)
        self._leave(server, now)
        self._settle(now)

    def not_sent(self, request: int, now: float) -> None:
        """The frame was dropped before it left."""
        if not self._exchange.not_sent(request, now) and (lost := self._subscriptions.of_request(request)):
            self._subscriptions.unplace(lost, now + _SUBSCRIBE_PAUSE)

    def received(self, server: str, frame: bytes, now: float) -> None:
        """A frame came. What can't be read or was not asked for is ignored: the call's deadline stands."""
        try:
            reply = decode_reply(frame)
        except TransportError:
            return
        if self._exchange.answered(server, reply.id, reply.body, now):
            self._settle(now)
            return
        subscription = self._subscriptions.of_request(reply.id)
        if subscription is not None and subscription.server == server:
            self._viewed(subscription, reply.body, now)

    def tick(self, now: float) -> None:
        """Do what is due. To be called at `next_deadline` or earlier."""
        self._exchange.tick(now)
        for subscription in list(self._subscriptions.unplaced.values()):
            if subscription.retry_at <= now:
                self._place(subscription, now)
        if self.servers.up:
            if self._exchange.list_wanted and not self.servers.agent:
                self._exchange.list_wanted = False
                self._list_at = min(self._list_at, max(now, self._listed_at + _LIST_HURRY_SECONDS))
            if self._list_at <= now:
                self._ask_for_list(now)
            if self._keepalive_at <= now:
                self._keep_alive(now)
        self._settle(now)

    @property
    def next_deadline(self) -> float | None:
        """When `tick` is needed if nothing happens before; None: never."""
        times = [] if (first := self._exchange.next_deadline) is None else [first]
        if self.servers.up:
            times += [self._list_at, self._keepalive_at]
            times += [each.retry_at for each in self._subscriptions.unplaced.values()]
        return min(times, default=None)

    # --- what the shell fetches --------------------------------------------------------------------------------------

    @property
    def targets(self) -> Mapping[str, str]:
        """Servers to be connected to: address → public key."""
        return self.servers.targets

    def take_sends(self, now: float) -> list[Send]:
        self._number(now)
        return self._exchange.take_sends(now)

    def take_completed(self) -> list[tuple[Call, Result]]:
        completed, self._completed = list(self._completed), deque()
        return completed

    def take_views(self) -> list[tuple[Subscription, View | RequestError]]:
        views, self._views = self._views, []
        return views

    # --- what the core does by itself --------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Sort ended calls: the core's own are dealt with here, which may end others."""
        while completed := self._exchange.take_completed():
            for call, result in completed:
                own = self._own.pop(call, None)
                if own is None:
                    self._completed.append((call, result))
                else:
                    own(result, now)

    def _ask(
        self,
        body: Body,
        now: float,
        done: Callable[[Result, float], None],
        *,
        timeout: float,
        patience: float = PATIENCE_SECONDS,
        server: str = "",
        policy: Policy = Policy.REPEAT,
    ) -> None:
        call = Call(body, policy, self.token, now + timeout, patience, server)
        self._own[call] = done
        self._exchange.admit(call)
        self._exchange.dispatch(call, now)

    def _number(self, now: float) -> None:
        """Give numbers to the writes that wait for one, or get a registration for them first."""
        self._numbering.drop_finished()
        if not self._numbering.waiting:
            return
        if self._numbering.client:
            for call in self._numbering.admit():
                self._exchange.dispatch(call, now)
        elif not self._registering:
            self._registering = True
            # A second registration by a repeated request is harmless: nobody uses the first, and it expires.
            body = Write(msgspec.Raw(encode(RegisterClient(self._name, self._rng.getrandbits(62) + 1))))
            # No longer than a write waits for it: an agent tells only at the end of its time why it got nowhere.
            longest = max(call.deadline for call in self._numbering.waiting) - now
            self._ask(body, now, self._registered, timeout=min(_REGISTER_SECONDS, longest))

    def _registered(self, result: Result, now: float) -> None:
        self._registering = False
        match result:
            case Written(result=Done(index=client)):
                self._numbering.registered(client)
                self._number(now)
            case Written(result=Failure(code="conflict")):
                self._number(now)  # an earlier attempt got through and its answer was lost: draw another identity
            case Written(result=Failure(code=code, text=text)):
                self._fail_waiting(request_error(code, text))
            case RequestError(code=code) if code not in _RETRY_CODES:
                self._fail_waiting(result)
            case _:
                # Those that wait have deadlines of their own; for the others we go on trying.
                self._number(now)

    def _fail_waiting(self, error: RequestError) -> None:
        for call in list(self._numbering.waiting):
            self._exchange.complete(call, error)

    def _ask_for_list(self, now: float) -> None:
        self._listed_at, self._list_at = now, now + _LIST_SECONDS
        self._ask(ServersRequest(), now, self._listed, timeout=_LIST_SECONDS / 2)

    def _listed(self, result: Result, now: float) -> None:
        if isinstance(result, Servers):
            self.servers.follow(result)

    def _keep_alive(self, now: float) -> None:
        """Renew the registration at the leader, and whatever waits at the server where subscriptions live."""
        self._keepalive_at = now + _KEEPALIVE_SECONDS
        homes = {each.server for each in self._subscriptions.placed()}
        if client := self._numbering.client:
            self._ask(Keepalive(client), now, self._ignore, timeout=_KEEPALIVE_SECONDS)
        for home in homes:
            self._ask(Keepalive(), now, self._home_answered(home), timeout=_KEEPALIVE_PATIENCE, server=home)

    def _home_answered(self, home: str) -> Callable[[Result, float], None]:
        def done(result: Result, now: float) -> None:
            if isinstance(result, RequestError):
                self.servers.suspect(home, now)
                self._leave(home, now)

        return done

    def _ignore(self, result: Result, now: float) -> None:
        """What this was for shows elsewhere."""

    # --- subscriptions -----------------------------------------------------------------------------------------------

    def _place(self, subscription: Subscription, now: float, avoid: str = "") -> None:
        server = self.servers.choose(now, leading=False, avoid=avoid)
        if server is None:
            self._subscriptions.unplace(subscription, now + _SUBSCRIBE_PAUSE if self.servers.up else 0.0)
            return
        self._subscriptions.place(subscription, server)
        self._say(subscription, Subscribe(subscription.number, subscription.query, CREDIT), now, subscription.request)

    def _leave(self, server: str, now: float) -> None:
        for subscription in self._subscriptions.at(server):
            self._place(subscription, now, avoid=server)

    def _viewed(self, subscription: Subscription, body: ReplyBody, now: float) -> None:
        match body:
            case View():
                if self._subscriptions.follows(subscription, body):
                    self._views.append((subscription, body))
                else:
                    self._place(subscription, now)
            case Error(code=code) if code in _RETRY_CODES:
                subscription.refusals += 1
                self._subscriptions.unplace(subscription, now + _SUBSCRIBE_PAUSE)
            case Error(code=code, text=text):
                self._subscriptions.end(subscription)
                self._views.append((subscription, request_error(code, text)))
            case _:
                pass

    def _say(self, subscription: Subscription, body: Body, now: float, request: int = 0) -> None:
        request = request or self._exchange.next_request()
        self._exchange.say(subscription.server, body, subscription.token, request, now + _KEEPALIVE_SECONDS)
