"""Clients: each does one thing after the other and remembers what it was told.

Half of them number their writes and repeat them under the same number until they know the outcome; the others send a
write once, and take what is not answered for unknown. Values are unique, so that a value names the write it came from.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from coordd.messages.client import (
    PROTOCOL_VERSION,
    Consistency,
    Error,
    Read,
    ReadResult,
    Renewed,
    RenewSession,
    ReplyBody,
    Request,
    Write,
    Written,
)
from coordd.messages.command import (
    Command,
    CommandResult,
    CreateSession,
    DestroySession,
    Done,
    Failure,
    Fence,
    KvDelete,
    KvPut,
    LockAcquire,
    LockGrant,
    LockRelease,
    RegisterClient,
    encode,
)
from coordd.messages.query import KvGet, KvPairs
from tests.sim.history import History
from tests.sim.linearizability import Operation
from tests.sim.server import Answered, Asked
from tests.sim.surroundings import Surroundings

__all__ = ["Client", "Mix"]

SLOWEST = 0.98
"""Part of a TTL that has certainly passed on every host's clock when it has passed on one's."""
CERTAIN = frozenset({"not-leader", "no-leader", "busy", "timed-out"})
"""Refusals that prove that nothing happened."""


LOCKING = frozenset({"acquire", "release", "fenced", "renew", "destroy"})


@dataclass(frozen=True)
class Mix:
    """How a run's clients behave: drawn from the seed."""

    keys: int
    locks: int
    think: float
    session_ttl: float
    patience: float
    """Seconds until an unanswered request is given up or repeated."""
    weights: dict[str, float]


@dataclass
class _Attempt:
    """One operation under way."""

    call: float
    body: Write | Read | RenewSession
    repeats: bool
    finish: Callable[[ReplyBody | None], None]
    """Called once: with the answer, or None if the outcome is unknown."""
    request: int = 0


