"""Bytes to messages and back. Decoding validates every field: what comes out is of the declared types or nothing comes out.

The limits stand here because they are part of the protocol: a peer that exceeds them is wrong, whoever it is.
"""

import msgspec

from coordd.errors import TransportError
from coordd.messages.client import PROTOCOL_VERSION, Reply, Request
from coordd.messages.entry import UNREADABLE
from coordd.messages.peer import Envelope, PeerMessage

__all__ = [
    "MAX_COMMAND_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_VALUE_BYTES",
    "PEER_VERSION",
    "decode_peer",
    "decode_reply",
    "decode_request",
    "encode_peer",
    "encode_reply",
    "encode_request",
]

PEER_VERSION = 1
MAX_FRAME_BYTES = 8 * 1024 * 1024
"""Largest frame on any socket (zmq MAXMSGSIZE). Appends and snapshot chunks stay far below it."""
MAX_COMMAND_BYTES = 1536 * 1024
"""Largest encoded command."""
MAX_VALUE_BYTES = 512 * 1024
"""Largest value of a key, as Consul's."""

_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(Envelope)
_request = msgspec.msgpack.Decoder(Request)
_reply = msgspec.msgpack.Decoder(Reply)


def encode_peer(cluster_id: str, message: PeerMessage) -> bytes:
    return _encoder.encode(Envelope(PEER_VERSION, cluster_id, message))


def decode_peer(frame: bytes | memoryview) -> Envelope:
    """Raises: TransportError if the bytes are no envelope of this version."""
    try:
        envelope = _envelope.decode(frame)
    except UNREADABLE as error:
        raise TransportError(f"unreadable message from a server: {error}") from error
    if envelope.version != PEER_VERSION:
        raise TransportError(f"message of protocol version {envelope.version}, this server speaks {PEER_VERSION}")
    return envelope


def encode_request(request: Request) -> bytes:
    return _encoder.encode(request)


def decode_request(frame: bytes | memoryview) -> Request:
    """Raises: TransportError if the bytes are no request of this version."""
    try:
        request = _request.decode(frame)
    except UNREADABLE as error:
        raise TransportError(f"unreadable request: {error}") from error
    if request.version != PROTOCOL_VERSION:
        raise TransportError(f"request of protocol version {request.version}, this side speaks {PROTOCOL_VERSION}")
    return request


def encode_reply(reply: Reply) -> bytes:
    return _encoder.encode(reply)


def decode_reply(frame: bytes | memoryview) -> Reply:
    """Raises: TransportError if the bytes are no reply."""
    try:
        return _reply.decode(frame)
    except UNREADABLE as error:
        raise TransportError(f"unreadable reply: {error}") from error
