"""ClientSocket and Connection: no silent loss, one life per connection, and the local socket's mode."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coordd.errors import ConfigError, InUseError
from coordd.transport.clients import MAX_REQUEST_BYTES, ClientSocket, Connection, Poller
from coordd.transport.security import Gate, generate
from coordd.transport.sockets import Context
from tests.transport.support import collect, gated_context, stays_false, wait_until, zmq_context

PAIR = generate()


@pytest.fixture
def inside() -> Iterator[tuple[Context, Gate]]:
    with gated_context() as pair:
        yield pair


@pytest.fixture
def outside() -> Iterator[Context]:
    with zmq_context() as context:
        yield context


def connect(context: Context, clients: ClientSocket) -> Connection:
    connection = Connection.to_server(context, clients.address, PAIR.public, generate())
    wait_until(lambda: connection.up)
    return connection


def bind_again(context: Context, gate: Gate, address: str) -> ClientSocket:
    """ZeroMQ gives up an address on a thread of its own, shortly after the socket was closed."""
    bound: list[ClientSocket] = []

    def try_again() -> bool:
        with suppress(InUseError):
            bound.append(ClientSocket.on_network(context, PAIR, address, gate))
        return bool(bound)

    wait_until(try_again)
    return bound[0]


def take(clients: ClientSocket, count: int = 1) -> list[tuple[bytes, bytes]]:
    return collect(lambda: clients.receive(100, 10_000_000), count)


def test_a_request_and_its_reply(inside: tuple[Context, Gate], outside: Context) -> None:
    clients = ClientSocket.on_network(inside[0], PAIR, "127.0.0.1:0", inside[1])
    connection = connect(outside, clients)
    assert connection.send(b"question")
    [(who, question)] = take(clients)
    assert question == b"question"
    assert clients.send(who, b"answer")
    assert collect(lambda: connection.receive(10)) == [b"answer"]
    connection.close()
    clients.close()


def test_a_reply_to_a_client_that_left_is_reported_as_dropped(inside: tuple[Context, Gate], outside: Context) -> None:
    clients = ClientSocket.on_network(inside[0], PAIR, "127.0.0.1:0", inside[1])
    connection = connect(outside, clients)
    connection.send(b"question")
    [(who, _)] = take(clients)
    assert not clients.send(b"nobody", b"answer")
    connection.close()
    wait_until(lambda: not clients.send(who, b"answer"))
    clients.close()


def test_a_client_that_does_not_read_is_reported(inside: tuple[Context, Gate], outside: Context) -> None:
    clients = ClientSocket.on_network(inside[0], PAIR, "127.0.0.1:0", inside[1])
    connection = connect(outside, clients)
    connection.send(b"question")
    [(who, _)] = take(clients)
    sent = 0
    while clients.send(who, b"x" * 100_000):
        sent += 1
        assert sent < 100_000, "no bound"
    connection.close()
    clients.close()


def test_nothing_is_sent_before_the_connection_is_up(outside: Context) -> None:
    connection = Connection.to_server(outside, "127.0.0.1:1", PAIR.public, generate())
    assert not connection.up
    assert not connection.send(b"too early")
    connection.close()


def test_what_can_not_be_connected_to_is_a_wrong_setting(outside: Context, tmp_path: Path) -> None:
    for address in ("a-name:80", "127.0.0.1"):
        with pytest.raises(ConfigError, match=re.escape(address)):
            Connection.to_server(outside, address, PAIR.public, generate())
    with pytest.raises(ConfigError, match="CURVE"):
        Connection.to_server(outside, "127.0.0.1:80", "short", generate())
    with pytest.raises(ConfigError, match="can't connect"):
        Connection.to_path(outside, tmp_path / ("x" * 120))


def test_who_holds_another_key_is_told_from_who_is_not_there(inside: tuple[Context, Gate], outside: Context) -> None:
    clients = ClientSocket.on_network(inside[0], PAIR, "127.0.0.1:0", inside[1])
    right = connect(outside, clients)
    wrong = Connection.to_server(outside, clients.address, generate().public, generate())
    nobody = Connection.to_server(outside, "127.0.0.1:1", PAIR.public, generate())
    wait_until(lambda: not wrong.up and wrong.rejected)
    assert not right.rejected
    assert not nobody.up
    assert not nobody.rejected
    for each in (right, wrong, nobody, clients):
        each.close()


def test_a_lost_connection_stays_lost(inside: tuple[Context, Gate], outside: Context) -> None:
    context, gate = inside
    clients = ClientSocket.on_network(context, PAIR, "127.0.0.1:0", gate)
    connection = connect(outside, clients)
    address = clients.address
    clients.close()
    wait_until(lambda: not connection.up)
    again = bind_again(context, gate, address)
    # ZeroMQ connects again by itself: a fresh connection gets through, this one must not.
    fresh = connect(outside, again)
    assert stays_false(lambda: connection.up or connection.send(b"stale") or bool(again.receive(1, 1)), 0.8)
    assert connection.lost
    for each in (connection, fresh, again):
        each.close()


def test_a_loss_between_two_looks_is_noticed(inside: tuple[Context, Gate], outside: Context) -> None:
    context, gate = inside
    clients = ClientSocket.on_network(context, PAIR, "127.0.0.1:0", gate)
    connection = connect(outside, clients)
    address = clients.address
    clients.close()
    again = bind_again(context, gate, address)
    # Not looked at meanwhile: by now ZeroMQ has connected it again, as the second one shows by its own connection.
    fresh = connect(outside, again)
    stays_false(lambda: False, 0.8)
    assert not connection.up
    for each in (connection, fresh, again):
        each.close()


def test_the_descriptor_wakes_for_up_message_and_loss(inside: tuple[Context, Gate], outside: Context) -> None:
    clients = ClientSocket.on_network(inside[0], PAIR, "127.0.0.1:0", inside[1])
    connection = Connection.to_server(outside, clients.address, PAIR.public, generate())
    poller = Poller()
    poller.register(connection)
    got: list[bytes] = []

    def turn() -> None:
        got.extend(connection.receive(10))
        if not connection.up and not connection.lost:
            assert poller.poll(5) == {connection}

    while not got and not connection.up:
        turn()
    connection.send(b"question")
    [(who, _)] = take(clients)
    connection.receive(10)
    clients.send(who, b"answer")
    while not got:
        got.extend(connection.receive(10))
        if not got:
            assert poller.poll(5) == {connection}
    clients.close()
    while connection.up:
        assert poller.poll(5) == {connection}
    connection.close()


def test_a_request_that_is_too_large_ends_its_connection_only(inside: tuple[Context, Gate], outside: Context) -> None:
    clients = ClientSocket.on_network(inside[0], PAIR, "127.0.0.1:0", inside[1])
    greedy, modest = connect(outside, clients), connect(outside, clients)
    assert greedy.send(b"x" * (MAX_REQUEST_BYTES + 1))
    wait_until(lambda: not greedy.up)
    assert modest.send(b"small")
    assert [data for _, data in take(clients)] == [b"small"]
    for each in (greedy, modest, clients):
        each.close()


def test_a_path_is_for_its_owner_alone(tmp_path: Path, outside: Context) -> None:
    path = tmp_path / "agent.sock"
    with zmq_context() as context:
        clients = ClientSocket.on_path(context, path)
        assert path.stat().st_mode & 0o777 == 0o600
        connection = Connection.to_path(outside, path)
        wait_until(lambda: connection.up)
        assert connection.send(b"local")
        assert [data for _, data in take(clients)] == [b"local"]
        with pytest.raises(InUseError, match=r"agent\.sock"):
            ClientSocket.on_path(outside, path)
        assert connection.up
        connection.close()
        clients.close()


def test_a_left_over_socket_is_replaced_and_a_file_is_not(tmp_path: Path, outside: Context) -> None:
    import socket

    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    ClientSocket.on_path(outside, path).close()
    path.unlink(missing_ok=True)
    path.write_text("precious")
    with pytest.raises(ConfigError, match="not a socket"):
        ClientSocket.on_path(outside, path)
    assert path.read_text() == "precious"
    with pytest.raises(ConfigError, match="can't listen"):
        ClientSocket.on_path(outside, tmp_path / "missing" / "agent.sock")
