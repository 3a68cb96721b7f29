"""Moving a state file's write-ahead log into the file on a connection of its own, so that it can be done beside the machine.

What others commit meanwhile stays in the log; `Machine.checkpoint`, right afterwards, then has only that little to move.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from coordd.state.failures import FAILURES, storage_error

__all__ = ["checkpoint_file"]


def checkpoint_file(path: Path) -> None:
    """Move and sync what is committed by now. Raises: DiskFullError, StorageError."""
    try:
        # mode=rw: the file may be replaced by a snapshot meanwhile, and must not be made anew under its old name.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except FAILURES as error:
        raise storage_error(error, str(path)) from error
