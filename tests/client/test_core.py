"""The core alone: a clock that the test turns, servers that are names, frames that the test answers."""

import random

import msgspec
import pytest

from coordd.client.calls import Call
from coordd.client.core import MAX_CALLS, ClientCore
from coordd.client.exchange import Send
from coordd.client.numbering import MAX_WINDOW
from coordd.client.servers import ServerList
from coordd.errors import BusyError, NoLeaderError, OutcomeUnknownError, RequestError, TimedOutError
from coordd.messages.client import (
    Body,
    Credit,
    Error,
    InfoRequest,
    Keepalive,
    Ok,
    Read,
    ReadResult,
    Reply,
    ReplyBody,
    Request,
    ServerInfo,
    Servers,
    ServersRequest,
    Subscribe,
    TransferRequest,
    View,
    Write,
    Written,
)
from coordd.messages.codec import decode_request, encode_reply
from coordd.messages.command import Done, Failure, KvPut, RegisterClient, command_decoder, encode
from coordd.messages.query import KvGet, KvPairs
from coordd.types import ServerId

READ = Read(KvGet("k"))
FOUND = ReadResult(5, KvPairs(()))


def put(key: str = "k") -> Write:
    return Write(msgspec.Raw(encode(KvPut(key, b"v"))))


class World:
    """A core with its clock. `now` moves only by `wait`; what it sends lies in `sent` until it is answered or not."""

    def __init__(self, *servers: str, seed: int = 1, connect: bool = True) -> None:
        self.now = 1000.0
        self.core = ClientCore({each: "key-" + each for each in servers}, self.now, rng=random.Random(seed))
        self.sent: list[tuple[str, Request]] = []
        self.done: dict[Call, ReplyBody | RequestError] = {}
        if connect:
            for each in servers:
                self.core.connected(each, self.now)
        self.fetch()

    def fetch(self) -> list[tuple[str, Request]]:
        """What the core sends now, but for its questions for the list of servers."""
        fresh = []
        for send in self.core.take_sends(self.now):
            request = decode_request(send.frame)
            if not isinstance(request.body, ServersRequest):
                fresh.append((send.server, request))
        self.sent += fresh
        self.done.update(self.core.take_completed())
        return fresh

    def one(self) -> tuple[str, Request]:
        [only] = self.fetch()
        return only

    def submit(self, body: Body, timeout: float = 10.0, numbered: bool = False) -> Call:
        return self.core.submit(body, self.now, timeout=timeout, numbered=numbered)

    def reply(self, server: str, request: Request, body: ReplyBody) -> None:
        self.core.received(server, encode_reply(Reply(request.id, body)), self.now)
        self.done.update(self.core.take_completed())

    def wait(self, seconds: float) -> None:
        """Let time pass, with every tick that the core asks for."""
        end = self.now + seconds
        while (due := self.core.next_deadline) is not None and due <= end:
            self.now = max(self.now, due)
            self.core.tick(self.now)
            self.fetch()
        self.now = end
        self.core.tick(self.now)
        self.fetch()

    def registered(self, client: int = 77) -> None:
        """The registration that the last numbered write asked for."""
        server, request = self.one()
        assert isinstance(request.body, Write)
        command = command_decoder.decode(request.body.command)
        assert isinstance(command, RegisterClient)
        assert command.id > 0, "an identity that nobody can guess"
        assert request.body.client == 0
        self.reply(server, request, Written(Done(client)))

    def error(self, call: Call) -> RequestError:
        result = self.done[call]
        assert isinstance(result, RequestError)
        return result


def written(request: Request) -> Write:
    assert isinstance(request.body, Write)
    return request.body


# --- reads and deadlines ------------------------------------------------------------------------------------------------


def test_a_read_is_answered() -> None:
    world = World("a")
    call = world.submit(READ)
    server, request = world.one()
    world.reply(server, request, FOUND)
    assert world.done == {call: FOUND}


def test_a_request_waits_for_the_first_connection() -> None:
    world = World("a", connect=False)
    world.submit(READ)
    assert not world.fetch()
    world.core.connected("a", world.now)
    assert world.one()[1].body == READ


def test_each_attempt_carries_less_time() -> None:
    world = World("a", "b", "c")
    world.submit(READ, timeout=10)
    _, first = world.one()
    assert first.budget_ms == 10_000
    world.wait(6.0)
    budgets = [request.budget_ms for _, request in world.sent]
    assert len(budgets) >= 3
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[1] == 9_000
    assert budgets[2] == 7_000


