"""Messages between clients and servers, and between local programs and their agent.

`ClientSocket` is the answering side, `Connection` the asking one. On the network both are CURVE, any client key gets in
and says nothing about rights (the ACL token does). On a path (`ipc://`) there is no CURVE: the file's mode 0600 is the
door. Messages are single frames; nothing is queued for a party that is not connected, and `send` says when it dropped
one.

A `Connection` lives once: it tries to connect until it is up, and when it is lost it stays lost, so that whoever waits
for an answer over it hears about that. To go on, open another one.
"""

import errno
import os
import socket as network
import stat
from contextlib import suppress
from pathlib import Path

import zmq

from coordd.errors import ConfigError, InUseError
from coordd.messages.codec import MAX_COMMAND_BYTES, MAX_FRAME_BYTES
from coordd.transport.poller import Poller, Wakeup
from coordd.transport.security import Gate, KeyPair, secure_client
from coordd.transport.sockets import (
    Context,
    Socket,
    bind,
    close_context,
    endpoint,
    open_context,
    open_socket,
    receive_frame,
    resolve_address,
    writable,
)

__all__ = [
    "MAX_REQUEST_BYTES",
    "ClientSocket",
    "Connection",
    "Context",
    "Poller",
    "Wakeup",
    "close_context",
    "open_context",
    "resolve_address",
]

MAX_REQUEST_BYTES = MAX_COMMAND_BYTES + 64 * 1024
"""Largest request that a server reads; a connection that sends a larger one is ended."""

_QUEUE = 1024


