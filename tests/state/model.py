"""What keys, locks and numbered writes are supposed to do, said as plainly as possible: dicts and lists, no SQL.

Results are tuples: ("done", index, ok, version), ("grant", token, position, holder), ("failure", code).
"""

from dataclasses import dataclass, field, replace
from typing import Any

from coordd.messages.command import (
    Command,
    CreateSession,
    DestroySession,
    Done,
    Failure,
    KvDelete,
    KvDeleteTree,
    KvPut,
    LockAcquire,
    LockCancel,
    LockGrant,
    LockRelease,
)

Result = tuple[Any, ...]
MODELLED = (
    KvPut,
    KvDelete,
    KvDeleteTree,
    CreateSession,
    DestroySession,
    LockAcquire,
    LockRelease,
    LockCancel,
)
"""Commands that the model knows."""
MS = 1_000_000


def plain(result: Any) -> Result:
    """A result without its words."""
    match result:
        case Done(index, ok, version):
            return ("done", index, ok, version)
        case LockGrant(_, token, position, holder):
            return ("grant", token, position, holder)
        case Failure(_, code, _):
            return ("failure", code)
    raise AssertionError(result)


@dataclass
class Pair:
    value: bytes
    flags: int
    created: int
    modified: int
    lock_index: int
    version: int
    session: str

    def shown(self) -> tuple[Any, ...]:
        return (self.value, self.flags, self.modified, self.lock_index, self.version, self.session)


@dataclass
class Lock:
    holder: str = ""
    token: int = 0
    delayed_until: int = 0
    queue: list[tuple[str, int]] = field(default_factory=list)
    """(session, deadline)"""


