"""The thread around a `LogStore`: jobs in, completions out, and the loop never waits for a disk.

Jobs run in the order of submission; writes that wait together become one group commit. When the disk is full the failed
group stays at the head and is tried again until it fits, while reads go on. Any other error ends the thread after one
`WriterFailed`, and the process must follow (rule 8).
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import msgspec

from coordd.errors import CoorddError, DiskFullError, InvariantError, invariant
from coordd.storage.latency import Latency
from coordd.storage.log_store import LogStore
from coordd.types import Base, Index, LogSlice, LogWrite, ServerId, Term

__all__ = [
    "BaseInstalled",
    "ChainFound",
    "CompactLog",
    "Completion",
    "DiskFull",
    "FindChain",
    "InstallBase",
    "Job",
    "LogCompacted",
    "LogRead",
    "LogWriter",
    "ReadLog",
    "WriterFailed",
    "WritesDone",
]

MAX_JOBS = 100_000
"""Far above what the core's cap of uncommitted bytes lets through: more waiting jobs are a bug."""
MAX_GROUP_BYTES = 8 * 1024 * 1024
MAX_GROUP_WRITES = 4096
RETRY_SECONDS = 0.2
"""Pause between two attempts on a full disk."""


class ReadLog(msgspec.Struct, frozen=True):
    """Entries for a follower; answered by `LogRead`."""

    peer: ServerId
    session: int
    first: Index
    max_bytes: int


class FindChain(msgspec.Struct, frozen=True):
    """The chained checksum at an index, for a snapshot of the state there; answered by `ChainFound`."""

    index: Index


class CompactLog(msgspec.Struct, frozen=True):
    """See `LogStore.set_base`; answered by `LogCompacted` as soon as the base is durable."""

    base: Base


class InstallBase(msgspec.Struct, frozen=True):
    """See `LogStore.install`; answered by `BaseInstalled`."""

    base: Base


class WritesDone(msgspec.Struct, frozen=True):
    """Every write up to this sequence number is durable; the group took so many seconds."""

    sequence: int
    seconds: float


class LogRead(msgspec.Struct, frozen=True):
    """The fields of `raft.events.EntriesRead`."""

    peer: ServerId
    session: int
    previous_term: Term
    slice: LogSlice | None


class ChainFound(msgspec.Struct, frozen=True):
    """`chain` None: the index is compacted away, or was never there."""

    index: Index
    chain: int | None


class LogCompacted(msgspec.Struct, frozen=True):
    """The base is durable, completed with the log's own term and chain."""

    base: Base


class BaseInstalled(msgspec.Struct, frozen=True):
    """The log begins behind this base, durably."""

    base: Base


class DiskFull(msgspec.Struct, frozen=True):
    """Writing has stopped until there is space; told once for each stop. The next `WritesDone` ends it."""

    error: DiskFullError


class WriterFailed(msgspec.Struct, frozen=True):
    """The last completion: the thread has ended, and the process must."""

    error: CoorddError


Job: TypeAlias = LogWrite | ReadLog | FindChain | CompactLog | InstallBase
Completion: TypeAlias = WritesDone | LogRead | ChainFound | LogCompacted | BaseInstalled | DiskFull | WriterFailed


