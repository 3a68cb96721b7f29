"""Locks: queue, tokens, deadlines, delays, and what the end of a session does."""

import pytest

from coordd.messages.command import (
    CreateSession,
    DestroySession,
    Done,
    ExpireClients,
    ExpireSessions,
    KvPut,
    LockAcquire,
    LockCancel,
    LockGrant,
    LockRelease,
)
from coordd.messages.query import ListLocks, LockInfo, Locks, LockWaiter
from coordd.state.limits import Limits
from tests.state.world import SECOND, World

WAIT = 60_000


def lock(world: World, name: str = "l") -> LockInfo | None:
    value = world.value(ListLocks(name))
    assert isinstance(value, Locks)
    return value.locks[0] if value.locks else None


def held(world: World, name: str = "l") -> tuple[str, int]:
    found = lock(world, name)
    return (found.holder, found.token) if found is not None else ("", 0)


def tick(world: World, seconds: float) -> None:
    """Time passes, and the leader proposes something of no effect."""
    world.time += int(seconds * SECOND)
    world.done(ExpireClients(world.term, ()))


def test_first_come_first_served(world: World) -> None:
    one, two, three = (world.session(name) for name in ("s1", "s2", "s3"))
    assert world.grant(LockAcquire("l", one)) == LockGrant(4, token=4, holder=one)
    assert world.grant(LockAcquire("l", two, WAIT)) == LockGrant(5, position=1, holder=one)
    assert world.grant(LockAcquire("l", three, WAIT)) == LockGrant(6, position=2, holder=one)
    assert world.grant(LockAcquire("l", two, WAIT)) == LockGrant(7, position=1, holder=one)
    world.done(LockRelease("l", 4))
    assert held(world) == (two, 8)
    assert {("lock", "l"), ("locks",)} <= world.machine.changes
    world.done(LockRelease("l", 8))
    assert held(world) == (three, 9)
    world.done(LockRelease("l", 9))
    assert lock(world) is None
    assert world.ask(ListLocks("l")).index == 10


def test_asking_again_while_holding_changes_nothing(world: World) -> None:
    one = world.session()
    token = world.grant(LockAcquire("l", one)).token
    before = world.content()
    assert world.grant(LockAcquire("l", one, WAIT)).token == token
    assert world.content() == before


def test_not_waiting_leaves_no_trace(world: World) -> None:
    one, two = world.session("s1"), world.session("s2")
    world.grant(LockAcquire("l", one))
    before = world.content()
    assert world.grant(LockAcquire("l", two)) == LockGrant(world.index, holder=one)
    assert world.content() == before
    assert world.machine.changes == set()


def test_asking_again_without_waiting_leaves_the_queue(world: World) -> None:
    one, two = world.session("s1"), world.session("s2")
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, WAIT))
    assert world.grant(LockAcquire("l", two)).position == 0
    found = lock(world)
    assert found is not None
    assert found.waiters == ()


def test_release_needs_that_very_grant(world: World) -> None:
    one = world.session()
    token = world.grant(LockAcquire("l", one)).token
    world.refused(LockRelease("l", token + 1))
    world.refused(LockRelease("other", token))
    world.done(LockRelease("l", token))
    world.refused(LockRelease("l", token))


def test_tokens_rise_over_deletion_and_recreation(world: World) -> None:
    tokens = []
    for number in range(5):
        session = world.session(f"s{number}")
        tokens.append(world.grant(LockAcquire("l", session)).token)
        world.done(LockRelease("l", tokens[-1]))
        assert lock(world) is None
    assert tokens == sorted(set(tokens))


def test_deadline_of_a_waiter_is_replicated(world: World) -> None:
    one, two, three = (world.session(name) for name in ("s1", "s2", "s3"))
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, wait_ms=2_000))
    world.grant(LockAcquire("l", three, wait_ms=5_000))
    assert world.machine.lock_deadlines() == world.time + 2 * SECOND
    found = lock(world)
    assert found is not None
    assert found.waiters == (LockWaiter(two, world.time + 2 * SECOND), LockWaiter(three, world.time + 5 * SECOND))
    world.time += 2 * SECOND
    world.done(LockRelease("l", 4))  # at that very time the first waiter's deadline has passed
    assert held(world) == (three, world.index)
    assert world.machine.lock_deadlines() is None


def test_asking_again_moves_the_deadline(world: World) -> None:
    one, two = world.session("s1"), world.session("s2")
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, wait_ms=1_000))
    world.time += SECOND // 2
    world.grant(LockAcquire("l", two, wait_ms=1_000))
    world.time += SECOND * 3 // 4
    world.done(LockRelease("l", 3))
    assert held(world)[0] == two


def test_lock_delay_after_the_end_of_a_session(world: World) -> None:
    one, two, three = (world.session(name, lock_delay_ms=5_000) for name in ("s1", "s2", "s3"))
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, WAIT))
    world.done(DestroySession(one))
    over = world.time + 5 * SECOND
    assert lock(world) == LockInfo("l", "", 0, (LockWaiter(two, world.time + 60 * SECOND),), over)
    assert world.machine.lock_deadlines() == over
    assert world.grant(LockAcquire("l", three)) == LockGrant(world.index)
    tick(world, 4.9)
    assert held(world) == ("", 0)
    tick(world, 0.1)
    assert held(world) == (two, world.index)