def test_an_unanswered_read_goes_to_another_server_and_any_answer_counts() -> None:
    world = World("a", "b", "c")
    call = world.submit(READ)
    first, request = world.one()
    world.wait(1.0)
    second, _ = world.sent[-1]
    assert second != first
    world.reply(first, request, FOUND)
    assert world.done == {call: FOUND}
    world.wait(20)
    assert len(world.sent) == 2


def test_an_answer_counts_only_from_the_server_that_was_asked() -> None:
    world = World("a", "b")
    world.submit(READ)
    server, request = world.one()
    world.reply("b" if server == "a" else "a", request, FOUND)
    assert not world.done
    world.core.received(server, b"\xc1 no frame", world.now)
    world.reply(server, Request(1, 999, "", 1, READ), FOUND)
    assert not world.done


@pytest.mark.parametrize("body", [READ, put(), TransferRequest()])
def test_nothing_was_sent_so_it_timed_out(body: Body) -> None:
    world = World("a", connect=False)
    call = world.submit(body, timeout=3)
    world.wait(3)
    assert isinstance(world.error(call), TimedOutError)
    assert "a" in world.error(call).text


def test_an_unanswered_read_times_out_and_an_unanswered_write_is_unknown() -> None:
    world = World("a")
    read, write, operator = world.submit(READ, 3), world.submit(put(), 3), world.submit(TransferRequest(), 3)
    world.wait(3)
    assert isinstance(world.error(read), TimedOutError)
    assert isinstance(world.error(write), OutcomeUnknownError)
    assert isinstance(world.error(operator), OutcomeUnknownError)


# --- whom to ask ----------------------------------------------------------------------------------------------------------


def test_the_named_leader_is_asked_at_once_and_remembered() -> None:
    world = World("a", "b", "c")
    world.submit(READ)
    first, request = world.one()
    leader = next(each for each in "abc" if each != first)
    world.reply(first, request, Error("not-leader", "", leader))
    server, request = world.one()
    assert server == leader
    world.reply(server, request, FOUND)
    for _ in range(10):
        world.submit(READ)
        server, request = world.one()
        assert server == leader
        world.reply(server, request, FOUND)


def test_a_leader_that_was_waited_for_is_asked_at_once() -> None:
    """However long the pauses have become meanwhile; and if it is not ready yet, it is asked again soon."""
    world = World("a", "b", "c")
    world.submit(put(), timeout=10)
    server, request = world.one()
    for _ in range(8):
        world.reply(server, request, Error("no-leader", ""))
        world.wait(0.26)
        server, request = world.sent[-1]
    leader = next(each for each in "abc" if each != server)
    world.reply(server, request, Error("not-leader", "", leader))
    server, request = world.one()
    assert server == leader
    world.reply(server, request, Error("busy", "catching up"))
    before = len(world.sent)
    world.wait(0.09)
    assert len(world.sent) == before + 1


def test_two_servers_that_name_each_other_are_asked_with_pauses() -> None:
    world = World("a", "b")
    call = world.submit(put(), timeout=5)
    world.fetch()
    answered = 0
    start = world.now
    while world.now < start + 5 and call not in world.done:
        for server, request in world.sent[answered:]:
            answered += 1
            world.reply(server, request, Error("not-leader", "", "b" if server == "a" else "a"))
        world.fetch()
        world.wait(0.01)
    assert 15 <= len(world.sent) <= 80, len(world.sent)
    assert isinstance(world.error(call), NoLeaderError)


@pytest.mark.parametrize(
    ("code", "kind"), [("no-leader", NoLeaderError), ("busy", BusyError), ("timed-out", TimedOutError)]
)
@pytest.mark.parametrize("body", [READ, put(), TransferRequest()])
def test_a_refusal_without_effect_is_tried_on_until_the_deadline(
    code: str, kind: type[RequestError], body: Body
) -> None:
    world = World("a", "b")
    call = world.submit(body, timeout=4)
    world.fetch()
    answered = 0
    while call not in world.done:
        for server, request in world.sent[answered:]:
            answered += 1
            world.reply(server, request, Error(code, "no"))
        world.wait(0.01)
    assert answered >= 10
    assert isinstance(world.error(call), kind)


