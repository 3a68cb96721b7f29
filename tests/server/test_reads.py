"""Reads of every consistency: nobody is shown less than what was acknowledged before he asked, and everyone gets an answer."""

from hashlib import sha256

import pytest

from coordd.messages.client import (
    Credit,
    Error,
    Keepalive,
    Read,
    ReadResult,
    Renewed,
    RenewSession,
    ReplyBody,
    Subscribe,
    Unsubscribe,
    View,
)
from coordd.messages.command import AclBootstrap, AclDeleteToken, AclPutToken, CreateSession, KvPut
from coordd.messages.peer import AppendEntries, Heartbeat, ReadIndexRequest, ReadIndexResponse
from coordd.messages.query import KvGet, KvPairs
from coordd.types import LogSlice
from tests.server.conftest import MakeDesk
from tests.server.support import Desk
from tests.server.words import put, write


def value(body: ReplyBody) -> bytes | None:
    assert isinstance(body, ReadResult | View), body
    assert isinstance(body.value, KvPairs)
    return body.value.pairs[0].value if body.value.pairs else None


def code(body: ReplyBody) -> str:
    assert isinstance(body, Error), body
    return body.code


def get(desk: Desk, **given: object) -> ReplyBody:
    return desk.answer(Read(KvGet("a"), **given))  # type: ignore[arg-type]


# --- under the lease --------------------------------------------------------------------------------------------------


