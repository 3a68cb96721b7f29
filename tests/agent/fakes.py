"""A cluster made by hand: one catalog in memory, views pushed at once, and every failure on demand."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from coordd.client import Ask
from coordd.errors import CoorddError, NoLeaderError
from coordd.messages.client import AgentBeat, BeatTaken, Body, Read, ReadResult, ReplyBody, View
from coordd.messages.command import CheckDefinition, Command, Deregister, Done, Register, ServiceDefinition
from coordd.messages.query import (
    Catalog,
    CatalogEntry,
    CheckInfo,
    Health,
    NodeCatalog,
    NodeInfo,
    Query,
    QueryResult,
    ResolveToken,
    ServiceInfo,
    TokenRules,
)

__all__ = ["FakeCluster", "eventually"]


async def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until `condition` holds. Raises: AssertionError."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "condition did not come to hold in time"
        await asyncio.sleep(0.005)


class FakeCluster:
    """Speaks like `AsyncClient`. `fault(command or query)` may give an error to raise instead."""

    def __init__(self) -> None:
        self.token = ""
        self.connected = frozenset({"127.0.0.1:1"})
        self.commands: list[Command] = []
        self.reads = 0
        self.asked: list[Body] = []
        self.asked_with: list[tuple[str, float | None]] = []
        self.services: dict[str, ServiceDefinition] = {}
        self.checks: dict[str, CheckDefinition] = {}
        self.node: NodeInfo | None = None
        self.fault: Callable[[object], CoorddError | None] = lambda thing: None
        self.values: dict[Query, QueryResult] = {}
        self.watchers: dict[Query, list[asyncio.Queue[View | CoorddError]]] = {}
        self.reply: ReplyBody | None = None
        self.filtered = False
        """Views leave something out."""
        self.rules: TokenRules | None = None
        self._index = 0

    def down(self) -> None:
        self.connected = frozenset()
        self.fault = lambda thing: NoLeaderError("no server can be reached")

    def up(self) -> None:
        self.connected = frozenset({"127.0.0.1:1"})
        self.fault = lambda thing: None

    def _may(self, thing: object) -> None:
        if error := self.fault(thing):
            raise error

    async def write(self, command: Command, *, numbered: bool = True, timeout: float | None = None) -> Done:  # noqa: ASYNC109
        await asyncio.sleep(0)
        self._may(command)
        self.commands.append(command)
        self._index += 1
        if isinstance(command, Register):
            if self.node is None or not command.skip_node_update:
                ids = (command.node, command.address, command.node_id)
                self.node = NodeInfo(*ids, command.meta, command.tagged_addresses, 1, 1)
            self.services |= {one.id: one for one in command.services}
            self.checks |= {one.id: one for one in command.checks}
        elif isinstance(command, Deregister):
            if command.check_id:
                self.checks.pop(command.check_id, None)
            else:
                self.services.pop(command.service_id, None)
                self.checks = {k: c for k, c in self.checks.items() if c.service_id != command.service_id}
        return Done(self._index)

    async def read(self, query: Query) -> ReadResult:
        await asyncio.sleep(0)
        self._may(query)
        self.reads += 1
        if isinstance(query, ResolveToken):
            assert self.rules is not None
            return ReadResult(1, self.rules)
        assert isinstance(query, NodeCatalog)
        return ReadResult(1, Catalog((self.entry(),) if self.node else ()))

    def entry(self) -> CatalogEntry:
        assert self.node is not None
        name = self.node.node
        services = tuple(ServiceInfo(name, one, 1, 1) for one in self.services.values())
        return CatalogEntry(self.node, services, tuple(CheckInfo(name, c, "", (), 1, 1) for c in self.checks.values()))

    async def request(self, body: Body, *, timeout: float | None = None) -> ReplyBody:  # noqa: ASYNC109
        await asyncio.sleep(0)
        self._may(body)
        self.asked.append(body)
        if isinstance(body, AgentBeat):
            return BeatTaken(100)
        assert self.reply is not None
        return self.reply

    async def ask(self, ask: Ask[ReplyBody]) -> ReplyBody:
        self.asked_with.append((ask.token or "", ask.timeout))
        if isinstance(ask.body, Read) and ask.body.wait_ms:
            await asyncio.sleep(3600)
        return await self.request(ask.body)

    # --- views ----------------------------------------------------------------------------------------------------

    async def subscribe(self, query: Query, *, token: str | None = None) -> AsyncGenerator[View]:
        self._may(query)
        queue: asyncio.Queue[View | CoorddError] = asyncio.Queue()
        self.watchers.setdefault(query, []).append(queue)
        try:
            if query in self.values:
                yield self._view(query)
            while True:
                view = await queue.get()
                if isinstance(view, CoorddError):
                    raise view
                yield view
        finally:
            self.watchers[query].remove(queue)

    def push(self, query: Query, value: QueryResult) -> None:
        self.values[query] = value
        for queue in self.watchers.get(query, ()):
            queue.put_nowait(self._view(query))

    def break_off(self, error: CoorddError) -> None:
        for queues in self.watchers.values():
            for queue in queues:
                queue.put_nowait(error)

    def watched(self) -> set[Query]:
        return {query for query, queues in self.watchers.items() if queues}

    def _view(self, query: Query) -> View:
        self._index += 1
        return View(1, self._index, 0, self.values.get(query, Health(())), self.filtered)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose tasks end with the block."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
            raise _EndError
    except* _EndError:
        pass


class _EndError(Exception):
    """The block is over."""