def test_a_write_that_gets_no_registration_in_its_time_says_that_nobody_leads() -> None:
    """An agent answers at the end of the time that it was given, which must not be after the write's own."""
    world = World("agent")
    call = world.submit(put(), timeout=1.5, numbered=True)
    server, request = world.one()
    assert 1000 < request.budget_ms <= 1500
    world.wait(1.2)
    world.reply(server, request, Error("no-leader", "no server has led the cluster"))
    world.wait(0.3)
    assert isinstance(world.error(call), NoLeaderError)


def test_a_registration_is_not_waited_for_as_long_as_a_patient_write() -> None:
    world = World("a")
    world.submit(put(), timeout=60, numbered=True)
    assert world.one()[1].budget_ms == 5_000


def test_a_leader_that_we_do_not_know_makes_us_ask_for_the_list() -> None:
    world = World("a")
    world.wait(5)
    world.submit(READ)
    server, request = world.one()
    world.reply(server, request, Error("not-leader", "", "z"))
    world.core.tick(world.now)
    bodies = [decode_request(send.frame).body for send in world.core.take_sends(world.now)]
    assert ServersRequest() in bodies


def test_a_lost_connection_sends_reads_elsewhere_at_once() -> None:
    world = World("a", "b")
    call = world.submit(READ)
    first, _ = world.one()
    world.core.lost(first, world.now)
    second, request = world.one()
    assert second != first
    world.reply(second, request, FOUND)
    assert world.done == {call: FOUND}


def test_requests_that_any_server_answers_stay_at_one() -> None:
    world = World("a", "b", "c")
    asked = set()
    for _ in range(20):
        world.submit(InfoRequest())
        server, request = world.one()
        asked.add(server)
        world.reply(server, request, Ok())
    assert len(asked) == 1


# --- writes -----------------------------------------------------------------------------------------------------------------


def test_a_one_shot_is_not_repeated_when_it_may_have_been_taken() -> None:
    world = World("a", "b")
    lost, silent = world.submit(put("lost")), world.submit(put("silent"), timeout=30)
    for server in {server for server, _ in world.fetch()}:
        if server != world.sent[1][0]:
            world.core.lost(server, world.now)
    world.wait(29)
    assert len(world.sent) == 2, "sent twice"
    world.core.lost(world.sent[1][0], world.now)
    world.core.lost(world.sent[0][0], world.now)
    world.fetch()
    assert isinstance(world.error(lost), OutcomeUnknownError)
    assert isinstance(world.error(silent), OutcomeUnknownError)


def test_a_one_shot_that_was_never_sent_is_tried_on() -> None:
    world = World("a", "b")
    call = world.submit(put())
    sends = [send for send in world.core.take_sends(world.now) if decode_request(send.frame).body == put()]
    world.core.not_sent(sends[0].request, world.now)
    world.wait(0.5)
    server, request = world.sent[-1]
    world.reply(server, request, Written(Done(9)))
    assert world.done == {call: Written(Done(9))}


def test_numbered_writes_share_one_registration() -> None:
    world = World("a")
    calls = [world.submit(put(str(n)), numbered=True) for n in range(3)]
    world.registered(77)
    sent = world.fetch()
    assert [(written(r).client, written(r).number, written(r).lowest) for _, r in sent] == [
        (77, n, 1) for n in (1, 2, 3)
    ]
    for server, request in sent:
        world.reply(server, request, Written(Done(100)))
    assert list(world.done) == calls
    world.submit(put(), numbered=True)
    assert (written(world.one()[1]).number, world.sent[-1][1].body) == (4, Write(put().command, 77, 4, 4))


def test_the_lowest_outstanding_number_is_told() -> None:
    world = World("a")
    for n in range(4):
        world.submit(put(str(n)), numbered=True, timeout=30)
    world.registered()
    sent = world.fetch()
    for n in (1, 3):
        world.reply(*sent[n], Written(Done(100)))
    world.submit(put(), numbered=True)
    assert written(world.one()[1]).lowest == 1
    world.reply(*sent[0], Written(Done(100)))
    world.submit(put(), numbered=True)
    assert written(world.one()[1]).lowest == 3


def test_a_write_that_nobody_waits_for_any_more_is_not_outstanding() -> None:
    world = World("a")
    given_up, timed_out = world.submit(put("1"), numbered=True), world.submit(put("2"), 2.0, numbered=True)
    world.registered()
    world.fetch()
    world.core.cancel(given_up)
    world.wait(2.0)
    assert isinstance(world.error(timed_out), OutcomeUnknownError)
    world.submit(put("3"), numbered=True)
    assert written(world.fetch()[0][1]).lowest == 3


