"""The requests that a client offers, as methods: once for threads, once for asyncio. All meaning is in `asks`."""

from abc import ABC, abstractmethod
from typing import TypeVar

from coordd.client import asks
from coordd.client.asks import Ask
from coordd.messages.client import Body, Consistency, Info, ReadResult, ReplyBody, Servers
from coordd.messages.command import Command, DestroySession, Done, Fence, LockGrant, SessionBehavior
from coordd.messages.query import KvPair, Query
from coordd.types import Index

__all__ = ["AsyncRequests", "BlockingRequests"]

T = TypeVar("T")


class BlockingRequests(ABC):
    """Each raises a RequestError that says whether there may have been an effect."""

    @abstractmethod
    def ask(self, ask: Ask[T]) -> T: ...

    def kv_get(self, key: str, *, consistency: Consistency = "default") -> KvPair | None:
        return self.ask(asks.kv_get(key, consistency))

    def kv_list(self, prefix: str = "", *, consistency: Consistency = "default") -> tuple[KvPair, ...]:
        return self.ask(asks.kv_list(prefix, consistency))

    def kv_keys(
        self, prefix: str = "", separator: str = "", *, consistency: Consistency = "default"
    ) -> tuple[str, ...]:
        return self.ask(asks.kv_keys(prefix, separator, consistency))

    def kv_put(
        self,
        key: str,
        value: bytes,
        *,
        flags: int = 0,
        cas: Index | None = None,
        acquire: str | None = None,
        release: str | None = None,
        fence: Fence | None = None,
    ) -> Done:
        """`Done.ok` is False if `cas`, `acquire` or `release` did not hold; a fence that does not hold is a
        ConflictError."""
        return self.ask(asks.kv_put(key, value, flags=flags, cas=cas, acquire=acquire, release=release, fence=fence))

    def kv_delete(self, key: str, *, cas: Index | None = None, fence: Fence | None = None) -> Done:
        return self.ask(asks.kv_delete(key, cas=cas, fence=fence))

    def write(self, command: Command, *, numbered: bool = True, timeout: float | None = None) -> Done | LockGrant:
        """Any command. See `asks.write` for `numbered`."""
        return self.ask(asks.write(command, numbered=numbered, timeout=timeout))

    def read(
        self,
        query: Query,
        *,
        consistency: Consistency = "default",
        max_stale: float = 0.0,
        index: Index = 0,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> ReadResult:
        """With `index`, blocks until the result has changed after it, or `wait` seconds have passed."""
        return self.ask(
            asks.read(query, consistency=consistency, max_stale=max_stale, index=index, wait=wait, timeout=timeout)
        )

    def create_session(
        self,
        node: str = "",
        *,
        ttl: float = 0.0,
        lock_delay: float = 15.0,
        behavior: SessionBehavior = "release",
        name: str = "",
        checks: tuple[str, ...] = (),
    ) -> str:
        """Gives the session's id. Without a node it needs a TTL (seconds), and must be renewed."""
        return self.ask(
            asks.create_session(node, ttl=ttl, lock_delay=lock_delay, behavior=behavior, name=name, checks=checks)
        )

    def renew_session(self, session: str) -> float:
        """Gives the TTL. Raises: NotFoundError if the session is gone or expiring."""
        return self.ask(asks.renew_session(session))

    def destroy_session(self, session: str) -> None:
        self.ask(asks.write(DestroySession(session)))

    def servers(self) -> Servers:
        return self.ask(asks.servers())

    def info(self, server: str = "") -> Info:
        """Of the server with this client address, or of any."""
        return self.ask(asks.info(server))

    def request(self, body: Body, *, timeout: float | None = None, server: str = "") -> ReplyBody:
        """Any request as it stands, an operator's for example; `server`: at that client address and no other."""
        return self.ask(asks.request(body, timeout, server))


class AsyncRequests(ABC):
    """The same for asyncio; see `BlockingRequests`. A `timeout` travels with the request: it is more than a local
    limit."""

    @abstractmethod
    async def ask(self, ask: Ask[T]) -> T: ...

    async def kv_get(self, key: str, *, consistency: Consistency = "default") -> KvPair | None:
        return await self.ask(asks.kv_get(key, consistency))

    async def kv_list(self, prefix: str = "", *, consistency: Consistency = "default") -> tuple[KvPair, ...]:
        return await self.ask(asks.kv_list(prefix, consistency))

    async def kv_keys(
        self, prefix: str = "", separator: str = "", *, consistency: Consistency = "default"
    ) -> tuple[str, ...]:
        return await self.ask(asks.kv_keys(prefix, separator, consistency))

    async def kv_put(
        self,
        key: str,
        value: bytes,
        *,
        flags: int = 0,
        cas: Index | None = None,
        acquire: str | None = None,
        release: str | None = None,
        fence: Fence | None = None,
    ) -> Done:
        return await self.ask(
            asks.kv_put(key, value, flags=flags, cas=cas, acquire=acquire, release=release, fence=fence)
        )

    async def kv_delete(self, key: str, *, cas: Index | None = None, fence: Fence | None = None) -> Done:
        return await self.ask(asks.kv_delete(key, cas=cas, fence=fence))

    async def write(
        self,
        command: Command,
        *,
        numbered: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Done | LockGrant:
        return await self.ask(asks.write(command, numbered=numbered, timeout=timeout))

    async def read(
        self,
        query: Query,
        *,
        consistency: Consistency = "default",
        max_stale: float = 0.0,
        index: Index = 0,
        wait: float = 0.0,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> ReadResult:
        return await self.ask(
            asks.read(query, consistency=consistency, max_stale=max_stale, index=index, wait=wait, timeout=timeout)
        )

    async def create_session(
        self,
        node: str = "",
        *,
        ttl: float = 0.0,
        lock_delay: float = 15.0,
        behavior: SessionBehavior = "release",
        name: str = "",
        checks: tuple[str, ...] = (),
    ) -> str:
        return await self.ask(
            asks.create_session(node, ttl=ttl, lock_delay=lock_delay, behavior=behavior, name=name, checks=checks)
        )

    async def renew_session(self, session: str) -> float:
        return await self.ask(asks.renew_session(session))

    async def destroy_session(self, session: str) -> None:
        await self.ask(asks.write(DestroySession(session)))

    async def servers(self) -> Servers:
        return await self.ask(asks.servers())

    async def info(self, server: str = "") -> Info:
        return await self.ask(asks.info(server))

    async def request(
        self,
        body: Body,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        server: str = "",
    ) -> ReplyBody:
        return await self.ask(asks.request(body, timeout, server))
