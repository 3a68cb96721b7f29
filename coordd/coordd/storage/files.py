"""Small files that are there whole or not at all, and a data folder that nobody else reads."""

import os
import stat
from pathlib import Path

from coordd.errors import StorageError
from coordd.storage.failures import storing, sync_file

__all__ = ["FILE_MODE", "FOLDER_MODE", "prepare_folder", "sync_folder", "sync_path", "write_durably"]

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def prepare_folder(folder: Path) -> None:
    """Create the data folder, or check that it is a folder closed to others; an empty one is closed to them here.

    Raises: StorageError.
    """
    with storing(folder):
        if not folder.exists():
            folder.mkdir(mode=FOLDER_MODE, parents=True)
            sync_folder(folder.parent)
        if not folder.is_dir():
            raise StorageError(f"{folder} is not a folder: name one in the configuration")
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & 0o077:
            if any(folder.iterdir()):
                raise StorageError(f"{folder} is open to other users (mode {mode:o}): chmod 700 {folder}")
            folder.chmod(FOLDER_MODE)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise StorageError(f"{folder} is not accessible to user id {os.geteuid()}: change its owner or permissions")


def sync_folder(folder: Path) -> None:
    """Make created, renamed and deleted names durable."""
    sync_path(folder)


def sync_path(path: Path) -> None:
    """fsync of what lies at `path`. Never use it on a file that SQLite has open: closing drops the process's locks."""
    with storing(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(descriptor, path, data_only=False)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a small file: written aside, synced, renamed, folder synced. A crash leaves the old or the new one."""
    aside = path.with_name(path.name + ".new")
    with storing(path):
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(content)
            sync_file(descriptor, aside, data_only=False)
        finally:
            os.close(descriptor)
        aside.rename(path)
    sync_folder(path.parent)
