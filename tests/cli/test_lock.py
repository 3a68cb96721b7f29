"""Locked commands: what they are given, how they end, and that they never outlive their lock."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordd.messages.client import RenewSession
from tests.cli.small_cluster import SmallCluster, coordctl

Environment = dict[str, str]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(server: SmallCluster, environment: Environment) -> Iterator[Start]:
    """Starts coordctl and goes on; what still runs at the end is killed, and its command with it."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "coordd_cli.main", *server.option, "lock", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def gone(pid: int) -> bool:
    """No such process, or a zombie that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def locks(server: SmallCluster, environment: Environment) -> dict[str, str]:
    done = coordctl(*server.option, "lock", "list", "--output", "json", environment=environment)
    return {one["name"]: one["holder"] for one in json.loads(done.stdout)}


def test_the_command_knows_its_token_and_the_lock_is_given_back(server: SmallCluster, environment: Environment) -> None:
    script = "echo $COORD_LOCK_NAME $COORD_LOCK_TOKEN"
    tokens = []
    for _ in range(2):
        done = coordctl(*server.option, "lock", "a", "--wait", "0", "--", "sh", "-c", script, environment=environment)
        assert done.returncode == 0, done.stderr
        name, token = done.stdout.split()
        assert name == "a"
        tokens.append(int(token))
    assert 0 < tokens[0] < tokens[1]
    assert not any(locks(server, environment).values())


@pytest.mark.parametrize(
    ("arguments", "script", "status"),
    [
        ([], "exit 0", 0),
        ([], "exit 7", 1),
        (["--pass-exit"], "exit 7", 7),
        (["--pass-exit"], "kill -TERM $$", 143),
    ],
)
def test_exit_codes(
    server: SmallCluster, environment: Environment, arguments: list[str], script: str, status: int
) -> None:
    done = coordctl(*server.option, "lock", "a", *arguments, "--", "sh", "-c", script, environment=environment)
    assert done.returncode == status, done.stderr


def test_no_such_command(server: SmallCluster, environment: Environment) -> None:
    done = coordctl(*server.option, "lock", "a", "--pass-exit", "--", "/no/such", environment=environment)
    assert (done.returncode, "can't run /no/such: No such file" in done.stderr) == (127, True)


def test_a_lock_may_be_called_list(server: SmallCluster, environment: Environment) -> None:
    done = coordctl(*server.option, "lock", "list", "--", "sh", "-c", "echo $COORD_LOCK_NAME", environment=environment)
    assert done.stdout == "list\n"
    bare = coordctl(*server.option, "lock", "a", environment=environment)
    assert (bare.returncode, "coordctl lock a -- COMMAND" in bare.stderr) == (2, True)


def test_options_of_the_command_are_its_own(server: SmallCluster, environment: Environment) -> None:
    done = coordctl(*server.option, "lock", "a", "--", "echo", "--ttl", "--", "--output", environment=environment)
    assert done.stdout == "--ttl -- --output\n"


def test_waiting_ends(server: SmallCluster, environment: Environment, start: Start) -> None:
    first_line(start("a", "--", "sh", "-c", "echo held; sleep 60"))
    at_once = coordctl(*server.option, "lock", "a", "--wait", "0", "--", "true", environment=environment)
    assert (at_once.returncode, "is held by session" in at_once.stderr) == (1, True)
    late = coordctl(*server.option, "lock", "a", "--wait", "300ms", "--", "true", environment=environment)
    assert (late.returncode, "was not granted" in late.stderr) == (124, True)


def test_the_next_in_the_queue_is_granted(start: Start) -> None:
    first = start("a", "--", "sh", "-c", "echo $COORD_LOCK_TOKEN; sleep 0.5")
    token = int(first_line(first))
    second = start("a", "--wait", "20s", "--", "sh", "-c", "echo $COORD_LOCK_TOKEN")
    assert int(first_line(second)) > token
    assert (first.wait(20), second.wait(20)) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_go_on_to_the_command_and_its_children(start: Start, number: signal.Signals) -> None:
    script = "import signal, sys\nsignal.signal(int(sys.argv[1]), lambda *a: sys.exit(9))\nprint('up', flush=True)\nsignal.pause()"
    in_group = f'{sys.executable} -c "$0" {int(number)}; echo child ended with $?; exit 5'
    command = ["sh", "-c", f"trap : {int(number)}; {in_group}", script]
    process = start("a", "--pass-exit", "--", *command)
    assert first_line(process) == "up"
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (5, "child ended with 9\n"), errors


def test_a_signal_while_waiting_gives_up_the_place(
    server: SmallCluster, environment: Environment, start: Start
) -> None:
    first_line(start("a", "--", "sh", "-c", "echo held; sleep 60"))
    waiter = start("a", "--", "true")

    def waiting() -> int:
        done = coordctl(*server.option, "lock", "list", "--output", "json", environment=environment)
        return int(json.loads(done.stdout)[0]["waiting"])

    wait_for(lambda: waiting() == 1)
    waiter.terminate()
    assert waiter.wait(20) == 128 + signal.SIGTERM
    assert waiting() == 0


def test_the_command_is_ended_before_the_ttl_runs_out(server: SmallCluster, start: Start) -> None:
    script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    process = start("a", "--ttl", "2s", "--", "sh", "-c", script)
    assert first_line(process) == "up"
    wait_for(lambda: any(isinstance(body, RenewSession) for body in server.seen))
    server.hold_replies = True
    silent_since = time.monotonic()
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (6, "asked\n"), errors
    assert "was lost" in errors
    # Nobody answers when the lock is given back, which must not take much longer than the lock could have lived.
    assert time.monotonic() - silent_since < 10


def test_a_deaf_command_is_killed_before_the_ttl_runs_out(server: SmallCluster, start: Start, tmp_path: Path) -> None:
    """It writes the time into a file as long as it lives: no line may be younger than the last renewal plus the TTL."""
    file = tmp_path / "alive"
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "while True:\n"
        "    open(sys.argv[1] + '.new', 'w').write(str(time.monotonic()))\n"
        "    os.replace(sys.argv[1] + '.new', sys.argv[1])\n"
        "    time.sleep(0.01)\n"
    )
    process = start("a", "--ttl", "2s", "--", sys.executable, "-c", program, str(file))
    assert first_line(process) == "up"
    wait_for(lambda: any(isinstance(body, RenewSession) for body in server.seen))
    server.hold_replies = True
    silent_since = time.monotonic()
    assert process.wait(30) == 6
    last_sign = float(file.read_text())
    assert 0.5 < last_sign - silent_since < 2.0


def test_a_session_that_is_destroyed_ends_the_command(
    server: SmallCluster, environment: Environment, start: Start
) -> None:
    process = start("a", "--ttl", "3s", "--", "sh", "-c", "echo $$; exec sleep 60")
    pid = int(first_line(process))
    session = locks(server, environment)["a"]
    assert coordctl(*server.option, "session", "destroy", session, environment=environment).returncode == 0
    assert process.wait(20) == 6
    assert gone(pid)


def test_a_holder_that_was_stopped_ends_its_command_when_it_wakes(
    server: SmallCluster, environment: Environment, start: Start
) -> None:
    process = start("a", "--ttl", "1s", "--", "sh", "-c", "echo $$; exec sleep 60")
    pid = int(first_line(process))
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: not locks(server, environment).get("a"))
    os.kill(process.pid, signal.SIGCONT)
    wait_for(lambda: gone(pid), 5.0)
    assert process.wait(20) == 6


def test_a_killed_holder_takes_its_command_with_it(start: Start) -> None:
    process = start("a", "--", "sh", "-c", "sleep 60 & echo $! $$; wait")
    pids = [int(pid) for pid in first_line(process).split()]
    process.kill()
    wait_for(lambda: all(map(gone, pids)), 5.0)
