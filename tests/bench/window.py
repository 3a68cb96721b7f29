"""`python -m tests.bench.window`: what the window of appends to a follower is worth, in a model. Deterministic, a few seconds.

Clients, each with one write outstanding and a pause of chance length (seeded) behind it, write through a leader to one
follower, whose acknowledgement is the commit. The way has a latency and a bandwidth, the follower a time for each message
and a disk that writes everything that waits as one group.
The windows are the shipped ones: fixed ones are such whose floor is their ceiling. Printed for each: writes a second, median and
p99 of a write, and the p99 of how long a heartbeat takes to get through behind the appends.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from coordd.raft.window import Window

SECONDS = 25.0
WARM_UP = 5.0
MAX_BYTES = 4 * 1024 * 1024
APPEND_BYTES = 256 * 1024
APPEND_ENTRIES = 1024
TURN = 0.0003
"""Seconds between two turns of the leader's loop: what came meanwhile is one batch."""
HEARTBEAT = 0.060


class Way(NamedTuple):
    name: str
    clients: int
    pause: float
    """Seconds between a client's writes, on average."""
    size: int
    """Bytes of a write."""
    latency: float
    """One way, seconds."""
    bandwidth: float
    """Bytes a second."""
    message: float
    """Seconds that the follower needs for a message, whatever is in it."""
    sync: float
    disk: float
    """Bytes a second behind the sync."""


WAYS = (
    Way("same rack", 256, 0.005, 256, 0.0001, 1e9, 0.0001, 0.0015, 200e6),
    Way("slow disk", 256, 0.005, 256, 0.0001, 1e9, 0.0001, 0.020, 200e6),
    Way("busy follower", 1024, 0.005, 256, 0.0001, 1e9, 0.001, 0.0015, 200e6),
    Way("large values, slow disk", 256, 0.2, 16_384, 0.0001, 1e9, 0.0001, 0.005, 10e6),
    Way("other continent", 2048, 0.05, 1_024, 0.050, 100e6, 0.0001, 0.002, 200e6),
    Way("narrow way", 256, 0.05, 4_096, 0.010, 1.25e6, 0.0001, 0.002, 200e6),
)


class Result(NamedTuple):
    rate: float
    median: float
    p99: float
    beat: float


class Model:
    def __init__(self, way: Way, window: Window) -> None:
        self.way = way
        self.window = window
        self.now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._chance = random.Random(1)
        self._waiting: deque[float] = deque()
        """When each write that is not yet sent was made."""
        self._sent: deque[tuple[int, list[float]]] = deque()
        self._last = 0
        self._link_free = 0.0
        self._follower_free = 0.0
        self._to_disk: list[tuple[int, int]] = []
        self._writing = False
        self.latencies: list[float] = []
        self.beats: list[float] = []

    def run(self) -> Result:
        for _ in range(self.way.clients):
            self._pause()
        self._at(TURN, self._turn)
        self._at(HEARTBEAT, self._beat)
        while self._agenda and self.now < SECONDS:
            self.now, _, action = heapq.heappop(self._agenda)
            action()
        done, beats = sorted(self.latencies), sorted(self.beats)
        return Result(
            len(done) / (SECONDS - WARM_UP),
            done[len(done) // 2],
            done[len(done) * 99 // 100],
            beats[len(beats) * 99 // 100],
        )

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (when, self._order, action))

    def _pause(self) -> None:
        when = self.now + self._chance.expovariate(1 / self.way.pause)
        self._at(when, lambda: self._waiting.append(when))

    def _turn(self) -> None:
        self._flush()
        self._at(self.now + TURN, self._turn)

    def _flush(self) -> None:
        """As `raft.replication` streams."""
        while self._waiting:
            if self.window.full:
                self.window.hold()
                return
            count = min(len(self._waiting), APPEND_ENTRIES, max(1, APPEND_BYTES // self.way.size))
            made = [self._waiting.popleft() for _ in range(count)]
            self._last += count
            size = count * self.way.size
            self.window.sent(self._last, size, self.now)
            self._sent.append((self._last, made))
            last = self._last
            self._at(self._through_link(size), lambda last=last, size=size: self._arrived(last, size))  # type: ignore[misc]

    def _through_link(self, size: int) -> float:
        self._link_free = max(self._link_free, self.now) + size / self.way.bandwidth
        return self._link_free + self.way.latency

    def _beat(self) -> None:
        sent = self.now

        def taken() -> None:
            if sent > WARM_UP:
                self.beats.append(max(self.now, self._follower_free) - sent)

        self._at(self._through_link(50), taken)
        self._at(self.now + HEARTBEAT, self._beat)

    def _arrived(self, last: int, size: int) -> None:
        self._follower_free = max(self._follower_free, self.now) + self.way.message
        self._at(self._follower_free, lambda: self._taken(last, size))

    def _taken(self, last: int, size: int) -> None:
        self._to_disk.append((last, size))
        if not self._writing:
            self._write()

    def _write(self) -> None:
        group, self._to_disk = self._to_disk, []
        self._writing = bool(group)
        if group:
            took = self.way.sync + sum(size for _, size in group) / self.way.disk
            self._at(self.now + took, lambda: self._written(group))

    def _written(self, group: list[tuple[int, int]]) -> None:
        for last, _ in group:
            self._at(self.now + self.way.latency, lambda last=last: self._acknowledged(last))  # type: ignore[misc]
        self._write()

    def _acknowledged(self, last: int) -> None:
        self.window.acknowledged(last, self.now)
        while self._sent and self._sent[0][0] <= last:
            for made in self._sent.popleft()[1]:
                if made > WARM_UP:
                    self.latencies.append(self.now - made)
                self._pause()
        self._flush()


def measure(way: Way, least: int, most: int) -> Result:
    return Model(way, Window(least, most, MAX_BYTES, APPEND_BYTES)).run()


def main() -> None:
    print(f"{'':<26} {'window':>8} {'writes/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'heartbeat p99 ms':>17}")
    for way in WAYS:
        for name, least, most in (("2", 2, 2), ("64", 64, 64), ("adaptive", 2, 64)):
            rate, median, p99, beat = measure(way, least, most)
            print(f"{way.name:<26} {name:>8} {rate:>9,.0f} {median * 1e3:>8.1f} {p99 * 1e3:>8.1f} {beat * 1e3:>17.1f}")


if __name__ == "__main__":
    main()
