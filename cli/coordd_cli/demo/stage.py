"""The place where the demo happens: a folder, processes on free loopback ports, and hands that type coordctl commands."""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from coordd_cli.demo.report import Report
from coordd_cli.dns_query import DnsAnswer, ask
from coordd_cli.processes import (
    Daemon,
    ProcessError,
    clean_environment,
    daemon_command,
    free_ports,
    program,
    wait_for,
    write_toml,
)

__all__ = ["FOUNDERS", "ROOT", "AgentHost", "CommandError", "Finished", "ServerHost", "Stage", "UnmetError"]

T = TypeVar("T")

READY_SECONDS = 10.0
COMMAND_SECONDS = 20.0
POLL_SECONDS = 0.1
FOUNDERS = ("s1", "s2", "s3")
ROOT = "root"
"""Name of the management token."""


class UnmetError(ProcessError):
    """The step was done, but did not show what it is there to show."""


class CommandError(ProcessError):
    """A command ended with another exit code than the step needs to go on."""


@dataclass(frozen=True)
class Finished:
    """A coordctl process that has ended."""

    status: int
    output: str
    errors: str
    seconds: float

    def json(self) -> Any:
        return json.loads(self.output)


@dataclass
class ServerHost:
    """One server: where it is, and its process while it has one."""

    name: str
    folder: Path
    raft_address: str
    client_address: str
    public_key: str = ""
    daemon: Daemon | None = None

    @property
    def entry(self) -> dict[str, str]:
        """As it stands in [[servers]]."""
        names = ("name", "raft_address", "client_address", "public_key")
        return {name: getattr(self, name) for name in names}


@dataclass
class AgentHost:
    """One agent, which plays a host of its own."""

    name: str
    folder: Path
    dns_port: int
    daemon: Daemon | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "agent.sock"


