"""The sockets: UDP as a bare reader callback of the loop, TCP as a bounded number of connections.

UDP: each wake-up drains up to 64 datagrams, so that a flood can't starve the loop. What is in the packed answers costs
a look-up and a send; what must wait for a view becomes a task of `group`, of which there are at most `max_waiting`.
TCP: messages with two bytes of length before them, several on a connection, answered in order. Both share one port.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine

from coordd.config import split_address
from coordd.errors import InUseError
from coordd_agent.dns.resolver import Resolver, Waiting
from coordd_agent.settings import DnsSettings

__all__ = ["DnsServer", "bind"]

DATAGRAMS_PER_WAKE_UP = 64
MAX_DATAGRAM = 4096
"""Longer questions are cut by the kernel and then unreadable; no sensible one comes near."""
UDP_BUFFER_BYTES = 1 << 20
TCP_BACKLOG = 64


def bind(address: str) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP socket on one address. Raises: InUseError."""
    host, port = split_address(address)
    return bind_pair(host, port, address)


def bind_pair(host: str, port: int, shown: str) -> tuple[socket.socket, socket.socket]:
    """Port 0 takes one that is free for both."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    udp, tcp = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_STREAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((host, port))
        udp.bind((host, tcp.getsockname()[1]))
        tcp.listen(TCP_BACKLOG)
    except OSError as error:
        udp.close()
        tcp.close()
        text = error.strerror or str(error)
        raise InUseError(f"dns.address {shown} can't be used: {text.lower()}") from error
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER_BYTES)
    udp.setblocking(False)
    tcp.setblocking(False)
    return udp, tcp


class DnsServer:
    """`async with DnsServer(…)` serves until the block ends. The sockets are given bound, and closed at the end."""

    def __init__(
        self,
        resolver: Resolver,
        settings: DnsSettings,
        sockets: tuple[socket.socket, socket.socket],
        start_task: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self._resolver = resolver
        self._settings = settings
        self._udp, self._tcp = sockets
        self._start_task = start_task
        self._waiting = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        host, port = self._udp.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def tcp_connections(self) -> int:
        return len(self._connections)

    async def __aenter__(self) -> "DnsServer":
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._drain)
        self._server = await asyncio.start_server(self._connected, sock=self._tcp, limit=1 << 16)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._udp.fileno())
        self._udp.close()
        if self._server is not None:
            self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # --- UDP ----------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        receive, send = self._udp.recvfrom, self._udp.sendto
        piles = self._resolver.udp.piles
        packed = 0
        for _ in range(DATAGRAMS_PER_WAKE_UP):
            try:
                packet, sender = receive(MAX_DATAGRAM)
                pile = piles.get(packet[2:])
                if pile:
                    packed += 1
                    send(packet[:2] + pile.pop(), sender)
                    continue
            except BlockingIOError:
                break  # nothing more to read, or no room to send: the asker will ask again
            except OSError:
                continue  # an ICMP error about an earlier reply; nobody waits for it any more
            self._answer(packet, sender)
        self._resolver.counters.packed += packed

    def _answer(self, packet: bytes, sender: tuple[str, int]) -> None:
        reply = self._resolver.reply(packet, over_tcp=False)
        if isinstance(reply, Waiting):
            if self._waiting >= self._settings.max_waiting:
                self._resolver.counters.dropped += 1
                return
            self._waiting += 1
            self._start_task(self._answer_later(reply, sender))
        elif reply is not None:
            self._send(reply, sender)

    async def _answer_later(self, waiting: Waiting, sender: tuple[str, int]) -> None:
        try:
            self._send(await self._resolver.complete(waiting), sender)
        finally:
            self._waiting -= 1

    def _send(self, reply: bytes, receiver: tuple[str, int]) -> None:
        try:
            self._udp.sendto(reply, receiver)
        except OSError:
            self._resolver.counters.dropped += 1

    # --- TCP ----------------------------------------------------------------------------------------------------------

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._settings.tcp_connections:
            self._resolver.counters.dropped += 1
            writer.close()
            return
        task = self._start_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle_s = self._settings.tcp_idle_ms / 1000
        try:
            while True:
                async with asyncio.timeout(idle_s):
                    packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                reply = await self._tcp_reply(packet)
                if reply is None:
                    return
                writer.write(len(reply).to_bytes(2, "big") + reply)
                async with asyncio.timeout(idle_s):
                    await writer.drain()
        except (asyncio.IncompleteReadError, OSError, TimeoutError):
            return  # they went away, or were too slow
        finally:
            writer.close()

    async def _tcp_reply(self, packet: bytes) -> bytes | None:
        pile = self._resolver.tcp.piles.get(packet[2:])
        if pile:
            self._resolver.counters.packed += 1
            return packet[:2] + pile.pop()
        reply = self._resolver.reply(packet, over_tcp=True)
        return await self._resolver.complete(reply) if isinstance(reply, Waiting) else reply
