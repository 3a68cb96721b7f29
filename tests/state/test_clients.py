"""Numbered writes take effect once, and what is kept for them is bounded."""

import pytest

from coordd.messages.command import (
    AclPutPolicy,
    AclPutToken,
    Command,
    CreateSession,
    Done,
    ExpireClients,
    Failure,
    Fence,
    KvPut,
    LockAcquire,
    Register,
    RegisterClient,
)
from coordd.messages.query import KvGet, KvPairs
from coordd.state import clients
from coordd.state.limits import Limits
from tests.state.world import World


def version(world: World) -> int:
    value = world.value(KvGet("k"))
    assert isinstance(value, KvPairs)
    return value.pairs[0].version if value.pairs else 0


def code(result: object) -> str:
    assert isinstance(result, Failure), result
    return result.code


@pytest.fixture
def client(world: World) -> int:
    return world.done(RegisterClient("tester")).index


def test_a_repeated_number_has_the_first_result(world: World, client: int) -> None:
    first = world.run(KvPut("k", b"1"), client, 1)
    assert first == Done(2, version=1)
    assert world.run(KvPut("k", b"1"), client, 1) == first
    assert world.run(KvPut("k", b"other"), client, 1, lowest=1) == first
    assert version(world) == 1
    assert world.run(KvPut("k", b"1"), client, 2) == Done(5, version=2)


def test_a_client_may_draw_its_own_identity(world: World) -> None:
    drawn = 0x1234_5678_9ABC
    assert world.done(RegisterClient("drawn", drawn)).index == drawn
    assert world.run(KvPut("k", b"1"), drawn, 1) == Done(2, version=1)
    assert world.run(KvPut("k", b"2"), drawn, 1) == Done(2, version=1)
    assert code(world.run(RegisterClient("again", drawn))) == "conflict"
    assert code(world.run(RegisterClient("large", 1 << 63))) == "invalid"


def test_failures_and_refusals_are_results_too(world: World, client: int) -> None:
    refused = world.run(KvPut("k", b"", cas=7), client, 1, lowest=1)
    failed = world.run(LockAcquire("l", "nobody"), client, 2, lowest=1)
    world.done(KvPut("k", b""))
    assert world.run(KvPut("k", b"", cas=4), client, 1, lowest=1) == refused == Done(2, ok=False)
    assert world.run(LockAcquire("l", "nobody"), client, 2, lowest=1) == failed


def test_numbers_may_come_out_of_order(world: World, client: int) -> None:
    world.run(KvPut("k", b""), client, 3, lowest=1)
    world.run(KvPut("k", b""), client, 1, lowest=1)
    world.run(KvPut("k", b""), client, 2, lowest=1)
    world.run(KvPut("k", b""), client, 3, lowest=1)
    assert version(world) == 3


def test_acknowledged_numbers_are_forgotten_and_refused(world: World, client: int) -> None:
    world.run(KvPut("k", b""), client, 1, lowest=1)
    world.run(KvPut("k", b""), client, 2, lowest=2)
    assert world.content()["clients"][0][-1] == '{"2":["ok",3,true,2]}'
    late = world.run(KvPut("k", b""), client, 1, lowest=1)
    assert code(late) == "invalid"
    assert isinstance(late, Failure)
    assert "already acknowledged" in late.text
    assert version(world) == 2


def test_lowest_may_leap(world: World, client: int) -> None:
    for number in (1, 2, 3):
        world.run(KvPut("k", b""), client, number, lowest=1)
    world.run(KvPut("k", b""), client, 1 << 62, lowest=3)
    assert code(world.run(KvPut("k", b""), client, 2, lowest=2)) == "invalid"
    world.run(KvPut("k", b""), client, 3, lowest=3)
    assert version(world) == 4


