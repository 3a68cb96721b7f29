"""Anti-entropy: the difference is closed by few commands, whatever the catalog says, and retried when refused."""

import asyncio
import os
import random

import pytest

from coordd.errors import DeniedError
from coordd.messages.command import CheckDefinition, CheckStatus, Deregister, Register, ServiceDefinition
from coordd.messages.local import CheckSpec
from coordd.messages.query import NodeCatalog
from coordd_agent.registry import Registry, catalog_check
from coordd_agent.settings import SyncSettings
from coordd_agent.sync import CatalogCopy, LocalNode, apart, catalog_copy, difference, take_over
from coordd_agent.syncer import Syncer
from tests.agent.fakes import FakeCluster, eventually, running

NODE = LocalNode("h1", "10.0.0.1", "id-1")
WEB = ServiceDefinition("web", "web", port=80)


def registered(*services: ServiceDefinition) -> Registry:
    registry = Registry()
    for service in services:
        registry.register(service, [CheckSpec(tcp="h:1")])
    return registry


def test_a_new_node_comes_in_one_command_with_its_services_and_checks() -> None:
    registry = registered(WEB)
    [command] = difference(NODE, registry, CatalogCopy(None, {}, {}))
    assert isinstance(command, Register)
    assert (command.node, command.address, command.node_id) == ("h1", "10.0.0.1", "id-1")
    assert [one.id for one in command.services] == ["web"]
    assert [one.id for one in command.checks] == ["service:web"]


def test_nothing_to_do_costs_nothing() -> None:
    registry = registered(WEB)
    copy = CatalogCopy(None, {}, {})
    for command in difference(NODE, registry, copy):
        take_over(copy, NODE, command)
    assert difference(NODE, registry, copy) == []


def test_new_output_alone_can_wait_but_a_status_takes_it_along() -> None:
    registry = registered(WEB)
    copy = CatalogCopy(
        NODE, {"web": WEB}, {"service:web": catalog_check("service:web", registry.checks["service:web"])}
    )
    registry.report("service:web", "critical", "refused")
    [first] = difference(NODE, registry, copy, held={"service:web"})  # until now nobody could see why
    take_over(copy, NODE, first)
    registry.report("service:web", "critical", "another text")
    assert difference(NODE, registry, copy, held={"service:web"}) == []
    assert len(difference(NODE, registry, copy)) == 1
    registry.report("service:web", "passing", "fine")
    [command] = difference(NODE, registry, copy, held={"service:web"})
    assert isinstance(command, Register)
    assert (command.checks[0].status, command.checks[0].output, command.skip_node_update) == ("passing", "fine", True)


def test_the_catalogs_own_tags_stay_if_allowed() -> None:
    ours = ServiceDefinition("web", "web", tags=("a",), enable_tag_override=True)
    theirs = ServiceDefinition("web", "web", tags=("b",), enable_tag_override=True)
    registry = Registry()
    registry.register(ours, [])
    assert difference(NODE, registry, CatalogCopy(NODE, {"web": theirs}, {})) == []


def test_the_leaders_own_check_is_left_alone() -> None:
    fake = FakeCluster()
    asyncio.run(fake.write(Register("h1", "10.0.0.1", "id-1", checks=(CheckDefinition("serfHealth", "", "passing"),))))
    assert difference(NODE, Registry(), catalog_copy(fake.entry())) == []


def test_random_catalogs_become_equal() -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    rng = random.Random(seed)
    statuses: list[CheckStatus] = ["passing", "warning", "critical"]

    def some_service() -> ServiceDefinition:
        key = f"s{rng.randrange(8)}"
        return ServiceDefinition(key, key, port=rng.randrange(3))

    for _ in range(200):
        registry = Registry()
        for _ in range(rng.randrange(90) if rng.random() < 0.1 else rng.randrange(6)):
            service = some_service()
            registry.register(service, [CheckSpec(tcp="h:1")] * rng.randrange(3))
        services = {one.id: one for one in (some_service() for _ in range(rng.randrange(6)))}
        checks = {
            key: CheckDefinition(key, "", rng.choice(statuses), service_id=owner)
            for key, owner in (
                (f"service:s{rng.randrange(8)}", rng.choice(["", *services])) for _ in range(rng.randrange(4))
            )
        }
        copy = CatalogCopy(rng.choice([None, NODE, LocalNode("h1", "other")]), services, checks)
        commands = difference(NODE, registry, copy)
        for command in commands:
            take_over(copy, NODE, command)
        assert copy.services == {key: one.definition for key, one in registry.services.items()}, f"seed {seed}"
        assert copy.checks == {k: catalog_check(k, state) for k, state in registry.checks.items()}, f"seed {seed}"
        assert copy.node == NODE, f"seed {seed}"
        assert difference(NODE, registry, copy) == [], f"seed {seed}"


