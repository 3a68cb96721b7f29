"""Servers, agents and helpers as child processes of `dev` and `demo`: start, wait until ready, end.

Their logs go to files: a pipe that nobody reads would stop them. Programs are started by this very interpreter, so that
they are those of the same installation.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from coordd.errors import CoorddError

__all__ = [
    "MODULES",
    "Daemon",
    "ProcessError",
    "clean_environment",
    "daemon_command",
    "free_ports",
    "program",
    "toml_lines",
    "wait_for",
    "write_toml",
]

T = TypeVar("T")

MODULES = {"coordctl": "coordd_cli.main", "coordd": "coordd.server.main", "coordd-agent": "coordd_agent.main"}
_GUARD = Path(__file__).with_name("guarded.py")
_POLL_SECONDS = 0.01
LOG_TAIL_LINES = 10
LOWEST_PORT = 15_000


class ProcessError(CoorddError):
    """A child process did not do what it is there for; the text ends with its last words."""


def program(name: str) -> list[str]:
    """The beginning of the command line that runs coordctl, coordd or coordd-agent."""
    return [sys.executable, "-c", f"import sys; from {MODULES[name]} import main; sys.exit(main())"]


def daemon_command(name: str, config: Path) -> list[str]:
    """Start a server or an agent, with log lines that `Daemon` can read."""
    return [*program(name), "--config", str(config), "--log-format", "json"]


def clean_environment(folder: Path, **settings: str) -> dict[str, str]:
    """This environment without the user's settings of coordctl."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COORD_")}
    return {**kept, "XDG_CONFIG_HOME": str(folder), **settings}


def free_ports(count: int, preferred: Iterable[int] = ()) -> list[int]:
    """Ports of 127.0.0.1 that nobody has now, for TCP and UDP; the preferred ones where they are free.

    Others are drawn from below those that the kernel gives to connections: a server that is started later, or again,
    must not find its port taken by a client that happened to connect somewhere.
    """
    found: list[int] = []
    below = range(LOWEST_PORT, max(_first_ephemeral(), LOWEST_PORT + 1000))
    drawn = random.sample(below, min(20 * count, len(below)))
    with contextlib.ExitStack() as held:
        for wanted in [*preferred, *drawn]:
            if len(found) == count:
                break
            with contextlib.suppress(OSError):
                found.append(_hold(held, wanted))
    if len(found) < count:
        raise ProcessError("this host has no free ports on 127.0.0.1")
    return found


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return 32_768


def _hold(held: contextlib.ExitStack, wanted: int) -> int:
    with contextlib.ExitStack() as attempt:
        stream = attempt.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        # As servers do; else a port whose last connection has just ended would not count as free.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.bind(("127.0.0.1", wanted))
        port = int(stream.getsockname()[1])
        datagrams = attempt.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", port))
        held.push(attempt.pop_all())
    return port


def toml_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """TOML of texts, numbers, truth values, tables and lists of tables; values come before tables."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict | list)}
    for key, value in values.items():
        if key not in tables:
            # JSON's notation of these is TOML's too.
            yield f"{key} = {json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)}"
    for key, value in tables.items():
        for one in value if isinstance(value, list) else [value]:
            yield f"[[{key}]]" if isinstance(value, list) else f"[{key}]"
            yield from toml_lines(one)


def write_toml(path: Path, values: Mapping[str, Any]) -> Path:
    path.write_text("\n".join(toml_lines(values)) + "\n", encoding="utf-8")
    return path


def wait_for(what: str, look: Callable[[], T | None], timeout: float, pause: float = _POLL_SECONDS) -> T:
    """The first result of `look` that is neither None nor False. Raises: ProcessError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() >= deadline:
            raise ProcessError(f"{what} did not happen within {timeout:g} s")
        time.sleep(pause)


@dataclass
class Daemon:
    """A running server, agent or other long-lived process."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    log_start: int
    """Where this run's lines begin: the file goes on over restarts."""

    @classmethod
    def start(
        cls, name: str, command: list[str], log: Path, environment: Mapping[str, str], *, guarded: bool = True
    ) -> "Daemon":
        """`guarded`: it is killed when this process dies in whatever way."""
        prefix = [sys.executable, "-I", "-S", str(_GUARD), "become", str(os.getpid())] if guarded else []
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=dict(environment),
                # Ctrl-C at the terminal is for the parent, which ends its children in order.
                start_new_session=True,
            )
            return cls(name, process, log, file.tell())

    def lines(self) -> list[str]:
        """What this run has logged in whole lines."""
        text = self.log.read_bytes()[self.log_start :].decode(errors="replace")
        return text[: text.rfind("\n") + 1].splitlines()

    def events(self) -> Iterator[dict[str, Any]]:
        """Its log lines. What is no JSON is no log line, but perhaps last words."""
        for line in self.lines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event

    def wait_ready(self, timeout: float) -> None:
        """Until it logs that it is ready. Raises: ProcessError, also if it ends."""

        def look() -> bool:
            self.check_alive()
            return any(event.get("event") == "ready" for event in self.events())

        try:
            wait_for(f"{self.name}: becoming ready", look, timeout)
        except ProcessError as error:
            raise ProcessError(f"{error}\n{self._tail()}") from error

    def check_alive(self) -> None:
        """Raises: ProcessError if it has ended."""
        if (status := self.process.poll()) is not None:
            raise ProcessError(f"{self.name} ended with {status}\n{self._tail()}")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def end(self, timeout: float = 5.0) -> int:
        """SIGTERM, and SIGKILL if that is not enough. The exit status."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def _tail(self) -> str:
        return "\n".join(self.lines()[-LOG_TAIL_LINES:])