@pytest.mark.parametrize("how", ["silence", "lost", "unknown"])
def test_a_write_without_an_answer_is_sent_again_under_its_number(how: str) -> None:
    world = World("a", "b")
    call = world.submit(put(), numbered=True)
    world.registered()
    first, request = world.one()
    if how == "lost":
        world.core.lost(first, world.now)
        world.fetch()
    elif how == "unknown":
        world.reply(first, request, Error("outcome-unknown", ""))
        world.wait(0.5)
    else:
        world.wait(1.0)
    second, again = world.sent[-1]
    assert again.id != request.id
    assert (written(again).client, written(again).number) == (written(request).client, written(request).number)
    if how != "unknown":
        assert second != first
    world.reply(second, again, Written(Done(9)))
    assert world.done == {call: Written(Done(9))}


@pytest.mark.parametrize("where", ["result", "error"])
def test_an_expired_registration_leaves_what_was_sent_unknown(where: str) -> None:
    world = World("a")
    calls = [world.submit(put(str(n)), numbered=True) for n in range(2)]
    world.registered(77)
    sent = world.fetch()
    unknown = Written(Failure(9, "unknown-client")) if where == "result" else Error("unknown-client", "")
    world.reply(*sent[0], unknown)
    world.reply(*sent[1], unknown)
    assert all(isinstance(world.error(call), OutcomeUnknownError) for call in calls)
    assert not world.fetch(), "sent again by itself"
    new = world.submit(put("new"), numbered=True)
    world.registered(88)
    server, request = world.one()
    assert (written(request).client, written(request).number) == (88, 1)
    world.reply(server, request, Written(Done(9)))
    assert world.done[new] == Written(Done(9))


def test_what_was_never_sent_gets_a_number_of_the_new_registration() -> None:
    world = World("a", "b")
    world.submit(put("sent"), numbered=True)
    world.registered(77)
    sent = world.one()
    world.submit(put("not sent"), numbered=True)
    [send] = world.core.take_sends(world.now)
    world.core.not_sent(send.request, world.now)
    world.reply(*sent, Error("unknown-client", ""))
    world.registered(88)
    world.wait(0.5)
    assert [(written(r).client, written(r).number) for _, r in world.sent[-1:]] == [(88, 1)]
    assert command_decoder.decode(written(world.sent[-1][1]).command) == KvPut("not sent", b"v")


def test_a_refusal_of_a_repeated_write_does_not_say_that_the_first_had_no_effect() -> None:
    world = World("a", "b")
    doubtful, certain = world.submit(put("1"), numbered=True), world.submit(put("2"), numbered=True)
    world.registered()
    sent = world.fetch()
    world.reply(*sent[1], Error("denied", ""))
    assert world.error(certain).code == "denied"
    world.wait(1.0)
    world.reply(*world.sent[-1], Error("denied", ""))
    assert isinstance(world.error(doubtful), OutcomeUnknownError)


def test_a_lost_attempt_leaves_a_doubt_whatever_comes_after() -> None:
    world = World("a", "b")
    call = world.submit(put(), timeout=3, numbered=True)
    world.registered()
    first, _ = world.one()
    world.core.lost(first, world.now)
    world.fetch()
    answered = len(world.sent) - 1
    while call not in world.done:
        for server, request in world.sent[answered:]:
            answered += 1
            world.reply(server, request, Error("no-leader", ""))
        world.wait(0.01)
    assert isinstance(world.error(call), OutcomeUnknownError)


def test_a_result_is_believed_whatever_was_in_doubt_before() -> None:
    world = World("a", "b")
    call = world.submit(put(), numbered=True)
    world.registered()
    first, _ = world.one()
    world.core.lost(first, world.now)
    server, request = world.one()
    world.reply(server, request, Written(Failure(9, "conflict", "fence")))
    assert world.done[call] == Written(Failure(9, "conflict", "fence"))


def test_a_denied_registration_fails_those_that_wait_for_it() -> None:
    world = World("a")
    call = world.submit(put(), numbered=True)
    server, request = world.one()
    world.reply(server, request, Error("denied", "no"))
    assert world.error(call).code == "denied"