@dataclass
class Stage:
    """Everything the steps work with. `close` ends every process, and removes the folder unless the stage is kept."""

    report: Report
    keep: bool
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="coordd-demo-")))
    servers: dict[str, ServerHost] = field(default_factory=dict)
    agents: dict[str, AgentHost] = field(default_factory=dict)
    helpers: list[Daemon] = field(default_factory=list)
    commands: "list[subprocess.Popen[str]]" = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    """What one step leaves for a later one."""
    broken: bool = False
    """The present step is to expect the opposite of what it should."""

    def __post_init__(self) -> None:
        self.environment = clean_environment(self.folder)
        ports = iter(free_ports(11))
        for number in range(1, 5):
            folder = self._subfolder(f"s{number}")
            addresses = (f"127.0.0.1:{next(ports)}", f"127.0.0.1:{next(ports)}")
            self.servers[folder.name] = ServerHost(folder.name, folder, *addresses)
        for number in range(1, 3):
            folder = self._subfolder(f"h{number}")
            self.agents[folder.name] = AgentHost(folder.name, folder, next(ports))
        self.http_port = next(ports)

    def _subfolder(self, name: str) -> Path:
        (self.folder / name).mkdir(mode=0o700)
        return self.folder / name

    # --- commands

    def run(self, *arguments: str, status: int | None = 0) -> Finished:
        """Run coordctl and wait. `status`: the exit code without which the step can't go on; None: any."""
        self.report.command(["coordctl", *arguments])
        return self._run(arguments, status)

    def run_all(self, *commands: Sequence[str]) -> list[Finished]:
        """Run several that do not depend on each other at once; each must end with 0."""
        for arguments in commands:
            self.report.command(["coordctl", *arguments])
        with ThreadPoolExecutor(len(commands)) as threads:
            return list(threads.map(lambda arguments: self._run(arguments, 0), commands))

    def _run(self, arguments: Sequence[str], status: int | None) -> Finished:
        started = time.monotonic()
        try:
            process = subprocess.run(
                [*program("coordctl"), *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"coordctl {' '.join(arguments)} took longer than {COMMAND_SECONDS} s") from error
        finished = Finished(process.returncode, process.stdout, process.stderr, time.monotonic() - started)
        if status is not None and finished.status != status:
            raise CommandError(f"exit code {finished.status} instead of {status}: {finished.errors.strip()}")
        return finished

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start coordctl and go on."""
        self.report.command(["coordctl", *arguments])
        process = subprocess.Popen(
            [*program("coordctl"), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.commands.append(process)
        return process

    def finish(self, process: "subprocess.Popen[str]") -> Finished:
        try:
            output, errors = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"a command took longer than {COMMAND_SECONDS} s") from error
        self.commands.remove(process)
        return Finished(process.returncode, output, errors, 0.0)

    def poll(self, what: str, look: Callable[[Any], T | None], timeout: float, *arguments: str) -> T:
        """Run coordctl with JSON output again and again until `look` finds something in what it prints."""
        arguments = (*arguments, "--output", "json")
        self.report.command(["coordctl", *arguments])

        def attempt() -> T | None:
            finished = self._run(arguments, None)
            return look(finished.json()) if finished.status == 0 else None

        return wait_for(what, attempt, timeout, POLL_SECONDS)

    # --- who is asked, and as whom

    def export_servers(self) -> None:
        """From now on coordctl finds the founders in its environment, whether they live or not."""
        servers = ",".join(self.address_of(self.servers[name]) for name in FOUNDERS)
        self.report.command(["export", f"COORD_SERVERS={servers}"])
        self.environment["COORD_SERVERS"] = servers

    def via_agent(self, host: str, token: str = ROOT) -> list[str]:
        """Options for what an operator does on that host."""
        return ["--agent", str(self.agents[host].socket), *self.as_token(token)]

    def as_token(self, token: str = ROOT) -> list[str]:
        """Options for the token of that name."""
        return ["--token-file", str(self.folder / f"{token}.token")]

    @staticmethod
    def address_of(host: ServerHost) -> str:
        return f"{host.client_address}@{host.public_key}"

    def ask_dns(self, host: str, name: str, record_type: str, *, printed: bool = True) -> DnsAnswer:
        port = self.agents[host].dns_port
        if printed:
            self.report.command(["dig", "@127.0.0.1", "-p", str(port), record_type, name])
        return ask("127.0.0.1", port, name, record_type, 2.0)

    # --- processes

    def start_server(self, host: ServerHost, settings: dict[str, Any] | None = None) -> None:
        """`settings`: those of its first start, beyond its name and addresses."""
        config = host.folder / "server.toml"
        if settings is not None:
            own = {
                "name": host.name,
                "cluster_name": "demo",
                "data_dir": host.folder / "data",
                "key_file": host.folder / "server.key",
                "raft_address": host.raft_address,
                "client_address": host.client_address,
            }
            write_toml(config, own | settings)
        host.daemon = self._start(host.name, "coordd", config)

    def start_agent(self, host: AgentHost) -> None:
        servers = [self.servers[name] for name in FOUNDERS]
        settings = {
            "node": host.name,
            "address": "127.0.0.1",
            "data_dir": host.folder / "data",
            "local_socket": host.socket,
            "token_file": self.folder / f"{host.name}.token",
            "servers": [{"address": one.client_address, "public_key": one.public_key} for one in servers],
            "dns": {"address": f"127.0.0.1:{host.dns_port}"},
        }
        config = write_toml(host.folder / "agent.toml", settings)
        host.daemon = self._start(host.name, "coordd-agent", config)

    def _start(self, name: str, kind: str, config: Path) -> Daemon:
        self.report.command([kind, "--config", str(config)])
        command = daemon_command(kind, config)
        return Daemon.start(name, command, self.folder / f"{name}.log", self.environment, guarded=not self.keep)

    def start_http(self) -> Daemon:
        """A small real HTTP server that the check can ask."""
        command = [sys.executable, "-m", "http.server", str(self.http_port), "--bind", "127.0.0.1"]
        self.report.command(command)
        site = self._subfolder("site")
        (site / "index.html").write_text("well\n", encoding="ascii")
        helper = Daemon.start(
            "http",
            [*command, "--directory", str(site)],
            self.folder / "http.log",
            self.environment,
            guarded=not self.keep,
        )
        self.helpers.append(helper)
        return helper

    def wait_ready(self, *daemons: Daemon | None) -> None:
        for daemon in daemons:
            if daemon is not None:
                daemon.wait_ready(READY_SECONDS)

    def kill(self, host: ServerHost | AgentHost) -> None:
        """SIGKILL: it has no chance to say good-bye."""
        if host.daemon is not None:
            self.report.command(["kill", "-KILL", str(host.daemon.process.pid)])
            host.daemon.kill()

    def until_logged(self, host: ServerHost, event: str, timeout: float) -> dict[str, Any]:
        """The line of the server's log that tells of the event."""

        def look() -> dict[str, Any] | None:
            lines = host.daemon.events() if host.daemon else []
            return next((line for line in lines if line.get("event") == event), None)

        return wait_for(f"{host.name} logging {event!r}", look, timeout)

    # --- what is shown

    def show(self, text: str) -> None:
        self.report.show(text)

    def expect(self, condition: bool, sentence: str) -> None:
        """The point of a step: asked once, at its end, when everything it does is done."""
        if bool(condition) is not self.broken:
            return
        raise UnmetError(f"did not hold: {'NOT: ' if self.broken else ''}{sentence}")

    def close(self) -> dict[str, Any]:
        """End everything, or leave it and say where it is."""
        for process in self.commands:
            process.kill()
            process.communicate()
        hosts: list[ServerHost | AgentHost] = [*self.agents.values(), *self.servers.values()]
        daemons = [host.daemon for host in hosts if host.daemon is not None] + self.helpers
        if self.keep:
            return self._left(daemons)
        for daemon in daemons:
            with contextlib.suppress(OSError):
                daemon.process.terminate()
        for daemon in daemons:
            daemon.end()
        shutil.rmtree(self.folder, ignore_errors=True)
        return {}

    def _left(self, daemons: list[Daemon]) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "servers": [self.address_of(host) for host in self.servers.values() if host.daemon and host.daemon.alive],
            "agents": [f"{a.socket} (DNS 127.0.0.1:{a.dns_port})" for a in self.agents.values() if a.daemon],
            "root token": str(self.folder / "root.token"),
            "to end it": f"kill {' '.join(str(d.process.pid) for d in daemons if d.alive)}; rm -r {self.folder}",
        }
