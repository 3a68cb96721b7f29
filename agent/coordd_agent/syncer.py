"""The task that makes the catalog say what the registry says.

At each change, after a pause that folds many into one; and once a minute against a fresh copy of the catalog, since
others can change it. A check's new output alone waits, because outputs differ at every run and each write is replicated
to all servers. What is refused is tried apart, so that it holds nobody up, and again with the next round.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass

from coordd.errors import ConflictError, CoorddError, DeniedError, InvalidError
from coordd.messages.query import Catalog, NodeCatalog
from coordd.types import Index
from coordd_agent.cluster import Backoff, Cluster
from coordd_agent.registry import Registry
from coordd_agent.settings import SyncSettings
from coordd_agent.sync import CatalogCopy, LocalNode, SyncCommand, apart, catalog_copy, difference, take_over

__all__ = ["Pushed", "Syncer"]

log = logging.getLogger(__name__)

FOLD_S = 0.02
"""Changes within this time go out together."""
RETRY_S, MAX_RETRY_S = 0.5, 15.0
CALL_S = 10.0
UNCONNECTED_PATIENCE_S = 1.0
REFUSALS = (DeniedError, InvalidError, ConflictError)


@dataclass(frozen=True)
class Pushed:
    """How a push to the catalog ended."""

    index: Index
    problem: str
    """"" : everything is there."""


class Syncer:
    def __init__(self, node: LocalNode, registry: Registry, cluster: Cluster, settings: SyncSettings) -> None:
        self.problem = "the agent has not reached a server yet"
        """Why the catalog does not say all that the registry says; "" when it does."""
        self.denied = False
        self.synced_at: float | None = None
        self._node = node
        self._registry = registry
        self._cluster = cluster
        self._settings = settings
        self._copy: CatalogCopy | None = None
        self._output_sent: dict[str, float] = {}
        self._index: Index = 0
        self._changed = asyncio.Event()
        self._wanted = 0
        self._rounds = asyncio.Condition()
        self._tried = -1

    @property
    def unsynced(self) -> int:
        """Commands still to be sent, held output aside; -1 while the catalog is not known."""
        if self._copy is None:
            return -1
        return len(difference(self._node, self._registry, self._copy, frozenset(self._registry.checks)))

    def changed(self) -> None:
        """Something in the registry is new."""
        self._wanted += 1
        self._changed.set()

    def look_again(self) -> None:
        """The copy of the catalog is no longer to be trusted: a new token, or the node is unknown there."""
        self._copy = None
        self.changed()

    async def push(self, patience_s: float) -> Pushed:
        """Wait until what is registered now was sent, or could not be, but no longer than `patience_s`."""
        wanted = self._wanted
        if not self._cluster.connected:
            patience_s = min(patience_s, UNCONNECTED_PATIENCE_S)
        try:
            async with asyncio.timeout(patience_s), self._rounds:
                await self._rounds.wait_for(lambda: self._tried >= wanted)
        except TimeoutError:
            return Pushed(0, self.problem or "no server answered in time; the agent goes on trying")
        return Pushed(0 if self.problem else self._index, self.problem)

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(RETRY_S, MAX_RETRY_S)
        while True:
            wanted = self._wanted
            self._changed.clear()
            done = await self._round()
            async with self._rounds:
                self._tried = wanted
                self._rounds.notify_all()
            if done:
                backoff.reset()
                if not await self._wait(self._settings.interval_s * random.uniform(0.9, 1.1)):  # noqa: S311
                    self._copy = None
                else:
                    await asyncio.sleep(FOLD_S)
            else:
                self._copy = None
                await self._wait(backoff.pause())

    async def _wait(self, seconds: float) -> bool:
        """True if there was a change before the time was over."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _round(self) -> bool:
        """Close the difference once. False: something is left to be tried again."""
        refused: list[CoorddError] = []
        try:
            if self._copy is None:
                self._copy = await self._read()
            for command in difference(self._node, self._registry, self._copy, self._held(time.monotonic())):
                await self._send(command, self._copy, refused)
        except CoorddError as error:
            refused = [error]
        self._note(refused)
        return not refused

    async def _send(self, command: SyncCommand, copy: CatalogCopy, refused: list[CoorddError]) -> None:
        try:
            # Sent twice it is the same as once, so it needs no number.
            done = await self._cluster.write(command, numbered=False, timeout=CALL_S)
        except REFUSALS as error:
            pieces = apart(command)
            if len(pieces) == 1:
                refused.append(error)
                return
            for piece in pieces:
                await self._send(piece, copy, refused)
            return
        self._index = done.index
        take_over(copy, self._node, command)
        now = time.monotonic()
        self._output_sent |= {one.id: now for one in getattr(command, "checks", ())}

    async def _read(self) -> CatalogCopy:
        value = (await self._cluster.read(NodeCatalog(self._node.name))).value
        return catalog_copy(next(iter(value.entries), None) if isinstance(value, Catalog) else None)

    def _held(self, now: float) -> frozenset[str]:
        self._output_sent = {key: at for key, at in self._output_sent.items() if key in self._registry.checks}
        pause = self._settings.output_interval_s
        return frozenset(key for key, at in self._output_sent.items() if now - at < pause)

    def _note(self, refused: list[CoorddError]) -> None:
        """One line in the log for each new problem, not for each attempt."""
        problem = "; ".join(sorted({str(error) for error in refused}))
        self.denied = any(isinstance(error, DeniedError) for error in refused)
        if problem and problem != self.problem:
            log.warning("catalog not up to date: %s", problem)
        elif self.problem and not problem:
            log.info("catalog up to date")
        self.problem = problem
        if not problem:
            self.synced_at = time.monotonic()
