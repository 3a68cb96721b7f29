"""`python -m tests.bench.dns`: cached answers a second of the agent's DNS under dnsperf, beside unbound with the same names.

Each server runs in a process of its own on a free loopback port and serves the same services: A and SRV questions for
them in random order, one client. Rounds of the two alternate, so that a busy machine hits both; the medians are printed.
Fails below 40,000 answers/s or half of unbound, unless `--no-thresholds`. Needs Debian's dnsperf and unbound.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from coordd.messages.command import ServiceDefinition
from coordd_agent.dns.resolver import Resolver
from coordd_agent.dns.server import DnsServer, bind_pair
from coordd_agent.main import loop_factory
from coordd_agent.settings import DnsSettings
from coordd_cli.processes import free_ports
from tests.agent.dns.catalog import HandmadeCatalog, node

SERVICES = 20
INSTANCES = 3
LEAST_ANSWERS = 40_000
LEAST_SHARE = 0.5
START_S = 10


def address(service: int, instance: int) -> str:
    return f"10.1.{service}.{instance + 1}"


def catalog() -> HandmadeCatalog:
    made = HandmadeCatalog()
    for service in range(SERVICES):
        for instance in range(INSTANCES):
            host = node(f"h{service}-{instance}", address(service, instance))
            made.add(host, ServiceDefinition(f"s{service}", f"s{service}", port=8000 + service), "passing")
    return made


async def serve(port: int) -> None:
    """The agent's DNS on `port` with a catalog made by hand, until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    settings = DnsSettings()
    async with (
        asyncio.TaskGroup() as group,
        DnsServer(Resolver(catalog(), settings), settings, bind_pair("127.0.0.1", port, "bench"), group.create_task),
    ):
        await stopped.wait()


def unbound_configuration(port: int, folder: Path) -> str:
    records = []
    for service in range(SERVICES):
        name = f"s{service}.service.coord."
        for instance in range(INSTANCES):
            target = f"h{service}-{instance}.node.dc1.coord."
            records.append(f'local-data: "{name} 0 IN A {address(service, instance)}"')
            records.append(f'local-data: "{name} 0 IN SRV 1 1 {8000 + service} {target}"')
            records.append(f'local-data: "{target} 0 IN A {address(service, instance)}"')
    return "\n".join(
        [
            "server:",
            f"interface: 127.0.0.1\nport: {port}\ndo-daemonize: no\nuse-syslog: no\nverbosity: 0\nnum-threads: 1",
            f'chroot: ""\nusername: ""\ndirectory: "{folder}"\npidfile: ""\nmodule-config: "iterator"',
            "access-control: 127.0.0.0/8 allow",
            'local-zone: "coord." static',
            *records,
            "remote-control:\ncontrol-enable: no",
        ]
    )


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """The command's process from the moment it answers on `port`."""
    process = subprocess.Popen(command)
    try:
        await_answer(port, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def await_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0\2s0\7service\5coord\0\0\1\0\1"
    deadline = time.monotonic() + START_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(0.2)
        asker.connect(("127.0.0.1", port))
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                asker.send(question)
                if asker.recv(4096)[7] == INSTANCES:
                    return
    raise SystemExit(f"no answer on port {port} within {START_S} s")


def measure(server: str, port: int, questions: Path, seconds: float) -> float:
    """Answers a second; every question must be answered with NOERROR."""
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(questions), "-l", f"{seconds:g}", "-q", "200"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    rate = re.search(r"Queries per second:\s+([\d.]+)", shown)
    codes = re.search(r"Response codes:\s+(.*)", shown)
    lost = re.search(r"Queries lost:\s+(\d+)", shown)
    if rate is None or codes is None or lost is None or "NOERROR" not in codes[1] or "," in codes[1]:
        raise SystemExit(f"dnsperf did not get its answers:\n{shown}")
    if int(lost[1]):
        sys.stdout.write(f"  dnsperf lost {lost[1]} questions to {server}\n")
    return float(rate[1])


def compare(seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Median answers/s of each server for each type."""
    rates: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ports = dict(zip(("coordd-agent", "unbound"), free_ports(2), strict=True))
        (folder / "unbound.conf").write_text(unbound_configuration(ports["unbound"], folder))
        agent = [sys.executable, "-m", "tests.bench.dns", "--serve", str(ports["coordd-agent"])]
        stack.enter_context(running(agent, ports["coordd-agent"]))
        unbound = ["unbound", "-d", "-c", str(folder / "unbound.conf")]
        stack.enter_context(running(unbound, ports["unbound"]))
        for qtype in ("A", "SRV"):
            questions = folder / f"{qtype}.txt"
            questions.write_text("".join(f"s{number}.service.coord {qtype}\n" for number in range(SERVICES)))
            for _ in range(rounds):
                for server, port in ports.items():
                    rate = measure(server, port, questions, seconds)
                    rates.setdefault(qtype, {}).setdefault(server, []).append(rate)
    return {qtype: {who: statistics.median(values) for who, values in of.items()} for qtype, of in rates.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server and type")
    parser.add_argument("--no-thresholds", action="store_true", help="print, and judge nothing")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(options.serve))
        return 0
    for program in ("dnsperf", "unbound"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed: apt-get install dnsperf unbound")
    failed = False
    for qtype, rates in compare(options.seconds, options.rounds).items():
        agent, unbound = rates["coordd-agent"], rates["unbound"]
        enough = agent >= LEAST_ANSWERS and agent >= LEAST_SHARE * unbound
        failed |= not enough and not options.no_thresholds
        sys.stdout.write(
            f"{qtype:4} coordd-agent {agent:9,.0f} answers/s   unbound {unbound:9,.0f} answers/s   "
            f"ratio {agent / unbound:.2f}\n"
        )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
