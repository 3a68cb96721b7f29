"""Exclusive locks with a first-come queue and fencing tokens.

A grant's token is the index of the entry that made it, so tokens rise strictly, also over deletion and re-creation of a
lock, and one lock is granted at most once in an entry. A session that ends on its own account leaves the lock delayed;
a clean release does not. Whatever the passing of time allows (a delay is over, a waiter's deadline has passed) happens in
the next command of any kind, before it is run: its header carries the time.
"""

from coordd.messages.command import Done, LockAcquire, LockCancel, LockGrant, LockRelease
from coordd.state import kv
from coordd.state.limits import Refused, check_name, later, lock_delay_end
from coordd.state.rows import NEVER, Rows
from coordd.state.schema import LockRow, SessionRow, WaiterRow
from coordd.types import Index

__all__ = [
    "acquire",
    "cancel",
    "first_due",
    "next_due",
    "note_due",
    "release",
    "release_session",
    "settle",
    "waiters",
]

_EXCLUSIVE = "exclusive"


def acquire(rows: Rows, command: LockAcquire) -> LockGrant:
    name, session = command.name, command.session
    check_name("lock name", name)
    if command.wait_ms < 0:
        raise Refused("invalid", "wait must not be negative")
    if rows.sessions.get(session) is None:
        raise Refused("invalid", f"invalid session {session[:64]!a}")
    _settle_one(rows, name)  # the passing of time may have freed it just now
    lock = rows.locks.get(name)
    if lock is None:
        _check_held(rows, session)
        lock = _grant(rows, name, session)
    if lock.holder == session:
        return LockGrant(rows.index, token=lock.token, holder=session)
    waiter = _waiting(rows, name, session)
    if command.wait_ms == 0:
        if waiter is not None:
            _leave(rows, waiter)
        return LockGrant(rows.index, holder=lock.holder)
    sequence = _queue(rows, command, waiter)
    ahead = rows.lock_waiters.scalar("count(*)", "WHERE name = ? AND sequence < ?", (name, sequence))
    return LockGrant(rows.index, position=ahead + 1, holder=lock.holder)


def _queue(rows: Rows, command: LockAcquire, waiter: WaiterRow | None) -> Index:
    """Put the session into the queue, or move its deadline if it waits already; returns its place in the order."""
    deadline = later(rows.now, command.wait_ms)
    if waiter is None:
        limit = rows.limits.waiters_for_one_lock
        if rows.lock_waiters.scalar("count(*)", "WHERE name = ?", (command.name,)) >= limit:
            raise Refused("busy", f"{limit} sessions wait for this lock already; try again later")
        _check_held(rows, command.session)
        waiter = WaiterRow(command.name, rows.index, command.session, deadline)
    rows.lock_waiters.put(waiter._replace(deadline=deadline))
    rows.due(deadline)
    _touch(rows, command.name)
    return waiter.sequence


def release(rows: Rows, command: LockRelease) -> Done:
    lock = rows.locks.get(command.name)
    if lock is None or not lock.holder or lock.token != command.token:
        return Done(rows.index, ok=False)
    _free(rows, lock, delayed_until=0)
    return Done(rows.index)


def cancel(rows: Rows, command: LockCancel) -> Done:
    lock = rows.locks.get(command.name)
    if lock is not None and lock.holder and lock.holder == command.session:
        _free(rows, lock, delayed_until=0)
        return Done(rows.index)
    if (waiter := _waiting(rows, command.name, command.session)) is not None:
        _leave(rows, waiter)
        return Done(rows.index)
    return Done(rows.index, ok=False)


def release_session(rows: Rows, session: SessionRow) -> None:
    """The session has ended: it leaves all queues, and its locks are free once the lock delay is over."""
    for waiter in rows.lock_waiters.select("WHERE session = ? ORDER BY name", (session.id,)):
        _leave(rows, waiter)
    until = lock_delay_end(rows.now, session.lock_delay_ms)
    for lock in rows.locks.select("WHERE holder <> '' AND holder = ? ORDER BY name", (session.id,)):
        _free(rows, lock, until)


