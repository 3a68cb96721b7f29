"""The log on disk: raft.db and its high-water mark, in a folder that this process alone has open.

Every method is synchronous, and what it did is durable when it returns. The order within a write carries all the rest:

1. If entries are to be replaced, the mark is lowered below them and synced.
2. One SQLite transaction: entries and hard state together (rule 3), one fdatasync of the WAL.
3. The mark is raised to the new end of the log and synced. Only then may anything be acknowledged.

Errors: after DiskFullError nothing was promised, and the same call works once there is space. After any other
StorageError the process must end without trying again (rule 8); `abandon` then leaves the files alone.
One connection, used by one thread at a time.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from coordd.errors import DamagedError, DiskFullError, StorageError, invariant
from coordd.storage.chain import chain_of
from coordd.storage.examine import DATABASE, HIGH_WATER, examine
from coordd.storage.failures import storing
from coordd.storage.files import prepare_folder
from coordd.storage.high_water import HighWater, Mark, read_certain_mark
from coordd.storage.identity import Identity, new_identity, read_identity, write_identity
from coordd.storage.lock import FolderLock
from coordd.storage.log_schema import store_base, store_hard_state
from coordd.storage.opening import create, open_database, prepare
from coordd.storage.recovery import Recovered, Verdict, term_runs
from coordd.types import Base, Index, LogSlice, LogWrite, Term

__all__ = ["LogStore"]

TAIL_BYTES = 16 * 1024 * 1024
"""How much of the log's end `recover` hands over, unless told otherwise."""
WAL_LIMIT_BYTES = 16 * 1024 * 1024
"""A checkpoint is due when about this much was written since the last one."""
TRIM_ENTRIES = 512
"""Entries deleted in one portion of a compaction."""
_PAGES_OF_A_WRITE = 4
"""Pages that a transaction changes beside its entries: an upper bound, for the estimate of the WAL's size."""
_BYTES_OF_A_ROW = 40
_PAGE_BYTES = 4096

Row: TypeAlias = tuple[Index, Term, int, bytes, int]


