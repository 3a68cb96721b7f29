"""The operator's requests: each is answered once, and says what became of it."""

from typing import Any

import pytest

from coordd.messages.client import (
    AddServerRequest,
    BootstrapRequest,
    Error,
    Info,
    InfoRequest,
    LogRequest,
    LogTail,
    MoveServerRequest,
    Ok,
    RemoveServerRequest,
    ReplyBody,
    Servers,
    ServersRequest,
    TransferRequest,
)
from coordd.messages.command import AclPutToken, KvPut, Register
from coordd.messages.entry import CommandHeader, encode_command
from coordd.messages.peer import AppendEntries, Heartbeat, TimeoutNow
from coordd.server.log_text import log_record
from coordd.storage.writer import ReadLog
from coordd.types import LogSlice
from tests.server.conftest import MakeDesk
from tests.server.support import Desk, until
from tests.server.words import key, put, sid, write

FOUR = sid("s4")


def code(body: ReplyBody) -> str:
    return body.code if isinstance(body, Error) else type(body).__name__


def text(body: ReplyBody) -> str:
    assert isinstance(body, Error | Ok)
    return body.text


def adding(name: str = "s4", **given: Any) -> AddServerRequest:
    fields: dict[str, Any] = {"raft_address": f"10.0.0.{name[1:]}:8310", "client_address": f"10.0.0.{name[1:]}:8311"}
    return AddServerRequest(name, **{**fields, "public_key": key(name), **given})


def names(desk: Desk) -> list[str]:
    body = desk.answer(ServersRequest())
    assert isinstance(body, Servers)
    return [server.id.partition("#")[0] for server in body.servers]


# --- founding ---------------------------------------------------------------------------------------------------------


def test_founding_waits_for_hellos_and_names_who_is_missing(make_desk: MakeDesk) -> None:
    desk = make_desk(founded=False)
    number = desk.ask(BootstrapRequest(), budget_ms=1_000)
    assert desk.operator.founding_asked
    desk.pass_time(1.1)
    (body,) = desk.told.to(number)
    assert code(body) == "outcome-unknown"
    assert "s2, s3" in text(body)


def test_the_end_of_founding_is_told_to_all_who_asked(make_desk: MakeDesk) -> None:
    desk = make_desk(founded=False)
    first, second = desk.ask(BootstrapRequest()), desk.ask(BootstrapRequest())
    desk.operator.founded()
    assert [code(body) for number in (first, second) for body in desk.told.to(number)] == ["Ok", "Ok"]


def test_a_second_founding_is_refused(make_desk: MakeDesk) -> None:
    assert code(make_desk().answer(BootstrapRequest())) == "conflict"


def test_who_is_to_join_does_not_found(make_desk: MakeDesk) -> None:
    desk = make_desk(founded=False)
    desk.roster.take_list([])
    assert "[join]" in text(desk.answer(BootstrapRequest()))


def test_before_founding_the_list_is_that_of_the_file(make_desk: MakeDesk) -> None:
    assert names(make_desk(founded=False)) == ["s1", "s2", "s3"]


# --- adding -----------------------------------------------------------------------------------------------------------


