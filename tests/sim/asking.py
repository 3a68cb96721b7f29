"""How a client asks: to whom, how often again, and what it takes for an answer.

A request that may be repeated is sent to one server after the other until one answers it; a numbered write always under its
number. A write that may not be repeated has an unknown outcome when it is not answered. Several can be under way at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from coordd.messages.client import (
    PROTOCOL_VERSION,
    Error,
    Read,
    RenewSession,
    ReplyBody,
    Request,
    Write,
    Written,
)
from coordd.messages.command import Command, CommandResult, Done, Failure, RegisterClient, encode
from coordd.types import Index
from tests.sim.chance import Chance
from tests.sim.oracle import Oracle
from tests.sim.server import Answered, Asked
from tests.sim.surroundings import Surroundings

__all__ = ["Answer", "Asker"]

CERTAIN = frozenset({"not-leader", "no-leader", "busy", "timed-out"})
"""Refusals that prove that nothing happened."""
FINAL = frozenset({"not-found"})
"""Refusals that another server would give too."""


class Answer(NamedTuple):
    """What came back, and for which of the tries."""

    body: ReplyBody
    asked_at: float
    floor: Index
    """What was committed then."""
    by: str
    """The server that answered, and when."""
    at: float


Finish = Callable[[Answer | None], None]
"""Called once; None: the outcome is unknown, or nobody would do it."""


@dataclass(eq=False)
class _Attempt:
    body: Write | Read | RenewSession
    repeats: bool
    finish: Finish
    tries: dict[int, tuple[float, Index]] = field(default_factory=dict)
    """Each request sent for it: when, and what was committed then."""
    newest: int = 0
    """The request that is waited for; 0: the next one is not yet sent."""


class Asker:
    """One client's connection to the cluster."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        servers: Callable[[], list[str]],
        patience: float,
        oracle: Oracle,
        chance: Chance,
    ) -> None:
        """`patience`: seconds until an unanswered request is given up or repeated."""
        self._around = around
        self._name = name
        self.servers = servers
        self._patience = patience
        self._oracle = oracle
        self._chance = chance
        self._requests = 0
        self._attempts: dict[int, _Attempt] = {}
        """By each request sent for it."""
        self._target = ""
        self._client = 0
        self._number = 0
        self._outstanding: set[int] = set()

    @property
    def registered(self) -> bool:
        return bool(self._client)

    def register(self, finish: Callable[[], None]) -> None:
        def registered(result: CommandResult | None) -> None:
            if isinstance(result, Done):
                self._client = result.index
            finish()

        self.write(RegisterClient(self._name), registered)

    def write(self, command: Command, finish: Callable[[CommandResult | None], None]) -> None:
        """Under a number, if this client is registered."""
        number = 0
        if self._client:
            self._number = number = self._number + 1
            self._outstanding.add(number)
        client = self._client
        body = Write(msgspec.Raw(encode(command)), client, number, min(self._outstanding, default=0))

        def answered(answer: Answer | None) -> None:
            self._outstanding.discard(number)
            result = answer.body.result if answer and isinstance(answer.body, Written) else None
            if isinstance(result, Failure) and result.code not in ("conflict", "invalid"):
                raise AssertionError(f"{command}: {result}")
            if result is None:
                self._around.counts["unknown outcomes"] += 1
            else:
                self._oracle.told(client, number, result)
            finish(result)

        self.ask(body, bool(client), answered)

    def ask(self, body: Write | Read | RenewSession, repeats: bool, finish: Finish) -> None:
        self._send(_Attempt(body, repeats, finish))

    def _send(self, attempt: _Attempt) -> None:
        around, body = self._around, attempt.body
        servers = self.servers()
        if isinstance(body, Read) and body.consistency != "default":
            target = self._chance.choice(servers)
        else:
            target = self._target if self._target in servers else self._chance.choice(servers)
            self._target = target
        self._requests += 1
        number = attempt.newest = self._requests
        self._attempts[number] = attempt
        patience = self._patience + (body.wait_ms / 1000 if isinstance(body, Read) else 0.0)
        stale = isinstance(body, Read) and body.consistency == "stale"
        floor = around.invariants.ledger.commit
        attempt.tries[number] = (around.schedule.now, floor)
        request = Request(PROTOCOL_VERSION, number, "", int(patience * 1000), body)
        asked = Asked(self._name, request, 0 if stale else floor)
        around.network.send(self._name, target, asked, once=not attempt.repeats)
        around.schedule.after(patience, self._given_up, number)

    def _given_up(self, request: int) -> None:
        attempt = self._attempts.get(request)
        if attempt is None or attempt.newest != request:
            return
        self._target = ""
        if attempt.repeats:
            self._send(attempt)
        else:
            self._finish(attempt, None)

    def deliver(self, reply: Answered) -> None:
        attempt = self._attempts.get(reply.request)
        if attempt is None:
            return
        body = reply.body
        if not isinstance(body, Error) or body.code in FINAL:
            asked_at, floor = attempt.tries[reply.request]
            self._finish(attempt, Answer(body, asked_at, floor, reply.by, reply.at))
        elif attempt.newest == reply.request:
            self._target = body.hint.partition(":")[0]
            if attempt.repeats or body.code in CERTAIN:
                attempt.newest = 0
                self._around.schedule.after(self._chance.uniform(0.005, 0.05), self._again, attempt)
            else:
                self._finish(attempt, None)

    def _again(self, attempt: _Attempt) -> None:
        if attempt.newest == 0:
            self._send(attempt)

    def _finish(self, attempt: _Attempt, answer: Answer | None) -> None:
        attempt.newest = -1
        for request in attempt.tries:
            del self._attempts[request]
        attempt.finish(answer)
