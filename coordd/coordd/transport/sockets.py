"""What all sockets have in common: context, limits, CURVE, addresses, binding.

The settings replace ZeroMQ's defaults where those are wrong for us: unbounded frames, a 30 s handshake, endless linger, a
queue of 1000 messages for a peer that is not there, and minutes until a silent connection ends. ZeroMQ's own heartbeats
would see to the last, but libzmq 4.3.5 aborts the process if one falls due on a connection that it has stopped reading
because our queue is full, and whose other end is gone (zeromq/libzmq#3937): any client could do that to a server. So the
kernel watches the connections: it ends one where what was sent is not acknowledged in time. A process that stands still while
its kernel answers is noticed by those who wait for its answers.
"""

import errno
import ipaddress
import socket as network
from typing import TypeAlias

import zmq

from coordd.errors import ConfigError, InUseError, TransportError
from coordd.messages.codec import MAX_FRAME_BYTES

__all__ = [
    "Context",
    "Socket",
    "bind",
    "close_context",
    "endpoint",
    "open_context",
    "open_socket",
    "receive_frame",
    "resolve_address",
    "writable",
]

Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]
Socket: TypeAlias = zmq.Socket[bytes]

_OLDEST_LIBZMQ = (4, 3, 5)
"""Older ones overflow buffers or block other peers before anyone has authenticated (CVE-2019-13132, CVE-2020-15166)."""

_HANDSHAKE_MS = 2_000
_SILENCE_MS = 3_000
"""A connection that acknowledges nothing of what was sent for so long is dropped; by default that takes minutes."""
_RECONNECT_MS = 50
_RECONNECT_LONGEST_MS = 500
"""Short, because an election is over within a second; a refused local connect costs next to nothing."""

_BASE_OPTIONS: tuple[tuple[zmq.SocketOption, int], ...] = (
    (zmq.LINGER, 0),
    (zmq.SNDTIMEO, 0),
    (zmq.IMMEDIATE, 1),
    (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
    (zmq.TCP_MAXRT, _SILENCE_MS),
    (zmq.CONNECT_TIMEOUT, _HANDSHAKE_MS),
    (zmq.RECONNECT_IVL, _RECONNECT_MS),
    (zmq.RECONNECT_IVL_MAX, _RECONNECT_LONGEST_MS),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 30),
    (zmq.TCP_KEEPALIVE_INTVL, 10),
    (zmq.TCP_KEEPALIVE_CNT, 3),
)


def open_context() -> Context:
    """One per process, and one for each loop that must end on its own.

    Raises: TransportError if this libzmq is too old or was built without CURVE.
    """
    if zmq.zmq_version_info() < _OLDEST_LIBZMQ:
        wanted = ".".join(map(str, _OLDEST_LIBZMQ))
        raise TransportError(f"libzmq {zmq.zmq_version()} has known security holes; install {wanted} or newer")
    if not zmq.has("curve"):
        raise TransportError("this libzmq was built without CURVE encryption; install one that has it")
    context: Context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)
    return context


def close_context(context: Context) -> None:
    """Close every socket still open and give the context back, without waiting for unsent messages."""
    context.destroy(linger=0)


def open_socket(context: Context, kind: zmq.SocketType, *, queue: int, max_bytes: int = MAX_FRAME_BYTES) -> Socket:
    """A socket with our limits: `queue` messages each way for each connection, frames of at most `max_bytes`."""
    socket = context.socket(kind)
    for option, value in _BASE_OPTIONS:
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.SNDHWM, queue)
    socket.setsockopt(zmq.RCVHWM, queue)
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    return socket


def resolve_address(address: str) -> str:
    """`host:port` with the host as a number. Asks the resolver, which may block: not for a loop's thread.

    Raises: ConfigError if it is no address or the name is unknown.
    """
    host, port = _split(address)
    try:
        found = network.getaddrinfo(host, port, type=network.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"address {address!r}: the name can't be resolved ({error.strerror or error})") from error
    number = str(found[0][4][0])
    return f"[{number}]:{port}" if ":" in number else f"{number}:{port}"


def endpoint(socket: Socket, address: str) -> str:
    """The ZeroMQ endpoint of a numeric `host:port`; names are refused, because ZeroMQ's resolver blocks every socket.

    Raises: ConfigError if the host is not a number.
    """
    host, port = _split(address)
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(
            f"address {address!r}: only numeric addresses reach a socket; resolve the name first"
        ) from None
    if number.version == 6:
        socket.setsockopt(zmq.IPV6, 1)
        return f"tcp://[{number}]:{port}"
    return f"tcp://{number}:{port}"


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"address {address!r} is not of the form host:port")
    return host, int(port)


def bind(socket: Socket, target: str, address: str) -> None:
    """Bind, or close the socket and say in one sentence why not.

    Raises: InUseError if another process has the address; ConfigError if it can never be bound.
    """
    try:
        socket.bind(target)
    except zmq.ZMQError as error:
        socket.close()
        if error.errno == errno.EADDRINUSE:
            raise InUseError(f"address {address} is in use by another process") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ConfigError(f"no permission to listen on {address}") from error
        raise ConfigError(f"can't listen on {address}: {error.strerror}") from error


def writable(socket: Socket) -> bool:
    """Whether a message could go out now: there is a peer that is connected, authenticated, and its queue has room."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)


def receive_frame(socket: Socket) -> "tuple[bytes, zmq.Frame] | None":
    """The next message of a ROUTER, as (routing id, frame); None if there is none now.

    A message of another shape gives an empty frame. Its surplus parts are read, because ZeroMQ demands it, but not
    kept: it bounds the size of a frame, not their number.
    """
    try:
        routing: bytes = socket.recv(zmq.NOBLOCK)
    except zmq.Again:
        return None
    frame = zmq.Frame()
    parts = 0
    while socket.getsockopt(zmq.RCVMORE):
        part = socket.recv(zmq.NOBLOCK, copy=False)
        parts += 1
        if parts == 1:
            frame = part
    return routing, frame if parts == 1 else zmq.Frame()
