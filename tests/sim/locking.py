"""What clients do with sessions and locks, as users do it: one session, renewed or not, and what it holds and waits for.

Locks named l are tried without waiting, by sessions without lock delay, and judged from the answers alone. Those named q
have queues; their clients' sessions may have a lock delay. The oracle judges both.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from coordd.messages.client import Consistency, Read, Renewed, RenewSession
from coordd.messages.command import (
    Command,
    CommandResult,
    CreateSession,
    DestroySession,
    Done,
    Failure,
    Fence,
    KvPut,
    LockAcquire,
    LockCancel,
    LockGrant,
    LockRelease,
)
from coordd.messages.query import ListLocks, Locks
from tests.sim.asking import Answer
from tests.sim.keys import judge_read
from tests.sim.linearizability import Operation
from tests.sim.violation import check

if TYPE_CHECKING:
    from tests.sim.workload import Client

__all__ = ["LockWork"]

SLOWEST = 0.98
"""Part of a TTL that has certainly passed on every host's clock when it has passed on one's."""
FOR_GOOD = 1000.0
"""Sessions of a longer TTL than this are never left alone: nothing would free what they hold."""


class LockWork:
    def __init__(self, client: "Client") -> None:
        self._client = client
        self._chance = client.chance
        self._queues = self._chance.happens(0.6)
        """This client's sessions queue."""
        self._sessions = 0
        self.session = ""
        self._holding: dict[str, int] = {}
        self._waiting: set[str] = set()
        self.kinds: dict[str, Callable[[], None]] = {
            "acquire": self._acquire,
            "release": self._release,
            "fenced": self._fenced,
            "elect": self._elect,
            "renew": self._renew,
            "destroy": self._destroy,
        }
        if client.mix.session_ttl < FOR_GOOD:
            self.kinds["vanish"] = self._vanish
        if self._queues:
            self.kinds |= {"wait": self._wait, "cancel": self._cancel, "look": self._look}

    @property
    def _now(self) -> float:
        return self._client.around.schedule.now

    def _lock(self) -> str:
        return f"{'q' if self._queues else 'l'}{self._chance.randrange(self._client.mix.locks)}"

    # --- sessions ----------------------------------------------------------------------------------------------------

    def open_session(self) -> None:
        client = self._client
        self._sessions += 1
        session = f"{client.name}-{self._sessions}"
        mix = client.mix
        delay = mix.lock_delay if self._queues else 0.0
        self._promised(session, self._now)

        def opened(result: CommandResult | None) -> None:
            if isinstance(result, Done) and not self.session:
                self.session = session
                self._holding.clear()
                self._waiting.clear()

        ttl, delay_ms = int(mix.session_ttl * 1000), int(delay * 1000)
        self._write(CreateSession(session, "", ttl_ms=ttl, lock_delay_ms=delay_ms, node_checks=()), opened)

    def _promised(self, session: str, since: float) -> None:
        """The session lives for a full TTL after `since`, by a leader's clock that may be fast."""
        until = since + self._client.mix.session_ttl * SLOWEST
        self._client.history.lifetimes[session] = until
        self._client.oracle.promised(session, until)

    def _renew(self) -> None:
        session, call, client = self.session, self._now, self._client

        def renewed(answer: Answer | None) -> None:
            if answer is not None and isinstance(answer.body, Renewed):
                self._promised(session, answer.asked_at)
                client.done("renewals")
            else:
                self._ended(session)
                client.done()

        assert call >= 0
        client.asker.ask(RenewSession(session), True, renewed)

    def _ended(self, session: str) -> None:
        if session == self.session:
            self._client.around.counts["sessions expired"] += 1
            self._forget()

    def _forget(self) -> None:
        self.session = ""
        self._holding.clear()
        self._waiting.clear()

    def _vanish(self) -> None:
        """Go on with another session, and leave the old one, with all it holds and waits for, to its end."""
        self._client.around.counts["sessions left"] += 1
        self._forget()
        self._client.done()

    def _destroy(self) -> None:
        session, call, client = self.session, self._now, self._client
        self._forget()

        def destroyed(result: CommandResult | None) -> None:
            assert isinstance(result, Done)
            operation = Operation(call, self._now, ("end", session))
            for number in range(client.mix.locks):
                client.history.add(("lock", f"l{number}"), operation)

        self._write(DestroySession(session), destroyed)

    def _write(self, command: Command, finish: Callable[[CommandResult | None], None]) -> None:
        def written(result: CommandResult | None) -> None:
            finish(result)
            self._client.done("writes" if result is not None else "")

        self._client.asker.write(command, written)

    # --- locks -------------------------------------------------------------------------------------------------------

    def _acquire(self) -> None:
        self._ask_for(self._lock(), 0)

    def _wait(self) -> None:
        """Queue, or ask how it goes; the deadline moves on."""
        waits = sorted(self._waiting)
        lock = self._chance.choice(waits) if waits and self._chance.happens(0.5) else self._lock()
        self._ask_for(lock, self._chance.choice([100, 500, 2000, 10_000]))

    def _ask_for(self, lock: str, wait_ms: int) -> None:
        call, session, client = self._now, self.session, self._client

        def acquired(result: CommandResult | None) -> None:
            if isinstance(result, LockGrant):
                if lock.startswith("l"):
                    request = ("acquire", session)
                    client.history.add(("lock", lock), Operation(call, self._now, request, result.token))
                self._asked(lock, session, result, wait_ms)
            elif isinstance(result, Failure):
                self._ended(session)

        self._write(LockAcquire(lock, session, wait_ms), acquired)

    def _asked(self, lock: str, session: str, grant: LockGrant, wait_ms: int) -> None:
        if grant.token:
            self._granted(lock, session, grant.token)
        elif wait_ms:
            check(grant.position > 0, 14, "neither granted nor queued", lock=lock, session=session)
            self._client.around.counts["waiters"] += 1
            if session == self.session:
                self._waiting.add(lock)

    def _granted(self, lock: str, session: str, token: int) -> None:
        self._client.history.granted(lock, session, token)
        if session == self.session:
            self._holding[lock] = token
            if lock in self._waiting:
                self._waiting.remove(lock)
                self._client.around.counts["waiters granted"] += 1

    def _look(self) -> None:
        """Has the turn come?"""
        waits = sorted(self._waiting)
        lock, session, client = self._chance.choice(waits) if waits else self._lock(), self.session, self._client
        consistency: Consistency = self._chance.choice(["default", "consistent", "stale"])

        def answered(answer: Answer | None) -> None:
            body = judge_read(client, ("lock", lock), consistency, answer) if answer else None
            if body is None:
                client.done()
                return
            assert isinstance(body.value, Locks)
            for found in body.value.locks:
                if found.holder:
                    client.history.granted(lock, found.holder, found.token)
                if found.holder == session:
                    self._granted(lock, session, found.token)
            client.done("lists")

        client.asker.ask(Read(ListLocks(lock), consistency), True, answered)

    def _cancel(self) -> None:
        lock = self._chance.choice(sorted(self._waiting)) if self._waiting else self._lock()
        self._waiting.discard(lock)
        self._holding.pop(lock, None)
        self._write(LockCancel(lock, self.session), lambda _: None)

    def _release(self) -> None:
        if not self._holding:
            self._acquire()
            return
        client, call = self._client, self._now
        lock = self._chance.choice(sorted(self._holding))
        token = self._holding.pop(lock)

        def released(result: CommandResult | None) -> None:
            assert isinstance(result, Done)
            if lock.startswith("l"):
                client.history.add(("lock", lock), Operation(call, self._now, ("release", token), result.ok))

        self._write(LockRelease(lock, token), released)

    def _fenced(self) -> None:
        if not self._holding:
            self._acquire()
            return
        client, call = self._client, self._now
        lock = self._chance.choice(sorted(self._holding))
        key, token = f"k{self._chance.randrange(client.mix.keys)}", self._holding[lock]
        value = client.keys.value(key)

        def written(result: CommandResult | None) -> None:
            took = isinstance(result, Done)
            client.around.counts["fenced writes" if took else "fenced writes refused"] += 1
            if lock.startswith("l"):
                client.history.add(("lock", lock), Operation(call, self._now, ("fenced", token), took))
            if isinstance(result, Done):
                client.history.wrote_under(lock, token, result.index)
                client.history.saw(key, value, result.index)
                client.history.add(("kv", key), Operation(call, self._now, ("put", value)))

        self._write(KvPut(key, value, fence=Fence(lock, token)), written)

    def _elect(self) -> None:
        """Consul's recipe: a key that a session holds."""
        key = "elected"
        value = self._client.name.encode()
        session = self.session
        holds = self._chance.happens(0.4)
        command = KvPut(key, value, release=session) if holds else KvPut(key, value, acquire=session)
        self._write(command, lambda result: self._ended(session) if isinstance(result, Failure) else None)
