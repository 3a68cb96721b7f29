"""A server's disk in virtual time, with the shipped log store on real SQLite files: the node's log writer.

Work is done in order and takes its time; it is carried out at the moment of its completion. So what is under way when the
power goes was not yet written: it is lost, or it was written and nobody heard of it, or it is torn: then it is carried
out on the real files, which are cut off or scribbled on behind what was synced, below SQLite.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from coordd.errors import DiskFullError, StorageError
from coordd.storage.log_store import LogStore
from coordd.storage.writer import (
    RETRY_SECONDS,
    BaseInstalled,
    ChainFound,
    CompactLog,
    Completion,
    DiskFull,
    FindChain,
    InstallBase,
    Job,
    LogCompacted,
    LogRead,
    ReadLog,
    WriterFailed,
    WritesDone,
)
from coordd.types import LogWrite, ServerId
from tests.sim.chance import Chance
from tests.sim.condition import Condition
from tests.sim.surroundings import Surroundings

__all__ = ["VirtualWriter"]


class VirtualWriter:
    """`server.node.Writer` of one life. `on_done` is called for each completion, at its time."""

    def __init__(
        self,
        around: Surroundings,
        store: LogStore,
        condition: Condition,
        chance: Chance,
        clock: Callable[[], float],
        on_done: Callable[[Completion], None],
    ) -> None:
        self._around = around
        self.store = store
        self.server: ServerId = store.identity.server
        self._condition = condition
        self._chance = chance
        self._clock = clock
        self._on_done = on_done
        self._queue: deque[tuple[Job, float]] = deque()
        self._busy = 0
        """How many of the queue's first are being worked on."""
        self._ended = False
        self._waits_for_space = False

    @property
    def pending_since(self) -> float | None:
        """When, by the server's clock, the oldest unfinished write was submitted."""
        return next((since for job, since in self._queue if isinstance(job, LogWrite)), None)

    def submit(self, job: Job) -> None:
        if self._waits_for_space and isinstance(job, ReadLog):
            self._around.schedule.after(self._around.tuning.write_latency, self._read, job)
            return
        self._queue.append((job, self._clock()))
        if not self._busy and not self._ended:
            self._begin()

    def space_changed(self) -> None:
        self._condition.limit(self.store._connection)

    def end(self) -> list[Job]:
        """The process is gone. Returns what was being worked on."""
        self._ended = True
        return [job for job, _ in list(self._queue)[: self._busy]]

    def _begin(self) -> None:
        """Consecutive writes that wait are one group."""
        self._busy = 1
        if isinstance(self._queue[0][0], LogWrite):
            self._busy = next((n for n, (job, _) in enumerate(self._queue) if not isinstance(job, LogWrite)), 0)
            self._busy = self._busy or len(self._queue)
        now, condition = self._around.schedule.now, self._condition
        latency = self._around.tuning.write_latency * condition.slowness * (0.25 + self._chance.expovariate(1.3))
        done = max(now, condition.stalled_until) + latency
        self._around.schedule.at(done, self._finish)
        condition.busy(now, done)

    def _finish(self) -> None:
        if self._ended:
            return
        if self._condition.stalled_until > self._around.schedule.now:
            self._around.schedule.at(self._condition.stalled_until, self._finish)
            return
        group = [job for job, _ in islice(self._queue, self._busy)]
        try:
            with self._condition.writing():
                completion = self.perform(group)
                if self.store.upkeep_due:
                    with suppress(DiskFullError):
                        self.store.upkeep()
        except DiskFullError as error:
            self._wait_for_space(error)
        except StorageError as error:
            self._fail(error)
        else:
            self._waits_for_space = False
            for _ in group:
                self._queue.popleft()
            self._busy = 0
            if self._queue:
                self._begin()
            self._on_done(completion)

    def _wait_for_space(self, error: DiskFullError) -> None:
        """As the shipped writer: the group stays at the head and is tried again, while reads go on."""
        if not self._waits_for_space:
            self._waits_for_space = True
            self._on_done(DiskFull(error))
            waiting = list(islice(self._queue, self._busy, None))
            for job, since in waiting:
                if isinstance(job, ReadLog):
                    self._queue.remove((job, since))
                    self.submit(job)
        self._around.schedule.after(RETRY_SECONDS, self._again)

    def _again(self) -> None:
        if self._ended:
            return
        try:
            with suppress(DiskFullError), self._condition.writing():
                self.store.checkpoint()
        except StorageError as error:
            self._fail(error)
        else:
            self._finish()

    def _read(self, job: ReadLog) -> None:
        if not self._ended:
            try:
                self._on_done(self.perform([job]))
            except StorageError as error:
                self._fail(error)

    def _fail(self, error: StorageError) -> None:
        """The process must end. How far the work under way came shows at the next start."""
        under_way = self._queue[0][0] if self._queue else None
        if isinstance(under_way, InstallBase | CompactLog):
            self._around.invariants.in_doubt(self.server, under_way.base)
        self._ended, self._busy = True, 0
        self.store.abandon()
        self._on_done(WriterFailed(error))

    def perform(self, group: list[Job]) -> Completion:
        """Carry it out on the real files, and tell the judge."""
        store, judge, counts = self.store, self._around.invariants, self._around.counts
        match group[0]:
            case LogWrite():
                writes = [job for job in group if isinstance(job, LogWrite)]
                store.write(writes)
                counts["disk writes"] += 1
                for write in writes:
                    judge.durable(self.server, write)
                return WritesDone(writes[-1].sequence, 0.0)
            case ReadLog(peer, session, first, max_bytes):
                previous_term, entries = store.read(first, max_bytes) or (0, None)
                counts["disk reads"] += 1
                return LogRead(peer, session, previous_term, entries)
            case FindChain(index):
                return ChainFound(index, store.chain_at(index))
            case CompactLog(base):
                done = store.set_base(base)
                judge.compacted(self.server, done)
                counts["compactions"] += 1
                return LogCompacted(done)
            case InstallBase(base):
                store.install(base)
                judge.installed(self.server, base)
                counts["snapshots installed"] += 1
                return BaseInstalled(base)
