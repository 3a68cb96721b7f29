"""A server's helper thread in virtual time: shipped work on real files, carried out at the moment of its completion.

So what is under way when the power goes has not begun yet, and `disk` decides how far it comes. A stalled disk holds it up.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from coordd.errors import CoorddError
from tests.sim.chance import Chance
from tests.sim.condition import Condition
from tests.sim.surroundings import Surroundings

__all__ = ["VirtualHelper", "Work"]

Work = Callable[[], Any]


class VirtualHelper:
    """`server.helper.Helper` of one life: one job at a time. `on_sync` hears of each, which may have synced the state;
    `on_done` takes what is to be done on the loop."""

    def __init__(
        self,
        around: Surroundings,
        condition: Condition,
        chance: Chance,
        on_sync: Callable[[], None],
        on_done: Callable[[Callable[[], None]], None],
    ) -> None:
        self._around = around
        self._condition = condition
        self._chance = chance
        self._on_sync = on_sync
        self._on_done = on_done
        self._queue: deque[tuple[Work, Callable[[Any], None], Callable[[Exception], None]]] = deque()
        self._ended = False

    def run(self, work: Work, then: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        self._queue.append((work, then, failed))
        if len(self._queue) == 1:
            self._begin()

    def end(self) -> Work | None:
        """The process is gone. Returns what was being worked on."""
        self._ended = True
        return self._queue[0][0] if self._queue else None

    def _begin(self) -> None:
        now = self._around.schedule.now
        latency = self._around.tuning.write_latency * self._condition.slowness * (1.0 + 4.0 * self._chance.random())
        done = max(now, self._condition.stalled_until) + latency
        self._around.schedule.at(done, self._finish)
        self._condition.busy(now, done)

    def _finish(self) -> None:
        if self._ended:
            return
        if self._condition.stalled_until > self._around.schedule.now:
            self._around.schedule.at(self._condition.stalled_until, self._finish)
            return
        work, then, failed = self._queue.popleft()
        try:
            with self._condition.writing():
                result = work()
        except CoorddError as error:
            problem = error
            self._on_done(lambda: failed(problem))
        else:
            self._on_done(lambda: then(result))
        self._on_sync()
        if self._queue:
            self._begin()
