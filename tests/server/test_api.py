"""Every request kind through the one door: who may, what the answer is, and that nothing a client sends can hurt."""

from hashlib import sha256
from typing import Any, get_args

import msgspec
import pytest

from coordd.messages import command as c
from coordd.messages import query as q
from coordd.messages.client import (
    AddServerRequest,
    AgentBeat,
    BeatTaken,
    Body,
    BootstrapRequest,
    Credit,
    Error,
    Info,
    InfoRequest,
    Keepalive,
    LogRequest,
    LogTail,
    MoveServerRequest,
    Ok,
    Read,
    ReadResult,
    RemoveServerRequest,
    Renewed,
    RenewSession,
    ReplyBody,
    Request,
    Servers,
    ServersRequest,
    Subscribe,
    TransferRequest,
    Unsubscribe,
    View,
    Write,
    Written,
)
from coordd.messages.codec import MAX_COMMAND_BYTES, encode_request
from tests.server.conftest import MakeDesk
from tests.server.support import Desk, until
from tests.server.words import key, write

ROOT, NOBODY, USER = "root-secret-0001", "nobody-secret-0002", "user-secret-0003"
SECRETS = (ROOT, NOBODY, USER)
RULES = '{"key_prefix": {"mine/": "write"}, "node": {"n1": "write"}, "session": {"n1": "write"}}'


