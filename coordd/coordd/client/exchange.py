"""Calls and their attempts: which server is asked, what an answer means, what is tried again, and how a call ends.
Pure.

What holds:
- Every call ends by its deadline: with its answer, or with an error that says whether it may have taken effect. A
request
  goes out with what is left of the caller's time.
- A write without a number is never sent twice, unless it is certain that the first time it had no effect.
- A write with a number is sent under that number until an answer to any of its attempts comes. If the registration is
  gone, the writes sent under it end as unknown, and only those never sent get numbers of a new one.
- An attempt that is refused without effect (not-leader, no-leader, busy) is made again after a pause with jitter; at once,
  if the refusal names a leader that was not asked because of it before.
"""

import heapq
import itertools
import random
from typing import NamedTuple

from coordd.client.calls import Call, Policy, any_server_will_do
from coordd.client.numbering import Numbering
from coordd.client.servers import ServerList
from coordd.errors import (
    BusyError,
    NoLeaderError,
    OutcomeUnknownError,
    RequestError,
    TimedOutError,
    request_error,
)
from coordd.messages.client import PROTOCOL_VERSION, Body, Error, ReplyBody, Request, Write, Written
from coordd.messages.codec import encode_request
from coordd.messages.command import Failure

__all__ = ["Exchange", "Send"]

_PAUSE = 0.02
_LONGEST_PAUSE = 0.25
_NO_EFFECT = ("not-leader", "no-leader", "busy", "timed-out")


class Send(NamedTuple):
    """A frame for a server. If it can't be sent, the shell says so by `not_sent(request)`."""

    server: str
    request: int
    frame: bytes


class _Outgoing(NamedTuple):
    server: str
    request: int
    body: Body
    token: str
    deadline: float
    call: Call | None


