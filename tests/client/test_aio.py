"""The asyncio client against scripted servers over real sockets, on asyncio's loop and on uvloop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

import pytest
import uvloop

from coordd.client.aio import AsyncClient
from coordd.client.asks import read, relay
from coordd.errors import DeniedError, TimedOutError, TransportError
from coordd.messages.client import Error, Read, ReadResult, ReplyBody, Request, Subscribe, View, Write
from coordd.messages.command import KvPut, encode
from coordd.messages.query import KvGet, KvPairs
from tests.client.fake_server import Machine, fake_server, listing
from tests.client.support import until


def run(work: Callable[[], Awaitable[None]], uv: bool) -> None:
    async def main() -> None:
        await work()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uv else None) as runner:
        runner.run(asyncio.wait_for(main(), 60))


both_loops = pytest.mark.parametrize("uv", [False, True])


@both_loops
def test_many_writes_at_a_time(uv: bool) -> None:
    machine = Machine()

    async def work() -> None:
        async with AsyncClient([server.target]) as client:
            results = await asyncio.gather(*(client.kv_put(str(n), b"v") for n in range(2000)))
            assert len({each.index for each in results}) == 2000
            assert client.connected == {server.address}

    with fake_server(machine.write) as server:
        run(work, uv)
    assert len(machine.applied) == 2000


@both_loops
def test_bursts_and_pauses_lose_no_wake_up(uv: bool) -> None:
    """An edge swallowed by a send would leave an answer unread, until the request is made again."""
    sizes = [1, 2, 1, 50, 1, 300] * 20

    async def work() -> None:
        async with AsyncClient([server.target], timeout=5) as client:
            for size in sizes:
                await asyncio.gather(*(client.kv_get(str(n)) for n in range(size)))
                await asyncio.sleep(0)

    with fake_server(lambda request: ReadResult(1, KvPairs(()))) as server:
        run(work, uv)
        assert len(server.seen) == sum(sizes)


@both_loops
def test_views_as_an_iterator(uv: bool) -> None:
    async def work() -> None:
        async with AsyncClient([server.target]) as client:
            async with contextlib.aclosing(client.subscribe(KvGet("k"))) as views:
                got = [(await anext(views)).index for _ in range(3)]
            assert got == [1, 2, 3]
            server.answer = lambda request: Error("denied", "no")
            with pytest.raises(DeniedError):
                async for _ in client.subscribe(KvGet("k")):
                    pass

    def answer(request: Request) -> list[ReplyBody]:
        if isinstance(request.body, Subscribe):
            number = request.body.subscription
            return [View(number, index, index - 1, KvPairs(())) for index in (1, 2, 3)]
        return []

    with fake_server(answer) as server:
        run(work, uv)


def test_deadlines_cancellation_and_closing() -> None:
    async def work() -> None:
        client = AsyncClient([server.target], timeout=0.3)
        with pytest.raises(TimedOutError):
            await client.kv_get("k")
        cancelled = asyncio.get_running_loop().create_task(client.read(KvGet("k"), timeout=60))
        closed = asyncio.get_running_loop().create_task(client.read(KvGet("k"), timeout=60))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        client.close()
        with pytest.raises(TransportError, match="closed"):
            await closed
        with pytest.raises(TransportError, match="closed"):
            await client.kv_get("k")

    with fake_server(lambda request: None) as server:
        run(work, False)


def test_a_blocking_read_may_take_its_time() -> None:
    """It is not asked again while it rightly waits."""

    async def work() -> None:
        async with AsyncClient([server.target], timeout=0.4) as client:
            blocked = asyncio.get_running_loop().create_task(client.read(KvGet("k"), index=7, wait=1.5))
            await asyncio.sleep(1.3)
            assert not blocked.done()
            server.push(server.seen[0].id, ReadResult(8, KvPairs(())))
            assert (await blocked).index == 8
            assert len(server.seen) == 1
            assert 1_500 < server.seen[0].budget_ms <= 1_900

    with fake_server(lambda request: None) as server:
        run(work, False)


def test_known_servers_are_told() -> None:
    told: list[Mapping[str, str]] = []

    async def work() -> None:
        async with AsyncClient([server.target], on_servers=told.append) as client:
            await client.kv_get("k")
            await until(lambda: bool(told) and len(told[-1]) == 2)

    with fake_server(lambda request: ReadResult(1, KvPairs(()))) as server, fake_server(lambda request: None) as other:
        server.list = listing(server, other)
        run(work, False)
    assert told[-1] == {server.address: server.pair.public, other.address: other.pair.public}


def test_passing_on_uses_the_callers_token_and_what_is_left_of_its_time() -> None:
    import msgspec

    async def work() -> None:
        async with AsyncClient([server.target], token="own") as client:
            body = Write(msgspec.Raw(encode(KvPut("k", b"v"))), 5, 6, 4)
            await client.ask(relay(body, "theirs", 2.0))
            await client.ask(read(KvGet("k")))

    machine = Machine()
    with fake_server(lambda r: ReadResult(1, KvPairs(())) if isinstance(r.body, Read) else machine.write(r)) as server:
        run(work, False)
        passed, own = server.seen
        assert (passed.token, own.token) == ("theirs", "own")
        assert 0 < passed.budget_ms <= 2_000
        assert isinstance(passed.body, Write)
        assert (passed.body.client, passed.body.number, passed.body.lowest) == (5, 6, 4)
