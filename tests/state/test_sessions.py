"""Sessions: what they need to be created, what ends them, what the leader's timers see."""

import pytest

from coordd.messages.command import (
    CheckDefinition,
    CreateSession,
    Deregister,
    DestroySession,
    ExpireSessions,
    KvPut,
    NodeStatus,
    Register,
    ServiceDefinition,
    SetNodeStatus,
)
from coordd.messages.query import KvGet, KvPairs, ListSessions, SessionInfo, Sessions
from coordd.state.limits import Limits
from coordd.state.sessions import SessionAlive
from tests.state.world import World


def ids(world: World, query: ListSessions | None = None) -> list[str]:
    value = world.value(query or ListSessions())
    assert isinstance(value, Sessions)
    return [session.id for session in value.sessions]


def test_create_and_list(world: World) -> None:
    world.node()
    world.done(CreateSession("s2", "n1", "web", ttl_ms=10_000, lock_delay_ms=1, behavior="delete"))
    world.session("s1")
    assert ids(world) == ["s1", "s2"]
    assert ids(world, ListSessions(node="N1")) == ["s2"]
    assert world.value(ListSessions(id="s2")) == Sessions(
        (SessionInfo("s2", "web", "n1", 10_000, 1, "delete", ("serfHealth",), (), 3, 3),)
    )
    assert world.machine.sessions_alive() == [SessionAlive("s1", 4, 10_000), SessionAlive("s2", 3, 10_000)]
    assert world.ask(ListSessions(id="s2")).index == 3


def test_sessions_without_ttl_have_no_timer(world: World) -> None:
    world.node()
    world.done(CreateSession("s1", "n1"))
    assert world.machine.sessions_alive() == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (CreateSession("", "n1"), "missing session id"),
        (CreateSession("a b", "n1"), "letters"),
        (CreateSession("s", "n2"), "missing node registration"),
        (CreateSession("s", "n1", node_checks=("nope",)), "missing check"),
        (CreateSession("s", "n1", service_checks=("nope",)), "missing check"),
        (CreateSession("s", "n1", node_checks=("bad",)), "critical"),
        (CreateSession("s", "n1", ttl_ms=999), "TTL"),
        (CreateSession("s", "n1", ttl_ms=-1), "TTL"),
        (CreateSession("s", "n1", ttl_ms=24 * 3600 * 1000 + 1), "TTL"),
        (CreateSession("s", "n1", lock_delay_ms=1 << 60), "lock delay"),
        (CreateSession("s", "", node_checks=()), "needs a TTL"),
        (CreateSession("s", "", ttl_ms=2_000), "can't have checks"),
        (CreateSession("s", "n1", node_checks=("x",) * 65), "at most"),
    ],
)
def test_what_can_not_be_created(world: World, command: CreateSession, reason: str) -> None:
    world.node()
    world.done(Register("n1", "10.0.0.1", checks=(CheckDefinition("bad", "bad", "critical"),)))
    assert reason in world.failed(command)


def test_an_id_is_used_once(world: World) -> None:
    world.session("s1")
    world.failed(CreateSession("s1", "", ttl_ms=2_000, node_checks=()), "conflict")


def test_destroy_is_done_either_way(world: World) -> None:
    world.session("s1")
    world.done(DestroySession("s1"))
    assert {("session", "s1"), ("sessions",)} <= world.machine.changes
    world.done(DestroySession("s1"))
    assert world.machine.changes == set()


def test_expire_names_a_life_and_a_term(world: World) -> None:
    world.session("s1")
    world.refused(ExpireSessions(2, (("s1", 1),)))
    world.done(ExpireSessions(1, (("s1", 9), ("nobody", 1))))
    assert ids(world) == ["s1"]
    world.done(ExpireSessions(1, (("s1", 1),)))
    assert ids(world) == []


def test_sessions_in_one_command_and_at_all_are_bounded() -> None:
    world = World(limits=Limits(rows_for_one_command=2, sessions=2))
    world.session("s1")
    world.session("s2")
    world.failed(CreateSession("s3", "", ttl_ms=2_000, node_checks=()), "busy")
    world.failed(ExpireSessions(1, (("s1", 1), ("s2", 2), ("s3", 3))))
    assert ids(world) == ["s1", "s2"]
    world.done(ExpireSessions(1, (("s1", 1),)))
    world.session("s3")
    assert ids(world) == ["s2", "s3"]
    world.close()


def bound(world: World) -> None:
    """s1 hangs on serfHealth, s2 on a service's check, s3 on nothing but the node."""
    world.node()
    web = ServiceDefinition("web1", "web")
    checks = (CheckDefinition("alive", "alive", "warning", "web1"), CheckDefinition("disk", "disk", "passing"))
    world.done(Register("n1", "10.0.0.1", services=(web,), checks=checks))
    world.done(CreateSession("s1", "n1"))
    world.done(CreateSession("s2", "n1", node_checks=(), service_checks=("alive",)))
    world.done(CreateSession("s3", "n1", node_checks=()))
    world.done(KvPut("k", b"", acquire="s1"))


@pytest.mark.parametrize(
    ("command", "left"),
    [
        (SetNodeStatus(1, (NodeStatus("n1", "critical"),)), ["s2", "s3"]),
        (SetNodeStatus(1, (NodeStatus("n1", "warning"),)), ["s1", "s2", "s3"]),
        (Register("n1", "10.0.0.1", checks=(CheckDefinition("alive", "", "critical", "web1"),)), ["s1", "s3"]),
        (Register("n1", "10.0.0.1", checks=(CheckDefinition("disk", "", "critical"),)), ["s1", "s2", "s3"]),
        (Deregister("n1", check_id="alive"), ["s1", "s3"]),
        (Deregister("n1", service_id="web1"), ["s1", "s3"]),
        (Deregister("n1"), []),
    ],
)
def test_what_ends_a_session(world: World, command: SetNodeStatus | Register | Deregister, left: list[str]) -> None:
    bound(world)
    world.done(command)
    assert ids(world) == left
    value = world.value(KvGet("k"))
    assert isinstance(value, KvPairs)
    assert value.pairs[0].session == ("s1" if "s1" in left else "")
