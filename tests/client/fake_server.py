"""A server that a test scripts: real sockets and frames, answers from a function of the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coordd.messages.client import Ok, Reply, ReplyBody, Request, ServerInfo, Servers, ServersRequest, Write, Written
from coordd.messages.codec import decode_request, encode_reply
from coordd.messages.command import CommandResult, Done, RegisterClient, command_decoder
from coordd.transport.clients import ClientSocket, Poller, Wakeup, close_context, open_context
from coordd.transport.security import Gate, KeyPair, generate
from coordd.types import ServerId

Answer = Callable[[Request], list[ReplyBody] | ReplyBody | None]
"""None: silence."""


class FakeServer:
    """Answers requests on a thread of its own. `seen` holds all requests but those for the list of servers."""

    def __init__(self, answer: Answer, address: str = "127.0.0.1:0", pair: KeyPair | None = None) -> None:
        self.pair = pair or generate()
        self.answer = answer
        self.seen: list[Request] = []
        self.connections: set[bytes] = set()
        self.list_requests = 0
        self.list: Servers | None = None
        self._context = open_context()
        self._gate = Gate(self._context)
        self._socket = ClientSocket.on_network(self._context, self.pair, address, self._gate)
        self.address = self._socket.address
        self._wakeup = Wakeup()
        self._stopped = False
        self.pushes: list[tuple[int, ReplyBody]] = []
        self._thread = threading.Thread(target=self._run, name="fake-server", daemon=True)
        self._thread.start()

    @property
    def target(self) -> tuple[str, str]:
        return self.address, self.pair.public

    def push(self, request: int, body: ReplyBody) -> None:
        """Send something unasked to every connection."""
        self.pushes.append((request, body))
        self._wakeup.wake()

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._wakeup.wake()
            self._thread.join()
            self._wakeup.close()
            self._socket.close()
            self._gate.close()
            close_context(self._context)

    def _run(self) -> None:
        poller = Poller()
        poller.register(self._socket)
        poller.register(self._wakeup)
        while not self._stopped:
            poller.poll(None)
            self._wakeup.clear()
            for connection, frame in self._socket.receive(1000, 10_000_000):
                self.connections.add(connection)
                self._take(connection, decode_request(frame))
            while self.pushes:
                request, body = self.pushes.pop(0)
                for connection in self.connections:
                    self._socket.send(connection, encode_reply(Reply(request, body)))

    def _take(self, connection: bytes, request: Request) -> None:
        if isinstance(request.body, ServersRequest):
            self.list_requests += 1
            answers: list[ReplyBody] | ReplyBody | None = self.list or Servers("", "", ())
        else:
            self.seen.append(request)
            answers = self.answer(request)
        for body in [] if answers is None else answers if isinstance(answers, list) else [answers]:
            self._socket.send(connection, encode_reply(Reply(request.id, body)))


def command_of(request: Request) -> object:
    """The command of a write, else the body."""
    return command_decoder.decode(request.body.command) if isinstance(request.body, Write) else request.body


class Machine:
    """Exactly-once writes as the servers do them, without a log: enough to see what a client makes of it."""

    def __init__(self) -> None:
        self.index = 100
        self.clients: dict[int, dict[int, CommandResult]] = {}
        self.applied: list[object] = []

    def write(self, request: Request) -> ReplyBody:
        body = request.body
        if not isinstance(body, Write):
            return Ok()
        command = command_decoder.decode(body.command)
        results = self.clients.get(body.client)
        if results is not None and body.number in results:
            return Written(results[body.number])
        self.index += 1
        if isinstance(command, RegisterClient):
            self.clients[self.index] = {}
        else:
            self.applied.append(command)
        result = Done(self.index)
        if results is not None:
            results[body.number] = result
        return Written(result)


def listing(*servers: FakeServer, index: int = 1, cluster: str = "c1") -> Servers:
    rows = tuple(
        ServerInfo(ServerId(f"n{number}#1"), "127.0.0.1:1", server.address, server.pair.public, True, False)
        for number, server in enumerate(servers)
    )
    return Servers(cluster, "test", rows, index)


@contextmanager
def fake_server(answer: Answer, address: str = "127.0.0.1:0", pair: KeyPair | None = None) -> Iterator[FakeServer]:
    server = FakeServer(answer, address, pair)
    try:
        yield server
    finally:
        server.stop()
