"""Which error of the tree an error of SQLite becomes when the replicated state is written or read.

A full disk is told apart, because it alone may be waited out: after a failed fsync the kernel may have dropped what it could not
write, and would report success the next time.
"""

import sqlite3

import msgspec

from coordd.errors import DamagedError, DiskFullError, StorageError

__all__ = ["FAILURES", "storage_error"]

FAILURES = (sqlite3.Error, UnicodeDecodeError, msgspec.MsgspecError)
"""What reading and writing rows may raise: SQLite itself; Python, where SQLite's words about a damaged schema repeat bytes
that are no text; and a column whose JSON is not what was written."""


def storage_error(error: Exception, what: str = "the replicated state", done: str = "written") -> StorageError:
    """DiskFullError if there was no space and nothing was changed. After any other one this state must not be used any more;
    DamagedError if SQLite can't make sense of what it has read."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return DiskFullError(f"no space left for {what}: free some, nothing was changed")
    # Without a name it comes from the module and not from SQLite: a text that is no UTF-8.
    undecodable = isinstance(error, msgspec.MsgspecError) or (not name and "decode" in str(error))
    # All statements fit the schema, so a table or column that is not there was there when it was written.
    garbled = done == "read" and name == "SQLITE_ERROR"
    if undecodable or garbled or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DamagedError(f"{what} is damaged ({error}): restart the server, which then fetches it from another one")
    return StorageError(f"{what} can't be {done} ({error}): check the disk, then restart")
