"""What every answer must have been: the committed log, applied a second time by a plain model, with the times.

The model (`tests/state/model.py`) is dicts and lists. Each result that a state gives, and each that a client is told, must
be the model's; so a numbered write that takes effect twice (invariant 13), a lock granted out of turn, twice or under a
token that does not rise (14) end the run at once. A read must show what was there at some index between what was committed
when it was asked and what is applied now; a view, what was there at its very index (12, 15).
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence

from coordd.messages.command import (
    Command,
    CommandResult,
    CreateSession,
    Deregister,
    ExpireClients,
    ExpireSessions,
    KvPut,
    Register,
    RegisterClient,
    command_decoder,
)
from coordd.messages.entry import COMMAND, decode_command
from coordd.messages.query import Health, KvPairs, Locks, QueryResult
from coordd.state.machine import Applied
from coordd.types import Index, Term
from tests.sim.ledger import Ledger
from tests.sim.violation import Violation, check
from tests.state.model import MODELLED, Model, Result, plain

__all__ = ["Oracle", "Subject", "shown"]

Subject = tuple[str, str]
"""("kv", key), ("tree", prefix), ("lock", name) or ("service", name)."""
TREES = ("k", "set0/", "set1/")
"""Prefixes that clients list or watch."""
UNJUDGED: Result = ("unjudged",)


def shown(value: QueryResult) -> object:
    """What a query showed, in the words of the model."""
    match value:
        case KvPairs(pairs):
            return tuple((pair.key, pair.value, pair.modify_index) for pair in pairs)
        case Locks(locks):
            return tuple((lock.holder, lock.token, tuple(w.session for w in lock.waiters)) for lock in locks)
        case Health(entries):
            return tuple((e.node.node, e.service.service.id, e.service.service.port) for e in entries)
    raise AssertionError(value)


class Reference(Model):
    """The model, with what stands beside keys and locks in the log of a run."""

    def __init__(self, on_expiry: Callable[[str], None]) -> None:
        super().__init__()
        self.term: Term = 0
        self.nodes: dict[str, dict[str, tuple[str, int]]] = {}
        """Node, service id: (service, port)."""
        self._born: dict[str, Index] = {}
        self._on_expiry = on_expiry

    def run(self, command: Command) -> Result:
        match command:
            case RegisterClient(id=wanted):
                self.clients[wanted or self.index] = {}
                return ("done", wanted or self.index, True, 0)
            case ExpireClients(term, clients):
                for client in clients if term == self.term else ():
                    self.clients.pop(client, None)
                return self.done(ok=term == self.term)
            case ExpireSessions(term, sessions):
                for name, born in sessions if term == self.term else ():
                    if self._born.get(name) == born and name in self.sessions:
                        self.end(name)
                        self._on_expiry(name)
                return self.done(ok=term == self.term)
            case Register():
                self.nodes.setdefault(command.node, {}).update({s.id: (s.name, s.port) for s in command.services})
                return self.done()
            case Deregister():
                self._deregister(command)
                return self.done()
            case CreateSession():
                self._born.setdefault(command.id, self.index)
                return super().run(command)
        return super().run(command) if isinstance(command, MODELLED) else UNJUDGED

    def _deregister(self, command: Deregister) -> None:
        if command.service_id:
            self.nodes.get(command.node, {}).pop(command.service_id, None)
        elif not command.check_id:
            self.nodes.pop(command.node, None)

    def instances(self, service: str) -> object:
        return tuple(
            (node, instance, port)
            for node, services in sorted(self.nodes.items())
            for instance, (name, port) in sorted(services.items())
            if name == service
        )


class Oracle:
    """Told of what is committed and applied, and by clients of what they are told."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self.index: Index = 0
        """The highest that some server has applied."""
        self._model = Reference(self._expired)
        self._results: dict[Index, Result] = {}
        self._states: dict[Subject, tuple[list[Index], list[object]]] = defaultdict(lambda: ([0], [()]))
        """When each subject changed, and what it was then."""
        self._committed_at: list[float] = [0.0]
        self._written: dict[tuple[str, bytes], Index] = {}
        """Each value of a key, and where it was first written."""
        self._promised: dict[str, float] = {}
        """Each session, and until when it was promised to live."""
        self._expired_at: dict[str, float] = {}

    # --- the log -----------------------------------------------------------------------------------------------------

    def committed(self) -> None:
        """After each step: note when what is committed became so."""
        new = self._ledger.commit + 1 - len(self._committed_at)
        if new:
            self._committed_at += [self._clock()] * new

    def applied(self, first: Index, entries: Sequence[tuple[Term, bytes]], results: Sequence[Applied]) -> None:
        """Some server applied these. What the model has not seen, it applies; all results must be the model's."""
        for index, ((term, entry), applied) in enumerate(zip(entries, results, strict=True), first):
            if index == self.index + 1:
                self._apply(index, term, entry)
            expected = self._results.get(index)
            if expected is not None and applied.result is not None:
                check(
                    plain(applied.result) == expected,
                    13 if applied.number else 14,
                    "a command had another result than it should",
                    index=index,
                    found=applied.result,
                    expected=expected,
                )

    def _apply(self, index: Index, term: Term, entry: bytes) -> None:
        self.index = index
        if entry[0] != COMMAND:
            return
        header, body = decode_command(entry)
        command: Command = command_decoder.decode(body)
        model = self._model
        model.term = term
        now = max(model.now, header.state_time)
        result = model.apply(index, now, command, header.client, header.number, header.lowest)
        if result != UNJUDGED:
            self._results[index] = result
        if isinstance(command, KvPut) and result[0] == "done" and result[2]:
            self._written.setdefault((command.key, command.value), index)
        self._note(index)

    def _note(self, index: Index) -> None:
        model = self._model
        keys = {key for kind, key in self._states if kind == "kv"} | model.pairs.keys()
        changed = [key for key in sorted(keys) if self._put(index, ("kv", key), self._pair(key))]
        for prefix in TREES:
            if any(key.startswith(prefix) for key in changed):
                inside = [key for key in sorted(model.pairs) if key.startswith(prefix)]
                self._put(index, ("tree", prefix), tuple(pair for key in inside for pair in self._pair(key)))
        names = {name for kind, name in self._states if kind == "lock"} | model.locks.keys()
        for name in sorted(names):
            self._put(index, ("lock", name), self._lock(name))
        self._put(index, ("service", "web"), model.instances("web"))

    def _pair(self, key: str) -> tuple[object, ...]:
        pair = self._model.pairs.get(key)
        return ((key, pair.value, pair.modified),) if pair else ()

    def _lock(self, name: str) -> object:
        lock = self._model.locks.get(name)
        return ((lock.holder, lock.token, tuple(session for session, _ in lock.queue)),) if lock else ()

    def _put(self, index: Index, subject: Subject, value: object) -> bool:
        indexes, values = self._states[subject]
        if values[-1] == value:
            return False
        indexes.append(index)
        values.append(value)
        return True

    # --- answers -----------------------------------------------------------------------------------------------------

    def told(self, client: int, number: int, result: CommandResult) -> None:
        """A client hears the result of its write: of its numbered one, or of the one at that index."""
        found = plain(result)
        expected = self._model.clients.get(client, {}).get(number) if client else self._results.get(result.index)
        if expected is not None and found != expected:
            told = {"client": client, "write": number, "result": result, "expected": expected}
            raise Violation(13, "a client heard of another result", **told)

    def saw(self, subject: Subject, value: object, lowest: Index, highest: Index | None = None) -> None:
        """A read showed this, and had to show the state at some index from `lowest` on."""
        indexes, values = self._states[subject]
        last = self.index if highest is None else highest
        place = bisect_right(indexes, last) - 1
        while place >= 0:
            if values[place] == value:
                return
            if indexes[place] <= lowest:
                break
            place -= 1
        at = [index for index, known in zip(indexes, values, strict=True) if known == value]
        raise Violation(12, "a read of what was not there", subject=subject, value=value, lowest=lowest, was_at=at)

    def written_at(self, key: str, value: bytes) -> float | None:
        """When this value was committed under this key; None: it never was."""
        index = self._written.get((key, value))
        return None if index is None else self._committed_at[index]

    def commit_at(self, time: float) -> Index:
        """What was committed at that time."""
        return bisect_right(self._committed_at, time) - 1 if time > 0 else 0

    # --- sessions ----------------------------------------------------------------------------------------------------

    def promised(self, session: str, until: float) -> None:
        """A client was told that its session lives until then."""
        self._promised[session] = max(until, self._promised.get(session, 0.0))
        self._judge(session)

    def _expired(self, session: str) -> None:
        self._expired_at[session] = self._committed_at[self.index]
        self._judge(session)

    def _judge(self, session: str) -> None:
        ended, until = self._expired_at.get(session), self._promised.get(session, 0.0)
        if ended is not None and ended < until:
            raise Violation(14, "a session was ended before its time", session=session, ended=ended, promised=until)
