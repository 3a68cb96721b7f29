"""How much may be on its way to one follower (rules 42, 46, 47), learned from the round trips of appends. Pure.

A window too small leaves a long way empty; one too large fills a queue, in which later appends, heartbeats behind them and
commits wait, while fewer entries share one message. So the window is tried out, once a round trip: it grows when it was what
held entries back and the quickest append of the round came back about as fast as ever, and shrinks when even that one must
have waited. The measure is the quickest round trip of the last seconds. So that a queue of our own making is not taken
for the way itself, now and then one round is sent through the smallest window.

Input: appends as they leave and are acknowledged, and whether entries had to wait. Output: `full`. One number moves, the
messages; the bytes keep their proportion to it.

Invariants: least <= limit <= most; an empty window is never full; the work is a constant for each append, however many
entries it carries.
"""

from collections import deque

from coordd.types import Index

__all__ = ["Window"]

_NEAR, _QUEUED = 1.75, 2.5
"""Multiples of the quickest round trip. A disk that writes in groups makes an append wait for the group before its own, so
twice is not yet a queue. Values by `tests/bench/window.py`."""
_JITTER = 0.001
"""Seconds by which a loop may be late without that meaning anything."""
_SHRINK = 0.75
_GROW = 1.125
_MEMORY_SECONDS = 10.0
"""After this long, and at most twice this long, an old measure is forgotten: ways change."""
_NEVER = float("inf")


class Window:
    """Mutable; one for each follower. Times are monotonic seconds."""

    __slots__ = (
        "_base",
        "_bytes",
        "_cleared_to",
        "_doubling",
        "_forget_at",
        "_held",
        "_least_bytes",
        "_limit_bytes",
        "_most",
        "_most_bytes",
        "_newest_base",
        "_quickest",
        "_resume",
        "_round_began",
        "_slots",
        "least",
        "limit",
    )

    def __init__(self, least: int, most: int, most_bytes: int, append_bytes: int) -> None:
        """Appends at least and at most, bytes at most; `append_bytes`: the largest append, of which `least` always fit."""
        self.least = min(least, most)
        self._least_bytes = self.least * append_bytes
        self._most = most
        self._most_bytes = most_bytes
        self._slots: deque[tuple[Index, int, float]] = deque()
        """(last index, bytes, when it was sent) of each append not yet acknowledged."""
        self._bytes = 0
        self._cleared_to: Index = 0
        """What was on its way when the window was cleared went up to here. An acknowledgement of it, when it has been sent
        again, may be for the first time, and measures nothing (as Karn's rule has it for TCP)."""
        self._held = False
        """In this round entries had to wait for room."""
        self._doubling = True
        """Nothing has queued yet: find the order of magnitude first."""
        self._resume = 0.0
        """Measuring through the smallest window; then back to this. 0: not measuring."""
        self._base = self._newest_base = self._quickest = _NEVER
        """Quickest round trips: that counts, of the present stretch of memory, of the present round."""
        self._forget_at = self._round_began = float("-inf")
        self._set(self.least)

    @property
    def full(self) -> bool:
        return len(self._slots) >= self.limit or self._bytes >= self._limit_bytes

    @property
    def in_flight(self) -> int:
        """Appends not yet acknowledged."""
        return len(self._slots)

    @property
    def bytes_in_flight(self) -> int:
        return self._bytes

    def hold(self) -> None:
        """Entries wait because it is full."""
        self._held = True

    def sent(self, last: Index, size: int, now: float) -> None:
        self._slots.append((last, size, now))
        self._bytes += size

    def acknowledged(self, index: Index, now: float) -> None:
        """The follower holds everything up to `index`."""
        last, sent = 0, 0.0
        while self._slots and self._slots[0][0] <= index:
            last, size, sent = self._slots.popleft()
            self._bytes -= size
        if last > self._cleared_to:
            self._quickest = min(self._quickest, now - sent)
            if sent >= self._round_began:
                self._end_round(now)

    def overdue(self, now: float, limit: float) -> bool:
        """The oldest append has been on its way for longer than `limit` seconds (rule 47)."""
        return bool(self._slots) and now - self._slots[0][2] > limit

    def clear(self) -> None:
        """What is on its way counts no more; what was learned stays."""
        if self._slots:
            self._cleared_to = max(self._cleared_to, self._slots[-1][0])
        self._slots.clear()
        self._bytes = 0

    def _end_round(self, now: float) -> None:
        """The first append that was sent in this round has come back: judge the window."""
        quickest, held = self._quickest, self._held
        self._quickest, self._held, self._round_began = _NEVER, False, now
        self._newest_base = min(self._newest_base, quickest)
        self._base = min(self._base, quickest)
        if self._resume:
            self._set(self._resume)
            self._resume = 0.0
        elif quickest > _QUEUED * self._base + _JITTER:
            self._doubling = False
            self._set(self.limit * _SHRINK)
        elif held and quickest <= _NEAR * self._base + _JITTER:
            self._set(self.limit * (2.0 if self._doubling else _GROW) + (0 if self._doubling else 1))
        if now >= self._forget_at:
            self._forget_at = now + _MEMORY_SECONDS
            self._base, self._newest_base = self._newest_base, _NEVER
            self._resume = self.limit
            self._set(self.least)

    def _set(self, limit: float) -> None:
        self.limit = max(self.least, min(self._most, int(limit)))
        self._limit_bytes = min(self._most_bytes, max(self._least_bytes, self._most_bytes * self.limit // self._most))
