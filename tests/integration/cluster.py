"""A cluster of real `coordd` processes on loopback, for tests and benchmarks.

    with ServerCluster(folder) as cluster:
        cluster.bootstrap()
        with cluster.client() as client: ...

Ports are free ones, keys are thrown away, processes are ended by their pid.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import zmq

from coordd.client import Client
from coordd.errors import (
    BusyError,
    ConflictError,
    CoorddError,
    NoLeaderError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    TimedOutError,
)
from coordd.messages.client import (
    PROTOCOL_VERSION,
    Body,
    BootstrapRequest,
    Info,
    InfoRequest,
    Ok,
    ReplyBody,
    Request,
    ServerInfo,
    Servers,
    ServersRequest,
)
from coordd.messages.codec import decode_reply, encode_request
from coordd.transport.security import KeyPair, generate, secure_client, write_key_file
from coordd.transport.sockets import close_context, endpoint, open_context, open_socket, writable

T = TypeVar("T")

FOR_NOW = (BusyError, NoLeaderError, NotLeaderError, OutcomeUnknownError, TimedOutError)
"""What a test that waits for something else gets over: on a busy machine there may be an election at any time."""

PATIENCE = 60.0
"""Deadline for anything that should happen soon, on a slow machine that is shared."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. All are held at once, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(condition: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Ask until the answer is true, and give it back."""
    deadline = time.monotonic() + patience
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.02)


