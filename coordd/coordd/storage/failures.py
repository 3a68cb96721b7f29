"""Which error of the tree an operating system's or SQLite's error becomes. Every text names the path.

A full disk is told apart from everything else, because it alone may be waited out. A failed fsync is never retried: the
kernel may already have dropped the pages that it could not write, and would report success the second time.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordd.errors import CoorddError, DamagedError, DiskFullError, InUseError, StorageError

__all__ = ["storing", "sync_file"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn the errors of a block that works on `path` into the tree's.

    Raises: DiskFullError, DamagedError, InUseError, StorageError.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _of_sqlite(error, path) from error
    except UnicodeDecodeError as error:  # SQLite's words about a damaged schema repeat bytes that are no text
        raise DamagedError(f"{path} is damaged ({error})") from error
    except OSError as error:
        raise _of_system(error, path) from error


def sync_file(descriptor: int, path: Path, data_only: bool = True) -> None:
    """fdatasync or fsync. Raises: StorageError on any failure, a full disk included: what was written may be lost."""
    try:
        (os.fdatasync if data_only else os.fsync)(descriptor)
    except OSError as error:
        raise StorageError(f"{path} can't be made durable ({error.strerror}): check the disk, then restart") from error


def _of_system(error: OSError, path: Path) -> CoorddError:
    if error.errno in _NO_SPACE:
        return DiskFullError(f"no space left for {path}: free some on its disk")
    if error.errno in (errno.EACCES, errno.EPERM):
        return StorageError(f"{path} is not accessible to user id {os.geteuid()}: change its owner or permissions")
    return StorageError(f"{path} can't be used ({error.strerror or error}): check the disk and the path")


def _of_sqlite(error: sqlite3.Error, path: Path) -> CoorddError:
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError(f"no space left for {path}: free some on its disk")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedError(f"{path} is damaged ({name}: {error})")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return InUseError(f"{path} is open in another program: close it there")
    if code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return StorageError(f"{path} can't be opened for writing by user id {os.geteuid()} ({name}): check permissions")
    return StorageError(f"{path} can't be used ({name}: {error}): check the disk, then restart")
