"""How long to wait for a leader, measured (the idea of Dynatune), between a floor and a ceiling. Pure.

A timeout that fits a rack makes servers of different places elect for ever, and one that fits those leaves a rack
waiting. So the leader measures how long a quorum takes to answer its heartbeats and how long its disk takes for a write,
derives a timeout and tells it with each heartbeat; a follower takes the longest of that, of its own floor, and of what its own
disk wants. What is told rises at once and falls only after less was wanted for a long while. Votes that come when nobody
counts them any more show a candidate that its timer was too short; it is more patient until it hears a leader.

No safety rests on any of this. Leases count on the floor alone, and whoever promises a leader not to vote keeps the promise for
what the leader told, and never for less than the floor (rules 25, 59). What the own disk wants makes nobody deaf for longer:
the others' timers don't know of it, and would run out again and again before this server listens (rule 16).

Invariant: floor <= deaf_for <= election_timeout <= ceiling. Times are monotonic seconds.
"""

import math
from collections import deque

__all__ = ["Timing"]

_TRIPS = 10
"""A campaign takes four ways; ten leave room for what is slower than usual."""
_SYNCS = 5
_STEPS = 4
"""Timeouts are told in fractions of the floor, or each measurement would move them."""
_ROUNDING = 1e-6
_FALL_AFTER = 30.0
_PATIENCE = 1.5
_TRIPS_KEPT, _TRIPS_LEAST = 16, 4
_TYPICAL = 0.75
_WRITES_KEPT = 200
_WRITES_LEAST = 20
"""Fewer durations say nothing. Up to a hundred it is the slowest of all that counts: one election costs a server a write or
two, and a slow disk should not have to see fifty of them before it is believed."""
_LOOK_EVERY = 8


class Timing:
    """Mutable; one per server, whatever its role."""

    def __init__(self, floor: float, ceiling: float, interval: float) -> None:
        """`interval`: between heartbeats. A ceiling below the floor is the floor."""
        self._floor = floor
        self._ceiling = max(floor, ceiling)
        self._interval = interval
        self.election_timeout = floor
        """The present one."""
        self.deaf_for = floor
        """Whoever heard a leader gives nobody else a vote for so long."""
        self._told = floor
        """By the leader; a leader goes on from what it was told before."""
        self._lower_since: float | None = None
        self._lower_peak = floor
        """The most that was wanted since less was wanted than is told."""
        self._patience = 0.0
        self._trips: deque[float] = deque(maxlen=_TRIPS_KEPT)
        self._trip_due = float("-inf")
        self._under_way: deque[tuple[int, float]] = deque()
        """(sequence, when it was handed over) of each write that is not yet durable."""
        self._disk_free_at = float("-inf")
        self._writes: deque[float] = deque(maxlen=_WRITES_KEPT)
        self._looked_at = 0
        self._disk_wants = 0.0

    # --- the own disk -------------------------------------------------------------------------------------------------

    def handed_over(self, sequence: int, now: float) -> None:
        self._under_way.append((sequence, now))

    def durable(self, sequence: int, now: float) -> None:
        """Everything up to this write is durable: one group, which began when the disk was done with the one before."""
        began = None
        while self._under_way and self._under_way[0][0] <= sequence:
            _, at = self._under_way.popleft()
            began = at if began is None else began
        if began is None:
            return
        self._writes.append(now - max(began, self._disk_free_at))
        self._disk_free_at = now
        self._looked_at += 1
        if self._looked_at % _LOOK_EVERY == 0 and len(self._writes) >= _WRITES_LEAST:
            self._disk_wants = _SYNCS * _quantile(self._writes, 0.99)
            self._decide()

    # --- the network --------------------------------------------------------------------------------------------------

    def took_office(self) -> None:
        self._trips.clear()
        self._lower_since = None

    def confirmed(self, trip: float, now: float) -> None:
        """Leader: a quorum has answered a round this long after it was sent. Of rounds made for reads few are taken."""
        if now >= self._trip_due:
            self._trip_due = now + self._interval / 2
            self._trips.append(trip)

    def announce(self, now: float) -> float:
        """Leader: what to tell with a heartbeat."""
        wanted = self._disk_wants
        if len(self._trips) >= _TRIPS_LEAST:
            self._patience = 0.0
            wanted = max(wanted, _TRIPS * _quantile(self._trips, _TYPICAL))
        wanted = self._fitting(wanted)
        if wanted >= self._told:
            self._told, self._lower_since = wanted, None
        elif self._lower_since is None:
            self._lower_since, self._lower_peak = now, wanted
        else:
            self._lower_peak = max(self._lower_peak, wanted)
            if now - self._lower_since >= _FALL_AFTER:
                self._told, self._lower_since = self._lower_peak, None
        self._decide()
        return self._told

    def heard_leader(self, told: float) -> None:
        """Follower: the leader's word, 0 if it said nothing of it."""
        self._patience = 0.0
        if told:
            self._told = self._fitting(told)
        self._decide()

    def late_vote(self, after: float) -> None:
        """Candidate: a vote came this long after it was asked for, and the campaign was over already."""
        self._patience = max(self._patience, _PATIENCE * after)
        self._decide()

    # --- what follows -------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        self.deaf_for = self._told
        self.election_timeout = self._fitting(max(self._told, self._disk_wants, self._patience))

    def _fitting(self, wanted: float) -> float:
        step = self._floor / _STEPS
        steps = math.ceil(min(self._ceiling, wanted) / step - _ROUNDING)
        return min(self._ceiling, max(self._floor, steps * step))


def _quantile(values: deque[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
