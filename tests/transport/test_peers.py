"""PeerSockets: drop rather than queue, bounded slices, connections that follow the configuration."""

import socket as network
from collections.abc import Iterator

import pytest
import zmq

from coordd.errors import ConfigError, InUseError
from coordd.transport import peers as peers_module
from coordd.transport.peers import PeerSockets
from coordd.transport.security import Gate, KeyPair, generate, secure_client
from coordd.transport.sockets import close_context, endpoint, open_context, open_socket, resolve_address, writable
from coordd.types import ServerId
from tests.transport.support import collect, stays_false, wait_until

ONE, TWO = ServerId("one#1"), ServerId("two#1")


class Server:
    """One server's transport, in a context of its own as in a process of its own."""

    def __init__(self, bind_address: str = "127.0.0.1:0", pair: KeyPair | None = None) -> None:
        self.pair = pair or generate()
        self.context = open_context()
        self.gate = Gate(self.context)
        self.peers = PeerSockets(self.context, self.pair, bind_address, self.gate)
        self.got: list[tuple[str, bytes]] = []

    def knows(self, server: ServerId, other: "Server") -> None:
        self.gate.accept([other.pair.public])
        self.peers.set_peers({server: (other.peers.address, other.pair.public)})

    def received(self, count: int) -> bool:
        self.got += self.peers.receive(100, 1_000_000)
        return len(self.got) >= count

    def close(self) -> None:
        self.peers.close()
        self.gate.close()
        close_context(self.context)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    opened = [Server(), Server()]
    opened[0].knows(TWO, opened[1])
    opened[1].knows(ONE, opened[0])
    wait_until(lambda: TWO in opened[0].peers.connected_peers() and ONE in opened[1].peers.connected_peers())
    yield opened
    for server in opened:
        server.close()


def test_messages_go_both_ways_in_order(servers: list[Server]) -> None:
    one, two = servers
    for number in range(20):
        assert one.peers.send(TWO, b"%d" % number)
    assert two.peers.send(ONE, b"answer")
    wait_until(lambda: two.received(20))
    wait_until(lambda: one.received(1))
    assert two.got == [(one.pair.public, b"%d" % number) for number in range(20)]
    assert one.got == [(two.pair.public, b"answer")]


def test_bulk_goes_over_a_connection_of_its_own(servers: list[Server]) -> None:
    one, two = servers
    wait_until(lambda: one.peers.send(TWO, b"x" * 300_000, bulk=True))
    # The receiver does not read: the bulk connection fills up, messages still go.
    wait_until(lambda: not one.peers.send(TWO, b"x" * 300_000, bulk=True))
    assert one.peers.send(TWO, b"heartbeat")

    def heard() -> bool:
        two.received(1)
        return (one.pair.public, b"heartbeat") in two.got

    wait_until(heard)


def test_a_slice_is_bounded_in_messages_and_bytes(servers: list[Server]) -> None:
    one, two = servers
    for _ in range(10):
        assert one.peers.send(TWO, b"x" * 1000)
    assert len(collect(lambda: two.peers.receive(100, 1))) == 1
    rest: list[tuple[str, bytes]] = []

    def taken() -> bool:
        part = two.peers.receive(4, 1_000_000)
        assert len(part) <= 4
        rest.extend(part)
        return len(rest) == 9

    wait_until(taken)


def test_nothing_waits_for_an_absent_peer() -> None:
    absent = Server()
    address, pair = absent.peers.address, absent.pair
    absent.close()
    one = Server()
    one.gate.accept([pair.public])
    one.peers.set_peers({TWO: (address, pair.public)})
    assert not any(one.peers.send(TWO, b"stale") for _ in range(100))
    assert not one.peers.send(ServerId("stranger#1"), b"stale")
    two = Server(address, pair)
    two.knows(ONE, one)
    wait_until(lambda: one.peers.send(TWO, b"fresh"))
    wait_until(lambda: two.received(1))
    assert two.got == [(one.pair.public, b"fresh")]
    one.close()
    two.close()


