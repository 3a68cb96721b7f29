"""Clients that write under all circumstances and keep book, and what their books must agree with afterwards.

A writer has keys of its own and one write under way, so it knows what its keys may hold:

- `Putter` overwrites one key, and makes a new one each time too.
- `Chainer` puts a number behind the numbers that its key holds, by compare-and-set. What the key holds in the end is the
  history of all that took effect.

Books are judged by `violations`, which is pure but for reading the keys it is given.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coordd.client import Client
from coordd.errors import BusyError, CoorddError, NoLeaderError, NotLeaderError, OutcomeUnknownError, TimedOutError
from coordd.messages.query import KvPair

__all__ = ["Book", "Writers", "violations"]

_NO_EFFECT = (BusyError, NoLeaderError, NotLeaderError, TimedOutError)
_PAUSE_SECONDS = 0.003
"""Between two writes: this is no benchmark, and the servers need the processor too."""
_CHAIN_LENGTH = 150


@dataclass
class Book:
    """What one writer was told about one key. Numbers are those it wrote."""

    acknowledged: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Answered with ok=False."""
    chained: bool = False
    wrong: list[str] = field(default_factory=list)
    """What the answers themselves said that can't be."""


class _Writer(threading.Thread):
    def __init__(self, name: str, servers: list[tuple[str, str]]) -> None:
        super().__init__(name=name, daemon=True)
        self.books: dict[str, Book] = {}
        self.moments: list[float] = []
        """When each acknowledgement came, by the monotonic clock."""
        self.failure: Exception | None = None
        self._servers = servers
        self._ending = threading.Event()
        self._number = 0

    @property
    def count(self) -> int:
        """Acknowledged writes."""
        return len(self.moments)

    def finish(self) -> None:
        self._ending.set()

    def run(self) -> None:
        try:
            with Client(servers=self._servers) as client:
                while not self._ending.wait(_PAUSE_SECONDS):
                    self.write(client)
        except Exception as error:
            self.failure = error

    def write(self, client: Client) -> None:
        raise NotImplementedError

    def _next(self) -> int:
        self._number += 1
        return self._number


class Putter(_Writer):
    """See the module."""

    def write(self, client: Client) -> None:
        number = self._next()
        for key in (f"{self.name}/again", f"{self.name}/new/{number}"):
            book = self.books.setdefault(key, Book())
            try:
                done = client.kv_put(key, str(number).encode())
            except OutcomeUnknownError:
                book.unknown.append(number)
            except _NO_EFFECT:
                continue
            else:
                book.acknowledged.append(number)
                self.moments.append(time.monotonic())
                if not done.ok:
                    book.wrong.append(f"put {number} without a condition was refused")


class Chainer(_Writer):
    """See the module."""

    def __init__(self, name: str, servers: list[tuple[str, str]]) -> None:
        super().__init__(name, servers)
        self._chain = 0
        self._held: list[int] = []
        self._index = 0
        self._sure = True
        """No earlier write can still change what the key holds."""

    def write(self, client: Client) -> None:
        if len(self._held) >= _CHAIN_LENGTH and self._sure:
            self._chain, self._held, self._index = self._chain + 1, [], 0
        key = f"{self.name}/chain/{self._chain}"
        book = self.books.setdefault(key, Book(chained=True))
        number = self._next()
        value = [*self._held, number]
        try:
            done = client.kv_put(key, _text(value), cas=self._index)
        except OutcomeUnknownError:
            book.unknown.append(number)
            self._sure = False
            self._look(client, key)
        except _NO_EFFECT:
            return
        else:
            if done.ok:
                book.acknowledged.append(number)
                self.moments.append(time.monotonic())
                self._held, self._index, self._sure = value, done.index, True
                return
            book.refused.append(number)
            if self._sure:
                book.wrong.append(f"compare-and-set {number} was refused though nobody else writes the key")
            self._look(client, key)

    def _look(self, client: Client, key: str) -> None:
        """Learn what the key holds. Only the next success makes sure that nothing older comes behind it."""
        while not self._ending.is_set():
            try:
                pair = client.kv_get(key)
            except CoorddError:
                continue
            self._held, self._index = (_numbers(pair.value), pair.modify_index) if pair else ([], 0)
            return