def test_under_the_lease_a_read_is_answered_at_once(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(KvPut("a", b"1"))
    number = desk.put_in(Read(KvGet("a")))
    desk.side.take_in(desk.clock)
    (body,) = desk.told.to(number)
    assert value(body) == b"1"
    assert isinstance(body, ReadResult)
    assert (body.age_ms, body.known_leader) == (0, True)
    assert desk.world.observed.reads_lease == 1


def test_the_lease_is_looked_at_again_after_the_value_was_made(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(KvPut("a", b"1"))
    machine = desk.world.node.machine
    query = machine.query

    def slow(*arguments: object) -> object:
        desk.world.now += 0.25  # the process stood still
        return query(*arguments)  # type: ignore[arg-type]

    machine.query = slow  # type: ignore[method-assign,assignment]
    number = desk.put_in(Read(KvGet("a")))
    desk.side.take_in(desk.clock)
    assert desk.told.to(number) == []
    machine.query = query  # type: ignore[method-assign]
    desk.run()
    (body,) = desk.told.to(number)
    assert value(body) == b"1"


def test_rule_60_a_lease_that_ended_before_a_request_came_confirms_no_session(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor may lead by then, and would not know of the promise."""
    desk = make_desk()
    desk.write(CreateSession("s", "", ttl_ms=20_000, node_checks=()))
    receive = desk.mailbox.receive

    def late(*limits: int) -> list[tuple[bytes, bytes]]:
        desk.world.now += 0.25  # the process stood still before it looked
        return receive(*limits)

    monkeypatch.setattr(desk.mailbox, "receive", late)
    number = desk.put_in(RenewSession("s"))
    desk.side.take_in(desk.clock)
    assert desk.told.to(number) == []
    monkeypatch.undo()
    desk.run()
    assert desk.told.to(number) == [Renewed(20_000)]


def test_a_read_under_the_lease_waits_for_what_is_committed(make_desk: MakeDesk) -> None:
    """Somebody may have seen it on a follower already."""
    desk = make_desk()
    node = desk.world.node
    node.propose([put("a", b"new")], desk.now)
    for _ in range(3):
        desk.world.persist()
        desk.world.let_peers_answer()
    assert node.raft.replica.log.commit > node.machine.applied
    number = desk.put_in(Read(KvGet("a")))
    desk.side.take_in(desk.clock)
    assert desk.told.to(number) == []
    desk.run()
    (body,) = desk.told.to(number)
    assert value(body) == b"new"


def test_without_a_lease_the_leader_asks_its_peers(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(KvPut("a", b"1"))
    desk.world.node.raft.replica.leading.lease_until = 0.0  # type: ignore[union-attr]
    assert value(get(desk)) == b"1"
    assert desk.world.observed.reads_index == 1


# --- by a read index --------------------------------------------------------------------------------------------------


def test_reads_of_one_slice_share_a_round(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(KvPut("a", b"1"))
    asked: list[int] = []
    original = desk.world.node.read

    def read(number: int, now: float) -> None:
        asked.append(number)
        original(number, now)

    desk.world.node.read = read  # type: ignore[method-assign,assignment]
    numbers = [desk.put_in(Read(KvGet("a"), "consistent")) for _ in range(5)]
    desk.run()
    assert [value(*desk.told.to(number)) for number in numbers] == [b"1"] * 5
    assert len(asked) == 1


def test_a_consistent_read_waits_for_the_quorum(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.answering = False
    number = desk.ask(Read(KvGet("a"), "consistent"))
    assert desk.told.to(number) == []
    desk.world.answering = True
    desk.run()
    (body,) = desk.told.to(number)
    assert isinstance(body, ReadResult)


def test_an_unconfirmed_read_times_out(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.answering = False
    number = desk.ask(Read(KvGet("a"), "consistent"), budget_ms=100)
    desk.world.now += 0.11
    desk.side.reads.expire(desk.now)
    assert [code(body) for body in desk.told.to(number)] == ["timed-out"]
    assert desk.side.reads._count == 0


def test_lost_leadership_ends_a_read_that_waits(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.answering = False
    number = desk.ask(Read(KvGet("a"), "consistent"))
    desk.world.depose()
    desk.run()
    assert [code(body) for body in desk.told.to(number)] == ["no-leader"]


def test_a_follower_asks_its_leader_and_waits_until_it_has_applied(make_desk: MakeDesk) -> None:
    desk = make_desk(lead=False)
    world = desk.world
    leader, last = world.peers[0], world.node.raft.replica.log.last
    world.node.receive(Heartbeat(5, leader, world.me, 1, last, 1), desk.now)
    number = desk.put_in(Read(KvGet("a"), "consistent"))
    desk.turn()
    (request,) = [message for message in world.wire.sent if isinstance(message, ReadIndexRequest)]
    world.node.receive(ReadIndexResponse(5, leader, world.me, request.request, last + 1), desk.now)
    desk.run()
    assert desk.told.to(number) == []
    entries = LogSlice(last + 1, [put("a", b"7")], ((last + 1, 5),))
    world.node.receive(AppendEntries(5, leader, world.me, 1, last, 1, last + 1, entries), desk.now)
    desk.run()
    (body,) = desk.told.to(number)
    assert value(body) == b"7"


def test_without_any_leader_a_consistent_read_says_so(make_desk: MakeDesk) -> None:
    assert code(get(make_desk(lead=False), consistency="consistent")) == "no-leader"


def test_too_many_waiting_reads_are_busy_and_room_comes_back(make_desk: MakeDesk) -> None:
    desk = make_desk(pending_reads=16)
    desk.world.answering = False
    numbers = [desk.put_in(Read(KvGet("a"), "consistent")) for _ in range(17)]
    desk.run()
    assert [code(body) for body in desk.told.to(numbers[16])] == ["busy"]
    desk.world.answering = True
    desk.run()
    assert all(isinstance(desk.told.to(number)[0], ReadResult) for number in numbers[:16])
    assert desk.side.reads._count == 0


# --- stale ------------------------------------------------------------------------------------------------------------


def test_a_stale_read_is_answered_by_anyone_with_its_age(make_desk: MakeDesk) -> None:
    desk = make_desk(lead=False)
    world = desk.world
    body = get(desk, consistency="stale")
    assert isinstance(body, ReadResult)
    assert (body.age_ms, body.known_leader) == (-1, False)
    world.hear(world.node.raft.replica.log.last, world.node.raft.replica.log.last)
    desk.run()
    world.now += 0.2
    body = get(desk, consistency="stale")
    assert isinstance(body, ReadResult)
    assert (body.age_ms, body.known_leader) == (200, True)


@pytest.mark.parametrize(("bound", "expected"), [(1_000, "result"), (100, "no-leader"), (0, "result")])
def test_a_stale_read_keeps_its_bound(make_desk: MakeDesk, bound: int, expected: str) -> None:
    desk = make_desk(lead=False)
    world = desk.world
    world.hear(world.node.raft.replica.log.last, world.node.raft.replica.log.last)
    desk.run()
    world.now += 0.2
    body = get(desk, consistency="stale", max_stale_ms=bound)
    assert (body.code if isinstance(body, Error) else "result") == expected


def test_rule_63_a_follower_that_lags_does_not_keep_a_bound_by_what_it_has_itself(make_desk: MakeDesk) -> None:
    """It has applied all it was allowed to commit, and hears its leader: but the leader has committed more."""
    desk = make_desk(lead=False)
    world = desk.world
    last = world.node.raft.replica.log.last
    world.hear(last + 1, last)
    desk.run()
    assert world.node.machine.applied == last
    assert code(get(desk, consistency="stale", max_stale_ms=60_000)) == "no-leader"


def test_a_bound_is_not_kept_by_a_server_that_never_heard_a_leader(make_desk: MakeDesk) -> None:
    assert code(get(make_desk(lead=False), consistency="stale", max_stale_ms=60_000)) == "no-leader"


# --- blocking ---------------------------------------------------------------------------------------------------------


def index_of(desk: Desk) -> int:
    body = get(desk)
    assert isinstance(body, ReadResult)
    return body.index


@pytest.mark.parametrize("consistency", ["default", "consistent", "stale"])
def test_a_blocking_read_waits_for_a_change_of_its_own(make_desk: MakeDesk, consistency: str) -> None:
    desk = make_desk()
    desk.write(KvPut("a", b"1"))
    number = desk.ask(Read(KvGet("a"), consistency, 0, index_of(desk), 5_000))  # type: ignore[arg-type]
    desk.write(KvPut("b", b"1"))
    assert desk.told.to(number) == []
    desk.write(KvPut("a", b"2"))
    (body,) = desk.told.to(number)
    assert value(body) == b"2"
    assert len(desk.side.watches) == 0


def test_a_blocking_read_whose_data_have_changed_is_answered_at_once(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(KvPut("a", b"1"))
    before = index_of(desk)
    desk.write(KvPut("a", b"2"))
    assert value(desk.answer(Read(KvGet("a"), index=before, wait_ms=5_000))) == b"2"


def test_a_key_that_was_never_there_is_waited_for(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(Read(KvGet("a"), index=index_of(desk), wait_ms=5_000))
    assert desk.told.to(number) == []
    desk.write(KvPut("a", b"1"))
    assert [value(body) for body in desk.told.to(number)] == [b"1"]


@pytest.mark.parametrize("consistency", ["default", "consistent"])
@pytest.mark.parametrize(("wait_ms", "budget_ms"), [(1_000, 10_000), (60_000, 1_200)])
def test_a_blocking_read_ends_with_the_present_state_in_time(
    make_desk: MakeDesk, consistency: str, wait_ms: int, budget_ms: int
) -> None:
    desk = make_desk()
    desk.write(KvPut("a", b"1"))
    number = desk.ask(
        Read(KvGet("a"), consistency, 0, index_of(desk), wait_ms),  # type: ignore[arg-type]
        budget_ms=budget_ms,
    )
    desk.pass_time(0.9)
    assert desk.told.to(number) == []
    desk.pass_time(0.29)
    assert [value(body) for body in desk.told.to(number)] == [b"1"]


def test_the_longest_wait_is_the_servers(make_desk: MakeDesk) -> None:
    desk = make_desk(watch_wait_ms=1_000)
    number = desk.ask(Read(KvGet("a"), index=index_of(desk), wait_ms=600_000), budget_ms=3_600_000)
    desk.pass_time(1.2)
    assert len(desk.told.to(number)) == 1


def test_a_blocking_read_of_a_leader_goes_on_to_its_successor(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(Read(KvGet("a"), index=index_of(desk), wait_ms=60_000), budget_ms=60_000)
    stale = desk.ask(Read(KvGet("a"), "stale", 0, index_of(desk), 60_000), budget_ms=60_000)
    desk.world.depose()
    desk.run()
    assert [code(body) for body in desk.told.to(number)] == ["not-leader"]
    assert desk.told.to(stale) == []


def test_blocking_reads_have_a_limit(make_desk: MakeDesk) -> None:
    desk = make_desk(watches=16)
    index = index_of(desk)
    numbers = [desk.ask(Read(KvGet("a"), index=index, wait_ms=5_000)) for _ in range(17)]
    assert [code(body) for body in desk.told.to(numbers[16])] == ["busy"]


def test_a_deleted_token_ends_what_sleeps_under_it(make_desk: MakeDesk) -> None:
    desk = make_desk()
    index = index_of(desk)
    secret = "secret-of-somebody"
    desk.ask(write(AclBootstrap("root", sha256(b"root").digest())))
    desk.ask(write(AclPutToken("user", sha256(secret.encode()).digest(), (), "", True)), token="root")
    blocked = desk.ask(Read(KvGet("a"), index=index, wait_ms=60_000), token=secret, budget_ms=60_000)
    watching = desk.ask(Subscribe(1, KvGet("a")), token=secret)
    assert desk.told.to(blocked) == []
    assert len(desk.told.to(watching)) == 1
    desk.ask(write(AclDeleteToken("user")), token="root")
    assert [code(body) for body in desk.told.to(blocked)] == ["denied"]
    assert code(desk.told.to(watching)[-1]) == "denied"
    assert len(desk.side.watches) == 0
    assert secret not in repr(desk.told.bodies)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def views(desk: Desk, number: int) -> list[View]:
    return [body for body in desk.told.to(number) if isinstance(body, View)]


def test_a_subscription_shows_the_state_and_then_each_change_in_a_chain(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(Subscribe(4, KvGet("a")))
    desk.write(KvPut("a", b"1"))
    desk.write(KvPut("b", b"1"))
    desk.write(KvPut("a", b"2"))
    shown = views(desk, number)
    assert [value(view) for view in shown] == [None, b"1", b"2"]
    assert [view.previous for view in shown] == [0, *[view.index for view in shown[:-1]]]
    assert {view.subscription for view in shown} == {4}


def test_without_credit_a_subscriber_gets_one_view_of_many_changes(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(Subscribe(4, KvGet("a"), 2))
    for n in range(5):
        desk.write(KvPut("a", b"%d" % n))
    assert [value(view) for view in views(desk, number)] == [None, b"0"]
    desk.ask(Credit(4, 1))
    shown = views(desk, number)
    assert [value(view) for view in shown] == [None, b"0", b"4"]
    assert shown[2].previous == shown[1].index


def test_a_view_that_finds_no_room_comes_with_the_next_sign_of_life(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(Subscribe(4, KvGet("a")))
    desk.told.deaf.add(b"c")
    desk.ask(write(KvPut("a", b"1")), connection=b"other")
    desk.ask(write(KvPut("a", b"2")), connection=b"other")
    desk.told.deaf.clear()
    assert [value(view) for view in views(desk, number)] == [None]
    desk.ask(Keepalive())
    shown = views(desk, number)
    assert [value(view) for view in shown] == [None, b"2"]
    assert shown[1].previous == shown[0].index


def test_whoever_does_not_read_is_evaluated_for_no_more(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.ask(Subscribe(4, KvGet("a")))
    desk.told.deaf.add(b"c")
    desk.ask(write(KvPut("a", b"1")), connection=b"other")
    assert not desk.side.watches.due
    desk.pass_time(31.0)
    assert len(desk.side.watches) == 0


def test_after_unsubscribing_nothing_comes(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(Subscribe(4, KvGet("a")))
    desk.ask(Unsubscribe(4))
    desk.write(KvPut("a", b"1"))
    assert len(views(desk, number)) == 1
