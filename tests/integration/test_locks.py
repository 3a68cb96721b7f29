"""Locks under processes that stand still: neither a stopped leader nor a stopped holder may do harm when it goes on."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coordd.client import Client, Fence
from coordd.errors import ConflictError, LockLostError
from coordd.messages.client import Body, Error, Read, Renewed, RenewSession, ReplyBody, Write, Written
from coordd.messages.command import Command, LockAcquire, LockGrant, encode
from coordd.messages.query import KvGet, KvPairs, ListLocks, Locks
from tests.integration.cluster import FOR_NOW, PATIENCE, ServerCluster, Straight, wait_for

TTL = 2.0
STANDSTILL = 5.0
GOES_WITHOUT = {"not-leader", "no-leader", "busy", "timed-out", "outcome-unknown", "not-found"}
"""What a deposed leader may answer: nothing of it promises anything."""


def write(command: Command) -> Write:
    return Write(msgspec.Raw(encode(command)))


def newest_value(client: Client, key: str, value: bytes) -> None:
    def attempt() -> bool:
        try:
            return client.kv_put(key, value).ok
        except FOR_NOW:
            return False

    wait_for(attempt, f"a put of {key}")


def test_a_stopped_leader_gives_no_stale_value_or_grant_when_it_goes_on(cluster: ServerCluster) -> None:
    with cluster.client() as client, cluster.client() as second:
        newest_value(client, "a", b"old")
        first = client.lock("job", ttl=TTL, wait=PATIENCE)
        first.acquire()
        waiter = second.lock("job", ttl=TTL, wait=PATIENCE)
        leader = cluster.leader()
        with Straight(leader) as straight:
            leader.signal(signal.SIGSTOP)
            stopped_at = time.monotonic()
            try:
                newest_value(client, "a", b"new")  # hence another one leads
                session = first.session
                first.release()
                waiter.acquire()
                assert waiter.token > 0
                early = ask_for_everything(straight, session)
                wait_for(lambda: time.monotonic() >= stopped_at + STANDSTILL, "the standstill's end")
            finally:
                leader.signal(signal.SIGCONT)
            late = [number for _ in range(20) for number in ask_for_everything(straight, session)]
            answers = straight.answers(len(early) + len(late))
        assert len(answers) == len(early) + len(late)
        wrong = [answer for answer in answers.values() if is_stale(answer, waiter.session)]
        assert not wrong
        waiter.check()
        waiter.release()
    cluster.converged()


def ask_for_everything(straight: Straight, session: str) -> list[int]:
    """Requests that an old leader must not answer from what it knows; their numbers."""
    bodies: list[Body] = [
        Read(KvGet("a")),
        Read(KvGet("a"), "consistent"),
        Read(ListLocks("job")),
        RenewSession(session),
        write(LockAcquire("job", session, 0)),
        write(LockAcquire("other", session, 0)),
    ]
    return [straight.send(body) for body in bodies]


def is_stale(answer: ReplyBody, holder: str) -> bool:
    match answer:
        case Error(code=code):
            return code not in GOES_WITHOUT
        case Renewed():
            return True  # the session has ended
        case Written(result=LockGrant()):
            return True  # and can be granted nothing
    value = getattr(answer, "value", None)
    if isinstance(value, KvPairs):
        return [pair.value for pair in value.pairs] != [b"new"]
    if isinstance(value, Locks):
        return [lock.holder for lock in value.locks] != [holder]
    return not isinstance(answer, Written)


@pytest.fixture
def holder(cluster: ServerCluster, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`coordctl lock` with a command that goes on writing under its fence, and keeps a diary of it."""
    script = tmp_path / "work.py"
    script.write_text(WORK)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "coordd_cli.main", "lock", "job", "--ttl", f"{TTL}s", "--"),
            *(sys.executable, str(script), str(tmp_path / "diary")),
        ],
        env=cluster.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()


WORK = """
import os, sys, time
from coordd.client import Client, Fence
from coordd.errors import ConflictError, CoorddError

token = int(os.environ["COORD_LOCK_TOKEN"])
with open(sys.argv[1], "a", buffering=1) as diary, Client.from_environment() as client:
    print("began", os.getpid(), token, file=diary)
    while True:
        try:
            client.kv_put("work", str(token).encode(), fence=Fence("job", token))
        except ConflictError:
            print("refused", file=diary)
        except CoorddError as error:
            print("failed", error, file=diary)
        else:
            print("wrote", file=diary)
        time.sleep(0.05)
"""


def gone(pid: int) -> bool:
    """No such process, or one that has ended and that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_stopped_holder_loses_lock_command_and_writes(
    cluster: ServerCluster, holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    """coordctl stands still, but its command goes on: the fence is what keeps its writes out."""
    diary = tmp_path / "diary"

    def lines() -> list[str]:
        return diary.read_text().splitlines() if diary.exists() else []

    wait_for(lambda: "wrote" in lines(), "the command to write")
    _, pid, token = lines()[0].split()
    with cluster.client() as client:
        waiter = client.lock("job", ttl=TTL, wait=PATIENCE)
        stopped_at = time.monotonic()
        holder.send_signal(signal.SIGSTOP)
        waiter.acquire()
        assert waiter.token > int(token)
        assert client.kv_put("work", b"mine", fence=Fence("job", waiter.token)).ok
        before = len(lines())
        wait_for(lambda: "refused" in lines()[before:], "a write of the old holder to be refused")
        assert "wrote" not in lines()[before + 1 :]
        with pytest.raises(ConflictError):
            client.kv_put("work", b"late", fence=Fence("job", int(token)))
        wait_for(lambda: time.monotonic() >= stopped_at + 2 * TTL, "two TTLs")
        assert not gone(int(pid))
        holder.send_signal(signal.SIGCONT)
        wait_for(lambda: gone(int(pid)), "the old holder's command to be killed")
        assert holder.wait(PATIENCE) == 6
        waiter.check()
        pair = client.kv_get("work")
        assert pair is not None
        assert pair.value == b"mine"
        waiter.release()


def test_a_stopped_program_learns_that_its_lock_is_gone(cluster: ServerCluster) -> None:
    """The library's own answer: `check` looks at the clock, not at a message."""
    with cluster.client() as client, cluster.client() as second:
        newest_value(client, "a", b"1")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=cluster.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            token = int(process.stdout.readline())
            process.send_signal(signal.SIGSTOP)
            with second.lock("job", ttl=TTL, wait=PATIENCE) as lock:
                assert lock.token > token
                process.send_signal(signal.SIGCONT)
                output, _ = process.communicate("go on\n", timeout=PATIENCE)
                lock.check()
            assert output.split() == [LockLostError.__name__, ConflictError.__name__]
        finally:
            process.kill()
            process.communicate()


PROGRAM = f"""
from coordd.client import Client, Fence
from coordd.errors import CoorddError

with Client.from_environment() as client:
    lock = client.lock("job", ttl={TTL})
    lock.acquire()
    print(lock.token, flush=True)
    input()
    for step in (lock.check, lambda: client.kv_put("a", b"2", fence=Fence("job", lock.token))):
        try:
            step()
        except CoorddError as error:
            print(type(error).__name__)
        else:
            print("nothing")
"""