def test_many_services_come_in_bounded_commands() -> None:
    registry = registered(*(ServiceDefinition(f"s{n}", "s") for n in range(200)))
    commands = difference(NODE, registry, CatalogCopy(NODE, {}, {}))
    assert all(isinstance(c, Register) and len(c.services) + len(c.checks) <= 64 for c in commands)
    assert len(commands) == 7


def test_apart_keeps_a_service_with_its_checks() -> None:
    registry = registered(WEB, ServiceDefinition("db", "db"))
    [command] = difference(NODE, registry, CatalogCopy(NODE, {}, {}))
    pieces = apart(command)
    assert [([s.id for s in p.services], [c.id for c in p.checks]) for p in pieces if isinstance(p, Register)] == [
        (["db"], ["service:db"]),
        (["web"], ["service:web"]),
    ]
    assert apart(Deregister("h1", service_id="x")) == [Deregister("h1", service_id="x")]


# --- the task ---------------------------------------------------------------------------------------------------------


def a_syncer(cluster: FakeCluster, registry: Registry, **settings: float) -> Syncer:
    syncer = Syncer(NODE, registry, cluster, SyncSettings(**settings))
    registry._on_change = lambda ids: syncer.changed()
    return syncer


@pytest.mark.asyncio
async def test_changes_are_pushed_and_folded() -> None:
    cluster, registry = FakeCluster(), Registry()
    syncer = a_syncer(cluster, registry)
    async with running() as group:
        group.create_task(syncer.run())
        registry.register(WEB, [CheckSpec(tcp="h:1")])
        pushed = await syncer.push(10)
        assert (pushed.index, pushed.problem) == (1, "")
        assert cluster.services == {"web": WEB}
        written = len(cluster.commands)
        for number in range(50):
            registry.report("service:web", "passing" if number % 2 else "critical", "")
        await syncer.push(10)
        assert len(cluster.commands) <= written + 2
        assert cluster.checks["service:web"].status == "passing"
        assert cluster.reads == 1
        assert syncer.unsynced == 0


@pytest.mark.asyncio
async def test_without_servers_it_says_so_and_comes_back() -> None:
    cluster, registry = FakeCluster(), Registry()
    cluster.down()
    syncer = a_syncer(cluster, registry)
    async with running() as group:
        group.create_task(syncer.run())
        registry.register(WEB, [])
        pushed = await syncer.push(10)
        assert pushed.index == 0
        assert pushed.problem == "no server can be reached"
        assert syncer.unsynced == -1
        cluster.up()
        await eventually(lambda: syncer.problem == "" and "web" in cluster.services)


@pytest.mark.asyncio
async def test_what_others_change_is_put_right() -> None:
    cluster, registry = FakeCluster(), registered(WEB)
    syncer = a_syncer(cluster, registry, interval_s=0.05)
    async with running() as group:
        group.create_task(syncer.run())
        await eventually(lambda: "web" in cluster.services)
        cluster.services = {"stranger": ServiceDefinition("stranger", "stranger")}
        await eventually(lambda: set(cluster.services) == {"web"})


@pytest.mark.asyncio
async def test_one_denied_service_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    cluster, registry = FakeCluster(), registered(WEB, ServiceDefinition("secret", "secret"))

    def deny(thing: object) -> DeniedError | None:
        named = isinstance(thing, Register) and any(one.id == "secret" for one in thing.services)
        return DeniedError("service:write on secret is denied") if named else None

    cluster.fault = deny
    syncer = a_syncer(cluster, registry)
    async with running() as group:
        group.create_task(syncer.run())
        pushed = await syncer.push(10)
        assert pushed.problem == "service:write on secret is denied"
        assert set(cluster.services) == {"web"}
        assert syncer.denied
        await eventually(lambda: cluster.reads >= 3)
        warned = [record for record in caplog.records if "not up to date" in record.message]
        assert len(warned) == 1
        cluster.fault = lambda thing: None
        syncer.look_again()
        await eventually(lambda: set(cluster.services) == {"web", "secret"})
        assert not syncer.denied


@pytest.mark.asyncio
async def test_reads_that_fail_are_tried_again() -> None:
    cluster, registry = FakeCluster(), registered(WEB)
    failures = iter([DeniedError("no"), None])
    cluster.fault = lambda thing: next(failures, None) if isinstance(thing, NodeCatalog) else None
    syncer = a_syncer(cluster, registry)
    async with running() as group:
        group.create_task(syncer.run())
        await eventually(lambda: "web" in cluster.services)