class Writers:
    """Four of each kind, at work from `start` to `finish`, on keys that begin with `prefix`."""

    def __init__(self, servers: list[tuple[str, str]], each: int = 4, prefix: str = "") -> None:
        self._all: list[_Writer] = [Putter(f"{prefix}putter-{n}", servers) for n in range(each)]
        self._all += [Chainer(f"{prefix}chainer-{n}", servers) for n in range(each)]

    def start(self) -> None:
        for writer in self._all:
            writer.start()

    @property
    def count(self) -> int:
        """Acknowledged writes of all."""
        return sum(writer.count for writer in self._all)

    def moments(self, since: float) -> dict[str, list[float]]:
        """When each writer's acknowledgements came, from then on."""
        return {writer.name: writer.moments[bisect_left(writer.moments, since) :] for writer in self._all}

    def stop(self) -> None:
        """End them, whatever they were doing came to."""
        for writer in self._all:
            writer.finish()
        for writer in self._all:
            writer.join(60)
            assert not writer.is_alive(), f"{writer.name} hangs"

    def finish(self) -> dict[str, Book]:
        """Stop them, and give back all their books by key. Raises: what a writer did not expect."""
        for writer in self._all:
            writer.finish()
        for writer in self._all:
            writer.join(30)
            assert not writer.is_alive(), f"{writer.name} hangs"
            if writer.failure is not None:
                raise writer.failure
        return {key: book for writer in self._all for key, book in writer.books.items()}


def violations(books: Mapping[str, Book], pairs: Iterable[KvPair]) -> list[str]:
    """What can't be, if each acknowledged write is there and each took effect at most once."""
    found = {pair.key: pair for pair in pairs}
    wrong = [f"{key} was never written" for key in found if key not in books]
    for key, book in books.items():
        wrong += [f"{key}: {text}" for text in book.wrong]
        wrong += [f"{key}: {text}" for text in _of_key(book, found.get(key))]
    return wrong


def _of_key(book: Book, pair: KvPair | None) -> list[str]:
    if pair is None:
        return [f"{len(book.acknowledged)} acknowledged writes are lost"] if book.acknowledged else []
    wrong = []
    least, most = len(book.acknowledged), len(book.acknowledged) + len(book.unknown)
    if not least <= pair.version <= most:
        wrong.append(f"changed {pair.version} times, {least} writes were acknowledged and {most - least} are unknown")
    if book.chained:
        return wrong + _of_chain(book, _numbers(pair.value), pair.version)
    last = book.acknowledged[-1] if book.acknowledged else 0
    allowed = {last, *(number for number in book.unknown if number > last)}
    if int(pair.value) not in allowed:
        wrong.append(f"holds {int(pair.value)}, allowed are {sorted(allowed)}")
    return wrong


def _of_chain(book: Book, held: list[int], version: int) -> list[str]:
    wrong = []
    if lost := set(book.acknowledged) - set(held):
        wrong.append(f"acknowledged, but not there: {sorted(lost)}")
    if told := set(book.refused) & set(held):
        wrong.append(f"reported as failed, but there: {sorted(told)}")
    if surplus := set(held) - {*book.acknowledged, *book.unknown, *book.refused}:
        wrong.append(f"there, but had no effect: {sorted(surplus)}")
    if held != sorted(set(held)) or len(held) != version:
        wrong.append(f"changed {version} times, in the order {held}")
    return wrong


def _text(numbers: list[int]) -> bytes:
    return " ".join(map(str, numbers)).encode()


def _numbers(value: bytes) -> list[int]:
    return [int(number) for number in value.split()]