class Client:
    """One client at a time asks one thing."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        servers: Callable[[], list[str]],
        mix: Mix,
        history: History,
        numbered: bool,
    ) -> None:
        self.around = around
        self.name = name
        self._servers = servers
        self._mix = mix
        self._history = history
        self._chance = around.chance.branch(name)
        self._numbered = numbered
        self._client = 0
        self._number = 0
        self._requests = 0
        self._values = 0
        self._session = ""
        self._sessions = 0
        self._holding: dict[str, int] = {}
        self._known: dict[str, tuple[tuple[bytes, ...], int]] = {}
        """What each key was when last read: value and modify index."""
        self._target = ""
        self._attempt: _Attempt | None = None
        self._last_words = 2
        self._stopping = False
        self.idle = False

    # --- what to do --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.around.schedule.after(self._chance.random() * 0.5, self._next)

    def _think(self) -> None:
        self.around.schedule.after(self._chance.expovariate(1.0) * self._mix.think, self._next)

    def _next(self) -> None:
        if self._stopping:
            self._conclude()
        elif self._numbered and not self._client:
            self._register()
        elif self._numbered and not self._session:
            self._open_session()
        else:
            weights = self._mix.weights
            kinds = [kind for kind in weights if self._numbered or kind not in LOCKING]
            (kind,) = self._chance.choices(kinds, [weights[kind] for kind in kinds])
            getattr(self, f"_{kind}")()

    def finish(self, servers: list[str]) -> None:
        """Bring what is under way to its end, write and read once more, ask only these servers, and be idle."""
        self._servers = lambda: servers
        self._stopping = True

    def _conclude(self) -> None:
        self._last_words -= 1
        if self._last_words == 1:
            self._put()
        elif self._last_words == 0:
            self._get()
        else:
            self.idle = True

    def _register(self) -> None:
        def registered(result: CommandResult | None) -> None:
            if isinstance(result, Done):
                self._client = result.index

        self._write(RegisterClient(self.name), registered, numbered=False)

    def _open_session(self) -> None:
        self._sessions += 1
        session = f"{self.name}-{self._sessions}"

        def opened(result: CommandResult | None) -> None:
            if isinstance(result, Done):
                self._session = session

        ttl_ms = int(self._mix.session_ttl * 1000)
        self._promised(session, self.around.schedule.now)
        self._write(CreateSession(session, "", ttl_ms=ttl_ms, lock_delay_ms=0, node_checks=()), opened)

    def _promised(self, session: str, since: float) -> None:
        """The session lives for a full TTL after `since`, by a leader's clock that may be fast."""
        self._history.lifetimes[session] = since + self._mix.session_ttl * SLOWEST

    def _renew(self) -> None:
        session, call = self._session, self.around.schedule.now

        def renewed(body: ReplyBody | None) -> None:
            if isinstance(body, Renewed):
                self._promised(session, call)
                self._completed("renewals")
            else:
                self._session_ended()
                self._think()

        self._ask(_Attempt(call, RenewSession(session), True, renewed))

    def _session_ended(self) -> None:
        self.around.counts["sessions expired"] += 1
        self._session = ""
        self._holding.clear()

    # --- keys --------------------------------------------------------------------------------------------------------

    def _key(self) -> str:
        return f"k{self._chance.randrange(self._mix.keys)}"

    def _value(self, key: str) -> bytes:
        self._values += 1
        value = f"{self.name}.{self._values}".encode() + b"." * self._chance.choice([0, 0, 0, 200, 2000])
        self._history.attempted[key].add(value)
        return value

    def _put(self) -> None:
        key = self._key()
        value = self._value(key)
        self._change(key, ("put", value), KvPut(key, value), value)

    def _cas(self) -> None:
        key = self._key()
        expected, index = self._known.get(key, ((), 0))
        value = self._value(key)
        self._change(key, ("cas", expected, value), KvPut(key, value, cas=index), value)

    def _delete(self) -> None:
        key = self._key()
        expected, index = self._known.get(key, ((), 0))
        if not expected:
            self._get()
            return
        self._change(key, ("delete", expected), KvDelete(key, cas=index), None)

    def _change(self, key: str, asked: tuple[object, ...], command: Command, value: bytes | None) -> None:
        call = self.around.schedule.now

        def changed(result: CommandResult | None) -> None:
            if isinstance(result, Done):
                answer = None if asked[0] == "put" else result.ok
                self._history.add(("kv", key), Operation(call, self.around.schedule.now, asked, answer))
                if result.ok and value is not None:
                    self._history.saw(key, value, result.index)
                    self._known[key] = (value,), result.index
            else:
                assert result is None, result
                self._history.add(("kv", key), History.lost(call, asked))

        self._write(command, changed)

    def _get(self) -> None:
        self._read("default")

    def _consistent(self) -> None:
        self._read("consistent")

    def _stale(self) -> None:
        self._read("stale")

    def _read(self, consistency: Consistency) -> None:
        key = self._key()
        call = self.around.schedule.now

        def answered(body: ReplyBody | None) -> None:
            if not isinstance(body, ReadResult):
                self._think()
                return
            assert isinstance(body.value, KvPairs)
            found = tuple(pair.value for pair in body.value.pairs)
            for pair in body.value.pairs:
                self._history.saw(key, pair.value, pair.modify_index)
            self.around.counts[f"reads {consistency}"] += 1
            if consistency != "stale":
                self._history.add(("kv", key), Operation(call, self.around.schedule.now, ("get",), found))
                self._known[key] = found, body.value.pairs[0].modify_index if found else 0
            self._completed(consistency)

        self._ask(_Attempt(call, Read(KvGet(key), consistency), True, answered))

    # --- locks -------------------------------------------------------------------------------------------------------

    def _acquire(self) -> None:
        lock = f"l{self._chance.randrange(self._mix.locks)}"
        call, session = self.around.schedule.now, self._session

        def acquired(result: CommandResult | None) -> None:
            now = self.around.schedule.now
            if isinstance(result, LockGrant):
                self._history.add(("lock", lock), Operation(call, now, ("acquire", session), result.token))
                if result.token:
                    self._history.granted(lock, session, result.token)
                    self._holding[lock] = result.token
            elif isinstance(result, Failure):
                self._session_ended()

        self._write(LockAcquire(lock, session), acquired)

    def _release(self) -> None:
        if not self._holding:
            self._acquire()
            return
        lock = self._chance.choice(sorted(self._holding))
        token = self._holding.pop(lock)
        call = self.around.schedule.now

        def released(result: CommandResult | None) -> None:
            assert isinstance(result, Done)
            answer = result.ok
            self._history.add(("lock", lock), Operation(call, self.around.schedule.now, ("release", token), answer))

        self._write(LockRelease(lock, token), released)

    def _fenced(self) -> None:
        if not self._holding:
            self._acquire()
            return
        lock = self._chance.choice(sorted(self._holding))
        key, token = self._key(), self._holding[lock]
        value = self._value(key)
        call = self.around.schedule.now

        def written(result: CommandResult | None) -> None:
            now = self.around.schedule.now
            took = isinstance(result, Done)
            self._history.add(("lock", lock), Operation(call, now, ("fenced", token), took))
            if isinstance(result, Done):
                self._history.saw(key, value, result.index)
                self._history.add(("kv", key), Operation(call, now, ("put", value)))

        self._write(KvPut(key, value, fence=Fence(lock, token)), written)

    def _destroy(self) -> None:
        session, call = self._session, self.around.schedule.now
        self._session = ""
        self._holding.clear()

        def destroyed(result: CommandResult | None) -> None:
            assert isinstance(result, Done)
            operation = Operation(call, self.around.schedule.now, ("end", session))
            for number in range(self._mix.locks):
                self._history.add(("lock", f"l{number}"), operation)

        self._write(DestroySession(session), destroyed)

    # --- asking ------------------------------------------------------------------------------------------------------

    def _write(
        self, command: Command, finish: Callable[[CommandResult | None], None], numbered: bool | None = None
    ) -> None:
        numbered = self._numbered if numbered is None else numbered
        body = Write(msgspec.Raw(encode(command)))
        if numbered:
            self._number += 1
            body = Write(body.command, self._client, self._number, self._number)

        def answered(reply: ReplyBody | None) -> None:
            result = reply.result if isinstance(reply, Written) else None
            if isinstance(result, Failure) and result.code not in ("conflict", "invalid"):
                raise AssertionError(f"{command}: {result}")
            finish(result)
            if result is None:
                self.around.counts["unknown outcomes"] += 1
                self._think()
            else:
                self._completed("writes")

        self._ask(_Attempt(self.around.schedule.now, body, numbered, answered))

    def _completed(self, kind: str) -> None:
        self.around.counts["operations"] += 1
        self.around.counts[f"completed {kind}"] += 1
        self._think()

    def _ask(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        self._send()

    def _send(self) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        servers = self._servers()
        if isinstance(attempt.body, Read) and attempt.body.consistency != "default":
            target = self._chance.choice(servers)
        else:
            target = self._target if self._target in servers else self._chance.choice(servers)
            self._target = target
        self._requests += 1
        attempt.request = self._requests
        budget = int(self._mix.patience * 1000)
        request = Request(PROTOCOL_VERSION, self._requests, "", budget, attempt.body)
        stale = isinstance(attempt.body, Read) and attempt.body.consistency == "stale"
        asked = Asked(self.name, request, 0 if stale else self.around.invariants.ledger.commit)
        self.around.network.send(self.name, target, asked, once=not attempt.repeats)
        self.around.schedule.after(self._mix.patience, self._given_up, self._requests)

    def _given_up(self, request: int) -> None:
        attempt = self._attempt
        if attempt is None or attempt.request != request:
            return
        self._target = ""
        if attempt.repeats:
            self._send()
        else:
            self._finish(None)

    def deliver(self, reply: Answered) -> None:
        attempt = self._attempt
        if attempt is None or attempt.request != reply.request:
            return
        if not isinstance(reply.body, Error):
            self._finish(reply.body)
            return
        if reply.body.code == "not-found":
            self._finish(None)
            return
        self._target = reply.body.hint.partition(":")[0]
        if attempt.repeats or reply.body.code in CERTAIN:
            attempt.request = 0
            self.around.schedule.after(self._chance.uniform(0.005, 0.05), self._send)
        else:
            self._finish(None)

    def _finish(self, body: ReplyBody | None) -> None:
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        attempt.finish(body)
