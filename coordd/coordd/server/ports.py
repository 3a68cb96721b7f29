"""What the driver of the core is given: the roles that daemon and simulator fill, each in its own way."""

from collections.abc import Callable
from typing import Protocol

from coordd.messages.peer import RaftMessage, StateWanted
from coordd.raft.output import SendSnapshot
from coordd.state.machine import Applied, Machine
from coordd.storage.writer import Job
from coordd.types import ServerId, SnapshotMeta, Term

__all__ = ["AppliedBatch", "Links", "SnapshotPort", "Writer"]


class Writer(Protocol):
    """`storage.writer.LogWriter`, or the simulator's disk."""

    def submit(self, job: Job) -> None: ...

    @property
    def pending_since(self) -> float | None: ...


class Links(Protocol):
    """Connections to other servers."""

    def send(self, message: RaftMessage | StateWanted) -> bool:
        """False: dropped. Raft repeats what matters."""
        ...


class SnapshotPort(Protocol):
    """Who builds, sends, receives and opens snapshot files (`server.snapshots`)."""

    def send(self, order: SendSnapshot, now: float) -> None:
        """The same order again is none: its transfer goes on."""
        ...

    def stop(self, peer: ServerId) -> None: ...

    def expect(self, leader: ServerId, session: int, term: Term, snapshot: SnapshotMeta, now: float) -> None: ...

    def adopt(self, snapshot: SnapshotMeta) -> str:
        """Give the received file its final place; returns the name of the state file."""
        ...

    def open(self, state_file: str, then: Callable[[Machine], None]) -> None:
        """Open the installed state and verify it, without holding up the loop; `then` is called on the loop. One that
        can't be opened ends the process."""
        ...

    def set_aside(self, state_file: str) -> None:
        """Keep a damaged file as evidence, under a name that is nobody's state."""
        ...


class AppliedBatch:
    """What one slice of applying did: results in order, each with the term of its entry."""

    __slots__ = ("applied", "size", "terms")

    def __init__(self, applied: list[Applied], terms: list[Term], size: int) -> None:
        self.applied = applied
        self.terms = terms
        self.size = size
        """Bytes of the entries."""