class LogStore:
    """An open log, made by `open`. `identity` says whose it is, `fdatasyncs` how often it waited for the disk."""

    def __init__(self, folder: Path, lock: FolderLock, identity: Identity, verdict: Verdict, wal_limit: int) -> None:
        """Take over files that were examined and prepared; for `open` alone."""
        self.identity = identity
        self._folder = folder
        self._path = folder / DATABASE
        self._lock = lock
        self._recovered: Recovered | None = verdict.recovered
        self._base = verdict.recovered.base
        self._last = verdict.recovered.tail.last
        self._chain = verdict.chain
        self._hard_state = verdict.recovered.hard_state
        self._stored_hard_state = verdict.stored_hard_state
        self._wal_limit = wal_limit
        self._unsaved_bytes = 0
        self._database_syncs = 0
        self._high_water = HighWater(folder / HIGH_WATER)
        self._connection = open_database(self._path, wal_limit)
        try:
            self._stored_first = self._take_over(verdict)
        except BaseException:
            self.abandon()
            raise

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        *,
        tail_bytes: int = TAIL_BYTES,
        wal_limit: int = WAL_LIMIT_BYTES,
        approve: Callable[[Identity, Recovered], None] = lambda identity, recovered: None,
    ) -> "LogStore":
        """Open the log of server `name`, or begin one in an empty folder, which is created if need be.

        `approve` sees what was found before anything is changed, and may refuse it by raising.
        Raises: DamagedError, InUseError, StorageError, each naming the path; then no file has changed.
        """
        prepare_folder(folder)
        lock = FolderLock(folder)
        try:
            identity = read_identity(folder, name)
            found = _examine(folder, identity is not None, tail_bytes)
            if identity is not None and found is not None:
                approve(identity, found[1].recovered)
        except BaseException:
            lock.undo()
            raise
        try:
            if found is None:
                create(folder)
                found = examine(folder, False, tail_bytes)
            if found is None:
                raise StorageError(f"{folder / DATABASE} vanished as soon as it was made")
            mark, verdict = found
            prepare(folder, verdict)
            identity = identity or new_identity(name)
            identity = msgspec.structs.replace(identity, boot=max(identity.boot, mark.boot) + 1)
            return cls(folder, lock, identity, verdict, wal_limit)
        except BaseException:
            lock.release()
            raise

    @property
    def fdatasyncs(self) -> int:
        return self._database_syncs + self._high_water.syncs

    @property
    def base(self) -> Base:
        return self._base

    @property
    def last(self) -> Index:
        return self._last

    def recover(self) -> Recovered:
        """What `open` found, verified; once, because it holds a good part of the log in memory."""
        recovered, self._recovered = self._recovered, None
        invariant(recovered is not None, "recover was called a second time")
        assert recovered is not None
        return recovered

    def join(self, cluster_id: str) -> None:
        """Remember the cluster. Raises: StorageError if the folder belongs to another one."""
        joined = self.identity.joined(cluster_id)
        if joined != self.identity:
            write_identity(self._folder, joined)
            self.identity = joined

    # --- Writing ------------------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[LogWrite]) -> None:
        """Any number of writes as one. A new commit index alone waits in memory for the next write (rule 5)."""
        invariant(len(writes) > 0, "a write of nothing")
        before = self._hard_state
        slices = [write.slice for write in writes if write.slice is not None and write.slice.entries]
        self._hard_state = writes[-1].hard_state
        if not slices and not any(write.must_sync for write in writes):
            return
        first, rows = self._rows(slices)
        try:
            with self._promising_no_more_than(first - 1):
                self._store(first, rows)
        except DiskFullError:
            self._hard_state = before
            raise
        self._raise_mark()

    def _rows(self, slices: Sequence[LogSlice]) -> tuple[Index, list[Row]]:
        """Where the stored log is to end, and what follows there: of entries that replace each other the last ones."""
        first = self._last + 1
        rows: list[Row] = []
        for piece in slices:
            invariant(
                self._base.index < piece.first <= first + len(rows),
                "entries that do not continue the log",
                first=piece.first,
                base=self._base.index,
                last=first + len(rows) - 1,
            )
            if piece.first < first:
                first = piece.first
                rows.clear()
            else:
                del rows[piece.first - first :]
            before = self._chain if first - 1 == self._last else None
            chain = rows[-1][4] if rows else self._place(first - 1)[1] if before is None else before
            for index, (term, data) in enumerate(zip(piece.terms(), piece.entries, strict=True), piece.first):
                chain = chain_of(chain, index, term, data)
                rows.append((index, term, data[0], data, chain))
        return first, rows

    def _store(self, first: Index, rows: list[Row]) -> None:
        with self._transaction():
            if first <= self._last:
                self._connection.execute("DELETE FROM entries WHERE idx >= ?", (first,))
            self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
            if self._hard_state != self._stored_hard_state:
                store_hard_state(self._connection, self._hard_state)
        self._stored_hard_state = self._hard_state
        if rows:
            self._last, self._chain = rows[-1][0], rows[-1][4]
        self._unsaved_bytes += sum(len(row[3]) for row in rows) + _BYTES_OF_A_ROW * len(rows)

    def install(self, base: Base) -> None:
        """Empty the log and let it begin behind `base`: one transaction, for a snapshot that was received."""
        with self._promising_no_more_than(base.index - 1), self._transaction():
            self._connection.execute("DELETE FROM entries")
            store_base(self._connection, base)
        self._base, self._last, self._chain = base, base.index, base.chain
        self._stored_first = base.index + 1
        self._raise_mark()

    # --- The mark -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _promising_no_more_than(self, last: Index) -> Iterator[None]:
        """Lower the mark before what lies behind `last` goes; a full disk restores it, as the log then stayed whole.

        While a leader refills what the disk has forgotten, the promise stays as it was: it is not kept yet.
        """
        mark = self._high_water.mark
        if not mark.refilling and mark.last > last:
            chain = self._place(last)[1] if last >= self._base.index else 0
            self._high_water.write(msgspec.structs.replace(mark, last=max(last, 0), chain=chain))
        try:
            yield
        except DiskFullError:
            if self._high_water.mark != mark:
                with suppress(DiskFullError):
                    self._high_water.write(mark)
            raise

    def _raise_mark(self) -> None:
        mark = self._high_water.mark
        owing = mark.refilling and mark.last > self._last
        self._high_water.write(
            Mark(
                last=mark.last if owing else self._last,
                chain=0 if owing else self._chain,
                term=self._hard_state.term,
                vote=self._hard_state.vote,
                boot=self.identity.boot,
                refilling=owing,
            )
        )

    # --- Reading ------------------------------------------------------------------------------------------------------

    def read(self, first: Index, max_bytes: int) -> tuple[Term, LogSlice] | None:
        """The term before `first` and the entries from there on: as many as fit `max_bytes`, at least one if there is.

        None: compacted. Raises: DamagedError if an entry no longer matches its checksum.
        """
        if first <= self._base.index:
            return None
        if first > self._last + 1:
            return 0, LogSlice(first, [], ())
        previous_term, chain = self._place(first - 1)
        terms: list[Term] = []
        entries: list[bytes] = []
        size = 0
        query = "SELECT idx, term, data, chain FROM entries WHERE idx >= ? ORDER BY idx"
        with storing(self._path), closing(self._connection.execute(query, (first,))) as rows:
            for index, term, data, stored in rows:
                chain = self._verified(chain, index, term, data, stored)
                if index != first + len(entries):
                    raise self._missing(first + len(entries))
                size += len(data)
                if entries and size > max_bytes:
                    break
                terms.append(term)
                entries.append(data)
            else:
                if first + len(entries) <= self._last:
                    raise self._missing(first + len(entries))
        return previous_term, LogSlice(first, entries, term_runs(first, terms))

    def chain_at(self, index: Index) -> int | None:
        """The chain at an index; None if it is compacted away or not there yet."""
        return self._place(index)[1] if self._base.index <= index <= self._last else None

    def _place(self, index: Index) -> tuple[Term, int]:
        """Term and chain of the entry at `index`, which may be the base; verified, since both are passed on."""
        if index == self._base.index:
            return self._base.term, self._base.chain
        query = "SELECT idx, term, data, chain FROM entries WHERE idx IN (?, ?) ORDER BY idx"
        with storing(self._path):
            rows = self._connection.execute(query, (index - 1, index)).fetchall()
        if not rows or rows[-1][0] != index or (len(rows) < 2 and index - 1 > self._base.index):
            raise self._missing(index)
        before = self._base.chain if index - 1 == self._base.index else rows[0][3]
        return rows[-1][1], self._verified(before, *rows[-1])

    def _verified(self, before: object, index: Index, term: Term, data: bytes, stored: int) -> int:
        """The chain at an entry that was just read, and perhaps is not of the types that were written.

        Raises: DamagedError if it is not the stored one.
        """
        with suppress(TypeError, ValueError, struct.error):
            if chain_of(before, index, term, data) == stored:  # type: ignore[arg-type]  # see above
                return stored
        raise DamagedError(f"{self._path} is damaged (entry {index} does not match its checksum)")

    def _missing(self, index: Index) -> DamagedError:
        return DamagedError(f"{self._path} is damaged (entry {index} is missing)")

    # --- Dropping the beginning, and upkeep ---------------------------------------------------------------------------

    def compact(self, base: Base) -> Base:
        """Set the base and delete everything up to it. See `set_base`."""
        completed = self.set_base(base)
        while self._stored_first <= self._base.index:
            self._trim()
        return completed

    def set_base(self, base: Base) -> Base:
        """Let the log begin behind `base.index`, durably; the entries up to it are deleted by later `upkeep`.

        Term and chain are this log's own; if the caller names them they must agree. Returns the complete base.
        """
        invariant(self._base.index <= base.index <= self._last, "a base outside the log", base=base, last=self._last)
        term, chain = self._place(base.index)
        invariant(base.term in (0, term) and base.chain in (0, chain), "a base of another history", base=base)
        completed = msgspec.structs.replace(base, term=term, chain=chain)
        with self._transaction():
            store_base(self._connection, completed)
        self._base = completed
        return completed

    @property
    def upkeep_due(self) -> bool:
        return self._unsaved_bytes >= self._wal_limit or self._stored_first <= self._base.index

    def upkeep(self) -> None:
        """A short piece of work that is due: a checkpoint, or one portion of the compaction."""
        if self._unsaved_bytes >= self._wal_limit:
            self.checkpoint()
        elif self._stored_first <= self._base.index:
            self._trim()

    def checkpoint(self, mode: str = "RESTART") -> None:
        """Move the WAL's content into raft.db. The file is kept and written over, which spares the file system work."""
        with storing(self._path):
            busy, frames, moved = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if busy or frames != moved:
            raise StorageError(f"{self._path} can't be checkpointed ({moved} of {frames} pages): restart the server")
        self._database_syncs += 2
        self._unsaved_bytes = 0

    def _trim(self) -> None:
        """Not synced: the base is durable, and what a crash brings back of the entries is deleted again."""
        stop = min(self._base.index, self._stored_first + TRIM_ENTRIES - 1)
        with storing(self._path):
            self._connection.execute("PRAGMA synchronous=NORMAL")
        try:
            with self._transaction(synced=False):
                self._connection.execute("DELETE FROM entries WHERE idx <= ?", (stop,))
        finally:
            with storing(self._path):
                self._connection.execute("PRAGMA synchronous=FULL")
        self._stored_first = stop + 1

    # --- Beginning and end --------------------------------------------------------------------------------------------

    def _take_over(self, verdict: Verdict) -> Index:
        """Carry out the verdict on the files; returns the first entry stored, be it below the base."""
        with storing(self._path):
            first, last = self._connection.execute("SELECT min(idx), max(idx) FROM entries").fetchone()
        if max(last or 0, self._base.index) != verdict.stored_last:
            raise DamagedError(f"{self._path} ends at {last}, though its files were read up to {verdict.stored_last}")
        with suppress(DiskFullError):
            self.checkpoint("TRUNCATE")
        if verdict.stored_last > self._last or self._hard_state != self._stored_hard_state:
            with self._transaction():
                self._connection.execute("DELETE FROM entries WHERE idx > ?", (self._last,))
                store_hard_state(self._connection, self._hard_state)
            self._stored_hard_state = self._hard_state
        with suppress(DiskFullError):  # the mark counts the starts too
            write_identity(self._folder, self.identity)
        if verdict.amnesia:
            self._high_water.mark = msgspec.structs.replace(self._high_water.mark, refilling=True)
        self._raise_mark()
        return first if first is not None else self._base.index + 1

    def close(self) -> None:
        """Store what waits in memory, move everything into raft.db and let the folder go, even if that fails."""
        try:
            with suppress(DiskFullError):
                if self._hard_state != self._stored_hard_state:
                    self._store(self._last + 1, [])
                self.checkpoint("TRUNCATE")
        except StorageError:
            self.abandon()
            raise
        try:
            with storing(self._path):
                self._connection.close()
        finally:
            self._high_water.close()
            self._lock.release()

    def abandon(self) -> None:
        """After an error: let the folder go, without the last checkpoint that closing the connection would try."""
        _abandoned.append(self._connection)
        self._high_water.close()
        self._lock.release()

    @contextmanager
    def _transaction(self, synced: bool = True) -> Iterator[None]:
        with storing(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self._database_syncs += synced
        self._unsaved_bytes += _PAGES_OF_A_WRITE * _PAGE_BYTES


def _examine(folder: Path, used: bool, tail_bytes: int) -> tuple[Mark, Verdict] | None:
    """What can be done about a damaged log stands in the sentence that refuses it."""
    try:
        return examine(folder, used, tail_bytes)
    except DamagedError as error:
        if not used or read_certain_mark(folder / HIGH_WATER) is None:
            raise
        advice = "if other servers of its cluster are whole, run coordd once with --refill, and they will refill it"
        raise DamagedError(f"{error}; {advice}") from error


_abandoned: list[object] = []
"""Connections that must not be closed; the process is about to end."""
