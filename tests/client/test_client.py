"""The blocking client against scripted servers over real sockets."""

import threading
from pathlib import Path

import pytest

from coordd.client import Client, asks
from coordd.errors import (
    ConfigError,
    DeniedError,
    InvalidError,
    NoLeaderError,
    OutcomeUnknownError,
    RequestError,
    TimedOutError,
    TransportError,
)
from coordd.messages.client import (
    Credit,
    Error,
    InfoRequest,
    Read,
    ReadResult,
    ReplyBody,
    Request,
    ServerInfo,
    Servers,
    Subscribe,
    TransferRequest,
    View,
    Write,
)
from coordd.messages.codec import MAX_COMMAND_BYTES
from coordd.messages.command import KvPut
from coordd.messages.query import KvGet, KvPair, KvPairs
from coordd.transport.clients import ClientSocket, close_context, open_context
from coordd.transport.security import generate
from coordd.types import ServerId
from tests.client.fake_server import FakeServer, Machine, command_of, fake_server, listing
from tests.transport.support import wait_until

PAIR = KvPair("k", b"v", 0, 5, 7, 0, 1)


def silent(request: Request) -> None:
    return None


def pair_reader(request: Request) -> ReplyBody:
    return ReadResult(7, KvPairs((PAIR,)))


def test_a_read_and_a_write() -> None:
    machine = Machine()

    def answer(request: Request) -> ReplyBody:
        return pair_reader(request) if isinstance(request.body, Read) else machine.write(request)

    with fake_server(answer) as server, Client([server.target], token="secret", timeout=10) as client:
        assert client.kv_get("k") == PAIR
        assert client.kv_put("k", b"w").index == machine.index
        assert machine.applied == [KvPut("k", b"w")]
        assert {request.token for request in server.seen} == {"secret"}


