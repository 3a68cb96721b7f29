"""Each kind of check against real sockets, and when results count."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from coordd.messages.command import CheckStatus
from coordd.messages.local import CheckSpec
from coordd_agent.checks.http import HttpProber
from coordd_agent.checks.schedule import MAX_OUTPUT_BYTES, Outcome, Thresholds, run_check, shorten
from coordd_agent.checks.tcp import probe_tcp
from coordd_agent.checks.ttl import TtlTimer
from tests.agent.fakes import eventually, running

Reports = list[tuple[str, CheckStatus, str]]


def test_thresholds_against_counting_by_hand() -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    rng = random.Random(seed)
    statuses: list[CheckStatus] = ["passing", "warning", "critical"]
    for _ in range(500):
        needs = {True: rng.randrange(4), False: rng.randrange(4)}
        spec = CheckSpec(tcp="x:1", success_before_passing=needs[True], failures_before_critical=needs[False])
        thresholds = Thresholds(spec, "critical")
        status: CheckStatus = "critical"
        results: list[CheckStatus] = []
        for _ in range(20):
            results.append(rng.choice(statuses))
            kind = results[-1] != "critical"
            in_a_row = 0
            for one in reversed(results):
                if (one != "critical") != kind:
                    break
                in_a_row += 1
            if in_a_row >= needs[kind]:
                status = results[-1]
            assert thresholds.judge(results[-1]) == status, f"seed {seed}"


@pytest.mark.asyncio
async def test_one_run_at_a_time_and_a_timeout_is_critical() -> None:
    reports: Reports = []
    at_once = most = 0

    async def slow() -> Outcome:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await asyncio.sleep(10)
        finally:
            at_once -= 1
        raise AssertionError("not reached")

    spec = CheckSpec(tcp="x:1", interval_ms=10, timeout_ms=40)
    async with running() as group:
        group.create_task(run_check("c", spec, "passing", slow, lambda *one: reports.append(one)))
        await eventually(lambda: len(reports) >= 3)
    assert most == 1
    assert reports[0] == ("c", "critical", "no answer within 40 ms")


@pytest.mark.asyncio
async def test_what_a_probe_raises_is_critical() -> None:
    reports: Reports = []

    async def broken() -> Outcome:
        raise OSError("no route")

    async with running() as group:
        report = lambda *one: reports.append(one)  # noqa: E731
        group.create_task(run_check("c", CheckSpec(tcp="x:1", interval_ms=100), "passing", broken, report))
        await eventually(lambda: bool(reports))
    assert reports[0] == ("c", "critical", "OSError: no route")


def test_output_is_cut_between_characters() -> None:
    text = "é" * MAX_OUTPUT_BYTES
    assert len(shorten(text).encode()) == MAX_OUTPUT_BYTES
    assert shorten("x" + text).encode().decode() == "x" + "é" * ((MAX_OUTPUT_BYTES - 1) // 2)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[int]:
    """A server on a free port; connections are closed before the block ends."""
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.get_running_loop().create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*served)


def answering(status: str, body: bytes = b"", head: str = "", seen: list[str] | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request.decode())
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return handle


@contextlib.asynccontextmanager
async def probing() -> AsyncIterator[HttpProber]:
    prober = HttpProber(allow_link_local=False)
    try:
        yield prober
    finally:
        await prober.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("200 OK", "passing"),
        ("204 No Content", "passing"),
        ("429 Slow", "warning"),
        ("302 Found", "critical"),
        ("404 Not Found", "critical"),
        ("500 Oops", "critical"),
    ],
)
async def test_http_status(answer: str, status: str) -> None:
    async with (
        probing() as prober,
        listening(
            answering(
                answer,
                b"" if "204" in answer else b"hello",
                "Location: http://127.0.0.1:1/\r\n" if "302" in answer else "",
            )
        ) as port,
    ):
        url = f"http://127.0.0.1:{port}/health"
        outcome = await prober.probe(CheckSpec(http=url))
        assert outcome.status == status
        assert outcome.output.startswith(f"HTTP GET {url}: {answer}")


@pytest.mark.asyncio
async def test_http_sends_what_was_asked_for_and_reads_no_more_than_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    seen: list[str] = []
    async with probing() as prober, listening(answering("200 OK", b"x" * 10_000_000, seen=seen)) as port:
        spec = CheckSpec(http=f"http://127.0.0.1:{port}/p", method="POST", headers={"X-Key": "v"}, body="ping")
        outcome = await prober.probe(spec)
    assert outcome.status == "passing"
    assert len(outcome.output) < MAX_OUTPUT_BYTES + 200
    assert seen[0].startswith("POST /p HTTP/1.1\r\n")
    assert "X-Key: v\r\n" in seen[0]
    assert "User-Agent: coordd-agent health check\r\n" in seen[0]


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "metadata.example"])
async def test_link_local_addresses_are_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *question, **more: known)
    async with probing() as prober:
        try:
            outcome = await prober.probe(CheckSpec(http=f"http://{host}/latest/meta-data"))
        except OSError as error:
            outcome = Outcome("critical", str(error))
    assert outcome.status == "critical"
    assert "link-local" in outcome.output


@pytest.mark.asyncio
async def test_nothing_listens() -> None:
    async with listening(answering("200 OK")) as port:
        pass
    async with probing() as prober:
        with pytest.raises(OSError, match=r"Cannot connect|refused"):
            await prober.probe(CheckSpec(http=f"http://127.0.0.1:{port}/"))
    with pytest.raises(ConnectionRefusedError):
        await probe_tcp(CheckSpec(tcp=f"127.0.0.1:{port}"))


@pytest.mark.asyncio
async def test_tcp() -> None:
    async with listening(answering("200 OK")) as port:
        outcome = await probe_tcp(CheckSpec(tcp=f"127.0.0.1:{port}"))
    assert outcome == ("passing", f"TCP connect 127.0.0.1:{port}: success")


@pytest.mark.asyncio
async def test_ttl_runs_out_unless_renewed_and_comes_back() -> None:
    reports: Reports = []
    timer = TtlTimer("c", CheckSpec(ttl_ms=300), lambda *one: reports.append(one))
    async with running() as group:
        group.create_task(timer.run())
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 0.6:
            timer.renew()
            await asyncio.sleep(0.05)
        assert not reports
        await eventually(lambda: len(reports) == 1)
        timer.renew()
        await eventually(lambda: len(reports) == 2)
    assert reports[0] == ("c", "critical", "TTL expired: no report for 300 ms")
