"""A server's disk in virtual time, with the shipped log store on real SQLite files.

Work is done in order and takes its time; it is carried out at the moment of its completion. So what is under way when the
power goes was not yet written: it is lost, or it was written and nobody heard of it, or it is torn: then it is carried
out on the real files, which are cut off or scribbled on behind what was synced, below SQLite.
"""

import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

from coordd.storage import log_store
from coordd.storage.high_water import HighWater, Mark
from coordd.storage.identity import Identity
from coordd.storage.log_store import LogStore
from coordd.types import Index, LogWrite, ServerId
from tests.sim.chance import Chance
from tests.sim.surroundings import Surroundings

__all__ = ["Disk", "Work"]

Work: TypeAlias = LogWrite | Callable[[LogStore], Any]
Done: TypeAlias = Callable[[Any], None]

_WAL = "raft.db-wal"
_DATABASE = "raft.db"
_MARK = "high_water"


class _PowerLost(BaseException):
    """Raised inside the store, where the power goes."""


class Disk:
    """One data folder at a time, and one store on it while the server is up."""

    def __init__(self, around: Surroundings, host: str, chance: Chance) -> None:
        self._around = around
        self._host = host
        self._chance = chance
        self._copies = 0
        self._life = 0
        self.folder = around.folder / f"{host}-0"
        self._queue: deque[tuple[Work, Done]] = deque()
        self._busy = 0
        """How many of the queue's first are being worked on."""
        self._since = 0.0
        self._before = b"", b""
        self.store: LogStore | None = None
        self.server = ServerId("")
        self.stalled_until = 0.0
        self.slowness = 1.0

    # --- lives -------------------------------------------------------------------------------------------------------

    def open(self) -> LogStore:
        """Power is there: the store judges what it finds. A new folder gets an identity from the seed."""

        def identity(name: str) -> Identity:
            return Identity(name, f"{self._chance.getrandbits(128):032x}")

        tuning = self._around.tuning
        with mock.patch.object(log_store, "new_identity", identity):
            self.store = LogStore.open(
                self.folder, self._host, tail_bytes=tuning.tail_bytes, wal_limit=tuning.wal_limit
            )
        self.server = self.store.identity.server
        return self.store

    def wipe(self) -> None:
        """A new disk in a server that is down: it will start as somebody else."""
        shutil.rmtree(self.folder)
        self._renew()

    def _renew(self) -> Path:
        """The folder's next name; the content moves by copying, because files of a cut-off life are never closed well."""
        self._copies += 1
        self.folder = self._around.folder / f"{self._host}-{self._copies}"
        return self.folder

    def crash(self) -> str:
        """The power goes, or the process is killed. Returns what became of the work under way."""
        store, old = self.store, self.folder
        if store is None:
            return "down"
        fate = self._interrupt(store) if self._busy else "idle"
        shutil.copytree(old, self._renew())
        self._tear(fate)
        store.abandon()
        for connection in log_store._abandoned:
            connection.close()  # type: ignore[attr-defined]
        log_store._abandoned.clear()
        self.store = None
        self._life += 1
        self._queue.clear()
        self._busy = 0
        shutil.rmtree(old)
        return fate

    def stop(self) -> None:
        """A clean end: nothing waits any more."""
        assert self.store is not None
        self.store.close()
        self.store = None
        self._life += 1
        self._queue.clear()
        self._busy = 0

    # --- work --------------------------------------------------------------------------------------------------------

    def submit(self, work: Work, done: Done) -> None:
        """In order; `done` is called with the result. Consecutive writes that wait are one group."""
        self._queue.append((work, done))
        if not self._since:
            self._since = self._around.schedule.now
        if not self._busy:
            self._begin()

    def stalled_for(self) -> float:
        """Seconds since the oldest unfinished work was handed over."""
        return self._around.schedule.now - self._since if self._queue else 0.0

    def chain(self, index: Index) -> int | None:
        """The chained checksum at an index; None if the log does not hold it."""
        store = self.store
        return store._place(index)[1] if store is not None and store.base.index <= index <= store.last else None

    def _begin(self) -> None:
        self._busy = 1
        if isinstance(self._queue[0][0], LogWrite):
            self._busy = sum(1 for _ in self._group())
        now = self._around.schedule.now
        latency = self._around.tuning.write_latency * self.slowness * (0.25 + self._chance.expovariate(1.3))
        self._around.schedule.at(max(now, self.stalled_until) + latency, self._finish, self._life)

    def _group(self) -> list[LogWrite]:
        writes = []
        for work, _ in self._queue:
            if not isinstance(work, LogWrite):
                break
            writes.append(work)
        return writes

    def _finish(self, life: int) -> None:
        if life != self._life or self.store is None:
            return
        if self.stalled_until > self._around.schedule.now:
            self._around.schedule.at(self.stalled_until, self._finish, life)
            return
        work, _ = self._queue[0]
        finished = [self._queue.popleft() for _ in range(self._busy)]
        self._busy = 0
        self._since = self._around.schedule.now if self._queue else 0.0
        if isinstance(work, LogWrite):
            self._write([write for write, _ in finished if isinstance(write, LogWrite)])
            for write, done in finished:
                done(write)
        else:
            finished[0][1](work(self.store))
        if life == self._life and self.store.upkeep_due:
            self.store.upkeep()
        if self._queue and not self._busy and life == self._life:
            self._begin()

    def _write(self, writes: list[LogWrite]) -> None:
        assert self.store is not None
        self.store.write(writes)
        self._around.counts["disk writes"] += 1
        for write in writes:
            self._around.invariants.durable(self.server, write)

    # --- what becomes of work under way ------------------------------------------------------------------------------

    def _interrupt(self, store: LogStore) -> str:
        """Decide, and carry out what reaches the disk before the power goes."""
        work = self._queue[0][0]
        fate = self._chance.choice(["lost", "lost", "done", "torn", "torn"])
        if fate == "lost":
            return fate
        if not isinstance(work, LogWrite):
            if fate == "done":
                work(store)
            return "work " + fate if fate == "done" else "lost"
        group = self._group()[: self._busy]
        if fate == "done":
            store.write(group)
            return fate
        return self._write_until_the_mark(store, group)

    def _write_until_the_mark(self, store: LogStore, group: list[LogWrite]) -> str:
        """Entries reach the files, the mark that would vouch for them does not."""
        self._before = self._content(_WAL), self._content(_DATABASE)
        genuine = HighWater.write

        def write(mark: HighWater, new: Mark) -> None:
            if (self._content(_WAL), self._content(_DATABASE)) != self._before:
                raise _PowerLost
            genuine(mark, new)

        try:
            with mock.patch.object(HighWater, "write", write):
                store.write(group)
        except _PowerLost:
            return "torn"
        return "done"

    def _content(self, name: str) -> bytes:
        path = self.folder / name
        return path.read_bytes() if path.exists() else b""

    def _tear(self, fate: str) -> None:
        """Of what the last transaction changed in the WAL a part arrives; the rest is as before, or noise."""
        wal, database = self._content(_WAL), self._content(_DATABASE)
        if fate != "torn" or database != self._before[1]:
            return
        old = self._before[0].ljust(len(wal), b"\0")
        changed = [place for place in range(0, len(wal), 16) if wal[place : place + 16] != old[place : place + 16]]
        if not changed or self._chance.happens(0.25):
            return  # all of it arrived, only the mark did not
        cut = self._chance.randint(changed[0], len(wal))
        keeps = self._chance.choice([self._before[0][cut:], b"", self._chance.randbytes(min(4096, len(wal) - cut))])
        (self.folder / _WAL).write_bytes(wal[:cut] + keeps)
