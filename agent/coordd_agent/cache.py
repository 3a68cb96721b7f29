"""Views of what this host uses, kept up to date by the servers, and kept when no server can be reached.

`peek(query)` gives the last view at once, or None if there never was one. `wait_for(queries)` subscribes and waits for
first views. A view stays while it is wanted: it ends after `idle_s` without use (never while no server is connected:
then it could not be had again), or when there are too many. Views of what does not exist are counted apart and given up
first, because names are chosen by whoever asks DNS. `on_change(query)` is called when a view is another one, or gone.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator

import msgspec

from coordd.errors import CoorddError, DeniedError
from coordd.messages.client import ServerInfo, View
from coordd.messages.query import Catalog, Health, Query, QueryResult, ServiceHealth
from coordd_agent.cluster import Backoff, Cluster
from coordd_agent.settings import CacheSettings

__all__ = ["Cache", "StartTask"]

log = logging.getLogger(__name__)

StartTask = Callable[[Coroutine[None, None, None]], "asyncio.Task[None]"]

RETRY_S, MAX_RETRY_S = 0.5, 15.0

_size = msgspec.msgpack.Encoder()


class _Entry:
    def __init__(self, query: Query) -> None:
        self.query = query
        self.value: QueryResult | None = None
        self.size = 0
        self.received_at = 0.0
        self.used_at = time.monotonic()
        self.settled = asyncio.Event()
        """Set when there is a view, or there will be none for now."""
        self.task: asyncio.Task[None] | None = None

    @property
    def absent(self) -> bool:
        """Nothing is known of it, or it is known that there is nothing."""
        return self.value is None or (isinstance(self.value, Health | Catalog) and not self.value.entries)


class Cache:
    def __init__(
        self,
        cluster: Cluster,
        settings: CacheSettings,
        start_task: StartTask,
        *,
        on_change: Callable[[Query], None] = lambda query: None,
        trusted: Callable[[], bool] = lambda: True,
    ) -> None:
        """`trusted`: the agent's token is valid, so that what it may not see is hidden on purpose."""
        self.denied = False
        """The last subscription that was refused was refused for its token."""
        self.server_list: tuple[ServerInfo, ...] = ()
        self.bytes = 0
        self._cluster = cluster
        self._settings = settings
        self._start_task = start_task
        self._on_change = on_change
        self._trusted = trusted
        # Least recently used first. An entry is in exactly one of them.
        self._present: OrderedDict[Query, _Entry] = OrderedDict()
        self._absent: OrderedDict[Query, _Entry] = OrderedDict()
        self._contact_at = time.monotonic()

    # --- what is known ------------------------------------------------------------------------------------------------

    def peek(self, query: Query) -> QueryResult | None:
        entry = self._present.get(query) or self._absent.get(query)
        if entry is None or entry.value is None:
            return None
        self._use(entry)
        limit = self._settings.max_stale_ms
        return None if limit and self._age(entry) * 1000 > limit else entry.value

    def known_services(self) -> Iterator[Query]:
        return (query for query in list(self._present) if isinstance(query, ServiceHealth))

    def servers(self) -> tuple[ServerInfo, ...]:
        return self.server_list

    async def wait_for(self, queries: Iterable[Query]) -> None:
        entries = [self._subscribe(query) for query in queries]
        for entry in entries:
            await entry.settled.wait()

    def ages(self) -> dict[Query, float]:
        """For each view how long ago, in seconds, it was last known to be up to date."""
        return {entry.query: self._age(entry) for entry in self._entries() if entry.value is not None}

    def __len__(self) -> int:
        return len(self._present) + len(self._absent)

    # --- upkeep -------------------------------------------------------------------------------------------------------

    def contact(self, at: float) -> None:
        """A server answered at this monotonic time: until then, what is subscribed to was up to date."""
        self._contact_at = max(self._contact_at, at)

    def sweep(self, also_used: Collection[Query]) -> None:
        """End what nobody wants any more. `also_used`: queries whose answers were used without asking here."""
        for query in also_used:
            entry = self._present.get(query) or self._absent.get(query)
            if entry is not None:
                self._use(entry)
        if not self._cluster.connected:
            return
        limit = time.monotonic() - self._settings.idle_s
        for entry in [entry for entry in self._entries() if entry.used_at < limit]:
            self._end(entry)

    def renew(self) -> None:
        """Subscribe to everything anew, with the present token. The views stay meanwhile."""
        for entry in self._entries():
            if entry.task is not None:
                entry.task.cancel()
            entry.task = self._start_task(self._follow(entry))

    def close(self) -> None:
        for entry in self._entries():
            if entry.task is not None:
                entry.task.cancel()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _entries(self) -> list[_Entry]:
        return [*self._present.values(), *self._absent.values()]

    def _age(self, entry: _Entry) -> float:
        # What changes is pushed at once, so a view was right for as long as servers were heard of.
        return time.monotonic() - max(entry.received_at, self._contact_at)

    def _use(self, entry: _Entry) -> None:
        entry.used_at = time.monotonic()
        (self._absent if entry.query in self._absent else self._present).move_to_end(entry.query)

    def _subscribe(self, query: Query) -> _Entry:
        entry = self._present.get(query) or self._absent.get(query)
        if entry is None:
            entry = self._absent[query] = _Entry(query)
            entry.task = self._start_task(self._follow(entry))
            self._make_room()
        return entry

    async def _follow(self, entry: _Entry) -> None:
        backoff = Backoff(RETRY_S, MAX_RETRY_S)
        while True:
            try:
                async with contextlib.aclosing(self._cluster.subscribe(entry.query)) as views:
                    async for view in views:
                        self._take(entry, view)
                        backoff.reset()
            except CoorddError as error:
                if isinstance(error, DeniedError):
                    self._note_denied(str(error))
                entry.settled.set()
            await asyncio.sleep(backoff.pause())

    def _take(self, entry: _Entry, view: View) -> None:
        if view.filtered and not entry.absent and not self._trusted():
            # ACLs were switched on, or the token went: what was known stays until there is a valid one again.
            self._note_denied("rows are hidden")
            return
        changed = entry.value != view.value
        entry.received_at = time.monotonic()
        self.contact(entry.received_at)
        self.denied = False
        if changed:
            self.bytes -= entry.size
            entry.value, entry.size = view.value, len(_size.encode(view.value))
            self.bytes += entry.size
            source, target = (self._present, self._absent) if entry.absent else (self._absent, self._present)
            if source.pop(entry.query, None) is not None:
                target[entry.query] = entry
            self._on_change(entry.query)
        entry.settled.set()
        self._make_room()

    def _note_denied(self, reason: str) -> None:
        if not self.denied:
            log.warning("subscription denied; answers continue from the cache: %s", reason)
        self.denied = True

    def _make_room(self) -> None:
        while len(self._absent) > self._settings.max_absent:
            self._end(next(iter(self._absent.values())))
        while self._present and (
            len(self._present) > self._settings.max_entries or self.bytes > self._settings.max_bytes
        ):
            self._end(next(iter(self._present.values())))

    def _end(self, entry: _Entry) -> None:
        self._present.pop(entry.query, None)
        self._absent.pop(entry.query, None)
        self.bytes -= entry.size
        entry.settled.set()
        if entry.task is not None:
            entry.task.cancel()
        self._on_change(entry.query)
