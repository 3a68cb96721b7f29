"""A look at the files of a log before SQLite may touch them.

Opening a database for writing rolls its WAL in and can shorten or delete it, the only evidence of what went wrong. So
the files are first read here, and whatever is refused is refused with every file as it was found.

After a clean stop there is no WAL, and raft.db itself is read, immutable: SQLite then neither locks it nor creates
anything beside it. Otherwise the valid part of the WAL is laid over a copy in the system's folder for temporary files,
and the copy is read. It costs reading and writing the log once at each start after a crash, and needs no assumption
about what SQLite does to files that it recovers.
"""

import shutil
import sqlite3
import struct
import tempfile
from pathlib import Path

from coordd.errors import DamagedError, StorageError
from coordd.storage.failures import storing
from coordd.storage.high_water import Mark, read_mark
from coordd.storage.log_schema import APPLICATION_ID, VERSION, connect
from coordd.storage.recovery import Verdict, judge
from coordd.storage.wal import Wal, WalHeader, read_wal

__all__ = ["DATABASE", "HIGH_WATER", "WAL", "examine"]

DATABASE = "raft.db"
WAL = "raft.db-wal"
JOURNAL = "raft.db-journal"
HIGH_WATER = "high_water"

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_IN_WAL_MODE = b"\2\2"
_TROUBLE_OF_THE_SYSTEM = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM)


def examine(folder: Path, used: bool, tail_bytes: int) -> tuple[Mark, Verdict] | None:
    """What the log in `folder` amounts to; nothing is changed. None: there is no log yet.

    `used` says that the folder has an identity, hence had a log. Raises: DamagedError, StorageError.
    """
    database = folder / DATABASE
    mark = read_mark(folder / HIGH_WATER)
    with storing(database):
        size = database.stat().st_size if database.exists() else -1
        stray = (folder / JOURNAL).exists()
    if size <= 0:
        if used or mark is not None or size == 0:
            promise = f", but high_water promises {mark.last} entries" if mark else ""
            raise DamagedError(
                f"{database} is {'missing' if size < 0 else 'empty'}{promise}:"
                " restore it, or let this server join anew with an empty folder"
            )
        return None
    if stray:
        raise DamagedError(f"{folder / JOURNAL} should not exist: another program wrote to raft.db; restore the folder")
    if mark is None:
        if used:
            raise DamagedError(
                f"{folder / HIGH_WATER} is missing or damaged: without it nothing tells whether {database} is complete;"
                " restore it, or let this server join anew with an empty folder"
            )
        mark = Mark()
    verdict = _examine_database(folder, mark, tail_bytes)
    if not used and (verdict.stored_last or verdict.stored_hard_state.term):
        raise DamagedError(f"{folder / 'identity.json'} is missing, but {database} is in use: restore it")
    return mark, verdict


def _examine_database(folder: Path, mark: Mark, tail_bytes: int) -> Verdict:
    database = folder / DATABASE
    page_size = _check_header(database)
    wal = read_wal(folder / WAL)
    if wal.header is WalHeader.VALID and wal.page_size != page_size:
        raise DamagedError(f"{folder / WAL} is damaged (page size {wal.page_size}, the database has {page_size})")
    verdict = _judge_content(folder, wal, mark, tail_bytes)
    if wal.header is WalHeader.DAMAGED and verdict.amnesia:
        raise DamagedError(
            f"{folder / WAL} is damaged (no valid header), and with it entries"
            f" {verdict.recovered.tail.last + 1} to {mark.last} are lost:"
            " restore it, or let this server join anew with an empty folder"
        )
    return verdict


def _check_header(database: Path) -> int:
    """The page size. Raises: DamagedError if this is no SQLite database in WAL mode."""
    with storing(database), database.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    well_formed = len(header) == _HEADER_BYTES and page_size >= 512 and page_size & (page_size - 1) == 0
    if not well_formed or not header.startswith(_MAGIC) or header[18:20] != _IN_WAL_MODE:
        raise DamagedError(f"{database} is damaged (its header is not that of a database in WAL mode)")
    return page_size


def _judge_content(folder: Path, wal: Wal, mark: Mark, tail_bytes: int) -> Verdict:
    database = folder / DATABASE
    if not wal.pages:
        return _judge_file(database, database, mark, tail_bytes)
    with tempfile.TemporaryDirectory(prefix="coordd-") as aside:
        copy = Path(aside) / DATABASE
        try:
            with storing(copy):
                shutil.copyfile(database, copy)
                _overlay(folder / WAL, wal, copy)
        except StorageError as error:
            raise StorageError(
                f"{database} needs a look after an unclean stop, for which {tempfile.gettempdir()} has no room or"
                f" right: free {database.stat().st_size + wal.size} bytes there or set TMPDIR ({error})"
            ) from error
        return _judge_file(copy, database, mark, tail_bytes)


def _overlay(wal_path: Path, wal: Wal, copy: Path) -> None:
    with wal_path.open("rb") as source, copy.open("r+b") as target:
        for page, offset in wal.pages.items():
            if page <= wal.database_pages:
                source.seek(offset)
                target.seek((page - 1) * wal.page_size)
                target.write(source.read(wal.page_size))
        target.truncate(wal.database_pages * wal.page_size)


def _judge_file(readable: Path, database: Path, mark: Mark, tail_bytes: int) -> Verdict:
    """Read `readable`, which nobody writes; name `database` in texts."""
    with storing(database):
        connection = connect(readable, "mode=ro&immutable=1")
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application != APPLICATION_ID:
                raise DamagedError(f"{database} is damaged (it is no log of coordd)")
            if version != VERSION:
                raise StorageError(f"{database} has format {version}, this program knows {VERSION}: upgrade coordd")
            return judge(connection, database, mark, tail_bytes)
        except (sqlite3.Error, struct.error, TypeError, ValueError, OverflowError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _TROUBLE_OF_THE_SYSTEM:
                raise
            raise DamagedError(f"{database} is damaged ({error})") from error  # rows that no schema of ours allows
        finally:
            connection.close()
