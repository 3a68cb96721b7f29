"""A locked command at a terminal: it gets the terminal, and Ctrl-C is its own."""

import os
import pty
import select
import sys
import time

from tests.cli.small_cluster import SmallCluster

SCRIPT = "stty -echo; echo ready; read line; echo got $line; trap 'echo interrupted; exit 3' INT; echo armed; sleep 60 & wait"


def read_until(terminal: int, word: bytes, seconds: float = 20.0) -> bytes:
    deadline = time.monotonic() + seconds
    seen = b""
    while word not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 4096)
    return seen


def test_the_command_reads_from_the_terminal_and_is_interrupted_there(
    server: SmallCluster, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "coordd_cli.main", *server.option, "lock", "a", "--pass-exit", "--"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], [*command, "sh", "-c", SCRIPT], environment)
    try:
        read_until(terminal, b"ready")
        os.write(terminal, b"word\n")
        read_until(terminal, b"got word")
        read_until(terminal, b"armed")
        os.write(terminal, b"\x03")
        read_until(terminal, b"interrupted")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    finally:
        os.close(terminal)
