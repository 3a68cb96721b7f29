"""The program itself, in a process of its own: exit codes, restarts, signals, and life without any server."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import dns.message
import dns.query
import dns.rcode
import pytest

from coordd.client import Client, asks
from coordd.messages.client import Body, Info, InfoRequest, Ok, ReadResult, ReplyBody
from coordd.messages.command import ServiceDefinition
from coordd.messages.local import (
    CheckSpec,
    DeregisterService,
    ListLocalChecks,
    ListLocalServices,
    LocalBody,
    RegisterService,
    UpdateTtlCheck,
)
from coordd.messages.query import Checks
from coordd.transport.security import generate
from coordd_agent.main import main
from coordd_cli.processes import free_ports

HOST = "127.0.0.1"
START_S = 20.0
WEB = ServiceDefinition("web", "web", port=80)


def wait_for(condition: Callable[[], bool], within_s: float = START_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "condition did not come to hold in time"
        time.sleep(0.02)


class Agent:
    """A configuration and the process that runs with it."""

    def __init__(self, folder: Path, port: int, servers_port: int, extra: str = "") -> None:
        self.folder, self.port = folder, port
        self.config = folder / "agent.toml"
        self.log = folder / "log"
        self.socket = folder / "agent.sock"
        (folder / "services.d").mkdir()
        self.config.write_text(
            f'node = "h1"\naddress = "{HOST}"\ndata_dir = "data"\nlocal_socket = "agent.sock"\n'
            f'services_dir = "services.d"\n{extra}\n'
            f"[[servers]]\naddress = \"{HOST}:{servers_port}\"\npublic_key = '''{generate().public}'''\n"
            f'[dns]\naddress = "{HOST}:{port}"\nmax_wait_ms = 200\n'
        )

    def command(self) -> list[str]:
        return [sys.executable, "-m", "coordd_agent.main", "--config", str(self.config), "--log-format", "json"]

    def fail(self) -> tuple[int, str]:
        """Exit code and last log line of a start that can't succeed."""
        done = subprocess.run(self.command(), capture_output=True, text=True, timeout=START_S, check=False)
        return done.returncode, json.loads(done.stderr.splitlines()[-1])["event"]

    @contextlib.contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        with self.log.open("wb") as log:
            process = subprocess.Popen(self.command(), stderr=log)
        try:
            wait_for(lambda: process.poll() is not None or any(line["event"] == "ready" for line in self.lines()))
            assert process.poll() is None, self.log.read_text()
            yield process
        finally:
            process.kill()
            process.wait()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def ask(self, body: Body | LocalBody) -> ReplyBody:
        with Client(agent=f"ipc://{self.socket}", timeout=10) as client:
            return client.ask(asks.request(cast(Body, body)))

    def checks(self) -> dict[str, str]:
        reply = self.ask(ListLocalChecks())
        assert isinstance(reply, ReadResult)
        assert isinstance(reply.value, Checks)
        return {one.check.id: one.check.status for one in reply.value.checks}

    def services(self) -> set[str]:
        reply = self.ask(ListLocalServices())
        assert isinstance(reply, ReadResult)
        return {one.service.id for one in reply.value.entries[0].services}  # type: ignore[union-attr]

    def figures(self) -> dict[str, Any]:
        reply = self.ask(InfoRequest())
        assert isinstance(reply, Info)
        return reply.figures


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    port, nobodys_port = free_ports(2)
    return Agent(tmp_path, port, nobodys_port)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_life_without_servers(agent: Agent) -> None:
    with agent.running() as process:
        query = dns.message.make_query("web.service.coord", "A")
        assert dns.query.udp(query, HOST, port=agent.port, timeout=10).rcode() == dns.rcode.SERVFAIL
        assert dns.query.tcp(query, HOST, port=agent.port, timeout=10).rcode() == dns.rcode.SERVFAIL
        reply = agent.ask(
            RegisterService(WEB, (CheckSpec(ttl_ms=60_000), CheckSpec(tcp=f"{HOST}:{agent.port}", interval_ms=100)))
        )
        assert isinstance(reply, Ok)
        assert reply.index == 0
        assert reply.text
        agent.ask(UpdateTtlCheck("service:web", "passing", "fine"))
        wait_for(lambda: agent.checks() == {"service:web": "passing", "service:web:2": "passing"})
        figures = agent.figures()
        assert figures["kind"] == "agent"
        assert figures["dns_address"] == f"{HOST}:{agent.port}"
        assert figures["servers_connected"] is False
        assert figures["dns_servfail"] == 2
        assert figures["memory_bytes"] < 60 * 1024 * 1024
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert not agent.socket.exists()
    assert not [line for line in agent.lines() if line["level"] == "error"]


