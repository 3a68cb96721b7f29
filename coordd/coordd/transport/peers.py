"""Messages between servers: bytes in, bytes out, each with a proved sender, lost rather than late.

One ROUTER takes everything in. For each peer there are two DEALERs out: one for Raft, one for the chunks of a snapshot,
which must not hold up a heartbeat on the same TCP connection. Nothing is ever answered over the incoming connection, so
that no routing id, which the other side may choose, means anything. The sender is the key that the handshake has
proved.

A message is one frame. Nothing is queued for a peer that is not connected, and what was queued when a connection ends
is dropped with it: Raft repeats what is lost, while a flood of old messages after a partition helps nobody.

"Connected" means that the connection out is authenticated and has room. ZeroMQ notices a closed connection at once and
one that acknowledges nothing after 3 s, and `connected_peers` asks it, so there is nothing to listen to and nothing to fall
out of step.
"""

from collections.abc import Mapping
from typing import TypeAlias

import zmq

from coordd.errors import CoorddError
from coordd.transport.security import Gate, KeyPair, secure_client
from coordd.transport.sockets import Context, Socket, bind, endpoint, open_socket, receive_frame, writable
from coordd.types import ServerId

__all__ = ["Peer", "PeerSockets"]

Peer: TypeAlias = tuple[str, str]
"""(numeric raft address, public key)"""

_QUEUE = 64
_BULK_QUEUE = 8


class PeerSockets:
    """This server's sockets towards the others. Belongs to one thread.

    `bind_address` is numeric; port 0 takes a free one, and `address` says which. Raises at construction: InUseError if
    the address is taken, ConfigError if it can't be bound.
    """

    def __init__(self, context: Context, pair: KeyPair, bind_address: str, gate: Gate) -> None:
        self._context = context
        self._pair = pair
        self._gate = gate
        self._peers: dict[ServerId, Peer] = {}
        self._out: dict[ServerId, Socket] = {}
        self._bulk: dict[ServerId, Socket] = {}
        self.dropped = 0
        """Incoming messages without a proved, accepted sender or of a wrong shape."""
        self._router = open_socket(context, zmq.ROUTER, queue=_QUEUE)
        gate.secure_server(self._router, "raft", pair)
        bind(self._router, endpoint(self._router, bind_address), bind_address)
        self.address = self._router.getsockopt_string(zmq.LAST_ENDPOINT).removeprefix("tcp://")

    @property
    def poll_target(self) -> Socket:
        return self._router

    def set_peers(self, peers: Mapping[ServerId, Peer]) -> None:
        """Connect to exactly these. Connections whose address and key did not change go on undisturbed.

        Whom we listen to is decided apart from it, by `Gate.accept`: it may have to come earlier or end later.
        """
        for server in [known for known, peer in self._peers.items() if peers.get(known) != peer]:
            self._disconnect(server)
        for server, peer in peers.items():
            if server not in self._peers:
                self._connect(server, peer)

    def send(self, server: ServerId, frame: bytes, bulk: bool = False) -> bool:
        """Hand one message to the connection. False: dropped, since the peer is unknown, not connected or too slow."""
        socket = (self._bulk if bulk else self._out).get(server)
        if socket is None:
            return False
        try:
            socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, max_messages: int, max_bytes: int) -> list[tuple[str, bytes]]:
        """What has come, as (sender's public key, message), without waiting; the message that passes `max_bytes` is the
        last.

        A connection outlives the removal of its key from the accepted set, its messages do not.
        """
        received: list[tuple[str, bytes]] = []
        accepted, size = self._gate.accepted, 0
        for _ in range(max_messages):
            message = receive_frame(self._router)
            if message is None:
                break
            frame = message[1]
            key = _proved_key(frame)
            if key is None or key not in accepted:
                self.dropped += 1
                continue
            data = frame.bytes
            received.append((key, data))
            size += len(data)
            if size >= max_bytes:
                break
        return received

    def connected_peers(self) -> frozenset[ServerId]:
        """Peers to whom a message could go out now."""
        return frozenset(server for server, socket in self._out.items() if writable(socket))

    def close(self) -> None:
        for server in list(self._peers):
            self._disconnect(server)
        self._router.close()

    def _connect(self, server: ServerId, peer: Peer) -> None:
        address, key = peer
        opened: list[Socket] = []
        try:
            for queue in (_QUEUE, _BULK_QUEUE):
                socket = open_socket(self._context, zmq.DEALER, queue=queue)
                opened.append(socket)
                secure_client(socket, key, self._pair)
                socket.connect(endpoint(socket, address))
        except (CoorddError, zmq.ZMQError):
            for socket in opened:
                socket.close()
            raise
        self._out[server], self._bulk[server] = opened
        self._peers[server] = peer

    def _disconnect(self, server: ServerId) -> None:
        del self._peers[server]
        self._out.pop(server).close()
        self._bulk.pop(server).close()


def _proved_key(frame: zmq.Frame) -> str | None:
    """The key that the handshake proved; None for a frame that came through none."""
    try:
        key = frame.get("User-Id")
    except zmq.ZMQError:
        return None
    return key if isinstance(key, str) else None