class Exchange:
    """All calls under way. `now` is seconds of a clock that never goes back."""

    def __init__(self, servers: ServerList, numbering: Numbering, rng: random.Random) -> None:
        self._servers = servers
        self._numbering = numbering
        self._rng = rng
        self._requests = itertools.count(1)
        self._attempts: dict[int, Call] = {}
        self._parked: list[Call] = []
        self._timers: list[tuple[float, int, Call, int]] = []
        self._timer_order = itertools.count()
        self._outgoing: list[_Outgoing] = []
        self._completed: list[tuple[Call, ReplyBody | RequestError]] = []
        self.open = 0
        """Calls that have not ended."""
        self._last_refusal: RequestError | None = None
        self.list_wanted = False
        """A server named a leader that we don't know."""

    def next_request(self) -> int:
        return next(self._requests)

    def admit(self, call: Call) -> None:
        """From now on the call ends by its deadline. `dispatch` sends it."""
        self.open += 1
        self._at(call.deadline, call)

    def say(self, server: str, body: Body, token: str, request: int, deadline: float) -> None:
        """Send something that is no call: its answer, if any, is the caller's affair."""
        self._outgoing.append(_Outgoing(server, request, body, token, deadline, None))

    def connected(self, now: float) -> None:
        parked, self._parked = self._parked, []
        for call in parked:
            call.waiting = False
            self.dispatch(call, now)

    def lost(self, server: str, now: float) -> None:
        """No answer will come from there any more."""
        for request, call in [(each, call) for each, call in self._attempts.items() if call.attempts[each] == server]:
            self._close_attempt(request)
            call.doubtful = call.doubtful or call.policy.has_effect
            call.avoid = server
            self._after_loss(call, now)

    def not_sent(self, request: int, now: float) -> bool:
        """The frame was dropped before it left: certainly no effect. False: it belonged to no call."""
        call = self._close_attempt(request)
        if call is None:
            return False
        call.tries -= 1
        self._retry(call, now)
        return True

    def answered(self, server: str, request: int, body: ReplyBody, now: float) -> bool:
        """An answer to any open attempt counts. False: it belonged to no call."""
        call = self._attempts.get(request)
        if call is None:
            return False
        if call.attempts[request] == server:
            self._close_attempt(request)
            self._judge(call, body, server, now)
        return True

    def tick(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, _, call, request = heapq.heappop(self._timers)
            if call.finished:
                continue
            if now >= call.deadline:
                self.complete(call, self._deadline_error(call))
            elif request == 0:
                call.waiting = False
                self.dispatch(call, now)
            elif request in call.attempts:
                self._unanswered(call, request, now)

    def abandon(self) -> list[Call]:
        """End every call without an answer, and give them back. Each has a timer for its deadline."""
        calls = list({call: None for _, _, call, _ in self._timers if not call.finished})
        for call in calls:
            self.finish(call)
        return calls

    @property
    def next_deadline(self) -> float | None:
        while self._timers and self._timers[0][2].finished:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def take_sends(self, now: float) -> list[Send]:
        """Frames to send now, in order. Budgets and the lowest outstanding number are those of this moment."""
        outgoing, self._outgoing = self._outgoing, []
        sends = []
        for server, request, body, token, deadline, call in outgoing:
            if call is not None:
                if call.finished:
                    continue
                if call.number and isinstance(body, Write):
                    body = Write(body.command, call.client, call.number, self._numbering.lowest)
            budget = max(1, int((deadline - now) * 1000))
            sends.append(Send(server, request, encode_request(Request(PROTOCOL_VERSION, request, token, budget, body))))
        return sends

    def take_completed(self) -> list[tuple[Call, ReplyBody | RequestError]]:
        completed, self._completed = self._completed, []
        return completed

    def dispatch(self, call: Call, now: float) -> None:
        """Make one attempt at the server of choice, or wait until one is connected."""
        if call.finished or call.waiting:
            return
        server: str | None = call.server
        if not server:
            server = self._servers.choose(now, leading=not any_server_will_do(call.body), avoid=call.avoid)
        if server is None or server not in self._servers.up:
            call.waiting = True
            self._parked.append(call)
            return
        request = next(self._requests)
        call.attempts[request] = server
        call.tries += 1
        self._attempts[request] = call
        self._outgoing.append(_Outgoing(server, request, call.body, call.token, call.deadline, call))
        if call.policy is not Policy.ONCE:
            self._at(min(now + call.patience, call.deadline), call, request)

    def _judge(self, call: Call, body: ReplyBody, server: str, now: float) -> None:
        match body:
            case Error(code=code, text=text, hint=hint):
                self._refused(call, request_error(code, text, hint), server, now)
            case Written(result=Failure(code="unknown-client")) if call.policy is Policy.NUMBER:
                self._registration_expired(call)
            case _:
                if not any_server_will_do(call.body) and not call.server:
                    self._servers.leader = server
                self._last_refusal = None
                self.complete(call, body)

    def _refused(self, call: Call, error: RequestError, server: str, now: float) -> None:
        code = error.code
        if code == "unknown-client" and call.policy is Policy.NUMBER:
            self._registration_expired(call)
        elif code in _NO_EFFECT:
            call.refusal = self._last_refusal = error
            call.refusals += 1
            if code == "not-leader":
                self._redirected(call, error.hint, server, now)
            else:
                self._retry(call, now)
        elif code == "outcome-unknown" and call.policy is not Policy.ONCE:
            call.doubtful = call.doubtful or call.policy.has_effect
            self._retry(call, now)
        elif call.may_have_taken_effect:
            # An earlier attempt may have passed where this one was refused.
            self.complete(call, OutcomeUnknownError(f"an attempt got no answer; a later one: {error.text}"))
        else:
            self.complete(call, error)

    def _registration_expired(self, call: Call) -> None:
        """What was sent under it is in doubt, this call too: never send it again under another number by ourselves."""
        if call.client != self._numbering.client:
            return
        for each in self._numbering.expired():
            self.complete(each, OutcomeUnknownError("the registration of this client has expired at the servers"))

    def _redirected(self, call: Call, hint: str, server: str, now: float) -> None:
        """At once to a leader named for the first time; else with a pause, since two servers may name each other."""
        if self._servers.leader == server:
            self._servers.leader = ""
        call.avoid = server
        if hint and hint != server:
            if hint not in self._servers.targets:
                self.list_wanted = True
            elif hint in self._servers.up:
                self._servers.leader = hint
                if hint not in call.followed:
                    call.followed.add(hint)
                    call.refusals = 1  # whatever was waited for has come: pauses are short again
                    self.dispatch(call, now)
                    return
        self._retry(call, now)

    def _unanswered(self, call: Call, request: int, now: float) -> None:
        """The attempt stays open, a late answer is welcome; but another server is tried, with more patience."""
        server = call.attempts[request]
        self._servers.suspect(server, now)
        if call.server:
            self.complete(call, TimedOutError(f"server {server} did not answer"))
            return
        call.patience *= 2
        call.avoid = server
        self.dispatch(call, now)

    def _after_loss(self, call: Call, now: float) -> None:
        if call.policy is Policy.ONCE:
            self.complete(call, OutcomeUnknownError("the connection was lost before the answer came"))
        elif call.server:
            self.complete(call, TimedOutError(f"the connection to {call.server} was lost"))
        else:
            self.dispatch(call, now)

    def _retry(self, call: Call, now: float) -> None:
        if call.finished or call.waiting:
            return
        call.waiting = True
        pause = min(_PAUSE * 2.0 ** min(call.refusals, 10), _LONGEST_PAUSE)
        self._at(now + pause * self._rng.uniform(0.5, 1.0), call)

    def _close_attempt(self, request: int) -> Call | None:
        call = self._attempts.pop(request, None)
        if call is not None:
            del call.attempts[request]
        return call

    def _deadline_error(self, call: Call) -> RequestError:
        if call.may_have_taken_effect:
            return OutcomeUnknownError("no answer came in time; the write may or may not have taken effect")
        # A write that never got a number failed for the reason for which the registration did.
        refusal = call.refusal if call.tries else self._last_refusal
        if isinstance(refusal, BusyError):
            return refusal
        if refusal is not None and refusal.code != "timed-out" and self._servers.up:
            return NoLeaderError("no server has led the cluster in the time given")
        wrong = ", ".join(self._servers.rejecting)
        doubt = f" ({wrong} does not hold the public key that was given for it: is it the right one?)" if wrong else ""
        if call.server and call.server not in self._servers.up:
            return TimedOutError(f"server {call.server} could not be reached, or is none of this cluster{doubt}")
        if not self._servers.up:
            targets = ", ".join(self._servers.targets)
            return TimedOutError(f"no server could be reached in the time given: {targets}{doubt}")
        return TimedOutError("no answer came in the time given")

    def complete(self, call: Call, result: ReplyBody | RequestError) -> None:
        if not call.finished:
            self.finish(call)
            self._completed.append((call, result))

    def finish(self, call: Call) -> None:
        if call.finished:
            return
        call.finished = True
        self.open -= 1
        for request in list(call.attempts):
            self._close_attempt(request)
        self._numbering.finish(call)

    def _at(self, when: float, call: Call, request: int = 0) -> None:
        heapq.heappush(self._timers, (when, next(self._timer_order), call, request))
