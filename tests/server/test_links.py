"""Messages between servers: addressed by identity, believed only under the right key, and put where they belong."""

from typing import Any, cast

import pytest

from coordd.messages.codec import encode_peer
from coordd.messages.peer import Beats, Heartbeat, HeartbeatResponse, PeerMessage, SnapshotChunk, SnapshotCredit
from coordd.server.links import PeerLinks
from coordd.server.observed import Observed
from coordd.server.peer_side import PeerSide
from coordd.server.roster import Contact, Roster
from coordd.types import Configuration, Member, ServerId, SnapshotMeta
from tests.server.words import hello, key, sid

ONE, TWO, THREE, FOUR = (sid(f"s{n}") for n in range(1, 5))
META = SnapshotMeta(5, 1, 0, Configuration("c1", "test", ()), 1, 3, "d")


class Sockets:
    """Stands for `PeerSockets`."""

    def __init__(self) -> None:
        self.peers: dict[ServerId, tuple[str, str]] = {}
        self.sent: list[tuple[ServerId, bytes, bool]] = []
        self.incoming: list[tuple[str, bytes]] = []
        self.full = False

    def set_peers(self, peers: dict[ServerId, tuple[str, str]]) -> None:
        self.peers = peers

    def send(self, server: ServerId, frame: bytes, bulk: bool = False) -> bool:
        self.sent.append((server, frame, bulk))
        return not self.full

    def receive(self, max_messages: int, max_bytes: int) -> list[tuple[str, bytes]]:
        found, self.incoming = self.incoming, []
        return found

    def connected_peers(self) -> frozenset[ServerId]:
        return frozenset(self.peers)


class Gate:
    accepted: frozenset[str] = frozenset()

    def accept(self, keys: Any) -> None:
        self.accepted = frozenset(keys)


class Room:
    """Links over scripted sockets."""

    def __init__(self) -> None:
        self.sockets, self.gate, self.observed = Sockets(), Gate(), Observed()
        listed = [Contact(f"s{n}", f"s{n}:1", f"s{n}:2", key(f"s{n}")) for n in (1, 2, 3)]
        self.roster = Roster(key("s1"), listed)
        self.links = PeerLinks(cast(Any, self.sockets), cast(Any, self.gate), self.roster, self.observed)

    def found(self, *servers: ServerId) -> None:
        members = (Member(s, f"{s[:2]}:1", f"{s[:2]}:2", key(s[:2]), True) for s in servers)
        self.roster.follow([Configuration("c1", "test", tuple(members))], [])
        self.links.cluster_id = "c1"
        self.links.follow_roster()

    def put_in(self, from_key: str, message: PeerMessage, cluster: str = "c1") -> None:
        self.sockets.incoming.append((key(from_key), encode_peer(cluster, message)))

    def taken(self) -> list[PeerMessage]:
        return [message for _, _, message in self.links.receive(100, 10_000)]


def beat(sender: ServerId, receiver: ServerId = ONE, term: int = 1) -> Heartbeat:
    return Heartbeat(term, sender, receiver, 1, 0, 1)


def test_who_is_let_in_is_whom_the_roster_names() -> None:
    room = Room()
    room.links.follow_roster()
    assert room.gate.accepted == {key("s2"), key("s3")}
    room.found(ONE, TWO)
    assert room.gate.accepted == {key("s2")}
    assert room.sockets.peers == {ServerId(key("s2")): ("s2:1", key("s2"))}
    assert room.links.connected([TWO, THREE]) == {TWO}


def test_messages_go_to_the_key_of_their_receiver_in_the_clusters_name() -> None:
    room = Room()
    room.found(ONE, TWO, THREE)
    assert room.links.send(beat(ONE, TWO))
    assert not room.links.send(beat(ONE, FOUR))
    assert not room.links.send(hello(ONE))
    assert room.sockets.sent == [(ServerId(key("s2")), encode_peer("c1", beat(ONE, TWO)), False)]
    room.sockets.full = True
    assert not room.links.send(beat(ONE, TWO))


def test_pieces_of_snapshots_have_a_connection_of_their_own() -> None:
    room = Room()
    room.found(ONE, TWO)
    for message in (SnapshotChunk(1, ONE, TWO, 1, META, 0, b"x"), SnapshotCredit(1, ONE, TWO, 1, "d", 0, 1)):
        room.links.send(message)
    room.links.send(beat(ONE, TWO))
    assert [bulk for _, _, bulk in room.sockets.sent] == [True, True, False]


def test_a_hello_names_no_cluster_on_its_envelope() -> None:
    room = Room()
    room.found(ONE, TWO)
    room.links.send_to_key(key("s2"), hello(ONE))
    assert room.sockets.sent[0][1] == encode_peer("", hello(ONE))


