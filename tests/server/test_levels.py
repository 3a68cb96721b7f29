"""The feature level in a server: who has said what, when the leader raises it, and what must wait."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordd.errors import InvariantError
from coordd.messages import levels
from coordd.messages.client import AddServerRequest, Error, Info, InfoRequest, LogRequest, LogTail, ReplyBody, Written
from coordd.messages.codec import decode_peer, encode_peer
from coordd.messages.command import KvDeleteTree, KvPut, RaiseFeatureLevel
from coordd.server.levels import next_level
from tests.server.conftest import MakeDesk
from tests.server.support import Desk, until
from tests.server.words import hello, key, sid, write

NEW, OLD = 2, 1


@pytest.fixture(autouse=True)
def new_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is of the next version: it knows a kind more than the others."""
    monkeypatch.setattr(levels, "SUPPORTED", NEW)
    monkeypatch.setitem(levels.INTRODUCED, KvDeleteTree, NEW)


def say(desk: Desk, number: int, level: int, boot: int = 1) -> None:
    """The other server of this number says hello. Its acknowledgements carry boot 1."""
    said = msgspec.structs.replace(hello(desk.world.peers[number - 2]), level=level, boot=boot)
    desk.levels.heard(key(f"s{number}"), said)


def level(desk: Desk) -> int:
    return desk.world.node.machine.feature_level


def wait(desk: Desk) -> None:
    desk.side.tick(desk.now)
    desk.run()


def refusal(body: ReplyBody) -> tuple[str, str]:
    assert isinstance(body, Error), body
    return body.code, body.text


@given(st.integers(1, 5), st.lists(st.none() | st.integers(1, 5), max_size=5))
def test_the_next_level_is_the_highest_that_all_support(active: int, supported: list[int | None]) -> None:
    fit = [
        level for level in range(active + 1, 6) if supported and all(s is not None and s >= level for s in supported)
    ]
    assert next_level(active, supported) == max(fit, default=None)


def test_rule_95_the_level_rises_when_the_last_server_was_upgraded(make_desk: MakeDesk) -> None:
    desk = make_desk()
    wait(desk)
    assert sorted(desk.levels.to_ask()) == [key("s2"), key("s3")]
    say(desk, 2, NEW)
    say(desk, 3, OLD)
    assert desk.levels.to_ask() == []
    wait(desk)
    assert level(desk) == OLD
    say(desk, 3, NEW)
    wait(desk)
    assert level(desk) == NEW
    log = desk.answer(LogRequest())
    assert isinstance(log, LogTail)
    assert [record.kind for record in log.records].count("RaiseFeatureLevel") == 1
    wait(desk)
    assert desk.levels.due() is None


def test_rule_95_a_server_of_an_earlier_life_has_said_nothing(make_desk: MakeDesk) -> None:
    desk = make_desk()
    say(desk, 2, NEW)
    say(desk, 3, NEW, boot=9)  # not the life whose acknowledgements come
    assert desk.levels.to_ask() == [key("s3")]
    desk.levels.heard(key("s3"), msgspec.structs.replace(hello(sid("s3", 77)), level=NEW))  # nor is this the member
    assert desk.levels.to_ask() == [key("s3")]
    wait(desk)
    assert level(desk) == OLD


def test_rule_95_learners_count_too(make_desk: MakeDesk) -> None:
    desk = make_desk()
    say(desk, 2, OLD)
    say(desk, 3, OLD)
    number = add(desk, OLD)
    until(desk, lambda: bool(desk.told.to(number)))
    say(desk, 2, NEW)
    say(desk, 3, NEW)
    wait(desk)
    assert level(desk) == OLD


def test_nobody_is_asked_by_a_follower(make_desk: MakeDesk) -> None:
    desk = make_desk(lead=False)
    assert not desk.world.node.leading
    assert desk.levels.to_ask() == []


def test_a_refused_proposal_is_made_again(make_desk: MakeDesk) -> None:
    desk = make_desk()
    say(desk, 2, NEW)
    say(desk, 3, NEW)
    assert desk.levels.due() == RaiseFeatureLevel(desk.world.node.raft.replica.term, NEW)
    assert desk.levels.due() is None
    desk.duties.refused(RaiseFeatureLevel(1, NEW))
    wait(desk)
    assert level(desk) == NEW