class LogWriter:
    """Owns the store from construction on. `submit`, `completions` and the attributes are for one other thread."""

    def __init__(
        self,
        store: LogStore,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`wake` is called on the writer's thread after each completion. `pending_since` is read off `clock`."""
        self._store = store
        self._wake = wake
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._submitted: deque[float] = deque()
        self._done: deque[Completion] = deque()
        self._closing = False
        self._upkeep_not_before = 0.0
        self.batches = 0
        """Group commits so far."""
        self.latency = Latency()
        """Seconds that the last group commits took."""
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def pending_since(self) -> float | None:
        """When the oldest write that is not durable yet was submitted."""
        with self._changed:
            return self._submitted[0] if self._submitted else None

    @property
    def fdatasyncs(self) -> int:
        return self._store.fdatasyncs

    def submit(self, job: Job) -> None:
        """Queue a job; never waits for one. After `close` or `WriterFailed` it is dropped."""
        with self._changed:
            invariant(len(self._jobs) < MAX_JOBS, "jobs pile up at the log writer", jobs=len(self._jobs))
            if isinstance(job, LogWrite):
                self._submitted.append(self._clock())
            self._jobs.append(job)
            self._changed.notify()

    def completions(self) -> list[Completion]:
        """What has finished since the last call, in order."""
        with self._changed:
            finished = list(self._done)
            self._done.clear()
        return finished

    def close(self, timeout: float = 5.0) -> bool:
        """Finish what was submitted (on a full disk: give it up), close the store, end the thread. False: it hangs."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- On the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (group := self._next()) is not None:
                if group and not self._until_space(group):
                    break
                self._upkeep()
            self._store.close()
        except CoorddError as error:
            self._fail(error)
        except Exception as error:
            self._fail(InvariantError(f"the log writer met {error!r}"))

    def _fail(self, error: CoorddError) -> None:
        self._store.abandon()
        self._finish(WriterFailed(error))

    def _finish(self, completion: Completion, writes: int = 0) -> None:
        with self._changed:
            for _ in range(writes):
                self._submitted.popleft()
            self._done.append(completion)
        self._wake()

    def _next(self) -> list[Job] | None:
        """The next group of writes, or single other job. An empty list: time for upkeep. None: the end."""
        with self._changed:
            while not self._jobs:
                if self._closing:
                    return None
                pause = self._upkeep_not_before - time.monotonic() if self._store.upkeep_due else None
                if pause is not None and pause <= 0:
                    return []
                self._changed.wait(pause)
            group = [self._jobs.popleft()]
            size = _size(group[0])
            while isinstance(group[0], LogWrite) and self._jobs and isinstance(self._jobs[0], LogWrite):
                size += _size(self._jobs[0])
                if size > MAX_GROUP_BYTES or len(group) == MAX_GROUP_WRITES:
                    break
                group.append(self._jobs.popleft())
            return group

    def _until_space(self, group: list[Job]) -> bool:
        """Do it, however long the disk stays full. False: given up, because the end was asked for meanwhile."""
        told = False
        while True:
            try:
                self._do(group)
                return True
            except DiskFullError as error:
                if not told:
                    self._finish(DiskFull(error))
                told = True
            if not self._only_read_until(time.monotonic() + self._retry_seconds):
                return False
            with suppress(DiskFullError):
                self._store.checkpoint()  # lets the WAL's own space be used again

    def _only_read_until(self, deadline: float) -> bool:
        """Serve reads out of turn: no waiting write changes what is committed. False: the end was asked for."""
        while (pause := deadline - time.monotonic()) > 0:
            with self._changed:
                if self._closing:
                    return False
                read = next((job for job in self._jobs if isinstance(job, ReadLog)), None)
                if read is None:
                    self._changed.wait(pause)
                else:
                    self._jobs.remove(read)
            if read is not None:
                self._do([read])
        return True

    def _do(self, group: list[Job]) -> None:
        match group[0]:
            case LogWrite():
                self._write([job for job in group if isinstance(job, LogWrite)])
            case ReadLog(peer, session, first, max_bytes):
                previous_term, entries = self._store.read(first, max_bytes) or (0, None)
                self._finish(LogRead(peer, session, previous_term, entries))
            case FindChain(index):
                self._finish(ChainFound(index, self._store.chain_at(index)))
            case CompactLog(base):
                self._finish(LogCompacted(self._store.set_base(base)))
            case InstallBase(base):
                self._store.install(base)
                self._finish(BaseInstalled(base))

    def _write(self, writes: list[LogWrite]) -> None:
        began = time.perf_counter()
        self._store.write(writes)
        seconds = time.perf_counter() - began
        if any(write.must_sync for write in writes):
            self.batches += 1
            self.latency.add(seconds)
        self._finish(WritesDone(writes[-1].sequence, seconds), writes=len(writes))

    def _upkeep(self) -> None:
        if self._store.upkeep_due and time.monotonic() >= self._upkeep_not_before:
            try:
                self._store.upkeep()
            except DiskFullError:
                self._upkeep_not_before = time.monotonic() + self._retry_seconds


def _size(job: Job) -> int:
    return sum(map(len, job.slice.entries)) if isinstance(job, LogWrite) and job.slice else 0
