"""A data folder, and what a power cut makes of it.

A cut-off life's files are copied to a new folder, as they were or torn, and the next life opens those: whatever the old
store still holds open can then do no harm.
"""

import shutil
from pathlib import Path
from unittest import mock

from coordd.storage import log_store
from coordd.storage.high_water import HighWater, Mark
from coordd.storage.identity import Identity
from coordd.storage.log_store import LogStore
from coordd.storage.writer import Job
from coordd.types import LogWrite
from tests.sim.chance import Chance
from tests.sim.surroundings import Surroundings
from tests.sim.writer import VirtualWriter

__all__ = ["Disk"]

_WAL = "raft.db-wal"
_DATABASE = "raft.db"


class _PowerLost(BaseException):
    """Raised inside the store, where the power goes."""


class Disk:
    """One data folder at a time."""

    def __init__(self, around: Surroundings, host: str, chance: Chance) -> None:
        self._around = around
        self._host = host
        self._chance = chance
        self._copies = 0
        self.folder = around.folder / f"{host}-0"
        self._before = b"", b""

    def open(self) -> LogStore:
        """The store judges what it finds. A new folder gets an identity from the seed."""

        def identity(name: str) -> Identity:
            return Identity(name, f"{self._chance.getrandbits(128):032x}")

        tuning = self._around.tuning
        with mock.patch.object(log_store, "new_identity", identity):
            return LogStore.open(self.folder, self._host, tail_bytes=tuning.tail_bytes, wal_limit=tuning.wal_limit)

    def wipe(self) -> None:
        """A new disk in a server that is down: it will start as somebody else."""
        shutil.rmtree(self.folder)
        self._renew()

    def _renew(self) -> Path:
        self._copies += 1
        self.folder = self._around.folder / f"{self._host}-{self._copies}"
        return self.folder

    def cut(self, writer: VirtualWriter) -> str:
        """The power goes, or the process is killed. Returns what became of the work under way."""
        under_way, old = writer.end(), self.folder
        fate = self._interrupt(writer, under_way) if under_way else "idle"
        shutil.copytree(old, self._renew())
        if fate == "torn":
            self._tear()
        writer.store.abandon()
        for connection in log_store._abandoned:
            connection.close()  # type: ignore[attr-defined]
        log_store._abandoned.clear()
        shutil.rmtree(old)
        return fate

    def _interrupt(self, writer: VirtualWriter, under_way: list[Job]) -> str:
        """Decide, and carry out what reaches the disk before the power goes."""
        fate = self._chance.choice(["lost", "lost", "done", "torn", "torn"])
        writes = [job for job in under_way if isinstance(job, LogWrite)]
        if fate == "done" or (fate == "torn" and not writes):
            if writes:
                writer.store.write(writes)  # the judge is not told: it finds out at the next start
            else:
                writer.perform(under_way)
            return "done"
        return self._write_until_the_mark(writer.store, writes) if fate == "torn" else fate

    def _write_until_the_mark(self, store: LogStore, writes: list[LogWrite]) -> str:
        """Entries reach the files, the mark that would vouch for them does not."""
        self._before = self._content(_WAL), self._content(_DATABASE)
        genuine = HighWater.write

        def write(mark: HighWater, new: Mark) -> None:
            if (self._content(_WAL), self._content(_DATABASE)) != self._before:
                raise _PowerLost
            genuine(mark, new)

        try:
            with mock.patch.object(HighWater, "write", write):
                store.write(writes)
        except _PowerLost:
            return "torn"
        return "done"

    def _content(self, name: str) -> bytes:
        path = self.folder / name
        return path.read_bytes() if path.exists() else b""

    def _tear(self) -> None:
        """Of what the last transaction changed in the WAL a part arrives; the rest is as before, or noise."""
        wal, database = self._content(_WAL), self._content(_DATABASE)
        if database != self._before[1]:
            return
        old = self._before[0].ljust(len(wal), b"\0")
        changed = [place for place in range(0, len(wal), 16) if wal[place : place + 16] != old[place : place + 16]]
        if not changed or self._chance.happens(0.25):
            return  # all of it arrived, only the mark did not
        cut = self._chance.randint(changed[0], len(wal))
        keeps = self._chance.choice([self._before[0][cut:], b"", self._chance.randbytes(min(4096, len(wal) - cut))])
        (self.folder / _WAL).write_bytes(wal[:cut] + keeps)
