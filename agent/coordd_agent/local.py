"""The socket for programs on this host: some requests are answered here, the others passed on.

A ROUTER on a path that only this process's user may open. Its descriptor is edge-triggered: after each wake-up, and
after each send, messages are taken until there are none. Requests are bounded in number; beyond it the answer is busy.
"""

import asyncio
from pathlib import Path
from typing import Protocol

from coordd.errors import BusyError, CoorddError, TransportError
from coordd.messages.client import (
    Body,
    Credit,
    Info,
    InfoRequest,
    Keepalive,
    Reply,
    ReplyBody,
    Subscribe,
    Unsubscribe,
)
from coordd.messages.codec import encode_reply
from coordd.messages.local import (
    DeregisterService,
    ListLocalChecks,
    ListLocalServices,
    LocalBody,
    LocalRequest,
    RegisterService,
    UpdateTtlCheck,
    decode_local_request,
)
from coordd.transport.clients import ClientSocket, close_context, open_context
from coordd_agent.cache import StartTask
from coordd_agent.relay import Relay, error_reply

__all__ = ["LocalSocket", "OwnAnswers"]

MAX_REQUESTS = 1024
MESSAGES_PER_TURN, BYTES_PER_TURN = 64, 4 * 1024 * 1024
MAX_BUDGET_S = 900.0
SWEEP_S = 5.0

OWN_BODIES = (RegisterService, DeregisterService, ListLocalServices, ListLocalChecks, UpdateTtlCheck)


class OwnAnswers(Protocol):
    """What the agent itself answers."""

    def info(self) -> Info: ...

    async def answer(self, body: LocalBody, budget_s: float) -> ReplyBody:
        """Raises: RequestError, StorageError."""
        ...


class LocalSocket:
    def __init__(self, path: Path, own: OwnAnswers, relay: Relay, start_task: StartTask) -> None:
        """Raises: InUseError, ConfigError."""
        self._context = open_context()
        try:
            self._socket = ClientSocket.on_path(self._context, path)
        except CoorddError:
            close_context(self._context)
            raise
        self._path = path
        self._own = own
        self._relay = relay
        self._start_task = start_task
        self._open = 0
        self._soon = False
        self._closed = False

    async def run(self) -> None:
        """Serves until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.fd, self._turn)
        self._turn()
        try:
            while True:
                await asyncio.sleep(SWEEP_S)
                self._relay.sweep()
                # An edge that got lost all the same costs a program some seconds, not for ever.
                self._turn()
        finally:
            self._closed = True
            loop.remove_reader(self._socket.fd)
            self._relay.close()

    def close(self) -> None:
        self._closed = True
        self._socket.close()
        close_context(self._context)
        self._path.unlink(missing_ok=True)

    # --- in and out ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._soon = False
        if self._closed:
            return
        received = self._socket.receive(MESSAGES_PER_TURN, BYTES_PER_TURN)
        for connection, frame in received:
            try:
                request = decode_local_request(frame)
            except TransportError:
                continue  # who sends this can't read an answer either
            self._handle(connection, request)
        if received:
            self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._soon and not self._closed:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _send(self, connection: bytes, request_id: int, body: ReplyBody) -> None:
        if not self._closed:
            self._socket.send(connection, encode_reply(Reply(request_id, body)))
            self._turn_soon()

    # --- requests -----------------------------------------------------------------------------------------------------

    def _handle(self, connection: bytes, request: LocalRequest) -> None:
        self._relay.heard(connection)
        match request.body:
            case InfoRequest():
                self._send(connection, request.id, self._own.info())
            case Subscribe() as body:
                send = lambda reply: self._send(connection, request.id, reply)  # noqa: E731
                self._relay.subscribe(connection, body, request.token, send)
            case Credit() as body:
                self._relay.credit(connection, body)
            case Unsubscribe() as body:
                self._relay.unsubscribe(connection, body)
            case body if self._open >= MAX_REQUESTS:
                busy = BusyError("too many requests at this agent; try again after a pause")
                self._send(connection, request.id, error_reply(busy))
            case body:
                self._open += 1
                self._start_task(self._answer(connection, request, body))

    async def _answer(self, connection: bytes, request: LocalRequest, body: Body | LocalBody) -> None:
        budget_s = min(max(0, request.budget_ms) / 1000, MAX_BUDGET_S)
        try:
            self._send(connection, request.id, await self._reply(body, request.token, budget_s))
        finally:
            self._open -= 1

    async def _reply(self, body: Body | LocalBody, token: str, budget_s: float) -> ReplyBody:
        if not isinstance(body, OWN_BODIES):
            if isinstance(body, Keepalive):
                return await self._relay.keepalive(body, token, budget_s)
            return await self._relay.request(body, token, budget_s)
        try:
            return await self._own.answer(body, budget_s)
        except CoorddError as error:
            return error_reply(error)
