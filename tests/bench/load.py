"""Independent writers in one process: each with its own connection and its own registration, one write outstanding.

Speaks the public client protocol (messages/client.py) as any other client would; what it measures is the servers, so it does no
more for each write than it must.
"""

import random
import time

import msgspec

from coordd.client.settings import clock
from coordd.messages.client import PROTOCOL_VERSION, Error, Request, Write, Written
from coordd.messages.codec import decode_reply, encode_request
from coordd.messages.command import Done, KvPut, RegisterClient, encode
from coordd.transport.clients import Connection, Poller, open_context
from coordd.transport.security import generate

__all__ = ["Load"]

VALUE_BYTES = 256
KEYS = 10_000
BUDGET_MS = 10_000


class Writer:
    """One client. `registered` is 0 until its registration is answered."""

    def __init__(self, connection: Connection, token: str, rng: random.Random) -> None:
        self.connection = connection
        self._token = token
        self._rng = rng
        self.registered = 0
        self.number = 0
        self.sent_at = 0.0

    @property
    def poll_target(self) -> int:
        return self.connection.poll_target

    def send(self) -> None:
        if self.registered:
            self.number += 1
            key = f"bench/{self._rng.randrange(KEYS)}"
            command = encode(KvPut(key, self._rng.randbytes(VALUE_BYTES)))
            body = Write(msgspec.Raw(command), self.registered, self.number, self.number)
        else:
            body = Write(msgspec.Raw(encode(RegisterClient("bench"))))
        self.sent_at = time.perf_counter()
        sent = self.connection.send(
            encode_request(Request(PROTOCOL_VERSION, self.number + 1, self._token, BUDGET_MS, body))
        )
        if not sent:
            raise RuntimeError("a writer's connection was lost")

    def take(self, frame: bytes) -> bool:
        """True: a write was acknowledged."""
        body = decode_reply(frame).body
        if isinstance(body, Error):
            raise RuntimeError(f"the server answered {body.code}: {body.text}")
        assert isinstance(body, Written), body
        assert isinstance(body.result, Done), body
        if not self.registered:
            self.registered = body.result.index
            return False
        return True


class Load:
    """`count` writers at the leader."""

    def __init__(self, address: str, key: str, token: str, count: int, seed: int) -> None:
        self._context = open_context()
        rng = random.Random(seed)
        self._writers = [
            Writer(Connection.to_server(self._context, address, key, generate()), token, random.Random(rng.random()))
            for _ in range(count)
        ]
        self._poller = Poller()
        deadline = clock() + 30
        for writer in self._writers:
            while not writer.connection.up:
                if clock() > deadline:
                    raise RuntimeError(f"no connection to {address}")
                time.sleep(0.001)
            self._poller.register(writer)

    def run(self, warm_up: float, seconds: float) -> tuple[int, list[float]]:
        """Acknowledged writes after the warm-up, and the latency of each in seconds."""
        for writer in self._writers:
            writer.send()
        began = time.perf_counter() + warm_up
        end = began + seconds
        latencies: list[float] = []
        while time.perf_counter() < end:
            for thing in self._poller.poll(0.1):
                assert isinstance(thing, Writer)
                self._turn(thing, began, latencies)
        return len(latencies), latencies

    def _turn(self, writer: Writer, began: float, latencies: list[float]) -> None:
        frames = writer.connection.receive(16)
        while frames:
            for frame in frames:
                now = time.perf_counter()
                if writer.take(frame) and now >= began:
                    latencies.append(now - writer.sent_at)
                writer.send()
            frames = writer.connection.receive(16)