def test_an_identity_that_is_in_use_is_drawn_again() -> None:
    """An earlier attempt to register got through and its answer was lost; nobody need see it."""
    world = World("a")
    call = world.submit(put(), numbered=True)
    server, request = world.one()
    world.reply(server, request, Written(Failure(9, "conflict", "in use")))
    server, again = world.one()
    first, second = (command_decoder.decode(written(each).command) for each in (request, again))
    assert isinstance(first, RegisterClient)
    assert isinstance(second, RegisterClient)
    assert first.id != second.id
    world.reply(server, again, Written(Done(second.id)))
    server, request = world.one()
    assert written(request).client == second.id
    world.reply(server, request, Written(Done(10)))
    assert world.done == {call: Written(Done(10))}


def test_the_window_of_numbers_is_bounded_and_moves_on() -> None:
    world = World("a")
    for n in range(MAX_WINDOW + 10):
        world.submit(put(str(n)), numbered=True, timeout=30)
    world.registered()
    sent = world.fetch()
    assert len(sent) == MAX_WINDOW
    world.reply(*sent[5], Written(Done(9)))
    assert not world.fetch(), "the servers would have to keep too many results"
    world.reply(*sent[0], Written(Done(9)))
    assert written(world.one()[1]).number == MAX_WINDOW + 1


def test_a_passed_on_write_keeps_its_number_and_its_token() -> None:
    world = World("a", "b")
    body = Write(put().command, 5, 6, 4)
    call = world.core.submit(body, world.now, timeout=5, token="theirs")
    first, request = world.one()
    assert (request.body, request.token) == (body, "theirs")
    world.core.lost(first, world.now)
    server, request = world.one()
    assert (request.body, request.token) == (body, "theirs")
    world.reply(server, request, Written(Failure(9, "unknown-client")))
    assert world.done[call] == Written(Failure(9, "unknown-client")), "it is for its own client to deal with"


def test_the_number_of_calls_is_bounded() -> None:
    world = World("a", connect=False)
    for _ in range(MAX_CALLS):
        world.submit(READ)
    with pytest.raises(BusyError):
        world.submit(READ)
    world.wait(10)
    world.submit(READ)


# --- upkeep -----------------------------------------------------------------------------------------------------------------


def asked_for_list(world: World) -> list[Send]:
    return [send for send in world.core.take_sends(world.now) if decode_request(send.frame).body == ServersRequest()]


def row(address: str, key: str) -> ServerInfo:
    return ServerInfo(ServerId("n#1"), "", address, key, True, False)


def test_the_list_of_servers_is_followed() -> None:
    world = World("a", connect=False)
    world.core.connected("a", world.now)
    [send] = asked_for_list(world)
    reply = Servers("c1", "test", (row("a", "key-a"), row("b", "key-b")), 5)
    world.core.received(send.server, encode_reply(Reply(send.request, reply)), world.now)
    assert world.core.targets == {"a": "key-a", "b": "key-b"}
    world.now += 29
    world.core.tick(world.now)
    assert not asked_for_list(world)
    world.now += 1
    world.core.tick(world.now)
    assert asked_for_list(world)


def test_a_list_that_is_old_empty_or_foreign_is_not_followed() -> None:
    servers = ServerList({"a": "key-a"}, random.Random(1))
    servers.connected("a")
    servers.follow(Servers("c1", "", (row("a", "key-a"), row("b", "key-b")), 5))
    for wrong in (
        Servers("c1", "", (row("x", ""),), 4),
        Servers("c2", "", (row("x", ""),), 9),
        Servers("c1", "", (), 9),
    ):
        servers.follow(wrong)
        assert servers.targets == {"a": "key-a", "b": "key-b"}


def test_a_key_is_doubted_until_its_server_is_up() -> None:
    servers = ServerList({"a": "key-a", "b": "key-b"}, random.Random(1))
    for address in ("b", "gone"):
        servers.rejected(address)
    assert servers.rejecting == ["b"]
    servers.connected("b")
    assert servers.rejecting == []
    agent = ServerList({"ipc:///agent": ""}, random.Random(1))
    agent.rejected("ipc:///agent")
    assert agent.rejecting == []


def test_first_addresses_stay_in_reserve() -> None:
    servers = ServerList({"seed": "key"}, random.Random(1))
    servers.connected("seed")
    servers.follow(Servers("c1", "", (row("b", "key-b"),), 5))
    assert set(servers.targets) == {"seed", "b"}
    servers.connected("b")
    assert set(servers.targets) == {"b"}
    servers.lost("b")
    assert set(servers.targets) == {"seed", "b"}