def test_many_threads_share_one_client_and_one_registration() -> None:
    machine = Machine()
    with fake_server(machine.write) as server, Client([server.target]) as client:
        threads = [
            threading.Thread(target=lambda n=n: [client.kv_put(f"{n}/{i}", b"") for i in range(20)]) for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(machine.applied) == len(set(map(str, machine.applied))) == 320
        assert len(machine.clients) == 1


def test_a_write_is_sent_again_under_its_number_when_the_server_dies() -> None:
    machine = Machine()
    servers: list[FakeServer] = []

    def takes_and_dies(request: Request) -> ReplyBody | None:
        reply = machine.write(request)
        if isinstance(command_of(request), KvPut):
            threading.Thread(target=servers[0].stop).start()
            return None
        return reply

    with (
        fake_server(takes_and_dies) as first,
        fake_server(lambda request: Error("not-leader", "", first.address)) as other,
    ):
        servers.append(first)
        with Client([first.target, other.target], timeout=20) as client:
            future = threading.Thread(target=lambda: results.append(client.kv_put("k", b"v")))
            results: list[object] = []
            future.start()
            wait_until(lambda: bool(machine.applied))
            other.answer = machine.write
            future.join()
        assert len(machine.applied) == 1
        assert len(results) == 1


def test_a_one_shot_is_not_sent_again() -> None:
    with fake_server(silent) as server, Client([server.target], timeout=1.5) as client:
        with pytest.raises(OutcomeUnknownError):
            client.write(KvPut("k", b"v"), numbered=False)
        with pytest.raises(OutcomeUnknownError):
            client.request(TransferRequest())
        assert [type(request.body) for request in server.seen] == [Write, TransferRequest]


def test_deadlines_without_a_server_and_without_a_leader() -> None:
    with Client([("127.0.0.1:1", generate().public)], timeout=0.3) as client:
        with pytest.raises(TimedOutError, match=r"127\.0\.0\.1:1$"):  # and no word of keys
            client.kv_get("k")
        with pytest.raises(TimedOutError):
            client.kv_put("k", b"")
    with fake_server(lambda request: Error("no-leader", "")) as server, Client([server.target], timeout=0.3) as client:
        with pytest.raises(NoLeaderError):
            client.kv_get("k")
        with pytest.raises(NoLeaderError):
            client.kv_put("k", b"")


def test_an_error_comes_through_as_its_class() -> None:
    with fake_server(lambda request: Error("denied", "no")) as server, Client([server.target]) as client:
        with pytest.raises(DeniedError, match="no"):
            client.kv_get("k")
        with pytest.raises(DeniedError, match="no"):
            client.kv_put("k", b"")
        with pytest.raises(InvalidError, match="bytes"):
            client.kv_put("k", b"x" * (MAX_COMMAND_BYTES + 1))


def test_a_new_server_on_the_list_is_trusted_and_used() -> None:
    with fake_server(pair_reader) as later, fake_server(pair_reader) as first:
        first.list = listing(first, later)
        first.answer = lambda request: Error("not-leader", "", later.address)
        with Client([first.target]) as client:
            assert client.kv_get("k") == PAIR
            assert len(later.seen) == 1


def test_an_unusable_server_on_the_list_does_not_keep_us_from_the_others() -> None:
    with fake_server(pair_reader) as server:
        rows = (
            ServerInfo(ServerId("bad#1"), "", "a-name:8311", server.pair.public, True, False),
            ServerInfo(ServerId("worse#1"), "", "127.0.0.1:1", "no key", True, False),
            *listing(server).servers,
        )
        server.list = Servers("c1", "test", rows, 1)
        with Client([server.target]) as client:
            assert len(client.servers().servers) == 3
            for _ in range(3):
                assert client.kv_get("k") == PAIR


def test_a_server_with_another_key_than_the_pinned_one_is_not_used() -> None:
    with fake_server(pair_reader) as server, Client([(server.address, generate().public)], timeout=0.7) as client:
        with pytest.raises(TimedOutError, match="does not hold the public key that was given for it"):
            client.kv_get("k")
        with pytest.raises(TimedOutError, match="is it the right one"):
            client.request(InfoRequest(), server=server.address)
        assert not server.connections


def test_a_client_finds_a_server_that_comes_back() -> None:
    with fake_server(pair_reader) as server:
        address, pair = server.address, server.pair
        with Client([server.target], timeout=10) as client:
            assert client.kv_get("k") == PAIR
            server.stop()
            with pytest.raises(TimedOutError):
                client.ask(asks.read(KvGet("k"), timeout=0.2))
            with fake_server(pair_reader, address, pair):
                assert client.kv_get("k") == PAIR


def test_a_subscription_survives_its_server_and_ends_when_told() -> None:
    def answer(request: Request) -> ReplyBody | None:
        match request.body:
            case Subscribe(subscription=number):
                return View(number, 7, 0, KvPairs((PAIR,)))
            case _:
                return None

    got: list[View | RequestError] = []
    with fake_server(answer) as server:
        address, pair = server.address, server.pair
        with Client([server.target]) as client:
            subscribed = client.subscribe(KvGet("k"), got.append)
            wait_until(lambda: len(got) == 1)
            request = server.seen[0].id
            for index in range(8, 20):
                server.push(request, View(1, index, index - 1, KvPairs(())))
            wait_until(lambda: len(got) == 13)
            assert sum(r.body.credit for r in server.seen if isinstance(r.body, Credit)) >= 8
            # One is missing between 19 and 21.
            server.push(request, View(1, 21, 20, KvPairs(())))
            wait_until(lambda: len(got) == 14)
            assert isinstance(got[-1], View)
            assert got[-1].previous == 0
            server.stop()
            with fake_server(answer, address, pair) as again:
                wait_until(lambda: len(got) == 15)
                subscribed.end()
                wait_until(lambda: len(again.seen) == 2)


def test_a_callback_that_fails_does_not_end_the_views(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[object] = []

    def fail(view: object) -> None:
        calls.append(view)
        raise ValueError("planted")

    with (
        fake_server(lambda r: [View(1, 7, 0, KvPairs(())), View(1, 8, 7, KvPairs(()))]) as server,
        Client([server.target]) as client,
    ):
        client.subscribe(KvGet("k"), fail)
        wait_until(lambda: len(calls) == 2)
    assert "planted" in caplog.text


def test_closing_ends_what_is_under_way() -> None:
    with fake_server(silent) as server:
        client = Client([server.target], timeout=60)
        future = client.start(asks.read(KvGet("k")))
        wait_until(lambda: bool(server.seen))
        client.close()
        client.close()
        with pytest.raises(TransportError, match="closed"):
            future.result(1)
        with pytest.raises(TransportError, match="closed"):
            client.kv_get("k")


def test_an_agents_path(tmp_path: Path) -> None:
    context = open_context()
    socket = ClientSocket.on_path(context, tmp_path / "agent.sock")
    environ = {"COORD_AGENT": socket.address, "COORD_TOKEN": "t"}
    with Client.from_environment(environ, timeout=0.5) as client, pytest.raises(TimedOutError):
        client.kv_get("k")
    assert socket.receive(10, 10_000)
    socket.close()
    close_context(context)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "no server is known"),
        ({"COORD_AGENT": "tcp://x"}, "ipc:///path"),
        ({"COORD_SERVERS": "127.0.0.1:1"}, "COORD_SERVERS"),
        ({"COORD_SERVERS": "127.0.0.1:1@short"}, "not a CURVE key"),
        ({"COORD_SERVERS": "127.0.0.1=" + "a" * 40}, "host:port"),
    ],
)
def test_wrong_settings_are_named(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Client.from_environment(environ)


def test_servers_from_the_environment() -> None:
    with fake_server(pair_reader) as server:
        environ = {"COORD_SERVERS": f"{server.address}@{server.pair.public}, 127.0.0.1:1@{generate().public}"}
        with Client.from_environment(environ) as client:
            assert client.kv_get("k") == PAIR
