"""What local programs ask of the cluster, passed on with their own token and what is left of their time.

Requests become one call each. Subscriptions live here as long as their program says that it is there (a Keepalive, or
any request): the client library moves them from server to server, and the program sees one unbroken series of views,
with an order and credits of its own.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TypeAlias

from coordd.client import asks
from coordd.errors import BusyError, CoorddError, RequestError
from coordd.messages.client import (
    Body,
    Credit,
    Error,
    Keepalive,
    Ok,
    ReplyBody,
    Subscribe,
    Unsubscribe,
    View,
)
from coordd_agent.cache import StartTask
from coordd_agent.cluster import Cluster

__all__ = ["Relay", "error_reply"]

MAX_SUBSCRIPTIONS = 512
MAX_CREDIT = 64
ANSWER_SHARE, LONGEST_ANSWER_S = 0.1, 0.25
"""What of a program's time is kept for the way back. Else it gives up just before it hears why there is no answer."""
SILENCE_S = 35.0
"""Three missed keepalives of the client library."""

Send: TypeAlias = Callable[[ReplyBody], None]
Key: TypeAlias = tuple[bytes, int]
"""(connection, number of the subscription there)."""


def error_reply(error: CoorddError) -> Error:
    if isinstance(error, RequestError):
        return Error(error.code, error.text, error.hint)
    return Error("no-leader", f"the agent can't reach a server: {error}")


class _Relayed:
    """One subscription of a local program."""

    def __init__(self, body: Subscribe, send: Send) -> None:
        self._number = body.subscription
        self._send = send
        self._credit = min(body.credit, MAX_CREDIT)
        self._sent = 0
        self._held: View | None = None
        """Newest view that waits for credit; older ones are folded into it."""
        self.task: asyncio.Task[None] | None = None

    def view(self, view: View) -> None:
        self._held = view
        self._flush()

    def credit(self, credit: int) -> None:
        self._credit = min(self._credit + max(0, credit), MAX_CREDIT)
        self._flush()

    def fail(self, error: CoorddError) -> None:
        self._send(error_reply(error))

    def _flush(self) -> None:
        if self._held is None or self._credit == 0:
            return
        view, self._held = self._held, None
        self._credit -= 1
        self._send(View(self._number, view.index, self._sent, view.value, view.filtered))
        self._sent = view.index


class Relay:
    def __init__(self, cluster: Cluster, start_task: StartTask) -> None:
        self._cluster = cluster
        self._start_task = start_task
        self._subscriptions: dict[Key, _Relayed] = {}
        self._heard: dict[bytes, float] = {}

    def heard(self, connection: bytes) -> None:
        """The program at the other end of `connection` is there."""
        if any(key[0] == connection for key in self._subscriptions):
            self._heard[connection] = time.monotonic()

    async def request(self, body: Body, token: str, budget_s: float) -> ReplyBody:
        budget_s -= min(ANSWER_SHARE * budget_s, LONGEST_ANSWER_S)
        try:
            return await self._cluster.ask(asks.relay(body, token, budget_s))
        except CoorddError as error:
            return error_reply(error)

    async def keepalive(self, body: Keepalive, token: str, budget_s: float) -> ReplyBody:
        """Its registration for numbered writes lives at the servers."""
        return await self.request(body, token, budget_s) if body.client else Ok()

    def subscribe(self, connection: bytes, body: Subscribe, token: str, send: Send) -> None:
        self._end((connection, body.subscription))
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            send(error_reply(BusyError("too many subscriptions at this agent; end some")))
            return
        relayed = _Relayed(body, send)
        self._subscriptions[connection, body.subscription] = relayed
        self._heard[connection] = time.monotonic()
        relayed.task = self._start_task(self._follow((connection, body.subscription), relayed, body, token))

    def credit(self, connection: bytes, body: Credit) -> None:
        if relayed := self._subscriptions.get((connection, body.subscription)):
            relayed.credit(body.credit)

    def unsubscribe(self, connection: bytes, body: Unsubscribe) -> None:
        self._end((connection, body.subscription))

    def sweep(self) -> None:
        """End what belongs to programs that have gone silent."""
        limit = time.monotonic() - SILENCE_S
        for key in [key for key in self._subscriptions if self._heard.get(key[0], 0.0) < limit]:
            self._end(key)
        alive = {key[0] for key in self._subscriptions}
        self._heard = {connection: at for connection, at in self._heard.items() if connection in alive}

    def close(self) -> None:
        for key in list(self._subscriptions):
            self._end(key)

    async def _follow(self, key: Key, relayed: _Relayed, body: Subscribe, token: str) -> None:
        try:
            async with contextlib.aclosing(self._cluster.subscribe(body.query, token=token)) as views:
                async for view in views:
                    relayed.view(view)
        except CoorddError as error:
            relayed.fail(error)
        if self._subscriptions.get(key) is relayed:
            del self._subscriptions[key]

    def _end(self, key: Key) -> None:
        relayed = self._subscriptions.pop(key, None)
        if relayed is not None and relayed.task is not None:
            relayed.task.cancel()
