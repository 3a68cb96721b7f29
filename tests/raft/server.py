"""One core of a small cluster: its disk, and the queue of duties that its driver owes it."""

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from coordd.messages.entry import COMMAND
from coordd.messages.peer import RaftMessage
from coordd.raft.core import Raft
from coordd.raft.output import ReadEntries, Role, SendSnapshot
from coordd.raft.progress import Progress
from coordd.raft.replica import Leadership, Replica
from coordd.raft.settings import RaftSettings
from coordd.types import (
    Base,
    Configuration,
    HardState,
    Index,
    LogSlice,
    LogWrite,
    Member,
    ServerId,
    SnapshotMeta,
    Term,
    TermRun,
)

__all__ = ["Disk", "Server", "command", "configuration", "member", "piece", "runs_of", "sid"]


def sid(name: str) -> ServerId:
    return ServerId(name)


def command(text: str) -> bytes:
    """An entry that a client could have proposed; the core looks at the kind byte alone."""
    return bytes([COMMAND]) + text.encode()


def member(name: str, *, voter: bool = True, promote: bool = False, replaces: str | None = None) -> Member:
    return Member(
        sid(name), f"{name}:1", f"{name}:2", name * 40, voter, promote, sid(replaces) if replaces is not None else None
    )


def configuration(voters: Iterable[str], learners: Iterable[str] = ()) -> Configuration:
    members = [member(name) for name in voters] + [member(name, voter=False) for name in learners]
    return Configuration("cluster-id", "test", tuple(sorted(members, key=lambda m: m.id)))


def runs_of(first: Index, terms: Sequence[Term]) -> tuple[TermRun, ...]:
    return tuple((first + n, term) for n, term in enumerate(terms) if n == 0 or terms[n - 1] != term)


def piece(first: Index, terms: Sequence[Term]) -> LogSlice:
    """Entries of these terms, each of them different from any other of another index or term."""
    entries = [command(f"{index}@{term}") for index, term in enumerate(terms, start=first)]
    return LogSlice(first, entries, runs_of(first, terms))


@dataclass
class Disk:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    base: Base = field(default_factory=Base)
    entries: list[tuple[Term, bytes]] = field(default_factory=list)
    """Behind the base."""
    configurations: dict[Index, Configuration] = field(default_factory=dict)
    applied: Index = 0
    promised: Index = 0
    """The high-water mark: as in the real storage, the last durable index."""

    @property
    def last(self) -> Index:
        return self.base.index + len(self.entries)

    def term(self, index: Index) -> Term | None:
        if index == self.base.index:
            return self.base.term
        offset = index - self.base.index - 1
        return self.entries[offset][0] if 0 <= offset < len(self.entries) else None

    def slice(self, first: Index, last: Index) -> LogSlice:
        found = self.entries[first - self.base.index - 1 : last - self.base.index]
        return LogSlice(first, [entry for _, entry in found], runs_of(first, [term for term, _ in found]))

    def write(self, job: LogWrite) -> None:
        self.hard_state = job.hard_state
        if job.slice is not None:
            assert self.base.index < job.slice.first <= self.last + 1, "a gap in the log"
            del self.entries[job.slice.first - self.base.index - 1 :]
            self.entries += zip(job.slice.terms(), job.slice.entries, strict=True)
        self.promised = self.last

    def install(self, snapshot: SnapshotMeta) -> None:
        self.base = Base(
            snapshot.index, snapshot.term, 0, snapshot.configuration, snapshot.configuration_index, "state.db"
        )
        self.entries = []
        self.applied = snapshot.index
        self.promised = max(self.promised, snapshot.index)


class Server:
    """One core and the driver that does what `output.py` asks of it."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.id = sid(name)
        self.disk = disk
        self.boot = -1
        self.up = True
        self.trusted = True
        """False: its disk was made to lose what it had acknowledged, or the test speaks in its name."""
        self.auto_apply = True
        self.power_up(RaftSettings(), 0)

    def power_up(self, settings: RaftSettings, seed: int) -> None:
        self.boot += 1
        self.up = True
        self.raft = Raft(settings, random.Random(f"{seed}/{self.id}/{self.boot}"))
        self.jobs: deque[LogWrite | SnapshotMeta] = deque()
        self.handed = 0
        self.finished = 0
        self.held: deque[tuple[int, Term, RaftMessage]] = deque()
        self.to_apply: Index = 0
        self.deadline = float("inf")
        self.expected: tuple[ServerId, int, Term, SnapshotMeta] | None = None
        self.reads: dict[int, Index | None] = {}
        self.wanted_reads: list[ReadEntries] = []
        self.wanted_snapshots: list[SendSnapshot] = []
        self.facts: list[str] = []

    @property
    def replica(self) -> Replica:
        return self.raft.replica

    @property
    def role(self) -> Role:
        return self.raft.role

    @property
    def leading(self) -> Leadership:
        leading = self.raft.replica.leading
        assert leading is not None, f"{self.id} does not lead"
        return leading

    def progress(self, peer: str) -> Progress:
        return self.leading.peers[sid(peer)]

    def log(self) -> list[Term]:
        """The term of every entry in memory or below it, from 1 on, as long as it is known."""
        log = self.raft.replica.log
        return [log.term(index) or 0 for index in range(log.base_index + 1, log.last + 1)]

    def entries(self) -> list[bytes]:
        log = self.raft.replica.log
        return [log.entry(index) for index in range(log.first, log.last + 1)]