@pytest.mark.parametrize(
    ("from_key", "message", "believed"),
    [
        ("s2", beat(TWO), True),
        ("s3", beat(TWO), False),
        ("s2", beat(sid("s2", 2)), False),
        ("s4", beat(FOUR), False),
        ("s2", beat(FOUR), False),
        ("s2", Beats(TWO, ONE, ("n",)), True),
        ("s3", Beats(TWO, ONE, ("n",)), False),
        ("s3", SnapshotChunk(1, TWO, ONE, 1, META, 0, b"x"), False),
        ("s3", SnapshotCredit(1, TWO, ONE, 1, "d", 0, 1), False),
        ("s3", HeartbeatResponse(1, TWO, ONE, 1, 1, 1), False),
        ("s2", hello(sid("s2", 2)), True),
        ("s3", hello(TWO), False),
        ("s4", hello(FOUR), False),
    ],
)
def test_what_claims_to_be_somebody_elses_is_dropped_and_counted(
    from_key: str, message: PeerMessage, believed: bool
) -> None:
    room = Room()
    room.found(ONE, TWO, THREE)
    room.put_in(from_key, message)
    assert room.taken() == ([message] if believed else [])
    assert room.observed.dropped == (0 if believed else 1)


def test_unreadable_messages_are_dropped_and_counted_and_do_not_hide_others() -> None:
    room = Room()
    room.found(ONE, TWO)
    room.sockets.incoming.append((key("s2"), b"garbage"))
    room.put_in("s2", beat(TWO))
    assert room.taken() == [beat(TWO)]
    assert room.observed.dropped == 1


# --- who gets what ----------------------------------------------------------------------------------------------------


class Heard:
    """Stands for node, greetings, snapshots, beats, store and log: what was called, with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **given: self.calls.append((name, arguments[0] if arguments else given))


def side(room: Room) -> tuple[PeerSide, Heard]:
    heard = cast(Any, Heard())
    return (
        PeerSide(
            me=ONE,
            node=heard,
            links=room.links,
            roster=room.roster,
            greetings=heard,
            snapshots=heard,
            care=heard,
            beats=heard,
            observed=room.observed,
            store=heard,
            log=heard,
        ),
        heard,
    )


def test_each_message_goes_where_it_belongs() -> None:
    room = Room()
    room.found(ONE, TWO, THREE)
    peers, heard = side(room)
    messages: dict[str, PeerMessage] = {
        "receive": beat(TWO),
        "taken": Beats(TWO, ONE, ("n",)),
        "chunk": SnapshotChunk(1, TWO, ONE, 1, META, 0, b"x"),
        "credited": SnapshotCredit(1, TWO, ONE, 1, "d", 0, 1),
    }
    for message in messages.values():
        room.put_in("s2", message)
    peers.take_in(lambda: 1.0)
    assert heard.calls == list(messages.items())
    room.put_in("s2", hello(TWO))
    peers.take_in(lambda: 1.0)
    assert heard.calls[-1] == ("heard", key("s2"))


def test_rule_60_a_message_is_heard_when_it_is_here_not_when_the_loop_began_to_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process stands still in between; what came meanwhile was sent meanwhile, and its sender counts from then."""
    room = Room()
    room.found(ONE, TWO, THREE)
    peers, _ = side(room)
    times = []
    receive, clock = room.sockets.receive, [1.0]

    def late(*limits: int) -> list[tuple[str, bytes]]:
        clock[0] = 9.0
        return receive(*limits)

    monkeypatch.setattr(room.sockets, "receive", late)
    monkeypatch.setattr(peers, "_take", lambda key, cluster, message, now: times.append(now))
    room.put_in("s2", beat(TWO))
    peers.take_in(lambda: clock[0])
    assert times == [9.0]


@pytest.mark.parametrize(("message", "cluster"), [(beat(TWO, sid("s1", 2)), "c1"), (beat(TWO), "c2"), (beat(TWO), "")])
def test_messages_for_another_life_or_cluster_reach_nobody_and_are_told_once(message: Heartbeat, cluster: str) -> None:
    room = Room()
    room.found(ONE, TWO, THREE)
    peers, heard = side(room)
    for _ in range(3):
        room.put_in("s2", message, cluster)
        peers.take_in(lambda: 1.0)
    assert [name for name, _ in heard.calls] == ["warning"]
    assert room.observed.dropped == 3


def test_before_it_has_a_cluster_a_server_follows_a_listed_one_that_means_it() -> None:
    room = Room()
    peers, heard = side(room)
    room.put_in("s2", beat(TWO, sid("s1", 9)), "old")  # meant for what this server was before its disk was wiped
    peers.take_in(lambda: 1.0)
    assert room.links.cluster_id == ""
    room.put_in("s2", beat(TWO), "c1")
    peers.take_in(lambda: 1.0)
    assert room.links.cluster_id == "c1"
    assert heard.calls[-1] == ("receive", beat(TWO))
