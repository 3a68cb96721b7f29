"""Messages to and from other servers: encoded, addressed by identity, and believed only under the right key and cluster."""

from coordd.errors import TransportError
from coordd.messages.codec import decode_peer, encode_peer
from coordd.messages.peer import Hello, PeerMessage, SnapshotChunk, SnapshotCredit
from coordd.server.observed import Observed
from coordd.server.roster import Roster
from coordd.transport.peers import PeerSockets
from coordd.transport.security import Gate
from coordd.types import ServerId

__all__ = ["PeerLinks"]

_BULK = (SnapshotChunk, SnapshotCredit)


class PeerLinks:
    """Mutable; one per server, on the loop's thread."""

    def __init__(self, sockets: PeerSockets, gate: Gate, roster: Roster, observed: Observed) -> None:
        self.cluster_id = ""
        self._sockets = sockets
        self._gate = gate
        self._roster = roster
        self._observed = observed

    def follow_roster(self) -> None:
        """Connect to, and let in, exactly whom the roster names."""
        contacts = self._roster.contacts()
        self._gate.accept(contacts)
        # Connections are kept per key: what is learned of the identity behind a key must not break them.
        self._sockets.set_peers({ServerId(key): (address, key) for key, address in contacts.items()})

    def send(self, message: PeerMessage) -> bool:
        """False: dropped."""
        if isinstance(message, Hello):
            return False
        key = self._roster.key_of(message.receiver)
        return key is not None and self.send_to_key(key, message)

    def send_to_key(self, key: str, message: PeerMessage) -> bool:
        cluster = "" if isinstance(message, Hello) else self.cluster_id
        return self._sockets.send(ServerId(key), encode_peer(cluster, message), bulk=isinstance(message, _BULK))

    def connected(self, servers: list[ServerId]) -> frozenset[ServerId]:
        """Those of these servers that can be written to."""
        keys = self._sockets.connected_peers()
        return frozenset(server for server in servers if self._roster.key_of(server) in keys)

    def contacts(self) -> list[str]:
        return list(self._roster.contacts())

    def receive(self, max_messages: int, max_bytes: int) -> list[tuple[str, str, PeerMessage]]:
        """(key, cluster id, message) of what has come; what claims to be somebody else's is dropped and counted."""
        found = []
        for key, frame in self._sockets.receive(max_messages, max_bytes):
            try:
                envelope = decode_peer(frame)
            except TransportError:
                self._observed.dropped += 1
                continue
            message = envelope.message
            believed = self._roster.believes_hello if isinstance(message, Hello) else self._roster.believes
            if believed(message.sender, key):
                found.append((key, envelope.cluster_id, message))
            else:
                self._observed.dropped += 1
        return found