@pytest.mark.parametrize(("number", "lowest"), [(0, 0), (1, 2), (1 << 63, 1), ((1 << 64) - 1, (1 << 64) - 1)])
def test_impossible_numbers(world: World, client: int, number: int, lowest: int) -> None:
    assert code(world.run(KvPut("k", b""), client, number, lowest)) == "invalid"
    assert version(world) == 0


@pytest.mark.parametrize("unknown", [7, 1 << 63, (1 << 64) - 1])
def test_unknown_clients_are_never_registered_silently(world: World, client: int, unknown: int) -> None:
    assert code(world.run(KvPut("k", b""), unknown, 1)) == "unknown-client"
    assert version(world) == 0
    assert world.machine.clients_alive() == [client]


def test_expiry_under_the_right_term(world: World, client: int) -> None:
    world.run(KvPut("k", b""), client, 1)
    world.refused(ExpireClients(2, (client,)))
    world.done(ExpireClients(1, (client, 99, -1, 1 << 64 - 1)))
    assert world.machine.clients_alive() == []
    assert code(world.run(KvPut("k", b""), client, 1)) == "unknown-client"
    assert world.run(ExpireClients(1, ()), client, 2) == Failure(
        6, "unknown-client", "this client's registration has expired; register again"
    )


def test_clients_in_one_command_are_bounded() -> None:
    world = World(limits=Limits(rows_for_one_command=2))
    client = world.done(RegisterClient()).index
    world.failed(ExpireClients(1, (client, 98, 99)))
    assert world.machine.clients_alive() == [client]
    world.done(ExpireClients(1, (client, 98)))
    assert world.machine.clients_alive() == []
    world.close()


def test_what_is_kept_decoded_is_bounded_and_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_OPEN_CLIENTS", 2)
    registered = [world.done(RegisterClient(str(number))).index for number in range(3)]
    first = [world.run(KvPut("k", b""), client, 1) for client in registered]
    assert len(world.machine._clients._open) <= 2
    assert [world.run(KvPut("k", b""), client, 1) for client in registered] == first
    assert version(world) == 3


def test_a_client_may_expire_itself(world: World, client: int) -> None:
    assert world.run(ExpireClients(1, (client,)), client, 1) == Done(2)
    assert world.machine.clients_alive() == []


def test_last_seen_is_replicated_time(world: World, client: int) -> None:
    world.time += 5
    world.run(KvPut("k", b""), client, 1)
    assert world.content()["clients"][0][2] == world.time


def test_what_is_kept_is_bounded() -> None:
    world = World(limits=Limits(replies_for_one_client=3, clients=2))
    client = world.done(RegisterClient()).index
    for number in (1, 2, 3):
        world.run(KvPut("k", b""), client, number, lowest=1)
    assert code(world.run(KvPut("k", b""), client, 4, lowest=1)) == "busy"
    assert world.run(KvPut("k", b""), client, 2, lowest=1) == Done(3, version=2)
    assert world.run(KvPut("k", b""), client, 4, lowest=2) == Done(7, version=4)
    world.done(RegisterClient())
    world.failed(RegisterClient(), "busy")
    world.close()


@pytest.mark.parametrize(
    "command",
    [
        LockAcquire("l", "ü"),
        CreateSession("ü", "n1"),
        CreateSession("s", "ü"),
        KvPut("k", b"", acquire="ü"),
        KvPut("k", b"", fence=Fence("ü", 1)),
        Register("ü", "1"),
        AclPutToken("t", bytes(32), ("ü",)),
        AclPutPolicy("p", '{"key": {"ü": "list"}}'),
    ],
    ids=repr,
)
def test_a_failure_reads_the_same_under_every_python(world: World, command: Command) -> None:
    """It is part of the state, and which characters `repr` shows as they are depends on Python's version."""
    result = world.run(command)
    assert isinstance(result, Failure)
    assert result.text.isascii()


def test_a_failure_is_short(world: World) -> None:
    assert len(world.failed(LockAcquire("x" * 100_000, "s"))) < 400
    assert len(world.failed(KvPut("k", b"", acquire="s" * 100_000))) < 400
