"""A disk whose power can be cut: an ext4 file system in a file, and the file system's own shutdown call.

The call stops all I/O at once and, without a flush of its journal, forgets whatever was not synced, which a SIGKILL never
shows. Needs root.
"""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

from tests.integration.cluster import wait_for

__all__ = ["LoopDisk"]

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = 2
_BYTES = 512 * 1024 * 1024


class LoopDisk:
    """Mounted while in its `with`."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self.path = folder / "disk"

    def __enter__(self) -> "LoopDisk":
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        self.mount()
        return self

    def __exit__(self, *exception: object) -> None:
        self.unmount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.path)], check=True)

    def unmount(self) -> None:
        """A process that has just been killed may still hold it for a moment."""

        def gone() -> bool:
            if not self.path.is_mount():
                return True
            subprocess.run(["umount", str(self.path)], check=False, capture_output=True)
            return not self.path.is_mount()

        wait_for(gone, "the disk to be unmounted")

    def cut(self) -> None:
        """The power fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
