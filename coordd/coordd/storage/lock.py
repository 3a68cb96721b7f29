"""One process for one data folder: an flock on `lock`, held for life; the kernel lets go however the process ends."""

import errno
import fcntl
import os
from pathlib import Path

from coordd.errors import InUseError
from coordd.storage.failures import storing
from coordd.storage.files import FILE_MODE

__all__ = ["FolderLock"]


class FolderLock:
    """The lock of `folder`, taken when constructed. Raises: InUseError, StorageError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._created = not self._path.exists()
        with storing(self._path):
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._descriptor)
                if error.errno != errno.EWOULDBLOCK:
                    raise
                raise InUseError(
                    f"{folder} is in use by another process: stop that one, or name another folder"
                ) from error

    def release(self) -> None:
        """Let go. Harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def undo(self) -> None:
        """Let go and leave no trace: for a folder that is refused as it was found."""
        if self._created and self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
        self.release()
