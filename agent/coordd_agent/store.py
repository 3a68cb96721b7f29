"""Small files that must not be lost, and the lock on the folder they are in.

`write_durably` replaces a file whole: written aside, fsynced, renamed, folder fsynced; a crash leaves the old or the
new. It blocks, so the loop calls it in a thread.
"""

import errno
import fcntl
import os
from pathlib import Path

from coordd.errors import DiskFullError, InUseError, StorageError

__all__ = ["MAX_FILE_BYTES", "FolderLock", "read_small", "write_durably"]

MAX_FILE_BYTES = 64 * 1024 * 1024


class FolderLock:
    """Held from construction until `close` or the end of the process.

    Raises: InUseError if another process holds it, StorageError if the folder can't be used.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"data folder {folder} can't be used: {_reason(error)}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise InUseError(f"data folder {folder} belongs to another running agent") from error

    def close(self) -> None:
        os.close(self._fd)


def read_small(path: Path) -> bytes | None:
    """Content of the file, or None if there is none. Raises: StorageError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} can't be read: {_reason(error)}") from error
    if len(content) > MAX_FILE_BYTES:
        raise StorageError(f"{path} is larger than {MAX_FILE_BYTES} bytes; it was not written by an agent")
    return content


def write_durably(path: Path, content: bytes) -> None:
    """Raises: StorageError, DiskFullError; the file is then as it was."""
    aside = path.with_name(path.name + ".new")
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"{path} can't be written: {_reason(error)}; it is as it was") from error
        raise StorageError(f"{path} can't be written: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