def test_what_is_queued_when_the_connection_ends_is_dropped(servers: list[Server]) -> None:
    one, two = servers
    address, pair = two.peers.address, two.pair
    # Nobody reads: the network's buffers fill, then the queue.
    wait_until(lambda: not one.peers.send(TWO, b"s" * 500_000))
    two.close()
    wait_until(lambda: TWO not in one.peers.connected_peers())
    assert not one.peers.send(TWO, b"stale")
    again = Server(address, pair)
    again.knows(ONE, one)
    wait_until(lambda: one.peers.send(TWO, b"fresh"))
    wait_until(lambda: again.received(1))
    assert again.got == [(one.pair.public, b"fresh")]
    servers[1] = again


def test_unchanged_peers_keep_their_connection(servers: list[Server]) -> None:
    one, two = servers
    three = Server()
    peer = (two.peers.address, two.pair.public)
    for number in range(50):
        # With a new connection each time, none would be up at once.
        one.peers.set_peers({TWO: peer, ServerId(f"three#{number}"): (three.peers.address, three.pair.public)})
        assert one.peers.send(TWO, b"%d" % number)
    wait_until(lambda: two.received(50))
    one.peers.set_peers({TWO: (two.peers.address, three.pair.public)})
    assert stays_false(lambda: one.peers.send(TWO, b"to another key"))
    one.peers.set_peers({})
    assert one.peers.connected_peers() == frozenset()
    three.close()


def test_messages_of_several_parts_are_dropped(servers: list[Server]) -> None:
    one, two = servers
    socket = open_socket(one.context, zmq.DEALER, queue=10)
    secure_client(socket, two.pair.public, one.pair)
    socket.connect(endpoint(socket, two.peers.address))
    wait_until(lambda: writable(socket))
    socket.send_multipart([b"part"] * 1000)
    socket.send(b"whole")
    wait_until(lambda: two.received(1))
    assert two.got == [(one.pair.public, b"whole")]
    assert two.peers.dropped == 1
    socket.close()


def test_a_frame_without_a_proof_has_no_sender() -> None:
    assert peers_module._proved_key(zmq.Frame(b"from nowhere")) is None


def test_a_taken_address_is_named(servers: list[Server]) -> None:
    address = servers[0].peers.address
    with pytest.raises(InUseError, match=address):
        PeerSockets(servers[1].context, servers[1].pair, address, servers[1].gate)


def test_an_address_of_another_host_is_a_wrong_setting(servers: list[Server]) -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:4000"):
        PeerSockets(servers[0].context, servers[0].pair, "192.0.2.1:4000", servers[0].gate)


@pytest.mark.parametrize("address", ["localhost:80", "127.0.0.1", ":80", "127.0.0.1:x", "127.0.0.1:70000", "tcp://a:1"])
def test_only_numeric_addresses_reach_a_socket(servers: list[Server], address: str) -> None:
    one = servers[0]
    with pytest.raises(ConfigError):
        one.peers.set_peers({TWO: (address, servers[1].pair.public)})
    assert not one.peers.send(TWO, b"")


def test_names_are_resolved_aside() -> None:
    assert resolve_address("127.0.0.1:8310") == "127.0.0.1:8310"
    assert resolve_address("[::1]:8310") == "[::1]:8310"
    assert resolve_address("localhost:8310") in ("127.0.0.1:8310", "[::1]:8310")
    with pytest.raises(ConfigError, match=r"nowhere\.invalid"):
        resolve_address("nowhere.invalid:8310")


def test_ipv6_loopback() -> None:
    try:
        with network.socket(network.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return  # a host without IPv6 has nothing to try here
    one, two = Server("[::1]:0"), Server("[::1]:0")
    one.knows(TWO, two)
    two.knows(ONE, one)
    wait_until(lambda: one.peers.send(TWO, b"six"))
    wait_until(lambda: two.received(1))
    one.close()
    two.close()
