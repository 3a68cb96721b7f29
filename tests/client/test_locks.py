"""Locks: the guard's arithmetic with a clock that the test turns, the steps, and both Lock classes on a scripted server."""

import asyncio
import time

import pytest

from coordd.client import Client, locks
from coordd.client.aio import AsyncClient
from coordd.client.locks import Guard, Hold, LockSettings, Steps
from coordd.errors import ConflictError, InvalidError, LockLostError, TimedOutError
from coordd.messages.client import Error, Read, ReadResult, Renewed, RenewSession, ReplyBody, Request, Write, Written
from coordd.messages.command import (
    CreateSession,
    DestroySession,
    Done,
    LockAcquire,
    LockCancel,
    LockGrant,
    LockRelease,
    command_decoder,
)
from coordd.messages.query import ListLocks, LockInfo, Locks, LockWaiter
from tests.client.fake_server import command_of, fake_server
from tests.client.support import until
from tests.transport.support import wait_until

TTL = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now


# --- the guard ----------------------------------------------------------------------------------------------------------


def test_the_lock_counts_as_lost_before_the_ttl_of_the_last_renewal_sent() -> None:
    clock = Clock()
    guard = Guard(TTL, clock)
    sent_at = clock.now + 3
    clock.now += 7  # the answer took four seconds: they are not ours
    guard.renewed(sent_at)
    clock.now = sent_at + TTL - guard.margin - 0.01
    before = guard.lost
    clock.now += 0.02
    assert (before, guard.lost) == (False, True)
    assert clock.now < sent_at + TTL


@pytest.mark.parametrize("ttl", [1.0, 2.0, 15.0, 60.0, 86400.0])
def test_there_is_a_margin_for_every_ttl(ttl: float) -> None:
    clock = Clock()
    guard = Guard(ttl, clock)
    assert 0.1 <= guard.margin <= 2.0
    assert guard.safe_until <= clock.now + ttl - 0.1
    assert guard.until_renewal == pytest.approx(ttl / 3)


def test_once_lost_is_lost() -> None:
    clock = Clock()
    guard = Guard(TTL, clock)
    clock.now += TTL
    assert guard.lost
    guard.renewed(clock.now)
    assert guard.lost
    assert guard.left == 0
    refused = Guard(TTL, clock)
    refused.lose()
    assert refused.lost


def test_an_older_renewal_does_not_shorten_the_time() -> None:
    clock = Clock()
    guard = Guard(TTL, clock)
    clock.now += 5
    guard.renewed(clock.now)
    safe_until = guard.safe_until
    guard.renewed(clock.now - 2)
    assert guard.safe_until == safe_until


def test_check_looks_at_the_clock() -> None:
    clock = Clock()
    hold = Hold(LockSettings("job", ttl=TTL), Guard(TTL, clock), "s1", token=9)
    hold.check()
    clock.now += TTL  # the process was stopped: no thread has noticed anything
    with pytest.raises(LockLostError, match="job"):
        hold.check()
    with pytest.raises(LockLostError):
        Hold(LockSettings("job"), Guard(TTL, clock), "s1", token=0).check()


@pytest.mark.parametrize("settings", [{"ttl": 0.9}, {"wait": -1.0}])
def test_settings_that_can_not_work_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidError, match="job"):
        LockSettings("job", **settings)  # type: ignore[arg-type]


# --- the steps --------------------------------------------------------------------------------------------------------------


def asked(steps: Steps[None], answer: object = None) -> object:
    """The next request of the procedure: a command, or the body of a read."""
    ask = next(steps) if answer is None else steps.send(answer)
    return command_decoder.decode(ask.body.command) if isinstance(ask.body, Write) else ask.body


def locked(index: int, holder: str, token: int = 0, waiters: tuple[str, ...] = ()) -> ReadResult:
    rows = tuple(LockWaiter(session, 0) for session in waiters)
    return ReadResult(index, Locks((LockInfo("job", holder, token, rows, 0),)))