class ClientSocket:
    """Where clients knock. Belongs to one thread. Not polling it is the way to hold clients up: TCP then slows them.

    Made by `on_network` or `on_path`. Raises there: InUseError if the address is taken, ConfigError if it can't be
    bound.
    """

    def __init__(self, router: Socket, address: str) -> None:
        self._router = router
        self.address = address
        """Where clients connect to: `host:port`, or `ipc://path`."""
        self.dropped = 0
        """Incoming messages of a wrong shape."""

    @classmethod
    def on_network(cls, context: Context, pair: KeyPair, bind_address: str, gate: Gate) -> "ClientSocket":
        """`bind_address` is numeric; port 0 takes a free one."""
        router = _open_router(context)
        gate.secure_server(router, "client", pair)
        bind(router, endpoint(router, bind_address), bind_address)
        return cls(router, router.getsockopt_string(zmq.LAST_ENDPOINT).removeprefix("tcp://"))

    @classmethod
    def on_path(cls, context: Context, path: Path) -> "ClientSocket":
        """Only the owner of the file, which is this process's user, can connect."""
        _check_path(path)
        router = _open_router(context)
        earlier = os.umask(0o177)
        try:
            bind(router, f"ipc://{path}", str(path))
        finally:
            os.umask(earlier)
        return cls(router, f"ipc://{path}")

    @property
    def poll_target(self) -> Socket:
        return self._router

    @property
    def fd(self) -> int:
        """For asyncio; see `Connection.poll_target`. A `Poller` needs no such care."""
        return int(self._router.getsockopt(zmq.FD))

    def receive(self, max_messages: int, max_bytes: int) -> list[tuple[bytes, bytes]]:
        """What has come, as (connection, message), without waiting; the message that passes `max_bytes` is the last."""
        received: list[tuple[bytes, bytes]] = []
        size = 0
        for _ in range(max_messages):
            message = receive_frame(self._router)
            if message is None:
                break
            data = message[1].bytes
            if not data:
                self.dropped += 1
                continue
            received.append((message[0], data))
            size += len(data)
            if size >= max_bytes:
                break
        return received

    def send(self, connection: bytes, frame: bytes) -> bool:
        """False: dropped, since the client is gone or reads too slowly."""
        try:
            self._router.send(connection, zmq.NOBLOCK | zmq.SNDMORE)
            self._router.send(frame, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (errno.EAGAIN, errno.EHOSTUNREACH):
                return False
            raise
        return True

    def close(self) -> None:
        self._router.close()


class Connection:
    """One connection of a client to one server or to its agent. Belongs to one thread.

    Made by `to_server` or `to_path`. `up` is True from the end of the handshake until the connection is lost; `lost` is
    True ever after. `send` returns False unless the connection is up. `rejected`: before it ever was up, somebody there took
    a connection and ended it: no holder of the pinned key, or no server at all.
    """

    def __init__(self, dealer: Socket, target: str) -> None:
        self._dealer = dealer
        self._ended = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._was_up = False
        self.lost = self.rejected = False
        try:
            dealer.connect(target)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"can't connect to {target}: {error.strerror}") from error

    @classmethod
    def to_server(cls, context: Context, address: str, server_key: str, pair: KeyPair) -> "Connection":
        """`address` is numeric. Raises: ConfigError if it is not, or the key is none."""
        dealer = _open_dealer(context)
        try:
            secure_client(dealer, server_key, pair)
            target = endpoint(dealer, address)
        except ConfigError:
            dealer.close()
            raise
        return cls(dealer, target)

    @classmethod
    def to_path(cls, context: Context, path: Path) -> "Connection":
        """Nobody needs to listen there yet. Raises: ConfigError if it is too long for a path of a socket."""
        return cls(_open_dealer(context), f"ipc://{path}")

    @property
    def poll_target(self) -> int:
        """A file descriptor that becomes readable when anything changes: connected, lost, a message.

        It is edge-triggered, and sending or receiving may swallow the edge: before waiting on it, and after each send,
        receive until nothing comes and look at `up`.
        """
        return int(self._dealer.getsockopt(zmq.FD))

    @property
    def up(self) -> bool:
        """Looks anew each time."""
        ended = self._has_ended()
        if self._was_up:
            self.lost = self.lost or ended
        else:
            # A handshake that fails is told as an end, too, and tried again; a refused connection is not.
            self.rejected = self.rejected or ended
            self._was_up = writable(self._dealer)
        return self._was_up and not self.lost

    def send(self, frame: bytes) -> bool:
        """False: not sent, and never will be: the connection is not up, or its queue is full."""
        if self.lost or not self._was_up:
            return False
        try:
            self._dealer.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, max_messages: int) -> list[bytes]:
        received: list[bytes] = []
        while len(received) < max_messages:
            try:
                data = self._dealer.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if self._dealer.getsockopt(zmq.RCVMORE):
                while self._dealer.getsockopt(zmq.RCVMORE):
                    self._dealer.recv(zmq.NOBLOCK)
                continue
            received.append(data)
        return received

    def close(self) -> None:
        self._dealer.disable_monitor()
        self._ended.close()
        self._dealer.close()

    def _has_ended(self) -> bool:
        """ZeroMQ connects again by itself, perhaps between two looks; only its monitor tells of the end between
        them."""
        ended = False
        with suppress(zmq.Again):
            while True:
                self._ended.recv_multipart(zmq.NOBLOCK)
                ended = True
        return ended


def _open_router(context: Context) -> Socket:
    router = open_socket(context, zmq.ROUTER, queue=_QUEUE, max_bytes=MAX_REQUEST_BYTES)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return router


def _open_dealer(context: Context) -> Socket:
    return open_socket(context, zmq.DEALER, queue=_QUEUE, max_bytes=MAX_FRAME_BYTES)


def _check_path(path: Path) -> None:
    """ZeroMQ removes whatever is at the path before it binds: another agent's socket, or a file of somebody's."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"can't listen on {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"can't listen on {path}: there is a file that is not a socket")
    with network.socket(network.AF_UNIX, network.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except OSError as error:
            raise ConfigError(f"can't listen on {path}: {error.strerror}") from error
    raise InUseError(f"address {path} is in use by another process")
