"""Which error of the tree an error of SQLite becomes when the replicated state is written or read.

A full disk is told apart, because it alone may be waited out: after a failed fsync the kernel may have dropped what it could not
write, and would report success the next time.
"""

import sqlite3

from coordd.errors import DamagedError, DiskFullError, StorageError

__all__ = ["read_error", "storage_error"]


def storage_error(error: sqlite3.Error, what: str = "the replicated state") -> StorageError:
    """DiskFullError if there was no space and nothing was changed; any other one must end the process."""
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return DiskFullError(f"no space left for {what}: free some, nothing was changed")
    return StorageError(f"{what} can't be written ({error}): check the disk, then restart")


def read_error(error: sqlite3.Error, what: str) -> StorageError:
    """DamagedError if SQLite can't make sense of what it has read. The process must end: its next start looks at the whole file."""
    if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DamagedError(f"{what} is damaged ({error}): restart the server, which then fetches it from another one")
    return StorageError(f"{what} can't be read ({error}): check the disk, then restart")