def waiting(wait: float | None) -> tuple[Clock, Hold, Steps[None]]:
    clock = Clock()
    hold = Hold(LockSettings("job", ttl=TTL, wait=wait), Guard(TTL, clock), "mine")
    return clock, hold, locks.acquire(hold, clock)


def test_a_free_lock_is_granted_at_once() -> None:
    _, hold, steps = waiting(wait=0)
    assert asked(steps) == LockAcquire("job", "mine", 0)
    with pytest.raises(StopIteration):
        steps.send(LockGrant(5, token=5, holder="mine"))
    assert hold.token == 5


def test_without_waiting_a_held_lock_is_a_conflict() -> None:
    _, hold, steps = waiting(wait=0)
    asked(steps)
    with pytest.raises(ConflictError, match="other"):
        steps.send(LockGrant(5, holder="other"))
    assert not hold.token


def test_a_waiter_sees_its_grant_in_the_list() -> None:
    _, hold, steps = waiting(wait=60)
    assert asked(steps) == LockAcquire("job", "mine", 60_000)
    assert asked(steps, LockGrant(5, position=1, holder="other")) == Read(ListLocks("job"), index=0, wait_ms=0)
    assert asked(steps, locked(5, "other", 3, ("mine",))) == Read(ListLocks("job"), index=5, wait_ms=30_000)
    with pytest.raises(StopIteration):
        steps.send(locked(8, "mine", 8))
    assert hold.token == 8


def test_a_waiter_stops_at_its_time() -> None:
    clock, hold, steps = waiting(wait=5)
    asked(steps)
    asked(steps, LockGrant(5, position=1, holder="other"))
    clock.now += 5
    with pytest.raises(TimedOutError, match="job"):
        steps.send(locked(5, "other", 3, ("mine",)))
    give_up = locks.give_up(hold)
    assert asked(give_up) == LockCancel("job", "mine")
    assert asked(give_up, Done(9)) == DestroySession("mine")


def test_a_waiter_notices_that_its_place_or_its_session_is_gone() -> None:
    _, _, steps = waiting(wait=None)
    asked(steps)
    asked(steps, LockGrant(5, position=1, holder="other"))
    with pytest.raises(TimedOutError, match="place"):
        steps.send(locked(6, "other", 3, ()))
    clock, _, steps = waiting(wait=None)
    asked(steps)
    asked(steps, LockGrant(5, position=1, holder="other"))
    clock.now += TTL
    with pytest.raises(LockLostError):
        steps.send(locked(6, "other", 3, ("mine",)))


# --- on a scripted server -------------------------------------------------------------------------------------------------


class LockServer:
    """One lock, granted to everybody with the index of the request, and sessions whose renewals the test can refuse."""

    def __init__(self) -> None:
        self.renew = True
        self.granted = True
        self.renewals = 0
        self.waiter = ""
        self.commands: list[object] = []

    def __call__(self, request: Request) -> ReplyBody | None:
        match request.body:
            case RenewSession():
                self.renewals += 1
                return Renewed(1000) if self.renew else None
            case Read(index=0):
                return locked(5, "other", 3, (self.waiter,))
            case Read():
                return None
        command = command_of(request)
        self.commands.append(command)
        index = len(self.commands)
        if isinstance(command, LockAcquire):
            self.waiter = command.session
            return Written(LockGrant(index, token=index if self.granted else 0, holder=command.session))
        return Written(Done(index))


def kinds(server: LockServer) -> list[type]:
    return [type(command) for command in server.commands][1:]


def test_a_lock_is_taken_renewed_and_given_back() -> None:
    script = LockServer()
    with fake_server(script) as server, Client([server.target]) as client:
        with client.lock("job", ttl=1.0, node="h1") as lock:
            assert lock.token
            lock.check()
            wait_until(lambda: script.renewals >= 2)
            assert 0 < lock.left <= 1.0
        assert kinds(script) == [CreateSession, LockAcquire, LockRelease, DestroySession]
        session = script.commands[1]
        assert isinstance(session, CreateSession)
        assert (session.node, session.ttl_ms, session.node_checks) == ("h1", 1000, ())
        assert not lock.lost.is_set()
        assert not lock.token


