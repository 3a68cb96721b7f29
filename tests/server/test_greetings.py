"""Hellos: identities are learned, answered and used for founding; a server of another cluster is told of once."""

from typing import Any, cast

import pytest

from coordd.errors import ConfigError, RequestError
from coordd.messages.client import Reply, ServerInfo, Servers
from coordd.messages.codec import encode_reply
from coordd.messages.peer import Hello, PeerMessage
from coordd.raft.output import Accepted, Refusal
from coordd.server.founding import Founding
from coordd.server.greetings import Greetings
from coordd.server.roster import Contact, Roster
from coordd.types import Configuration, Member
from tests.server.words import hello, key, sid

ONE, TWO, THREE = (sid(f"s{n}") for n in range(1, 4))


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **facts: self.lines.append((level, event))


class Around:
    """Links, node and operator as the greetings use them."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.said: list[tuple[str, PeerMessage]] = []
        self.roster = Roster(key("s1"), [Contact(f"s{n}", f"s{n}:1", f"s{n}:2", key(f"s{n}")) for n in (1, 2, 3)])
        self.founding = Founding(hello(ONE))
        self.levels = _Levels()
        self.log = Log()
        self.founding_asked = False
        self.outcomes: list[str] = []
        self.answer: Accepted | Refusal = Accepted(1, 1, 1)
        self.founded_with: list[Configuration] = []
        self.followed = 0
        self.greetings = Greetings(
            me=hello(ONE),
            node=cast(Any, _Node(self)),
            links=cast(Any, self),
            roster=self.roster,
            founding=self.founding,
            levels=cast(Any, self.levels),
            operator=cast(Any, self),
            join=None,
            context=cast(Any, None),
            log=cast(Any, self.log),
        )

    def contacts(self) -> list[str]:
        return list(self.roster.contacts())

    def send_to_key(self, to: str, message: PeerMessage) -> bool:
        self.said.append((to, message))
        return True

    def follow_roster(self) -> None:
        self.followed += 1

    def founded(self) -> None:
        self.outcomes.append("founded")

    def founding_failed(self, error: RequestError) -> None:
        self.founding_asked = False
        self.outcomes.append(error.code)


class _Levels:
    """Of members: who has not told."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.told: list[str] = []

    def heard(self, key: str, hello: Hello) -> None:
        self.told.append(key)

    def to_ask(self) -> list[str]:
        return self.unknown


class _Node:
    def __init__(self, around: Around) -> None:
        self._around = around
        self.raft = self
        self.replica = self
        self.log = self
        self.last = 0

    def found(self, event: Any, now: float) -> Accepted | Refusal:
        self._around.founded_with.append(event.configuration)
        return self._around.answer


@pytest.fixture
def around() -> Around:
    return Around()


def greeted(around: Around) -> list[str]:
    said, around.said = around.said, []
    return sorted(to for to, message in said if isinstance(message, Hello) and not message.answer)


def test_everybody_listed_is_greeted_now_and_then(around: Around) -> None:
    around.greetings.turn(10.0)
    assert greeted(around) == [key("s2"), key("s3")]
    around.greetings.turn(10.1)
    assert greeted(around) == []
    around.greetings.turn(10.3)
    assert greeted(around) == [key("s2"), key("s3")]


def test_with_a_configuration_only_who_is_to_be_added_is_greeted(around: Around) -> None:
    members = (Member(ONE, "s1:1", "s1:2", key("s1"), True), Member(TWO, "s2:1", "s2:2", key("s2"), True))
    around.roster.follow([Configuration("c1", "test", members)], [])
    around.roster.expect(Contact("s4", "s4:1", "s4:2", key("s4")))
    around.greetings.turn(10.0)
    assert greeted(around) == [key("s4")]


