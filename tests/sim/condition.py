"""How one host's disk behaves just now; log writer, helper, state and snapshots ask it, faults change it.

Errors come from below: SQLite meets its largest number of pages when the disk is full, and a limit of the operating system
on the size of files when writing fails.
"""

import contextlib
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from coordd.errors import StorageError
from coordd.storage import high_water

__all__ = ["Condition"]

_MOST_PAGES = 0xFFFFFFFE
"""SQLite's own limit."""


class Condition:
    """Mutable; one per host, over all its lives."""

    def __init__(self) -> None:
        self.faulty = False
        """Of the fixed minority whose disks may fail and forget."""
        self.stalled_until = 0.0
        self.slowness = 1.0
        self.full = False
        self.writable: int | None = None
        """The disk fails: nothing can be written behind this place of any file, nor the mark be synced."""
        self.ambush: Callable[[float, float], None] | None = None
        """Called once, when something is begun: with the times at which it begins and will be done."""

    def heal(self) -> None:
        self.stalled_until, self.slowness = 0.0, 1.0
        self.full, self.writable = False, None
        self.ambush = None

    def busy(self, begun: float, done: float) -> None:
        """Something is being written from `begun` to `done`."""
        ambush, self.ambush = self.ambush, None
        if ambush is not None:
            ambush(begun, done)

    def limit(self, connection: sqlite3.Connection) -> None:
        """No database grows while the disk is full; to be called for each that is open when that changes."""
        connection.execute(f"PRAGMA max_page_count = {1 if self.full else _MOST_PAGES}")

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Around everything that writes."""
        return _NO_LIMIT if self.writable is None else _limited(self.writable)


_NO_LIMIT = contextlib.nullcontext()


@contextlib.contextmanager
def _limited(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with mock.patch.object(high_water, "sync_file", _failing_sync):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _failing_sync(descriptor: int, path: Path, data_only: bool = True) -> None:
    raise StorageError(f"{path} can't be made durable: the simulated disk fails")