def test_the_holder_learns_of_the_loss_before_the_ttl() -> None:
    script = LockServer()
    told: list[float] = []
    with fake_server(script) as server, Client([server.target]) as client:
        script.renew = False
        began = time.monotonic()
        lock = client.lock("job", ttl=2.0, on_lost=lambda: told.append(0))
        with pytest.raises(LockLostError), lock:
            assert lock.lost.wait(10)
        # Nothing was renewed, so the servers' TTL runs out two seconds after this moment or later.
        assert time.monotonic() - began < 2.0
        with pytest.raises(LockLostError):
            lock.check()
        assert told


def test_the_time_that_an_answer_takes_is_not_ours() -> None:
    script = LockServer()
    heard: list[float] = []

    def slow_renewal(request: Request) -> ReplyBody | None:
        if not isinstance(request.body, RenewSession):
            return script(request)
        if heard:
            return None
        heard.append(time.monotonic())
        time.sleep(0.6)
        return Renewed(2000)

    with fake_server(slow_renewal) as server, Client([server.target]) as client:
        lock = client.lock("job", ttl=2.0)
        lock.acquire()
        assert lock.lost.wait(10)
        assert time.monotonic() - heard[0] < 2.0
        lock.release()


def test_a_session_that_is_gone_is_a_loss_at_once() -> None:
    script = LockServer()
    with fake_server(script) as server, Client([server.target]) as client:
        server.answer = lambda request: (
            Error("not-found", "gone") if isinstance(request.body, RenewSession) else script(request)
        )
        began = time.monotonic()
        lock = client.lock("job", ttl=6.0)
        with pytest.raises(LockLostError), lock:
            assert lock.lost.wait(10)
        assert time.monotonic() - began < 5.0


def test_who_does_not_get_the_lock_leaves_nothing_behind() -> None:
    script = LockServer()
    script.granted = False
    with fake_server(script) as server, Client([server.target]) as client:
        with pytest.raises(ConflictError), client.lock("job", wait=0):
            pass
        assert kinds(script) == [CreateSession, LockAcquire, LockCancel, DestroySession]


def test_the_error_of_the_work_is_not_hidden() -> None:
    with fake_server(LockServer()) as server, Client([server.target]) as client:
        with pytest.raises(ZeroDivisionError), client.lock("job"):
            raise ZeroDivisionError
        lock = client.lock("job")
        with pytest.raises(LockLostError, match="not taken"):
            lock.check()


@pytest.mark.asyncio
async def test_an_async_lock_is_taken_renewed_and_given_back() -> None:
    script = LockServer()
    with fake_server(script) as server:
        async with AsyncClient([server.target]) as client:
            async with client.lock("job", ttl=1.0) as lock:
                assert lock.token
                lock.check()
                await until(lambda: script.renewals >= 2)
            assert kinds(script) == [CreateSession, LockAcquire, LockRelease, DestroySession]


@pytest.mark.asyncio
async def test_an_async_holder_learns_of_the_loss_before_the_ttl() -> None:
    script = LockServer()
    with fake_server(script) as server:
        async with AsyncClient([server.target]) as client:
            script.renew = False
            began = time.monotonic()
            lock = client.lock("job", ttl=2.0)
            await lock.acquire()
            await asyncio.wait_for(lock.lost.wait(), 10)
            assert time.monotonic() - began < 2.0
            with pytest.raises(LockLostError):
                lock.check()
            with pytest.raises(LockLostError, match="before the work was done"):
                await lock.__aexit__(None, None, None)


@pytest.mark.asyncio
async def test_an_async_waiter_that_is_cancelled_leaves_nothing_behind() -> None:
    script = LockServer()
    script.granted = False
    with fake_server(script) as server:
        async with AsyncClient([server.target]) as client:
            lock = client.lock("job", wait=60)
            task = asyncio.get_running_loop().create_task(lock.acquire())
            await until(lambda: LockAcquire in kinds(script))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert kinds(script) == [CreateSession, LockAcquire, LockCancel, DestroySession]
