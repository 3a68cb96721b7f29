"""The sockets, asked by dnspython and by `dig`."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from coordd.errors import InUseError
from coordd.messages.query import ServiceHealth
from coordd_agent.dns.resolver import Resolver
from coordd_agent.dns.server import DnsServer, bind_pair
from coordd_agent.settings import DnsSettings
from tests.agent.dns.catalog import HandmadeCatalog
from tests.agent.dns.test_packets import large

HOST = "127.0.0.1"


@contextlib.asynccontextmanager
async def serving(catalog: HandmadeCatalog, settings: DnsSettings) -> AsyncIterator[tuple[DnsServer, int]]:
    async with asyncio.TaskGroup() as group:
        sockets = bind_pair(HOST, 0, "test")
        async with DnsServer(Resolver(catalog, settings), settings, sockets, group.create_task) as server:
            yield server, int(server.address.rpartition(":")[2])


def question(name: str = "big.service.coord", qtype: str = "A") -> dns.message.Message:
    return dns.message.make_query(name, qtype)


async def udp(port: int, query: dns.message.Message, patience_s: float = 10) -> dns.message.Message:
    return await dns.asyncquery.udp(query, HOST, port=port, timeout=patience_s)


@pytest.mark.asyncio
async def test_udp_and_tcp() -> None:
    async with serving(large(30), DnsSettings()) as (_, port):
        for _ in range(20):
            assert len((await udp(port, question())).answer[0]) == 3
        for _ in range(3):
            reply = await dns.asyncquery.tcp(question(), HOST, port=port, timeout=10)
            assert len(reply.answer[0]) == 30


@pytest.mark.asyncio
async def test_a_missing_view_is_waited_for() -> None:
    catalog = large(2)
    catalog.unknown.add(ServiceHealth("big"))
    async with serving(catalog, DnsSettings()) as (_, port):
        assert len((await udp(port, question())).answer[0]) == 2
        assert catalog.waited_for == [ServiceHealth("big")]


class Unreachable(HandmadeCatalog):
    """No view ever comes."""

    async def wait_for(self, queries: object) -> None:
        await asyncio.Event().wait()


@pytest.mark.asyncio
async def test_servfail_while_nothing_was_ever_known() -> None:
    catalog = Unreachable()
    catalog.unknown.add(ServiceHealth("big"))
    async with serving(catalog, DnsSettings(max_wait_ms=50)) as (_, port):
        reply = await udp(port, question())
        assert (reply.rcode(), reply.authority) == (dns.rcode.SERVFAIL, [])
        catalog.unknown.clear()
        assert (await udp(port, question())).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.asyncio
async def test_those_who_wait_are_bounded() -> None:
    catalog = Unreachable()
    names = [f"s{number}" for number in range(10)]
    catalog.unknown |= {ServiceHealth(name) for name in names}
    async with serving(catalog, DnsSettings(max_wait_ms=300, max_waiting=4)) as (server, port):
        asked = [udp(port, question(f"{name}.service.coord"), patience_s=2) for name in names]
        replies = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(reply, dns.message.Message) for reply in replies) == 4
        assert server._resolver.counters.dropped == 6


@pytest.mark.asyncio
async def test_tcp_pipelining() -> None:
    async with serving(large(5), DnsSettings()) as (_, port):
        reader, writer = await asyncio.open_connection(HOST, port)
        queries = [question(), question("none.service.coord"), question(qtype="SRV")]
        for query in queries:
            wire = query.to_wire()
            writer.write(len(wire).to_bytes(2, "big") + wire)
        for query in queries:
            size = int.from_bytes(await reader.readexactly(2), "big")
            assert dns.message.from_wire(await reader.readexactly(size)).id == query.id
        writer.close()
        await writer.wait_closed()


@pytest.mark.asyncio
async def test_idle_and_broken_connections_end() -> None:
    async with serving(large(5), DnsSettings(tcp_idle_ms=100)) as (_, port):
        for first_bytes in (b"", b"\0\xffhalf a message", b"\0\x04junk"):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(first_bytes)
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


@pytest.mark.asyncio
async def test_connections_are_bounded() -> None:
    async with serving(large(5), DnsSettings(tcp_connections=2)) as (server, port):
        opened = [await asyncio.open_connection(HOST, port) for _ in range(2)]
        async with asyncio.timeout(10):
            while server.tcp_connections < 2:  # noqa: ASYNC110  the server has no event for it
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(HOST, port)
            assert await reader.read() == b""
        for _, one in [*opened, (reader, writer)]:
            one.close()
            with contextlib.suppress(ConnectionError):
                await one.wait_closed()


@pytest.mark.asyncio
async def test_a_flood_leaves_time_for_others() -> None:
    async with serving(large(5), DnsSettings()) as (_, port):
        wire = question().to_wire()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(HOST, port))
        for _ in range(500):
            transport.sendto(wire)
        assert (await dns.asyncquery.tcp(question(), HOST, port=port, timeout=10)).answer
        transport.close()


def test_a_port_in_use_is_said_so() -> None:
    udp_socket, tcp_socket = bind_pair(HOST, 0, "test")
    with udp_socket, tcp_socket:
        port = udp_socket.getsockname()[1]
        with pytest.raises(InUseError, match=f"dns.address {HOST}:{port} can't be used: address already in use"):
            bind_pair(HOST, port, f"{HOST}:{port}")


@pytest.mark.root
@pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed")
@pytest.mark.asyncio
async def test_dig() -> None:
    async with serving(large(2), DnsSettings()) as (_, port):

        async def dig(*words: str) -> str:
            command = ["dig", f"@{HOST}", "-p", str(port), *words]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            return (await process.communicate())[0].decode()

        assert sorted((await dig("big.service.coord", "+short")).split()) == ["10.0.0.1", "10.0.0.2"]
        shown = await dig("SRV", "_big._tcp.service.coord", "+tcp")
        assert "1 1 80 0a000001.addr.dc1.coord." in shown
        assert "status: NXDOMAIN" in await dig("NO.service.coord")
        assert "SERVER: 127.0.0.1" in shown
