"""Whether a state file still holds the rows that were written, read anew from the disk beside whoever uses the file.

A byte that turns over in a file is not noticed by those who have the page in memory, and SQLite has no checksums. So all rows
are read again over a connection of its own and their digest is compared with the one that was kept for them; indexes, which no
digest covers, are compared with their tables by SQLite. Nothing here changes a file.
"""

import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path

from coordd.errors import StorageError
from coordd.state.digest import MODULUS
from coordd.state.limits import Limits
from coordd.state.rows import Rows
from coordd.state.tables import Table

__all__ = ["Scrub", "fault_of", "find_fault"]

_BAD = (sqlite3.DatabaseError, TypeError, ValueError)
"""What reading damaged rows may raise, beside what SQLite itself notices."""
_NOT_NOW = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM)


class Scrub:
    """All tables of one file, one after the other, each in one read transaction, in as many slices as the caller wishes.

    The caller sees to it that no table takes too long: what others have changed can't be checkpointed meanwhile.
    """

    def __init__(self, path: Path, digests: Callable[[], Mapping[str, int]] | None = None) -> None:
        """`digests`: of the tables as they are committed now, asked when a table is begun, in the thread of whoever
        changes them. None: nobody changes the file, which must fit its own digests."""
        self._connection: sqlite3.Connection | None = None
        self._path = path
        self._digests = digests
        self._going = self._check()

    def step(self, enough: Callable[[], bool]) -> str | None:
        """Go on until `enough()`, which is asked for each row. None: there is more to do; "": the file is whole; else what
        is wrong with it. Not to be called again after that. Raises: StorageError if the file can't be looked at now."""
        try:
            while not enough():
                next(self._going)
            return None
        except StopIteration as end:
            self.close()
            return str(end.value)
        except _BAD as error:
            self.close()
            return _fault(self._path, error)

    def close(self) -> None:
        """Let go of the file. Harmless when repeated."""
        self._going.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check(self) -> Generator[None, None, str]:
        options = "mode=ro" if self._digests else "mode=ro&immutable=1"
        self._connection = connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?{options}", uri=True, isolation_level=None
        )
        for table in Rows(connection, Limits()).tables:
            connection.execute("BEGIN")
            wanted = _stored(connection, table)  # reads, and so begins the transaction now
            if self._digests is not None and wanted != self._digests()[table.name]:
                return f"the digest of table {table.name} is not the one that was written"
            total = 0
            for hashed in table.hashes():
                total += hashed
                yield
            if total % MODULUS != wanted:
                return f"the rows of table {table.name} do not have the digest that was kept for them"
            connection.execute("COMMIT")
            yield
        return ""


def _stored(connection: sqlite3.Connection, table: Table[tuple[str | int | bytes, ...]]) -> int:
    (digest,) = connection.execute("SELECT digest FROM digests WHERE name = ?", (table.name,)).fetchone()
    return int(digest, 16)


def find_fault(path: Path) -> str:
    """What SQLite finds wrong with the structure of a file or with its indexes; "" for nothing. It takes a while, in C.

    Raises: StorageError if the file can't be looked at now.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return fault_of(connection)
    except _BAD as error:
        return _fault(path, error)


def _fault(path: Path, error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _NOT_NOW:
        raise StorageError(f"{path} can't be looked at now: {error}") from error
    return f"it can't be read: {error}"


def fault_of(connection: sqlite3.Connection) -> str:
    """The same over a connection that is there."""
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    return "" if found == "ok" else str(found).splitlines()[0]
