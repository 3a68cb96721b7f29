"""Which error of the tree an error of SQLite becomes when the replicated state is written.

A full disk is told apart, because it alone may be waited out: after a failed fsync the kernel may have dropped what it could not
write, and would report success the next time.
"""

import sqlite3

from coordd.errors import DiskFullError, StorageError

__all__ = ["storage_error"]


def storage_error(error: sqlite3.Error, what: str = "the replicated state") -> StorageError:
    """DiskFullError if there was no space and nothing was changed; any other one must end the process."""
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return DiskFullError(f"no space left for {what}: free some, nothing was changed")
    return StorageError(f"{what} can't be written ({error}): check the disk, then restart")