class Model:
    def __init__(self) -> None:
        self.pairs: dict[str, Pair] = {}
        self.locks: dict[str, Lock] = {}
        self.sessions: dict[str, CreateSession] = {}
        self.key_delays: dict[str, int] = {}
        self.clients: dict[int, dict[int, Result]] = {}
        self.lowest: dict[int, int] = {}
        self.index = self.now = 0

    def apply(self, index: int, now: int, command: Command, client: int, number: int, lowest: int) -> Result:
        self.index, self.now = index, now
        self.let_time_pass()
        if client:
            known = self.known(client, number, lowest)
            if known is not None:
                self.grant_all()
                return known
        result = self.run(command)
        self.grant_all()
        if client:
            self.clients[client][number] = result
        return result

    def known(self, client: int, number: int, lowest: int) -> Result | None:
        if client not in self.clients:
            return ("failure", "unknown-client")
        if not 1 <= lowest <= number:
            return ("failure", "invalid")
        self.lowest[client] = max(lowest, self.lowest.get(client, 1))
        if number < self.lowest[client]:
            return ("failure", "invalid")
        return self.clients[client].get(number)

    def let_time_pass(self) -> None:
        for lock in self.locks.values():
            lock.queue = [waiter for waiter in lock.queue if waiter[1] > self.now]

    def grant_all(self) -> None:
        for name in list(self.locks):
            lock = self.locks[name]
            if lock.holder or lock.delayed_until > self.now:
                continue
            if lock.queue:
                self.locks[name] = Lock(lock.queue[0][0], self.index, 0, lock.queue[1:])
            else:
                del self.locks[name]

    def shown_locks(self) -> dict[str, tuple[str, int, list[str]]]:
        return {n: (lock.holder, lock.token, [s for s, _ in lock.queue]) for n, lock in self.locks.items()}

    def run(self, command: Command) -> Result:
        match command:
            case KvPut():
                return self.put(command)
            case KvDelete():
                return self.delete(command)
            case KvDeleteTree(prefix):
                for key in [key for key in self.pairs if key.startswith(prefix)]:
                    del self.pairs[key]
                return self.done()
            case CreateSession():
                if command.id in self.sessions:
                    return ("failure", "conflict")
                self.sessions[command.id] = command
                return self.done()
            case DestroySession(session):
                self.end(session)
                return self.done()
            case LockAcquire():
                return self.acquire(command)
            case LockRelease(name, token):
                lock = self.locks.get(name)
                if lock is None or not lock.holder or lock.token != token:
                    return self.done(ok=False)
                lock.holder, lock.token = "", 0
                return self.done()
            case LockCancel(name, session):
                return self.cancel(name, session)
        raise AssertionError(command)

    def done(self, ok: bool = True, version: int = 0) -> Result:
        return ("done", self.index, ok, version)

    def fenced_off(self, command: KvPut | KvDelete) -> bool:
        if command.fence is None:
            return False
        lock = self.locks.get(command.fence.lock)
        return lock is None or not lock.holder or lock.token != command.fence.token

    def put(self, command: KvPut) -> Result:
        if self.fenced_off(command):
            return ("failure", "conflict")
        old = self.pairs.get(command.key)
        session = old.session if old else ""
        lock_index = 0
        if command.cas is not None and command.cas != (old.modified if old else 0):
            return self.done(ok=False)
        if command.acquire is not None:
            if command.acquire not in self.sessions:
                return ("failure", "invalid")
            if session not in ("", command.acquire) or (not session and self.key_delays.get(command.key, 0) > self.now):
                return self.done(ok=False)
            lock_index = (old.lock_index if old else 0) + (0 if session else 1)
            session = command.acquire
        if command.release is not None:
            if not session or session != command.release:
                return self.done(ok=False)
            session, lock_index = "", old.lock_index if old else 0
        new = Pair(command.value, command.flags, self.index, self.index, lock_index, 1, session)
        if old is not None:
            new = replace(new, created=old.created, version=old.version + 1)
            if replace(old, version=0, modified=0) == replace(new, version=0, modified=0):
                new.modified = old.modified
        self.pairs[command.key] = new
        return self.done(version=new.version)

    def delete(self, command: KvDelete) -> Result:
        if self.fenced_off(command):
            return ("failure", "conflict")
        old = self.pairs.get(command.key)
        if old is not None:
            if command.cas not in (None, old.modified):
                return self.done(ok=False)
            del self.pairs[command.key]
        return self.done()

    def end(self, name: str) -> None:
        session = self.sessions.pop(name, None)
        if session is None:
            return
        until = self.now + session.lock_delay_ms * MS if session.lock_delay_ms else 0
        for key, pair in list(self.pairs.items()):
            if pair.session == name:
                self.key_delays[key] = until or self.key_delays.get(key, 0)
                if session.behavior == "delete":
                    del self.pairs[key]
                else:
                    self.pairs[key] = replace(pair, session="", modified=self.index, version=pair.version + 1)
        for lock in self.locks.values():
            lock.queue = [waiter for waiter in lock.queue if waiter[0] != name]
            if lock.holder == name:
                lock.holder, lock.token, lock.delayed_until = "", 0, until

    def acquire(self, command: LockAcquire) -> Result:
        if command.session not in self.sessions:
            return ("failure", "invalid")
        self.grant_all()
        name, session = command.name, command.session
        lock = self.locks.setdefault(name, Lock(session, self.index))
        if lock.holder == session:
            return ("grant", lock.token, 0, session)
        places = [waiter[0] for waiter in lock.queue]
        if command.wait_ms == 0:
            lock.queue = [waiter for waiter in lock.queue if waiter[0] != session]
            return ("grant", 0, 0, lock.holder)
        place = (session, self.now + command.wait_ms * MS)
        if session in places:
            lock.queue[places.index(session)] = place
        else:
            lock.queue.append(place)
        return ("grant", 0, [waiter[0] for waiter in lock.queue].index(session) + 1, lock.holder)

    def cancel(self, name: str, session: str) -> Result:
        lock = self.locks.get(name)
        if lock is not None and lock.holder and lock.holder == session:
            lock.holder, lock.token = "", 0
            return self.done()
        if lock is not None and session in [waiter[0] for waiter in lock.queue]:
            lock.queue = [waiter for waiter in lock.queue if waiter[0] != session]
            return self.done()
        return self.done(ok=False)
