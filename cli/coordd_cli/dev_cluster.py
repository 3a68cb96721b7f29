"""What `coordctl dev` runs: a server that founds a cluster of its own, and an agent, as child processes.

Keys and data lie in a folder that goes when the command ends. Both die with this process, however it ends.
"""

import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from coordd.errors import CoorddError
from coordd.transport.security import generate, write_key_file
from coordd_cli.processes import Daemon, clean_environment, daemon_command, free_ports, wait_for, write_toml
from coordd_cli.render import Renderer

__all__ = ["run"]

RAFT_PORT, CLIENT_PORT, DNS_PORT = 8310, 8311, 8600
READY_SECONDS = 10.0
ELECTION_MS = 100
"""Nobody else can lead, so there is nothing to wait for."""
HEARTBEAT_MS = 30
LOOK_SECONDS = 0.2


class _EndError(BaseException):
    """A signal asked for the end."""


def run(render: Renderer, dns_port: int, verbose: bool) -> None:
    """Start both, say where they are, and stay until a signal or until one of them ends. Raises: ProcessError."""
    with _folder() as folder, _signals():
        ports = _ports(dns_port)
        server = agent = None
        try:
            pair = generate()
            write_key_file(folder / "server.key", pair)
            config = _server_config(folder, ports, pair.public)
            server = _start("server", "coordd", write_toml(folder / "server.toml", config))
            # At once: the agent looks for its server by itself, and both take their time to load.
            agent = _start(
                "agent", "coordd-agent", write_toml(folder / "agent.toml", _agent_config(folder, ports, pair.public))
            )
            server.wait_ready(READY_SECONDS)
            agent.wait_ready(READY_SECONDS)
            _wait_for_leader(folder)
            _announce(render, folder, ports, pair.public)
            _stay([server, agent], verbose)
        except _EndError:
            pass
        finally:
            _end(agent, server)


def _ports(dns_port: int) -> tuple[int, int, int]:
    raft, client = free_ports(2, [RAFT_PORT, CLIENT_PORT])
    dns = dns_port or free_ports(1, [DNS_PORT])[0]
    return raft, client, dns


def _server_config(folder: Path, ports: tuple[int, int, int], public_key: str) -> dict[str, Any]:
    addresses = {"raft_address": f"127.0.0.1:{ports[0]}", "client_address": f"127.0.0.1:{ports[1]}"}
    return {
        "name": "dev",
        "cluster_name": "dev",
        "data_dir": folder / "server",
        "key_file": folder / "server.key",
        **addresses,
        "bootstrap": True,
        "raft": {"heartbeat_ms": HEARTBEAT_MS, "election_ms": ELECTION_MS},
        "servers": [{"name": "dev", **addresses, "public_key": public_key}],
    }


def _agent_config(folder: Path, ports: tuple[int, int, int], public_key: str) -> dict[str, Any]:
    return {
        "node": "dev",
        "address": "127.0.0.1",
        "data_dir": folder / "agent",
        "local_socket": _socket(folder),
        "servers": [{"address": f"127.0.0.1:{ports[1]}", "public_key": public_key}],
        "dns": {"address": f"127.0.0.1:{ports[2]}"},
    }


def _socket(folder: Path) -> Path:
    return folder / "agent.sock"


def _start(name: str, kind: str, config: Path) -> Daemon:
    command = daemon_command(kind, config)
    return Daemon.start(name, command, config.parent / f"{name}.log", clean_environment(config.parent))


def _wait_for_leader(folder: Path) -> None:
    """The agent relays this, so that it is connected, too, once there is an answer."""
    # Imported here, while the children load: whoever starts `dev` waits for all three.
    from coordd.client import Client

    with Client(agent=f"ipc://{_socket(folder)}", timeout=1.0, name="coordctl dev") as client:

        def look() -> bool:
            try:
                return any(one.leader for one in client.servers().servers)
            except CoorddError:
                return False

        wait_for("electing a leader", look, READY_SECONDS)


def _announce(render: Renderer, folder: Path, ports: tuple[int, int, int], public_key: str) -> None:
    agent = f"ipc://{_socket(folder)}"
    server = f"127.0.0.1:{ports[1]}@{public_key}"
    if render.json:
        render.one({"agent": agent, "server": server, "dns": f"127.0.0.1:{ports[2]}", "folder": folder})
    else:
        print("A server and an agent are running, and everything is allowed. In another terminal:\n")
        print(f"    export COORD_AGENT={shlex.quote(agent)} COORD_DNS_ADDRESS=127.0.0.1:{ports[2]}\n")
        print("    coordctl kv put hello world")
        print("    coordctl services register web --port 8080")
        print(f"    dig @127.0.0.1 -p {ports[2]} web.service.coord\n")
        print(f"Logs are in {folder}. Ctrl-C ends both.")
    sys.stdout.flush()


def _stay(daemons: list[Daemon], verbose: bool) -> None:
    """Until a signal. Raises: ProcessError if one of them ends by itself."""
    shown = [0] * len(daemons)
    while True:
        for number, daemon in enumerate(daemons):
            if verbose:
                lines = daemon.lines()
                for line in lines[shown[number] :]:
                    print(f"{daemon.name}: {line}", file=sys.stderr)
                shown[number] = len(lines)
            daemon.check_alive()
        time.sleep(LOOK_SECONDS)


def _end(*daemons: Daemon | None) -> None:
    """The agent first: it says good-bye to a server that still listens."""
    for daemon in daemons:
        if daemon is not None:
            daemon.end()


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="coordd-dev-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _signals() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise _EndError

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
