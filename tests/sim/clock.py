"""Virtual time: one queue of what will happen, and the clock that each server reads.

`Schedule` runs actions in the order of their time; of two at the same time, the one scheduled first. Nothing here or
elsewhere in the simulator reads a real clock, except to report how fast a run was.
"""

import heapq
from collections.abc import Callable
from typing import Any

__all__ = ["Clock", "Schedule"]


class Schedule:
    """What will happen, by virtual time in seconds since the start of the run."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._made = 0

    def at(self, time: float, action: Callable[..., object], *arguments: Any) -> None:
        """Run an action at a time; one that has passed already means now."""
        self._made += 1
        heapq.heappush(self._heap, (time if time > self.now else self.now, self._made, action, arguments))

    def after(self, delay: float, action: Callable[..., object], *arguments: Any) -> None:
        self.at(self.now + delay, action, *arguments)

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Run everything that is due by `until`, or until `stop` says so. True if it was stopped."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            self.events += 1
            action(*arguments)
            if stop is not None and stop():
                return True
        self.now = until
        return False


class Clock:
    """One host's monotonic clock: it starts anywhere and runs at its own rate, within the drift a lease allows for."""

    def __init__(self, schedule: Schedule, start: float, rate: float) -> None:
        self._schedule = schedule
        self.start = start
        self.rate = rate

    def now(self) -> float:
        return self.start + self._schedule.now * self.rate

    def virtual(self, reading: float) -> float:
        """When, in virtual time, the clock will show `reading`."""
        return (reading - self.start) / self.rate