class ServerProcess:
    """One server: its folder, its settings, and a process that may come and go."""

    def __init__(self, folder: Path, name: str, raft_port: int, client_port: int) -> None:
        self.folder = folder
        self.name = name
        self.raft_address = f"127.0.0.1:{raft_port}"
        self.client_address = f"127.0.0.1:{client_port}"
        self.keys: KeyPair = generate()
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        """For its process, beside what this one has."""
        folder.mkdir(parents=True)
        write_key_file(folder / "key", self.keys)

    @property
    def config(self) -> Path:
        return self.folder / "server.toml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def entry(self) -> str:
        return (
            f'[[servers]]\nname = "{self.name}"\nraft_address = "{self.raft_address}"\n'
            f"client_address = \"{self.client_address}\"\npublic_key = '{self.keys.public}'\n"
        )

    def configure(self, cluster_name: str, servers: str, extra: str = "") -> None:
        self.config.write_text(
            f'name = "{self.name}"\ncluster_name = "{cluster_name}"\ndata_dir = "{self.data}"\n'
            f'key_file = "{self.folder / "key"}"\nraft_address = "{self.raft_address}"\n'
            f'client_address = "{self.client_address}"\n{extra}\n{servers}'
        )

    def start(self, preload: list[str] | None = None) -> None:
        """`preload`: python code of a test to run in the server's process first, as `-c` statements."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        code = "; ".join([*(preload or []), "from coordd.server.main import main", "main()"])
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "--config", str(self.config)],
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | self.environment,
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, patience: float = 10.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(patience)


class ServerCluster:
    """Some servers that found one cluster, and servers that join it later."""

    def __init__(self, folder: Path, count: int = 3, extra: str = "") -> None:
        """`extra`: TOML tables for every server's configuration, such as "[raft]\\nelection_ms = 500"."""
        self.folder = folder
        self._top, _, tables = extra.partition("[")
        self._tables = "[" + tables if tables else ""
        ports = free_ports(2 * count)
        self.servers = [
            ServerProcess(folder / f"s{n}", f"s{n}", ports[2 * n - 2], ports[2 * n - 1]) for n in range(1, count + 1)
        ]
        self.configure()

    def configure(self, more: str = "") -> None:
        """Write every server's file. `more`: TOML tables beside those given at construction."""
        entries = "".join(server.entry() for server in self.servers)
        for server in self.servers:
            server.configure("test", entries + self._tables + more, self._top)

    def __enter__(self) -> "ServerCluster":
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self.servers:
            server.kill()
        if exception[0] is not None:
            for server in self.servers:
                print(f"--- log of {server.name}, its end ---\n{server.log[-4000:]}", file=sys.stderr)

    def start(self, **options: Any) -> None:
        for server in self.servers:
            server.start(**options)

    def bootstrap(self, **options: Any) -> None:
        """Start everything and found the cluster on the first server."""
        self.start(**options)
        with self.client(only=self.servers[0]) as client:
            client.request(BootstrapRequest(), timeout=PATIENCE)
        self.leader()

    def join(self, name: str) -> ServerProcess:
        """A new server, configured to join and started; `add-peer` is still to come."""
        ports = free_ports(2)
        server = ServerProcess(self.folder / name, name, *ports)
        member = self.servers[0]
        join = f"[join]\naddress = \"{member.client_address}\"\npublic_key = '{member.keys.public}'\n"
        server.configure("test", join + self._tables, self._top)
        self.servers.append(server)
        server.start()
        return server

    @contextlib.contextmanager
    def client(self, only: ServerProcess | None = None, timeout: float = 10.0, token: str = "") -> Iterator[Client]:
        targets = [only] if only else self.servers
        with Client(
            servers=[(server.client_address, server.keys.public) for server in targets], timeout=timeout, token=token
        ) as client:
            yield client

    def info(self, server: ServerProcess, token: str = "", timeout: float = 2.0) -> dict[str, Any] | None:
        """The server's own figures; None while it does not answer."""
        with self.client(only=server, token=token, timeout=timeout) as client:
            try:
                answer = client.request(InfoRequest(), server=server.client_address)
            except CoorddError:
                return None
        assert isinstance(answer, Info)
        return dict(answer.figures)

    def leader(self, token: str = "") -> ServerProcess:
        """Wait until one leads, and say which."""

        def found() -> ServerProcess | None:
            for server in self.servers:
                if server.running and (figures := self.info(server, token)) and figures["role"] == "leader":
                    return server
            return None

        return wait_for(found, "a leader")

    @property
    def environment(self) -> dict[str, str]:
        """For programs that find the cluster by themselves."""
        servers = ",".join(f"{server.client_address}@{server.keys.public}" for server in self.servers)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("COORD_")}
        return kept | {"COORD_SERVERS": servers, "XDG_CONFIG_HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}

    def followers(self) -> list[ServerProcess]:
        """The running servers that do not lead."""
        leader = self.leader()
        return [server for server in self.servers if server.running and server is not leader]

    def named(self, name: str) -> ServerProcess:
        return next(server for server in self.servers if server.name == name)

    def operate(self, body: Body, token: str = "") -> Ok:
        """An operator's request, begun again when an election came between: then it may have been done already."""
        begun_again = False

        def attempt() -> Ok | None:
            nonlocal begun_again
            with self.client(token=token) as client:
                try:
                    answer = client.request(body, timeout=10.0)
                except FOR_NOW:
                    begun_again = True
                    return None
                except ConflictError as error:
                    if "healthy voters" in str(error):
                        return None  # a leader that has just taken office has not heard everybody yet
                    if begun_again:
                        return Ok(0, str(error))
                    raise
                except NotFoundError as error:
                    if begun_again:
                        return Ok(0, error.text)
                    raise
            assert isinstance(answer, Ok)
            return answer

        return wait_for(attempt, f"an answer to {body}")

    def members(self) -> dict[str, ServerInfo]:
        """Name → member, as the cluster's present leader tells it."""
        with self.client(only=self.leader()) as client:
            answer = client.request(ServersRequest())
        assert isinstance(answer, Servers)
        return {member.id.partition("#")[0]: member for member in answer.servers}

    def whole(self) -> ServerProcess:
        """Wait until every server has applied what is committed now, also while clients write; the leader."""

        def attempt() -> ServerProcess | None:
            leader = self.leader()
            figures = self.info(leader)
            if figures is None or figures["role"] != "leader":
                return None
            for server in self.servers:
                others = self.info(server)
                if others is None or others["applied_index"] < figures["commit_index"]:
                    return None
            return leader

        return wait_for(attempt, "a whole cluster")

    def converged(self, token: str = "") -> list[dict[str, Any]]:
        """Wait until all running servers have applied the same index, and give their figures."""

        def equal() -> list[dict[str, Any]] | None:
            figures = [self.info(server, token) for server in self.servers if server.running]
            known = [each for each in figures if each is not None]
            if len(known) < len(figures) or len({(each["applied_index"], each["last_index"]) for each in known}) != 1:
                return None
            return known

        return wait_for(equal, "all servers at the same index")


class Straight:
    """A connection to one server and no other, without a client's cleverness: each answer as it comes.

    What it sends to a stopped server waits there until the server goes on.
    """

    def __init__(self, server: ServerProcess) -> None:
        self._context = open_context()
        self._dealer = open_socket(self._context, zmq.DEALER, queue=1000)
        secure_client(self._dealer, server.keys.public, generate())
        self._dealer.connect(endpoint(self._dealer, server.client_address))
        self._last = 0
        wait_for(lambda: writable(self._dealer), f"a connection to {server.name}")

    def __enter__(self) -> "Straight":
        return self

    def __exit__(self, *exception: object) -> None:
        close_context(self._context)

    def send(self, body: Body, budget: float = PATIENCE) -> int:
        """The request's number."""
        self._last += 1
        frame = encode_request(Request(PROTOCOL_VERSION, self._last, "", int(budget * 1000), body))
        self._dealer.send(frame, zmq.NOBLOCK)
        return self._last

    def answers(self, count: int, given_up: Callable[[], bool] = lambda: False) -> dict[int, ReplyBody]:
        """Wait for so many, by number; for less only if given up."""
        found: dict[int, ReplyBody] = {}

        def complete() -> bool:
            while self._dealer.poll(0):
                reply = decode_reply(self._dealer.recv())
                found[reply.id] = reply.body
            return len(found) >= count or given_up()

        wait_for(complete, f"{count} answers")
        return found

    def ask(self, body: Body, budget: float = PATIENCE) -> ReplyBody:
        number = self.send(body, budget)
        return self.answers(1)[number]