def test_registrations_survive_a_kill(agent: Agent) -> None:
    with agent.running() as process:
        agent.ask(RegisterService(WEB, (CheckSpec(ttl_ms=600_000),)))
        agent.ask(RegisterService(ServiceDefinition("db", "db"), ()))
        agent.ask(DeregisterService("db"))
        agent.ask(UpdateTtlCheck("service:web", "warning", "so so"))
        saved = agent.folder / "data" / "ttl-reports.json"
        wait_for(lambda: saved.exists() and b"so so" in saved.read_bytes())
        node_id = (agent.folder / "data" / "node-id").read_text()
        process.kill()
        process.wait()
    with agent.running():
        assert agent.services() == {"web"}
        assert agent.checks() == {"service:web": "warning"}
        assert (agent.folder / "data" / "node-id").read_text() == node_id


def test_sighup_reads_service_files_and_keeps_what_is_good(agent: Agent) -> None:
    file = agent.folder / "services.d" / "web.toml"
    with agent.running() as process:
        file.write_text('[[services]]\nname = "web"\n')
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: agent.services() == {"web"})
        file.write_text('[[services]]\nname = "other"\nprot = 1\n')
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: any("not reloaded" in line["event"] for line in agent.lines()))
        assert agent.services() == {"web"}
        file.unlink()
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: agent.services() == set())


def test_a_second_agent_is_told_what_is_in_use(agent: Agent, tmp_path: Path) -> None:
    with agent.running():
        code, sentence = agent.fail()
        assert (code, sentence) == (4, f"dns.address {HOST}:{agent.port} can't be used: address already in use")
        text = agent.config.read_text()
        agent.config.write_text(text.replace(f"{HOST}:{agent.port}", f"{HOST}:{free_ports(1)[0]}"))
        before = digest(tmp_path / "data")
        assert agent.fail() == (4, f"data folder {tmp_path / 'data'} belongs to another running agent")
        assert digest(tmp_path / "data") == before
        agent.config.write_text(agent.config.read_text().replace('"data"', '"data2"'))
        code, sentence = agent.fail()
        assert code == 4
        assert str(agent.socket) in sentence


@pytest.mark.parametrize(
    ("change", "code", "complaint"),
    [
        (("node =", "nod ="), 2, "nod is not a known setting; the nearest is node"),
        (('services_dir = "services.d"', 'services_dir = "gone"'), 2, "can't be read: no such file or directory"),
        (('services_dir = "services.d"', 'token_file = "gone"'), 2, "token_file"),
        (("public_key = '''", "public_key = '''x"), 2, "servers[0].public_key"),
    ],
)
def test_wrong_configuration(agent: Agent, change: tuple[str, str], code: int, complaint: str) -> None:
    agent.config.write_text(agent.config.read_text().replace(*change))
    ended, sentence = agent.fail()
    assert ended == code
    assert complaint in sentence
    assert not (agent.folder / "data").exists()


def test_damaged_registrations_are_left_as_they_are(agent: Agent) -> None:
    data = agent.folder / "data"
    data.mkdir()
    (data / "services.json").write_text("{")
    (data / "node-id").write_text("id")
    (data / "lock").touch()
    before = digest(data)
    code, sentence = agent.fail()
    assert code == 3
    assert "can't be read" in sentence
    assert digest(data) == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_no_permission(agent: Agent) -> None:
    with tempfile.TemporaryDirectory() as name:
        # pytest's own folders may be entered by nobody else.
        Path(name).chmod(0o755)
        data = Path(name) / "data"
        data.mkdir(mode=0o700)
        config = Path(name) / "agent.toml"
        text = agent.config.read_text().replace('"data"', f'"{data}"')
        config.write_text(text.replace('services_dir = "services.d"\n', ""))
        # The interpreter may lie where nobody else may look, so what it needs is loaded first.
        code = "import os, shutil, sys, uvloop; from coordd_agent.main import main; os.setuid(65534); sys.exit(main())"
        command = [sys.executable, "-c", code, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode == 3, done.stderr
    assert f"data folder {data} can't be used: permission denied" in done.stderr


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("coordd-agent ")
