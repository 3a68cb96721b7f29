"""What clients do with keys: single ones, which are judged as registers, and prefixes, which are judged as sets.

Values are unique, so that a value names the write it came from.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from coordd.messages.client import Consistency, Read, ReadResult
from coordd.messages.command import Command, CommandResult, Done, KvDelete, KvPut
from coordd.messages.query import KvGet, KvList, KvPairs
from coordd.types import Index
from tests.sim.asking import Answer
from tests.sim.history import History
from tests.sim.linearizability import Operation
from tests.sim.oracle import shown
from tests.sim.violation import Violation, check

if TYPE_CHECKING:
    from tests.sim.oracle import Subject
    from tests.sim.workload import Client

__all__ = ["KeyWork", "judge_read"]

MEMBERS = 6
CLOCK_ERROR = 1.02
"""A server's clock may be fast or slow by one in a hundred."""


def judge_read(client: "Client", subject: "Subject", consistency: Consistency, answer: Answer) -> ReadResult | None:
    """Whether what was read was there; None: it was no answer. The age of a stale answer is a claim to be judged too."""
    body = answer.body
    if not isinstance(body, ReadResult):
        return None
    around, lowest = client.around, answer.floor
    if consistency == "stale":
        known = body.age_ms >= 0
        lowest = client.oracle.commit_at(answer.asked_at - (body.age_ms + 1) / 1000 * CLOCK_ERROR) if known else 0
        around.counts["stale answers of known age"] += known
    client.oracle.saw(subject, shown(body.value), lowest)
    around.counts[f"reads {consistency}"] += 1
    return body


