"""Key files and the gate: it fails closed, and nothing that comes in ends it."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import zmq

from coordd.errors import ConfigError, TransportError
from coordd.transport import sockets
from coordd.transport.clients import ClientSocket, Connection
from coordd.transport.peers import PeerSockets
from coordd.transport.security import Gate, KeyPair, check_key, generate, load_key_file, secure_client, write_key_file
from coordd.transport.sockets import Socket, close_context, endpoint, open_context, open_socket
from coordd.types import ServerId
from tests.transport.support import collect, gated_context, stays_false, wait_until, zmq_context

PEER = ServerId("n2#1")


def test_a_key_file_gives_back_the_pair(tmp_path: Path) -> None:
    pair = generate()
    write_key_file(tmp_path / "n1.key", pair)
    assert load_key_file(tmp_path / "n1.key") == pair
    assert (tmp_path / "n1.key").stat().st_mode & 0o777 == 0o600
    assert pair.secret not in repr(pair)


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    pair = generate()
    write_key_file(tmp_path / "n1.key", pair)
    with pytest.raises(ConfigError, match=r"n1\.key exists already"):
        write_key_file(tmp_path / "n1.key", generate())
    assert load_key_file(tmp_path / "n1.key") == pair


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "n1.key"
    write_key_file(path, generate())
    path.chmod(mode)
    with pytest.raises(ConfigError, match=r"n1\.key has mode"):
        load_key_file(path)


def test_a_bad_key_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "n1.key"
    with pytest.raises(ConfigError, match=r"n1\.key can't be read"):
        load_key_file(path)
    for text in ("", "public = 3", "\x00\xff", 'public = "a"\nsecret = "b"'):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=r"n1\.key is not a key file"):
            load_key_file(path)
    one, other = generate(), generate()
    path.unlink()
    write_key_file(path, KeyPair(one.public, other.secret))
    with pytest.raises(ConfigError, match="does not belong"):
        load_key_file(path)


@pytest.mark.parametrize("key", ["", "short", "\u20ac" * 40, "~" * 40, "a" * 41])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="not a CURVE key"):
        check_key(key)


def test_an_old_libzmq_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 4))
    with pytest.raises(TransportError, match=r"4\.3\.5 or newer"):
        open_context()


def dial(
    context: sockets.Context, address: str, server_key: str, pair: KeyPair, routing_id: str | None = None
) -> Socket:
    """A DEALER of a party that is not bound to our classes. Its context closes it; `keep` holds it until then."""
    socket = open_socket(context, zmq.DEALER, queue=10)
    if routing_id is not None:
        socket.setsockopt(zmq.ROUTING_ID, routing_id.encode())
    secure_client(socket, server_key, pair)
    socket.connect(endpoint(socket, address))
    keep.append(socket)
    return socket


keep: list[Socket] = []


@pytest.fixture(autouse=True)
def _close_kept() -> Iterator[None]:
    yield
    for socket in keep:
        socket.close()
    keep.clear()


def test_an_accepted_key_is_heard_and_known_by_its_key() -> None:
    mine, theirs = generate(), generate()
    with gated_context() as (context, gate), zmq_context() as outside:
        gate.accept([theirs.public])
        peers = PeerSockets(context, mine, "127.0.0.1:0", gate)
        socket = dial(outside, peers.address, mine.public, theirs)
        wait_until(lambda: sockets.writable(socket))
        # The routing id is the other side's own choice and means nothing.
        socket.send(b"hello")
        assert collect(lambda: peers.receive(10, 1000)) == [(theirs.public, b"hello")]
        peers.close()


def test_the_sender_is_the_key_whatever_routing_id_it_claims() -> None:
    mine, one, other = generate(), generate(), generate()
    with gated_context() as (context, gate), zmq_context() as outside:
        gate.accept([one.public, other.public])
        peers = PeerSockets(context, mine, "127.0.0.1:0", gate)
        for pair in (one, other):
            victim = other if pair is one else one
            socket = dial(outside, peers.address, mine.public, pair, routing_id=victim.public)
            wait_until(partial(sockets.writable, socket))
            socket.send(b"from " + pair.public.encode())
        got = collect(lambda: peers.receive(10, 1000), 2)
        assert sorted(got) == sorted((pair.public, b"from " + pair.public.encode()) for pair in (one, other))
        peers.close()


def test_an_unknown_key_is_refused_and_told_once() -> None:
    mine, impostor = generate(), generate()
    told: list[tuple[str, str]] = []
    with gated_context(lambda domain, key: told.append((domain, key))) as (context, gate), zmq_context() as outside:
        gate.accept([generate().public])
        peers = PeerSockets(context, mine, "127.0.0.1:0", gate)
        attempts = [dial(outside, peers.address, mine.public, impostor) for _ in range(3)]
        wait_until(lambda: bool(told))
        assert stays_false(lambda: any(map(sockets.writable, attempts)) or bool(peers.receive(10, 1000)))
        assert told == [("raft", impostor.public)]
        peers.close()


def test_the_accepted_set_changes_while_running() -> None:
    mine, theirs = generate(), generate()
    with gated_context() as (context, gate), zmq_context() as outside:
        peers = PeerSockets(context, mine, "127.0.0.1:0", gate)
        early = dial(outside, peers.address, mine.public, theirs)
        assert stays_false(lambda: sockets.writable(early), 0.3)
        gate.accept([theirs.public])
        late = dial(outside, peers.address, mine.public, theirs)
        wait_until(lambda: sockets.writable(late))
        late.send(b"member")
        assert collect(lambda: peers.receive(10, 1000)) == [(theirs.public, b"member")]
        # Its connection is still there after the removal, but is listened to no more.
        gate.accept([])
        late.send(b"removed")
        wait_until(lambda: peers.receive(10, 1000) == [] and peers.dropped == 1)
        peers.close()


def test_without_a_gate_nobody_gets_in() -> None:
    mine, theirs = generate(), generate()
    with gated_context() as (context, gate), zmq_context() as outside:
        gate.accept([theirs.public])
        peers = PeerSockets(context, mine, "127.0.0.1:0", gate)
        clients = ClientSocket.on_network(context, mine, "127.0.0.1:0", gate)
        gate.close()
        late = [dial(outside, address, mine.public, theirs) for address in (peers.address, clients.address)]
        assert stays_false(lambda: any(map(sockets.writable, late)))
        assert not peers.receive(10, 1000)
        assert not clients.receive(10, 1000)
        peers.close()
        clients.close()


@pytest.mark.parametrize("domain", ["RAFT", "other"])
def test_an_unknown_domain_lets_nobody_in(domain: str) -> None:
    mine, theirs = generate(), generate()
    with gated_context() as (context, gate), zmq_context() as outside:
        gate.accept([theirs.public])
        router = open_socket(context, zmq.ROUTER, queue=10)
        gate.secure_server(router, "raft", mine)
        router.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
        router.bind("tcp://127.0.0.1:0")
        address = router.getsockopt_string(zmq.LAST_ENDPOINT).removeprefix("tcp://")
        socket = dial(outside, address, mine.public, theirs)
        assert stays_false(lambda: sockets.writable(socket))
        router.close()


def test_a_client_that_expects_another_server_does_not_talk() -> None:
    mine, theirs = generate(), generate()
    with gated_context() as (context, gate), zmq_context() as outside:
        clients = ClientSocket.on_network(context, mine, "127.0.0.1:0", gate)
        connection = Connection.to_server(outside, clients.address, generate().public, theirs)
        assert stays_false(lambda: connection.up)
        connection.close()
        clients.close()


def test_a_client_without_curve_is_not_heard() -> None:
    with gated_context() as (context, gate), zmq_context() as outside:
        clients = ClientSocket.on_network(context, generate(), "127.0.0.1:0", gate)
        plain = open_socket(outside, zmq.DEALER, queue=10)
        plain.connect(endpoint(plain, clients.address))
        assert stays_false(lambda: sockets.writable(plain) or bool(clients.receive(10, 1000)))
        clients.close()


def test_nothing_ends_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = generate(), generate()
    failed: list[list[bytes]] = []

    def failing(domain: str, key: str) -> None:
        raise RuntimeError("planted")

    with gated_context(failing) as (context, gate), zmq_context() as outside:
        gate.accept([theirs.public])
        peers = PeerSockets(context, mine, "127.0.0.1:0", gate)
        judge = gate._judge

        def failing_judge(request: list[bytes]) -> str | None:
            failed.append(request)
            monkeypatch.setattr(gate, "_judge", judge)
            raise RuntimeError("planted")

        monkeypatch.setattr(gate, "_judge", failing_judge)
        dial(outside, peers.address, mine.public, theirs)
        wait_until(lambda: bool(failed))
        # Malformed ZAP requests, the shapes that indexing and decoding would stumble over.
        asker = context.socket(zmq.DEALER)
        asker.connect("inproc://zeromq.zap.01")
        for parts in (
            [b""],
            [b"", b"1.0"],
            [b"", b"1.0", b"1", b"raft", b"", b"", b"CURVE", b"\xff"],
            [os.urandom(9)] * 9,
        ):
            asker.send_multipart(parts)
        dial(outside, peers.address, mine.public, generate())
        good = dial(outside, peers.address, mine.public, theirs)
        wait_until(lambda: sockets.writable(good))
        asker.close(linger=0)
        peers.close()


def test_a_context_has_one_gate() -> None:
    with gated_context() as (context, _), pytest.raises(TransportError, match="has a gate already"):
        Gate(context)


def test_a_closed_context_waits_for_nobody() -> None:
    context = open_context()
    socket = dial(context, "127.0.0.1:1", generate().public, generate())
    assert not sockets.writable(socket)
    close_context(context)
    assert socket.closed