def note_due(rows: Rows) -> None:
    """Take out waiters whose deadline has passed, and mark the locks whose delay is over, a bounded number at a time."""
    limit = rows.limits.rows_for_one_command
    for waiter in rows.lock_waiters.select(
        "WHERE deadline <= ? ORDER BY deadline, name, sequence LIMIT ?", (rows.now, limit)
    ):
        _leave(rows, waiter)
    for lock in rows.locks.select(
        "WHERE delayed_until > 0 AND delayed_until <= ? ORDER BY delayed_until, name LIMIT ?", (rows.now, limit)
    ):
        rows.locks.put(lock._replace(delayed_until=0))
        _touch(rows, lock.name)
        rows.unsettled.add(lock.name)
    kv.drop_due_delays(rows)
    rows.next_due = first_due(rows)


def settle(rows: Rows) -> None:
    """Grant every lock that became free in this command to its first waiter; forget those that nobody wants."""
    for name in sorted(rows.unsettled):
        _settle_one(rows, name)
    rows.unsettled.clear()


def first_due(rows: Rows) -> int:
    """When the next thing happens by the passing of state time; NEVER if nothing waits."""
    return min((time for time in (next_due(rows), kv.next_delay(rows)) if time), default=NEVER)


def next_due(rows: Rows) -> int | None:
    """When the next lock delay or waiter's deadline is over."""
    delay = rows.locks.scalar("min(delayed_until)", "WHERE delayed_until > 0")
    deadline = rows.lock_waiters.scalar("min(deadline)")
    return min((time for time in (delay, deadline) if time), default=None)


def waiters(rows: Rows, name: str) -> list[WaiterRow]:
    """The queue, first come first."""
    return rows.lock_waiters.select("WHERE name = ? ORDER BY sequence", (name,))


def _settle_one(rows: Rows, name: str) -> None:
    lock = rows.locks.get(name)
    if lock is None or lock.holder or lock.delayed_until > rows.now:
        return
    queue = rows.lock_waiters.select("WHERE name = ? AND deadline > ? ORDER BY sequence LIMIT 1", (name, rows.now))
    if queue:
        rows.lock_waiters.delete(name, queue[0].sequence)
        _grant(rows, name, queue[0].session)
    elif rows.lock_waiters.scalar("count(*)", "WHERE name = ?", (name,)) == 0:
        rows.locks.delete(name)


def _grant(rows: Rows, name: str, session: str) -> LockRow:
    lock = LockRow(name, session, rows.index, _EXCLUSIVE, 0)
    rows.locks.put(lock)
    _touch(rows, name)
    return lock


def _free(rows: Rows, lock: LockRow, delayed_until: int) -> None:
    rows.locks.put(LockRow(lock.name, "", 0, lock.mode, delayed_until))
    if delayed_until:
        rows.due(delayed_until)
    _touch(rows, lock.name)
    rows.unsettled.add(lock.name)


def _leave(rows: Rows, waiter: WaiterRow) -> None:
    rows.lock_waiters.delete(waiter.name, waiter.sequence)
    _touch(rows, waiter.name)
    rows.unsettled.add(waiter.name)


def _waiting(rows: Rows, name: str, session: str) -> WaiterRow | None:
    found = rows.lock_waiters.select("WHERE session = ? AND name = ?", (session, name))
    return found[0] if found else None


def _check_held(rows: Rows, session: str) -> None:
    limit = rows.limits.held_by_one_session
    held = rows.locks.scalar("count(*)", "WHERE holder <> '' AND holder = ?", (session,))
    if held + rows.lock_waiters.scalar("count(*)", "WHERE session = ?", (session,)) >= limit:
        raise Refused("busy", f"this session holds or waits for {limit} locks already; release some first")


def _touch(rows: Rows, name: str) -> None:
    rows.touch("lock", name)
    rows.touch("locks")