def test_members_that_have_not_told_their_feature_level_are_greeted(around: Around) -> None:
    members = (Member(ONE, "s1:1", "s1:2", key("s1"), True), Member(TWO, "s2:1", "s2:2", key("s2"), True))
    around.roster.follow([Configuration("c1", "test", members)], [])
    around.levels.unknown = [key("s2"), key("s9")]
    around.greetings.turn(10.0)
    assert greeted(around) == [key("s2")]
    around.greetings.heard(key("s2"), hello(TWO))
    assert around.levels.told == [key("s2")]


def test_a_hello_is_answered_once_and_an_answer_is_not(around: Around) -> None:
    around.greetings.heard(key("s2"), hello(TWO))
    ((to, answer),) = around.said
    assert isinstance(answer, Hello)
    assert (to, answer.answer, answer.sender) == (key("s2"), True, ONE)
    around.greetings.heard(key("s2"), answer)
    assert len(around.said) == 1
    assert around.roster.identity_under(key("s2")) == ONE


def test_a_stranger_is_told_of_once(around: Around) -> None:
    around.cluster_id = "c1"
    for _ in range(3):
        around.greetings.heard(key("s2"), hello(TWO, cluster="c2"))
    around.greetings.heard(key("s3"), hello(THREE, cluster_name="other"))
    around.greetings.heard(key("s3"), hello(THREE, cluster="c1"))
    assert around.log.lines == [("warning", "server of another cluster")] * 2


def hear_all(around: Around) -> None:
    around.greetings.heard(key("s2"), hello(TWO))
    around.greetings.heard(key("s3"), hello(THREE))


def test_nothing_is_founded_unless_asked_and_before_all_were_heard(around: Around) -> None:
    around.greetings.turn(10.0)
    around.greetings.heard(key("s2"), hello(TWO))
    around.founding_asked = True
    around.greetings.turn(11.0)
    assert around.founded_with == []
    around.founding_asked = False
    hear_all(around)
    around.greetings.turn(12.0)
    assert around.founded_with == []
    around.founding_asked = True
    around.greetings.turn(13.0)
    (configuration,) = around.founded_with
    assert configuration.voters == (ONE, TWO, THREE)
    assert around.outcomes == ["founded"]


def test_a_founding_that_cannot_be_is_told_and_not_tried_for_ever(around: Around) -> None:
    around.founding_asked = True
    around.greetings.heard(key("s2"), hello(TWO, cluster="c9"))
    around.greetings.heard(key("s3"), hello(THREE))
    around.greetings.turn(10.0)
    around.greetings.turn(11.0)
    assert around.outcomes == ["conflict"]
    assert around.founded_with == []


def test_a_founding_that_the_core_refuses_is_told(around: Around) -> None:
    around.founding_asked = True
    around.answer = Refusal.HAS_LOG
    hear_all(around)
    around.greetings.turn(10.0)
    around.greetings.turn(11.0)
    assert around.outcomes == ["conflict"]


# --- joining ----------------------------------------------------------------------------------------------------------


def servers(cluster: str, name: str) -> bytes:
    rows = tuple(ServerInfo(sid(f"s{n}"), f"s{n}:1", f"s{n}:2", key(f"s{n}"), True, n == 1) for n in (7, 8))
    return encode_reply(Reply(1, Servers(cluster, name, rows)))


def test_the_list_of_a_member_is_taken_over(around: Around) -> None:
    around.greetings._take_list(servers("c1", "test"))
    assert set(around.contacts()) == {key("s7"), key("s8")}
    assert around.followed == 1


def test_the_list_of_a_server_without_a_cluster_is_not(around: Around) -> None:
    around.greetings._take_list(servers("", "test"))
    assert set(around.contacts()) == {key("s2"), key("s3")}


def test_joining_a_cluster_of_another_name_ends_with_both_names(around: Around) -> None:
    with pytest.raises(ConfigError, match=r"belongs to cluster other, cluster_name is test"):
        around.greetings._take_list(servers("c1", "other"))


def test_an_unreadable_list_is_told_of(around: Around) -> None:
    around.greetings._take_list(b"garbage")
    assert around.log.lines == [("warning", "unreadable list of servers")]
