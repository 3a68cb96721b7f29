"""How fast whole files are worked through beside the log: a rate, so that the log's syncs are not crowded out (rule 100).

For helper threads, since it waits; never on the loop. Work that is slower than the rate is not held up, and what is under
way ends when the process is to end.
"""

import threading
import time
from collections.abc import Callable

__all__ = ["UNLIMITED", "Pace", "Work"]

UNLIMITED = 1e15
"""Bytes per second; finite, so that it can be calculated with."""

_LONGEST_WAIT = 1.0
"""Of one call: a clock that jumps must not stop the work."""


class Pace:
    """The rate of one server's background work; shared by all of it."""

    def __init__(
        self,
        bytes_per_second: float = UNLIMITED,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """`clock` and `wait` (for so many seconds, or until `stop`) are for tests."""
        self.bytes_per_second = bytes_per_second
        self.clock = clock
        self._stopped = threading.Event()
        self.wait = wait or self._stopped.wait

    def stop(self) -> None:
        """End what is under way, and all that comes. From any thread."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def begin(self) -> "Work":
        """One piece of work begins now."""
        return Work(self)


class Work:
    """One pass through one file."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._began = pace.clock()

    def reached(self, size: int) -> bool:
        """So many bytes are done since the beginning: wait if that is too fast. False: it is to end."""
        ahead = size / self._pace.bytes_per_second - (self._pace.clock() - self._began)
        if ahead > 0:
            self._pace.wait(min(ahead, _LONGEST_WAIT))
        return not self._pace.stopped
