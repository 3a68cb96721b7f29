"""Virtual time: one queue of what will happen, and the clocks that each server reads.

`Schedule` runs actions in the order of their time; of two at the same time, the one scheduled first. Nothing here or
elsewhere in the simulator reads a real clock, except to report how fast a run was.
"""

import heapq
from collections.abc import Callable
from typing import Any

from tests.sim.violation import Violation

__all__ = ["Clock", "Schedule"]
MANY = 50_000
"""Events in one second: ten times those of a busy one."""


class Schedule:
    """What will happen, by virtual time in seconds since the start of the run."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._looked = 0, 0.0
        """Events and time at the last look at how much happens."""
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._made = 0

    def at(self, time: float, action: Callable[..., object], *arguments: Any) -> None:
        """Run an action at a time; one that has passed already means now."""
        self._made += 1
        heapq.heappush(self._heap, (time if time > self.now else self.now, self._made, action, arguments))

    def after(self, delay: float, action: Callable[..., object], *arguments: Any) -> None:
        self.at(self.now + delay, action, *arguments)

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Run everything that is due by `until`, or until `stop` says so. True if it was stopped.

        Raises: Violation if there is no end to what happens.
        """
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            self.events += 1
            if self.events % MANY == 0:
                self._look()
            action(*arguments)
            if stop is not None and stop():
                return True
        self.now = until
        return False

    def _look(self) -> None:
        events, time = self._looked
        self._looked = self.events, self.now
        if self.now - time < 1.0 and events:
            raise Violation(17, "servers keep each other busy with nothing", events=self.events - events, now=self.now)


class Clock:
    """One host's clocks. The monotonic one, which counts suspend, starts anywhere and runs at its own rate, within the drift
    a lease allows for. The wall clock runs at any rate, and somebody sets it."""

    def __init__(
        self, schedule: Schedule, start: float, rate: float, wall: float = 1.7e9, wall_rate: float = 1.0
    ) -> None:
        self._schedule = schedule
        self.start = start
        self.rate = rate
        self._wall = wall
        self._wall_rate = wall_rate

    def now(self) -> float:
        return self.start + self._schedule.now * self.rate

    def virtual(self, reading: float) -> float:
        """When, in virtual time, the clock will show `reading`."""
        return (reading - self.start) / self.rate

    def wall(self) -> float:
        """Seconds of the Unix epoch, or what this host believes them to be."""
        return self._wall + self._schedule.now * self._wall_rate

    def set_wall(self, change: float) -> None:
        """Somebody sets the wall clock forward, or back."""
        self._wall = max(0.0, self._wall + change)
