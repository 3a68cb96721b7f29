"""The client for asyncio. It lives on the loop that makes its first request; nothing in it blocks.

`import coordd.client` does not import asyncio; this module does.
"""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from coordd.client import settings
from coordd.client.aio_lock import AsyncLock
from coordd.client.asks import Ask
from coordd.client.core import PATIENCE_SECONDS, ClientCore
from coordd.client.links import Links
from coordd.client.locks import LockSettings, Steps
from coordd.client.requests import AsyncRequests
from coordd.errors import CoorddError, RequestError, TransportError
from coordd.messages.client import View
from coordd.messages.query import Query
from coordd.transport.clients import Connection, Context, close_context, open_context
from coordd.transport.security import generate

__all__ = ["AsyncClient"]

T = TypeVar("T")


class _Waiting(NamedTuple):
    future: "asyncio.Future[Any]"
    ask: Ask[Any]


class AsyncClient(AsyncRequests):
    """Connects by itself, in the background, and keeps on trying; each call has its deadline.

    `servers`: (address, public key) of any of the cluster's servers, or `agent`: `ipc:///path` of this host's agent.
    Names in addresses are resolved at construction, which may block. `on_servers` is called when the known servers
    change. Raises: ConfigError if the servers are wrong.
    """

    def __init__(
        self,
        servers: Iterable[tuple[str, str]] = (),
        *,
        agent: str = "",
        token: str = "",
        timeout: float = 10.0,
        name: str = "",
        on_servers: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        self.timeout = timeout
        self._core = ClientCore(
            settings.seeds(servers, agent), settings.clock(), rng=random.SystemRandom(), token=token, name=name
        )
        self._on_servers = on_servers
        self._known: Mapping[str, str] = {}
        self._context: Context | None = None
        self._links: Links | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        self._closed = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, *, timeout: float = 10.0) -> "AsyncClient":
        """Reads COORD_AGENT (`ipc:///path`) or COORD_SERVERS (`host:port@KEY,…`), and COORD_TOKEN."""
        servers, agent, token = settings.from_environment(environ)
        return cls(servers, agent=agent, token=token, timeout=timeout)

    async def __aenter__(self) -> "AsyncClient":
        self._begin()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    @property
    def token(self) -> str:
        """Of later requests that name none; a subscription keeps the one it began with."""
        return self._core.token

    @token.setter
    def token(self, token: str) -> None:
        self._core.token = token

    @property
    def connected(self) -> frozenset[str]:
        """Addresses of the servers to which a connection is up."""
        return self._core.servers.up

    def close(self) -> None:
        """End the connections. Calls still under way end with TransportError."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for call in self._core.abandon():
            self._end(call.context, TransportError("this client was closed"))
        if self._links is not None and self._context is not None:
            self._links.close()
            close_context(self._context)

    async def ask(self, ask: Ask[T]) -> T:
        """Raises: a RequestError, or TransportError if the client was closed or the answer makes no sense."""
        loop = self._begin()
        future: asyncio.Future[T] = loop.create_future()
        timeout = (self.timeout if ask.timeout is None else ask.timeout) + ask.wait
        call = self._core.submit(
            ask.body,
            settings.clock(),
            timeout=timeout,
            patience=PATIENCE_SECONDS + ask.wait,
            numbered=ask.numbered,
            token=ask.token,
            server=ask.server,
            context=_Waiting(future, ask),
        )
        self._turn_soon()
        try:
            return await future
        except asyncio.CancelledError:
            self._core.cancel(call)
            raise

    async def follow(self, steps: Steps[T]) -> T:
        """Run a procedure of `locks`."""
        try:
            ask = next(steps)
            while True:
                try:
                    result = await self.ask(ask)
                except CoorddError as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def subscribe(self, query: Query, *, token: str | None = None) -> AsyncGenerator[View]:
        """The query's present result and then each change. Close it (`contextlib.aclosing`) to end the subscription.

        After a lost connection it begins anew with a whole view. Raises: RequestError, where the server ends it.
        """
        self._begin()
        views: asyncio.Queue[View | RequestError] = asyncio.Queue()
        subscription = self._core.subscribe(query, settings.clock(), token=token, context=views)
        self._turn_soon()
        try:
            while True:
                view = await views.get()
                if isinstance(view, RequestError):
                    raise view
                yield view
                self._core.taken(subscription, settings.clock())
                self._turn_soon()
        finally:
            self._core.unsubscribe(subscription, settings.clock())
            if not self._closed:
                self._turn_soon()

    def lock(
        self,
        name: str,
        *,
        ttl: float = 15.0,
        wait: float | None = None,
        lock_delay: float = 0.0,
        node: str = "",
        on_lost: Callable[[], None] | None = None,
    ) -> AsyncLock:
        """A lock to be held in an `async with` block. `wait`: seconds, None: for ever. See `AsyncLock`."""
        return AsyncLock(self, LockSettings(name, ttl, wait, lock_delay, node), on_lost)

    # --- on the loop -------------------------------------------------------------------------------------------------

    def _begin(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise TransportError("this client was closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._context = open_context()
            self._links = Links(self._core, self._context, generate(), self._watch, self._unwatch)
            self._turn_soon()
        return self._loop

    def _watch(self, connection: Connection) -> None:
        if self._loop is not None:
            self._loop.add_reader(connection.poll_target, self._turn)

    def _unwatch(self, connection: Connection) -> None:
        if self._loop is not None:
            self._loop.remove_reader(connection.poll_target)

    def _turn_soon(self) -> None:
        """Once for all the requests that are made in one pass of the loop."""
        if not self._soon and self._loop is not None and not self._closed:
            self._soon = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._soon = False
        if self._links is None or self._loop is None or self._closed:
            return
        more = self._links.turn(settings.clock())
        for call, result in self._core.take_completed():
            self._end(call.context, result)
        for subscription, view in self._core.take_views():
            if isinstance(subscription.context, asyncio.Queue):
                subscription.context.put_nowait(view)
        self._tell_servers()
        if more:
            self._turn_soon()
        self._set_timer(self._loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._links is not None and (deadline := self._links.next_deadline) is not None:
            self._timer = loop.call_later(max(0.0, deadline - settings.clock()), self._turn)

    def _tell_servers(self) -> None:
        known = self._core.servers.known
        if self._on_servers is not None and known != self._known:
            self._known = dict(known)
            self._on_servers(self._known)

    def _end(self, waiting: object, result: object) -> None:
        if not isinstance(waiting, _Waiting) or waiting.future.done():
            return
        if isinstance(result, CoorddError):
            waiting.future.set_exception(result)
            return
        try:
            waiting.future.set_result(waiting.ask.result(result))  # type: ignore[arg-type]
        except CoorddError as error:
            waiting.future.set_exception(error)
