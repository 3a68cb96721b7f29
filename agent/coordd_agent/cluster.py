"""What the agent asks of the cluster: the part of `coordd.client.AsyncClient` that it uses, and a pause between attempts.

Each call raises a RequestError, or TransportError once the client was closed.
"""

import random
from collections.abc import AsyncGenerator
from typing import Protocol

from coordd.client import Ask
from coordd.messages.client import Body, ReadResult, ReplyBody, View
from coordd.messages.command import Command, Done, LockGrant
from coordd.messages.query import Query

__all__ = ["Backoff", "Cluster"]


class Cluster(Protocol):
    token: str

    @property
    def connected(self) -> frozenset[str]: ...

    async def write(
        self,
        command: Command,
        *,
        numbered: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109  it travels with the request
    ) -> Done | LockGrant: ...

    async def read(self, query: Query) -> ReadResult: ...

    async def request(self, body: Body, *, timeout: float | None = None) -> ReplyBody: ...  # noqa: ASYNC109

    async def ask(self, ask: Ask[ReplyBody]) -> ReplyBody: ...

    def subscribe(self, query: Query, *, token: str | None = None) -> AsyncGenerator[View]: ...


class Backoff:
    """Pauses that double from `least` to `most` seconds, spread so that a crowd does not come back at once."""

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most
        self._next = least

    def pause(self) -> float:
        pause, self._next = self._next, min(self._next * 2, self._most)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards nothing

    def reset(self) -> None:
        self._next = self._least
