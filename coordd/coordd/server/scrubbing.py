"""Reading the state's file again, now and then, so that a byte that has turned over in it is found before anything needs it.

First SQLite's own look at structure and indexes, in C on the helper thread; then the rows against their digests, in slices on the
loop, since hashing them is Python's work. What is found is told once; the caller then takes the state out of use. A state that was
replaced meanwhile is not judged by what its predecessor's file says.
"""

from collections.abc import Callable
from pathlib import Path

from coordd.errors import CoorddError
from coordd.server.helper import Helper
from coordd.server.node import Node
from coordd.state.scrub import Scrub, find_fault

__all__ = ["Scrubbing"]

_SLICE_SECONDS = 0.0015
_PAUSE_SECONDS = 0.01
"""Between two slices."""
_LONGEST_SECONDS = 60.0
"""What others have written can't be checkpointed while a table is read; a scrub that takes longer is given up."""


class Scrubbing:
    """Mutable; one per server."""

    def __init__(
        self,
        *,
        node: Node,
        helper: Helper,
        path: Callable[[str], Path],
        interval: float,
        report: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        """`path` of a state file by its name; `report(event, text)` goes to the log."""
        self._node = node
        self._helper = helper
        self._path = path
        self._interval = interval
        self._report = report
        self._clock = clock
        self._scrub: Scrub | None = None
        self._state_file = ""
        """What is being looked at; "": nothing."""
        self._began = 0.0
        self.next_at = clock() + interval
        """`turn` has something to do then."""
        self.done = 0

    def now(self) -> None:
        """Somebody has reason to doubt the file: do not wait for the next time."""
        if not self._state_file:
            self.next_at = 0.0

    def turn(self, now: float) -> None:
        """Once a turn of the loop. Raises: DamagedError if the state is damaged and no other server can help."""
        if now < self.next_at:
            return
        if not self._state_file:
            self._begin(now)
        elif self._scrub is not None:
            self._go_on(self._scrub, now)

    def _begin(self, now: float) -> None:
        self.next_at = now + self._interval
        if not self._node.has_state:
            return
        self._state_file, self._began, self.next_at = self._node.state_file, now, float("inf")
        path = self._path(self._state_file)
        self._helper.run(lambda: find_fault(path), self._looked, self._failed)

    def _looked(self, fault: str) -> None:
        if fault or self._node.state_file != self._state_file or not self._node.has_state:
            self._finish(fault)
            return
        self._scrub = Scrub(self._path(self._state_file), lambda: self._node.machine.digests)
        self.next_at = 0.0

    def _go_on(self, scrub: Scrub, now: float) -> None:
        self.next_at = now + _PAUSE_SECONDS
        if self._node.state_file != self._state_file or not self._node.has_state:
            self._finish("")
            return
        if now - self._began > _LONGEST_SECONDS:
            self._report("scrub given up", f"after {_LONGEST_SECONDS:g} s: the state is too large")
            self._finish("")
            return
        stop = self._clock() + _SLICE_SECONDS
        try:
            found = scrub.step(lambda: self._clock() >= stop)
        except CoorddError as error:
            self._failed(error)
            return
        if found is not None:
            self.done += not found
            self._finish(found)

    def _finish(self, fault: str) -> None:
        now, judged = self._clock(), self._state_file == self._node.state_file
        if self._scrub is not None:
            self._scrub.close()
        self._scrub, self._state_file = None, ""
        self.next_at = now + self._interval
        if fault and judged:
            self._node.lose_state(fault, now)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, CoorddError):
            raise error
        self._report("scrub failed", str(error))
        self._finish("")

    def close(self) -> None:
        if self._scrub is not None:
            self._scrub.close()
