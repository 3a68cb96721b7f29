"""Finished answers: the bytes of a question to the bytes of its answer, both without id.

`piles` is read by the servers directly, because it is the hot path: take the pile of a question's bytes, pop a message,
put the id before it. An empty pile or none means that the answer is to be built and handed to `put`, which makes a new
pile of the newest variants. So every 64th answer is a newly drawn one, and in time each instance of a large service
gets its turn, although only a few variants are kept.

`drop(query)` forgets all that was made from a view. Entries and bytes are bounded; the oldest go first, since a hot one
is soon made again.
"""

from collections import deque
from collections.abc import Iterable

from coordd.messages.query import Query

__all__ = ["PackedAnswers"]

VARIANTS = 8
USES = 64
"""Answers given from one pile before the next variant is built."""
MAX_KEY_BYTES = 300
"""No plain question is longer; what is longer does not come twice."""


class _Entry:
    __slots__ = ("left", "queries", "size", "variants")

    def __init__(self, key: bytes) -> None:
        self.queries: frozenset[Query] = frozenset()
        self.variants: deque[bytes] = deque(maxlen=VARIANTS)
        self.size = len(key)
        self.left = 0
        """Length of the pile when it was last looked at."""


class PackedAnswers:
    """Invariant: `piles` and `_entries` have the same keys, `_made_from` names each key under each of its queries."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.piles: dict[bytes, list[bytes]] = {}
        self.bytes = 0
        self._entries: dict[bytes, _Entry] = {}
        self._made_from: dict[Query, set[bytes]] = {}
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    def put(self, key: bytes, message: bytes, queries: Iterable[Query], varied: bool) -> None:
        """Keep `message`, which has just been sent once. `varied`: the next one built may be another."""
        if not key or len(key) > MAX_KEY_BYTES or len(key) + len(message) > self._max_bytes:
            return
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(key)
            self.bytes += entry.size
        self._link(key, entry, frozenset(queries))
        if not varied:
            entry.variants.clear()
        entry.variants.append(message)
        size = len(key) + sum(map(len, entry.variants))
        self.bytes += size - entry.size
        entry.size = size
        complete = not varied or len(entry.variants) == VARIANTS
        self.piles[key] = list(entry.variants) * (USES // len(entry.variants)) if complete else []
        self._make_room()

    def take_used(self) -> set[Query]:
        """The queries behind all answers that were given since the last call."""
        used: set[Query] = set()
        for key, entry in self._entries.items():
            if len(self.piles[key]) != entry.left:
                entry.left = len(self.piles[key])
                used |= entry.queries
        return used

    def drop(self, query: Query) -> None:
        """Forget everything made from the view of `query`."""
        for key in self._made_from.pop(query, ()):
            self._remove(key)

    def clear(self) -> None:
        for key in list(self._entries):
            self._remove(key)

    def __len__(self) -> int:
        return len(self._entries)

    def _link(self, key: bytes, entry: _Entry, queries: frozenset[Query]) -> None:
        for query in entry.queries - queries:
            self._unlink(key, query)
        for query in queries - entry.queries:
            self._made_from.setdefault(query, set()).add(key)
        entry.queries = queries

    def _unlink(self, key: bytes, query: Query) -> None:
        keys = self._made_from.get(query)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._made_from[query]

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.piles.pop(key, None)
        self.bytes -= entry.size
        for query in entry.queries:
            self._unlink(key, query)

    def _make_room(self) -> None:
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
