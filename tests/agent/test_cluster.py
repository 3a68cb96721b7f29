"""Two agents and a real server: what one registers the other resolves, through every kind of loss."""

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest

from coordd.client import Client, Fence, asks
from coordd.messages.client import InfoRequest
from coordd.messages.command import AclBootstrap, KvPut, ServiceDefinition
from coordd.messages.local import CheckSpec, DeregisterService, RegisterService
from coordd.transport.security import generate, write_key_file
from coordd_cli.processes import free_ports
from tests.agent.test_main import HOST, Agent, wait_for

WEB = ServiceDefinition("web", "web", port=80, tags=("blue",))
DROP_S = 10.0


class Server:
    """A cluster of one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        pair = generate()
        raft_port, self.client_port = free_ports(2)
        self.public_key = pair.public
        addresses = f'raft_address = "{HOST}:{raft_port}"\nclient_address = "{HOST}:{self.client_port}"\n'
        write_key_file(folder / "server.key", pair)
        (folder / "server.toml").write_text(
            f'name = "s1"\ncluster_name = "test"\ndata_dir = "data"\nkey_file = "server.key"\nbootstrap = true\n{addresses}'
            f"[[servers]]\nname = \"s1\"\n{addresses}public_key = '''{pair.public}'''\n"
        )

    @contextlib.contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        code = "from coordd.server.main import main; main()"
        command = [sys.executable, "-c", code, "--config", str(self.folder / "server.toml")]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            with Client([(f"{HOST}:{self.client_port}", self.public_key)], timeout=30) as client:
                client.servers()
            assert process.poll() is None, (self.folder / "log").read_text()
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "server")


def an_agent(tmp_path: Path, name: str, server: Server, extra: str = "") -> Agent:
    folder = tmp_path / name
    folder.mkdir()
    agent = Agent(folder, free_ports(1)[0], server.client_port, extra)
    lines = agent.config.read_text().replace('"h1"', f'"{name}"').splitlines()
    lines = [f"public_key = '''{server.public_key}'''" if line.startswith("public_key") else line for line in lines]
    agent.config.write_text("\n".join(lines) + "\n")
    return agent


def resolve(agent: Agent, name: str = "web.service.coord", qtype: str = "A") -> list[str]:
    """Data of the records, or the response code as the only one."""
    reply = dns.query.udp(dns.message.make_query(name, qtype), HOST, port=agent.port, timeout=10)
    if reply.rcode() != dns.rcode.NOERROR:
        return [dns.rcode.to_text(reply.rcode())]
    return sorted(record.to_text() for rrset in reply.answer for record in rrset)


def test_one_registers_the_other_resolves(tmp_path: Path, server: Server) -> None:
    h1, h2 = an_agent(tmp_path, "h1", server), an_agent(tmp_path, "h2", server)
    with server.running() as process, h1.running() as first, h2.running():
        wait_for(lambda: resolve(h2) == ["NXDOMAIN"])
        h1.ask(RegisterService(WEB, (CheckSpec(tcp=f"{HOST}:{h1.port}", interval_ms=100),)))
        wait_for(lambda: resolve(h2) == [HOST])
        assert resolve(h2, "BLUE.web.service.consul") == [HOST]
        assert resolve(h2, "_web._tcp.service.coord", "SRV") == ["1 1 80 h1.node.dc1.coord."]
        assert resolve(h2, "1.0.0.127.in-addr.arpa", "PTR")[0] in ("h1.node.dc1.coord.", "h2.node.dc1.coord.")
        assert resolve(h2, "s1.node.coord") == [HOST]
        wait_for(lambda: h1.figures()["unsynced"] == 0 and h1.figures()["problem"] == "")

        # No server: the agents still answer for what they know, and say how old it is.
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda: h2.figures()["servers_connected"] is False)
        for _ in range(100):
            assert resolve(h2) == [HOST]
        assert resolve(h2, "never.service.coord") == ["SERVFAIL"]
        h1.ask(RegisterService(ServiceDefinition("late", "late", port=1), ()))
        assert h2.figures()["cache.service.web"] > 0

        # It comes back: they converge again.
        with server.running():
            wait_for(lambda: resolve(h2, "late.service.coord") == [HOST])
            h1.ask(DeregisterService("late"))
            wait_for(lambda: resolve(h2, "late.service.coord") == ["NXDOMAIN"])

            # The first host dies: its services go.
            first.kill()
            first.wait()
            wait_for(lambda: resolve(h2) == ["NXDOMAIN"], DROP_S)


def test_a_check_that_fails_takes_its_service_out(tmp_path: Path, server: Server) -> None:
    h1 = an_agent(tmp_path, "h1", server)
    http = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", HOST, str(port := free_ports(1)[0])],
        cwd=tmp_path / "h1" / "services.d",
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        with server.running(), h1.running():
            check = CheckSpec(http=f"http://{HOST}:{port}/", interval_ms=100)
            h1.ask(RegisterService(WEB, (check,)))
            wait_for(lambda: resolve(h1) == [HOST])
            http.kill()
            http.wait()
            wait_for(lambda: resolve(h1) == ["NXDOMAIN"])
            assert h1.figures()["checks_critical"] == 1
            assert h1.figures()["memory_bytes"] < 60 * 1024 * 1024
    finally:
        http.kill()
        http.wait()


def test_requests_go_through_the_agent_with_the_callers_token(tmp_path: Path, server: Server) -> None:
    h1 = an_agent(tmp_path, "h1", server)
    with server.running(), h1.running(), Client(agent=f"ipc://{h1.socket}", timeout=10) as client:
        wait_for(lambda: h1.figures()["servers_connected"] is True)
        client.kv_put("k", b"v")
        found = client.kv_get("k")
        assert found is not None
        assert found.value == b"v"
        with client.lock("nightly", ttl=10, node="h1") as lock:
            command = KvPut("k", b"fenced", fence=Fence("nightly", lock.token))
            client.write(command)
        assert client.ask(asks.request(InfoRequest())).figures["kind"] == "agent"  # type: ignore[union-attr]


def test_without_a_valid_token_it_says_so_and_answers_from_its_cache(tmp_path: Path, server: Server) -> None:
    token_file = tmp_path / "token"
    token_file.touch()
    h1 = an_agent(tmp_path, "h1", server, f'token_file = "{token_file}"')
    with server.running(), h1.running() as process:
        h1.ask(RegisterService(WEB, ()))
        wait_for(lambda: resolve(h1) == [HOST])
        secret = bootstrap(server)
        wait_for(lambda: h1.figures()["token"] == "denied")
        assert resolve(h1) == [HOST]
        token_file.write_text(secret)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: h1.figures()["token"] == "valid" and h1.figures()["acl_enabled"] is True)
        h1.ask(RegisterService(ServiceDefinition("more", "more"), ()))
        wait_for(lambda: resolve(h1, "more.service.coord") == [HOST])
    warnings = [line["event"] for line in h1.lines() if line["level"] == "warning"]
    assert sum("everything is allowed" in event for event in warnings) == 1
    assert sum("answers continue from the cache" in event for event in warnings) == 1
    assert secret not in json.dumps(h1.lines())


def bootstrap(server: Server) -> str:
    secret = "the-management-tokens-secret"
    with Client([(f"{HOST}:{server.client_port}", server.public_key)], timeout=10) as client:
        client.write(AclBootstrap("accessor", hashlib.sha256(secret.encode()).digest()))
    return secret