def test_an_agent_is_never_left_for_the_servers_behind_it() -> None:
    core = ClientCore({"ipc:///agent": ""}, 0.0, rng=random.Random(1))
    core.connected("ipc:///agent", 0.0)
    call = core.submit(READ, 0.0, timeout=100)
    [send] = core.take_sends(0.0)
    core.received(send.server, encode_reply(Reply(send.request, Error("not-leader", "", "10.0.0.1:8311"))), 0.0)
    for now in range(100):
        core.tick(float(now))
        assert all(decode_request(each.frame).body == READ for each in core.take_sends(float(now)))
    assert set(core.targets) == {"ipc:///agent"}
    assert not call.finished


def test_a_server_that_is_asked_alone_gets_all_the_time() -> None:
    world = World("a", "b")
    call = world.core.submit(InfoRequest(), world.now, timeout=10, server="b")
    server, request = world.one()
    assert server == "b"
    world.wait(9.5)
    assert len(world.sent) == 1
    world.reply(server, request, Ok())
    assert world.done == {call: Ok()}
    stranger = world.core.submit(InfoRequest(), world.now, timeout=1, server="z")
    world.wait(1)
    assert "z could not be reached" in world.error(stranger).text


def test_a_registration_is_kept_alive_at_the_leader() -> None:
    world = World("a")
    world.wait(30)
    assert not [r for _, r in world.sent if isinstance(r.body, Keepalive)]
    world.submit(put(), numbered=True)
    world.registered(77)
    world.wait(10)
    assert Keepalive(77) in [r.body for _, r in world.sent]


# --- subscriptions ------------------------------------------------------------------------------------------------------------


def subscribe(world: World) -> tuple[str, Request]:
    world.core.subscribe(KvGet("k"), world.now)
    server, request = world.one()
    assert isinstance(request.body, Subscribe)
    return server, request


def view(request: Request, index: int, previous: int) -> View:
    assert isinstance(request.body, Subscribe)
    return View(request.body.subscription, index, previous, KvPairs(()))


def test_views_come_in_order_and_a_gap_begins_anew() -> None:
    world = World("a")
    server, request = subscribe(world)
    world.reply(server, request, view(request, 5, 0))
    world.reply(server, request, view(request, 9, 5))
    assert [each.index for _, each in world.core.take_views() if isinstance(each, View)] == [5, 9]
    world.reply(server, request, view(request, 20, 15))
    assert not world.core.take_views(), "a view with a gap was given on"
    _, again = world.one()
    assert again.body == request.body
    world.reply(server, request, view(request, 21, 20))
    world.reply(server, request, view(request, 21, 0))
    assert not world.core.take_views(), "a view of the stretch with the gap was given on"
    world.reply(server, again, view(again, 21, 0))
    assert [each.index for _, each in world.core.take_views() if isinstance(each, View)] == [21]


def test_a_subscription_moves_when_its_connection_is_lost() -> None:
    world = World("a", "b")
    first, request = subscribe(world)
    world.core.lost(first, world.now)
    second, again = world.one()
    assert second != first
    assert again.body == request.body


def test_a_subscription_moves_when_its_server_does_not_answer() -> None:
    world = World("a", "b")
    first, _ = subscribe(world)
    world.wait(14)
    moved = [server for server, request in world.sent if isinstance(request.body, Subscribe)]
    assert moved[0] == first
    assert moved[-1] != first


def test_a_subscription_waits_without_servers_and_after_a_refusal() -> None:
    world = World("a")
    server, request = subscribe(world)
    world.core.lost(server, world.now)
    assert not world.fetch()
    world.core.connected(server, world.now)
    _, request = world.one()
    world.reply(server, request, Error("no-leader", ""))
    assert not world.fetch()
    world.wait(0.5)
    assert isinstance(world.sent[-1][1].body, Subscribe)


def test_a_denied_subscription_ends() -> None:
    world = World("a")
    server, request = subscribe(world)
    world.reply(server, request, Error("denied", "no"))
    [(subscription, error)] = world.core.take_views()
    assert isinstance(error, RequestError)
    assert error.code == "denied"
    assert subscription.ended
    world.wait(60)
    assert not [r for _, r in world.sent[1:] if isinstance(r.body, Subscribe)]


def test_credit_is_given_back_only_for_what_was_taken() -> None:
    world = World("a")
    server, request = subscribe(world)
    for index in range(1, 9):
        world.reply(server, request, view(request, index, index - 1))
    views = world.core.take_views()
    assert not world.fetch()
    for subscription, _ in views:
        world.core.taken(subscription, world.now)
    assert sum(r.body.credit for _, r in world.fetch() if isinstance(r.body, Credit)) == 8