def hashed(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def secured(make_desk: MakeDesk) -> Desk:
    """ACLs are on. ROOT may do everything, NOBODY nothing, USER a little. There are a node, a service, a session, a key."""
    desk: Desk = make_desk()
    commands: list[c.Command] = [
        c.AclBootstrap("root", hashed(ROOT)),
        c.AclPutPolicy("some", RULES),
        c.AclPutToken("nobody", hashed(NOBODY)),
        c.AclPutToken("user", hashed(USER), ("some",)),
        c.Register("n1", "10.1.1.1", services=(c.ServiceDefinition("web1", "web"),)),
        c.CreateSession("session1", "n1", ttl_ms=20_000, node_checks=()),
        c.KvPut("mine/a", b"1"),
        c.KvPut("other/a", b"1"),
    ]
    for command in commands:
        body = desk.answer(write(command), token=ROOT)
        assert isinstance(body, Written), body
        assert isinstance(body.result, c.Done), body
    return desk


def code(body: ReplyBody) -> str:
    return body.code if isinstance(body, Error) else type(body).__name__


COMMANDS: dict[type, c.Command] = {
    type(command): command
    for command in (
        c.KvPut("other/a", b"2"),
        c.KvDelete("other/a"),
        c.KvDeleteTree("mi"),  # everything beneath, not only what the token may write
        c.Register("n2", "10.1.1.2"),
        c.Deregister("n1"),
        c.SetNodeStatus(1, (c.NodeStatus("n1", "passing"),)),
        c.CreateSession("session2", "n1"),
        c.DestroySession("session1"),
        c.ExpireSessions(1, (("session1", 1),)),
        c.LockAcquire("lock", "session1"),
        c.LockRelease("lock", 1),
        c.LockCancel("lock", "session1"),
        c.RegisterClient(),
        c.ExpireClients(1, (1,)),
        c.AclBootstrap("again", bytes(32)),
        c.AclPutPolicy("p", "{}"),
        c.AclDeletePolicy("some"),
        c.AclPutToken("t", bytes(32)),
        c.AclDeleteToken("root"),
        c.RaiseFeatureLevel(1, 1),
    )
}
FREE_COMMANDS = {c.AclBootstrap}
"""It asks for no permission: it works once, and is refused when it is applied."""
INTERNAL = {c.SetNodeStatus, c.ExpireSessions, c.ExpireClients, c.RaiseFeatureLevel}

QUERIES: dict[type, q.Query] = {
    type(query): query
    for query in (
        q.KvGet("other/a"),
        q.KvList(""),
        q.ListNodes(),
        q.NodeCatalog("n1"),
        q.ListServices(),
        q.ServiceHealth("web"),
        q.ListChecks(),
        q.ListSessions(),
        q.ListLocks(),
        q.ListPolicies(),
        q.ListTokens(),
        q.ResolveToken(),
    )
}
ASKING = {q.KvGet, q.ListPolicies, q.ListTokens}
"""Queries that are refused without a permission; in the others the rows one may not see are left out."""

BODIES: dict[type, tuple[Body, str]] = {
    Write: (write(c.KvPut("other/a", b"2")), "denied"),
    Read: (Read(q.KvGet("other/a")), "denied"),
    Subscribe: (Subscribe(1, q.KvGet("other/a")), "denied"),
    Credit: (Credit(1), ""),
    Unsubscribe: (Unsubscribe(1), "Ok"),
    Keepalive: (Keepalive(), "not-found"),
    RenewSession: (RenewSession("session1"), "denied"),
    AgentBeat: (AgentBeat("n1"), "denied"),
    ServersRequest: (ServersRequest(), "Servers"),
    InfoRequest: (InfoRequest(), "denied"),
    BootstrapRequest: (BootstrapRequest(), "denied"),
    AddServerRequest: (AddServerRequest("s4", "10.0.0.4:1", "10.0.0.4:2", key("s4")), "denied"),
    RemoveServerRequest: (RemoveServerRequest("s2"), "denied"),
    MoveServerRequest: (MoveServerRequest("s2", "10.1.0.2:1"), "denied"),
    TransferRequest: (TransferRequest(), "denied"),
    LogRequest: (LogRequest(), "denied"),
}
"""Each kind of request, and what somebody without rights is told."""


def test_the_tables_name_every_kind() -> None:
    assert set(COMMANDS) == set(get_args(c.Command))
    assert set(QUERIES) == set(get_args(q.Query))
    assert set(BODIES) == set(get_args(Body))


def state(desk: Desk) -> list[bytes]:
    """Everything but the position in the log."""
    connection = desk.world.node.machine._connection
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    keep = sorted(name for name in tables if name not in ("meta", "digests", "clients"))
    return [repr(connection.execute(f"SELECT * FROM {name}").fetchall()).encode() for name in keep]


@pytest.mark.parametrize("token", [NOBODY, ""])
@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
def test_no_command_passes_without_its_permission(make_desk: MakeDesk, kind: type, token: str) -> None:
    desk = secured(make_desk)
    before, last = state(desk), desk.world.node.raft.replica.log.last
    body = desk.answer(write(COMMANDS[kind]), token=token)
    if kind in FREE_COMMANDS:
        assert code(body) == "Written"
    else:
        assert code(body) == "denied"
        assert desk.world.node.raft.replica.log.last == last  # refused before it was proposed
    assert state(desk) == before
    assert not any(secret in repr(body) for secret in SECRETS)


@pytest.mark.parametrize("kind", sorted(INTERNAL, key=str), ids=lambda kind: kind.__name__)
def test_what_only_a_leader_proposes_is_denied_even_to_a_management_token(make_desk: MakeDesk, kind: type) -> None:
    assert code(secured(make_desk).answer(write(COMMANDS[kind]), token=ROOT)) == "denied"


@pytest.mark.parametrize("kind", sorted(set(COMMANDS) - INTERNAL, key=str))
def test_a_management_token_may_do_the_rest(make_desk: MakeDesk, kind: type) -> None:
    assert code(secured(make_desk).answer(write(COMMANDS[kind]), token=ROOT)) == "Written"


@pytest.mark.parametrize("consistency", ["default", "consistent", "stale", "subscription"])
@pytest.mark.parametrize("kind", QUERIES, ids=lambda kind: kind.__name__)
def test_no_query_shows_what_a_token_may_not_see(make_desk: MakeDesk, kind: type, consistency: Any) -> None:
    desk = secured(make_desk)
    asked = Subscribe(1, QUERIES[kind]) if consistency == "subscription" else Read(QUERIES[kind], consistency)
    body = desk.answer(asked, token=NOBODY)
    if kind in ASKING:
        assert code(body) == "denied"
    elif kind is not q.ResolveToken:
        assert isinstance(body, ReadResult | View)
        (rows,) = msgspec.structs.astuple(body.value)
        assert rows == ()
    whole = desk.answer(
        Subscribe(2, QUERIES[kind]) if consistency == "subscription" else Read(QUERIES[kind], consistency), token=ROOT
    )
    assert isinstance(whole, ReadResult | View)
    if kind not in (q.ListLocks, q.ListChecks):
        assert msgspec.structs.astuple(whole.value)[0] != ()
    assert not any(secret in repr(shown) for shown in (body, whole) for secret in SECRETS)


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
def test_each_kind_of_request_is_judged(make_desk: MakeDesk, kind: type) -> None:
    desk = secured(make_desk)
    body, expected = BODIES[kind]
    number = desk.ask(body, token=NOBODY)
    answers = desk.told.to(number)
    assert [code(answer) for answer in answers] == ([expected] if expected else [])


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
def test_an_unknown_token_is_refused_and_never_repeated(make_desk: MakeDesk, kind: type) -> None:
    desk = secured(make_desk)
    guess = "guess-secret-9999"
    number = desk.ask(BODIES[kind][0], token=guess)
    free = (Credit, Unsubscribe, Keepalive, ServersRequest)
    answers = [code(answer) for answer in desk.told.to(number)]
    assert answers == ([BODIES[kind][1]] if BODIES[kind][1] and kind in free else [] if kind is Credit else ["denied"])
    assert guess not in repr(desk.told.bodies)


def test_a_denied_writer_is_told_what_is_missing(make_desk: MakeDesk) -> None:
    body = secured(make_desk).answer(write(c.KvPut("other/a", b"2")), token=USER)
    assert isinstance(body, Error)
    assert body.text == 'permission denied: key:write on "other/a" is needed'


def test_a_narrow_token_may_do_just_that(make_desk: MakeDesk) -> None:
    desk = secured(make_desk)
    assert code(desk.answer(write(c.KvPut("mine/b", b"2")), token=USER)) == "Written"
    assert code(desk.answer(AgentBeat("n1"), token=USER)) == "BeatTaken"
    assert code(desk.answer(AgentBeat("n2"), token=USER)) == "denied"
    assert code(desk.answer(RenewSession("session1"), token=USER)) == "Renewed"


def test_before_bootstrap_everything_is_allowed_but_what_only_leaders_do(make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert code(desk.answer(write(c.KvPut("a", b"1")))) == "Written"
    assert code(desk.answer(InfoRequest())) == "Info"
    assert code(desk.answer(write(c.ExpireClients(1, ())))) == "denied"


# --- writes -----------------------------------------------------------------------------------------------------------


def test_a_write_is_answered_when_it_is_applied(make_desk: MakeDesk) -> None:
    desk = make_desk()
    number = desk.put_in(write(c.KvPut("a", b"1")))
    desk.turn()
    assert desk.told.to(number) == []
    desk.run()
    (body,) = desk.told.to(number)
    assert isinstance(body, Written)


def test_a_numbered_write_takes_effect_once(make_desk: MakeDesk) -> None:
    desk = make_desk()
    registered = desk.answer(write(c.RegisterClient("me")))
    assert isinstance(registered, Written)
    client = registered.result.index
    bodies = [desk.answer(write(c.KvPut("a", b"1"), client=client, number=1, lowest=1)) for _ in range(3)]
    assert bodies[0] == bodies[1] == bodies[2]
    assert code(desk.answer(write(c.RegisterClient(), client=client, number=2, lowest=1))) == "invalid"


@pytest.mark.parametrize("field", ["client", "number", "lowest"])
@pytest.mark.parametrize("number", [-1, -(1 << 63), 1 << 63, (1 << 64) - 1])
def test_numbers_out_of_range_are_refused_and_harm_nobody(make_desk: MakeDesk, field: str, number: int) -> None:
    desk = make_desk()
    body = desk.answer(write(c.KvPut("a", b"1"), **{"client": 1, "number": 1, "lowest": 1, field: number}))
    assert code(body) == "invalid"
    assert code(desk.answer(write(c.KvPut("a", b"1")))) == "Written"


def test_a_deadline_that_has_passed_proposes_nothing(make_desk: MakeDesk) -> None:
    desk = make_desk()
    last = desk.world.node.raft.replica.log.last
    for budget in (0, -5):
        assert code(desk.answer(write(c.KvPut("a", b"1")), budget_ms=budget)) == "timed-out"
    assert desk.world.node.raft.replica.log.last == last


def test_a_write_that_nobody_confirms_is_unknown_at_its_deadline(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.answering = False
    number = desk.ask(write(c.KvPut("a", b"1")), budget_ms=100)
    assert desk.told.to(number) == []
    desk.pass_time(0.2)
    assert [code(body) for body in desk.told.to(number)] == ["outcome-unknown"]


def test_a_write_is_unknown_when_leadership_goes(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.answering = False
    number = desk.ask(write(c.KvPut("a", b"1")))
    desk.world.depose()
    desk.run()
    assert [code(body) for body in desk.told.to(number)] == ["outcome-unknown"]


def test_a_follower_names_the_leader(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.world.depose()
    for body in (write(c.KvPut("a", b"1")), Read(q.KvGet("a")), RenewSession("s"), Keepalive(5)):
        answer = desk.answer(body)
        assert isinstance(answer, Error)
        assert (answer.code, answer.hint) == ("not-leader", "10.0.0.2:8311")


@pytest.mark.parametrize("command", [b"\xc0", msgspec.msgpack.encode(["zz", 1]), b"\x91\xa2kp", b"\x05"])
def test_an_unreadable_command_is_refused(make_desk: MakeDesk, command: bytes) -> None:
    assert code(make_desk().answer(Write(msgspec.Raw(command)))) == "invalid"


def test_a_command_that_is_too_large_is_refused_with_both_numbers(make_desk: MakeDesk) -> None:
    body = make_desk().answer(write(c.KvPut("a", bytes(MAX_COMMAND_BYTES))))
    assert isinstance(body, Error)
    assert body.code == "invalid"
    assert str(MAX_COMMAND_BYTES) in body.text


@pytest.mark.parametrize("frame", [b"", b"\x00", b"\xff" * 100, encode_request(Request(99, 1, "", 1, Credit(1)))])
def test_what_is_no_request_is_dropped(make_desk: MakeDesk, frame: bytes) -> None:
    desk = make_desk()
    desk.mailbox.frames.append((b"c", frame))
    desk.run()
    assert desk.told.bodies == []


def test_clients_are_held_up_while_too_many_writes_wait(make_desk: MakeDesk) -> None:
    desk = make_desk(pending_writes=16)
    desk.world.answering = False
    for _ in range(16):
        desk.put_in(write(c.KvPut("a", b"1")))
    desk.turn()
    assert desk.side.full
    number = desk.put_in(write(c.KvPut("a", b"2")))
    desk.turn()
    assert desk.mailbox.frames  # not even looked at
    desk.world.answering = True
    for _ in range(10):
        desk.world.persist()
        desk.world.let_peers_answer()
        desk.turn()
    assert [code(body) for body in desk.told.to(number)] == ["Written"]


# --- signs of life ----------------------------------------------------------------------------------------------------


def test_a_session_is_renewed_only_by_a_leader_that_is_sure_of_it(make_desk: MakeDesk) -> None:
    """Under its lease at once; else after a round of its own, since a lease may be gone for the rest of a term."""
    desk = make_desk()
    desk.write(c.CreateSession("s", "", ttl_ms=20_000, node_checks=()))
    assert desk.answer(RenewSession("s")) == Renewed(20_000)
    leading = desk.world.node.raft.replica.leading
    assert leading is not None
    leading.lease_until, leading.lease_forfeited = 0.0, True
    assert desk.answer(RenewSession("s")) == Renewed(20_000)
    desk.world.answering = False
    number = desk.ask(RenewSession("s"))
    assert desk.told.to(number) == [], "nobody confirms that it leads"


def test_an_expired_session_ends_in_the_state_and_is_not_renewed(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(c.CreateSession("s", "", ttl_ms=10_000, node_checks=()))
    desk.pass_time(9.0)
    assert code(desk.answer(RenewSession("s"))) == "Renewed"
    desk.pass_time(9.5)
    assert code(desk.answer(RenewSession("s"))) == "Renewed"
    until(desk, lambda: not desk.world.node.machine.sessions_alive(), 12.0)
    assert code(desk.answer(RenewSession("s"))) == "not-found"


def test_an_expiry_that_was_refused_happens_later(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(c.CreateSession("s", "", ttl_ms=10_000, node_checks=()))
    desk.pass_time(9.0)
    desk.world.node._log_full = True
    desk.pass_time(3.0)
    assert desk.world.node.machine.sessions_alive()
    assert code(desk.answer(RenewSession("s"))) == "not-found"
    desk.world.node._log_full = False
    until(desk, lambda: not desk.world.node.machine.sessions_alive(), 2.0)


def test_a_new_leader_gives_a_full_ttl(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(c.CreateSession("s", "", ttl_ms=10_000, node_checks=()))
    desk.pass_time(9.0)
    desk.world.depose()
    desk.world.answering = True
    desk.pass_time(3.0)
    desk.lead()
    desk.pass_time(6.0)
    assert desk.world.node.machine.sessions_alive()
    until(desk, lambda: not desk.world.node.machine.sessions_alive(), 8.0)


def test_a_keepalive_tells_whose_subscriptions_are_gone(make_desk: MakeDesk) -> None:
    desk = make_desk(watch_idle_ms=5_000)
    desk.ask(Subscribe(1, q.KvGet("a")))
    desk.pass_time(4.0)
    assert desk.answer(Keepalive()) == Ok()
    desk.pass_time(4.0)
    assert desk.answer(Keepalive()) == Ok()
    desk.pass_time(6.0)
    assert code(desk.answer(Keepalive())) == "not-found"


def test_a_server_that_is_cut_off_sends_its_subscribers_away(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.ask(Subscribe(1, q.KvGet("a")))
    desk.world.depose()
    desk.run()
    desk.world.answering = False
    assert desk.answer(Keepalive()) == Ok()
    desk.pass_time(4.0)
    assert desk.answer(Keepalive()) == Ok()
    desk.pass_time(2.0)
    assert code(desk.answer(Keepalive())) == "no-leader"


def test_a_registration_is_kept_alive_and_expires_in_silence(make_desk: MakeDesk) -> None:
    desk = make_desk()
    bodies = [desk.answer(write(c.RegisterClient())) for _ in range(2)]
    kept, _ = (body.result.index for body in bodies if isinstance(body, Written))
    for _ in range(9):
        desk.pass_time(10.0)
        assert desk.answer(Keepalive(kept)) == Ok()
    assert desk.world.node.machine.clients_alive() == [kept]


def test_beats_make_a_node_pass_and_their_silence_makes_it_critical(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.write(c.Register("n1", "10.1.1.1"))
    assert isinstance(desk.answer(AgentBeat("n1")), BeatTaken)
    until(desk, lambda: desk.world.node.machine.nodes_alive() == {"n1": True}, 2.0)
    until(desk, lambda: desk.world.node.machine.nodes_alive() == {"n1": False}, 7.0)
    assert isinstance(desk.answer(AgentBeat("n1")), BeatTaken)
    until(desk, lambda: desk.world.node.machine.nodes_alive() == {"n1": True}, 2.0)


def test_beats_go_on_to_the_leader_and_are_not_kept_for_a_later_one(make_desk: MakeDesk) -> None:
    desk = make_desk(lead=False)
    desk.answer(AgentBeat("n1"))
    desk.relay.turn()
    assert desk.beats == []
    desk.world.depose(5)
    desk.run()
    desk.relay.turn()
    assert desk.beats == []
    for node in ("n2", "n1", "n2"):
        desk.answer(AgentBeat(node))
    desk.relay.turn()
    desk.relay.turn()
    assert [(beats.receiver, beats.nodes) for beats in desk.beats] == [(desk.world.peers[0], ("n1", "n2"))]


def test_the_time_of_locks_goes_on_without_any_other_command(make_desk: MakeDesk) -> None:
    desk = make_desk()
    for session in ("one", "two"):
        desk.write(c.CreateSession(session, "", ttl_ms=60_000, lock_delay_ms=2_000, node_checks=()))
    desk.write(c.LockAcquire("l", "one"))
    desk.write(c.LockAcquire("l", "two", wait_ms=60_000))
    desk.write(c.DestroySession("one"))

    def holder() -> str:
        body = desk.answer(Read(q.ListLocks()))
        assert isinstance(body, ReadResult)
        assert isinstance(body.value, q.Locks)
        return body.value.locks[0].holder

    assert holder() == ""
    until(desk, lambda: holder() == "two", 4.0)


# --- about the cluster ------------------------------------------------------------------------------------------------


def test_servers_and_info_are_told(make_desk: MakeDesk) -> None:
    desk = make_desk()
    servers, info = desk.answer(ServersRequest()), desk.answer(InfoRequest())
    assert isinstance(servers, Servers)
    assert (servers.cluster_id, servers.cluster_name) == ("c1", "test")
    assert [(s.id.partition("#")[0], s.leader, s.voter) for s in servers.servers] == [
        ("s1", True, True),
        ("s2", False, True),
        ("s3", False, True),
    ]
    assert isinstance(info, Info)
    assert info.figures["role"] == "leader"
    assert info.figures["extra"] == 1
    assert [peer.role for peer in info.peers] == ["leader", "voter", "voter"]
    assert isinstance(desk.answer(LogRequest()), LogTail)