def test_rule_95_a_command_above_the_level_is_refused_and_says_who_holds_it_back(make_desk: MakeDesk) -> None:
    desk = make_desk()
    say(desk, 2, OLD)
    assert refusal(desk.answer(write(KvDeleteTree("a")))) == (
        "conflict",
        "KvDeleteTree needs feature level 2, the cluster is at 1: not until every server has been upgraded:"
        " s2 supports level 1 only, s3 is not reached",
    )
    assert isinstance(desk.answer(write(KvPut("a", b""))), Written)
    say(desk, 2, NEW)
    say(desk, 3, NEW)
    assert refusal(desk.answer(write(KvDeleteTree("a"))))[0] == "busy"
    wait(desk)
    assert isinstance(desk.answer(write(KvDeleteTree("a"))), Written)


def test_rule_95_the_leader_itself_proposes_nothing_above_the_level(make_desk: MakeDesk) -> None:
    desk = make_desk()
    with pytest.raises(InvariantError, match="not all can read"):
        desk.side.api.propose(KvDeleteTree("a"), desk.now)


def test_versions_read_each_others_hellos() -> None:
    """An older one says nothing of levels, a later one may say more."""
    said = msgspec.structs.replace(hello(sid("s2")), level=NEW)
    envelope = msgspec.msgpack.decode(encode_peer("", said))
    assert envelope[2][-1] == NEW
    older = [*envelope[:2], envelope[2][:-1]]
    assert decode_peer(msgspec.msgpack.encode(older)).message == hello(sid("s2"))
    later = [*envelope[:2], [*envelope[2], "more"]]
    assert decode_peer(msgspec.msgpack.encode(later)).message == said


# --- newcomers --------------------------------------------------------------------------------------------------------


def add(desk: Desk, supported: int | None) -> int:
    number = desk.ask(AddServerRequest("s4", "10.0.0.4:8310", "10.0.0.4:8311", key("s4")))
    if supported is not None:
        desk.levels.heard(key("s4"), msgspec.structs.replace(hello(sid("s4")), level=supported))
    desk.roster.greeted(sid("s4"), key("s4"))
    desk.side.tick(desk.now)
    desk.run()
    return number


def raised(desk: Desk) -> Desk:
    say(desk, 2, NEW)
    say(desk, 3, NEW)
    wait(desk)
    assert level(desk) == NEW
    return desk


@pytest.mark.parametrize("supported", [OLD, None])
def test_rule_95_a_server_that_supports_less_is_not_added(make_desk: MakeDesk, supported: int | None) -> None:
    desk = raised(make_desk())
    (body,) = desk.told.to(add(desk, supported))
    assert refusal(body)[0] == "conflict"
    assert "supports feature level 1, the cluster is at 2: install" in refusal(body)[1]
    assert desk.world.node.configuration is not None
    assert desk.world.node.configuration.member(sid("s4")) is None


def test_rule_95_nor_while_the_raise_is_under_way(make_desk: MakeDesk) -> None:
    desk = make_desk()
    say(desk, 2, NEW)
    say(desk, 3, NEW)
    desk.world.answering = False
    desk.side.tick(desk.now)
    desk.run()
    assert level(desk) == OLD  # proposed, and not committed
    (body,) = desk.told.to(add(desk, OLD))
    assert refusal(body)[0] == "conflict"


def test_one_that_supports_as_much_is_added(make_desk: MakeDesk) -> None:
    desk = raised(make_desk())
    number = add(desk, NEW)
    until(desk, lambda: bool(desk.told.to(number)))
    (body,) = desk.told.to(number)
    assert not isinstance(body, Error), body


def test_levels_are_among_the_figures(make_desk: MakeDesk) -> None:
    desk = make_desk()
    say(desk, 2, OLD)
    info = desk.answer(InfoRequest())
    assert isinstance(info, Info)
    assert (info.figures["feature_level"], info.figures["feature_level_supported"]) == (OLD, NEW)
    assert {peer.id.partition("#")[0]: peer.level for peer in info.peers} == {"s1": NEW, "s2": OLD, "s3": 0}
