"""A host's snapshot files: the shipped ones, on a disk that may be full or failing."""

import errno
from collections.abc import Callable
from pathlib import Path

from coordd.errors import DiskFullError
from coordd.storage.pace import Pace
from coordd.storage.snapshot_store import Incoming, SnapshotStore
from coordd.types import SnapshotMeta
from tests.sim.condition import Condition

__all__ = ["VirtualFiles"]


class VirtualFiles(SnapshotStore):
    def __init__(self, folder: Path, pace: Pace, new_id: Callable[[], str], condition: Condition) -> None:
        super().__init__(folder, pace, new_id)
        self._condition = condition

    def receive(self, snapshot: SnapshotMeta) -> Incoming:
        incoming = super().receive(snapshot)
        genuine = incoming.write

        def write(offset: int, chunk: bytes) -> bool:
            if self._condition.full:
                raise DiskFullError("no space left for a snapshot: the simulated disk is full")
            with self._condition.writing():
                return genuine(offset, chunk)

        incoming.write = write  # type: ignore[method-assign]
        return incoming

    def _vacuum(self, source: Path, target: Path, wal_limit: int) -> None:
        super()._vacuum(source, target, wal_limit)
        if self._condition.full:
            raise OSError(errno.ENOSPC, "the simulated disk is full")
