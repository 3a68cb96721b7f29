"""Child processes of dev and demo: their settings, their ports, and that they end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from coordd_cli.processes import Daemon, ProcessError, clean_environment, free_ports, toml_lines, wait_for

READY = 'import sys, time; print(\'{"event": "ready"}\', file=sys.stderr, flush=True); time.sleep(60)'


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_settings_survive_the_way_through_toml() -> None:
    values = {
        "text": 'quote " backslash \\ newline \n ü',
        "number": 3,
        "yes": True,
        "list": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
        "table": {"ratio": 0.5},
    }
    assert tomllib.loads("\n".join(toml_lines({**values, "path": Path("/x y")}))) == {**values, "path": "/x y"}


def test_preferred_ports_are_taken_where_they_are_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        (free,) = free_ports(1)
        assert free_ports(3, [busy, free])[0] == free
        assert busy not in free_ports(3, [busy])
    assert len(set(free_ports(20))) == 20


def test_the_users_settings_do_not_reach_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORD_AGENT", "/somewhere")
    assert "COORD_AGENT" not in clean_environment(tmp_path)


def test_waiting_for_readiness_and_ending(tmp_path: Path) -> None:
    daemon = Daemon.start("d", python(READY), tmp_path / "d.log", os.environ)
    daemon.wait_ready(30)
    assert daemon.alive
    assert daemon.end() == -signal.SIGTERM
    again = Daemon.start("d", python("import time; time.sleep(60)"), tmp_path / "d.log", os.environ)
    with pytest.raises(ProcessError, match=r"becoming ready did not happen within 0\.1 s"):
        again.wait_ready(0.1)  # the line of the first run does not count
    again.kill()


def test_the_last_words_of_one_that_ends_early(tmp_path: Path) -> None:
    daemon = Daemon.start("d", python("import sys; sys.exit('no such port')"), tmp_path / "d.log", os.environ)
    with pytest.raises(ProcessError, match=r"d ended with 1\nno such port"):
        daemon.wait_ready(30)


def test_one_that_will_not_end_is_killed(tmp_path: Path) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}"
    daemon = Daemon.start("d", python(deaf), tmp_path / "d.log", os.environ)
    daemon.wait_ready(30)
    assert daemon.end(0.1) == -signal.SIGKILL


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    """Only the guarded one: of the other the demo's --keep lives."""
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from coordd_cli.processes import Daemon\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "log = Path(sys.argv[1])\n"
        "both = [Daemon.start('d', command, log, os.environ, guarded=guarded) for guarded in (True, False)]\n"
        "print(*(one.process.pid for one in both), flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([*python(script), str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    guarded, kept = map(int, parent.stdout.readline().split())

    def runs_python(pid: int) -> bool:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2] == [b"-c"]

    wait_for("the guard becoming the command", lambda: runs_python(guarded), 20)
    parent.kill()
    parent.communicate()

    def gone(pid: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    wait_for("the death of the guarded one", lambda: gone(guarded), 10)
    assert not gone(kept)
    os.kill(kept, signal.SIGKILL)


def test_waiting_has_an_end() -> None:
    started = time.monotonic()
    with pytest.raises(ProcessError, match=r"the moon did not happen within 0\.05 s"):
        wait_for("the moon", lambda: None, 0.05)
    assert time.monotonic() - started < 5
