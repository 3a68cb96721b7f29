"""Files that hold the replicated state: the live one, snapshots of it for others, and one that is arriving.

    state-<index>-<uuid>.db     a state database; raft.db names the one that counts
    snapshot-<uuid>.db          built to be sent or kept as a backup
    incoming-<digest>.part      arriving; survives a restart, so that the transfer can be resumed
    damaged-state.db            evidence: the state file that was last found damaged and replaced

No name is ever used twice: SQLite would merge an old `-wal` into the new file beside it. What the tables mean is the
state's business; here a snapshot is a number of bytes with a SHA-256. All functions are synchronous. Those that work
through whole files (`build`, `Incoming.finish`) belong on a helper thread, let go of the GIL meanwhile, and keep to a
pace (`pace.py`); `build` also syncs as it goes, so that no fsync of the log has to wait for a whole file of dirty pages.
"""

import hashlib
import os
import re
import sqlite3
import uuid
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path

import msgspec

from coordd.errors import DamagedError, StorageError, invariant
from coordd.storage.failures import storing
from coordd.storage.files import FILE_MODE, sync_folder, sync_path
from coordd.storage.pace import Pace
from coordd.types import Base, Index, SnapshotMeta

__all__ = ["Incoming", "SnapshotFile", "SnapshotStore"]

SOURCE_WAL_LIMIT_BYTES = 256 * 1024 * 1024
"""A build that keeps the state's WAL from being checkpointed until it is larger than this is given up."""
_STEPS_BETWEEN_LOOKS = 20_000
_SYNC_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
EVIDENCE = "damaged-state.db"
_BESIDE = ("", "-wal", "-shm", "-journal")
_OURS = re.compile(r"(state-\d+-[0-9a-f]{32}\.db|snapshot-[0-9a-f]{32}\.db)(-wal|-shm|-journal)?")


class SnapshotFile(msgspec.Struct, frozen=True):
    """A finished snapshot: synced and verified."""

    name: str
    size: int
    digest: str
    """SHA-256, hexadecimal."""