def test_a_server_is_added_after_its_hello_and_when_it_is_committed(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(adding())
    desk.pass_time(0.5)
    assert desk.told.to(number) == []
    assert desk.roster.is_expected(key("s4"))
    desk.world.answering = False
    desk.roster.greeted(FOUR, key("s4"))
    desk.side.tick(desk.now)
    desk.run()
    assert desk.world.node.configuration is not None
    assert desk.world.node.configuration.member(FOUR) is not None  # appended, not committed
    desk.side.tick(desk.now)
    assert desk.told.to(number) == []
    desk.world.answering = True
    until(desk, lambda: bool(desk.told.to(number)))
    (body,) = desk.told.to(number)
    assert text(body) == f"{FOUR} is a learner and becomes a voter when caught up"
    assert not desk.roster.is_expected(key("s4"))


def test_who_does_not_say_hello_is_not_added_and_expected_no_more(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(adding(), budget_ms=1_000)
    desk.pass_time(1.1)
    (body,) = desk.told.to(number)
    assert code(body) == "conflict"  # no word that makes clients try again
    assert "10.0.0.4:8310" in text(body)
    assert not desk.roster.is_expected(key("s4"))
    assert names(desk) == ["s1", "s2", "s3"]


def test_the_hello_of_an_earlier_life_adds_nobody(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.roster.greeted(FOUR, key("s4"))
    number = desk.ask(adding(), budget_ms=1_000)
    desk.pass_time(1.1)
    assert [code(body) for body in desk.told.to(number)] == ["conflict"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"name": "s#4"}, "name"),
        ({"name": ""}, "name"),
        ({"raft_address": "host:8310"}, "Raft address"),
        ({"raft_address": "10.0.0.4"}, "Raft address"),
        ({"client_address": "10.0.0.4:0"}, "client address"),
        ({"public_key": "short"}, "public key"),
        ({"public_key": "#" * 40}, "public key"),  # of the right letters, but no number of 32 bits
        ({"public_key": "é" * 40}, "public key"),
    ],
)
def test_what_no_server_could_use_is_refused_before_anyone_is_let_in(
    make_desk: MakeDesk, given: dict[str, str], named: str
) -> None:
    desk = make_desk()
    body = desk.answer(adding(**{"name": "s4", **given}))
    assert code(body) == "invalid"
    assert named in text(body)
    assert desk.changed_roster == 0


