"""Keys and values, with Consul's session locks on keys.

`modify_index` rises only when value, flags or session change: an identical put wakes nobody. `version` rises with every
acknowledged change, identical or not, so that writes can be counted. As in Consul, a put that is no lock operation keeps
the key's session and sets `lock_index` to 0, and a delete asks for no session.
"""

from coordd.messages.command import Done, Fence, KvDelete, KvDeleteTree, KvPut
from coordd.state.limits import Refused, lock_delay_end
from coordd.state.rows import Rows
from coordd.state.schema import KvDelayRow, KvRow, SessionRow, TopicRow
from coordd.state.topics import KV, prefix_range

__all__ = ["delete", "delete_tree", "drop_due_delays", "next_delay", "put", "release_session", "unsigned"]

_MAX_FLAGS = (1 << 64) - 1
_SIGN = 1 << 63


def unsigned(stored: int) -> int:
    """Flags as the message has them, from SQLite's signed integer."""
    return stored & _MAX_FLAGS


def put(rows: Rows, command: KvPut) -> Done:
    key = command.key
    if not key or "\0" in key or len(key.encode()) > rows.limits.key_bytes:
        raise Refused("invalid", f"a key has 1 to {rows.limits.key_bytes} bytes and no NUL")
    if len(command.value) > rows.limits.value_bytes:
        raise Refused("invalid", f"a value has at most {rows.limits.value_bytes} bytes")
    if not 0 <= command.flags <= _MAX_FLAGS:
        raise Refused("invalid", "flags must be an unsigned 64-bit integer")
    _check_fence(rows, command.fence)
    old = rows.kv.get(key)
    if command.cas is None and command.acquire is None and command.release is None:
        session, lock_index = (old.session if old else ""), 0
    else:
        terms = _lock_terms(rows, command, old)
        if terms is None:
            return Done(rows.index, ok=False)
        session, lock_index = terms
    return Done(rows.index, version=_write(rows, command, old, session, lock_index))


def _write(rows: Rows, command: KvPut, old: KvRow | None, session: str, lock_index: int) -> int:
    """Write the row; returns the key's new version."""
    index = rows.index
    flags = command.flags if command.flags < _SIGN else command.flags - (1 << 64)
    key, value = command.key, command.value
    if old is None:
        rows.topics.delete(KV, key)  # the tombstone, if any: the new life's index is higher
        rows.kv.put(KvRow(key, flags, index, index, lock_index, 1, session, value))
        rows.changes.add((KV, key))
        return 1
    version = old.version + 1
    same = (flags, lock_index, session, value) == (old.flags, old.lock_index, old.session, old.value)
    if not same:
        rows.changes.add((KV, key))
    modified = old.modify_index if same else index
    rows.kv.put(KvRow(key, flags, old.create_index, modified, lock_index, version, session, value))
    return version


def _lock_terms(rows: Rows, command: KvPut, old: KvRow | None) -> tuple[str, int] | None:
    """Session and lock index that a conditional put leaves; None if its condition does not hold."""
    given = [condition for condition in (command.cas, command.acquire, command.release) if condition is not None]
    if len(given) > 1:
        raise Refused("invalid", "conflicting conditions: give at most one of cas, acquire and release")
    holder, lock_index = (old.session, old.lock_index) if old else ("", 0)
    if command.cas is not None:
        return (holder, 0) if command.cas == (old.modify_index if old else 0) else None
    if not given[0]:
        raise Refused("invalid", "missing session")
    if command.release is not None:
        return ("", lock_index) if holder == command.release else None
    return _acquire(rows, command, holder, lock_index)


def _acquire(rows: Rows, command: KvPut, holder: str, lock_index: int) -> tuple[str, int] | None:
    session = command.acquire or ""
    if rows.sessions.get(session) is None:
        raise Refused("invalid", f"invalid session {session[:64]!a}")
    if holder:
        return (session, lock_index) if holder == session else None
    delay = rows.kv_delays.get(command.key)
    if delay is not None and delay.delayed_until > rows.now:
        return None
    held = rows.kv.scalar("count(*)", "WHERE session <> '' AND session = ?", (session,))
    if held >= rows.limits.held_by_one_session:
        raise Refused("busy", f"session {session[:64]} holds {held} keys already; release some first")
    return session, lock_index + 1


def delete(rows: Rows, command: KvDelete) -> Done:
    _check_fence(rows, command.fence)
    old = rows.kv.get(command.key)
    if old is None:
        return Done(rows.index)
    if command.cas is not None and command.cas != old.modify_index:
        return Done(rows.index, ok=False)
    _remove(rows, command.key)
    return Done(rows.index)


def delete_tree(rows: Rows, command: KvDeleteTree) -> Done:
    limit = rows.limits.rows_for_one_command
    where, bounds = prefix_range("key", command.prefix)
    if rows.kv.scalar("count(*)", f"WHERE {where}", bounds) > limit:
        raise Refused("invalid", f"more than {limit} keys begin so; delete them in smaller parts")
    for key in rows.kv.column("key", f"WHERE {where} ORDER BY key", bounds):
        _remove(rows, str(key))
    return Done(rows.index)


def _remove(rows: Rows, key: str) -> None:
    rows.kv.delete(key)
    rows.topics.put(TopicRow(KV, key, rows.index))
    rows.changes.add((KV, key))


def release_session(rows: Rows, session: SessionRow) -> None:
    """The session has ended: its keys are released or deleted, and can't be locked before the lock delay is over."""
    held = rows.kv.select("WHERE session <> '' AND session = ? ORDER BY key", (session.id,))
    until = lock_delay_end(rows.now, session.lock_delay_ms)
    for row in held:
        if until:
            rows.kv_delays.put(KvDelayRow(row.key, until))
            rows.due(until)
        if session.behavior == "delete":
            _remove(rows, row.key)
        else:
            rows.kv.put(row._replace(session="", modify_index=rows.index, version=row.version + 1))
            rows.changes.add((KV, row.key))


def drop_due_delays(rows: Rows) -> None:
    """Forget lock delays that are over, a bounded number at a time: they have no effect any more."""
    limit = rows.limits.rows_for_one_command
    for row in rows.kv_delays.select("WHERE delayed_until <= ? ORDER BY delayed_until, key LIMIT ?", (rows.now, limit)):
        rows.kv_delays.delete(row.key)


def next_delay(rows: Rows) -> int:
    """When the next lock delay of a key is over; 0: there is none."""
    return rows.kv_delays.scalar("min(delayed_until)")


def _check_fence(rows: Rows, fence: Fence | None) -> None:
    if fence is None:
        return
    lock = rows.locks.get(fence.lock)
    if lock is None or not lock.holder or lock.token != fence.token:
        raise Refused(
            "conflict", f"lock {fence.lock[:64]!a} is not held under token {fence.token}: nothing was written"
        )
