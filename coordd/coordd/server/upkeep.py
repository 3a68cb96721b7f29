"""When the state is made durable and the log is cut (design: compaction needs no copy of the state).

A checkpoint runs on the helper thread, beside the loop; what was committed meanwhile is moved by a short one on the loop. Only
if nothing is left in the write-ahead log does the state file hold everything applied, and only then is the log cut, and never
while a snapshot is being built or sent.
"""

from collections.abc import Callable

from coordd.errors import DamagedError, DiskFullError, StorageError
from coordd.server.helper import Helper
from coordd.server.node import Node
from coordd.server.settings import RaftSettings, StorageSettings
from coordd.state.checkpoint import checkpoint_file
from coordd.storage.snapshot_store import SnapshotStore
from coordd.types import Index

__all__ = ["Upkeep"]

_PAUSE_SECONDS = 5.0
"""After a checkpoint for which there was no space."""


class Upkeep:
    """Mutable; one per server. `turn` is called about ten times a second."""

    def __init__(
        self,
        *,
        node: Node,
        helper: Helper,
        store: SnapshotStore,
        raft: RaftSettings,
        storage: StorageSettings,
        snapshots_busy: Callable[[], bool],
        report: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._node = node
        self._helper = helper
        self._store = store
        self._raft = raft
        self._storage = storage
        self._snapshots_busy = snapshots_busy
        self._report = report
        self._running = False
        self._clock = clock
        self._last_at = clock()
        self._last_index: Index = node.machine.applied
        self._not_before = 0.0
        self._bytes = 0
        self.checkpoints = 0

    def applied(self, size: int) -> None:
        """So many bytes of entries were applied."""
        self._bytes += size

    def turn(self, now: float) -> None:
        if self._running or now < self._not_before or not self._node.has_state or not self._due(now):
            return
        self._running = True
        name = self._node.state_file
        path = self._store.path(name)
        self._helper.run(
            lambda: checkpoint_file(path), lambda _: self._moved(), lambda error: self._failed(name, error)
        )

    def _due(self, now: float) -> bool:
        applied = self._node.machine.applied
        if applied == self._last_index:
            return False
        late = now - self._last_at >= self._storage.state_checkpoint_ms / 1000
        return late or applied - self._last_index >= self._storage.state_checkpoint_entries or self._log_is_long()

    def _log_is_long(self) -> bool:
        kept = self._node.machine.applied - self._node.raft.replica.log.base_index
        too_many = kept > self._raft.trailing_entries + self._raft.compact_after_entries
        return too_many or (self._bytes > self._raft.compact_after_bytes and kept > self._raft.trailing_entries)

    def _moved(self) -> None:
        self._running = False
        now = self._clock()
        if not self._node.has_state:
            return
        applied = self._node.machine.applied
        try:
            if not self._node.machine.checkpoint():
                return  # somebody reads the file; the next turn tries again
        except StorageError as error:
            self._failed(self._node.state_file, error)
            return
        self._last_at, self._last_index = now, applied
        self.checkpoints += 1
        if self._log_is_long() and not self._snapshots_busy():
            self._bytes = 0
            self._node.compact(applied - self._raft.trailing_entries, now)

    def _failed(self, name: str, error: Exception) -> None:
        """A full disk is waited out, a damaged state given up. After any other error nothing may be tried again: see
        `state.failures`."""
        self._running = False
        if name != self._node.state_file or not self._node.has_state:
            return  # the file was replaced by a snapshot meanwhile, or set aside as damaged
        if isinstance(error, DamagedError):
            self._node.lose_state(str(error), self._clock())
        elif isinstance(error, DiskFullError):
            self._wait_for_space(error)
        else:
            raise error

    def _wait_for_space(self, error: DiskFullError) -> None:
        self._not_before = self._clock() + _PAUSE_SECONDS
        self._report("checkpoint failed", str(error))
