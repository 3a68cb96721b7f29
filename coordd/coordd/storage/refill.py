"""Making a server with a damaged log one that forgot everything, which the other servers then refill.

What stays is what makes that safe: the identity, and the high-water mark with term and vote. A log that is shorter than its
mark neither votes nor counts until a leader has given back all that was acknowledged (rule 111), and an empty one is just the
shortest. So the mark must be known for certain: if one of its slots is damaged, the other may be older than what was promised.
"""

import shutil
from pathlib import Path

from coordd.errors import DamagedError, StorageError
from coordd.storage.examine import DATABASE, HIGH_WATER
from coordd.storage.failures import storing
from coordd.storage.files import FOLDER_MODE, prepare_folder, sync_folder
from coordd.storage.high_water import read_certain_mark
from coordd.storage.identity import read_identity
from coordd.storage.lock import FolderLock
from coordd.storage.opening import create
from coordd.types import Index

__all__ = ["KEPT", "forget_log"]

KEPT = "before-refill"
"""Folder for what was there before, beside the log; the last time's only."""
_MOVED = (f"{DATABASE}*", "state-*", "snapshot-*", "incoming-*", "damaged-state.db*")


def forget_log(folder: Path, name: str) -> Index:
    """Move log and state of server `name` aside and begin an empty log. Returns how many entries it has promised.

    Killed in the middle, it can be done again. Raises: InUseError, StorageError, DamagedError; then nothing has changed.
    """
    prepare_folder(folder)
    lock = FolderLock(folder)
    try:
        if read_identity(folder, name) is None:
            raise StorageError(f"{folder} was never used by a server: there is nothing to refill")
        mark = read_certain_mark(folder / HIGH_WATER)
        if mark is None:
            raise DamagedError(
                f"{folder / HIGH_WATER} is missing or damaged, and nothing else tells what this server has promised:"
                " remove the server from its cluster and add it anew, with an empty folder"
            )
        _move_aside(folder)
        create(folder)
    finally:
        lock.release()
    return mark.last


def _move_aside(folder: Path) -> None:
    kept = folder / KEPT
    with storing(folder):
        found = sorted({path for pattern in _MOVED for path in folder.glob(pattern)})
        if any(path.name == DATABASE and path.stat().st_size for path in found):
            shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(FOLDER_MODE, exist_ok=True)
        # The log goes last: as long as it is there the server either starts as ever or is refused.
        for path in sorted(found, key=lambda path: path.name.startswith(DATABASE)):
            path.rename(kept / path.name)
    sync_folder(kept)
    sync_folder(folder)
