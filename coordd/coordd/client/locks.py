"""Locks for applications: the steps that take and give back one, and the clock that says when it may be gone. Pure.

A lock is held by a session with a TTL. The servers count the TTL from the moment they hear a renewal; the holder counts
it from before it *sent* that renewal, and gives up a margin earlier. So whatever the network does, the holder knows
that the lock may be lost before anybody else can have it, as long as its clock runs at about the right rate. A process
that was stopped learns it from `check`, which looks at the clock and not at a message.
"""

import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from coordd.client import asks
from coordd.client.asks import Ask
from coordd.errors import InvalidError, LockLostError, RequestError, TimedOutError
from coordd.messages.command import CreateSession, DestroySession, LockAcquire, LockCancel, LockGrant, LockRelease
from coordd.messages.query import ListLocks, Locks
from coordd.types import Index

__all__ = [
    "MIN_TTL_SECONDS",
    "Guard",
    "Hold",
    "LockSettings",
    "Steps",
    "acquire",
    "create",
    "give_up",
    "new_hold",
    "release",
]

MIN_TTL_SECONDS = 1.0
"""The least that the servers accept for a session."""
_FOR_EVER_MS = 10 * 365 * 86_400_000
_LONGEST_READ_SECONDS = 30.0

T = TypeVar("T")
Steps: TypeAlias = Generator[Ask[Any], Any, T]
"""A procedure without I/O: it yields what to ask and is sent the result, or the error is thrown in. A shell drives
it."""


@dataclass(frozen=True)
class LockSettings:
    """Seconds. `wait` None: until it is granted; 0: not at all. `lock_delay`: how long nobody gets it after a loss."""

    name: str
    ttl: float = 15.0
    wait: float | None = None
    lock_delay: float = 0.0
    node: str = ""

    def __post_init__(self) -> None:
        if self.ttl < MIN_TTL_SECONDS:
            raise InvalidError(f"lock {self.name!r}: a TTL of {self.ttl} s is below the least, {MIN_TTL_SECONDS} s")
        if self.wait is not None and self.wait < 0:
            raise InvalidError(f"lock {self.name!r}: wait must not be negative")


class Guard:
    """Knows by our own clock until when the session surely lives. Thread-safe: each field is written whole."""

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ttl = ttl
        self._renewed_at = clock()
        self._lost = False

    @property
    def margin(self) -> float:
        """For clocks that run at different rates, and for the time it takes to stop the work."""
        return min(max(0.15 * self._ttl, 0.1), 2.0)

    @property
    def safe_until(self) -> float:
        return self._renewed_at + self._ttl - self.margin

    @property
    def lost(self) -> bool:
        self._lost = self._lost or self._clock() >= self.safe_until
        return self._lost

    @property
    def left(self) -> float:
        """Seconds for which the lock is surely ours."""
        return 0.0 if self.lost else self.safe_until - self._clock()

    @property
    def until_renewal(self) -> float:
        """Seconds until the next renewal is to be sent: a third of the TTL after the last one was."""
        return max(0.0, self._renewed_at + self._ttl / 3 - self._clock())

    def renewed(self, sent_at: float) -> None:
        """A renewal sent then was granted. Once lost is lost: the work may have been stopped meanwhile."""
        if not self.lost:
            self._renewed_at = max(self._renewed_at, sent_at)

    def lose(self) -> None:
        self._lost = True


@dataclass
class Hold:
    """One attempt to take a lock, from the session on."""

    settings: LockSettings
    guard: Guard
    session: str
    token: Index = 0
    """Fencing token; 0 while not held."""

    def check(self) -> None:
        """Raises: LockLostError unless the lock is surely held now."""
        if not self.token or self.guard.lost:
            raise LockLostError(f"lock {self.settings.name!r} is no longer surely held: stop what depends on it")


def new_hold(settings: LockSettings, clock: Callable[[], float]) -> Hold:
    """The guard's time starts here, before anything is sent."""
    return Hold(settings, Guard(settings.ttl, clock), str(uuid.uuid4()))


def create(hold: Hold, clock: Callable[[], float]) -> Steps[None]:
    """Create the session; after that it must be renewed."""
    of = hold.settings
    sent_at = clock()
    command = CreateSession(
        hold.session,
        of.node,
        f"lock {of.name}",
        int(of.ttl * 1000),
        int(of.lock_delay * 1000),
        node_checks=(),
    )
    yield asks.write(command)
    hold.guard.renewed(sent_at)


def acquire(hold: Hold, clock: Callable[[], float]) -> Steps[None]:
    """Queue and wait. On return `hold.token` is the grant's.

    Raises: ConflictError if it is not to wait and the lock is not free; TimedOutError if it waited in vain;
    LockLostError if the session may have ended meanwhile.
    """
    of = hold.settings
    deadline = None if of.wait is None else clock() + of.wait
    # The replicated deadline only clears up behind a waiter that vanished: one that waits for ever renews its session.
    wait_ms = _FOR_EVER_MS if of.wait is None else int(of.wait * 1000)
    grant = yield asks.write(LockAcquire(of.name, hold.session, wait_ms))
    grant = asks.expect(grant, LockGrant)
    if not grant.token and wait_ms == 0:
        raise asks.unheld(of.name, grant.holder)
    hold.token = grant.token
    index = 0
    while not hold.token:
        left = _LONGEST_READ_SECONDS if deadline is None else min(_LONGEST_READ_SECONDS, deadline - clock())
        if hold.guard.lost:
            raise LockLostError(f"lock {of.name!r}: the session may have ended while it waited")
        if left <= 0:
            raise TimedOutError(f"lock {of.name!r} was not granted within {of.wait} s")
        answer = yield asks.read(ListLocks(of.name), index=index, wait=left if index else 0.0)
        index = answer.index
        lock = next(iter(asks.expect(answer.value, Locks).locks), None)
        if lock is not None and lock.holder == hold.session:
            hold.token = lock.token
        elif lock is None or all(each.session != hold.session for each in lock.waiters):
            raise TimedOutError(f"lock {of.name!r}: the place in the queue was lost before the lock was granted")


def release(hold: Hold) -> Steps[None]:
    """Give the lock back, then end the session. Errors of the first do not hinder the second, which frees it too."""
    failed: RequestError | None = None
    if hold.token:
        try:
            yield asks.write(LockRelease(hold.settings.name, hold.token))
        except RequestError as error:
            failed = error
    hold.token = 0
    yield asks.write(DestroySession(hold.session))
    if failed is not None:
        raise failed


def give_up(hold: Hold) -> Steps[None]:
    """Leave the queue, also if the lock was granted meanwhile; then end the session."""
    yield asks.write(LockCancel(hold.settings.name, hold.session))
    yield asks.write(DestroySession(hold.session))
