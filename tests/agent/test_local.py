"""The socket for local programs, spoken to with the client library: answered here, relayed, bounded."""

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from coordd.client import Ask, asks
from coordd.client.aio import AsyncClient
from coordd.errors import ConflictError, DeniedError, InUseError, NoLeaderError
from coordd.messages.client import (
    Body,
    Info,
    InfoRequest,
    Keepalive,
    Ok,
    Read,
    ReadResult,
    ReplyBody,
    ServerInfo,
    Servers,
    ServersRequest,
)
from coordd.messages.local import DeregisterService, ListLocalServices, LocalBody
from coordd.messages.query import Health, KvGet, KvPairs, ServiceHealth
from coordd.types import make_server_id
from coordd_agent.local import LocalSocket
from coordd_agent.relay import Relay
from tests.agent.fakes import FakeCluster, eventually, running
from tests.agent.test_cache import health

WEB = ServiceHealth("web")


class Own:
    """Stands for the agent."""

    def __init__(self) -> None:
        self.bodies: list[tuple[LocalBody, float]] = []

    def info(self) -> Info:
        return Info({"kind": "agent"})

    async def answer(self, body: LocalBody, budget_s: float) -> ReplyBody:
        self.bodies.append((body, budget_s))
        if isinstance(body, DeregisterService):
            raise ConflictError("it is in a file")
        return Ok(7)


@contextlib.asynccontextmanager
async def local_socket(folder: Path, cluster: FakeCluster) -> AsyncIterator[tuple[Own, Relay, AsyncClient]]:
    own = Own()
    with contextlib.ExitStack() as after:
        async with running() as group:
            relay = Relay(cluster, group.create_task)
            local = LocalSocket(folder / "agent.sock", own, relay, group.create_task)
            after.callback(local.close)
            group.create_task(local.run())
            async with AsyncClient(agent=f"ipc://{folder / 'agent.sock'}", token="secret", timeout=10) as client:
                yield own, relay, client


def local(body: LocalBody) -> Ask[ReplyBody]:
    return asks.request(cast(Body, body))


@pytest.mark.asyncio
async def test_own_requests_are_answered_here(tmp_path: Path) -> None:
    cluster = FakeCluster()
    async with local_socket(tmp_path, cluster) as (own, _, client):
        assert await client.ask(local(ListLocalServices())) == Ok(7)
        assert await client.request(InfoRequest()) == Info({"kind": "agent"})
        with pytest.raises(ConflictError, match="it is in a file"):
            await client.ask(local(DeregisterService("web")))
        assert 5 < own.bodies[0][1] <= 10
        assert stat.S_IMODE((tmp_path / "agent.sock").stat().st_mode) == 0o600
    assert not (tmp_path / "agent.sock").exists()


@pytest.mark.asyncio
async def test_others_are_passed_on_with_token_and_time(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.reply = ReadResult(3, KvPairs(()))
    async with local_socket(tmp_path, cluster) as (_, _, client):
        assert await client.request(Read(KvGet("k")), timeout=2) == ReadResult(3, KvPairs(()))
        token, budget = cluster.asked_with[-1]
        assert token == "secret"
        assert budget is not None
        assert 1 < budget <= 1.8  # less than the program's own, so that it hears why there was no answer


@pytest.mark.asyncio
async def test_errors_come_back_as_they_are(tmp_path: Path) -> None:
    cluster = FakeCluster()
    async with local_socket(tmp_path, cluster) as (_, _, client):
        cluster.fault = lambda thing: DeniedError("key:read is needed")
        with pytest.raises(DeniedError, match="key:read is needed"):
            await client.request(Read(KvGet("k")))
        cluster.down()
        with pytest.raises(NoLeaderError):
            await client.request(Read(KvGet("k")), timeout=0.5)


@pytest.mark.asyncio
async def test_a_client_that_hears_of_servers_stays_with_its_agent(tmp_path: Path) -> None:
    cluster = FakeCluster()
    server = ServerInfo(make_server_id("s1", "0" * 32), "127.0.0.1:1", "127.0.0.1:2", "k" * 40, True, True)
    cluster.reply = Servers("id", "c", (server,), 5)
    async with local_socket(tmp_path, cluster) as (_, _, client):
        assert await client.request(ServersRequest()) == cluster.reply
        for _ in range(20):
            assert await client.ask(local(ListLocalServices())) == Ok(7)


@pytest.mark.asyncio
async def test_subscriptions_are_relayed_in_order_with_their_own_credits(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.values[WEB] = health("web", "10.0.0.1")
    async with local_socket(tmp_path, cluster) as (_, relay, client):
        views = client.subscribe(WEB)
        assert (await anext(views)).value == health("web", "10.0.0.1")
        # Nobody reads: what comes beyond the credit is folded into the newest view.
        for number in range(2, 100):
            cluster.push(WEB, health("web", f"10.0.0.{number}"))
        await eventually(lambda: cluster.watchers[WEB][0].empty())
        seen: list[object] = []
        async with asyncio.timeout(10):
            while not seen or seen[-1] != health("web", "10.0.0.99"):
                seen.append((await anext(views)).value)
        assert len(seen) < 30
        assert all(isinstance(value, Health) for value in seen)
        await views.aclose()
        await eventually(lambda: not cluster.watched())
        assert not relay._subscriptions


@pytest.mark.asyncio
async def test_subscriptions_of_silent_programs_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    async with local_socket(tmp_path, cluster) as (_, relay, client):
        views = client.subscribe(WEB)
        waiting = asyncio.ensure_future(anext(views))
        await eventually(lambda: bool(relay._subscriptions))
        await client.request(Keepalive())
        relay.sweep()
        assert relay._subscriptions
        monkeypatch.setattr("coordd_agent.relay.SILENCE_S", -1.0)
        relay.sweep()
        assert not relay._subscriptions
        await eventually(lambda: not cluster.watched())
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting


@pytest.mark.asyncio
async def test_many_requests_at_once(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.reply = ReadResult(3, KvPairs(()))
    async with local_socket(tmp_path, cluster) as (_, _, client):
        replies = await asyncio.gather(*(client.request(Read(KvGet(f"k{n}"))) for n in range(500)))
        assert replies == [cluster.reply] * 500


@pytest.mark.asyncio
async def test_the_socket_of_a_running_agent_is_in_use(tmp_path: Path) -> None:
    async with local_socket(tmp_path, FakeCluster()), running() as group:
        with pytest.raises(InUseError, match="in use"):
            LocalSocket(tmp_path / "agent.sock", Own(), Relay(FakeCluster(), group.create_task), group.create_task)