class SnapshotStore:
    """The files of one data folder."""

    def __init__(
        self, folder: Path, pace: Pace | None = None, new_id: Callable[[], str] = lambda: uuid.uuid4().hex
    ) -> None:
        """`new_id`: 32 hexadecimal digits, never the same ones twice."""
        self.folder = folder
        self.pace = pace or Pace()
        self._new_id = new_id

    def path(self, name: str) -> Path:
        return self.folder / name

    def new_name(self, index: Index) -> str:
        """A name for a state file that was never used before."""
        return f"state-{index}-{self._new_id()}.db"

    def build(self, source: str, wal_limit: int = SOURCE_WAL_LIMIT_BYTES) -> SnapshotFile:
        """Copy the committed state of file `source`, which may be in use, on a connection of its own.

        Raises: DiskFullError, DamagedError, StorageError (also if the pace was stopped or the source's WAL grew beyond
        the limit meanwhile); then nothing is left behind.
        """
        target = self.path(f"snapshot-{self._new_id()}.db")
        try:
            with storing(target):
                target.touch(FILE_MODE)
                self._vacuum(self.path(source), target, wal_limit)
            return self._finished(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _vacuum(self, source: Path, target: Path, wal_limit: int) -> None:
        wal = source.with_name(source.name + "-wal")
        work = self.pace.begin()
        synced = 0

        def given_up() -> bool:
            nonlocal synced
            size = target.stat().st_size
            if size - synced >= _SYNC_BYTES:
                os.fdatasync(descriptor)
                synced = size
            waiting = wal.stat().st_size if wal.exists() else 0
            # A copy in haste crowds the disk for a while; one that is never finished leaves the follower behind for good.
            hurry = waiting > wal_limit // 2
            return waiting > wal_limit or self.pace.stopped or not (hurry or work.reached(size))

        uri = f"{source.absolute().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection,
            target.open("rb", buffering=0) as file,
        ):
            descriptor = file.fileno()
            connection.set_progress_handler(given_up, _STEPS_BETWEEN_LOOKS)
            try:
                connection.execute("VACUUM INTO ?", (str(target),))
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                why = "the server ends" if self.pace.stopped else "its log of changes grew too large"
                raise StorageError(f"the snapshot of {source} was given up: {why}") from error

    def _finished(self, target: Path) -> SnapshotFile:
        sync_path(target)
        sync_folder(self.folder)
        with (
            storing(target),
            closing(sqlite3.connect(f"{target.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection,
        ):
            # Indexes too: VACUUM copies them as they are, and no digest of rows notices a damaged one.
            problem = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise DamagedError(f"{target} is damaged ({problem}): check memory and disk of this host")
        return SnapshotFile(target.name, target.stat().st_size, digest_of(target, self.pace))

    def receive(self, snapshot: SnapshotMeta) -> "Incoming":
        """Begin, or go on, to receive this snapshot. What arrived of any other one is deleted: one at a time."""
        part = self.path(f"incoming-{snapshot.digest}.part")
        for other in self.folder.glob("incoming-*.part"):
            if other != part:
                other.unlink(missing_ok=True)
        return Incoming(part, snapshot, self.path(self.new_name(snapshot.index)), self.pace)

    def read_chunk(self, name: str, offset: int, size: int) -> bytes:
        """A piece of a finished file; shorter at its end, empty behind it."""
        path = self.path(name)
        with storing(path), path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size, offset)

    def state_path(self, base: Base) -> str:
        """Where the state of a starting server lies. Without a file the log is applied from its beginning; where that is gone,
        another server's state is waited for, with an empty one (":memory:")."""
        path = self.path(base.state_file)
        return str(path) if base.index == 0 or path.exists() else ":memory:"

    def set_aside(self, name: str) -> None:
        """Keep a damaged state file, and what SQLite left beside it, under one name: the last such file. Durable."""
        self.remove(EVIDENCE)
        with storing(self.path(name)):
            for suffix in _BESIDE:
                path = self.path(name + suffix)
                if path.exists():
                    path.rename(self.path(EVIDENCE + suffix))
        sync_folder(self.folder)

    def remove(self, name: str) -> None:
        """Delete one file and what SQLite left beside it. Harmless when repeated."""
        for path in (self.path(name + suffix) for suffix in _BESIDE):
            with storing(path):
                path.unlink(missing_ok=True)

    def remove_all_but(self, names: Collection[str]) -> list[str]:
        """Delete state files and snapshots that are not named, durably; tells which. Never call it while one is built.

        A part that is arriving stays: `receive` deletes it unless it is wanted.
        """
        with storing(self.folder):
            found = {(path.name, match[1]) for path in self.folder.iterdir() if (match := _OURS.fullmatch(path.name))}
            removed = sorted(name for name, owner in found if owner not in names)
            for name in removed:
                self.path(name).unlink(missing_ok=True)
        if removed:
            sync_folder(self.folder)
        return removed


class Incoming:
    """A snapshot that is arriving in order. `offset` is where the next chunk begins; after a restart it goes on there."""

    def __init__(self, part: Path, snapshot: SnapshotMeta, target: Path, pace: Pace) -> None:
        """Used by `SnapshotStore.receive` alone."""
        self._part = part
        self._pace = pace
        self._target = target
        self._snapshot = snapshot
        with storing(part):
            self._descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            size = os.fstat(self._descriptor).st_size
            if size > snapshot.size:
                os.ftruncate(self._descriptor, 0)
                size = 0
        self.offset = size

    @property
    def name(self) -> str:
        """Of the state file that it will be."""
        return self._target.name

    @property
    def complete(self) -> bool:
        return self.offset == self._snapshot.size

    def write(self, offset: int, chunk: bytes) -> bool:
        """Add a chunk. False, and nothing is done: it is not the next one, or longer than what is missing."""
        if offset != self.offset or not chunk or offset + len(chunk) > self._snapshot.size:
            return False
        with storing(self._part):
            written = 0
            while written < len(chunk):
                written += os.pwrite(self._descriptor, chunk[written:], offset + written)
        self.offset += len(chunk)
        return True

    def finish(self) -> str | None:
        """Verify, sync and give the file its name, which is returned. None: it is not what was announced, and deleted."""
        invariant(self.complete, "a snapshot is finished before all of it is here", offset=self.offset)
        self.close()
        if digest_of(self._part, self._pace) != self._snapshot.digest:
            self._part.unlink(missing_ok=True)
            return None
        sync_path(self._part)
        with storing(self._part):
            self._part.rename(self._target)
        sync_folder(self._target.parent)
        return self._target.name

    def close(self) -> None:
        """Leave it for later. Harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Give it up and delete what arrived."""
        self.close()
        self._part.unlink(missing_ok=True)


def digest_of(path: Path, pace: Pace) -> str:
    """SHA-256 of a file, hexadecimal. Raises: StorageError if the pace was stopped meanwhile."""
    work, hashed, done = pace.begin(), hashlib.sha256(), 0
    with storing(path), path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            hashed.update(piece)
            done += len(piece)
            if not work.reached(done):
                raise StorageError(f"{path} was not read to its end: the server ends")
    return hashed.hexdigest()
