"""Keys and values: conditions, session locks, counting, tombstones."""

import pytest

from coordd.errors import InvalidError
from coordd.messages.command import (
    DestroySession,
    Done,
    Fence,
    KvDelete,
    KvDeleteTree,
    KvPut,
    LockAcquire,
    LockRelease,
    RegisterClient,
)
from coordd.messages.query import Keys, KvGet, KvList, KvPair, KvPairs
from coordd.state.limits import Limits
from tests.state.world import SECOND, World, entry


def pair(world: World, key: str) -> KvPair | None:
    value = world.value(KvGet(key))
    assert isinstance(value, KvPairs)
    return value.pairs[0] if value.pairs else None


def present(world: World, key: str) -> KvPair:
    found = pair(world, key)
    assert found is not None
    return found


def test_put_creates_and_changes(world: World) -> None:
    assert world.run(KvPut("a", b"1", flags=7)) == Done(1, version=1)
    assert present(world, "a") == KvPair("a", b"1", 7, create_index=1, modify_index=1, lock_index=0, version=1)
    assert world.run(KvPut("a", b"2")) == Done(2, version=2)
    assert present(world, "a") == KvPair("a", b"2", 0, create_index=1, modify_index=2, lock_index=0, version=2)


def test_identical_put_counts_but_wakes_nobody(world: World) -> None:
    world.done(KvPut("a", b"1"))
    assert world.run(KvPut("a", b"1")) == Done(2, version=2)
    assert world.machine.changes == set()
    assert present(world, "a").modify_index == 1
    world.done(KvPut("a", b"1", flags=1))
    assert present(world, "a").modify_index == 3


@pytest.mark.parametrize("flags", [0, 0x2DDCCBC058A50C18, 0xE0F69A2BAA414DE0, (1 << 64) - 1])
def test_flags_keep_all_64_bits(world: World, flags: int) -> None:
    world.done(KvPut("a", b"", flags=flags))
    assert present(world, "a").flags == flags


def test_cas(world: World) -> None:
    world.refused(KvPut("a", b"1", cas=5))
    created = world.done(KvPut("a", b"1", cas=0))
    world.refused(KvPut("a", b"2", cas=0))
    world.refused(KvPut("a", b"2", cas=created.index + 1))
    world.done(KvPut("a", b"2", cas=created.index))
    assert present(world, "a").value == b"2"


def test_delete_and_its_condition(world: World) -> None:
    world.done(KvDelete("a"))
    world.done(KvDelete("a", cas=99))  # Consul: true on a missing key, whatever the index
    created = world.done(KvPut("a", b"1"))
    world.refused(KvDelete("a", cas=created.index + 1))
    world.done(KvDelete("a", cas=created.index))
    assert pair(world, "a") is None


def test_index_of_a_key_never_goes_back(world: World) -> None:
    assert world.ask(KvGet("a")).index == 1
    world.done(KvPut("a", b"1"))
    world.done(KvPut("b", b"1"))
    world.done(KvDelete("a"))
    assert world.ask(KvGet("a")).index == 3
    assert world.ask(KvList("")).index == 3
    world.done(KvPut("a", b"1"))
    assert world.ask(KvGet("a")).index == 4
    assert present(world, "a").version == 1
    assert world.ask(KvGet("b")).index == 2
    assert world.ask(KvGet("never")).index == 1


def test_delete_tree(world: World) -> None:
    for key in ("app/a", "app/b/c", "app", "apq", "b"):
        world.done(KvPut(key, b""))
    world.done(KvDeleteTree("app/"))
    assert world.machine.changes == {("kv", "app/a"), ("kv", "app/b/c")}
    assert world.value(KvList("", keys_only=True)) == Keys(("app", "apq", "b"))
    assert world.ask(KvList("app/")).index == world.index
    assert world.ask(KvList("b")).index == 5
    world.done(KvDeleteTree(""))
    assert world.value(KvList("")) == KvPairs(())


def test_delete_tree_is_capped() -> None:
    world = World(limits=Limits(rows_for_one_command=3))
    for number in range(4):
        world.done(KvPut(f"a{number}", b""))
    assert "smaller parts" in world.failed(KvDeleteTree("a"))
    world.done(KvDelete("a0"))
    world.done(KvDeleteTree("a"))
    world.close()


def test_list_order_and_separator(world: World) -> None:
    for key in ("b", "a/2/x", "a/1", "a/2/y", "é", "a\U0010ffffz", "z\ud7ff"):
        world.done(KvPut(key, key.encode()))
    assert world.value(KvList("", keys_only=True)) == Keys(
        ("a/1", "a/2/x", "a/2/y", "a\U0010ffffz", "b", "z\ud7ff", "é")
    )
    assert world.value(KvList("a/", separator="/")) == Keys(("a/1", "a/2/"))
    assert world.value(KvList("", separator="/")) == Keys(("a/", "a\U0010ffffz", "b", "z\ud7ff", "é"))
    for prefix, expected in (("a\U0010ffff", "a\U0010ffffz"), ("z\ud7ff", "z\ud7ff"), ("é", "é")):
        assert world.value(KvList(prefix, keys_only=True)) == Keys((expected,))


def test_a_list_must_fit_into_a_reply(world: World) -> None:
    for number in range(9):
        world.done(KvPut(f"a{number}", bytes(512 * 1024)))
    with pytest.raises(InvalidError, match="longer prefix"):
        world.ask(KvList("a"))
    assert len(keys(world, "a")) == 9
    world.done(KvDeleteTree("a"))
    assert keys(world, "a") == ()


