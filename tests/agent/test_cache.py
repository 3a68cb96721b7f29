"""Views: kept up to date, kept when the servers are away, and given up in the right order."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from coordd.errors import DeniedError, NoLeaderError
from coordd.messages.command import ServiceDefinition
from coordd.messages.query import Health, Query, ServiceHealth
from coordd_agent.cache import Cache
from coordd_agent.settings import CacheSettings
from tests.agent.dns.catalog import HandmadeCatalog, node
from tests.agent.fakes import FakeCluster, eventually, running

WEB, DB = ServiceHealth("web"), ServiceHealth("db")


def health(name: str, address: str = "10.0.0.1") -> Health:
    catalog = HandmadeCatalog()
    catalog.add(node("h1", address), ServiceDefinition(name, name), "passing")
    value = catalog.peek(ServiceHealth(name))
    assert isinstance(value, Health)
    return value


@contextlib.asynccontextmanager
async def caching(cluster: FakeCluster, **settings: int) -> AsyncIterator[tuple[Cache, list[Query]]]:
    changed: list[Query] = []
    async with running() as group:
        yield Cache(cluster, CacheSettings(**settings), group.create_task, on_change=changed.append), changed


@pytest.mark.asyncio
async def test_a_view_comes_and_follows() -> None:
    cluster = FakeCluster()
    async with caching(cluster) as (cache, changed):
        assert cache.peek(WEB) is None
        cluster.values[WEB] = health("web")
        await cache.wait_for([WEB])
        assert cache.peek(WEB) == health("web")
        cluster.push(WEB, health("web", "10.0.0.2"))
        await eventually(lambda: cache.peek(WEB) == health("web", "10.0.0.2"))
        assert changed == [WEB, WEB]
        cluster.push(WEB, health("web", "10.0.0.2"))
        await eventually(lambda: cluster.watchers[WEB][0].empty())
        assert changed == [WEB, WEB], "an equal view changes nothing"
        assert list(cache.known_services()) == [WEB]


@pytest.mark.asyncio
async def test_views_stay_while_the_servers_are_away_and_follow_again() -> None:
    cluster = FakeCluster()
    cluster.values[WEB] = health("web")
    async with caching(cluster, idle_s=1) as (cache, _):
        await cache.wait_for([WEB])
        cluster.down()
        cluster.break_off(NoLeaderError("gone"))
        await eventually(lambda: not cluster.watched())
        await asyncio.sleep(1.1)
        cache.sweep(())
        assert cache.peek(WEB) == health("web")
        assert cache.ages()[WEB] >= 1
        cluster.up()
        cluster.values[WEB] = health("web", "10.0.0.3")
        await eventually(lambda: cache.peek(WEB) == health("web", "10.0.0.3"))
        assert cache.ages()[WEB] < 1


@pytest.mark.asyncio
async def test_too_old_a_view_is_not_answered_from_if_so_set() -> None:
    cluster = FakeCluster()
    cluster.values[WEB] = health("web")
    async with caching(cluster, max_stale_ms=100) as (cache, _):
        await cache.wait_for([WEB])
        assert cache.peek(WEB) is not None
        await eventually(lambda: cache.peek(WEB) is None)
        cache.contact(time.monotonic())
        assert cache.peek(WEB) is not None


@pytest.mark.asyncio
async def test_names_that_do_not_exist_cannot_push_out_those_that_do() -> None:
    cluster = FakeCluster()
    cluster.values[WEB] = health("web")
    async with caching(cluster, max_absent=10, max_entries=5) as (cache, _):
        await cache.wait_for([WEB])
        for number in range(200):
            query = ServiceHealth(f"x{number}")
            cluster.values[query] = Health(())
            await cache.wait_for([query])
        assert cache.peek(WEB) is not None
        assert len(cache) <= 11
        await eventually(lambda: len(cluster.watched()) <= 11)


@pytest.mark.asyncio
async def test_the_least_recently_used_goes_first() -> None:
    cluster = FakeCluster()
    queries = [ServiceHealth(f"s{number}") for number in range(4)]
    async with caching(cluster, max_entries=3) as (cache, changed):
        for query in queries[:3]:
            cluster.values[query] = health(query.service)
            await cache.wait_for([query])
        cache.peek(queries[0])
        cluster.values[queries[3]] = health("s3")
        await cache.wait_for([queries[3]])
        assert [cache.peek(query) is not None for query in queries] == [True, False, True, True]
        assert changed[-1] == queries[1]
        await eventually(lambda: queries[1] not in cluster.watched())


@pytest.mark.asyncio
async def test_bytes_are_bounded() -> None:
    cluster = FakeCluster()
    async with caching(cluster, max_bytes=64 * 1024) as (cache, _):
        for number in range(1_000):
            query = ServiceHealth(f"s{number}")
            cluster.values[query] = health(query.service)
            await cache.wait_for([query])
        assert 0 < cache.bytes <= 64 * 1024
        assert 10 < len(cache) < 1_000


@pytest.mark.asyncio
async def test_what_nobody_asks_for_ends_but_not_what_was_answered_elsewhere() -> None:
    cluster = FakeCluster()
    cluster.values |= {WEB: health("web"), DB: health("db")}
    async with caching(cluster, idle_s=1) as (cache, changed):
        await cache.wait_for([WEB, DB])
        await asyncio.sleep(1.1)
        cache.sweep({WEB})
        assert cache.peek(DB) is None
        assert cache.peek(WEB) is not None
        assert changed[-1] == DB
        await eventually(lambda: cluster.watched() == {WEB})


@pytest.mark.asyncio
async def test_a_denied_subscription_keeps_the_view_and_does_not_hold_up_who_waits() -> None:
    cluster = FakeCluster()
    cluster.values[WEB] = health("web")
    async with caching(cluster) as (cache, _):
        await cache.wait_for([WEB])
        cluster.fault = lambda thing: DeniedError("no")
        cluster.break_off(DeniedError("no"))
        async with asyncio.timeout(5):
            await cache.wait_for([DB])
        assert cache.denied
        assert cache.peek(DB) is None
        assert cache.peek(WEB) is not None


@pytest.mark.asyncio
@pytest.mark.parametrize("trusted", [False, True])
async def test_what_is_hidden_for_want_of_a_token_stays(trusted: bool) -> None:
    cluster = FakeCluster()
    cluster.values[WEB] = health("web")
    async with running() as group:
        cache = Cache(cluster, CacheSettings(), group.create_task, trusted=lambda: trusted)
        await cache.wait_for([WEB])
        cluster.filtered = True
        cluster.push(WEB, Health(()))
        await eventually(lambda: cache.denied != trusted and cluster.watchers[WEB][0].empty())
        assert cache.peek(WEB) == (Health(()) if trusted else health("web"))


@pytest.mark.asyncio
async def test_a_new_token_subscribes_anew_and_keeps_the_views() -> None:
    cluster = FakeCluster()
    cluster.values[WEB] = health("web")
    async with caching(cluster) as (cache, _):
        await cache.wait_for([WEB])
        before = cluster.watchers[WEB][0]
        cache.renew()
        assert cache.peek(WEB) is not None
        await eventually(lambda: cluster.watchers[WEB] != [] and cluster.watchers[WEB][0] is not before)