class KeyWork:
    def __init__(self, client: "Client", numbered: bool) -> None:
        self._client = client
        self._chance = client.chance
        self._values = 0
        self._known: dict[str, tuple[tuple[bytes, ...], Index]] = {}
        """What each key was when last read: value and modify index."""
        self._index: dict[str, Index] = {}
        """What each key's newest answer said for the next blocking read."""
        self.kinds: dict[str, Callable[[], None]] = {
            "put": self.put,
            "cas": self._cas,
            "chain": self._chain,
            "delete": self._delete,
            "get": self.get,
            "consistent": lambda: self._read(self._key(), "consistent"),
            "stale": lambda: self._read(self._key(), "stale", max_stale=self._chance.choice([0, 0, 100, 1000])),
            "block": self._block,
            "members": self._list,
        }
        if numbered:  # who knows what became of each change: the history of a set is too tangled otherwise
            self.kinds |= {"add": self._add, "remove": self._remove}

    @property
    def _now(self) -> float:
        return self._client.around.schedule.now

    def _key(self) -> str:
        return f"k{self._chance.randrange(self._client.mix.keys)}"

    def value(self, key: str) -> bytes:
        """One that nobody wrote before."""
        self._values += 1
        value = f"{self._client.name}.{self._values}".encode() + b"." * self._chance.choice([0, 0, 0, 200, 2000])
        self._client.history.attempted[key].add(value)
        return value

    # --- registers ---------------------------------------------------------------------------------------------------

    def put(self) -> None:
        key = self._key()
        value = self.value(key)
        self._change(key, ("put", value), KvPut(key, value), value)

    def _cas(self, key: str = "") -> None:
        key = key or self._key()
        expected, index = self._known.get(key, ((), 0))
        value = self.value(key)
        self._change(key, ("cas", expected, value), KvPut(key, value, cas=index), value)

    def _chain(self) -> None:
        """Read, and change what was read."""
        key = self._key()
        consistency: Consistency = self._chance.choice(["default", "consistent"])
        self._read(key, consistency, then=lambda: self._cas(key))

    def _delete(self) -> None:
        key = self._key()
        expected, index = self._known.get(key, ((), 0))
        if expected:
            self._change(key, ("delete", expected), KvDelete(key, cas=index), None)
        else:
            self._read(key, "default")

    def _change(self, key: str, asked: tuple[object, ...], command: Command, value: bytes | None) -> None:
        client, call = self._client, self._now

        def changed(result: CommandResult | None) -> None:
            if not isinstance(result, Done):
                client.history.add(("kv", key), History.lost(call, asked))
                client.done()
                return
            answer = None if asked[0] == "put" else result.ok
            client.history.add(("kv", key), Operation(call, self._now, asked, answer))
            if result.ok and value is not None:
                client.history.saw(key, value, result.index)
                self._known[key] = (value,), result.index
            client.done("writes")

        client.asker.write(command, changed)

    def get(self) -> None:
        self._read(self._key(), "default")

    def _block(self) -> None:
        """Wait until a key changes, or for a while."""
        key = self._key()
        index = self._index.get(key, 0)
        consistency: Consistency = self._chance.choice(["default", "consistent", "stale", "stale"])
        self._read(key, consistency, index=index, wait=self._chance.choice([200, 1000, 2500]) if index else 0)

    def _read(
        self,
        key: str,
        consistency: Consistency,
        *,
        index: Index = 0,
        wait: int = 0,
        max_stale: int = 0,
        then: Callable[[], None] | None = None,
    ) -> None:
        client, call = self._client, self._now

        def answered(answer: Answer | None) -> None:
            body = judge_read(client, ("kv", key), consistency, answer) if answer else None
            if body is None or answer is None:
                client.done()
                return
            assert isinstance(body.value, KvPairs)
            pairs = body.value.pairs
            found = tuple(pair.value for pair in pairs)
            for pair in pairs:
                client.history.saw(key, pair.value, pair.modify_index)
            if consistency != "stale":
                client.history.add(("kv", key), Operation(call, self._now, ("get",), found))
                self._known[key] = found, pairs[0].modify_index if found else 0
            if max_stale:
                check(0 <= body.age_ms <= max_stale, 12, "older than was asked for", age=body.age_ms, most=max_stale)
                client.around.counts["reads with a bound on age"] += 1
            if wait:
                self._woken(body, answer, index, wait)
            self._index[key] = body.index
            if then is not None:
                client.around.schedule.after(self._chance.random() * 0.02, then)
            client.done(consistency) if then is None else client.around.counts.update(["operations"])

        client.asker.ask(Read(KvGet(key), consistency, max_stale, index, wait), True, answered)

    def _woken(self, body: ReadResult, answer: Answer, index: Index, wait: int) -> None:
        """A blocking read ends because there is something new, or because the time is over."""
        client = self._client
        client.around.counts["blocking reads"] += 1
        slept = answer.at - answer.asked_at
        if body.index > index:
            client.around.counts["blocking reads woken"] += 1
        elif slept < 0.8 * wait / 1000:
            raise Violation(15, "a blocking read ended with nothing new", index=index, slept=slept, wait=wait)

    # --- sets --------------------------------------------------------------------------------------------------------

    def _set(self) -> str:
        return f"set{self._chance.randrange(self._client.mix.sets)}/"

    def _add(self) -> None:
        name, member = self._set(), f"m{self._chance.randrange(MEMBERS)}"
        self._enter(name, ("add", member), KvPut(name + member, self.value(name + member)))

    def _remove(self) -> None:
        name, member = self._set(), f"m{self._chance.randrange(MEMBERS)}"
        self._enter(name, ("remove", member), KvDelete(name + member))

    def _enter(self, name: str, asked: tuple[object, ...], command: Command) -> None:
        client, call = self._client, self._now

        def changed(result: CommandResult | None) -> None:
            assert isinstance(result, Done)
            client.history.add(("set", name), Operation(call, self._now, asked))
            client.done("writes")

        client.asker.write(command, changed)

    def _list(self) -> None:
        client, call, name = self._client, self._now, self._set()
        consistency: Consistency = self._chance.choice(["default", "consistent", "stale"])

        def answered(answer: Answer | None) -> None:
            body = judge_read(client, ("tree", name), consistency, answer) if answer else None
            if body is None:
                client.done()
                return
            assert isinstance(body.value, KvPairs)
            members = tuple(pair.key.removeprefix(name) for pair in body.value.pairs)
            if consistency != "stale":
                client.history.add(("set", name), Operation(call, self._now, ("list",), members))
            client.done("lists")

        client.asker.ask(Read(KvList(name), consistency), True, answered)