def test_keys_are_counted_in_bytes(world: World) -> None:
    long = "\U0001f511" * 125
    world.machine.apply(1, [(1, entry(KvPut(f"{long}{number}", b""))) for number in range(9_000)])
    for keys_only in (True, False):
        with pytest.raises(InvalidError, match="longer prefix"):
            world.ask(KvList("", keys_only))


def keys(world: World, prefix: str) -> tuple[str, ...]:
    value = world.value(KvList(prefix, keys_only=True))
    assert isinstance(value, Keys)
    return value.keys


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 513, "é" * 257])
def test_impossible_keys(world: World, key: str) -> None:
    assert "512 bytes" in world.failed(KvPut(key, b""))


def test_limits_of_value_and_flags(world: World) -> None:
    world.done(KvPut("a", bytes(512 * 1024)))
    world.failed(KvPut("a", bytes(512 * 1024 + 1)))
    world.failed(KvPut("a", b"", flags=-1))
    world.done(KvPut("x" * 512, b""))


# --- session locks on keys ------------------------------------------------------------------------------------------------


def test_acquire_and_release(world: World) -> None:
    one, two = world.session("s1"), world.session("s2")
    world.done(KvPut("k", b"1", acquire=one))
    world.refused(KvPut("k", b"2", acquire=two))
    assert (present(world, "k").session, present(world, "k").lock_index) == (one, 1)
    world.done(KvPut("k", b"3", acquire=one))
    assert (present(world, "k").value, present(world, "k").lock_index) == (b"3", 1)
    world.refused(KvPut("k", b"4", release=two))
    world.done(KvPut("k", b"5", release=one))
    assert (present(world, "k").session, present(world, "k").lock_index) == ("", 1)
    world.done(KvPut("k", b"6", acquire=two))
    assert present(world, "k").lock_index == 2


def test_plain_put_keeps_the_session_and_resets_the_lock_index(world: World) -> None:
    one = world.session()
    world.done(KvPut("k", b"1", acquire=one))
    world.done(KvPut("k", b"2"))
    assert (present(world, "k").session, present(world, "k").lock_index) == (one, 0)


def test_sessions_that_are_none(world: World) -> None:
    assert world.failed(KvPut("k", b"", acquire="nobody")).startswith("invalid session")
    assert world.failed(KvPut("k", b"", acquire="")).startswith("missing session")
    assert world.failed(KvPut("k", b"", release="")).startswith("missing session")
    world.refused(KvPut("k", b"", release="nobody"))
    assert "at most one" in world.failed(KvPut("k", b"", cas=0, acquire="x"))


@pytest.mark.parametrize("behavior", ["release", "delete"])
def test_end_of_a_session(world: World, behavior: str) -> None:
    one, two = world.session("s1", behavior=behavior), world.session("s2", lock_delay_ms=0)
    world.done(KvPut("k", b"1", acquire=one))
    world.done(DestroySession(one))
    assert ("kv", "k") in world.machine.changes
    if behavior == "delete":
        assert pair(world, "k") is None
    else:
        assert (present(world, "k").session, present(world, "k").modify_index) == ("", world.index)
    world.refused(KvPut("k", b"", acquire=two))
    world.time += 15 * SECOND - 1
    world.refused(KvPut("k", b"", acquire=two))
    world.time += 1
    world.done(KvPut("k", b"", acquire=two))
    assert world.content()["kv_delays"] == []
    world.done(DestroySession(two))
    world.done(KvPut("k", b"", acquire=world.session("s3")))


def test_release_leaves_no_delay(world: World) -> None:
    one, two = world.session("s1"), world.session("s2")
    world.done(KvPut("k", b"", acquire=one))
    world.done(KvPut("k", b"", release=one))
    world.done(KvPut("k", b"", acquire=two))


def test_keys_of_one_session_are_capped() -> None:
    world = World(limits=Limits(held_by_one_session=2))
    one = world.session()
    for key in "ab":
        world.done(KvPut(key, b"", acquire=one))
    world.failed(KvPut("c", b"", acquire=one), "busy")
    world.done(KvPut("a", b"x", acquire=one))
    world.close()


# --- fences ---------------------------------------------------------------------------------------------------------------


def test_fence(world: World) -> None:
    one, two = world.session("s1"), world.session("s2")
    token = world.grant(LockAcquire("l", one)).token
    world.done(KvPut("k", b"1", fence=Fence("l", token)))
    world.failed(KvPut("k", b"2", fence=Fence("l", token - 1)), "conflict")
    world.failed(KvPut("k", b"2", fence=Fence("other", token)), "conflict")
    world.grant(LockAcquire("l", two, wait_ms=60_000))
    world.done(LockRelease("l", token))
    world.failed(KvPut("k", b"3", fence=Fence("l", token)), "conflict")
    world.failed(KvDelete("k", fence=Fence("l", token)), "conflict")
    world.failed(KvPut("k", b"3", fence=Fence("free", 0)), "conflict")
    world.done(KvDelete("k", fence=Fence("l", world.index - 3)))


# --- the floor under reaped tombstones ------------------------------------------------------------------------------------


def test_tombstones_are_bounded_and_indexes_stay() -> None:
    world = World(limits=Limits(topics=16))
    seen: dict[str, int] = {}
    for number in range(100):
        key = f"k{number % 40}"
        world.done(KvPut(key, b"") if number % 3 else KvDelete(key))
        world.done(KvDelete(key))
        for asked in seen:
            index = world.ask(KvGet(asked)).index
            assert index >= seen[asked]
            seen[asked] = index
        whole = world.ask(KvList("k")).index
        assert whole >= max(seen.values(), default=1)
        seen[key] = world.ask(KvGet(key)).index
        assert world.machine.row_counts["topics"] <= 18
    world.done(RegisterClient())
    assert world.machine.verify()
    world.close()