def test_a_name_or_key_that_is_in_use_is_not_added_again(make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert "--replaces" in text(desk.answer(adding("s2")))
    body = desk.answer(adding("s4", public_key=key("s2")))
    assert code(body) == "conflict"
    assert "s2" in text(body)


def test_the_same_server_is_not_added_twice_at_once(make_desk: MakeDesk) -> None:
    desk = make_desk()
    first = desk.ask(adding())
    assert code(desk.answer(adding())) == "busy"
    desk.roster.greeted(FOUR, key("s4"))
    until(desk, lambda: bool(desk.told.to(first)))
    assert code(desk.told.to(first)[0]) == "Ok"


def test_leadership_lost_before_the_hello_had_no_effect(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(adding())
    desk.world.depose()
    desk.run()
    desk.side.tick(desk.now)
    (body,) = desk.told.to(number)
    assert isinstance(body, Error)
    assert (body.code, body.hint) == ("not-leader", "10.0.0.2:8311")
    assert not desk.roster.is_expected(key("s4"))


def test_leadership_lost_after_the_proposal_is_unknown_whatever_takes_its_place(make_desk: MakeDesk) -> None:
    desk = make_desk()
    world = desk.world
    number = desk.ask(adding())
    last = world.node.raft.replica.log.last
    world.answering = False
    desk.roster.greeted(FOUR, key("s4"))
    desk.side.tick(desk.now)
    desk.run()
    term = world.node.raft.replica.term + 1
    entries = LogSlice(last + 1, [put("a"), put("b")], ((last + 1, term),))
    before = world.node.raft.replica.log.term(last) or 0
    world.node.receive(AppendEntries(term, world.peers[0], world.me, 1, last, before, last + 2, entries), desk.now)
    desk.run()
    desk.side.tick(desk.now)
    assert world.node.machine.applied == last + 2
    (body,) = desk.told.to(number)
    assert code(body) == "outcome-unknown"


# --- removing, handing over -------------------------------------------------------------------------------------------


def test_a_server_is_removed_when_it_is_out(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(RemoveServerRequest("s3"))
    until(desk, lambda: bool(desk.told.to(number)))
    assert code(desk.told.to(number)[0]) == "Ok"
    assert names(desk) == ["s1", "s2"]


def test_a_removal_that_is_not_finished_says_that_it_goes_on(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.answering = False
    number = desk.ask(RemoveServerRequest("s3"), budget_ms=200)
    desk.pass_time(0.25)
    assert [code(body) for body in desk.told.to(number)] == ["outcome-unknown"]


def test_nobody_unknown_is_removed(make_desk: MakeDesk) -> None:
    body = make_desk().answer(RemoveServerRequest("s9"))
    assert code(body) == "not-found"
    assert "s9" in text(body)


# --- moving -----------------------------------------------------------------------------------------------------------


def addresses(desk: Desk, name: str) -> tuple[str, str]:
    assert desk.world.node.configuration is not None
    (found,) = (m for m in desk.world.node.configuration.members if m.name == name)
    return found.raft_address, found.client_address


def test_rule_78_a_server_moves_when_that_is_committed(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.answering = False
    number = desk.ask(MoveServerRequest("s3", "10.9.9.3:1", "10.9.9.3:2"))
    desk.side.tick(desk.now)
    assert desk.told.to(number) == []
    desk.world.answering = True
    until(desk, lambda: bool(desk.told.to(number)))
    (body,) = desk.told.to(number)
    assert "is at 10.9.9.3:1 and 10.9.9.3:2" in text(body)
    assert addresses(desk, "s3") == ("10.9.9.3:1", "10.9.9.3:2")
    listed = desk.answer(ServersRequest())
    assert isinstance(listed, Servers)
    assert [s.raft_address for s in listed.servers] == ["10.0.0.1:8310", "10.0.0.2:8310", "10.9.9.3:1"]


def test_what_is_left_out_of_a_move_stays(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(MoveServerRequest("s2", client_address="10.9.9.2:2"))
    until(desk, lambda: bool(desk.told.to(number)))
    assert addresses(desk, "s2") == ("10.0.0.2:8310", "10.9.9.2:2")


@pytest.mark.parametrize(
    ("body", "expected", "words"),
    [
        (MoveServerRequest("s9", "10.9.9.9:1"), "not-found", "s9"),
        (MoveServerRequest("s2", "host:1"), "invalid", "Raft address"),
        (MoveServerRequest("s2", client_address="10.0.0.2"), "invalid", "client address"),
        (MoveServerRequest("s2", "10.0.0.3:8310"), "conflict", "server s3 has one of these"),
    ],
)
def test_a_move_that_makes_no_sense_is_refused(make_desk: MakeDesk, body: Any, expected: str, words: str) -> None:
    desk = make_desk()
    answer = desk.answer(body)
    assert code(answer) == expected
    assert words in text(answer)
    assert addresses(desk, "s2") == ("10.0.0.2:8310", "10.0.0.2:8311")


def test_a_move_whose_leader_is_lost_is_unknown(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.answering = False
    number = desk.ask(MoveServerRequest("s2", "10.9.9.2:1"))
    desk.world.depose()
    desk.side.tick(desk.now)
    assert [code(body) for body in desk.told.to(number)] == ["outcome-unknown"]


def test_leadership_is_handed_over_and_the_new_leader_named(make_desk: MakeDesk) -> None:
    desk = make_desk()
    world = desk.world
    number = desk.ask(TransferRequest("s2"))
    assert [m for m in world.wire.sent if isinstance(m, TimeoutNow)] or desk.told.to(number) == []
    world.node.receive(Heartbeat(world.node.raft.replica.term + 1, world.peers[0], world.me, 1, 0, 1), desk.now)
    desk.run()
    desk.side.tick(desk.now)
    (body,) = desk.told.to(number)
    assert text(body) == f"{world.peers[0]} leads now"


def test_a_transfer_that_fails_says_so(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.ask(TransferRequest("s2"))
    until(desk, lambda: bool(desk.told.to(number)))
    (body,) = desk.told.to(number)
    assert code(body) == "busy"
    assert "leads on" in text(body)


def test_leadership_is_not_handed_to_who_has_it(make_desk: MakeDesk) -> None:
    assert code(make_desk().answer(TransferRequest("s1"))) == "conflict"


@pytest.mark.parametrize("body", [adding(), RemoveServerRequest("s3"), MoveServerRequest("s3"), TransferRequest()])
def test_a_follower_names_the_leader_and_a_fresh_leader_asks_for_patience(make_desk: MakeDesk, body: Any) -> None:
    desk = make_desk()
    desk.world.depose()
    answer = desk.answer(body)
    assert isinstance(answer, Error)
    assert (answer.code, answer.hint) == ("not-leader", "10.0.0.2:8311")
    desk.world.answering = True
    for _ in range(100):
        if desk.world.node.leading:
            break
        desk.world.now += 0.05
        desk.world.node.tick(desk.now)
        desk.world.persist()
        desk.world.let_peers_answer()
    assert not desk.world.node.ready
    number = desk.put_in(body)
    desk.side.take_in(desk.clock)
    assert [code(answer) for answer in desk.told.to(number)] == ["busy"]


def test_the_number_of_requests_that_wait_is_bounded(make_desk: MakeDesk) -> None:
    desk = make_desk(founded=False)
    numbers = [desk.ask(BootstrapRequest()) for _ in range(65)]
    assert [code(body) for body in desk.told.to(numbers[64])] == ["busy"]
    assert all(desk.told.to(number) == [] for number in numbers[:64])


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_newest_entries_are_shown(make_desk: MakeDesk) -> None:
    desk = make_desk()
    for n in range(5):
        desk.write(KvPut(f"k{n}", b"v"))
    last = desk.world.node.raft.replica.log.last
    body = desk.answer(LogRequest(count=2))
    assert isinstance(body, LogTail)
    assert [(r.index, r.kind) for r in body.records] == [(last - 1, "KvPut"), (last, "KvPut")]
    assert "key='k4'" in body.records[-1].text
    body = desk.answer(LogRequest(first=1, count=1000))
    assert isinstance(body, LogTail)
    assert [r.kind for r in body.records][:2] == ["configuration", "noop"]


@pytest.mark.parametrize("first", [1 << 40, (1 << 64) - 1])
def test_what_lies_behind_the_end_is_empty_and_is_not_asked_of_the_disk(make_desk: MakeDesk, first: int) -> None:
    desk = make_desk()
    desk.world.disk.seen.clear()
    assert desk.answer(LogRequest(first=first)) == LogTail(())
    assert not [job for job in desk.world.disk.seen if isinstance(job, ReadLog)]


@pytest.mark.parametrize(("first", "count"), [(-5, 3), (0, -1), (-(1 << 63), 1 << 63)])
def test_odd_numbers_are_read_as_near_ones(make_desk: MakeDesk, first: int, count: int) -> None:
    body = make_desk().answer(LogRequest(first=first, count=count))
    assert isinstance(body, LogTail)
    assert body.records


def test_a_log_read_that_the_disk_never_answers_ends(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.put_in(LogRequest(), budget_ms=100)
    desk.turn()
    (job,) = [job for job in desk.world.disk.jobs if isinstance(job, ReadLog)]
    desk.world.now += 0.1
    desk.operator.turn(desk.now)
    assert [code(body) for body in desk.told.to(number)] == ["timed-out"]
    desk.run()  # the disk answers after all
    assert len(desk.told.to(number)) == 1
    assert job.first >= 1


def oldest(desk: Desk) -> tuple[Any, Any]:
    desk.operator.turn(desk.now)
    desk.run()
    body = desk.answer(InfoRequest())
    assert isinstance(body, Info)
    return body.figures["oldest_index"], body.figures["oldest_entry_age_s"]


def test_rule_83_the_age_of_the_oldest_entry_is_told(make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert oldest(desk) == (1, -1.0)  # nothing but Raft's own entries so far
    desk.write(KvPut("a", b"1"))
    stamped = desk.world.node.machine.state_time / 1e9
    desk.pass_time(60.0)
    desk.write(KvPut("a", b"2"))
    desk.wall = stamped + 100.0
    assert oldest(desk) == (1, 100.0)
    desk.write(KvPut("a", b"3"))
    later = desk.world.node.machine.state_time / 1e9
    desk.world.node.compact(desk.world.node.machine.applied - 1, desk.now)
    desk.run()
    desk.pass_time(1.1)
    index, age = oldest(desk)
    assert index == desk.world.node.machine.applied
    assert age == round(desk.wall - later, 1)
    desk.wall = 0.0  # a clock that was set back
    assert oldest(desk)[1] == 0.0


def test_the_log_shows_no_secrets_and_no_values() -> None:
    def shown(command: Any) -> str:
        return log_record(7, 3, encode_command(CommandHeader(1, 5, 2, 1), write(command).command)).text

    assert shown(KvPut("a", b"sesame")) == "client=5#2 key='a' value=<6 bytes> flags=0"
    assert "hash" not in shown(AclPutToken("accessor", b"\x01" * 32))
    assert "accessor" in shown(AclPutToken("accessor", b"\x01" * 32))
    assert "nn… address='1.1.1.1'" in shown(Register("n" * 500, "1.1.1.1"))
    assert log_record(1, 1, put("a")).kind == "KvPut"
