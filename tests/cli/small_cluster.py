"""A cluster of one process without consensus: real sockets, the real replicated state, and a clock for sessions.

It stands in for a server (on the network) or an agent (on a path) where a test is about coordctl. Every write is applied
at once. `hold_replies` makes it fall silent without ending a connection; `errors` and `replies` are what it answers to bodies
or commands of a type.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coordd.messages.client import (
    Body,
    BootstrapRequest,
    Error,
    Info,
    InfoRequest,
    Keepalive,
    Ok,
    PeerInfo,
    Read,
    ReadResult,
    Renewed,
    RenewSession,
    Reply,
    ReplyBody,
    ServerInfo,
    Servers,
    ServersRequest,
    Write,
    Written,
)
from coordd.messages.codec import encode_reply
from coordd.messages.command import Command, ExpireSessions, command_decoder, encode
from coordd.messages.entry import CommandHeader, encode_command
from coordd.messages.local import LocalBody, LocalRequest, decode_local_request
from coordd.state.machine import Machine
from coordd.transport.clients import ClientSocket, Poller, Wakeup, close_context, open_context
from coordd.transport.security import Gate, generate
from coordd.types import ServerId

TERM = 1


class SmallCluster:
    """Answers on a thread of its own. `seen`: bodies of all requests in order, but those for the list of servers."""

    def __init__(self, path: Path | None = None) -> None:
        self.seen: list[Body | LocalBody] = []
        self.tokens: list[str] = []
        self.errors: dict[type, Error] = {}
        self.replies: dict[type, ReplyBody] = {}
        self.hold_replies = False
        self.pair = generate()
        self._context = open_context()
        self._gate = Gate(self._context)
        if path is None:
            self._socket = ClientSocket.on_network(self._context, self.pair, "127.0.0.1:0", self._gate)
        else:
            self._socket = ClientSocket.on_path(self._context, path)
        self.address = self._socket.address
        self._wakeup = Wakeup()
        self._stopped = False
        self._waiting: list[tuple[bytes, LocalRequest, float]] = []
        self._renewed: dict[str, float] = {}
        self._seeds: list[Command] = []
        self._thread = threading.Thread(target=self._run, name="small-cluster", daemon=True)
        self._thread.start()

    @property
    def option(self) -> list[str]:
        """What tells coordctl to talk to this."""
        if self.address.startswith("ipc://"):
            return ["--agent", self.address.removeprefix("ipc://")]
        return ["--server", f"{self.address}@{self.pair.public}"]

    def seed(self, command: Command) -> None:
        """Have this applied before anything else is answered."""
        self._seeds.append(command)
        self._wakeup.wake()
        while self._seeds:
            time.sleep(0.005)

    def stop(self) -> None:
        self._stopped = True
        self._wakeup.wake()
        self._thread.join()
        self._wakeup.close()
        self._socket.close()
        self._gate.close()
        close_context(self._context)

    def _run(self) -> None:
        self._machine = Machine.open(":memory:")
        poller = Poller()
        poller.register(self._socket)
        poller.register(self._wakeup)
        while not self._stopped:
            poller.poll(0.02)
            self._wakeup.clear()
            while self._seeds:
                self._apply(CommandHeader(time.time_ns(), 0, 0, 0), encode(self._seeds[0]))
                self._seeds.pop(0)
            for connection, frame in self._socket.receive(100, 10_000_000):
                request = decode_local_request(frame)
                if not isinstance(request.body, ServersRequest):
                    self.seen.append(request.body)
                    self.tokens.append(request.token)
                self._take(connection, request)
            self._expire()
            self._wake()
        self._machine.close()

    def _take(self, connection: bytes, request: LocalRequest) -> None:
        body = request.body
        if (
            isinstance(body, Read)
            and body.index
            and self._machine.topic_index(self._machine.topics(body.query)) <= body.index
        ):
            self._waiting.append((connection, request, time.monotonic() + body.wait_ms / 1000))
            return
        self._say(connection, request, self._answer(request))

    def _wake(self) -> None:
        for item in list(self._waiting):
            connection, request, until = item
            body = request.body
            assert isinstance(body, Read)
            changed = self._machine.topic_index(self._machine.topics(body.query)) > body.index
            if changed or time.monotonic() >= until:
                self._waiting.remove(item)
                self._say(connection, request, self._answer(request))

    def _say(self, connection: bytes, request: LocalRequest, body: ReplyBody) -> None:
        if not self.hold_replies:
            self._socket.send(connection, encode_reply(Reply(request.id, body)))

    def _answer(self, request: LocalRequest) -> ReplyBody:
        body = request.body
        if type(body) in self.errors:
            return self.errors[type(body)]
        if type(body) in self.replies:
            return self.replies[type(body)]
        match body:
            case Write():
                return self._write(request, body)
            case Read():
                known = self._machine.authorizer(request.token)
                if known is None:
                    return Error("denied", "there is no such token")
                answer = self._machine.query(body.query, known[1], known[0])
                return ReadResult(answer.index, answer.value, filtered=answer.filtered)
            case RenewSession(session=session):
                return self._renew(session)
            case ServersRequest():
                return Servers("c1", "test", (self._own(),), 1)
            case InfoRequest():
                return Info(
                    {"role": "leader", "term": TERM, "last_index": 9}, (PeerInfo(self._own().id, "leader", 9, 0),)
                )
            case BootstrapRequest() | Keepalive():
                return Ok(1)
            case _:
                return Error("invalid", f"the test says nothing about {type(body).__name__}")

    def _own(self) -> ServerInfo:
        return ServerInfo(ServerId("s1#0"), "127.0.0.1:1", self.address, self.pair.public, voter=True, leader=True)

    def _write(self, request: LocalRequest, body: Write) -> ReplyBody:
        command = command_decoder.decode(bytes(body.command))
        if type(command) in self.errors:
            return self.errors[type(command)]
        known = self._machine.authorizer(request.token)
        if known is None or not all(one.granted(known[1]) for one in self._machine.required(command)):
            return Error("denied", "the token does not allow this")
        applied = self._apply(CommandHeader(time.time_ns(), body.client, body.number, body.lowest), bytes(body.command))
        for session in self._machine.sessions_alive():
            self._renewed.setdefault(session.id, time.monotonic())
        return Written(applied)

    def _apply(self, header: CommandHeader, command: bytes) -> Any:
        entry = encode_command(header, command)
        return self._machine.apply(self._machine.applied + 1, [(TERM, entry)])[0].result

    def _renew(self, session: str) -> ReplyBody:
        alive = {one.id: one.ttl_ms for one in self._machine.sessions_alive()}
        if session not in alive:
            return Error("not-found", "there is no such session")
        self._renewed[session] = time.monotonic()
        return Renewed(alive[session])

    def _expire(self) -> None:
        now = time.monotonic()
        late = [
            (one.id, one.create_index)
            for one in self._machine.sessions_alive()
            if now >= self._renewed[one.id] + one.ttl_ms / 1000
        ]
        if late:
            self._apply(CommandHeader(time.time_ns(), 0, 0, 0), encode(ExpireSessions(TERM, tuple(late))))


@contextmanager
def small_cluster(path: Path | None = None) -> Iterator[SmallCluster]:
    cluster = SmallCluster(path)
    try:
        yield cluster
    finally:
        cluster.stop()


def coordctl(*arguments: str, environment: Mapping[str, str], stdin: bytes = b"") -> "subprocess.CompletedProcess[str]":
    """Run coordctl to its end. Output that is no UTF-8 keeps its bytes as surrogates."""
    return subprocess.run(
        [sys.executable, "-m", "coordd_cli.main", *arguments],
        env=dict(environment),
        input=stdin.decode("utf-8", "surrogateescape"),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=60,
    )