def test_delayed_lock_that_nobody_wants_is_forgotten(world: World) -> None:
    world.grant(LockAcquire("l", world.session()))
    world.done(DestroySession("s1"))
    assert lock(world) is not None
    tick(world, 15)
    assert lock(world) is None
    assert world.machine.lock_deadlines() is None


def test_delay_is_at_most_a_minute(world: World) -> None:
    world.grant(LockAcquire("l", world.session(lock_delay_ms=10 * WAIT)))
    world.done(DestroySession("s1"))
    assert world.machine.lock_deadlines() == world.time + 60 * SECOND


def test_whoever_asks_at_the_end_of_the_delay_comes_after_the_queue(world: World) -> None:
    one, two, three = (world.session(name) for name in ("s1", "s2", "s3"))
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, WAIT))
    world.done(DestroySession(one))
    world.time += 15 * SECOND
    assert world.grant(LockAcquire("l", three)) == LockGrant(world.index, holder=two)
    assert held(world) == (two, world.index)


def test_end_of_a_waiting_session(world: World) -> None:
    one, two, three = (world.session(name) for name in ("s1", "s2", "s3"))
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, WAIT))
    world.grant(LockAcquire("l", three, WAIT))
    world.done(DestroySession(two))
    world.done(LockRelease("l", 4))
    assert held(world)[0] == three


def test_holder_and_first_waiter_end_in_one_entry(world: World) -> None:
    one, two, three = (world.session(name, lock_delay_ms=0) for name in ("s1", "s2", "s3"))
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, WAIT))
    world.grant(LockAcquire("l", three, WAIT))
    world.done(ExpireSessions(1, ((one, 1), (two, 2))))
    assert held(world) == (three, world.index)


def test_cancel(world: World) -> None:
    one, two, three = (world.session(name) for name in ("s1", "s2", "s3"))
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, WAIT))
    world.grant(LockAcquire("l", three, WAIT))
    world.done(LockCancel("l", two))
    world.refused(LockCancel("l", two))
    world.done(LockCancel("l", one))  # granted meanwhile: released
    assert held(world) == (three, world.index)
    world.refused(LockCancel("nothing", one))


def test_session_must_be_alive(world: World) -> None:
    assert world.failed(LockAcquire("l", "nobody")).startswith("invalid session")
    world.failed(LockAcquire("l", world.session(), wait_ms=-1))


def test_a_session_with_the_same_name_is_another(world: World) -> None:
    one = world.session("s1", lock_delay_ms=0)
    first = world.grant(LockAcquire("l", one)).token
    world.done(DestroySession(one))
    world.done(CreateSession("s1", "", ttl_ms=2_000, node_checks=()))
    world.refused(LockRelease("l", first))
    assert world.grant(LockAcquire("l", one)).token > first


def test_queue_and_locks_of_a_session_are_bounded() -> None:
    world = World(limits=Limits(waiters_for_one_lock=2, held_by_one_session=2))
    for number in range(4):
        world.session(f"s{number}")
    world.grant(LockAcquire("l", "s0"))
    world.grant(LockAcquire("l", "s1", WAIT))
    world.grant(LockAcquire("l", "s2", WAIT))
    world.failed(LockAcquire("l", "s3", WAIT), "busy")
    world.grant(LockAcquire("m", "s1"))
    world.failed(LockAcquire("n", "s1"), "busy")
    assert world.grant(LockAcquire("l", "s1", WAIT)).position == 1
    assert world.machine.verify()
    world.close()


def test_waiters_whose_deadline_has_passed_leave_a_few_at_a_time_and_are_granted_nothing() -> None:
    world = World(limits=Limits(rows_for_one_command=1))
    one, two, three, four = (world.session(f"s{number}") for number in range(4))
    world.grant(LockAcquire("l", one))
    for waiter in (two, three, four):
        world.grant(LockAcquire("l", waiter, wait_ms=1_000))
    world.time += 2 * SECOND
    world.done(LockRelease("l", 5))
    assert held(world) == ("", 0), "two deadlines are yet to be noted, and have passed all the same"
    tick(world, 0)
    assert lock(world) is not None
    tick(world, 0)
    assert lock(world) is None
    assert world.machine.verify()
    world.close()


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb"])
def test_impossible_names(world: World, name: str) -> None:
    world.failed(LockAcquire(name, world.session()))


def test_any_command_acts_on_what_is_due(world: World) -> None:
    one, two = world.session("s1"), world.session("s2")
    world.grant(LockAcquire("l", one))
    world.grant(LockAcquire("l", two, WAIT))
    world.done(DestroySession(one))
    world.time += 15 * SECOND
    assert world.run(KvPut("k", b"")) == Done(world.index, version=1)
    assert held(world) == (two, world.index)
    assert ("lock", "l") in world.machine.changes
