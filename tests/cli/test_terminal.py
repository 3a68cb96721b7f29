"""A locked command at a terminal: it gets the terminal, Ctrl-C is its own, and Ctrl-Z does not put it to sleep."""

import os
import pty
import select
import sys
import time

from tests.cli.small_cluster import SmallCluster

SCRIPT = """
trap 'echo interrupted; exit 3' INT
stty -echo; echo ready; read line; echo got $line
while :; do echo tick; sleep 0.1; done
"""
TICKS = 15


class Terminal:
    """The other side of a pseudo terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def read_until(self, word: bytes, count: int = 1, seconds: float = 30.0) -> None:
        """Wait until the word has come that often since the last call."""
        deadline = time.monotonic() + seconds
        while self._seen.count(word) < count:
            assert time.monotonic() < deadline, self._seen
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self._seen += os.read(self._descriptor, 4096)
        self._seen = self._seen[self._seen.rindex(word) + len(word) :]


def test_a_command_at_a_terminal(server: SmallCluster, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "coordd_cli.main", *server.option, "lock", "a", "--pass-exit", "--"]
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execve(command[0], [*command, "sh", "-c", SCRIPT], environment)
    terminal = Terminal(descriptor)
    try:
        terminal.read_until(b"ready")
        terminal.type(b"word\n")
        terminal.read_until(b"got word")
        terminal.type(b"\x1a")
        terminal.read_until(b"tick", TICKS)
        terminal.type(b"\x03")
        terminal.read_until(b"interrupted")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    finally:
        os.close(descriptor)
