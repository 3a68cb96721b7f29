"""Who may speak: CURVE key pairs, their files, and the gate that every handshake passes.

Every network socket is a CURVE server or client; there is no plaintext. A socket belongs to a domain: on "raft" only
the accepted set of keys gets in, on "client" any key (clients are known by their ACL token, the key only encrypts).

The gate fails closed. Without a ZAP handler libzmq lets every key in, so each server socket enforces its domain
(`secure_server`), which turns a missing handler into silence; and the handler is bound before a socket can be made with
it.
"""

import contextlib
import os
import stat
import struct
import threading
import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import zmq
from zmq.utils import z85

from coordd.errors import ConfigError, TransportError
from coordd.transport.poller import Poller, Wakeup
from coordd.transport.sockets import Context, Socket

__all__ = [
    "Domain",
    "Gate",
    "KeyPair",
    "check_key",
    "generate",
    "load_key_file",
    "secure_client",
    "write_key_file",
]

Domain: TypeAlias = Literal["raft", "client"]

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_REFUSAL_LOG_SECONDS = 60.0
_REFUSED_KEYS_REMEMBERED = 1024
_KEY_LENGTH = 40


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair in Z85, 40 characters each."""

    public: str
    secret: str = field(repr=False)


def generate() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def check_key(key: str) -> str:
    """The key, if it can be one. Raises: ConfigError."""
    try:
        if len(key) == _KEY_LENGTH and len(z85.decode(key.encode("ascii"))) == 32:
            return key
    except (ValueError, KeyError, UnicodeEncodeError, struct.error):  # the last one: digits beyond 32 bits
        pass
    raise ConfigError(f"{key!r} is not a CURVE key: expected {_KEY_LENGTH} characters of Z85")


def write_key_file(path: Path, pair: KeyPair) -> None:
    """Create the file, readable by its owner alone. An existing one is never overwritten.

    Raises: ConfigError.
    """
    text = f'# CURVE key pair of coordd: keep it secret\npublic = "{pair.public}"\nsecret = "{pair.secret}"\n'
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except FileExistsError as error:
        raise ConfigError(f"key file {path} exists already; remove it first if it is no longer needed") from error
    except OSError as error:
        raise ConfigError(f"key file {path} can't be written: {error.strerror}") from error


def load_key_file(path: Path) -> KeyPair:
    """Raises: ConfigError naming the file, also if others than its owner may read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(4096)
    except OSError as error:
        raise ConfigError(f"key file {path} can't be read: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"key file {path} has mode {mode:04o}; only its owner may have access: chmod 600 {path}")
    try:
        keys = tomllib.loads(text.decode("ascii"))
        pair = KeyPair(check_key(str(keys["public"])), check_key(str(keys["secret"])))
    except (ValueError, KeyError, ConfigError) as error:
        raise ConfigError(
            f"key file {path} is not a key file of coordd; make one with: coordctl keys generate"
        ) from error
    if zmq.curve_public(pair.secret.encode()) != pair.public.encode():
        raise ConfigError(f"key file {path}: the public key does not belong to the secret one")
    return pair


def secure_client(socket: Socket, server_key: str, pair: KeyPair) -> None:
    """Make it a CURVE client that talks to nobody but the owner of `server_key`."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, check_key(server_key).encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())


class Gate:
    """The ZAP handler of one context, on a thread of its own. Make it before any socket; close it after them.

    `refused(domain, key)` is called on that thread, at most once a minute for each key: a refused party retries for
    ever.
    """

    def __init__(self, context: Context, refused: Callable[[str, str], None] | None = None) -> None:
        self._refused = refused
        self._accepted: frozenset[str] = frozenset()
        self._told: dict[str, float] = {}
        self._stopped = False
        self._wakeup = Wakeup()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._socket.bind(_ZAP_ENDPOINT)
        except zmq.ZMQError as error:
            self._socket.close()
            raise TransportError(f"this context has a gate already: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="zap", daemon=True)
        self._thread.start()

    @property
    def accepted(self) -> frozenset[str]:
        """The keys now accepted in the domain "raft"."""
        return self._accepted

    def accept(self, keys: Iterable[str]) -> None:
        """Replace the accepted set. It decides on handshakes from now on; `PeerSockets` drops what comes over older
        ones."""
        self._accepted = frozenset(keys)

    def close(self) -> None:
        self._stopped = True
        self._wakeup.wake()
        self._thread.join()
        self._wakeup.close()

    def secure_server(self, socket: Socket, domain: Domain, pair: KeyPair) -> None:
        """Make it a CURVE server that lets nobody in whom this gate has not judged."""
        socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())

    def _run(self) -> None:
        poller = Poller()
        poller.register(self._wakeup)
        poller.register(_Zap(self._socket))
        while not self._stopped:
            poller.poll(None)
            self._wakeup.clear()
            # Nothing that comes through a handshake may end this thread: then no server could ever connect again.
            try:
                self._answer_all()
            except Exception:  # noqa: S112
                continue
        self._socket.close()

    def _answer_all(self) -> None:
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts) < 4:
                continue
            key = self._judge(parts[2:])
            # "Temporary" (RFC 27): told 400, a ZeroMQ client gives up for good, and a server that is let in later would
            # never be heard. Told 300 it is cut off silently and comes back by itself.
            status = [b"200", b"OK", key.encode()] if key else [b"300", b"refused", b""]
            self._socket.send_multipart([parts[0], b"", b"1.0", parts[3], *status, b""], zmq.NOBLOCK)

    def _judge(self, request: list[bytes]) -> str | None:
        """The authenticated key in Z85, or None. `request` is version, id, domain, address, identity, mechanism,
        key."""
        if len(request) != 7 or request[0] != b"1.0" or request[5] != b"CURVE" or len(request[6]) != 32:
            return None
        domain, key = request[2], z85.encode(request[6]).decode()
        if domain == b"client" or (domain == b"raft" and key in self._accepted):
            return key
        self._tell(domain.decode(errors="replace"), key)
        return None

    def _tell(self, domain: str, key: str) -> None:
        now = time.monotonic()
        if self._refused is None or now - self._told.get(key, -_REFUSAL_LOG_SECONDS) < _REFUSAL_LOG_SECONDS:
            return
        if len(self._told) >= _REFUSED_KEYS_REMEMBERED:
            self._told.clear()
        self._told[key] = now
        # Whether the telling works must not decide whether the refused party gets its answer.
        with contextlib.suppress(Exception):
            self._refused(domain, key)


@dataclass(frozen=True)
class _Zap:
    poll_target: Socket
