"""Looks into the log on disk: at the entries that an operator wants to see, and at how old the oldest one is.

Reads go through the log writer's queue and come back as completions; nothing here waits. The age of the oldest entry is the
time that a follower may be away, and a snapshot may take to be sent and installed, without another snapshot being
needed (rule 83).
"""

from collections.abc import Callable

from coordd.errors import TimedOutError
from coordd.messages.client import LogRecord, LogRequest, LogTail
from coordd.messages.entry import COMMAND, decode_command
from coordd.server.log_text import log_record
from coordd.server.node import Node
from coordd.server.waiting import Answers, Waiter, error_body
from coordd.storage.writer import Job, LogRead, ReadLog
from coordd.types import Index, LogSlice, ServerId

__all__ = ["LogReader"]

_MOST_ENTRIES = 1000
_MOST_BYTES = 1024 * 1024
_OPERATOR, _OLDEST = ServerId("log"), ServerId("oldest")
"""Mark for whom a read was made."""
_OLDEST_BYTES = 64 * 1024
_LOOK_SECONDS = 1.0


class LogReader:
    """Mutable; one per server."""

    def __init__(
        self, *, node: Node, answers: Answers, submit: Callable[[Job], None], wall: Callable[[], float]
    ) -> None:
        self._node = node
        self._answers = answers
        self._submit = submit
        self._wall = wall
        self._number = 0
        self._waiting: dict[int, tuple[Waiter, int]] = {}
        self._look_at = 0.0
        self._looked_behind: Index | None = None
        self._written_at: float | None = None
        """Unix time of the oldest command in the log, as its leader stamped it."""

    @property
    def waiting(self) -> int:
        """Operators' requests that have no answer yet."""
        return len(self._waiting)

    def ask(self, request: LogRequest, waiter: Waiter) -> None:
        log = self._node.raft.replica.log
        count = max(1, min(request.count, _MOST_ENTRIES))
        first: Index = request.first or max(log.base_index + 1, log.durable - count + 1)
        if first > log.durable:
            self._answers.answer(waiter, LogTail(()))
            return
        self._number += 1
        self._waiting[self._number] = (waiter, count)
        self._submit(ReadLog(_OPERATOR, self._number, max(first, log.base_index + 1), _MOST_BYTES))

    def taken(self, read: LogRead) -> bool:
        """True: it was ours."""
        if read.peer == _OLDEST:
            self._written_at = _first_time(read.slice)
        elif read.peer == _OPERATOR:
            waiter, count = self._waiting.pop(read.session, (None, 0))
            if waiter is not None:
                self._answers.answer(waiter, LogTail(_records(read.slice, count)))
        else:
            return False
        return True

    def turn(self, now: float) -> None:
        """About ten times a second: answer who has waited too long, and look at the oldest entry where it has changed."""
        for number, (waiter, _) in list(self._waiting.items()):
            if waiter.deadline <= now:
                del self._waiting[number]
                self._answers.answer(waiter, error_body(TimedOutError("the disk did not answer in time")))
        log = self._node.raft.replica.log
        known = self._looked_behind == log.base_index and self._written_at is not None
        if not known and now >= self._look_at and log.durable > log.base_index:
            self._look_at, self._looked_behind = now + _LOOK_SECONDS, log.base_index
            self._submit(ReadLog(_OLDEST, 0, log.base_index + 1, _OLDEST_BYTES))

    def figures(self) -> dict[str, int | float]:
        """Where the log begins, and the age of its first command in seconds; -1 where there is none."""
        age = -1.0 if self._written_at is None else max(0.0, self._wall() - self._written_at)
        return {"oldest_index": self._node.raft.replica.log.base_index + 1, "oldest_entry_age_s": round(age, 1)}


def _records(piece: LogSlice | None, count: int) -> tuple[LogRecord, ...]:
    if piece is None:
        return ()
    rows = zip(range(piece.first, piece.last + 1), piece.terms(), piece.entries, strict=True)
    return tuple(log_record(index, term, entry) for index, term, entry in list(rows)[:count])


def _first_time(piece: LogSlice | None) -> float | None:
    for entry in piece.entries if piece is not None else ():
        if entry[0] == COMMAND:
            return decode_command(entry)[0].state_time / 1e9
    return None
